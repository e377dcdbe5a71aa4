// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that the hypervisor reports, by name.
//!
//! Each event is one JSON object `{"v":1,"t":<CNTPCT ticks>,"ev":"<name>",...}`. Addresses and
//! syndromes are strings (`"0x..."`), because a JSON number does not hold 64 bits everywhere;
//! counts are numbers. Members are only ever added; a member that changes its meaning raises
//! [`SCHEMA_VERSION`].

#[cfg(test)]
mod tests;
mod write;

pub use write::write_event;

use crate::aftermath::{BootErrorRecord, Crash, CrashRecord, LogEntry};
use crate::answer::Detail;

/// Value of `v` in each event.
pub const SCHEMA_VERSION: u64 = 1;

/// The exception level that an error interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// A guest's user space.
    El0,
    /// A guest's kernel.
    El1,
    /// The hypervisor itself.
    El2,
}

impl Level {
    /// Returns `el0`, `el1` or `el2`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::El0 => "el0",
            Self::El1 => "el1",
            Self::El2 => "el2",
        }
    }
}

/// How far a virtual SError got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VserrorState {
    /// HCR_EL2.VSE is set, and the guest has not taken it.
    Pending,
    /// The guest took the exception.
    Taken,
    /// The guest's ESB moved it into DISR_EL1.
    Deferred,
    /// The guest was reset or stopped before it took it.
    Cancelled,
    /// A second one came on top: both live on in the injection that is told next.
    Merged,
    /// It is pending no more, but whether it was taken or deferred has been overwritten since.
    Gone,
}

impl VserrorState {
    /// Returns the word that the event carries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Taken => "taken",
            Self::Deferred => "deferred",
            Self::Cancelled => "cancelled",
            Self::Merged => "merged",
            Self::Gone => "gone",
        }
    }
}

/// Who left a boot error record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordSource {
    /// EL3, before it reset the machine.
    Firmware,
    /// The hypervisor's crash page.
    Hypervisor,
}

impl RecordSource {
    /// Returns `firmware` or `hypervisor`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Hypervisor => "hypervisor",
        }
    }
}

/// One piece of a partition's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ram {
    /// Where the guest sees it.
    pub ipa: u64,
    /// Where it is.
    pub pa: u64,
    /// Its length in bytes.
    pub len_bytes: u64,
}

/// A hardware error and what triage made of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrorEvent<'a> {
    /// Number of the error: the firmware's own if a record gave one, else counted by the hypervisor.
    pub id: u64,
    /// PE that took it.
    pub pe: u8,
    /// Partition that it interrupted.
    pub vm: Option<u8>,
    /// Name of that partition.
    pub name: Option<&'a str>,
    /// What it interrupted.
    pub from: Level,
    /// ELR_EL2.
    pub pc: u64,
    /// ESR_EL2.ISS.
    pub iss: u64,
    /// It came as a synchronous external abort, and `iss` is that of an abort.
    pub sync: bool,
    /// `UC`, `UEU`, `UER`, `UEO`, `CE`, `IMPDEF` or `uncategorized`.
    pub severity: &'a str,
    /// `recoverable`, `fatal`, `corrected`, `informational` or `none`.
    pub cper: &'a str,
    /// Physical address that the record names.
    pub pa: Option<u64>,
    /// What owns that address.
    pub owner: &'a str,
    /// Partition that owns it.
    pub page_vm: Option<u8>,
    /// What was decided.
    pub verdict: &'a str,
    /// Row of the triage table that decided it.
    pub rule: &'a str,
    /// What was interrupted: `guest`, `hypervisor` (at work) or `idle`.
    pub context: &'a str,
    /// Severity by the syndrome alone; none on a CPU without FEAT_RAS.
    pub syndrome_severity: Option<&'a str>,
    /// Severity by the record alone; none without one.
    pub record_severity: Option<&'a str>,
    /// What the memory is for: a word of the table in `docs/triage.md`, or `none`.
    pub owner_class: &'a str,
    /// Corrected errors of this page in its window of time, this one included; 0 for another kind
    /// of error.
    pub corrected_on_page: u64,
    /// The limit that holds for this page; 0: none.
    pub corrected_limit: u64,
}

/// Something worth telling a person or a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// The hypervisor runs on all its PEs.
    Boot {
        /// Version of the hypervisor.
        version: &'a str,
        /// Board, as the devicetree names it.
        board: &'a str,
        /// Number of PEs.
        pes: u64,
        /// Whether every PE has FEAT_RAS.
        ras: bool,
        /// `compatible` of the firmware-first source, or none.
        firmware: Option<&'a str>,
        /// Number of partitions.
        partitions: u64,
        /// What the serial line runs at, in bits a second; none if it takes no time.
        line: Option<u32>,
    },
    /// A partition was built.
    Partition {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
        /// Number of its vCPUs.
        vcpus: u64,
        /// PE of each vCPU.
        pes: &'a [u8],
        /// Its memory.
        ram: &'a [Ram],
    },
    /// A partition's first vCPU was entered.
    Started {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
        /// How often it was restarted before.
        restarts: u64,
    },
    /// A hardware error.
    Error(ErrorEvent<'a>),
    /// A virtual SError changed its state.
    Vserror {
        /// Partition.
        vm: u8,
        /// vCPU inside the partition.
        vcpu: u8,
        /// Identity of the injection.
        inj: u64,
        /// VSESR_EL2\[24:0\]; none where it cannot be chosen (no FEAT_RAS).
        syndrome: Option<u64>,
        /// How far it got.
        state: VserrorState,
        /// Where the guest was interrupted when it took it.
        elr: Option<u64>,
        /// The exception level that it was interrupted at.
        el: Option<Level>,
        /// Whether `elr` and `el` are what the guest was interrupted at; otherwise they are
        /// ELR_EL1 and SPSR_EL1 at a later look: a hint.
        exact: bool,
    },
    /// A page was taken away from a partition for good.
    Retired {
        /// Partition.
        vm: u8,
        /// Where the guest saw it.
        ipa: u64,
        /// The page.
        pa: u64,
    },
    /// A guest got a synchronous external abort (rate limited).
    Abort {
        /// Partition.
        vm: u8,
        /// vCPU inside the partition.
        vcpu: u8,
        /// What it touched.
        ipa: u64,
        /// FAR_EL1 as it was given.
        far: u64,
        /// Guest's program counter.
        pc: u64,
        /// Whether it wrote.
        write: bool,
        /// Whether the page was retired.
        retired: bool,
    },
    /// A guest got an UNDEF for a trap that nobody handles.
    Undef {
        /// Partition.
        vm: u8,
        /// vCPU inside the partition.
        vcpu: u8,
        /// Guest's program counter.
        pc: u64,
        /// ESR_EL2 of the trap.
        esr: u64,
    },
    /// A partition was killed.
    Killed {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// A partition is restarted.
    Restart {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
        /// Why.
        reason: &'a str,
        /// How often, this time included.
        count: u64,
    },
    /// A partition stopped and stays so.
    Stopped {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// A partition let its watchdog expire.
    Watchdog {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
    },
    /// A partition says by its pvpanic device that it panics.
    Pvpanic {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
        /// What it says: bit 0 that it panics, bit 1 that it goes on with a kernel of its own for that.
        events: u8,
    },
    /// Output was left out, because there was too much.
    Suppressed {
        /// What: `console:<name>` or the name of an event.
        what: &'a str,
        /// Bytes or events since the last time that this was told.
        count: u64,
    },
    /// The boot before this one ended with an error.
    BootErrorRecord(BootErrorRecord<'a>),
    /// An SError, or a synchronous external abort, without a record.
    Unclaimed {
        /// PE that took it.
        pe: u8,
        /// ESR_EL2.ISS.
        iss: u64,
    },
    /// A record stood unacknowledged of which no SEI had told.
    Unnotified {
        /// PE whose source it was.
        pe: u8,
    },
    /// The hypervisor failed.
    Panic {
        /// PE that failed.
        pe: u8,
        /// What it says.
        text: &'a str,
    },
    /// The configuration or the machine cannot be used.
    Halt {
        /// Why, and the remedy.
        text: &'a str,
    },
    /// A guest was made to take a synchronous external abort by a command.
    Vsea {
        /// Partition.
        vm: u8,
        /// vCPU inside the partition.
        vcpu: u8,
        /// Identity of the injection.
        inj: u64,
        /// ESR_EL1 as it was given.
        esr: u64,
        /// FAR_EL1 as it was given.
        far: Option<u64>,
        /// Where the guest was interrupted, exactly.
        elr: u64,
        /// The exception level that it was interrupted at.
        el: Level,
    },
    /// A command was carried out, or refused.
    Answer {
        /// The caller's number.
        id: Option<u64>,
        /// Whether it was done.
        ok: bool,
        /// Why not, or what has to be known about it.
        text: &'a str,
        /// What else there is to say.
        detail: Detail<'a>,
    },
    /// Memory of the hypervisor's own went bad, and it does without from now on.
    GivenUp {
        /// What it was for: as [`ErrorEvent::owner_class`].
        what: &'a str,
        /// Partition that it served.
        vm: Option<u8>,
        /// The page.
        pa: u64,
    },
    /// What a failing hypervisor leaves: now, or found at the next boot.
    Crash(Crash<'a>),
    /// An error record that waited then.
    CrashRecord(CrashRecord<'a>),
    /// An entry of the log of the boot before this one.
    Log(LogEntry<'a>),
    /// The accounts of a PE's recovery queue since boot. `reported` and `suppressed` errors add up to
    /// `finished` records, the one in hand aside.
    Queue {
        /// Its PE.
        pe: u8,
        /// Records that it took in.
        published: u64,
        /// Records that were worked off.
        finished: u64,
        /// Records that wait or are being worked on.
        pending: u64,
        /// Records that it refused because it was full; the firmware kept each until it was not.
        refused: u64,
        /// Errors that were reported one by one.
        reported: u64,
        /// Errors that were only counted.
        suppressed: u64,
    },
    /// A spare page stands behind a page that was retired, from this start of the partition on.
    Spare {
        /// Partition.
        vm: u8,
        /// Where the guest sees it.
        ipa: u64,
        /// The spare page.
        pa: u64,
        /// Spare pages that are left.
        left: u64,
    },
}
