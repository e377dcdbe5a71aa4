// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the boundaries of one path are hit: by offsets, once more by offsets, and at last by probes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::Job;
use super::judge;
use super::machine::Targets;
use super::report::{self, Row};
use super::select::{self, Extent};
use super::strike::Striker;
use super::symbols::Symbols;

/// How long before an instruction is reached its probe is put there.
const PROBE_LEAD_TICKS: u64 = 100;

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
    for at in targets.in_guest.iter().chain(chosen.values()) {
        striker.strike(*at, None)?;
    }
    for (_, at) in missing(&chosen, &striker.points()) {
        striker.strike(at, None)?;
    }
    for (address, _) in missing(&chosen, &striker.points()) {
        striker.strike(0, Some(address))?;
    }
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
    // A point behind one that cost the guest its life found no round to strike.
    for _ in 0..2 {
        for (_, at) in missing(&targets.executed, &striker.points()) {
            striker.strike(at, None)?;
        }
    }
    // No tick falls on the first instruction of a vector behind an abort or an interrupt.
    // Behind an opening error the probe must not stand where the handler of that comes by.
    let is_opened = job.0.opening.is_some();
    for (address, at) in missing(&targets.executed, &striker.points()) {
        let from = if is_opened {
            at.saturating_sub(PROBE_LEAD_TICKS)
        } else {
            0
        };
        striker.strike(from, Some(address))?;
    }
    report::row(
        job,
        (targets, &targets.executed),
        &striker.finish(),
        symbols,
    )
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
