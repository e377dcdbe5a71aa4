// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths in which two PEs take part.
//!
//! With several PEs a tick is not an instruction of one of them. So the firmware puts an SMC in the
//! place of each instruction that QEMU's trace names, one in each period, and strikes when the PE
//! that is meant reaches it (`probe=`). Another PE passes such a probe by. Each path is that of one
//! PE: the one that causes something, or the one to which it happens.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::Job;
use super::hit::{MOST_SEVERE, missing};
use super::lives::{self, Life, Stage};
use super::paths::{Kind, Opening, PERIOD_TICKS, Path, path};
use super::report::{self, Row};
use super::select::{self, Extent};
use super::strike::Striker;
use super::symbols::Symbols;
use super::targets::Targets;
use super::trace::{Level, Step};

/// Probes that are asked for at once.
const RUN: u64 = 64;
/// When the guest's round begins, from the start of the period (`phase=` in the partition files).
const PHASE_TICKS: u64 = 120_000;
/// When a probe is put in its place: the guest waits for its round by counting then, so that what
/// reaches the probe is the round.
pub(super) const PLANT_TICKS: u64 = PHASE_TICKS - 3_000;
/// A probe that was not reached is put there again, as a round may have been left out; behind an opening
/// error so long before the step that is meant. The firmware takes some steps for it, and what handles
/// that error may come by until shortly before.
const LEADS_TICKS: [u64; TURNS] = [150, 250, 100, 60, 30, 400, 200, 1000];
/// The same behind an error that takes a page. What comes by there once alone needs no more than that the
/// error was taken; when that is differs by as much as a line takes that another PE prints meanwhile.
const RETIRE_TICKS: [Plant; TURNS] = [
    Plant::At(OPENING_TICKS + 18_500),
    Plant::Before(900),
    Plant::At(OPENING_TICKS + 30_000),
    Plant::Before(400),
    Plant::At(OPENING_TICKS + 15_000),
    Plant::Before(200),
    Plant::At(OPENING_TICKS + 60_000),
    Plant::Before(2_000),
];
/// So many times.
const TURNS: usize = 8;
/// How long a PE waits at the probe of another one: longer than EL2 works on anything in one of these
/// rounds, but for memory.
const HOLD_TICKS: u64 = 20_000;
/// Tries without that.
const FREE_TURNS: usize = 2;
/// When a probe stands for the PE beside the one that loses a page: while that one has the error, which
/// the firmware brings it up to 20,300 ticks late, and takes the page away. The last two are before.
const BESIDE_TICKS: [u64; TURNS] = [
    OPENING_TICKS + 21_000,
    OPENING_TICKS + 24_000,
    OPENING_TICKS + 22_500,
    OPENING_TICKS + 28_000,
    OPENING_TICKS + 20_500,
    OPENING_TICKS + 26_000,
    OPENING_TICKS + 10_000,
    OPENING_TICKS + 1_000,
];
/// Before that: the guest counts, or sleeps on the other PE.
const IN_GUEST_TICKS: u64 = PHASE_TICKS - 3_500;
/// In the guest's no-operations.
const OPENING_TICKS: u64 = PHASE_TICKS + 60;

/// When a probe is put in its place.
enum Plant {
    /// At this offset.
    At(u64),
    /// So long before the step that is meant, as the trace has it.
    Before(u64),
}

const fn pair(name: &'static str, round: &'static str, label: &'static str, pe: u8) -> Path {
    Path {
        round,
        pe: Some(pe),
        ..path(name, label, false)
    }
}

const fn of_lives(path: Path, life: Life, from: Option<&'static str>) -> Path {
    Path {
        stage: Stage {
            life,
            from,
            ..Stage::UNTIL_MEMORY
        },
        ..path
    }
}

/// A page for each round, as the guest looks at them (`guest-images/sweep/src/pages.rs`): each in another
/// block of 2 MiB, which is split, and at another place in it.
const LOSES_A_PAGE: Opening = Opening {
    page_stride: Some((2 << 20) + (4 << 10)),
    ..Opening::once(OPENING_TICKS, Kind::Uer)
};

const KILLED_BY: Opening = Opening::once(OPENING_TICKS, Kind::Ueu);

/// An SGI to a vCPU on another PE.
pub(super) const SGI_SENDER: Path = pair("pair_sgi_sender", "pair_sgi", "sgi", 0);
pub(super) const SGI_RECEIVER: Path = pair("pair_sgi_receiver", "pair_sgi", "sgi", 1);
/// CPU_ON of a vCPU, which goes off again.
pub(super) const ON_CALLER: Path = pair("pair_on_caller", "pair_on", "hvc", 0);
pub(super) const ON_STARTED: Path = Path {
    // CPU_OFF, and MSR DAIFSet behind it.
    trap_behind_call: true,
    ..pair("pair_on_started", "pair_on", "hvc", 1)
};
/// SYSTEM_RESET: until the memory of the next life is written. The last PE to come to rest does what
/// one does alone.
pub(super) const RESET_CALLER: Path = of_lives(
    pair("pair_reset_caller", "pair_restart", "hvc", 0),
    Life::Resets,
    None,
);
pub(super) const RESET_OTHER: Path = Path {
    name: "pair_reset_other",
    pe: Some(1),
    ..RESET_CALLER
};
/// An error that kills, on the first PE.
pub(super) const KILL_STRUCK: Path = Path {
    openings: [Some(KILLED_BY), None],
    ..of_lives(
        pair("pair_kill_struck", "pair_killed", "guest", 0),
        Life::IsKilled,
        Some(lives::BEHIND_THE_SEI),
    )
};
pub(super) const KILL_OTHER: Path = Path {
    openings: [Some(KILLED_BY), None],
    ..of_lives(
        pair("pair_kill_other", "pair_killed", "guest", 1),
        Life::IsKilled,
        None,
    )
};

/// A recoverable error in a page of the partition, on the first PE, while the other one touches the
/// partition's pages and calls EL2, until it meets the hole.
pub(super) const RETIRE_STRUCK: Path = Path {
    // Two errors in each, of which the host is to hear one by one.
    period_ticks: 4 * PERIOD_TICKS,
    openings: [Some(LOSES_A_PAGE), None],
    stage: Stage {
        from: Some(lives::BEHIND_THE_SEI),
        ..Stage::WHOLE
    },
    ..pair("pair_retire_struck", "pair_retire", "serror", 0)
};
/// What the other one does from the error on.
pub(super) const RETIRE_OTHER: Path = Path {
    name: "pair_retire_other",
    pe: Some(1),
    ..RETIRE_STRUCK
};

/// Where a round begins and ends.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    /// Whose boundaries are looked for.
    pe: u8,
    /// The guest's own round, on PE 0.
    anchor: u64,
    /// On PE 0, behind what it did; `None`: the next round.
    done: Option<u64>,
    /// The first time that this PE reaches this at EL2.
    from: Option<(u8, u64)>,
    /// The first time that any PE reaches this at EL2.
    to: Option<u64>,
    /// Where PE 0 takes a page away: a round without that is none.
    retire: Option<Retire>,
}

/// Of rounds that lose a page.
#[derive(Clone, Copy)]
struct Retire {
    /// The vector by which the error comes. Steps are counted from where it left the guest for EL3.
    error: u64,
    /// What takes the page away.
    page: u64,
}

impl Ends {
    /// Returns those of a path.
    pub(super) fn of(path: &Path, (guest, hypervisor): (&Symbols, &Symbols)) -> Result<Self> {
        let pe = path.pe.context("not a path of two PEs")?;
        let address = |name: Option<&str>| -> Result<Option<u64>> {
            name.map(|name| hypervisor.containing(name)).transpose()
        };
        let done = guest.address(&format!("sweep_done_{}", path.label))?;
        let retire = match path.loses_a_page() {
            true => Some(Retire {
                error: hypervisor.address("firebreak_window_entry_serror_start")?,
                page: hypervisor.containing(RETIRES)?,
            }),
            false => None,
        };
        let from = address(path.stage.from)?;
        let from = match (retire, pe) {
            (Some(retire), 1) => Some((0, retire.error)),
            _ => from.map(|from| (pe, from)),
        };
        Ok(Self {
            pe,
            anchor: guest.address(&format!("sweep_anchor_{}", path.label))?,
            done: (path.stage.life == Life::GoesOn && pe == 0).then_some(done),
            from,
            to: address(path.stage.to)?,
            retire,
        })
    }

    fn is_anchor(&self, (by, step): &(u8, Step)) -> bool {
        *by == 0 && step.level == Level::Guest && step.pc == self.anchor
    }

    fn is_done(&self, (by, step): &(u8, Step)) -> bool {
        *by == 0 && step.level == Level::Guest && Some(step.pc) == self.done
    }

    fn is_to(&self, (_, step): &(u8, Step)) -> bool {
        step.level == Level::El2 && Some(step.pc) == self.to
    }

    /// Returns the steps of a round in which everything happens that happens in one.
    fn round<'a>(&self, steps: &'a [(u8, Step)]) -> Option<&'a [(u8, Step)]> {
        let is_anchor = |step: &(u8, Step)| self.is_anchor(step);
        let starts: Vec<usize> = (0..steps.len())
            .filter(|index| steps.get(*index).is_some_and(is_anchor))
            .collect();
        if self.to.is_some() {
            // In those before that one the error that ends a life did not come.
            let first = *starts.first()?;
            let after = steps.get(first..)?;
            let end = first + after.iter().position(|step| self.is_to(step))?;
            let start = steps.get(..end)?.iter().rposition(is_anchor)?;
            return steps.get(start..end);
        }
        // The log may have begun in the middle of the first.
        starts.iter().enumerate().skip(1).find_map(|(turn, start)| {
            let next = starts.get(turn + 1).copied();
            let round = steps.get(*start..next.unwrap_or(steps.len()))?;
            let end = match self.done {
                Some(_) => round.iter().position(|step| self.is_done(step))?,
                None => next? - start,
            };
            let round = round.get(..end)?;
            let retire = self.retire.map(|retire| retire.page);
            retire
                .is_none_or(|page| reached(round, 0, page).is_some())
                .then_some(round)
        })
    }
}

/// What takes a page away: part of its symbol.
const RETIRES: &str = "6retire4page17h";

/// Returns when a PE reaches an address at EL2 first.
fn reached(round: &[(u8, Step)], pe: u8, pc: u64) -> Option<usize> {
    let is_it = |(by, step): &(u8, Step)| *by == pe && step.level == Level::El2 && step.pc == pc;
    round.iter().position(is_it)
}

/// Returns what says of a growing trace whether it has a whole round.
pub(super) fn watch(ends: Ends) -> impl FnMut(&[(u8, Step)]) -> bool + Send + 'static {
    // EL2 comes by the end of a life many times before it is the end of one that began in the trace.
    let mut is_under_way = false;
    move |steps| {
        let Some(last) = steps.last() else {
            return false;
        };
        let is_anchor = ends.is_anchor(last);
        let is_end = is_anchor || ends.is_done(last) || ends.is_to(last);
        let is_enough = is_end && is_under_way && executed(steps, &ends).is_some();
        is_under_way |= is_anchor;
        is_enough
    }
}

/// Returns which boundaries of its PE a path has, from the trace of all PEs; `None` while that is too
/// short.
pub(super) fn targets(steps: &[(u8, Step)], ends: &Ends) -> Option<Targets> {
    executed(steps, ends).map(|executed| Targets {
        offsets: executed.values().copied().collect(),
        executed,
        in_guest: [].into(),
    })
}

/// Returns the addresses that the PE executes at EL2 in a whole round, with the step at which each is
/// reached first.
fn executed(steps: &[(u8, Step)], ends: &Ends) -> Option<BTreeMap<u64, u64>> {
    let round = ends.round(steps)?;
    let start = match ends.from {
        Some((pe, pc)) => reached(round, pe, pc)?,
        None => 0,
    };
    let zero = match ends.retire {
        Some(retire) => {
            let before = round.get(..reached(round, 0, retire.error)?)?;
            let in_guest = |(by, step): &(u8, Step)| *by == 0 && step.level == Level::Guest;
            before.iter().rposition(in_guest)? + 1
        }
        None => 0,
    };
    let mut executed = BTreeMap::new();
    let end = match ends.retire {
        // The error that the trace is taken with, in the place of a point.
        Some(retire) if ends.pe != 0 => reached(round, ends.pe, retire.error),
        _ => None,
    };
    let part = round.get(..end.unwrap_or(round.len()))?;
    for (at, (by, step)) in part.iter().enumerate().skip(start) {
        if *by == ends.pe && step.level == Level::El2 {
            executed
                .entry(step.pc)
                .or_insert(at.saturating_sub(zero) as u64);
        }
    }
    (!executed.is_empty()).then_some(executed)
}

/// Strikes at each boundary once, or at those that are chosen.
pub(super) fn strike(
    job: Job<'_>,
    every: bool,
    targets: &Targets,
    symbols: &Symbols,
) -> Result<Row> {
    let (path, _, kind) = job;
    let chosen = chosen(path, kind, every, targets, symbols);
    let mut striker = Striker::new(job, None);
    // Where an error opens the round, the guest is over by then, or would be over too early.
    let ends_too_early = path.is_opened();
    if kind.is_severe() && !ends_too_early {
        // The guest itself, which waits for its round on this PE.
        striker.strike(IN_GUEST_TICKS, None)?;
    } else if !path.loses_a_page() {
        for (first, count) in runs(chosen.keys().copied()) {
            striker.probe(first, count)?;
        }
    }
    for turn in 0..TURNS {
        // The other PE, which comes by at the same time, is held from some try on.
        striker.hold(if turn < FREE_TURNS { 0 } else { HOLD_TICKS });
        for (address, at) in missing(&chosen, &striker.points()) {
            let plant = plant_ticks(path, at, turn);
            if kind.is_severe() {
                striker.strike(plant, Some(address))?;
            } else {
                striker.probe_at(plant, address, 1)?;
            }
        }
    }
    report::row(job, (targets, &chosen), &striker.finish(), symbols)
}

/// Chooses boundaries as on one PE, for what costs a life, a page or a boot each, and with CE, which costs
/// what UEO does. With the severe ones nearly each costs a boot of three PEs: of these about 24.
fn chosen(
    path: &Path,
    kind: Kind,
    every: bool,
    targets: &Targets,
    symbols: &Symbols,
) -> BTreeMap<u64, u64> {
    let is_cheap = path.stage.life == Life::GoesOn && !path.loses_a_page() && kind == Kind::Ueo;
    if every || is_cheap {
        return targets.executed.clone();
    }
    let by = if kind == Kind::Ueu { kind } else { Kind::Uer };
    let chosen = select::choose(targets, symbols, by, Extent::Functions);
    if kind.is_severe() {
        select::thin(&chosen, MOST_SEVERE)
    } else {
        chosen
    }
}

/// Returns when a probe is put in its place that was not hit at first. What an error opened comes by most
/// of the code before: then it is shortly before the step of the round that is meant.
fn plant_ticks(path: &Path, step: u64, turn: usize) -> u64 {
    let of = |ticks: &[u64; TURNS]| ticks.get(turn).copied().unwrap_or(0);
    match (path.pe, path.is_opened(), path.loses_a_page()) {
        (Some(0), true, true) => match RETIRE_TICKS.get(turn) {
            Some(Plant::At(ticks)) => *ticks,
            Some(Plant::Before(lead)) => (OPENING_TICKS + step).saturating_sub(*lead),
            None => PLANT_TICKS,
        },
        (Some(0), true, false) => PHASE_TICKS + step.saturating_sub(of(&LEADS_TICKS)),
        (_, _, true) => of(&BESIDE_TICKS),
        _ => PLANT_TICKS,
    }
}

/// Returns the runs of instructions that stand one behind the other: the first, and how many.
fn runs(addresses: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for address in addresses {
        match runs.last_mut() {
            Some((first, count)) if *first + 4 * *count == address && *count < RUN => *count += 1,
            _ => runs.push((address, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use Level::{El2, El3, Guest};

    fn steps(text: &[(u8, u64, Level)]) -> Vec<(u8, Step)> {
        text.iter()
            .map(|&(pe, pc, level)| (pe, Step { pc, level }))
            .collect()
    }

    const ENDS: Ends = Ends {
        pe: 0,
        anchor: 1,
        done: None,
        from: None,
        to: None,
        retire: None,
    };

    #[test]
    fn a_run_ends_at_a_gap_and_is_not_too_long() {
        let addresses = (0..RUN + 2).map(|index| 0x100 + 4 * index);
        let far = [0x1000, 0x1008];
        assert_eq!(
            runs(addresses.chain(far)),
            [(0x100, RUN), (0x100 + 4 * RUN, 2), (0x1000, 1), (0x1008, 1)]
        );
    }

    #[test]
    fn the_second_round_is_looked_at_and_each_pe_has_its_own_boundaries() {
        let trace = steps(&[
            (0, 1, Guest),
            (1, 0x90, El2),
            (0, 1, Guest),
            (0, 0x40, El2),
            (1, 0x40, El2),
            (0, 2, Guest),
            (0, 0x44, El2),
            (1, 0x48, El2),
            (1, 1, Guest),
            (0, 1, Guest),
            (1, 0x4c, El2),
        ]);
        let ends = Ends {
            done: Some(2),
            ..ENDS
        };
        assert_eq!(executed(&trace, &ends), Some([(0x40, 1)].into()));
        let ends = Ends { pe: 1, ..ENDS };
        let other = executed(&trace, &ends);
        assert_eq!(other, Some([(0x40, 2), (0x48, 5)].into()));
        assert_eq!(executed(&trace[..9], &ends), None, "no third anchor");
    }

    fn life() -> Vec<(u8, Step)> {
        steps(&[
            (1, 0x80, El2),
            (0, 1, Guest),
            (1, 0x3c, El2),
            (0, 1, Guest),
            (0, 0x40, El2),
            (1, 0x44, El2),
            (0, 0x48, El2),
            (1, 0x80, El2),
            (0, 0x4c, El2),
            (1, 0x80, El2),
            (0, 1, Guest),
        ])
    }

    #[test]
    fn a_life_is_looked_at_until_any_pe_writes_its_memory() {
        let trace = life();
        let ends = Ends {
            pe: 1,
            to: Some(0x80),
            ..ENDS
        };
        assert_eq!(executed(&trace, &ends), Some([(0x44, 2)].into()));
        let ends = Ends {
            pe: 0,
            from: Some((0, 0x48)),
            ..ends
        };
        assert_eq!(executed(&trace, &ends), Some([(0x48, 3)].into()));
        assert_eq!(executed(&trace[..7], &ends), None, "it does not end");
    }

    #[test]
    fn the_only_round_of_a_life_that_a_trace_has_is_enough() {
        // Two of `pair_reset_other` were waited for, and by then all lives were over.
        let trace = life();
        let ends = Ends {
            pe: 1,
            to: Some(0x80),
            ..ENDS
        };
        let one = &trace[3..8];
        assert!(executed(one, &ends).is_some());
        let mut watch = watch(ends);
        let enough: Vec<usize> = (0..=trace.len())
            .filter(|len| watch(&trace[..*len]))
            .collect();
        assert_eq!(enough, [8, 10, 11], "where the memory is written first");
    }

    #[test]
    fn a_round_that_loses_no_page_is_none_and_steps_count_from_the_error() {
        let round = |page| {
            [
                (0, 1, Guest),
                (1, 0x90, El2),
                (0, 2, Guest),
                (0, 0, El3),
                (0, 0x20, El2),
                (0, page, El2),
                (1, 0x94, El2),
                (0, 0x60, El2),
                (1, 0x20, El2),
                (1, 0x98, El2),
            ]
        };
        let mut list = vec![(0, 1, Guest)];
        list.extend(round(0x44));
        assert_eq!(executed(&steps(&list), &ENDS_OF_A_PAGE), None);
        list.extend(round(0x40));
        list.push((0, 1, Guest));
        let trace = steps(&list);
        let struck = Ends {
            from: Some((0, 0x60)),
            ..ENDS_OF_A_PAGE
        };
        assert_eq!(executed(&trace, &struck), Some([(0x60, 4)].into()));
        let other = Ends {
            pe: 1,
            from: Some((0, 0x20)),
            ..ENDS_OF_A_PAGE
        };
        // What comes behind the error that the trace is taken with is no part of it.
        assert_eq!(executed(&trace, &other), Some([(0x94, 3)].into()));
    }

    const ENDS_OF_A_PAGE: Ends = Ends {
        retire: Some(Retire {
            error: 0x20,
            page: 0x40,
        }),
        ..ENDS
    };

    #[test]
    fn what_costs_something_is_chosen_as_on_one_pe() {
        let targets = Targets {
            executed: (0..400).map(|at| (0x800 + 4 * at, at)).collect(),
            offsets: [].into(),
            in_guest: [].into(),
        };
        let symbols = Symbols::of(&[
            ("firebreak_window_exit_start", 0x800),
            ("firebreak_window_exit_end", 0x8a0),
            ("work", 0x8a0),
        ]);
        let count = |path: &Path, kind| chosen(path, kind, false, &targets, &symbols).len();
        assert_eq!(count(&SGI_SENDER, Kind::Ueo), 400);
        assert_eq!(count(&SGI_SENDER, Kind::Ce), 42);
        assert_eq!(count(&SGI_SENDER, Kind::Uer), 22);
        assert_eq!(count(&SGI_SENDER, Kind::Ueu), 4);
        assert_eq!(count(&KILL_OTHER, Kind::Ueo), 42);
        assert_eq!(count(&KILL_OTHER, Kind::Uer), 22);
        assert_eq!(count(&RETIRE_OTHER, Kind::Ueo), 42);
        assert_eq!(
            chosen(&KILL_OTHER, Kind::Uer, true, &targets, &symbols).len(),
            400
        );
    }
}
