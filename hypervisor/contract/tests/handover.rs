// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that a target finds, over every state that can be: vector, class, PSTATE.
//!
//! The oracle is a list of what the manual says a taken exception looks like, one line for each
//! pair of levels, written down by hand; `routing.rs` has the one that says which pair it is.

use firebreak_contract::{
    Kind, Origin, PstateFeatures, Route, Taken, Target, entry_pstate, esr_for_sea, esr_for_sei,
    hcr, origin, route, spsr,
};

/// From, to, kind; class of a data abort, of a fetch; M\[4:0\] of the target.
const ENTRIES: [(&str, &str, &str, u64, u64, u64); 10] = [
    ("EL0", "EL1", "SEI", 0x2f, 0x2f, 0b0_0101),
    ("EL1", "EL1", "SEI", 0x2f, 0x2f, 0b0_0101),
    ("EL0", "EL2", "SEI", 0x2f, 0x2f, 0b0_1001),
    ("EL1", "EL2", "SEI", 0x2f, 0x2f, 0b0_1001),
    ("EL2", "EL2", "SEI", 0x2f, 0x2f, 0b0_1001),
    ("EL0", "EL1", "SEA", 0x24, 0x20, 0b0_0101),
    ("EL1", "EL1", "SEA", 0x25, 0x21, 0b0_0101),
    ("EL0", "EL2", "SEA", 0x24, 0x20, 0b0_1001),
    ("EL1", "EL2", "SEA", 0x24, 0x20, 0b0_1001),
    ("EL2", "EL2", "SEA", 0x25, 0x21, 0b0_1001),
];

/// One way in.
type Offset = (&'static str, bool, Option<bool>, Option<bool>, u16);

/// Kind, from the target's own level, M\[0\] of the interrupted context, 32-bit code below the
/// target; offset. SPSel counts at the same level alone, the width below it alone.
const OFFSETS: [Offset; 8] = [
    ("SEA", true, Some(false), None, 0x000),
    ("SEI", true, Some(false), None, 0x180),
    ("SEA", true, Some(true), None, 0x200),
    ("SEI", true, Some(true), None, 0x380),
    ("SEA", false, None, Some(false), 0x400),
    ("SEI", false, None, Some(false), 0x580),
    ("SEA", false, None, Some(true), 0x600),
    ("SEI", false, None, Some(true), 0x780),
];

const DABT_LOWER: u64 = 0x24;
const IABT_LOWER: u64 = 0x20;

fn name_of(target: Target) -> &'static str {
    match target {
        Target::El1 => "EL1",
        Target::El2 => "EL2",
    }
}

fn entry(from: Origin, to: Target, kind: Kind) -> (u64, u64, u64) {
    let kind = if kind == Kind::Sei { "SEI" } else { "SEA" };
    let from = from.name().to_uppercase();
    let row = ENTRIES
        .iter()
        .find(|row| (row.0, row.1, row.2) == (from.as_str(), name_of(to), kind));
    let row = row.unwrap_or_else(|| panic!("{from} {to:?} {kind}"));
    (row.3, row.4, row.5)
}

fn offset(kind: Kind, same: bool, sp_elx: bool, narrow: bool) -> u16 {
    let kind = if kind == Kind::Sei { "SEI" } else { "SEA" };
    let fits = |want: Option<bool>, is: bool| want.is_none_or(|want| want == is);
    let rows: Vec<u16> = OFFSETS
        .iter()
        .filter(|row| (row.0, row.1) == (kind, same) && fits(row.2, sp_elx) && fits(row.3, narrow))
        .map(|row| row.4)
        .collect();
    assert_eq!(rows.len(), 1, "{kind} {same} {sp_elx} {narrow}");
    rows[0]
}

/// Every value of what routing looks at: M\[4:0\], A, AMO, TEA, TGE, E2H, RW, TMEA, both kinds.
fn every_state() -> impl Iterator<Item = Taken> {
    (0..1u32 << 13).map(|number| {
        let bit = |index: u32| number >> index & 1 == 1;
        let when = |index: u32, bits: u64| if bit(index) { bits } else { 0 };
        let kind = if bit(12) { Kind::Sei } else { Kind::Sea };
        let hcr_el2 = when(6, hcr::AMO)
            | when(7, hcr::TEA)
            | when(8, hcr::TGE)
            | when(9, hcr::E2H)
            | when(10, hcr::RW);
        let mut taken = Taken::new(kind, u64::from(number & 0x1f) | when(5, spsr::A), hcr_el2);
        taken.tmea = bit(11);
        taken
    })
}

#[test]
fn every_delivery_has_the_vector_the_class_and_the_mode_of_its_levels() {
    let mut pairs = std::collections::BTreeSet::new();
    for taken in every_state() {
        let Route::Deliver {
            target,
            vector_offset,
        } = route(&taken)
        else {
            continue;
        };
        let from = origin(taken.spsr_el3).unwrap_or_else(|| panic!("{taken:?}"));
        let (data, fetch, mode) = entry(from, target, taken.kind);
        pairs.insert((from, target, taken.kind == Kind::Sei));

        // Width of the level below the target: EL1's own, or EL0's where EL0 is right below.
        let host = taken.hcr_el2 & hcr::TGE != 0 && taken.hcr_el2 & hcr::E2H != 0;
        let el0_is_below = target == Target::El1 || host;
        let narrow = if el0_is_below {
            taken.spsr_el3 & spsr::AARCH32 != 0
        } else {
            taken.hcr_el2 & hcr::RW == 0
        };
        let same = name_of(target) == from.name().to_uppercase();
        let sp_elx = taken.spsr_el3 & 1 != 0;
        let expected = offset(taken.kind, same, sp_elx, narrow);
        assert_eq!(vector_offset, expected, "{taken:?}");

        for (class, lower) in [(data, DABT_LOWER), (fetch, IABT_LOWER)] {
            let esr = match taken.kind {
                Kind::Sei => Some(esr_for_sei(0x2f << 26 | 0xc11)),
                Kind::Sea => esr_for_sea(lower << 26 | 0x10, from, target),
            };
            assert_eq!(esr.map(|esr| esr >> 25), Some(class << 1 | 1), "{taken:?}");
        }
        let new = entry_pstate(taken.spsr_el3, target, &PstateFeatures::default());
        assert_eq!(new & 0x1f, mode, "{taken:?}");
        // D, A, I and F are set, whatever they were.
        assert_eq!(new >> 6 & 0xf, 0xf, "{taken:?}");
    }
    assert_eq!(
        pairs.len(),
        ENTRIES.len(),
        "a pair of levels was never reached: {pairs:?}"
    );
}

/// What of EL3's syndrome stays, bit by bit: everything of an SEI but IESB \[13\], PFV \[14\] and
/// VFV \[15\], and all of it where IDS \[24\] says that nobody knows what the bits mean; of an SEA
/// SET, FnV, EA, CM, S1PTW, WnR and xFSC \[12:0\] alone.
#[test]
fn every_bit_of_the_syndrome_is_kept_or_cleared_as_its_meaning_demands() {
    const IDS: u32 = 24;
    const EL3_ONLY: [u32; 3] = [13, 14, 15];
    let mut values = vec![0u64, 0x1ff_ffff];
    for bit in 0..25 {
        values.extend([1 << bit, 0x1ff_ffff ^ (1 << bit), 1 << bit | 1 << IDS]);
    }
    for iss in values {
        let sei = esr_for_sei(0x2f << 26 | iss) & 0x1ff_ffff;
        let unknown = iss >> IDS & 1 == 1;
        for bit in 0..25 {
            let kept = unknown || !EL3_ONLY.contains(&bit);
            let expected = if kept { iss >> bit & 1 } else { 0 };
            assert_eq!(sei >> bit & 1, expected, "bit {bit} of an SEI's {iss:#x}");
        }
        for (lower, same) in [(DABT_LOWER, 0x25), (IABT_LOWER, 0x21)] {
            for (from, to, class) in [
                (Origin::El0, Target::El1, lower),
                (Origin::El1, Target::El1, same),
                (Origin::El0, Target::El2, lower),
                (Origin::El1, Target::El2, lower),
                (Origin::El2, Target::El2, same),
            ] {
                // IL is set whatever it was: an abort without ISV has it.
                for il in [0, 1 << 25] {
                    let esr = esr_for_sea(lower << 26 | il | iss, from, to);
                    let expected = class << 26 | 1 << 25 | iss & 0x1fff;
                    assert_eq!(esr, Some(expected), "{from:?} to {to:?}, {iss:#x}");
                }
            }
        }
    }
}
