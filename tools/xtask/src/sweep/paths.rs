// SPDX-License-Identifier: MIT OR Apache-2.0
//! The paths that are swept, and the errors that sweep them.

use super::lives::{self, Stage};
use super::{nested, two_pes};

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
    /// Restartable, and without a record. It takes no block, so that another one can follow before
    /// anything is acknowledged: an opening error, and nothing to sweep with.
    #[value(skip)]
    Bare,
}

impl Kind {
    /// Returns its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ce => "CE",
            Self::Ueo => "UEO",
            Self::Uer => "UER",
            Self::Ueu => "UEU",
            Self::Bare => "UEO without a record",
        }
    }

    /// Returns its syndrome.
    pub(super) const fn iss(self) -> u32 {
        match self {
            Self::Ce => 0x1811,
            Self::Ueo | Self::Bare => 0x0811,
            Self::Uer => 0x0c11,
            Self::Ueu => 0x0411,
        }
    }

    /// Returns the severity of its record.
    pub(super) const fn severity(self) -> &'static str {
        match self {
            Self::Ce | Self::Ueo => "corrected",
            Self::Uer | Self::Ueu => "recoverable",
            Self::Bare => "none",
        }
    }

    /// Says whether it may cost something, even from firmware that conforms.
    pub(super) const fn is_severe(self) -> bool {
        matches!(self, Self::Uer | Self::Ueu)
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
    /// What comes first.
    pub(super) opening: Option<Opening>,
    /// What becomes of the partition, and which part of the round is swept.
    pub(super) stage: Stage,
    /// Whether it is part of the short sweep.
    pub(super) short: bool,
    /// Whether it is swept with errors that cost something, too.
    pub(super) severe: bool,
    /// The instruction behind the guest's HVC may trap: without a syndrome nobody can tell the two
    /// apart, and the partition is stopped.
    pub(super) trap_behind_call: bool,
    /// Two PEs take part, and this one is struck, by probes.
    pub(super) pe: Option<u8>,
}

impl Path {
    /// Says whether the partition loses a page in each round.
    pub(super) fn loses_a_page(&self) -> bool {
        self.opening
            .is_some_and(|opening| opening.page_stride.is_some())
    }

    /// Sweeps it with UER and UEU, too.
    const fn and_severe(self) -> Self {
        Self {
            severe: true,
            ..self
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
        opening: None,
        stage: Stage::WHOLE,
        short,
        severe: false,
        trap_behind_call: false,
        pe: None,
    }
}

/// All of them.
pub(super) const PATHS: &[Path] = &[
    path("guest", "guest", false).and_severe(),
    path("hvc", "hvc", true).and_severe(),
    path("hvc_features", "hvc", false),
    path("smc", "smc", false).and_severe(),
    path("mmio_gicd", "load", false).and_severe(),
    path("mmio_gicr", "store", false),
    path("mmio_uart", "load", false),
    path("sgi", "sgi", false).and_severe(),
    path("irq_timer", "timer", true).and_severe(),
    path("wfi", "wfi", false).and_severe(),
    path("suspend", "hvc", false).and_severe(),
    path("console", "console", false),
    lives::RESTART,
    lives::FIRST_ENTRY,
    lives::KILL,
    nested::SEI,
    nested::IN_EXIT,
    nested::IN_WAIT,
    lives::RETIRE,
    lives::RETIRE_NEXT,
    lives::DRAIN,
    two_pes::SGI_SENDER,
    two_pes::SGI_RECEIVER,
    two_pes::ON_CALLER,
    two_pes::ON_STARTED,
    two_pes::RESET_CALLER,
    two_pes::RESET_OTHER,
    two_pes::KILL_STRUCK,
    two_pes::KILL_OTHER,
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
