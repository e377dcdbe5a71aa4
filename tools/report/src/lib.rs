// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results of campaigns.
//!
//! A campaign writes one JSON object a line while it runs ([`Line`]): first what ran ([`Run`]),
//! then one [`Case`] after the other, and at last how it ended ([`End`]). A run that was killed
//! leaves a file without an end, perhaps cut in the middle of a line: it is read up to there, and
//! what was left out is said ([`LeftOut`]). docs/reports.md describes the format for its readers.

#![forbid(unsafe_code)]

mod case;
mod class;
mod compare;
mod junit;
mod merge;
mod order;
mod page;
mod read;
mod run;
mod summary;
mod write;

pub use case::{Case, Event, Evidence, Reset, Source};
pub use class::Class;
pub use compare::{Change, Comparison, Kind, Outcome, compare};
pub use junit::junit;
pub use merge::{MergeError, Named, merge, warnings};
pub use order::natural;
pub use page::{html, html_compare};
pub use read::{LeftOut, ReadError, Results, read, read_file};
pub use run::{End, Guest, Line, Run, Shard, VERSION};
pub use summary::{Counts, json as summary_json, text};
pub use write::Writer;
