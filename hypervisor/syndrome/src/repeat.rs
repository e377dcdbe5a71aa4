// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest did whose exit lost its syndrome: a call, or something that it can do again.

/// How to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// The exit's ELR is the instruction itself, which exits again.
    Instruction,
    /// It was the HVC right before ELR.
    Call,
    /// It may have been either.
    Unknown,
}

/// Decides by the instruction before the exit's ELR, and the one at it. `None`: not readable.
///
/// Of all exceptions to EL2 only HVC has its ELR behind the instruction (Arm ARM D1.4.1.4). So it
/// was a call only if an HVC stands before ELR; it was for certain if the instruction at ELR is
/// one that never traps.
pub const fn repeat(before: Option<u32>, at: Option<u32>) -> Repeat {
    match (before, at) {
        (Some(before), _) if !is_hvc(before) => Repeat::Instruction,
        (Some(_), Some(at)) if never_traps(at) => Repeat::Call,
        _ => Repeat::Unknown,
    }
}

/// HVC: 1101_0100_000, imm16, 000_10 (Arm ARM C6.2.124).
const fn is_hvc(word: u32) -> bool {
    word & 0xffe0_001f == 0xd400_0002
}

/// Data processing with immediates or registers, and direct branches (Arm ARM C4.1).
const fn never_traps(word: u32) -> bool {
    let group = word >> 25 & 0xf;
    let branch = word >> 24 & 0xff;
    matches!(group, 0b1000 | 0b1001 | 0b0101 | 0b1101)
        || matches!(branch, 0x14..=0x17 | 0x94..=0x97 | 0x34..=0x37 | 0xb4..=0xb7 | 0x54)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HVC: u32 = 0xd400_0002;
    const ADD: u32 = 0x9100_079c;
    const CBNZ: u32 = 0xb500_0040;
    const LDR: u32 = 0xb940_0020;
    const MSR: u32 = 0xd518_cba0;
    const SMC: u32 = 0xd400_0003;

    #[test]
    fn what_no_hvc_stands_before_is_done_again() {
        for before in [ADD, LDR, SMC, MSR, 0] {
            for at in [None, Some(ADD), Some(LDR), Some(HVC)] {
                assert_eq!(repeat(Some(before), at), Repeat::Instruction);
            }
        }
    }

    #[test]
    fn an_hvc_before_what_never_traps_was_the_call() {
        for at in [
            ADD,
            CBNZ,
            0x1400_0001,
            0x5400_0041,
            0x9b02_0c20,
            0x0b01_0000,
        ] {
            assert_eq!(repeat(Some(HVC), Some(at)), Repeat::Call, "{at:#x}");
            assert_eq!(repeat(Some(HVC | 7 << 5), Some(at)), Repeat::Call);
        }
    }

    #[test]
    fn an_hvc_before_what_may_trap_or_cannot_be_read_says_nothing() {
        for at in [LDR, MSR, SMC, HVC, 0, 0xd503_207f, 0xd65f_03c0, 0x1e60_4020] {
            assert_eq!(repeat(Some(HVC), Some(at)), Repeat::Unknown, "{at:#x}");
        }
        assert_eq!(repeat(Some(HVC), None), Repeat::Unknown);
        assert_eq!(repeat(None, Some(ADD)), Repeat::Unknown);
    }
}
