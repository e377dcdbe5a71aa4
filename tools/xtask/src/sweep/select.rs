// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which boundaries are swept by errors that cost a restart or a boot each.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::Kind;
use super::symbols::Symbols;
use super::targets::Targets;

/// How much of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    /// Each label of each window and what stands before it; the first and last instruction of the
    /// windows and of EL2's work.
    Labels,
    /// The same, and with UER every boundary in a window, and of the work the first and last
    /// instruction of each function. Of a path that has few, all.
    Functions,
}

/// A path of at most so many boundaries is swept whole in the whole sweep.
const FEW: usize = 130;

/// Chooses boundaries of a path: address, and the offset at which it is first reached.
pub(super) fn choose(
    targets: &Targets,
    symbols: &Symbols,
    kind: Kind,
    extent: Extent,
) -> BTreeMap<u64, u64> {
    // What the others cost differs from that only at the labels.
    let extent = if kind == Kind::Uer {
        extent
    } else {
        Extent::Labels
    };
    if extent == Extent::Functions && targets.executed.len() <= FEW {
        return targets.executed.clone();
    }
    let windows = symbols.windows();
    let inside = |address: u64| windows.values().any(|window| window.contains(&address));
    let whole_windows = extent == Extent::Functions;
    let mut chosen = BTreeSet::new();
    for window in windows.values() {
        let executed: Vec<u64> = targets.executed.range(window.clone()).map(first).collect();
        if whole_windows {
            chosen.extend(executed);
            continue;
        }
        chosen.extend([executed.first(), executed.last()].into_iter().flatten());
        for label in symbols.labels_within(window) {
            let at = executed.partition_point(|address| *address < label);
            chosen.extend(executed.get(at));
            chosen.extend(at.checked_sub(1).and_then(|before| executed.get(before)));
        }
    }
    // By time and not by place: the way through EL2 is what counts.
    let mut work: Vec<(u64, u64)> = targets
        .executed
        .iter()
        .filter(|(address, _)| !inside(**address))
        .map(|(address, at)| (*at, *address))
        .collect();
    work.sort_unstable();
    let mut functions: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (_, address) in work {
        let name = match extent {
            Extent::Labels => "",
            Extent::Functions => symbols.function(address),
        };
        functions.entry(name).or_insert((address, address)).1 = address;
    }
    chosen.extend(
        functions
            .into_values()
            .flat_map(|(first, last)| [first, last]),
    );
    let offset = |address: u64| Some((address, *targets.executed.get(&address)?));
    chosen.into_iter().filter_map(offset).collect()
}

/// Returns about so many of these, evenly over the round, the first and last among them.
pub(super) fn thin(boundaries: &BTreeMap<u64, u64>, count: usize) -> BTreeMap<u64, u64> {
    let mut by_time: Vec<(u64, u64)> = boundaries.iter().map(|(pc, at)| (*at, *pc)).collect();
    by_time.sort_unstable();
    let last = by_time.len().saturating_sub(1);
    let step = by_time.len().div_ceil(count.max(1)).max(1);
    by_time
        .into_iter()
        .enumerate()
        .filter(|(index, _)| index % step == 0 || *index == last)
        .map(|(_, (at, pc))| (pc, at))
        .collect()
}

fn first((address, _): (&u64, &u64)) -> u64 {
    *address
}

impl Targets {
    /// Returns about so many of the boundaries, evenly over the round, the first and last among them.
    pub(super) fn sample(&self, count: usize) -> Self {
        let executed = thin(&self.executed, count);
        Self {
            offsets: executed.values().copied().collect(),
            executed,
            in_guest: BTreeSet::new(),
        }
    }

    /// Leaves out what comes from the first time on that EL2 reaches an instruction.
    pub(super) fn end_at(&mut self, address: u64) {
        let Some(end) = self.executed.get(&address).copied() else {
            return;
        };
        self.executed.retain(|_, at| *at < end);
        self.offsets.retain(|at| *at < end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(functions_words: u64) -> Targets {
        // A vector of ten instructions, then functions whose code lies before it.
        let vector = (0..10).map(|index| (0x1000 + 4 * index, index));
        let function = (0..functions_words).map(|index| (0x800 + 4 * index, 10 + index));
        Targets {
            executed: vector.chain(function).collect(),
            offsets: BTreeSet::new(),
            in_guest: BTreeSet::new(),
        }
    }

    fn symbols() -> Symbols {
        Symbols::of(&[
            ("firebreak_window_entry_start", 0x1000),
            ("firebreak_window_entry_known", 0x1010),
            ("firebreak_window_entry_end", 0x1020),
            ("vector", 0x1000),
            ("work", 0x800),
            ("more_work", 0x810),
        ])
    }

    #[test]
    fn a_sample_has_the_ends_of_the_round() {
        let targets = Targets {
            executed: (0..100).map(|at| (0x1000 - 4 * at, at)).collect(),
            offsets: (0..200).collect(),
            in_guest: BTreeSet::new(),
        };
        let sample = targets.sample(4);
        assert_eq!(sample.offsets, BTreeSet::from([0, 25, 50, 75, 99]));
        assert_eq!(sample.executed.get(&(0x1000 - 4 * 99)), Some(&99));
    }

    #[test]
    fn each_label_and_what_stands_before_it_is_chosen() {
        let chosen = choose(&targets(6), &symbols(), Kind::Ueu, Extent::Labels);
        let addresses: Vec<u64> = chosen.keys().copied().collect();
        // The work begins behind the window and ends in the function.
        assert_eq!(addresses, [0x814, 0x1000, 0x100c, 0x1010, 0x101c, 0x1020]);
        assert_eq!(chosen.get(&0x100c), Some(&3));
    }

    #[test]
    fn more_of_the_windows_and_the_ends_of_each_function_are_chosen_in_the_whole_sweep() {
        let few = choose(&targets(6), &symbols(), Kind::Uer, Extent::Functions);
        assert_eq!(few, targets(6).executed);
        let chosen = choose(&targets(200), &symbols(), Kind::Uer, Extent::Functions);
        let window = (0x1000..0x1020).step_by(4);
        // The function of the vector's rest is the vector's.
        let work = [0x1020, 0x1024, 0x800, 0x80c, 0x810, 0xb1c];
        let wanted: BTreeSet<u64> = window.chain(work).collect();
        assert_eq!(chosen.into_keys().collect::<BTreeSet<u64>>(), wanted);
    }
}
