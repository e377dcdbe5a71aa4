// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bits of VMSAv8-64 descriptors, 4 KiB granule (Arm ARM, D8.3).

/// Bit 0: the descriptor means something.
pub(crate) const VALID: u64 = 1 << 0;
/// Bit 1: a table (levels 0 to 2) or a page (level 3); a block has it clear.
pub(crate) const TABLE_OR_PAGE: u64 = 1 << 1;
/// Output address or next-level table, bits \[47:12\].
pub(crate) const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// Access flag: never set by hardware here, so it is always set from the start.
const AF: u64 = 1 << 10;
/// Shareability \[9:8\] = 0b11: inner shareable.
const SH_INNER: u64 = 0b11 << 8;
/// XN \[54\] at either stage, for the only execute-never that both EL0 and EL1 obey.
const XN: u64 = 1 << 54;

/// Stage 2 MemAttr \[5:2\] = 0b1111: Normal, inner and outer write-back.
const S2_NORMAL: u64 = 0b1111 << 2;
/// Stage 2 MemAttr \[5:2\] = 0b0001: Device-nGnRE.
const S2_DEVICE: u64 = 0b0001 << 2;
/// Stage 2 S2AP \[7:6\] = 0b01: read only.
const S2AP_READ: u64 = 0b01 << 6;
/// Stage 2 S2AP \[7:6\] = 0b11: read and write.
const S2AP_READ_WRITE: u64 = 0b11 << 6;
/// The bits that tell the [`Attributes`] apart.
const S2_MASK: u64 = XN | (0b11 << 6) | (0b1111 << 2);

/// Stage 1 AP\[2\], bit 7: read only.
const S1_READ_ONLY: u64 = 1 << 7;
/// Stage 1 AP\[1\], bit 6: RES1 in a regime with one privilege level.
const S1_AP1_RES1: u64 = 1 << 6;
/// The bits that tell the [`El2Attr`]s apart.
const S1_MASK: u64 = XN | S1_READ_ONLY | (0b111 << 2);

/// What a guest may do with its memory.
///
/// Stage 1 of the guest can only take away from this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attributes {
    /// Write-back memory: read, write, execute. The guest's RAM.
    NormalRwx,
    /// Write-back memory: read and write.
    NormalRw,
    /// Write-back memory: read and execute.
    NormalRx,
    /// Write-back memory: read only.
    NormalRo,
    /// Device-nGnRE: read and write, never execute. A passed-through device.
    Device,
}

impl Attributes {
    const ALL: [Self; 5] = [
        Self::NormalRwx,
        Self::NormalRw,
        Self::NormalRx,
        Self::NormalRo,
        Self::Device,
    ];

    /// Returns the descriptor bits of a leaf, without address and type.
    pub(crate) const fn bits(self) -> u64 {
        AF | SH_INNER
            | match self {
                Self::NormalRwx => S2_NORMAL | S2AP_READ_WRITE,
                Self::NormalRw => S2_NORMAL | S2AP_READ_WRITE | XN,
                Self::NormalRx => S2_NORMAL | S2AP_READ,
                Self::NormalRo => S2_NORMAL | S2AP_READ | XN,
                Self::Device => S2_DEVICE | S2AP_READ_WRITE | XN,
            }
    }

    /// Reads the attributes back from a leaf that [`Self::bits`] made.
    pub(crate) fn from_leaf(descriptor: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|one| one.bits() & S2_MASK == descriptor & S2_MASK)
    }
}

/// What EL2 may do with its own memory. No value is both writable and executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum El2Attr {
    /// Code: read and execute.
    Text,
    /// Constants: read only.
    RoData,
    /// Data, stacks, tables, guests' memory: read and write.
    Data,
    /// Device-nGnRE: read and write.
    Device,
}

impl El2Attr {
    const ALL: [Self; 4] = [Self::Text, Self::RoData, Self::Data, Self::Device];

    /// Returns the descriptor bits of a leaf, without address and type.
    ///
    /// AttrIndx \[4:2\] indexes [`crate::stage1::MAIR`].
    pub(crate) const fn bits(self) -> u64 {
        AF | SH_INNER
            | S1_AP1_RES1
            | match self {
                Self::Text => (1 << 2) | S1_READ_ONLY,
                Self::RoData => (1 << 2) | S1_READ_ONLY | XN,
                Self::Data => (1 << 2) | XN,
                Self::Device => XN,
            }
    }

    /// Reads the attributes back from a leaf that [`Self::bits`] made.
    pub(crate) fn from_leaf(descriptor: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|one| one.bits() & S1_MASK == descriptor & S1_MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_a_round_trip() {
        for one in Attributes::ALL {
            assert_eq!(
                Attributes::from_leaf(one.bits() | 0x1234_5000 | 3),
                Some(one)
            );
        }
        for one in El2Attr::ALL {
            assert_eq!(El2Attr::from_leaf(one.bits() | 0x1234_5000 | 3), Some(one));
        }
        assert_eq!(Attributes::from_leaf(0), None);
    }

    #[test]
    fn nothing_in_el2_is_writable_and_executable() {
        for one in El2Attr::ALL {
            let (writable, executable) = (one.bits() & S1_READ_ONLY == 0, one.bits() & XN == 0);
            assert!(!(writable && executable), "{one:?}");
        }
    }

    /// Values worked out by hand from the Arm ARM's figures of VMSAv8-64 block descriptors.
    #[test]
    fn bits_are_those_of_the_manual() {
        assert_eq!(Attributes::NormalRwx.bits(), 0x7fc);
        assert_eq!(Attributes::NormalRo.bits(), 0x0040_0000_0000_077c);
        assert_eq!(Attributes::Device.bits(), 0x0040_0000_0000_07c4);
        assert_eq!(El2Attr::Text.bits(), 0x7c4);
        assert_eq!(El2Attr::RoData.bits(), 0x0040_0000_0000_07c4);
        assert_eq!(El2Attr::Data.bits(), 0x0040_0000_0000_0744);
        assert_eq!(El2Attr::Device.bits(), 0x0040_0000_0000_0740);
    }
}
