// SPDX-License-Identifier: MIT OR Apache-2.0
//! What triage answers.

use core::fmt;

use firebreak_abi::{Pa, VmId};
use firebreak_syndrome::{Iss, Severity};

use crate::owner::Owner;

/// The answer to both questions, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// How bad it is, by syndrome and record together.
    pub severity: Severity,
    /// May the interrupted context resume?
    pub context: ContextVerdict,
    /// Whose page is it, and what becomes of it?
    pub page: PageVerdict,
    /// What decided.
    pub rule: Rule,
}

impl Decision {
    /// What is decided as long as nothing is known: the machine cannot be trusted.
    pub const RESET: Self = Self {
        severity: Severity::Uncontainable,
        context: ContextVerdict::ResetMachine,
        page: PageVerdict::None,
        rule: Rule::Uncontainable,
    };

    /// Returns the verdict as one word for events: the graver of the two answers.
    pub const fn verdict_name(&self) -> &'static str {
        if self.page.rank() > self.context.rank() {
            self.page.name()
        } else {
            self.context.name()
        }
    }

    /// Returns the partition that is to be stopped because it was interrupted or because the
    /// page is its own, and whether it is started again. At most one of each.
    pub const fn stops(&self) -> [Option<(VmId, bool)>; 2] {
        let context = match self.context {
            ContextVerdict::Kill { vm } => Some((vm, false)),
            ContextVerdict::Restart { vm } => Some((vm, true)),
            _ => None,
        };
        let page = match self.page {
            PageVerdict::Kill { vm, .. } => Some((vm, false)),
            PageVerdict::Restart { vm, .. } => Some((vm, true)),
            PageVerdict::StopOwner { vm, again, .. } => Some((vm, again)),
            _ => None,
        };
        [context, page]
    }

    /// Returns the page that is to be taken away from a partition for good, and that partition.
    pub const fn retires(&self) -> Option<(VmId, Pa)> {
        match self.page {
            PageVerdict::Retire { vm, pa, .. }
            | PageVerdict::Kill { vm, pa }
            | PageVerdict::Restart { vm, pa } => Some((vm, pa)),
            _ => None,
        }
    }
}

/// What becomes of the interrupted context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContextVerdict {
    /// It goes on as if nothing had happened.
    Resume,
    /// The interrupted vCPU gets a virtual SError.
    Inject {
        /// Its partition.
        vm: VmId,
        /// The syndrome.
        iss: Iss,
    },
    /// The partition is stopped for good.
    Kill {
        /// The partition.
        vm: VmId,
    },
    /// The partition is stopped and started afresh.
    Restart {
        /// The partition.
        vm: VmId,
    },
    /// The machine is reset, with a boot error record.
    ResetMachine,
}

impl ContextVerdict {
    const fn rank(self) -> u8 {
        match self {
            Self::Resume => 0,
            Self::Inject { .. } => 2,
            Self::Restart { .. } => 4,
            Self::Kill { .. } => 5,
            Self::ResetMachine => 6,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Resume => "log",
            Self::Inject { .. } => "inject",
            Self::Kill { .. } => "kill",
            Self::Restart { .. } => "restart",
            Self::ResetMachine => "reset",
        }
    }
}

/// What becomes of the page, and of its owner where that is not the interrupted partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageVerdict {
    /// The record names no address, or the machine is reset.
    None,
    /// It is reported.
    Log {
        /// The owner.
        owner: Owner,
    },
    /// It is unmapped and never handed out again.
    Retire {
        /// Its owner.
        vm: VmId,
        /// An address in it.
        pa: Pa,
        /// The syndrome to tell its owner with; `None` when the owner was interrupted, because
        /// the context's verdict then says what it is told.
        inject: Option<Iss>,
    },
    /// Its content is still good, but it had too many corrected errors: it is replaced by a
    /// spare frame with the same content, or, where that cannot be done under a running guest,
    /// not handed out again when the partition next starts.
    RetireEarly {
        /// Its owner.
        vm: VmId,
        /// An address in it.
        pa: Pa,
        /// As in [`Retire`](Self::Retire).
        inject: Option<Iss>,
    },
    /// It is unmapped from every partition that shares it.
    RetireShared {
        /// An address in it.
        pa: Pa,
    },
    /// Its owner is told.
    Inject {
        /// The owner.
        vm: VmId,
        /// The syndrome.
        iss: Iss,
    },
    /// Its owner is stopped for good; the page is retired.
    Kill {
        /// The owner.
        vm: VmId,
        /// An address in the page.
        pa: Pa,
    },
    /// Its owner is stopped and started afresh without the page.
    Restart {
        /// The owner.
        vm: VmId,
        /// An address in the page.
        pa: Pa,
    },
    /// It holds stage-2 tables of a partition that was not interrupted: that partition is
    /// stopped, and has other tables in its next life.
    StopOwner {
        /// The partition.
        vm: VmId,
        /// An address in the frame.
        pa: Pa,
        /// Whether it is started again.
        again: bool,
    },
    /// The hypervisor does without it from now on: a frame of its pool, the image that a
    /// partition is loaded from, its crash page, or tables of the partition that the context's
    /// verdict stops.
    GiveUp {
        /// What it is.
        owner: Owner,
        /// An address in it.
        pa: Pa,
    },
}

impl PageVerdict {
    const fn rank(self) -> u8 {
        match self {
            Self::None | Self::Log { .. } => 0,
            Self::RetireEarly { .. } => 1,
            Self::Inject { .. } => 2,
            Self::Retire { .. } | Self::RetireShared { .. } | Self::GiveUp { .. } => 3,
            Self::Restart { .. } | Self::StopOwner { again: true, .. } => 4,
            Self::Kill { .. } | Self::StopOwner { again: false, .. } => 5,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None | Self::Log { .. } => "log",
            Self::RetireEarly { .. } => "retire-early",
            Self::Inject { .. } => "inject",
            Self::Retire { .. } | Self::RetireShared { .. } => "retire",
            Self::GiveUp { .. } => "give-up",
            Self::Restart { .. } | Self::StopOwner { again: true, .. } => "restart",
            Self::Kill { .. } | Self::StopOwner { again: false, .. } => "kill",
        }
    }
}

/// What decided: a stable name for events and tests, and a sentence for people.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rule {
    /// The error is not contained.
    Uncontainable,
    /// Uncorrected, in memory of the hypervisor.
    HypervisorMemory,
    /// Uncorrected, in memory of the firmware.
    FirmwareMemory,
    /// UEU while EL2 ran.
    HypervisorContextLost,
    /// UER while EL2 ran.
    HypervisorNeedsRecovery,
    /// IDS=1 or uncategorized while EL2 ran.
    HypervisorUnclassified,
    /// An SEI without a record while EL2 ran.
    HypervisorUnclaimed,
    /// Nothing was lost.
    Corrected,
    /// Too many corrected errors on one page.
    WornPage,
    /// The interrupted partition owns the page.
    OwnPage,
    /// Another partition owns the page, and the interrupted context can go on.
    ForeignPage,
    /// Another partition owns the page, and the interrupted context is hurt as well.
    ForeignPageAndContext,
    /// Several partitions own the page.
    SharedPage,
    /// Uncorrected, in stage-2 tables of a partition.
    Stage2Tables,
    /// Uncorrected, in an image that a partition is loaded from.
    Payload,
    /// Uncorrected, in a frame of the pool that nobody has.
    PoolFrame,
    /// Uncorrected, in the crash page or the log.
    PersistentLog,
    /// Uncorrected, in memory that nobody uses.
    UnusedMemory,
    /// EL2 was interrupted and can go on.
    PageAlone,
    /// There is no page to take away.
    NoPage,
    /// An SEI without a record interrupted a guest.
    Unclaimed,
    /// The notification itself destroyed the context of a guest.
    ContextDestroyed,
}

impl Rule {
    /// All rules, in the order in which they are tried.
    pub const ALL: [Self; 22] = [
        Self::Uncontainable,
        Self::HypervisorMemory,
        Self::FirmwareMemory,
        Self::HypervisorContextLost,
        Self::HypervisorNeedsRecovery,
        Self::HypervisorUnclassified,
        Self::HypervisorUnclaimed,
        Self::Corrected,
        Self::WornPage,
        Self::OwnPage,
        Self::ForeignPage,
        Self::ForeignPageAndContext,
        Self::SharedPage,
        Self::Stage2Tables,
        Self::Payload,
        Self::PoolFrame,
        Self::PersistentLog,
        Self::UnusedMemory,
        Self::PageAlone,
        Self::NoPage,
        Self::Unclaimed,
        Self::ContextDestroyed,
    ];

    /// Returns the name that events carry. It does not change.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uncontainable => "uncontainable",
            Self::HypervisorMemory => "hypervisor-memory",
            Self::FirmwareMemory => "firmware-memory",
            Self::HypervisorContextLost => "hypervisor-context-lost",
            Self::HypervisorNeedsRecovery => "hypervisor-needs-recovery",
            Self::HypervisorUnclassified => "hypervisor-unclassified",
            Self::HypervisorUnclaimed => "hypervisor-unclaimed",
            Self::Corrected => "corrected",
            Self::WornPage => "worn-page",
            Self::OwnPage => "own-page",
            Self::ForeignPage => "foreign-page",
            Self::ForeignPageAndContext => "foreign-page-and-context",
            Self::SharedPage => "shared-page",
            Self::Stage2Tables => "translation-tables",
            Self::Payload => "payload",
            Self::PoolFrame => "pool-frame",
            Self::PersistentLog => "persistent-log",
            Self::UnusedMemory => "unused-memory",
            Self::PageAlone => "page-alone",
            Self::NoPage => "no-page",
            Self::Unclaimed => "unclaimed",
            Self::ContextDestroyed => "context-destroyed",
        }
    }

    /// Returns what the rule says, as a sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Uncontainable => {
                "The error may be anywhere, so no part of the machine can be trusted."
            }
            Self::HypervisorMemory => {
                "The hypervisor's own memory is bad, and every partition rests on it."
            }
            Self::FirmwareMemory => "The firmware's memory is bad, and the hypervisor rests on it.",
            Self::HypervisorContextLost => {
                "EL2 was interrupted and cannot go on, and nobody else can do its work."
            }
            Self::HypervisorNeedsRecovery => "EL2 was interrupted by an error that it cannot undo.",
            Self::HypervisorUnclassified => {
                "EL2 was interrupted by an error that says nothing about what it left intact."
            }
            Self::HypervisorUnclaimed => {
                "EL2 was interrupted by an error that nobody has a record of."
            }
            Self::Corrected => {
                "Nothing was lost; the policy for corrected errors says who is told."
            }
            Self::WornPage => "The page had as many corrected errors as its owner's policy allows.",
            Self::OwnPage => {
                "The interrupted partition owns the page, and its policy decides about both."
            }
            Self::ForeignPage => {
                "The page belongs to another partition, whose policy decides; the interrupted \
                 one can go on and is not told."
            }
            Self::ForeignPageAndContext => {
                "The interrupted partition gets what its policy says; the page's owner deals \
                 with its page as after a UER."
            }
            Self::SharedPage => {
                "Several partitions map the page: the interrupted one gets what its policy \
                 says, and from UER on all of them lose the page."
            }
            Self::Stage2Tables => {
                "Stage-2 tables of a partition are bad: it is stopped, and restarted with other \
                 tables if its policy says so."
            }
            Self::Payload => {
                "An image that a partition is loaded from is bad: the partition goes on, but is \
                 not loaded from it again."
            }
            Self::PoolFrame => {
                "A frame of the hypervisor's pool that nobody has is bad: it is never handed out."
            }
            Self::PersistentLog => {
                "The memory of crash page and log is bad: they are not written any more."
            }
            Self::UnusedMemory => "Nobody uses the memory; it only has to be reported.",
            Self::PageAlone => {
                "EL2 was interrupted and can go on; only the page's owner is concerned."
            }
            Self::NoPage => {
                "There is no page of memory to take away; the interrupted partition's policy \
                 decides."
            }
            Self::ContextDestroyed => {
                "Firmware barged into an entry from the guest and overwrote where it was: the \
                 partition ends as after a UEU, whatever the error is."
            }
            Self::Unclaimed => {
                "Nobody has a record of the error: it counts as implementation defined, and the \
                 interrupted partition's policy decides."
            }
        }
    }
}

impl Rule {
    /// Finds a rule by the name that events carry.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
