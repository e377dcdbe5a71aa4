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
use super::hit::missing;
use super::lives::{self, Life, Stage};
use super::paths::{Kind, Opening, Path, path};
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
const LEADS_TICKS: [u64; 6] = [150, 250, 100, 60, 30, 400];
/// In the guest's no-operations.
const OPENING_TICKS: u64 = PHASE_TICKS + 60;

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

/// Where a round begins and ends.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    /// Whose boundaries are looked for.
    pe: u8,
    /// The guest's own round, on PE 0.
    anchor: u64,
    /// On PE 0, behind what it did; `None`: the next round.
    done: Option<u64>,
    /// The first time that the PE of the path reaches this at EL2.
    from: Option<u64>,
    /// The first time that any PE reaches this at EL2.
    to: Option<u64>,
}

impl Ends {
    /// Returns those of a path.
    pub(super) fn of(path: &Path, (guest, hypervisor): (&Symbols, &Symbols)) -> Result<Self> {
        let pe = path.pe.context("not a path of two PEs")?;
        let address = |name: Option<&str>| -> Result<Option<u64>> {
            name.map(|name| hypervisor.containing(name)).transpose()
        };
        let done = guest.address(&format!("sweep_done_{}", path.label))?;
        Ok(Self {
            pe,
            anchor: guest.address(&format!("sweep_anchor_{}", path.label))?,
            done: (path.stage.life == Life::GoesOn && pe == 0).then_some(done),
            from: address(path.stage.from)?,
            to: address(path.stage.to)?,
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
        let mut starts = (0..steps.len()).filter(|index| steps.get(*index).is_some_and(is_anchor));
        let first = starts.next()?;
        if self.to.is_some() {
            // In those before that one the error that ends a life did not come.
            let after = steps.get(first..)?;
            let end = first + after.iter().position(|step| self.is_to(step))?;
            let start = steps.get(..end)?.iter().rposition(is_anchor)?;
            return steps.get(start..end);
        }
        // The log may have begun in the middle of the first.
        let round = steps.get(starts.next()?..)?;
        let end = match self.done {
            Some(_) => round.iter().position(|step| self.is_done(step))?,
            None => 1 + round.get(1..)?.iter().position(is_anchor)?,
        };
        round.get(..end)
    }
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
    let of_pe = |(by, step): &(u8, Step)| *by == ends.pe && step.level == Level::El2;
    let is_from = |each: &(u8, Step)| of_pe(each) && Some(each.1.pc) == ends.from;
    let start = match ends.from {
        Some(_) => round.iter().position(is_from)?,
        None => 0,
    };
    let mut executed = BTreeMap::new();
    let part = round.iter().enumerate().skip(start);
    for (at, each) in part.filter(|(_, each)| of_pe(each)) {
        executed.entry(each.1.pc).or_insert(at as u64);
    }
    (!executed.is_empty()).then_some(executed)
}

/// Strikes at each boundary once. Where each costs a life, at those in a window and at the ends of each
/// function alone, unless `every` one is asked for.
pub(super) fn strike(
    job: Job<'_>,
    every: bool,
    targets: &Targets,
    symbols: &Symbols,
) -> Result<Row> {
    let chosen = if every || job.0.stage.life == Life::GoesOn {
        targets.executed.clone()
    } else {
        select::choose(targets, symbols, Kind::Uer, Extent::Functions)
    };
    let mut striker = Striker::new(job, None);
    for (first, count) in runs(chosen.keys().copied()) {
        striker.probe(first, count)?;
    }
    for lead in LEADS_TICKS {
        for (address, at) in missing(&chosen, &striker.points()) {
            striker.probe_at(plant_ticks(job.0, at, lead), address, 1)?;
        }
    }
    report::row(job, (targets, &chosen), &striker.finish(), symbols)
}

/// Returns when a probe is put in its place that was not hit at first. What an error opened comes by most
/// of the code before: then it is shortly before the step of the round that is meant.
fn plant_ticks(path: &Path, step: u64, lead: u64) -> u64 {
    let struck = path.pe == Some(0) && path.is_opened();
    let behind = PHASE_TICKS + step.saturating_sub(lead);
    if struck { behind } else { PLANT_TICKS }
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
    use Level::{El2, Guest};

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
            from: Some(0x48),
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
}
