// SPDX-License-Identifier: MIT OR Apache-2.0
//! PSTATE and ESR of a hand-over, bit by bit.

use firebreak_contract::{Origin, PstateFeatures, Target, entry_pstate, esr_for_sea, esr_for_sei};

/// What one bit of the new PSTATE is.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Bit {
    Zero,
    One,
    Kept,
}

/// The new PSTATE by bit number, as the manual's pseudocode for taking an exception leaves it.
fn oracle(bit: u32, target: Target, features: &PstateFeatures) -> Bit {
    let set = |condition: bool| if condition { Bit::One } else { Bit::Zero };
    match bit {
        28..=31 => Bit::Kept, // NZCV
        24 => Bit::Kept,      // DIT
        22 => {
            // PAN: set when SPAN is clear, at EL1 or in a host EL2.
            let honored = target == Target::El1 || features.in_host;
            if honored && features.span == Some(false) {
                Bit::One
            } else {
                Bit::Kept
            }
        }
        6..=9 => Bit::One,               // F, I, A, D
        0 => Bit::One,                   // M[0]: SP_ELx
        2 => set(target == Target::El1), // M[3:2]
        3 => set(target == Target::El2),
        12 => set(features.ssbs == Some(true)),       // SSBS
        13 => set(features.spintmask == Some(false)), // ALLINT
        25 => set(features.mte),                      // TCO
        32 => set(features.profiling_exception),      // PM
        34 => set(features.exlock),                   // EXLOCK
        // M[4], M[1], BTYPE, IL, SS, UAO, PPEND, PACM and whatever is reserved.
        _ => Bit::Zero,
    }
}

fn all_features() -> impl Iterator<Item = PstateFeatures> {
    let option = |bits: u32| match bits & 3 {
        0 | 3 => None,
        1 => Some(false),
        _ => Some(true),
    };
    (0..1u32 << 10).map(move |bits| PstateFeatures {
        span: option(bits),
        ssbs: option(bits >> 2),
        spintmask: option(bits >> 4),
        in_host: bits >> 6 & 1 == 1,
        mte: bits >> 7 & 1 == 1,
        exlock: bits >> 8 & 1 == 1,
        profiling_exception: bits >> 9 & 1 == 1,
    })
}

#[test]
fn every_bit_of_the_new_pstate_is_as_an_exception_leaves_it() {
    for target in [Target::El1, Target::El2] {
        for features in all_features() {
            let mut spsrs = vec![0, u64::MAX];
            spsrs.extend((0..64).flat_map(|bit| [1 << bit, !(1 << bit)]));
            for spsr in spsrs {
                let new = entry_pstate(spsr, target, &features);
                for bit in 0..64 {
                    let expected = match oracle(bit, target, &features) {
                        Bit::Zero => 0,
                        Bit::One => 1,
                        Bit::Kept => spsr >> bit & 1,
                    };
                    assert_eq!(
                        new >> bit & 1,
                        expected,
                        "bit {bit} of {new:#x} from {spsr:#x} to {target:?} with {features:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_plain_el2_entry_is_el2h_with_everything_masked() {
    let features = PstateFeatures::default();
    assert_eq!(entry_pstate(0x0000_0005, Target::El2, &features), 0x3c9);
    assert_eq!(
        entry_pstate(0x6000_0000, Target::El1, &features),
        0x6000_03c5
    );
}

#[test]
fn an_sei_has_class_2f_and_il_whatever_esr_el3_says() {
    for (esr_el3, expected) in [
        (0xbe00_0c11, 0xbe00_0c11),
        // IESB, VFV and PFV held for EL3 alone.
        (0xbe00_ec11, 0xbe00_0c11),
        // ELS, WU, EA, WnRV and WnR say something about the error.
        (0xbe07_0ed1, 0xbe07_0ed1),
        // IDS=1: nobody knows what the bits mean, so all stay.
        (0xbf00_e123, 0xbf00_e123),
        // Not an SError at all: the syndrome is the caller's business, the class is not.
        (0x0000_0811, 0xbe00_0811),
        (0xff_be00_0811, 0xbe00_0811),
    ] {
        assert_eq!(esr_for_sei(esr_el3), expected, "{esr_el3:#x}");
    }
}

#[test]
fn an_sea_is_re_encoded_for_the_same_level_only() {
    let origins = [Origin::El0, Origin::El1, Origin::El2];
    for (esr_el3, lower, same) in [
        (0x9200_0010u64, 0x9200_0010, 0x9600_0010),
        (0x8200_0010, 0x8200_0010, 0x8600_0010),
        // A write, with an unknown FAR and SET=UC.
        (0x9200_1450, 0x9200_1450, 0x9600_1450),
        // ISV and its fields, and IL=0: an abort without ISV has IL=1.
        (0x91ff_e050, 0x9200_0050, 0x9600_0050),
        // EL3's own bits for a stage 1 walk stay.
        (0x9200_0095, 0x9200_0095, 0x9600_0095),
    ] {
        for from in origins {
            for to in [Target::El1, Target::El2] {
                let is_same = matches!(
                    (from, to),
                    (Origin::El1, Target::El1) | (Origin::El2, Target::El2)
                );
                let expected = if is_same { same } else { lower };
                assert_eq!(
                    esr_for_sea(esr_el3, from, to),
                    Some(expected),
                    "{esr_el3:#x}"
                );
            }
        }
    }
}

#[test]
fn what_is_no_abort_is_not_handed_over_as_one() {
    for ec in 0..64u64 {
        let is_abort = matches!(ec, 0x20 | 0x21 | 0x24 | 0x25);
        let esr = esr_for_sea(ec << 26 | 0x10, Origin::El1, Target::El2);
        assert_eq!(esr.is_some(), is_abort, "{ec:#x}");
    }
}
