// SPDX-License-Identifier: MIT OR Apache-2.0
//! From evidence to verdict: a pure, total function.
//!
//! Neighbors: the SEI handler of the hypervisor asks it in NMI context, the host tool and
//! `docs/triage.md` ask the very same code. `firebreak-manifest` reads a partition's [`Policy`]
//! with [`Reaction::parse`].
//!
//! Invariants: no allocation, no formatting, no panic, no loop whose length depends on data;
//! every input has an answer; an answer never touches a partition other than the interrupted
//! one and the owner of the address.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

mod decide;
mod evidence;
mod lost;
mod owner;
mod policy;
mod verdict;

pub use decide::{decide, triage};
pub use evidence::{Evidence, GuestEl, Interrupted, RecordSummary};
pub use firebreak_syndrome::{CperSeverity, Iss, Severity};
pub use owner::{Owner, Part};
pub use policy::{Class, Policy, Reaction, ReactionError};
pub use verdict::{ContextVerdict, Decision, PageVerdict, Rule};
