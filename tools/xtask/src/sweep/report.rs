// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of the sweep, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Job;
use super::expect::Map;
use super::judge::{Loss, Point};
use super::nested;
use super::paths::Kind;
use super::symbols::Symbols;
use super::targets::Targets;

/// A boundary that cost something.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct Lost {
    /// Where.
    pub(super) boundary: String,
    /// What: `vm` or `machine`.
    pub(super) loss: String,
}

/// A row of the table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) path: String,
    pub(super) mode: String,
    /// Class of the errors.
    pub(super) error: String,
    /// Boundaries at EL2 that were hit.
    pub(super) boundaries: usize,
    /// Boundaries at EL2 that the path has: more, where only some were chosen.
    pub(super) of: usize,
    /// Errors that were raised, those that found the guest or a loop's other turns included.
    pub(super) points: usize,
    pub(super) nothing_lost: usize,
    pub(super) vm_lost: usize,
    pub(super) machine_lost: usize,
    /// Longest run of boundaries at EL2 with SError masked, the SEI handler aside; none where only
    /// some boundaries were chosen.
    pub(super) longest_masked: Option<usize>,
    /// How long it took, on whatever host it was.
    #[serde(default)]
    pub(super) seconds: u64,
    /// The boundaries that are not `nothing_lost`.
    pub(super) lost: Vec<Lost>,
    /// What must not be.
    pub(super) failures: Vec<String>,
}

/// Windows in which nothing but the guest's own context is at stake.
const OF_THE_GUEST: [&str; 4] = ["entry_sync", "entry_irq", "entry_serror", "exit"];

/// Judges one path. `chosen`: the boundaries that had to be hit.
pub(super) fn row(
    (path, mode, kind): Job<'_>,
    (targets, chosen): (&Targets, &BTreeMap<u64, u64>),
    points: &[Point],
    symbols: &Symbols,
) -> Result<Row> {
    let map = Map::new(symbols, path.trap_behind_call)?;
    let mut worst: BTreeMap<u64, Loss> = BTreeMap::new();
    let mut failures = Vec::new();
    let windows = symbols.windows();
    for point in points {
        for problem in point
            .problems
            .iter()
            .chain(&point.verify(&map, (path, mode, kind)))
        {
            failures.push(format!(
                "{} (offset {}, pstate {:#x}): {problem}",
                place(point, symbols),
                point.at,
                point.spsr
            ));
        }
        let at_stake = !point.in_el2()
            || OF_THE_GUEST.iter().any(|name| {
                windows
                    .get(*name)
                    .is_some_and(|range| range.contains(&point.elr))
            });
        if at_stake && !point.blames_the_guest() {
            failures.push(format!(
                "{}: another partition is blamed",
                place(point, symbols)
            ));
        }
        if point.in_el2() {
            let loss = worst.entry(point.elr).or_insert(Loss::Nothing);
            *loss = (*loss).max(point.loss());
        }
    }
    // What an error without a record opens is the SEI path itself.
    let has_longest = !kind.is_severe() && !nested::is_sei_path(path) && path.pe.is_none();
    let hit: BTreeSet<u64> = worst.keys().copied().collect();
    for address in chosen.keys().filter(|address| !hit.contains(address)) {
        failures.push(format!(
            "{} was executed but never hit",
            symbols.name(*address)
        ));
    }
    let count = |loss| worst.values().filter(|each| **each == loss).count();
    let lost = worst
        .iter()
        .filter(|(_, loss)| **loss != Loss::Nothing)
        .map(|(address, loss)| Lost {
            boundary: symbols.name(*address),
            loss: if *loss == Loss::Vm { "vm" } else { "machine" }.to_owned(),
        })
        .collect();
    Ok(Row {
        path: path.name.to_owned(),
        mode: mode.name().to_owned(),
        error: kind.name().to_owned(),
        boundaries: worst.len(),
        of: targets.executed.len().max(worst.len()),
        points: points.len(),
        nothing_lost: count(Loss::Nothing),
        vm_lost: count(Loss::Vm),
        machine_lost: count(Loss::Machine),
        longest_masked: has_longest.then(|| longest_masked(points, symbols)),
        seconds: 0,
        lost,
        failures,
    })
}

fn place(point: &Point, symbols: &Symbols) -> String {
    if point.in_el2() {
        symbols.name(point.elr)
    } else {
        format!("the guest at {:#x}", point.elr)
    }
}

/// Longest run of consecutive offsets at which EL2 had SError masked, outside of the SEI path.
fn longest_masked(points: &[Point], symbols: &Symbols) -> usize {
    let windows = symbols.windows();
    let in_sei = |address: u64| {
        ["entry_serror", "sei"].iter().any(|name| {
            windows
                .get(*name)
                .is_some_and(|window| window.contains(&address))
        })
    };
    let mut sorted: Vec<&Point> = points.iter().collect();
    sorted.sort_by_key(|point| point.at);
    let (mut longest, mut run, mut sei) = (0, 0, false);
    let mut before = None;
    for point in sorted {
        if !point.is_masked() || before.is_some_and(|at| point.at > at + 1) {
            (run, sei) = (0, false);
        }
        before = Some(point.at);
        if point.is_masked() {
            sei |= in_sei(point.elr);
            run += 1;
            if !sei {
                longest = longest.max(run);
            }
        }
    }
    longest
}

/// Writes the table.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:15} {:11} {:9} {:>10} {:>6} {:>7} {:>12} {:>8} {:>12} {:>14} {:>6}\n",
        "path",
        "mode",
        "error",
        "boundaries",
        "of",
        "points",
        "nothing lost",
        "VM lost",
        "machine lost",
        "longest masked",
        "s"
    );
    for row in rows {
        text.push_str(&format!(
            "{:15} {:11} {:9} {:>10} {:>6} {:>7} {:>12} {:>8} {:>12} {:>14} {:>6}\n",
            row.path,
            row.mode,
            row.error,
            row.boundaries,
            row.of,
            row.points,
            row.nothing_lost,
            row.vm_lost,
            row.machine_lost,
            row.longest_masked
                .map_or_else(|| "-".to_owned(), |longest| longest.to_string()),
            row.seconds
        ));
    }
    // What the others cost follows from where they strike; the JSON has it.
    let lost: BTreeSet<(&str, &str, &str)> = rows
        .iter()
        .filter(|row| {
            [Kind::Ce, Kind::Ueo]
                .iter()
                .any(|kind| row.error == kind.name())
        })
        .flat_map(|row| {
            row.lost.iter().map(|lost| {
                (
                    row.mode.as_str(),
                    lost.boundary.as_str(),
                    lost.loss.as_str(),
                )
            })
        })
        .collect();
    for (mode, boundary, loss) in lost {
        text.push_str(&format!("{mode}: {boundary} costs the {loss}\n"));
    }
    text
}
