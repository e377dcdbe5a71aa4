// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory for tables, and a page-table walker that shares no code with the crate.

use std::collections::BTreeMap;

use firebreak_abi::Pa;
use firebreak_paging::{Frames, Op};

/// Pages of tables, handed out upwards from 16 MiB.
#[derive(Clone, Debug)]
pub(crate) struct FakeFrames {
    /// Table page to descriptors.
    pub(crate) pages: BTreeMap<u64, [u64; 512]>,
    next: u64,
    /// Pages left.
    pub(crate) left: usize,
    /// Descriptor reads and writes so far.
    pub(crate) accesses: std::cell::Cell<usize>,
    /// Pages that were written since the log was last cleared.
    pub(crate) written: Vec<u64>,
}

impl FakeFrames {
    /// Makes a memory of `left` pages.
    pub(crate) fn new(left: usize) -> Self {
        let accesses = std::cell::Cell::new(0);
        Self {
            pages: BTreeMap::new(),
            next: 0x100_0000,
            left,
            accesses,
            written: Vec::new(),
        }
    }

    /// Reads without counting.
    pub(crate) fn peek(&self, table: u64, index: usize) -> u64 {
        self.pages
            .get(&table)
            .unwrap_or_else(|| panic!("no table at {table:#x}"))[index]
    }

    /// Carries out one step of a plan.
    pub(crate) fn step(&mut self, op: Op) {
        if let Op::Write {
            table,
            index,
            descriptor,
        } = op
        {
            self.pages.get_mut(&table.get()).expect("write to a table")[index] = descriptor;
        }
    }
}

impl Frames for FakeFrames {
    fn alloc_zeroed(&mut self, count_contiguous: usize) -> Option<Pa> {
        assert!(count_contiguous.is_power_of_two());
        self.left = self.left.checked_sub(count_contiguous)?;
        let len = count_contiguous as u64 * 4096;
        let start = self.next.next_multiple_of(len);
        self.next = start + len;
        for page in (start..start + len).step_by(4096) {
            self.pages.insert(page, [0; 512]);
        }
        Some(Pa::new(start))
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        self.accesses.set(self.accesses.get() + 1);
        self.peek(table.get(), index)
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        self.accesses.set(self.accesses.get() + 1);
        self.written.push(table.get());
        self.pages.get_mut(&table.get()).expect("write to a table")[index] = descriptor;
    }
}

/// Walks as a PE does: bit by bit from a T0SZ, a start level and a root. Returns the output
/// address, the leaf's attribute bits and its level.
pub(crate) fn hardware_walk(
    frames: &FakeFrames,
    root: u64,
    t0sz: u64,
    start_level: u32,
    input: u64,
) -> Option<(u64, u64, u32)> {
    let bits = 64 - t0sz;
    if input.checked_shr(bits as u32).unwrap_or(0) != 0 {
        return None;
    }
    let mut base = root;
    let mut high = bits as u32;
    for level in start_level..4 {
        let low = 12 + 9 * (3 - level);
        let index = (input >> low) & ((1u64 << (high - low)) - 1);
        // Concatenated tables are one long table: address the descriptor by its bytes.
        let address = base + index * 8;
        let word = frames.peek(address & !0xfff, ((address & 0xfff) / 8) as usize);
        let next = word & 0x0000_ffff_ffff_f000;
        match (word & 3, level) {
            (3, 0..=2) => base = next,
            (3, 3) | (1, 1..=2) => {
                let mask = (1u64 << low) - 1;
                assert_eq!(
                    next & mask,
                    0,
                    "output of a leaf at level {level} is misaligned"
                );
                let attributes = word & !0x0000_ffff_ffff_f003;
                return Some((next | (input & mask), attributes, level));
            }
            (0 | 2, _) => return None,
            other => panic!("reserved descriptor {word:#x} at {other:?}"),
        }
        high = low;
    }
    unreachable!("level 3 always ends the walk")
}
