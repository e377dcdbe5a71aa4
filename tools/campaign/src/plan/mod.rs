// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plan: which guests, hit by which errors, at which moments, and what is expected of them.
//!
//! [`read()`] takes it from its file and says what is wrong with it, with the line and the remedy.
//! `docs/campaigns.md` describes the file for people who write one.

mod check;
mod errors;
mod guests;
mod moments;
mod read;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use firebreak_image::Source;
use firebreak_report::Class;

pub use read::read;

/// A whole plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// What it is about, in a sentence.
    pub about: String,
    /// Its file.
    pub path: PathBuf,
    /// The file's text.
    pub source: Source,
    /// Seed of everything that is random.
    pub seed: u64,
    /// How often each case is run.
    pub repetitions: u32,
    /// How the machine is brought back.
    pub reset: ResetChoice,
    /// Who is hit.
    pub guests: Vec<Guest>,
    /// By what.
    pub errors: Vec<ErrorKind>,
    /// When.
    pub moments: Vec<Moment>,
    /// How the firmware behaves: modes of the reference firmware.
    pub firmware: Vec<String>,
    /// What the hypervisor is told to do about errors.
    pub policies: Vec<Policy>,
    /// What lines mean, besides what is known of each kind of guest.
    pub patterns: Vec<Pattern>,
    /// What should come of it.
    pub expectations: Vec<Expectation>,
}

/// How the machine is brought to the starting point of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetChoice {
    /// The fastest that works, by a measurement when the machine has booted.
    Auto,
    /// A snapshot of the whole machine.
    Snapshot,
    /// The hypervisor restarts the partition.
    Restart,
    /// Another boot.
    Cold,
}

/// What is known of a guest before it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Like {
    /// The bare-metal guest of `guest-images/victim`.
    Victim,
    /// Linux with the agent of `guest-images/agent`.
    Linux,
    /// U-Boot at its prompt.
    UBoot,
    /// Anything: its patterns are in the plan.
    Other,
}

/// Who is hit.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its name in the plan.
    pub name: String,
    /// The partition file.
    pub system: PathBuf,
    /// Which of its partitions.
    pub partition: String,
    /// What it is; empty: found out.
    pub what: String,
    /// Its kind.
    pub like: Like,
    /// Whether the reference firmware is there.
    pub firmware: bool,
    /// QEMU's CPU model.
    pub cpu: String,
    /// Number of PEs.
    pub smp: u32,
    /// RAM of the machine.
    pub memory_mib: u32,
    /// Whether time is a count of instructions.
    pub icount: bool,
    /// Start of the line that says that the guest is up.
    pub ready: String,
    /// How many signs of life show that it goes on.
    pub beats: u32,
    /// How long it may be silent, in seconds of the machine's time.
    pub silence_s: u64,
    /// A partition beside it whose lines say how many ticks it missed.
    pub bystander: Option<String>,
    /// ELF file of the guest, for symbols.
    pub symbols: Option<PathBuf>,
}

/// What a guest is hit by.
#[derive(Clone, Debug)]
pub struct ErrorKind {
    /// Its name.
    pub name: String,
    /// What it is.
    pub what: What,
    /// Names of the guests that it is for; empty: all.
    pub guests: Vec<String>,
}

/// How an error is raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A virtual SError, by a command of the hypervisor.
    Serror {
        /// ESR_EL1\[24:0\].
        iss: u32,
    },
    /// A virtual external abort, by a command of the hypervisor.
    Sea {
        /// `data` or `fetch`.
        met_by: String,
        /// FAR_EL1, or none: FnV.
        far: Option<u64>,
        /// ISS without FnV, EA and the like.
        iss: u32,
    },
    /// An error of the firmware, with a record.
    Firmware(FirmwareError),
}

/// An error that the reference firmware raises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareError {
    /// Syndrome.
    pub iss: u32,
    /// Severity of the record: a word of `raise`.
    pub severity: String,
    /// Where in memory.
    pub place: Place,
    /// How many of them; more than one is a storm.
    pub count: u32,
    /// Makes it an external abort met by `data` or `fetch`.
    pub sync: Option<String>,
    /// Waits until a guest runs.
    pub in_guest: bool,
    /// Which vCPU's PE takes it.
    pub vcpu: usize,
    /// The PE that takes it, if it is another one.
    pub pe: Option<u8>,
    /// What the firmware makes of it, whatever else it makes of errors.
    pub behavior: Option<String>,
}

/// The memory that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// None: the record names no address.
    Nowhere,
    /// A physical address.
    Pa(u64),
    /// An address of the guest.
    Ipa(u64),
    /// The address that the guest prints behind this text.
    Said(String),
    /// The last translation table on the way to the virtual address that the guest prints behind this text.
    TableOf(String),
    /// A symbol of the guest, and so many bytes behind it.
    Symbol(String, u64),
}

/// When a guest is hit.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Its name.
    pub name: String,
    /// Names of the guests that it is for; empty: all.
    pub guests: Vec<String>,
    /// What is typed into the guest, and the line to wait for.
    pub prepare: Vec<Typed>,
    /// Exception level at which it is hit.
    pub el: Option<u8>,
    /// It is hit near the address that it prints behind this text.
    pub near: Option<String>,
    /// Whether it has SError masked then; `None`: nobody knows.
    pub masked: Option<bool>,
    /// The hypervisor waits until it is at EL1 with SError `masked`, or `unmasked`.
    pub spot: Option<String>,
    /// Before its first instruction.
    pub at_start: bool,
    /// The guest stands at this address.
    pub at: Option<Address>,
    /// So many instructions after that.
    pub steps: Steps,
    /// What is typed once the error was raised.
    pub then: Vec<Typed>,
    /// How long after the error that is, in nanoseconds of the machine's time.
    pub then_after_ns: u64,
}

/// Something typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// The text; a line feed is not added.
    pub text: String,
    /// Start of the line that shows that it was understood; empty: nothing is waited for.
    pub until: String,
}

/// A place in the guest's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A virtual address.
    Virtual(u64),
    /// A symbol.
    Symbol(String),
}

/// How many instructions later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Exactly.
    Exactly(u32),
    /// As the seed says, in these bounds, both included.
    Random(u32, u32),
}

/// What the hypervisor is told to do about errors.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Classes and reactions, as under `[partition.on_error]`.
    pub on_error: Vec<(String, String)>,
}

/// What a line of the guest means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It goes on.
    Alive,
    /// It goes on, and its data are not what they were.
    Corrupted,
    /// It reports the error.
    Reported,
    /// It stopped itself.
    Panicked,
    /// One of its tasks was killed.
    TaskKilled,
    /// An ordinary line.
    Usual,
}

/// A line of the guest, and what it means.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// Names of the guests that it is for; empty: all.
    pub guests: Vec<String>,
    /// The line, with `*` for anything.
    pub line: String,
    /// What it means.
    pub means: Meaning,
    /// Behind this text stands the ESR of the error.
    pub esr_after: Option<String>,
    /// Behind this text stands the DISR of the error.
    pub disr_after: Option<String>,
}

/// What should become of some cases.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Pattern of the error's name.
    pub error: String,
    /// Of the moment's.
    pub moment: String,
    /// Of the guest's.
    pub guest: String,
    /// Of the policy's.
    pub policy: String,
    /// Of the firmware's behavior.
    pub firmware: String,
    /// One of these.
    pub classes: Vec<Class>,
    /// Where it stands.
    pub span: std::ops::Range<usize>,
}
