// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is who.

use core::fmt;

/// The most processing elements that one Firebreak drives.
pub const MAX_PES: usize = 8;
/// The most partitions of one system.
pub const MAX_PARTITIONS: usize = 8;
/// The most virtual CPUs of one partition.
pub const MAX_VCPUS_PER_PARTITION: usize = 8;

/// A processing element, numbered from 0 in the order in which the devicetree names them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeId(pub u8);

impl PeId {
    /// Returns the number as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A partition (virtual machine), numbered from 0 in the order of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VmId(pub u8);

impl VmId {
    /// Returns the number as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A virtual CPU of a partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VcpuId {
    /// Its partition.
    pub vm: VmId,
    /// Its number inside the partition, from 0; also its affinity level 0 as the guest sees it.
    pub index: u8,
}

/// The affinity bits of MPIDR_EL1 (Aff3, Aff2, Aff1, Aff0), all else zero.
///
/// PSCI takes exactly these bits (DEN0022, 5.1.4): bit 31 (RES1), U and MT must not be
/// passed on. QEMU's PSCI refuses a target with bit 31 set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mpidr(u64);

impl Mpidr {
    /// Aff3 \[39:32\], Aff2 \[23:16\], Aff1 \[15:8\], Aff0 \[7:0\].
    pub const AFFINITY_MASK: u64 = 0x0000_00ff_00ff_ffff;

    /// Keeps the affinity bits of a raw MPIDR_EL1 value.
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw & Self::AFFINITY_MASK)
    }

    /// Returns the affinity bits.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns Aff0.
    #[inline]
    pub const fn aff0(self) -> u8 {
        self.0 as u8
    }

    /// Returns the affinity packed into 32 bits as GICR_TYPER\[63:32\] and GICD_IROUTER order it:
    /// Aff3.Aff2.Aff1.Aff0.
    #[inline]
    pub const fn packed(self) -> u32 {
        ((self.0 >> 32) as u32) << 24 | (self.0 as u32 & 0x00ff_ffff)
    }
}

impl fmt::Debug for Mpidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mpidr({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mpidr_drops_res1_u_and_mt() {
        assert_eq!(Mpidr::from_raw(0x8100_0003).get(), 3);
        assert_eq!(Mpidr::from_raw(0x12_c034_5678).get(), 0x12_0034_5678);
        assert_eq!(Mpidr::from_raw(0x12_8034_5678).packed(), 0x1234_5678);
    }
}
