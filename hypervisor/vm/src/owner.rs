// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who owns a physical page.
//!
//! [`OwnerMap::insert`] gives a range to somebody, [`OwnerMap::fill`] whatever is left of one: what
//! is known best is inserted first, what surrounds it filled in behind.
//!
//! The map is built at boot and never changes afterwards, so that an error exception can read it
//! without a lock, whatever it interrupted. A lookup is a binary search over a sorted array:
//! at most 9 steps for 320 ranges.

use core::fmt;

use firebreak_abi::{Ipa, Pa, PaRange};
use firebreak_triage::Owner;
use heapless::Vec;

/// Answer of a lookup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owned {
    /// Who owns the address; [`Owner::Unknown`] where the machine has nothing that Firebreak
    /// knows.
    pub owner: Owner,
    /// The address as the partition sees it, if it is a partition's memory.
    pub ipa: Option<Ipa>,
}

/// Why a range was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnerMapError {
    /// The range has no bytes, or does not end inside the address space.
    BadRange {
        /// The culprit.
        range: PaRange,
    },
    /// Part of the range has an owner already.
    Overlap {
        /// The culprit.
        range: PaRange,
        /// The range that it overlaps.
        existing: PaRange,
        /// Its owner.
        owner: Owner,
    },
    /// The map holds as many ranges as it can.
    Full {
        /// The culprit.
        range: PaRange,
        /// How many that is.
        capacity: usize,
    },
}

impl OwnerMapError {
    /// Returns the culprit.
    pub const fn range(self) -> PaRange {
        match self {
            Self::BadRange { range } | Self::Overlap { range, .. } | Self::Full { range, .. } => {
                range
            }
        }
    }
}

impl fmt::Display for OwnerMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRange { range } => {
                write!(
                    f,
                    "range {:#x}+{:#x} is empty or too long",
                    range.start, range.len_bytes
                )
            }
            Self::Overlap {
                range,
                existing,
                owner,
            } => write!(
                f,
                "range {:#x}+{:#x} overlaps {:#x}+{:#x} of {owner:?}",
                range.start, range.len_bytes, existing.start, existing.len_bytes
            ),
            Self::Full { range, capacity } => write!(
                f,
                "no room for range {:#x}+{:#x}: {capacity} ranges have owners already",
                range.start, range.len_bytes
            ),
        }
    }
}

impl core::error::Error for OwnerMapError {}

impl Owned {
    const UNKNOWN: Self = Self {
        owner: Owner::Unknown,
        ipa: None,
    };
}

/// A range, its owner, and where a partition sees its start.
pub type Entry = (PaRange, Owner, Option<Ipa>);

/// The owners of all physical memory, as at most `N` ranges.
#[derive(Clone, Debug, Default)]
pub struct OwnerMap<const N: usize> {
    /// Sorted by start, without overlaps.
    ranges: Vec<Entry, N>,
}

impl<const N: usize> OwnerMap<N> {
    /// Makes a map in which nothing has an owner.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Gives a range to an owner, at boot; `ipa` is where a partition sees it.
    ///
    /// # Errors
    ///
    /// [`OwnerMapError`]; the map is unchanged then.
    pub fn insert(
        &mut self,
        range: PaRange,
        owner: Owner,
        ipa: Option<Ipa>,
    ) -> Result<(), OwnerMapError> {
        let ends = range.start.checked_add(range.len_bytes).is_some();
        if range.len_bytes == 0 || !ends {
            return Err(OwnerMapError::BadRange { range });
        }
        let at = self
            .ranges
            .partition_point(|(one, ..)| one.start < range.start);
        let neighbours = [at.checked_sub(1), Some(at)];
        for index in neighbours.into_iter().flatten() {
            if let Some(&(existing, owner, _)) = self.ranges.get(index)
                && existing.overlaps(range)
            {
                return Err(OwnerMapError::Overlap {
                    range,
                    existing,
                    owner,
                });
            }
        }
        self.ranges
            .insert(at, (range, owner, ipa))
            .map_err(|_| OwnerMapError::Full { range, capacity: N })
    }

    /// Gives to an owner whatever part of a range nobody has yet, at boot.
    ///
    /// # Errors
    ///
    /// [`OwnerMapError::BadRange`], or [`OwnerMapError::Full`]: a part may have been given then.
    pub fn fill(&mut self, range: PaRange, owner: Owner) -> Result<(), OwnerMapError> {
        let Some(end) = range.start.checked_add(range.len_bytes) else {
            return Err(OwnerMapError::BadRange { range });
        };
        let mut at = range.start;
        while at < end {
            let behind = self.ranges.partition_point(|(one, ..)| one.start <= at);
            let before = behind.checked_sub(1).and_then(|at| self.ranges.get(at));
            if let Some((taken, ..)) = before.filter(|(one, ..)| one.contains(at)) {
                at = taken.end();
                continue;
            }
            let next = self.ranges.get(behind).map_or(end, |(one, ..)| one.start);
            let stop = next.min(end);
            let gap = PaRange::new(at.get(), stop.get() - at.get());
            self.insert(gap, owner, None)?;
            at = stop;
        }
        Ok(())
    }

    /// Says who owns the page of an address. Bounded: safe in an error exception.
    #[inline]
    pub fn owner_of(&self, pa: Pa) -> Owned {
        let behind = self.ranges.partition_point(|(one, ..)| one.start <= pa);
        let Some((range, owner, first_ipa)) = self.ranges.get(..behind).and_then(<[_]>::last)
        else {
            return Owned::UNKNOWN;
        };
        // It does not begin behind the address.
        let offset_bytes = pa.get().wrapping_sub(range.start.get());
        if offset_bytes >= range.len_bytes {
            return Owned::UNKNOWN;
        }
        let owner = *owner;
        let ipa = first_ipa.map(|first| Ipa::new(first.get().wrapping_add(offset_bytes)));
        Owned { owner, ipa }
    }

    /// Returns the ranges, sorted by address.
    pub fn ranges(&self) -> &[Entry] {
        &self.ranges
    }
}
