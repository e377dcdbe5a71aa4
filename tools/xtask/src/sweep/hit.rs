// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the boundaries of one path are hit: by offsets, once more by offsets, and at last by probes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::Job;
use super::judge;
use super::lives::Life;
use super::report::{self, Row};
use super::select::{self, Extent};
use super::strike::Striker;
use super::symbols::Symbols;
use super::targets::Targets;

/// Boundaries of a path on which a life ends or begins, or that an error opens, for errors that cost
/// something: most of them cost a boot.
pub(super) const MOST_SEVERE: usize = 24;

/// How often boundaries are tried that are not in each round, and how many of these there may be.
const TURNS: usize = 16;

/// How long before an instruction is reached its probe is put there. Not always is it reached when it
/// was in the trace: after a boot the numbers in events are shorter, say.
const LEADS_TICKS: [u64; 4] = [100, 400, 1_600, 6_400];

/// Sweeps some boundaries of a path with errors that cost something each.
pub(super) fn strike_chosen(
    job: Job<'_>,
    extent: Extent,
    hypervisor: Option<&Path>,
    targets: &Targets,
    symbols: &Symbols,
) -> Result<Row> {
    let chosen = select::choose(targets, symbols, job.2, extent);
    let mut striker = Striker::new(job, hypervisor);
    if job.0.is_plain() {
        for at in targets.in_guest.iter().chain(chosen.values()) {
            striker.strike(*at, None)?;
        }
        for (_, at) in missing(&chosen, &striker.points()) {
            striker.strike(at, None)?;
        }
        for (address, _) in missing(&chosen, &striker.points()) {
            striker.strike(0, Some(address))?;
        }
        return report::row(job, (targets, &chosen), &striker.finish(), symbols);
    }
    let chosen = select::thin(&chosen, MOST_SEVERE);
    probe_behind(&mut striker, &chosen, &LEADS_TICKS)?;
    report::row(job, (targets, &chosen), &striker.finish(), symbols)
}

/// Sweeps the boundaries of a path, with the hypervisor that `build` made or another one.
pub(super) fn strike_all(
    job: Job<'_>,
    hypervisor: Option<&Path>,
    targets: &Targets,
    symbols: &Symbols,
) -> Result<Row> {
    let mut striker = Striker::new(job, hypervisor);
    striker.sweep(&targets.offsets)?;
    // What is missing once more, all in a row.
    let again = missing(&targets.executed, &striker.points());
    striker.sweep(&again.into_iter().map(|(_, at)| at).collect())?;
    // A point behind one that cost the guest its life found no round to strike.
    if !job.0.stage.is_partial() {
        for (_, at) in missing(&targets.executed, &striker.points()) {
            striker.strike(at, None)?;
        }
    }
    // No tick falls on the first instruction of a vector behind an abort or an interrupt.
    if job.0.is_opened() || job.0.stage.life != Life::GoesOn {
        // The probe must not stand where the handler of the opening error comes by. And a guest that ends
        // its life may be late for its round, when the probe is put there right before.
        probe_behind(&mut striker, &targets.executed, &LEADS_TICKS)?;
    }
    if !job.0.is_opened() {
        // What EL2 keeps of its last events comes to its end in every eighth, whichever that is.
        let turns = if job.0.typed.is_empty() { 1 } else { TURNS };
        for _ in 0..turns {
            for (address, _) in missing(&targets.executed, &striker.points()) {
                striker.strike(0, Some(address))?;
            }
        }
    }
    report::row(
        job,
        (targets, &targets.executed),
        &striker.finish(),
        symbols,
    )
}

/// Strikes at those of these boundaries that were not hit yet, by probes that are put there a bit
/// before.
fn probe_behind(
    striker: &mut Striker<'_>,
    wanted: &BTreeMap<u64, u64>,
    leads_ticks: &[u64],
) -> Result<()> {
    for lead_ticks in leads_ticks {
        for (address, at) in missing(wanted, &striker.points()) {
            striker.strike(at.saturating_sub(*lead_ticks), Some(address))?;
        }
    }
    Ok(())
}

/// Addresses of these that were not hit yet, with their offsets.
pub(super) fn missing(wanted: &BTreeMap<u64, u64>, points: &[judge::Point]) -> Vec<(u64, u64)> {
    let hit: BTreeSet<u64> = points
        .iter()
        .filter(|point| point.in_el2())
        .map(|point| point.elr)
        .collect();
    wanted
        .iter()
        .filter(|(address, _)| !hit.contains(address))
        .map(|(address, at)| (*address, *at))
        .collect()
}
