// SPDX-License-Identifier: MIT OR Apache-2.0
//! Offsets and fixed values of the register frames (Arm IHI 0069, 12.8 to 12.11).

/// `GICD_CTLR` and `GICR_CTLR`.
pub(crate) const CTLR: u32 = 0x0000;
/// `GICD_TYPER`.
pub(crate) const GICD_TYPER: u32 = 0x0004;
/// `GICD_IIDR`.
pub(crate) const GICD_IIDR: u32 = 0x0008;
/// `GICR_IIDR`.
pub(crate) const GICR_IIDR: u32 = 0x0004;
/// `GICR_TYPER`, lower half.
pub(crate) const GICR_TYPER: u32 = 0x0008;
/// `GICR_TYPER`, upper half.
pub(crate) const GICR_TYPER_HIGH: u32 = 0x000c;
/// `GICR_WAKER`.
pub(crate) const GICR_WAKER: u32 = 0x0014;
/// Distance from RD_base to SGI_base.
pub(crate) const SGI_FRAME: u32 = 0x1_0000;
/// First byte of the identification registers.
pub(crate) const ID_REGISTERS: u32 = 0xffd0;
/// `IPRIORITYR0`.
pub(crate) const IPRIORITYR: u32 = 0x0400;
/// `ICFGR0`.
pub(crate) const ICFGR: u32 = 0x0c00;
/// `GICD_IROUTER<n>` for INTID 0; those that exist start at INTID 32.
pub(crate) const IROUTER: u32 = 0x6000;

/// `GICD_CTLR`: affinity routing (always 1).
pub(crate) const CTLR_ARE: u32 = 1 << 4;
/// `GICD_CTLR`: one security state (always 1).
pub(crate) const CTLR_DS: u32 = 1 << 6;
/// `GICD_TYPER`: No1N, 10 bits of INTID, 160 INTIDs, nothing else. CPUNumber counts PEs without
/// affinity routing and is 0, there being none.
pub(crate) const GICD_TYPER_VALUE: u32 = 1 << 25 | 9 << 19 | (crate::INTIDS as u32 / 32 - 1);
/// Product `F`, implementer Arm: the peers' way to say "an architectural GIC of a hypervisor".
pub(crate) const IIDR_VALUE: u32 = 0x4600_043b;
/// `PIDR4` to `PIDR7`, `PIDR0` to `PIDR3`, `CIDR0` to `CIDR3`: GICv3, JEDEC code of Arm.
const ID_VALUES: [u8; 12] = [
    0x44, 0, 0, 0, 0x92, 0xb4, 0x3b, 0x00, 0x0d, 0xf0, 0x05, 0xb1,
];

/// Registers with one bit for each INTID, 0x80 bytes apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BitRegister {
    /// `IGROUPR`.
    Group,
    /// `ISENABLER`.
    SetEnable,
    /// `ICENABLER`.
    ClearEnable,
    /// `ISPENDR`.
    SetPending,
    /// `ICPENDR`.
    ClearPending,
    /// `ISACTIVER`.
    SetActive,
    /// `ICACTIVER`.
    ClearActive,
}

/// What an aligned 32-bit access at an offset below 0x1000 names, apart from the control registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bank {
    /// A word of bits.
    Bits(BitRegister, usize),
    /// Priorities of four INTIDs, the first.
    Priority(u32),
    /// Trigger modes of 16 INTIDs, the first.
    Config(u32),
    /// Reserved or not implemented: reads as zero, ignores writes.
    None,
}

/// Decodes the banked part of a distributor or SGI frame.
#[inline(never)]
pub(crate) const fn bank(offset: u32) -> Bank {
    let index = (offset >> 2 & 31) as usize;
    match offset >> 7 {
        1 => Bank::Bits(BitRegister::Group, index),
        2 => Bank::Bits(BitRegister::SetEnable, index),
        3 => Bank::Bits(BitRegister::ClearEnable, index),
        4 => Bank::Bits(BitRegister::SetPending, index),
        5 => Bank::Bits(BitRegister::ClearPending, index),
        6 => Bank::Bits(BitRegister::SetActive, index),
        7 => Bank::Bits(BitRegister::ClearActive, index),
        8..=15 => Bank::Priority(offset.wrapping_sub(IPRIORITYR)),
        24 | 25 => Bank::Config(offset.wrapping_sub(ICFGR) << 2),
        _ => Bank::None,
    }
}

/// Returns the SPI of an access to `GICD_IROUTER<n>`, and whether it is the upper half.
#[inline]
pub(crate) fn router(offset: u32) -> Option<(u32, bool)> {
    let intid = offset.checked_sub(IROUTER)? >> 3;
    crate::dist::is_spi(intid).then_some((intid, offset & 4 != 0))
}

/// Returns an identification register.
pub(crate) fn id_register(offset: u32) -> u32 {
    let index = offset.wrapping_sub(ID_REGISTERS) >> 2;
    ID_VALUES
        .get(index as usize)
        .map_or(0, |&value| u32::from(value))
}

/// Spreads 16 bits (1: edge) to the odd bits of an `ICFGR`.
pub(crate) const fn config_from_bits(bits: u32) -> u32 {
    let mut word = bits & 0xffff;
    word = (word | word << 8) & 0x00ff_00ff;
    word = (word | word << 4) & 0x0f0f_0f0f;
    word = (word | word << 2) & 0x3333_3333;
    word = (word | word << 1) & 0x5555_5555;
    word << 1
}

/// Gathers the odd bits of an `ICFGR` into 16 bits (1: edge).
pub(crate) const fn config_to_bits(config: u32) -> u32 {
    let mut word = config >> 1 & 0x5555_5555;
    word = (word | word >> 1) & 0x3333_3333;
    word = (word | word >> 2) & 0x0f0f_0f0f;
    word = (word | word >> 4) & 0x00ff_00ff;
    (word | word >> 8) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trigger_modes_survive_the_way_to_icfgr_and_back() {
        for bits in 0..=0xffff {
            let config = config_from_bits(bits);
            assert_eq!(config & 0x5555_5555, 0);
            assert_eq!(config_to_bits(config), bits);
            assert_eq!(config_to_bits(config | 0x5555_5555), bits);
        }
    }

    #[test]
    fn routers_start_at_the_first_spi_and_end_at_the_last() {
        assert_eq!(router(0x60f8), None);
        assert_eq!(router(0x6100), Some((32, false)));
        assert_eq!(router(0x6104), Some((32, true)));
        assert_eq!(router(0x64fc), Some((159, true)));
        assert_eq!(router(0x6500), None);
        assert_eq!(router(0), None);
    }
}
