// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of a path is swept: boundaries, and the offsets that hit them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::Result;

use super::lives::Life;
use super::nested;
use super::paths::Path;
use super::symbols::Symbols;
use super::trace::{self, Level, Step};
use super::typed;

/// A round of at most so many ticks is swept whole, without choosing.
const WHOLE_TICKS: usize = 2_500;
/// From the start of a period to the expiry of the guest's timer and a bit more.
const TIMER_TICKS: u64 = 400;

/// Runs of consecutive offsets, none longer than that.
pub(super) fn chunks(offsets: &BTreeSet<u64>, most: u64) -> Vec<(u64, u64)> {
    let mut chunks: Vec<(u64, u64)> = Vec::new();
    for &offset in offsets {
        match chunks.last_mut() {
            Some((from, to)) if *to + 1 == offset && offset - *from < most => *to = offset,
            _ => chunks.push((offset, offset)),
        }
    }
    chunks
}

/// What is to be swept: the boundaries, and the offsets that hit them.
#[derive(Debug)]
pub(super) struct Targets {
    /// Addresses at EL2 that a round executes, and the offset at which each is reached first.
    pub(super) executed: BTreeMap<u64, u64>,
    /// Offsets in the period.
    pub(super) offsets: BTreeSet<u64>,
    /// Offsets at which the guest runs: the first, the last before EL2, the first after it, the last.
    pub(super) in_guest: BTreeSet<u64>,
}

/// Finds what is to be swept in a trace; `None` while it is too short.
///
/// The round reaches its anchor `start` ticks behind the start of the period.
pub(super) fn targets(
    path: &Path,
    steps: &[Step],
    (guest, hypervisor): (&Symbols, &Symbols),
    start: u64,
) -> Result<Option<Targets>> {
    let anchor = guest.address(&format!("sweep_anchor_{}", path.label))?;
    let done = match path.stage.is_over_at {
        Some(symbol) => guest.address(symbol)?,
        None => guest.address(&format!("sweep_done_{}", path.label))?,
    };
    let rounds = trace::rounds(steps, anchor, done);
    // The first of many may be the one during which the log began.
    let unsure = usize::from(path.stage.life == Life::GoesOn || rounds.len() > 1);
    let mut found = None;
    for round in rounds.into_iter().skip(unsure) {
        let mut clock = Clock {
            index: 0,
            ticks: start,
        };
        let part = if typed::is_typed_in_the_round(path) {
            let taken = typed::taken(path, round, start, hypervisor);
            taken.and_then(|(first, at)| {
                clock = at;
                let part = path.stage.part_from(round, first, hypervisor).ok()?;
                Some(part)
            })
        } else if nested::is_sei_path(path) {
            let from = path.last_opening().map_or(0, |opening| opening.at_ticks);
            trace::behind_firmware(round, from.saturating_sub(start) as usize)
                .map(|first| first..round.len())
        } else {
            path.stage.part(round, hypervisor).ok()
        };
        // Of two errors that open a round both have to be there before the part that is swept.
        let part = part.filter(|part| are_waiting(path, round, part.start, hypervisor));
        // In some the opening error did not come. Of those that lose a page the last is like all
        // that follow.
        if let Some(part) = part
            && (found.is_none() || path.loses_a_page())
        {
            found = Some(targets_of(round, part, clock, path.once));
        }
    }
    Ok(found)
}

/// Returns what says of a growing trace whether it has a round as it is wanted. Of those that lose a
/// page all that come are looked at.
pub(super) fn watch(
    path: &Path,
    (guest, hypervisor): (&Symbols, &Symbols),
    start: u64,
) -> Result<impl FnMut(&[(u8, Step)]) -> bool + Send + 'static> {
    let anchor = guest.address(&format!("sweep_anchor_{}", path.label))?;
    let done = match path.stage.is_over_at {
        Some(symbol) => guest.address(symbol)?,
        None => guest.address(&format!("sweep_done_{}", path.label))?,
    };
    let (path, guest, hypervisor) = (*path, guest.clone(), hypervisor.clone());
    Ok(move |steps: &[(u8, Step)]| {
        let is_mark = |(pe, step): &(u8, Step)| {
            *pe == 0 && step.level == Level::Guest && [anchor, done].contains(&step.pc)
        };
        let symbols = (&guest, &hypervisor);
        !path.loses_a_page()
            && steps.last().is_some_and(is_mark)
            && targets(&path, &trace::of_pe(steps, 0), symbols, start)
                .is_ok_and(|found| found.is_some())
    })
}

/// Says whether all of several errors that open a round found EL2 at its work before `start`.
fn are_waiting(path: &Path, round: &[Step], start: usize, hypervisor: &Symbols) -> bool {
    let wanted = path.openings.iter().flatten().count();
    let vectors: Vec<u64> = ["el2t", "el2h"]
        .iter()
        .filter_map(|name| {
            let label = format!("firebreak_window_sei_{name}_start");
            hypervisor.address(&label).ok()
        })
        .collect();
    let before = round.get(..start).unwrap_or(&[]).iter();
    let taken = before.filter(|step| step.level == Level::El2 && vectors.contains(&step.pc));
    wanted < 2 || taken.count() >= wanted
}

/// When a step of a round is: a tick later for each further one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// A step.
    pub(super) index: usize,
    /// Its offset in the period.
    pub(super) ticks: u64,
}

impl Clock {
    /// Returns the offset of another step. Only those behind the first that is swept are asked for.
    fn at(self, step: u64) -> u64 {
        (self.ticks + step).saturating_sub(self.index as u64)
    }
}

/// Makes the targets of a part of a round.
fn targets_of(round: &[Step], part: Range<usize>, clock: Clock, once: bool) -> Targets {
    let is_whole = part == (0..round.len());
    let offsets = if is_whole && round.len() <= WHOLE_TICKS {
        (0..clock.at(round.len() as u64) + TIMER_TICKS).collect()
    } else if once {
        let first = trace::executed(round, part.clone()).into_values();
        first.map(|at| clock.at(at)).collect()
    } else {
        let wanted = trace::wanted(round, part.clone());
        wanted.into_iter().map(|at| clock.at(at)).collect()
    };
    let executed = trace::executed(round, part).into_iter();
    let in_guest = trace::edges_of_the_guest(round).into_iter();
    Targets {
        executed: executed
            .map(|(address, at)| (address, clock.at(at)))
            .collect(),
        offsets,
        in_guest: in_guest.map(|at| clock.at(at)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::CHUNK;
    use super::*;

    #[test]
    fn what_is_left_out_is_the_end() {
        let mut targets = Targets {
            executed: [(0x40, 5), (0x44, 6), (0x20, 7)].into(),
            offsets: [5, 6, 7, 8].into(),
            in_guest: BTreeSet::new(),
        };
        targets.end_at(0x80);
        assert_eq!(targets.offsets.len(), 4);
        targets.end_at(0x20);
        assert_eq!(targets.offsets, [5, 6].into());
        assert_eq!(targets.executed, [(0x40, 5), (0x44, 6)].into());
    }

    #[test]
    fn offsets_are_asked_for_in_runs_that_are_not_too_long() {
        let offsets: BTreeSet<u64> = (0..CHUNK + 3).chain([100, 200, 201]).collect();
        assert_eq!(
            chunks(&offsets, CHUNK),
            [(0, CHUNK - 1), (CHUNK, CHUNK + 2), (100, 100), (200, 201)]
        );
    }
}
