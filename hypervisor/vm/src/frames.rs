// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each frame of the hypervisor's pool is used for.
//!
//! One atomic byte for each frame, outside of the frames: an error exception reads it without a
//! lock, whatever it interrupted, and a frame that went bad is never touched to find that out.
//! Whoever takes or gives frames holds the pool's lock; readers need none.

use core::sync::atomic::{AtomicU8, Ordering};

use firebreak_abi::{PAGE_SIZE_BYTES, Pa, VmId};

const FREE: u8 = 0;
const HYPERVISOR: u8 = 1;
const RETIRED: u8 = 2;
/// Set for stage-2 tables; the partition's number is in the low bits.
const TABLE: u8 = 0x40;
/// Set beside [`TABLE`] when the frame is not to be used for anything else afterwards.
const WORN: u8 = 0x80;
const VM_MASK: u8 = 0x3f;

/// What a frame is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameUse {
    /// Nobody has it.
    Free,
    /// The hypervisor keeps state in it, for ever.
    Hypervisor,
    /// It holds stage-2 tables.
    Table {
        /// The partition whose tables these are.
        vm: VmId,
        /// It had an error, and is retired when the tables are given back.
        worn: bool,
    },
    /// It had an error, and is never used again.
    Retired,
}

impl FrameUse {
    const fn from_raw(raw: u8) -> Self {
        match raw {
            FREE => Self::Free,
            RETIRED => Self::Retired,
            _ if raw & TABLE != 0 => Self::Table {
                vm: VmId(raw & VM_MASK),
                worn: raw & WORN != 0,
            },
            _ => Self::Hypervisor,
        }
    }
}

/// The uses of `N` contiguous frames.
#[derive(Debug)]
pub struct FrameMap<const N: usize> {
    uses: [AtomicU8; N],
}

impl<const N: usize> Default for FrameMap<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> FrameMap<N> {
    /// Makes a map in which the hypervisor has all frames.
    pub const fn new() -> Self {
        Self {
            uses: [const { AtomicU8::new(HYPERVISOR) }; N],
        }
    }

    /// Returns the use of frame `index`, and for a frame that does not exist
    /// [`FrameUse::Hypervisor`]. From any context.
    pub fn use_of(&self, index: usize) -> FrameUse {
        let raw = self.uses.get(index).map(|one| one.load(Ordering::Acquire));
        FrameUse::from_raw(raw.unwrap_or(HYPERVISOR))
    }

    /// Says that nobody has a frame. At boot.
    pub fn free(&self, index: usize) {
        self.set(index, FREE);
    }

    /// Says that a frame holds stage-2 tables of a partition.
    pub fn note_table(&self, index: usize, vm: VmId) {
        self.set(index, TABLE | vm.0 & VM_MASK);
    }

    /// Takes `count` (a power of two) contiguous frames, of which the pool's start is a multiple,
    /// for tables of a partition; returns the number of the first one.
    pub fn take_for_table(&self, count: usize, base: Pa, vm: VmId) -> Option<usize> {
        let bytes = PAGE_SIZE_BYTES.checked_mul(count as u64)?;
        let fits = |first: &usize| {
            let start = base.get().wrapping_add(*first as u64 * PAGE_SIZE_BYTES);
            start.is_multiple_of(bytes)
                && first.checked_add(count).is_some_and(|end| end <= N)
                && (*first..*first + count).all(|index| self.use_of(index) == FrameUse::Free)
        };
        let first = (0..N).find(fits)?;
        for index in first..first + count {
            self.note_table(index, vm);
        }
        Some(first)
    }

    /// Says whether any frame under a partition's tables has had an error.
    pub fn has_worn_tables(&self, vm: VmId) -> bool {
        let worn = FrameUse::Table { vm, worn: true };
        (0..N).any(|index| self.use_of(index) == worn)
    }

    /// Gives all tables of a partition back; worn frames are retired instead.
    pub fn release_tables(&self, vm: VmId) {
        for index in 0..N {
            match self.use_of(index) {
                FrameUse::Table { vm: of, worn } if of == vm => {
                    self.set(index, if worn { RETIRED } else { FREE });
                }
                _ => {}
            }
        }
    }

    /// Takes a bad frame out of use, now if nobody has it, later if it holds tables; returns its
    /// use until now. What the hypervisor has in use stays with it.
    pub fn retire(&self, index: usize) -> FrameUse {
        let before = self.use_of(index);
        match before {
            FrameUse::Free => self.set(index, RETIRED),
            FrameUse::Table { vm, .. } => self.set(index, TABLE | WORN | vm.0 & VM_MASK),
            FrameUse::Hypervisor | FrameUse::Retired => {}
        }
        before
    }

    fn set(&self, index: usize, raw: u8) {
        if let Some(one) = self.uses.get(index) {
            one.store(raw, Ordering::Release);
        }
    }
}
