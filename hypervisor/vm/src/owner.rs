// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who owns a physical page.
//!
//! The map is built at boot and never changes afterwards, so that an error exception can read it
//! without a lock, whatever it interrupted. A lookup is a binary search over a sorted array:
//! at most 8 steps for 128 ranges.

use core::fmt;

use firebreak_abi::{Ipa, Pa, PaRange, VmId};
use heapless::Vec;

/// To whom a range of physical memory belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A partition's RAM, which it sees at `ipa`.
    Partition {
        /// The partition.
        vm: VmId,
        /// Where the range starts in its address space.
        ipa: Ipa,
    },
    /// The hypervisor: its image, tables, stacks.
    Hypervisor,
    /// Firmware, and what it shares with the hypervisor.
    Firmware,
    /// A device's registers.
    Device,
    /// RAM that nobody uses.
    Free,
}

/// Answer of a lookup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owned {
    /// Page of a partition.
    Partition {
        /// The partition.
        vm: VmId,
        /// The address as the partition sees it.
        ipa: Ipa,
    },
    /// Page of the hypervisor.
    Hypervisor,
    /// Page of the firmware.
    Firmware,
    /// Device registers.
    Device,
    /// RAM that nobody uses.
    Free,
    /// Not in the map: the machine has nothing there that Firebreak knows.
    Unknown,
}

impl Owned {
    /// Returns the partition, if it is one.
    pub const fn vm(self) -> Option<VmId> {
        match self {
            Self::Partition { vm, .. } => Some(vm),
            _ => None,
        }
    }

    /// Returns the address as the owning partition sees it.
    pub const fn ipa(self) -> Option<Ipa> {
        match self {
            Self::Partition { ipa, .. } => Some(ipa),
            _ => None,
        }
    }

    /// Returns the word that events carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Partition { .. } => "partition",
            Self::Hypervisor => "hypervisor",
            Self::Firmware => "firmware",
            Self::Device => "device",
            Self::Free => "free",
            Self::Unknown => "unknown",
        }
    }
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

/// The owners of all physical memory, as at most `N` ranges.
#[derive(Clone, Debug, Default)]
pub struct OwnerMap<const N: usize> {
    /// Sorted by start, without overlaps.
    ranges: Vec<(PaRange, Owner), N>,
}

impl<const N: usize> OwnerMap<N> {
    /// Makes a map in which nothing has an owner.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Gives a range to an owner, at boot.
    ///
    /// # Errors
    ///
    /// [`OwnerMapError`]; the map is unchanged then.
    pub fn insert(&mut self, range: PaRange, owner: Owner) -> Result<(), OwnerMapError> {
        let ends = range.start.checked_add(range.len_bytes).is_some();
        if range.len_bytes == 0 || !ends {
            return Err(OwnerMapError::BadRange { range });
        }
        let at = self
            .ranges
            .partition_point(|(one, _)| one.start < range.start);
        let neighbours = [at.checked_sub(1), Some(at)];
        for index in neighbours.into_iter().flatten() {
            if let Some(&(existing, owner)) = self.ranges.get(index)
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
            .insert(at, (range, owner))
            .map_err(|_| OwnerMapError::Full { range, capacity: N })
    }

    /// Says who owns the page of an address. Bounded: safe in an error exception.
    #[inline]
    pub fn owner_of(&self, pa: Pa) -> Owned {
        let behind = self.ranges.partition_point(|(one, _)| one.start <= pa);
        let Some(&(range, owner)) = behind.checked_sub(1).and_then(|at| self.ranges.get(at)) else {
            return Owned::Unknown;
        };
        if !range.contains(pa) {
            return Owned::Unknown;
        }
        match owner {
            Owner::Partition { vm, ipa } => {
                let offset_bytes = pa.get() - range.start.get();
                let ipa = Ipa::new(ipa.get().wrapping_add(offset_bytes));
                Owned::Partition { vm, ipa }
            }
            Owner::Hypervisor => Owned::Hypervisor,
            Owner::Firmware => Owned::Firmware,
            Owner::Device => Owned::Device,
            Owner::Free => Owned::Free,
        }
    }

    /// Returns the ranges, sorted by address.
    pub fn ranges(&self) -> &[(PaRange, Owner)] {
        &self.ranges
    }
}
