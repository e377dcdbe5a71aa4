// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deferred and virtual SError registers: DISR_EL1, VDISR_EL2, VSESR_EL2.

use crate::Iss;

const A: u64 = 1 << 31;

/// DISR_EL1 or VDISR_EL2: an SError that an ESB instruction deferred.
///
/// Layout: A\[31\] says that there is one, IDS\[24\] and ISS\[23:0\] are its syndrome. The
/// virtual one takes all 25 bits from VSESR_EL2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Disr(u64);

impl Disr {
    /// No SError was deferred.
    pub const EMPTY: Self = Self(0);

    /// Wraps a raw register value. Bits without a meaning are kept.
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Makes the value that an ESB leaves when it defers an SError with this syndrome.
    #[inline]
    pub const fn deferred(iss: Iss) -> Self {
        Self(A | iss.get() as u64)
    }

    /// Returns the raw register value.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Returns the syndrome of the deferred SError, or `None` when there is none.
    #[inline]
    pub const fn syndrome(self) -> Option<Iss> {
        if self.0 & A != 0 {
            Some(Iss::from_esr(self.0))
        } else {
            None
        }
    }
}

/// VSESR_EL2 for an AArch64 guest: the syndrome of the next virtual SError.
///
/// The register's reset value is UNKNOWN: whoever sets HCR_EL2.VSE writes it first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct VsesrEl2(Iss);

impl VsesrEl2 {
    /// Makes the register value that gives the guest this syndrome.
    #[inline]
    pub const fn new(iss: Iss) -> Self {
        Self(iss)
    }

    /// Decodes a raw register value; bits above the 25 are RES0 and dropped.
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self(Iss::from_esr(raw))
    }

    /// Returns the raw register value.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0.get() as u64
    }

    /// Returns the syndrome.
    #[inline]
    pub const fn syndrome(self) -> Iss {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_esb_leaves_a_and_the_syndrome() {
        assert_eq!(Disr::deferred(Iss::UER).raw(), 0x8000_0c11);
        assert_eq!(Disr::deferred(Iss::IMPDEF).raw(), 0x8100_0000);
        assert_eq!(Disr::from_raw(0x8000_0811).syndrome(), Some(Iss::UEO));
        assert_eq!(Disr::from_raw(0x0000_0811).syndrome(), None);
        assert_eq!(Disr::EMPTY.syndrome(), None);
    }

    #[test]
    fn vsesr_takes_25_bits_verbatim() {
        for bit in 0..25 {
            let iss = Iss::new(1 << bit).unwrap();
            assert_eq!(VsesrEl2::new(iss).raw(), 1 << bit);
            assert_eq!(VsesrEl2::from_raw(1 << bit).syndrome(), iss);
            assert_eq!(Disr::deferred(iss).syndrome(), Some(iss));
        }
        assert_eq!(VsesrEl2::from_raw(u64::MAX).raw(), 0x1ff_ffff);
    }
}
