// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths on which the partition ends or begins: what is swept of them, and what must hold.
//!
//! The guest's registers are lost there by design. What must hold is that the partition ends and
//! begins exactly as often as it was made to, and that the new life is like the first: the guest
//! looks at that itself, and says what is not.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result};
use firebreak_qemu::{Event, Record};

use super::judge::{PARTITION, Point};
use super::paths::{Kind, Opening, Path, SWEPT};
use super::symbols::Symbols;
use super::targets::Targets;
use super::trace::{self, Step};
use super::typed;

/// What becomes of the partition in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    /// It goes on.
    GoesOn,
    /// It asks for a reset.
    Resets,
    /// An error kills it, and it is restarted.
    IsKilled,
    /// It ends, and is begun again by a command, later in the period.
    Ends,
}

impl Life {
    /// Returns how often a round brings it about: `killed`, `stopped`, `restart`, `started`, and a
    /// first line of the guest.
    const fn wanted(self) -> Account {
        let (killed, stopped, restarted, lives) = match self {
            Self::GoesOn => (0, 0, 0, 0),
            Self::Resets => (0, 0, 1, 1),
            Self::IsKilled => (1, 0, 1, 1),
            Self::Ends => (0, 1, 0, 1),
        };
        Account {
            killed,
            stopped,
            restarted,
            started: lives,
            born: lives,
            ..Account::NOTHING
        }
    }
}

/// What becomes of the partition in a round, and which part of the round is swept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage {
    /// What becomes of it.
    pub(super) life: Life,
    /// Symbol of the guest that ends the round; `None`: where its registers are stored.
    pub(super) is_over_at: Option<&'static str>,
    /// From the first time that EL2 reaches this function; `None`: from the start of the round.
    pub(super) from: Option<&'static str>,
    /// Up to the first time behind that it reaches this one; `None`: to the end of the round.
    pub(super) to: Option<&'static str>,
    /// Lives that go by before anything is looked at.
    pub(super) warm_up_lives: u64,
    /// The most restarts, by the partition file.
    pub(super) most_lives: u64,
}

impl Stage {
    /// All of a round that the guest survives.
    pub(super) const WHOLE: Self = Self {
        life: Life::GoesOn,
        is_over_at: None,
        from: None,
        to: None,
        warm_up_lives: 0,
        most_lives: 0,
    };

    /// A round that ends with the first instruction of the guest's next life. After 150 periods of
    /// 2^26 ticks all counts have three digits, and all times eleven.
    pub(super) const ANOTHER_LIFE: Self = Self {
        life: Life::Resets,
        is_over_at: Some("guest_header"),
        from: None,
        to: None,
        warm_up_lives: 150,
        most_lives: 999,
    };

    /// The same without a warm-up, for a path whose boundaries are found by their addresses.
    pub(super) const UNTIL_MEMORY: Self = Self {
        to: Some(MEMORY),
        warm_up_lives: 0,
        ..Self::ANOTHER_LIFE
    };

    /// Says whether not all of the round is swept: each point costs more there.
    pub(super) fn is_partial(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Returns the part of a round that is swept.
    pub(super) fn part(&self, round: &[Step], hypervisor: &Symbols) -> Result<Range<usize>> {
        self.part_from(round, 0, hypervisor)
    }

    /// Returns the part that is swept of what comes from this step on.
    pub(super) fn part_from(
        &self,
        round: &[Step],
        first: usize,
        hypervisor: &Symbols,
    ) -> Result<Range<usize>> {
        let find = |name: Option<&str>, from: usize| match name {
            Some(name) => {
                let pc = hypervisor.containing(name)?;
                let found = trace::reaches(round, from, pc);
                found
                    .map(Some)
                    .with_context(|| format!("the round does not reach {name}"))
            }
            None => Ok(None),
        };
        let start = find(self.from, first)?.unwrap_or(first);
        let end = find(self.to, start)?.unwrap_or(round.len());
        Ok(start..end)
    }
}

/// See [`Stage::ANOTHER_LIFE`].
pub(super) const PERIOD_TICKS: u64 = 1 << 26;
/// Where EL2 begins to write the memory of the next life.
pub(super) const MEMORY: &str = "firebreak_guest_write_start";
/// Behind the handler of an SEI that had interrupted the guest.
pub(super) const BEHIND_THE_SEI: &str = "guest_entry_slow";

/// SYSTEM_RESET: from the guest's call until its memory is cleared.
pub(super) const RESTART: Path = Path {
    name: "restart",
    round: "restart",
    label: "hvc",
    period_ticks: PERIOD_TICKS,
    openings: [None; 2],
    stage: Stage {
        to: Some(MEMORY),
        ..Stage::ANOTHER_LIFE
    },
    short: false,
    trap_behind_call: false,
    barge_in_only: false,
    pe: None,
    traced: false,
    typed: &[],
    swept_stroke: 0,
    once: false,
    device: false,
};

/// From there to the first instruction of the guest.
pub(super) const FIRST_ENTRY: Path = Path {
    name: "first_entry",
    stage: Stage {
        from: Some(MEMORY),
        ..Stage::ANOTHER_LIFE
    },
    ..RESTART
};

/// SYSTEM_RESET of a guest whose device rings: its vCPU is taken off its PE, and its devices off it.
pub(super) const QUIESCE: Path = Path {
    name: "quiesce",
    round: "quiesce",
    stage: Stage {
        from: Some("9lifecycle4park"),
        to: Some("9lifecycle8conclude"),
        ..Stage::ANOTHER_LIFE
    },
    device: true,
    ..RESTART
};

/// An error that kills: from the way out of its handler until the memory is cleared.
pub(super) const KILL: Path = Path {
    name: "kill",
    round: "killed",
    label: "guest",
    openings: [Some(Opening::once(60, Kind::Ueu)), None],
    stage: Stage {
        life: Life::IsKilled,
        from: Some(BEHIND_THE_SEI),
        to: Some(MEMORY),
        ..Stage::ANOTHER_LIFE
    },
    short: true,
    ..RESTART
};

/// A recoverable error in a page of the partition, in a block of its own: the block is split, and the
/// page taken out of it.
pub(super) const RETIRE: Path = Path {
    name: "retire",
    round: "guest",
    label: "guest",
    openings: [
        Some(Opening {
            page_stride: Some(2 << 20),
            ..Opening::once(60, Kind::Uer)
        }),
        None,
    ],
    stage: Stage {
        from: Some(BEHIND_THE_SEI),
        ..Stage::WHOLE
    },
    ..RESTART
};

/// The same where the block is split already.
pub(super) const RETIRE_NEXT: Path = Path {
    name: "retire_next",
    openings: [
        Some(Opening {
            page_stride: Some(4 << 10),
            ..Opening::once(60, Kind::Uer)
        }),
        None,
    ],
    ..RETIRE
};

/// A record that EL2 took in the middle of its work, and drains behind it.
pub(super) const DRAIN: Path = Path {
    name: "drain",
    round: "console",
    label: "console",
    openings: [Some(Opening::once(300, Kind::Ueo)), None],
    ..RETIRE
};

/// Two records: the second error comes when EL2 is back at the work that the first interrupted, which
/// is found out (see [`second_moment`]).
pub(super) const DRAIN_TWO: Path = Path {
    name: "drain_two",
    openings: [
        Some(Opening::once(240, Kind::Ueo)),
        Some(Opening::once(0, Kind::Ueo)),
    ],
    ..DRAIN
};

/// How long before the drain the second error comes: EL2 is back at the work that the first one
/// interrupted, and does not mask SError yet.
const BEFORE_THE_DRAIN_TICKS: u64 = 80;

/// Returns the offset of the second error, by what is swept of the path where only the first comes.
pub(super) fn second_moment(opened: &Targets) -> Option<u64> {
    let drain = opened.executed.values().min()?;
    drain.checked_sub(BEFORE_THE_DRAIN_TICKS)
}

/// What happened to the partition in one period.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Account {
    killed: u32,
    stopped: u32,
    restarted: u32,
    started: u32,
    born: u32,
    /// Commands that were carried out, and those that were not.
    answered: u32,
    refused: u32,
    /// Virtual SErrors that a command asked for.
    injected: u32,
}

impl Account {
    const NOTHING: Self = Self {
        killed: 0,
        stopped: 0,
        restarted: 0,
        started: 0,
        born: 0,
        answered: 0,
        refused: 0,
        injected: 0,
    };

    /// Returns what a round of a path brings about.
    fn of_round(path: &Path) -> Self {
        Self {
            answered: typed::commands(path),
            injected: u32::from(path.name == typed::INJECT.name),
            ..path.stage.life.wanted()
        }
    }

    /// The same where the guest's context is lost as well, which stops it, and a policy restarts it:
    /// by how `killed` counts that is left out.
    fn of_lost_round(path: &Path) -> Self {
        let round = Self::of_round(path);
        if path.stage.life == Life::GoesOn && path.loses_a_page() {
            return Self {
                restarted: round.restarted + 1,
                started: round.started + 1,
                born: round.born + 1,
                ..round
            };
        }
        if path.typed.is_empty() || typed::stops(path) {
            // The end that was asked for is this one.
            return round;
        }
        if !typed::is_typed_in_the_round(path) {
            // It never asked, and runs when it is to be started.
            return Self {
                stopped: 0,
                restarted: 1,
                answered: 0,
                refused: round.answered,
                ..round
            };
        }
        // What a command asked for is answered, and told to the next life.
        Self {
            restarted: round.restarted + 1,
            started: round.started + 1,
            born: round.born.max(1),
            ..round
        }
    }

    /// Says whether nothing happened to the partition, whatever was typed.
    fn is_quiet(self) -> bool {
        let untyped = Self {
            answered: 0,
            refused: 0,
            ..self
        };
        untyped == Self::NOTHING
    }
}

/// Judges the points of a path on which the partition does not simply go on: by the period in
/// which each was reported, and all that happened in it.
pub(super) fn settle(points: &mut [Point], records: &[Record], path: &Path) {
    let loses_a_page = path.loses_a_page();
    let is_typed = !path.typed.is_empty();
    if path.stage.life == Life::GoesOn && !loses_a_page && !is_typed {
        return;
    }
    let accounts = accounts(records, path.period_ticks);
    let wanted = Account::of_round(path);
    let taken = taken_serrors(records);
    for point in points {
        if wanted.injected > 0 {
            let taken = point.period.and_then(|period| taken.get(&period));
            point.expect_injection(typed::INJECTED, taken.copied().unwrap_or(0));
        }
        let Some(period) = point.period else {
            // Never reported, which is a problem already, or the end of the machine.
            continue;
        };
        let mut found = accounts.get(&period).copied().unwrap_or_default();
        // The guest was too late for its round, and slept until the next one.
        let is_late = !point.in_el2() && found.is_quiet();
        if is_late && path.stage.life != Life::GoesOn {
            (point.stops, point.killed) = (0, 0);
            continue;
        }
        if loses_a_page {
            point.expect_opening(Kind::Uer);
            if path.pe.is_some() {
                point.expect_page_gone();
            }
        }
        point.stops = found.killed.saturating_sub(wanted.killed);
        point.killed = point.stops;
        // Where the guest's context is lost as well, that is what stops it.
        found.killed -= point.stops;
        let wanted = match point.stops {
            0 => wanted,
            _ => Account::of_lost_round(path),
        };
        if wanted.injected > 0 {
            point.merged = found.injected.saturating_sub(wanted.injected);
            found.injected -= point.merged;
        }
        if found != wanted && !point.reset {
            point.problems.push(format!(
                "the partition's life: {found:?} instead of {wanted:?}"
            ));
        }
    }
}

/// Counts by periods.
fn accounts(records: &[Record], period_ticks: u64) -> BTreeMap<u64, Account> {
    let mut accounts: BTreeMap<u64, Account> = BTreeMap::new();
    for record in records {
        match record {
            Record::Event(event) => {
                let Some(period) = event.num("t").map(|ticks| ticks / period_ticks) else {
                    continue;
                };
                let account = accounts.entry(period).or_default();
                match event.name() {
                    "killed" => account.killed += 1,
                    "stopped" => account.stopped += 1,
                    "restart" => account.restarted += 1,
                    "started" => account.started += 1,
                    "answer" if event.flag("ok") == Some(true) => account.answered += 1,
                    "answer" => account.refused += 1,
                    "vserror" if is_injection(event) => account.injected += 1,
                    _ => {}
                }
            }
            Record::Line { name, text } if name == PARTITION => {
                let born = text
                    .split_once(" born=")
                    .and_then(|(_, born)| born.parse().ok());
                if let Some(period) = born {
                    accounts.entry(period).or_default().born += 1;
                }
            }
            _ => {}
        }
    }
    accounts
}

/// Counts the virtual SErrors that the guest says it took, by the period that it names.
fn taken_serrors(records: &[Record]) -> BTreeMap<u64, u32> {
    let mut taken = BTreeMap::new();
    for record in records {
        let line = record.line("sweep").unwrap_or_default();
        let period = line
            .starts_with("sweep: serror ")
            .then(|| line.split_once(" round=")?.1.parse::<u64>().ok());
        if let Some(period) = period.flatten() {
            *taken.entry(period).or_default() += 1;
        }
    }
    taken
}

fn is_injection(event: &Event) -> bool {
    event.num("vm") == Some(SWEPT)
        && event.text("state") == Some("pending")
        && event.hex("syndrome") == Some(typed::INJECTED)
}
