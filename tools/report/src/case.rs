// SPDX-License-Identifier: MIT OR Apache-2.0
//! One case: what was done to a guest, what became of it, and how one knows.

use serde::{Deserialize, Serialize};

use crate::Class;

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Its name, which no other case of the plan has, and by which it can be run alone.
    pub name: String,
    /// The guest's name in the plan.
    pub guest: String,
    /// The error's name in the plan.
    pub error: String,
    /// The moment's name in the plan.
    pub moment: String,
    /// What Firebreak's policy does with the error, as in `inject`.
    pub policy: String,
    /// How the firmware behaves, as in `conforming`.
    pub firmware: String,
    /// Whether the guest can see that its CPU has the RAS extension.
    pub ras_visible: bool,
    /// Which repetition, from 0.
    pub repetition: u32,
    /// What became of the guest.
    pub class: Class,
    /// What the plan expects; `None`: nothing.
    pub expected: Option<Vec<Class>>,
    /// Whether it is as expected; `None`: nothing is expected, or the result is inconclusive.
    pub ok: Option<bool>,
    /// The rule that decided, in one sentence.
    pub reason: String,
    /// What the rule was applied to.
    pub evidence: Vec<Evidence>,
    /// What happened, in order.
    pub timeline: Vec<Event>,
    /// The last lines of the guest's console.
    pub console: Vec<String>,
    /// The syndrome (ESR format) that the guest was given, in hex.
    pub syndrome: Option<String>,
    /// The syndrome, decoded.
    pub syndrome_words: Vec<String>,
    /// Firebreak's record of the error.
    pub record: Option<serde_json::Map<String, serde_json::Value>>,
    /// The command that runs this case alone.
    pub command: String,
    /// How the machine was brought to the starting point.
    pub reset: Reset,
    /// How long it took, in milliseconds.
    pub wall_ms: u64,
}

/// Something seen that decides what a case's class is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Who said it.
    pub source: Source,
    /// When, in nanoseconds of the guest's time since the case began, where that is known.
    pub t_ns: Option<u64>,
    /// What was seen.
    pub text: String,
}

/// Something that happened during a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in nanoseconds of the guest's time since the case began.
    pub t_ns: u64,
    /// Who said it.
    pub source: Source,
    /// What happened.
    pub text: String,
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The guest.
    Guest,
    /// Firebreak.
    Hypervisor,
    /// The firmware at EL3.
    Firmware,
    /// The campaign, on the machine that runs QEMU.
    Host,
}

impl Source {
    /// Returns its name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Hypervisor => "hypervisor",
            Self::Firmware => "firmware",
            Self::Host => "host",
        }
    }
}

/// How the machine was brought to the starting point of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reset {
    /// A snapshot of the whole machine was restored.
    Snapshot,
    /// Firebreak restarted the partition.
    Restart,
    /// The machine booted anew.
    Cold,
}
