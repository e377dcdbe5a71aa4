// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths in which two PEs take part.
//!
//! With several PEs a tick is not an instruction of one of them. So the firmware puts an SMC in the
//! place of each instruction that QEMU's trace names, one in each period, and strikes when the PE
//! that is meant reaches it (`probe=`). Another PE passes such a probe by. Each path is that of one
//! PE: the one that causes something, or the one to which it happens.

use std::collections::BTreeMap;
use std::fs::File;

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
use super::trace::{self, Level, Step};

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

const KILLED_BY: Opening = Opening {
    at_ticks: OPENING_TICKS,
    error: Kind::Ueu,
    page_stride: None,
};

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

/// Returns which boundaries of its PE a path has, from the trace of all PEs; `None` while that is too
/// short.
pub(super) fn targets(
    path: &Path,
    file: &std::path::Path,
    (guest, hypervisor): (&Symbols, &Symbols),
) -> Result<Option<Targets>> {
    let pe = path.pe.context("not a path of two PEs")?;
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    let steps = trace::read_all(opened).with_context(|| file.display().to_string())?;
    let anchor = guest.address(&format!("sweep_anchor_{}", path.label))?;
    let done = guest.address(&format!("sweep_done_{}", path.label))?;
    let ends = Ends {
        anchor,
        done: (path.stage.life == Life::GoesOn && pe == 0).then_some(done),
        from: address(path.stage.from, hypervisor)?,
        to: address(path.stage.to, hypervisor)?,
    };
    Ok(executed(&steps, pe, &ends).map(|executed| Targets {
        offsets: executed.values().copied().collect(),
        executed,
        in_guest: [].into(),
    }))
}

fn address(name: Option<&str>, hypervisor: &Symbols) -> Result<Option<u64>> {
    name.map(|name| hypervisor.containing(name)).transpose()
}

/// Where a round begins and ends.
struct Ends {
    /// The guest's own round, on PE 0.
    anchor: u64,
    /// On PE 0, behind what it did; `None`: the next round.
    done: Option<u64>,
    /// The first time that the PE of the path reaches this at EL2.
    from: Option<u64>,
    /// The first time that any PE reaches this at EL2.
    to: Option<u64>,
}

/// Returns the addresses that a PE executes at EL2 in the second whole round of a trace, in which
/// everything happens that happens in a round, with the step at which each is reached first.
fn executed(steps: &[(u8, Step)], pe: u8, ends: &Ends) -> Option<BTreeMap<u64, u64>> {
    let is = |(by, step): &(u8, Step), level, pc| *by == 0 && step.level == level && step.pc == pc;
    let starts: Vec<usize> = (0..steps.len())
        .filter(|index| is(&steps[*index], Level::Guest, ends.anchor))
        .collect();
    // The log may have begun in the middle of the first.
    let round = match (starts.get(1), starts.get(2), ends.to) {
        (Some(start), Some(next), _) => steps.get(*start..*next)?,
        // A life that ends begins no other round before its memory is written.
        (Some(start), None, Some(_)) => steps.get(*start..)?,
        _ => return None,
    };
    let at_el2 = |step: &Step, pc| step.level == Level::El2 && step.pc == pc;
    let end = match (ends.done, ends.to) {
        (Some(done), _) => round.iter().position(|each| is(each, Level::Guest, done))?,
        (None, Some(to)) => round.iter().position(|(_, step)| at_el2(step, to))?,
        (None, None) => round.len(),
    };
    let start = match ends.from {
        Some(from) => round
            .iter()
            .position(|(by, step)| *by == pe && at_el2(step, from))?,
        None => 0,
    };
    let mut executed = BTreeMap::new();
    let part = round.iter().enumerate().take(end).skip(start);
    for (at, (by, step)) in part {
        if *by == pe && step.level == Level::El2 {
            executed.entry(step.pc).or_insert(at as u64);
        }
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
        assert_eq!(executed(&trace, 0, &ends), Some([(0x40, 1)].into()));
        let other = executed(&trace, 1, &ENDS);
        assert_eq!(other, Some([(0x40, 2), (0x48, 5)].into()));
        assert_eq!(executed(&trace[..9], 1, &ENDS), None, "no third anchor");
    }

    #[test]
    fn a_life_is_looked_at_until_any_pe_writes_its_memory() {
        let trace = steps(&[
            (0, 1, Guest),
            (0, 1, Guest),
            (0, 0x40, El2),
            (1, 0x44, El2),
            (0, 0x48, El2),
            (1, 0x80, El2),
            (0, 0x4c, El2),
        ]);
        let ends = Ends {
            to: Some(0x80),
            ..ENDS
        };
        assert_eq!(executed(&trace, 1, &ends), Some([(0x44, 2)].into()));
        let ends = Ends {
            from: Some(0x48),
            ..ends
        };
        assert_eq!(executed(&trace, 0, &ends), Some([(0x48, 3)].into()));
        assert_eq!(executed(&trace[..5], 0, &ends), None, "it does not end");
    }
}
