// SPDX-License-Identifier: MIT OR Apache-2.0
//! Campaigns: what a guest makes of each error at each moment, thousands of times, as a table.
//!
//! A [`plan::Plan`] is read from its file and expanded into [`Case`]s ([`choose`]). [`run()`] boots a
//! machine for each guest, brings it back to the same starting point for each case, has the error
//! raised, and sorts what it sees into an [`Observation`], which [`classify()`] judges. Results are
//! `firebreak-report`'s. Nothing here sleeps to let something happen, and how long a guest may be
//! silent is counted in the machine's own time.
#![forbid(unsafe_code)]

mod classify;
mod glob;
mod live;
mod matrix;
mod observation;
mod observer;
mod output;
pub mod plan;
mod prepare;
mod progress;
mod result;
mod rig;
mod run;
mod scratch;
mod symbols;
mod walk;
mod words;

pub use classify::{Verdict, classify};
pub use matrix::{Case, expand, expected};
pub use observation::{Observation, Promise, Raised, Sign, Stage, Step};
pub use prepare::{Error, Files};
pub use run::{Options, Summary, choose, estimate, run};
