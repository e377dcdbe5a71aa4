// SPDX-License-Identifier: MIT OR Apache-2.0
//! The instructions of one round, from QEMU's own trace: which boundaries there are.
//!
//! With one instruction in each translation block, `-d exec,nochain` logs a line for each
//! instruction that is about to run: `Trace 0: <host> [<cs_base>/<pc>/<flags>/<cflags>]`. A line
//! `Stopped execution` behind it says that it did not run after all. Bits \[7:4\] of the flags
//! are the translation regime: 2 for EL1 of a guest, 6 for EL2.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Regime of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Level {
    /// EL1 (or EL0) of a guest.
    Guest,
    /// EL2.
    El2,
    /// EL3.
    El3,
}

/// An instruction that ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    /// Its address.
    pub(super) pc: u64,
    /// Where it ran.
    pub(super) level: Level,
}

/// Reads a line; `None` for those that say nothing about an instruction. Returns also the PE.
fn step(line: &str) -> Option<(u8, Step)> {
    let (number, rest) = line.strip_prefix("Trace ")?.split_once(':')?;
    let pe = number.parse().ok()?;
    let inside = rest.split_once('[')?.1;
    let mut fields = inside.split(['/', ']']);
    let pc = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
    let flags = u64::from_str_radix(fields.next()?, 16).ok()?;
    let level = match flags >> 4 & 0xf {
        0..=3 => Level::Guest,
        6 => Level::El2,
        _ => Level::El3,
    };
    Some((pe, Step { pc, level }))
}

/// Reads a trace line by line.
#[derive(Default)]
pub(super) struct Lines {
    last_is_step: bool,
}

impl Lines {
    /// Adds what a line says to what all PEs did, in QEMU's order.
    pub(super) fn add(&mut self, line: &str, steps: &mut Vec<(u8, Step)>) {
        // It stands right behind the line that it takes back.
        if line.starts_with("Stopped execution") {
            if self.last_is_step {
                steps.pop();
            }
        } else if line.starts_with("Trace ") {
            let step = step(line);
            self.last_is_step = step.is_some();
            steps.extend(step);
        }
    }
}

/// Returns what one PE did.
pub(super) fn of_pe(steps: &[(u8, Step)], pe: u8) -> Vec<Step> {
    let ours = steps.iter().filter(|(by, _)| *by == pe);
    ours.map(|(_, step)| *step).collect()
}

/// Returns the whole rounds of a trace: each from the guest's instruction at `anchor` up to the one
/// at `done`, or to the next round where there is none.
pub(super) fn rounds(steps: &[Step], anchor: u64, done: u64) -> Vec<&[Step]> {
    let is = |step: &Step, pc| step.level == Level::Guest && step.pc == pc;
    let starts: Vec<usize> = (0..steps.len())
        .filter(|index| steps.get(*index).is_some_and(|step| is(step, anchor)))
        .collect();
    let mut rounds = Vec::new();
    for (turn, start) in starts.iter().enumerate() {
        let next = starts.get(turn + 1);
        let round = steps
            .get(*start..next.copied().unwrap_or(steps.len()))
            .unwrap_or(&[]);
        let end = round.iter().position(|step| is(step, done));
        match (end, next) {
            (Some(end), _) => rounds.extend(round.get(..=end)),
            (None, Some(_)) => rounds.push(round),
            (None, None) => {}
        }
    }
    rounds
}

/// Returns the steps at EL2 in a part of a round, with their offsets.
fn at_el2(round: &[Step], part: Range<usize>) -> impl Iterator<Item = (u64, u64)> {
    let first = part.start;
    let steps = round.get(part).unwrap_or(&[]).iter().enumerate();
    steps
        .filter(|(_, step)| step.level == Level::El2)
        .map(move |(index, step)| ((first + index) as u64, step.pc))
}

/// Returns the addresses at EL2 that a part of a round executes, and when each is reached first.
pub(super) fn executed(round: &[Step], part: Range<usize>) -> BTreeMap<u64, u64> {
    let mut first = BTreeMap::new();
    for (at, pc) in at_el2(round, part) {
        first.entry(pc).or_insert(at);
    }
    first
}

/// Returns some steps of the guest: the first, the last before EL2, the first after it, the last.
pub(super) fn edges_of_the_guest(round: &[Step]) -> BTreeSet<u64> {
    let indices = |wanted: Level| {
        round
            .iter()
            .enumerate()
            .filter(move |(_, step)| step.level == wanted)
            .map(|(index, _)| index as u64)
    };
    let mut edges: BTreeSet<u64> = indices(Level::Guest).take(1).collect();
    edges.extend(indices(Level::Guest).next_back());
    if let (Some(first), Some(last)) = (indices(Level::El2).next(), indices(Level::El2).next_back())
    {
        edges.extend(first.checked_sub(1));
        edges.insert(last + 1);
    }
    edges
}

/// Returns the offsets that are to be hit: of each address at EL2 the first, the second and the
/// last time that it is reached.
pub(super) fn wanted(round: &[Step], part: Range<usize>) -> BTreeSet<u64> {
    let mut seen: BTreeMap<u64, (u64, Option<u64>, u64)> = BTreeMap::new();
    for (at, pc) in at_el2(round, part) {
        let times = seen.entry(pc).or_insert((at, None, at));
        if at != times.0 {
            times.1.get_or_insert(at);
        }
        times.2 = at;
    }
    seen.into_values()
        .flat_map(|(first, second, last)| [Some(first), second, Some(last)])
        .flatten()
        .collect()
}

/// Returns when EL2 reaches an address first, from `from` on.
pub(super) fn reaches(round: &[Step], from: usize, pc: u64) -> Option<usize> {
    let is_there = |step: &Step| step.level == Level::El2 && step.pc == pc;
    let found = round.get(from..)?.iter().position(is_there)?;
    Some(from + found)
}

/// Returns the first step at EL2 behind the stay in EL3 that begins at `from` or later.
pub(super) fn behind_firmware(round: &[Step], from: usize) -> Option<usize> {
    let position = |from: usize, wanted: Level| {
        let found = round
            .get(from..)?
            .iter()
            .position(|step| step.level == wanted)?;
        Some(from + found)
    };
    position(position(from, Level::El3)?, Level::El2)
}

/// Returns the last stay in EL3 before a step of a round.
pub(super) fn firmware_before(round: &[Step], step: usize) -> Option<Range<usize>> {
    let is_el3 = |step: &Step| step.level == Level::El3;
    let end = 1 + round.get(..step)?.iter().rposition(is_el3)?;
    let before = round.get(..end)?.iter().rposition(|step| !is_el3(step));
    Some(before.map_or(0, |before| before + 1)..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &[(u64, Level)]) -> Vec<Step> {
        text.iter()
            .map(|(pc, level)| Step {
                pc: *pc,
                level: *level,
            })
            .collect()
    }

    #[test]
    fn lines_of_qemu_are_steps() {
        let line = "Trace 0: 0x7f95e420c880 [00000000/0000000040200c80/00000061/ff022201] sym";
        assert_eq!(
            step(line),
            Some((
                0,
                Step {
                    pc: 0x4020_0c80,
                    level: Level::El2
                }
            ))
        );
        let line = "Trace 0: 0x7f95e42301c0 [00004000/0000000040201470/00000021/ff022201] ";
        assert_eq!(
            step(line),
            Some((
                0,
                Step {
                    pc: 0x4020_1470,
                    level: Level::Guest
                }
            ))
        );
        assert_eq!(
            step("Stopped execution of TB chain before 0x7f95e420c880"),
            None
        );
    }

    #[test]
    fn a_block_that_was_stopped_did_not_run() {
        let text = "Trace 0: 0x1 [0/40/61/0] \nStopped execution of TB chain before 0x1 [40] \n\
                    Trace 0: 0x1 [0/40/61/0] \nTrace 1: 0x1 [0/80/61/0] \n\
                    Stopped execution of TB chain before 0x1 [80] \n\
                    Trace 0: 0x1 [0/44/61/0] \n";
        let (mut lines, mut steps) = (Lines::default(), Vec::new());
        text.lines().for_each(|line| lines.add(line, &mut steps));
        let pcs: Vec<u64> = of_pe(&steps, 0).iter().map(|step| step.pc).collect();
        assert_eq!(pcs, [0x40, 0x44]);
    }

    #[test]
    fn rounds_are_cut_at_their_labels_and_not_at_the_same_address_of_el2() {
        use Level::{El2, Guest};
        let trace = steps(&[
            (9, Guest),
            (1, Guest),
            (5, El2),
            (1, El2),
            (2, Guest),
            (9, Guest),
            (1, Guest),
            (2, El2),
            (2, Guest),
            (1, Guest),
        ]);
        let found = rounds(&trace, 1, 2);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], &trace[1..5]);
        assert_eq!(found[1], &trace[6..9]);
    }

    #[test]
    fn loops_are_hit_at_their_first_second_and_last_turn() {
        use Level::{El2, El3, Guest};
        let trace = steps(&[
            (1, Guest),
            (5, El2),
            (6, El2),
            (5, El2),
            (6, El2),
            (5, El2),
            (6, El2),
            (5, El2),
            (7, El2),
        ]);
        let part = 0..trace.len();
        assert_eq!(
            wanted(&trace, part.clone()),
            BTreeSet::from([1, 2, 3, 4, 6, 7, 8])
        );
        assert_eq!(
            executed(&trace, part),
            BTreeMap::from([(5, 1), (6, 2), (7, 8)])
        );
        assert_eq!(wanted(&trace, 3..6), BTreeSet::from([3, 4, 5]));
        assert_eq!(executed(&trace, 3..6), BTreeMap::from([(5, 3), (6, 4)]));
        assert_eq!(reaches(&trace, 2, 5), Some(3));
        assert_eq!(reaches(&trace, 8, 5), None);
        assert_eq!(behind_firmware(&trace, 0), None);
        let level = |level| Step { pc: 0, level };
        let opened = [El2, Guest, El3, El3, El2, El3, El2].map(level);
        assert_eq!(behind_firmware(&opened, 0), Some(4));
        assert_eq!(behind_firmware(&opened, 5), Some(6));
    }
}
