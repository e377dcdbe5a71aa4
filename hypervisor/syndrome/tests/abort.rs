// SPDX-License-Identifier: MIT OR Apache-2.0
//! Abort syndromes against the published `aarch64-esr-decoder` and against a model of a load.

use aarch64_esr_decoder::{FieldInfo, decode};
use firebreak_syndrome::{
    AbortFsc, AccessSize, DataAbort, Ec, InstructionAbort, SyncAbort, UNDEFINED_ESR,
    external_abort_esr,
};

fn field<'a>(fields: &'a [FieldInfo], name: &str) -> Option<&'a FieldInfo> {
    fields.iter().find(|field| field.name == name)
}

fn iss(esr: u64) -> Option<Vec<FieldInfo>> {
    Some(field(&decode(esr).ok()?, "ISS")?.subfields.clone())
}

#[test]
fn data_aborts_decode_as_the_published_decoder_says() {
    let mut compared = 0;
    for low in 0..1u64 << 25 {
        // All of ISV, SAS, SSE, SRT, SF and all of the low half, but not every pair of them.
        let low = if low & 0x7fff == 0x147 || low >> 15 == 0x233 {
            low
        } else {
            continue;
        };
        let esr = 0x24 << 26 | 1 << 25 | low;
        let Some(parts) = iss(esr) else { continue };
        let abort = DataAbort::new(esr);
        let bit = |name| field(&parts, name).unwrap().value == 1;
        assert_eq!(abort.is_described(), bit("ISV"));
        if abort.is_described() {
            assert_eq!(abort.size() as u64, field(&parts, "SAS").unwrap().value);
            assert_eq!(abort.sign_extend(), bit("SSE"));
            assert_eq!(abort.register() as u64, field(&parts, "SRT").unwrap().value);
            assert_eq!(abort.is_64_bit(), bit("SF"));
        }
        assert_eq!(abort.far_not_valid(), bit("FnV"));
        assert_eq!(abort.external_abort_type(), bit("EA"));
        assert_eq!(abort.is_cache_maintenance(), bit("CM"));
        assert_eq!(abort.on_stage1_walk(), bit("S1PTW"));
        assert_eq!(abort.is_write(), bit("WnR"));
        assert_eq!(
            u64::from(abort.fsc_bits()),
            field(&parts, "DFSC").unwrap().value
        );
        compared += 1;
    }
    assert!(compared > 10_000, "{compared}");
}

#[test]
fn fault_status_codes_have_the_names_of_the_published_decoder() {
    for code in 0..64u8 {
        let esr = 0x20 << 26 | 1 << 25 | u64::from(code);
        let fsc = InstructionAbort::new(esr).fsc();
        assert_eq!(fsc, DataAbort::new(0x24 << 26 | u64::from(code)).fsc());
        let text = iss(esr)
            .and_then(|parts| field(&parts, "IFSC")?.description.clone())
            .unwrap_or_default();
        // Word by word, because the other decoder says it in whole sentences.
        let says = |words: &[&str]| words.iter().all(|word| text.contains(word));
        let level = |level: i8| format!("level {level}");
        let agrees = match fsc {
            AbortFsc::AddressSize(l) => says(&["Address size fault", &level(l)]),
            AbortFsc::Translation(l) => says(&["Translation fault", &level(l)]),
            AbortFsc::AccessFlag(l) => says(&["Access flag fault", &level(l)]),
            AbortFsc::Permission(l) => says(&["Permission fault", &level(l)]),
            AbortFsc::External => says(&["External abort, not on translation"]),
            AbortFsc::ExternalOnWalk(l) => says(&["External abort on translation", &level(l)]),
            AbortFsc::Alignment => says(&["Alignment"]),
            AbortFsc::TlbConflict => says(&["TLB conflict"]),
            AbortFsc::Other(raw) => {
                assert_eq!(raw, code);
                ![
                    "Translation fault",
                    "Permission",
                    "External abort",
                    "Access flag",
                ]
                .iter()
                .any(|word| text.contains(word))
            }
        };
        assert!(agrees, "{code:#x}: {fsc:?} against {text:?}");
    }
}

#[test]
fn translation_and_permission_faults_are_told_apart_by_a_mask() {
    for code in 0..64u64 {
        let abort = DataAbort::new(code);
        let translation = matches!(abort.fsc(), AbortFsc::Translation(0..=3));
        let permission = matches!(abort.fsc(), AbortFsc::Permission(_));
        assert_eq!(abort.is_translation(), translation, "{code:#x}");
        assert_eq!(abort.is_permission(), permission, "{code:#x}");
    }
}

#[test]
fn an_emulated_load_extends_as_the_instruction_would() {
    let value = 0x8182_8384_8586_8788;
    for (size, mask) in [
        (AccessSize::Byte, 0xff),
        (AccessSize::Halfword, 0xffff),
        (AccessSize::Word, 0xffff_ffff),
        (AccessSize::Doubleword, u64::MAX),
    ] {
        assert_eq!(size.mask(), mask);
        assert_eq!(1u128 << (8 * size.bytes()), u128::from(mask) + 1);
    }
    let abort = |sas: u64, sse: u64, sf: u64| DataAbort::new(sas << 22 | sse << 21 | sf << 15);
    for (sas, sse, sf, expected) in [
        (0, 0, 0, 0x88),                  // LDRB
        (1, 0, 0, 0x8788),                // LDRH
        (2, 0, 0, 0x8586_8788),           // LDR Wt
        (3, 0, 1, 0x8182_8384_8586_8788), // LDR Xt
        (0, 1, 0, 0xffff_ff88),           // LDRSB Wt
        (0, 1, 1, 0xffff_ffff_ffff_ff88), // LDRSB Xt
        (1, 1, 0, 0xffff_8788),           // LDRSH Wt
        (1, 1, 1, 0xffff_ffff_ffff_8788), // LDRSH Xt
        (2, 1, 1, 0xffff_ffff_8586_8788), // LDRSW
    ] {
        assert_eq!(
            abort(sas, sse, sf).extend(value),
            expected,
            "{sas} {sse} {sf}"
        );
    }
    assert_eq!(abort(0, 1, 1).extend(0x17f), 0x7f);
}

#[test]
fn an_abort_for_a_guest_is_an_external_abort_from_where_it_was() {
    for (fetch, write, from_el1, esr) in [
        (false, false, false, 0x9200_0010),
        (false, true, false, 0x9200_0050),
        (false, false, true, 0x9600_0010),
        (false, true, true, 0x9600_0050),
        (true, false, false, 0x8200_0010),
        (true, false, true, 0x8600_0010),
        (true, true, true, 0x8600_0010),
    ] {
        for cache_maintenance in [false, true] {
            for far_not_valid in [false, true] {
                let abort = SyncAbort {
                    fetch,
                    write,
                    from_el1,
                    cache_maintenance,
                    far_not_valid,
                };
                let mut expected = esr;
                if cache_maintenance && !fetch {
                    expected |= 1 << 8;
                }
                if far_not_valid {
                    expected |= 1 << 10;
                }
                let built = external_abort_esr(abort);
                assert_eq!(built.raw(), expected, "{abort:?}");
                assert_eq!(DataAbort::new(built.raw()).fsc(), AbortFsc::External);
                assert!(decode(built.raw()).is_ok());
            }
        }
    }
}

#[test]
fn a_stage_2_abort_is_passed_on_without_what_only_concerns_the_hypervisor() {
    // ISV with its fields, S1PTW, EA, a stage-2 translation fault at level 3, a write.
    let trapped = DataAbort::new(0x24 << 26 | 1 << 25 | 0x1ff_8000 | 1 << 9 | 1 << 7 | 1 << 6 | 7);
    let built = external_abort_esr(SyncAbort::from_data_abort(trapped, true));
    assert_eq!(built.raw(), 0x9600_0050);
    let fetched = InstructionAbort::new(0x20 << 26 | 1 << 25 | 1 << 7 | 7);
    let built = external_abort_esr(SyncAbort::from_instruction_abort(fetched, false));
    assert_eq!(built.raw(), 0x8200_0010);
}

#[test]
fn an_undefined_instruction_has_class_0_and_il() {
    assert_eq!(UNDEFINED_ESR.raw(), 0x0200_0000);
    assert_eq!(UNDEFINED_ESR.ec(), Ec::UNKNOWN);
}

/// LDR R0, [R1] of T32 has two bytes. EL2 went on four bytes behind it, and left an instruction out.
#[test]
fn regression_a_load_of_two_bytes_is_not_answered_as_one_of_four() {
    const IL: u64 = 1 << 25;
    // ISV, a word, translation fault at level 3.
    const WORD: u64 = 0x24 << 26 | 1 << 24 | 0b10 << 22 | 0x07;
    assert!(DataAbort::new(WORD | IL).is_emulable());
    assert!(!DataAbort::new(WORD).is_emulable());
    // Not described; on a table walk; a permission fault.
    assert!(!DataAbort::new((WORD | IL) & !(1 << 24)).is_emulable());
    assert!(!DataAbort::new(WORD | IL | 1 << 7).is_emulable());
    assert!(!DataAbort::new(WORD | IL | 0x08).is_emulable());
}
