// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses, one type for each translation regime.

use core::fmt;

/// Size of the only translation granule that Firebreak uses, in bytes.
pub const PAGE_SIZE_BYTES: u64 = 4096;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw address.
            #[inline]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// Returns the raw address.
            #[inline]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Adds a number of bytes, or `None` past the end of the address space.
            #[inline]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// Returns the start of the 4 KiB page that holds this address.
            #[inline]
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE_SIZE_BYTES - 1))
            }

            /// Returns the offset inside the 4 KiB page, in bytes.
            #[inline]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE_BYTES - 1)
            }

            /// Says whether the address is a multiple of `bytes`, a power of two.
            #[inline]
            pub const fn is_aligned(self, bytes: u64) -> bool {
                self.0 & (bytes - 1) == 0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(
    /// A physical address: the output of stage 2, or of EL2's stage 1.
    Pa
);
address!(
    /// An intermediate physical address: what a guest believes to be physical.
    Ipa
);
address!(
    /// A virtual address, of EL2 or of a guest.
    Va
);

/// A range of physical memory: `start` up to, not including, `start + len_bytes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PaRange {
    /// First byte.
    pub start: Pa,
    /// Length in bytes.
    pub len_bytes: u64,
}

impl PaRange {
    /// Makes a range from raw numbers.
    pub const fn new(start: u64, len_bytes: u64) -> Self {
        Self {
            start: Pa::new(start),
            len_bytes,
        }
    }

    /// Returns the first address behind the range, saturating at the end of the address space.
    pub const fn end(self) -> Pa {
        Pa::new(self.start.get().saturating_add(self.len_bytes))
    }

    /// Says whether `pa` lies inside.
    pub const fn contains(self, pa: Pa) -> bool {
        pa.get() >= self.start.get() && pa.get() - self.start.get() < self.len_bytes
    }

    /// Says whether the two ranges share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.len_bytes != 0
            && other.len_bytes != 0
            && self.start.get() < other.end().get()
            && other.start.get() < self.end().get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_first_byte_and_not_its_end() {
        let range = PaRange::new(0x4000_0000, 0x1000);
        assert!(range.contains(Pa::new(0x4000_0000)));
        assert!(range.contains(Pa::new(0x4000_0fff)));
        assert!(!range.contains(range.end()));
        assert!(!range.contains(Pa::new(0x3fff_ffff)));
    }

    #[test]
    fn touching_ranges_do_not_overlap_and_an_empty_one_never_does() {
        let low = PaRange::new(0x1000, 0x1000);
        assert!(!low.overlaps(PaRange::new(0x2000, 0x1000)));
        assert!(low.overlaps(PaRange::new(0x1fff, 1)));
        assert!(!low.overlaps(PaRange::new(0x1800, 0)));
        assert!(PaRange::new(u64::MAX - 1, 100).overlaps(PaRange::new(u64::MAX - 1, 1)));
    }

    #[test]
    fn pages_are_cut_at_4_kib() {
        assert_eq!(Ipa::new(0x1fff).page(), Ipa::new(0x1000));
        assert_eq!(Ipa::new(0x1fff).page_offset(), 0xfff);
        assert_eq!(Va::new(u64::MAX).checked_add(1), None);
    }
}
