// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was seen of one case, sorted by what it means and not yet judged.

/// How far an error got, as the hypervisor tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It waits for the guest to unmask it.
    Pending,
    /// The guest took it.
    Taken,
    /// The guest's ESB moved it into DISR_EL1.
    Deferred,
    /// It is pending no more, and nobody knows which of the two.
    Gone,
    /// It went on as one with a later one.
    Merged,
    /// The guest ended before it took it.
    Cancelled,
}

/// One step of an error's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, in nanoseconds of the machine's time since the case began.
    pub t_ns: u64,
    /// How far it got.
    pub stage: Stage,
    /// ESR_EL1 that belongs to it; none where nobody can know.
    pub esr: Option<u64>,
    /// Whether the place is exactly what was interrupted.
    pub exact: bool,
    /// The exception level that was interrupted.
    pub el: Option<u8>,
    /// The program counter that was interrupted.
    pub pc: Option<u64>,
    /// The event as it came.
    pub text: String,
}

/// A line of the guest that means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// The line.
    pub text: String,
    /// The ESR that stands in it.
    pub esr: Option<u64>,
}

impl Sign {
    /// Makes one without an ESR.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            esr: None,
        }
    }
}

/// Whether the error was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raised {
    /// Nobody answered.
    Unknown,
    /// It was refused, for this reason.
    Refused(String),
    /// It was.
    Yes,
}

/// What a moment promises of the guest's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// Whether SError is masked.
    pub masked: Option<bool>,
    /// The exception level.
    pub el: Option<u8>,
    /// An address near to which it is.
    pub near: Option<u64>,
}

/// What was seen of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What the moment promised.
    pub promise: Promise,
    /// How often it was tried before, and the guest was hit elsewhere than the moment promised.
    pub missed: u32,
    /// Whether the error was raised.
    pub raised: Raised,
    /// Its life.
    pub life: Vec<Step>,
    /// What triage decided about it, if it came through the firmware.
    pub verdicts: Vec<String>,
    /// The guest's reports.
    pub reports: Vec<Sign>,
    /// The guest's last words.
    pub panics: Vec<Sign>,
    /// Tasks that ended.
    pub task_kills: Vec<Sign>,
    /// Data that are not what they were.
    pub corruptions: Vec<Sign>,
    /// Lines that are nothing of all this.
    pub unusual: Vec<Sign>,
    /// Signs of life since the last thing that was done to it.
    pub beats: u32,
    /// How many are enough.
    pub beats_wanted: u32,
    /// How the partition ended: events of its end.
    pub ends: Vec<String>,
    /// The whole machine was reset, for this reason.
    pub machine_reset: Option<String>,
    /// The hypervisor failed, or somebody was hurt who has nothing to do with it.
    pub faults: Vec<String>,
    /// How late the bystander's latest tick was, if there is a bystander and it reported.
    pub bystander_late_ns: Option<u64>,
    /// QEMU or the host failed.
    pub host: Option<String>,
    /// It printed more than anybody reads.
    pub flooded: bool,
    /// It gave no sign of life for as long as it may.
    pub silent: bool,
}

impl Observation {
    /// Makes one in which nothing was seen yet.
    pub fn new(promise: Promise, beats_wanted: u32) -> Self {
        Self {
            promise,
            missed: 0,
            raised: Raised::Unknown,
            life: Vec::new(),
            verdicts: Vec::new(),
            reports: Vec::new(),
            panics: Vec::new(),
            task_kills: Vec::new(),
            corruptions: Vec::new(),
            unusual: Vec::new(),
            beats: 0,
            beats_wanted,
            ends: Vec::new(),
            machine_reset: None,
            faults: Vec::new(),
            bystander_late_ns: None,
            host: None,
            flooded: false,
            silent: false,
        }
    }

    /// Says whether the guest got the error.
    pub fn delivered(&self) -> bool {
        let stages = self.life.iter().map(|step| step.stage);
        stages
            .into_iter()
            .any(|stage| matches!(stage, Stage::Taken | Stage::Deferred | Stage::Gone))
    }

    /// Says whether the guest goes on.
    pub fn alive(&self) -> bool {
        self.beats >= self.beats_wanted
    }
}
