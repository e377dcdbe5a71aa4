// SPDX-License-Identifier: MIT OR Apache-2.0
//! The paths that are swept, and the errors that sweep them.

use super::lives::{self, Life, Stage};
use super::typed::{self, Stroke};
use super::{fourth, nested, two_pes};

/// Numbers of the partition that is swept, and of the one beside it.
pub(super) const SWEPT: u64 = 0;
pub(super) const BYSTANDER: u64 = 1;

/// An error that comes first in each period, so that the point lies in what it sets off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    /// Offset from the start of the period, in ticks.
    pub(super) at_ticks: u64,
    /// What it is.
    pub(super) error: Kind,
    /// It names a page of the partition, each time another one: the distance of these in bytes.
    pub(super) page_stride: Option<u64>,
}

impl Opening {
    /// Once, at this offset.
    pub(super) const fn once(at_ticks: u64, error: Kind) -> Self {
        Self {
            at_ticks,
            error,
            page_stride: None,
        }
    }
}

/// An error by its class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Kind {
    /// Corrected.
    Ce,
    /// Restartable.
    Ueo,
    /// Recoverable.
    Uer,
    /// Unrecoverable: the interrupted context is lost.
    Ueu,
    /// Recoverable, in a page of the partition that is swept.
    UerOwn,
    /// Recoverable, in a page of the partition beside it.
    UerOther,
    /// Restartable, and without a record. It takes no block, so that another one can follow before
    /// anything is acknowledged: an opening error, and nothing to sweep with.
    #[value(skip)]
    Bare,
}

impl Kind {
    /// All that are swept with.
    pub(super) const ALL: [Self; 6] = [
        Self::Ce,
        Self::Ueo,
        Self::Uer,
        Self::Ueu,
        Self::UerOwn,
        Self::UerOther,
    ];

    /// Returns its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ce => "CE",
            Self::Ueo => "UEO",
            Self::Uer => "UER",
            Self::Ueu => "UEU",
            Self::UerOwn => "UER-own",
            Self::UerOther => "UER-other",
            Self::Bare => "UEO without a record",
        }
    }

    /// Returns its syndrome.
    pub(super) const fn iss(self) -> u32 {
        match self {
            Self::Ce => 0x1811,
            Self::Ueo | Self::Bare => 0x0811,
            Self::Uer | Self::UerOwn | Self::UerOther => 0x0c11,
            Self::Ueu => 0x0411,
        }
    }

    /// Returns the severity of its record.
    pub(super) const fn severity(self) -> &'static str {
        match self {
            Self::Ce | Self::Ueo => "corrected",
            Self::Uer | Self::Ueu | Self::UerOwn | Self::UerOther => "recoverable",
            Self::Bare => "none",
        }
    }

    /// Says whether it may cost something, even from firmware that conforms.
    pub(super) const fn is_severe(self) -> bool {
        !matches!(self, Self::Ce | Self::Ueo | Self::Bare)
    }

    /// Returns the partition whose memory it names.
    pub(super) const fn page_of(self) -> Option<u64> {
        match self {
            Self::UerOwn => Some(SWEPT),
            Self::UerOther => Some(BYSTANDER),
            _ => None,
        }
    }
}

/// What a path does, and which part of it is swept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// Name in the report.
    pub(super) name: &'static str,
    /// Round of the guest.
    pub(super) round: &'static str,
    /// Label of the guest's assembly: `sweep_anchor_<label>`.
    pub(super) label: &'static str,
    /// Length of a period, in ticks.
    pub(super) period_ticks: u64,
    /// What comes first: one error, or two.
    pub(super) openings: [Option<Opening>; 2],
    /// What becomes of the partition, and which part of the round is swept.
    pub(super) stage: Stage,
    /// Whether it is part of the short sweep.
    pub(super) short: bool,
    /// The instruction behind the guest's HVC may trap: without a syndrome nobody can tell the two
    /// apart, and the partition is stopped.
    pub(super) trap_behind_call: bool,
    /// Firmware that conforms never comes there.
    pub(super) barge_in_only: bool,
    /// Two PEs take part, and this one is struck, by probes.
    pub(super) pe: Option<u8>,
    /// The system keeps a trace of its exits.
    pub(super) traced: bool,
    /// What the firmware types in each period.
    pub(super) typed: &'static [Stroke],
    /// Which of these begins what is swept, where that is not the first.
    pub(super) swept_stroke: usize,
    /// Most of it is swept on another path as well: each address is hit when it is reached first, and
    /// not a second and a last time.
    pub(super) once: bool,
    /// The partition has a device that is passed through.
    pub(super) device: bool,
}

impl Path {
    /// Says whether the partition loses a page in each round.
    pub(super) fn loses_a_page(&self) -> bool {
        let mut openings = self.openings.iter().flatten();
        openings.any(|opening| opening.page_stride.is_some())
    }

    /// Says whether another PE stops the partition in each round, whatever happens on this one.
    pub(super) fn is_stopped_by_another(&self) -> bool {
        self.pe == Some(1) && self.stage.life != Life::GoesOn
    }

    /// Says whether the vCPU of the PE that is struck turns itself off in each round.
    pub(super) fn turns_off(&self) -> bool {
        self.pe == Some(1) && self.round == two_pes::ON_STARTED.round
    }

    /// Says whether EL2 waits on the PE that is struck while its vCPU is off, and not for its guest.
    pub(super) fn waits_for_nobody(&self) -> bool {
        self.pe.is_some() && (self.turns_off() || self.stage.life != Life::GoesOn)
    }

    /// Says whether an error comes before the point.
    pub(super) fn is_opened(&self) -> bool {
        self.openings.iter().any(Option::is_some)
    }

    /// Returns the error that comes right before the point.
    pub(super) fn last_opening(&self) -> Option<Opening> {
        self.openings.iter().copied().flatten().next_back()
    }

    /// Says whether the guest does one round after the other, and nothing comes before the point.
    pub(super) fn is_plain(&self) -> bool {
        self.stage.life == Life::GoesOn && !self.is_opened() && self.typed.is_empty()
    }

    /// Says whether it is swept with errors of this class. One in a page needs a machine that goes
    /// on, most of the time: there is a page for 62 of them.
    pub(super) fn takes(&self, kind: Kind) -> bool {
        match self.pe {
            // A virtual SError that a UER there asks for is one with that of the page.
            Some(_) if self.loses_a_page() => kind.page_of().is_none() && kind != Kind::Uer,
            Some(_) => kind.page_of().is_none(),
            None if fourth::is_one(self) => !kind.is_severe(),
            None if self.device => kind.page_of().is_none(),
            None => kind.page_of().is_none() || self.is_plain(),
        }
    }
}

/// Long enough that the hypervisor reports every error, and does not only count it: it tells 64 in
/// a second of 10^9 ticks one by one. The guest sleeps, so that a longer period takes no longer.
pub(super) const PERIOD_TICKS: u64 = 1 << 24;

pub(super) const fn path(name: &'static str, label: &'static str, short: bool) -> Path {
    Path {
        name,
        round: name,
        label,
        period_ticks: PERIOD_TICKS,
        openings: [None; 2],
        stage: Stage::WHOLE,
        short,
        trap_behind_call: false,
        barge_in_only: false,
        pe: None,
        traced: false,
        typed: &[],
        swept_stroke: 0,
        once: false,
        device: false,
    }
}

/// The round of another path, in a system that keeps a trace.
const fn traced(name: &'static str, round: &'static str, label: &'static str) -> Path {
    Path {
        round,
        traced: true,
        ..path(name, label, false)
    }
}

/// All of them.
pub(super) const PATHS: &[Path] = &[
    path("guest", "guest", false),
    path("hvc", "hvc", true),
    path("hvc_features", "hvc", false),
    Path {
        trap_behind_call: true,
        ..path("hvc_trap", "hvc_trap", true)
    },
    path("smc", "smc", false),
    path("mmio_gicd", "load", false),
    path("mmio_gicr", "store", false),
    path("mmio_uart", "load", false),
    path("sgi", "sgi", false),
    path("irq_timer", "timer", true),
    path("wfi", "wfi", false),
    traced("traced_hvc", "hvc", "hvc"),
    traced("traced_irq", "irq_timer", "timer"),
    Path {
        device: true,
        ..path("irq_device", "device", false)
    },
    path("suspend", "hvc", false),
    path("console", "console", false),
    lives::RESTART,
    lives::FIRST_ENTRY,
    lives::KILL,
    lives::QUIESCE,
    nested::SEI,
    nested::IN_EXIT,
    nested::IN_WAIT,
    lives::RETIRE,
    lives::RETIRE_NEXT,
    lives::DRAIN,
    lives::DRAIN_TWO,
    typed::OFF,
    typed::STOP,
    typed::STARTED,
    typed::RESTART,
    typed::RELOAD,
    typed::INJECT,
    typed::TRACE,
    fourth::IN_PROLOGUE,
    fourth::IN_HANDLER,
    two_pes::SGI_SENDER,
    two_pes::SGI_RECEIVER,
    two_pes::ON_CALLER,
    two_pes::ON_STARTED,
    two_pes::RESET_CALLER,
    two_pes::RESET_OTHER,
    two_pes::KILL_STRUCK,
    two_pes::KILL_OTHER,
    two_pes::RETIRE_STRUCK,
    two_pes::RETIRE_OTHER,
];

/// What the firmware does about the mask.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Mode {
    /// It keeps to the contract.
    Conforming,
    /// It ignores SPSR_EL3.A.
    BargeIn,
}

impl Mode {
    /// Returns its name, in the firmware's protocol and in the report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Conforming => "conforming",
            Self::BargeIn => "barge-in",
        }
    }
}
