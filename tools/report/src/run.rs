// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first and the last line of results, and what a line is.

use serde::{Deserialize, Serialize};

use crate::Case;

/// The version of the format that this crate writes and reads.
pub const VERSION: u32 = 1;

/// One line of results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Line {
    /// What runs.
    Run(Run),
    /// What became of one case.
    Case(Box<Case>),
    /// How the run ended.
    End(End),
}

/// What ran: the first line of results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Version of the format, [`VERSION`].
    pub v: u32,
    /// Name of the plan.
    pub plan: String,
    /// SHA-256 of the plan's file, in hex.
    pub plan_sha256: String,
    /// Version of Firebreak.
    pub firebreak: String,
    /// Commit that Firebreak was built from, where it is known.
    pub commit: Option<String>,
    /// Version of QEMU.
    pub qemu: String,
    /// QEMU's name of the CPU.
    pub cpu: String,
    /// The guests that take part.
    pub guests: Vec<Guest>,
    /// Seed of everything random.
    pub seed: u64,
    /// Which part of the plan this is; `None`: all of it.
    pub shard: Option<Shard>,
    /// Number of cases in this part of the plan.
    pub cases: u64,
    /// When it started (RFC 3339).
    pub started: String,
    /// The command that started it.
    pub command: String,
}

/// A guest that takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its name in the plan.
    pub name: String,
    /// What it is, as in `Linux 6.12.48`.
    pub what: String,
    /// SHA-256 of its image, in hex.
    pub sha256: String,
}

/// A part of a plan that runs apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shard {
    /// Which one, from 1.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

/// How a run ended: the last line of results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Number of cases that have a result.
    pub done: u64,
    /// Whether somebody stopped it.
    pub interrupted: bool,
    /// How long it took, in seconds.
    pub wall_s: f64,
    /// The budget that ended it: `time` or `cases`.
    pub budget_hit: Option<String>,
}
