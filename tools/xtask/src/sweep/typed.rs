// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths on which a command comes by the UART, and those on which a partition that ended is begun
//! again by one.
//!
//! The firmware types, at the same offsets in each period ([`Stroke`]): the UART's interrupt comes
//! at an instruction of the guest, and what EL2 does about the command is the path. A command ends
//! with a line feed, and each is answered once.

use std::fmt::Write as _;
use std::ops::Range;

use super::lives::{self, Life, Stage};
use super::paths::{Path, path};
use super::symbols::Symbols;
use super::targets::Clock;
use super::trace::{self, Step};

/// What is typed at one moment of each period: no more than a PL011 keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stroke {
    /// Offset from the start of the period, in ticks.
    pub(super) at_ticks: u64,
    /// The bytes.
    pub(super) text: &'static str,
}

/// As many bytes as a PL011 keeps.
#[cfg(test)]
pub(super) const STROKE_BYTES: usize = 16;

/// In the guest's no-operations.
const AT_TICKS: u64 = 60;
/// Where a partition that ended is begun again.
const LATER_TICKS: u64 = lives::PERIOD_TICKS / 2;
/// The first parts of a command that is longer than a stroke: before the firmware prepares for the
/// period in which its last part comes.
const BEFORE_TICKS: u64 = lives::PERIOD_TICKS - 200_000;

/// What EL2 waits in for work.
const IDLE: &str = "firebreak_idle";
/// Where EL2 carries a command out.
const CARRIED_OUT: &str = "7control4take";

/// Where a vCPU is taken off its PE.
const PARKED: &str = "9lifecycle4park";

/// What `inject` makes the guest take: no error of a sweep has this syndrome.
pub(super) const INJECTED: u64 = 1 << 24;

const START: Stroke = Stroke {
    at_ticks: LATER_TICKS,
    text: "\x01:start sweep\n",
};

/// SYSTEM_OFF: from the guest's call until EL2 waits for work.
pub(super) const OFF: Path = Path {
    name: "off",
    round: "off",
    typed: &[START],
    stage: Stage {
        life: Life::Ends,
        to: Some(IDLE),
        ..Stage::ANOTHER_LIFE
    },
    ..lives::RESTART
};

/// `stop`: from the interrupt until EL2 waits for work.
pub(super) const STOP: Path = Path {
    name: "cmd_stop",
    typed: &[
        Stroke {
            at_ticks: AT_TICKS,
            text: "\x01:stop sweep\n",
        },
        START,
    ],
    once: true,
    ..of_a_life(OFF.stage)
};

/// `start`: from where the command is carried out until the memory is written.
pub(super) const STARTED: Path = Path {
    name: "cmd_start",
    swept_stroke: 1,
    stage: Stage {
        from: Some(CARRIED_OUT),
        to: Some(lives::MEMORY),
        ..OFF.stage
    },
    ..STOP
};

/// `restart`: from where the command is carried out until the memory is written.
pub(super) const RESTART: Path = Path {
    name: "cmd_restart",
    typed: &[Stroke {
        at_ticks: AT_TICKS,
        text: "\x01:restart sweep\n",
    }],
    once: true,
    ..of_a_life(Stage {
        from: Some(CARRIED_OUT),
        ..lives::RESTART.stage
    })
};

/// `reload`, with the kernel that was booted: until the guest's vCPU is taken off its PE, behind which
/// it is a restart.
pub(super) const RELOAD: Path = Path {
    name: "cmd_reload",
    typed: &[Stroke {
        at_ticks: AT_TICKS,
        text: "\x01:reload sweep\n",
    }],
    stage: Stage {
        to: Some(PARKED),
        ..RESTART.stage
    },
    ..RESTART
};

/// `inject`: from where the command is carried out until the guest's registers are stored. Its bytes are
/// more than the UART keeps.
pub(super) const INJECT: Path = Path {
    once: true,
    typed: &[
        Stroke {
            at_ticks: AT_TICKS,
            text: "vcpu=0 serror\n",
        },
        Stroke {
            at_ticks: BEFORE_TICKS,
            text: "\x01:inject sweep ",
        },
    ],
    stage: Stage {
        from: Some(CARRIED_OUT),
        ..Stage::WHOLE
    },
    ..of_a_round("cmd_inject")
};

/// `trace`, in a system that keeps one: from the interrupt on.
pub(super) const TRACE: Path = Path {
    typed: &[Stroke {
        at_ticks: AT_TICKS,
        text: "\x01:trace sweep\n",
    }],
    traced: true,
    ..of_a_round("cmd_trace")
};

/// A guest that the command alone ends.
const fn of_a_life(stage: Stage) -> Path {
    Path {
        round: "killed",
        label: "guest",
        stage,
        ..lives::RESTART
    }
}

const fn of_a_round(name: &'static str) -> Path {
    Path {
        round: "guest",
        period_ticks: lives::PERIOD_TICKS,
        ..path(name, "guest", false)
    }
}

/// Returns what the firmware is told to type.
pub(super) fn line(path: &Path) -> String {
    let mut line = format!("type pe=0 period={}", path.period_ticks);
    for Stroke { at_ticks, text } in path.typed {
        let _ = write!(line, " at={at_ticks}:");
        for byte in text.bytes() {
            let _ = write!(line, "{byte:02x}");
        }
    }
    line
}

/// Returns when the times in events have as many digits as they keep for long: how many there are says
/// how many instructions it takes to write them. Rounds that nothing ends go by fast.
pub(super) fn steady_ticks(path: &Path) -> Range<u64> {
    let first = match path.stage.life {
        Life::GoesOn => 100_000_000_000,
        _ => 10_000_000_000,
    };
    first..10 * first
}

/// Returns how many commands come in a period.
pub(super) fn commands(path: &Path) -> u32 {
    let ends = path
        .typed
        .iter()
        .filter(|stroke| stroke.text.ends_with('\n'));
    u32::try_from(ends.count()).unwrap_or(u32::MAX)
}

/// Says whether the guest's round is the moment of a command.
pub(super) fn is_typed_in_the_round(path: &Path) -> bool {
    path.typed.iter().any(|stroke| stroke.at_ticks == AT_TICKS)
}

/// Says whether a command ends the partition's life, whatever happens to its guest: it is carried out
/// before what came of that, and what a person asks for outranks an error.
pub(super) fn stops(path: &Path) -> bool {
    is_typed_in_the_round(path) && path.stage.life != Life::GoesOn
}

/// Returns where in a round the command is taken that a path is about, and the clock there: where the
/// PE has waited since the round began, a step is not a tick. `None`: the round has no such command.
pub(super) fn taken(
    path: &Path,
    round: &[Step],
    start: u64,
    hypervisor: &Symbols,
) -> Option<(usize, Clock)> {
    let take = hypervisor.containing(CARRIED_OUT).ok()?;
    let mut strokes = Vec::new();
    let mut from = 0;
    for _ in 0..=path.swept_stroke {
        let taken = trace::reaches(round, from, take)?;
        strokes.push(trace::firmware_before(round, taken)?);
        from = taken + 1;
    }
    let (first, swept) = (strokes.first()?, strokes.get(path.swept_stroke)?);
    // How late the firmware is there, from the stroke before which no PE waited.
    let late = (start + first.start as u64).checked_sub(path.typed.first()?.at_ticks)?;
    let clock = Clock {
        index: swept.start,
        ticks: path.typed.get(path.swept_stroke)?.at_ticks + late,
    };
    Some((swept.end, clock))
}
