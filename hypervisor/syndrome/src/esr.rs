// SPDX-License-Identifier: MIT OR Apache-2.0
//! ESR_ELx: exception class, instruction length, syndrome.

use core::fmt;

use crate::Iss;

const EC_SHIFT: u32 = 26;
const IL: u64 = 1 << 25;

/// Exception class, ESR_ELx\[31:26\] (Arm ARM, D24.2, table "EC field").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Ec(u8);

impl Ec {
    /// Unknown reason: an undefined instruction, among others.
    pub const UNKNOWN: Self = Self(0x00);
    /// Trapped WFI, WFE, WFIT or WFET.
    pub const WFX: Self = Self(0x01);
    /// Trapped floating point, Advanced SIMD or SVE.
    pub const FP_SIMD: Self = Self(0x07);
    /// Trapped pointer authentication.
    pub const PAUTH: Self = Self(0x09);
    /// Illegal execution state.
    pub const ILLEGAL_STATE: Self = Self(0x0e);
    /// SVC in AArch64.
    pub const SVC64: Self = Self(0x15);
    /// HVC in AArch64.
    pub const HVC64: Self = Self(0x16);
    /// SMC in AArch64.
    pub const SMC64: Self = Self(0x17);
    /// Trapped MSR, MRS or system instruction.
    pub const SYS64: Self = Self(0x18);
    /// Trapped SVE.
    pub const SVE: Self = Self(0x19);
    /// Instruction abort from a lower level.
    pub const IABT_LOWER: Self = Self(0x20);
    /// Instruction abort from the same level.
    pub const IABT_SAME: Self = Self(0x21);
    /// Misaligned PC.
    pub const PC_ALIGNMENT: Self = Self(0x22);
    /// Data abort from a lower level.
    pub const DABT_LOWER: Self = Self(0x24);
    /// Data abort from the same level.
    pub const DABT_SAME: Self = Self(0x25);
    /// Misaligned SP.
    pub const SP_ALIGNMENT: Self = Self(0x26);
    /// SError.
    pub const SERROR: Self = Self(0x2f);
    /// Breakpoint from a lower level.
    pub const BREAKPOINT_LOWER: Self = Self(0x30);
    /// Software step from a lower level.
    pub const STEP_LOWER: Self = Self(0x32);
    /// Watchpoint from a lower level.
    pub const WATCHPOINT_LOWER: Self = Self(0x34);
    /// BRK in AArch64.
    pub const BRK64: Self = Self(0x3c);

    /// Takes the lowest six bits.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0x3f)
    }

    /// Returns the six bits.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns the name of the class, `reserved` where the architecture has none.
    pub const fn name(self) -> &'static str {
        match self.0 {
            0x00 => "unknown reason",
            0x01 => "WFx",
            0x03 => "CP15 MCR/MRC",
            0x04 => "CP15 MCRR/MRRC",
            0x05 => "CP14 MCR/MRC",
            0x06 => "CP14 LDC/STC",
            0x07 => "FP or SIMD",
            0x08 => "VMRS",
            0x09 => "pointer authentication",
            0x0a => "LD64B or ST64B",
            0x0c => "CP14 MRRC",
            0x0d => "branch target",
            0x0e => "illegal execution state",
            0x11 => "SVC, AArch32",
            0x12 => "HVC, AArch32",
            0x13 => "SMC, AArch32",
            0x14 => "MSRR or MRRS",
            0x15 => "SVC",
            0x16 => "HVC",
            0x17 => "SMC",
            0x18 => "MSR, MRS or system instruction",
            0x19 => "SVE",
            0x1a => "ERET",
            0x1b => "TSTART",
            0x1c => "pointer authentication failure",
            0x1d => "SME",
            0x1e => "granule protection check",
            0x1f => "implementation defined at EL3",
            0x20 => "instruction abort, lower EL",
            0x21 => "instruction abort, same EL",
            0x22 => "PC alignment",
            0x24 => "data abort, lower EL",
            0x25 => "data abort, same EL",
            0x26 => "SP alignment",
            0x27 => "memory copy",
            0x28 => "FP exception, AArch32",
            0x2c => "FP exception",
            0x2d => "guarded control stack",
            0x2f => "SError",
            0x30 => "breakpoint, lower EL",
            0x31 => "breakpoint, same EL",
            0x32 => "software step, lower EL",
            0x33 => "software step, same EL",
            0x34 => "watchpoint, lower EL",
            0x35 => "watchpoint, same EL",
            0x38 => "BKPT, AArch32",
            0x3a => "vector catch, AArch32",
            0x3c => "BRK",
            0x3d => "profiling",
            _ => "reserved",
        }
    }
}

impl fmt::Debug for Ec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ec({:#x}, {})", self.0, self.name())
    }
}

impl fmt::Display for Ec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An ESR_ELx value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Esr(u64);

impl Esr {
    /// Wraps a raw register value.
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Builds from a class, the length of the instruction (`true`: 32 bits, or not an
    /// instruction's doing) and a syndrome. ISS2 is zero.
    #[inline]
    pub const fn build(ec: Ec, il: bool, iss: Iss) -> Self {
        let il = if il { IL } else { 0 };
        Self((ec.bits() as u64) << EC_SHIFT | il | iss.get() as u64)
    }

    /// Builds the value of an SError: class 0x2f and IL set, as the architecture demands.
    #[inline]
    pub const fn serror(iss: Iss) -> Self {
        Self::build(Ec::SERROR, true, iss)
    }

    /// Returns the raw register value.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Returns the exception class.
    #[inline]
    pub const fn ec(self) -> Ec {
        Ec::from_bits((self.0 >> EC_SHIFT).to_le_bytes()[0])
    }

    /// Says whether IL is set.
    #[inline]
    pub const fn il(self) -> bool {
        self.0 & IL != 0
    }

    /// Returns the lower 25 bits. Only the class says what they mean.
    #[inline]
    pub const fn iss(self) -> Iss {
        Iss::from_esr(self.0)
    }

    /// Returns the length of the instruction that trapped, in bytes.
    #[inline]
    pub const fn instruction_bytes(self) -> u64 {
        if self.il() { 4 } else { 2 }
    }
}

impl fmt::Display for Esr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} ({}", self.0, self.ec())?;
        if self.ec() == Ec::SERROR {
            write!(f, ": {}", self.iss().decode())?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serror_values_are_those_of_the_manual() {
        for (iss, esr) in [
            (Iss::IMPDEF, 0xbf00_0000),
            (Iss::UNCATEGORIZED, 0xbe00_0000),
            (Iss::UC, 0xbe00_0011),
            (Iss::UEU, 0xbe00_0411),
            (Iss::UEO, 0xbe00_0811),
            (Iss::UER, 0xbe00_0c11),
            (Iss::CE, 0xbe00_1811),
        ] {
            assert_eq!(Esr::serror(iss).raw(), esr);
            assert_eq!(Esr::from_raw(esr).iss(), iss);
        }
    }

    #[test]
    fn every_class_is_taken_apart_and_put_together() {
        for bits in 0..64u8 {
            for il in [false, true] {
                let esr = Esr::build(Ec::from_bits(bits), il, Iss::new(Iss::MASK).unwrap());
                assert_eq!(esr.ec().bits(), bits);
                assert_eq!(esr.il(), il);
                assert_eq!(esr.iss().get(), Iss::MASK);
                assert_eq!(esr.raw() >> 32, 0);
            }
        }
        assert_eq!(Ec::from_bits(0xff).bits(), 0x3f);
        assert_eq!(Esr::from_raw(u64::MAX).ec().bits(), 0x3f);
    }

    #[test]
    fn a_person_can_read_it() {
        assert_eq!(
            Esr::serror(Iss::UER).to_string(),
            "0xbe000c11 (SError: UER, recoverable)"
        );
        assert_eq!(Esr::from_raw(0x5a00_0000).to_string(), "0x5a000000 (HVC)");
        assert_eq!(Esr::from_raw(0x5a00_0000).ec(), Ec::HVC64);
    }
}
