// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the tables of `docs/sei-contract.md` from the code, or checks that they are up to date.

use firebreak_abi::sei::{self, qemu_virt, smc, source};
use firebreak_contract::{
    Act, DeferReason, Kind, Limits, Origin, OverlayPolicy, PstateFeatures, Route, Severity, Taken,
    Target, entry_pstate, esr_for_sea, esr_for_sei, hcr, overlay, route, spsr,
};

mod generated;

use generated::{check, table};

fn strings(cells: &[&str]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

fn bit(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "1",
        Some(false) => "0",
        None => "any",
    }
}

fn says(route: Route) -> [String; 2] {
    match route {
        Route::Deliver {
            target,
            vector_offset,
        } => {
            let target = if target == Target::El1 { "EL1" } else { "EL2" };
            [format!("{target} at {vector_offset:#x}"), String::new()]
        }
        Route::Defer(reason) => ["**defer**".into(), reason.name().into()],
        Route::Panic(reason) => ["**reset**".into(), format!("{reason:?}")],
    }
}

/// The answer for all values of what a row leaves open, which has to be one answer.
fn ask(kind: Kind, mode: u64, bits: &[(u64, Option<bool>)], tmea: Option<bool>) -> [String; 2] {
    let mut answers = Vec::new();
    for number in 0..1u32 << (bits.len() + 1) {
        let free = |index: usize| number >> index & 1 == 1;
        let mut taken = Taken::new(kind, mode, hcr::RW);
        for (index, &(mask, value)) in bits.iter().enumerate() {
            if value.unwrap_or(free(index)) {
                // SPSR_EL3.A and HCR_EL2's bits have different places, so one list holds both.
                if mask == spsr::A {
                    taken.spsr_el3 |= mask
                } else {
                    taken.hcr_el2 |= mask
                }
            }
        }
        taken.tmea = tmea.unwrap_or(free(bits.len()));
        answers.push(says(route(&taken)));
    }
    answers.dedup();
    assert_eq!(
        answers.len(),
        1,
        "a row has more than one answer: {answers:?}"
    );
    answers.remove(0)
}

const EL0: (&str, u64) = ("EL0", 0b0000);
const EL1: (&str, u64) = ("EL1", 0b0101);
const EL2: (&str, u64) = ("EL2", 0b1001);
const EL3: (&str, u64) = ("EL3", 0b1101);

fn sei_routing() -> String {
    let (yes, no) = (Some(true), Some(false));
    // from, TGE, E2H, AMO, TMEA, A. TEA is left open everywhere.
    let rows = [
        (EL0, no, None, yes, None, None),
        (EL1, no, None, yes, None, None),
        (EL0, no, None, no, None, no),
        (EL1, no, None, no, None, no),
        (EL0, no, None, no, no, yes),
        (EL1, no, None, no, no, yes),
        (EL0, no, None, no, yes, yes),
        (EL1, no, None, no, yes, yes),
        (EL0, yes, no, None, None, None),
        (EL0, yes, yes, None, None, no),
        (EL0, yes, yes, None, None, yes),
        (EL2, no, None, no, None, None),
        (EL2, no, None, yes, None, no),
        (EL2, no, None, yes, None, yes),
        (EL2, yes, None, None, None, no),
        (EL2, yes, None, None, None, yes),
        (EL3, None, None, None, None, None),
    ];
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|&((name, mode), tge, e2h, amo, tmea, a)| {
            let bits = [
                (hcr::TGE, tge),
                (hcr::E2H, e2h),
                (hcr::AMO, amo),
                (spsr::A, a),
                (hcr::TEA, None),
            ];
            let answer = ask(Kind::Sei, mode, &bits, tmea);
            let mut row = strings(&[name, bit(tge), bit(e2h), bit(amo), bit(tmea), bit(a)]);
            row.extend(answer);
            row
        })
        .collect();
    table(
        &[
            "from",
            "TGE",
            "E2H",
            "AMO",
            "TMEA",
            "SPSR_EL3.A",
            "to",
            "because",
        ],
        &rows,
    )
}

fn sea_routing() -> String {
    let (yes, no) = (Some(true), Some(false));
    // from, TGE, TEA, TMEA, A. AMO is left open everywhere.
    let rows = [
        (EL0, None, yes, None, None),
        (EL0, no, no, None, None),
        (EL0, yes, no, None, None),
        (EL1, no, yes, None, None),
        (EL1, no, no, no, None),
        (EL1, no, no, yes, no),
        (EL1, no, no, yes, yes),
        (EL2, None, None, None, None),
        (EL3, None, None, None, None),
    ];
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|&((name, mode), tge, tea, tmea, a)| {
            let bits = [
                (hcr::TGE, tge),
                (hcr::TEA, tea),
                (spsr::A, a),
                (hcr::AMO, None),
            ];
            let [to, because] = ask(Kind::Sea, mode, &bits, tmea);
            let mut row = strings(&[name, bit(tge), bit(tea), bit(tmea), bit(a)]);
            row.extend([to, because]);
            row
        })
        .collect();
    table(
        &["from", "TGE", "TEA", "TMEA", "SPSR_EL3.A", "to", "because"],
        &rows,
    )
}

fn offset(taken: &Taken) -> String {
    match route(taken) {
        Route::Deliver { vector_offset, .. } => format!("{vector_offset:#05x}"),
        other => panic!("{other:?}"),
    }
}

fn vectors() -> String {
    let rows = [
        ("the same level, with SP_EL0", 0b1000, hcr::RW),
        ("the same level, with SP_ELx", 0b1001, hcr::RW),
        (
            "a lower level, the one below the target in AArch64",
            0b0101,
            hcr::RW,
        ),
        (
            "a lower level, the one below the target in AArch32",
            0b1_0011,
            0,
        ),
    ];
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|&(text, mode, hcr_el2)| {
            let hcr_el2 = hcr_el2 | hcr::AMO | hcr::TEA;
            let sei = Taken::new(Kind::Sei, mode, hcr_el2);
            let sea = Taken::new(Kind::Sea, mode, hcr_el2);
            strings(&[text, &offset(&sei), &offset(&sea)])
        })
        .collect();
    table(&["interrupted", "SEI", "SEA"], &rows)
}

/// Class and mode for each pair of levels.
fn classes() -> String {
    const FROM_LOWER: [u64; 2] = [0x24 << 26, 0x20 << 26];
    let (el0, el1, el2) = (Origin::El0, Origin::El1, Origin::El2);
    let pairs = [
        (el0, Target::El1),
        (el1, Target::El1),
        (el0, Target::El2),
        (el1, Target::El2),
        (el2, Target::El2),
    ];
    let rows: Vec<Vec<String>> = pairs
        .iter()
        .map(|&(from, to)| {
            let class = |esr: u64| format!("{:#x}", esr >> 26);
            let mut row = vec![from.name().to_uppercase(), format!("{to:?}").to_uppercase()];
            row.push(class(esr_for_sei(0)));
            row.extend(FROM_LOWER.iter().map(|esr_el3| {
                esr_for_sea(*esr_el3, from, to).map_or_else(|| panic!("no abort"), class)
            }));
            let mode = entry_pstate(0, to, &PstateFeatures::default()) & 0x1f;
            row.push(format!("{mode:#07b}"));
            row
        })
        .collect();
    table(
        &[
            "from",
            "to",
            "EC, SEI",
            "EC, SEA of data",
            "EC, SEA of a fetch",
            "PSTATE.M",
        ],
        &rows,
    )
}

fn severity_overlay() -> String {
    let el2 = |vector_offset| Route::Deliver {
        target: Target::El2,
        vector_offset,
    };
    let columns = [
        ("EL0, EL1 to EL2", Origin::El1, el2(0x580)),
        (
            "EL0 to EL1",
            Origin::El0,
            Route::Deliver {
                target: Target::El1,
                vector_offset: 0x580,
            },
        ),
        (
            "EL1 to EL1",
            Origin::El1,
            Route::Deliver {
                target: Target::El1,
                vector_offset: 0x380,
            },
        ),
        ("EL2 to EL2", Origin::El2, el2(0x380)),
        (
            "EL0, EL1 masked",
            Origin::El1,
            Route::Defer(DeferReason::Masked),
        ),
        (
            "EL2 masked or not ready",
            Origin::El2,
            Route::Defer(DeferReason::Masked),
        ),
        (
            "EL3, Secure world",
            Origin::El3,
            Route::Panic(firebreak_contract::PanicReason::FromEl3),
        ),
    ];
    let mut head = vec!["severity"];
    head.extend(columns.iter().map(|(name, ..)| *name));
    let rows: Vec<Vec<String>> = Severity::ALL
        .into_iter()
        .rev()
        .map(|severity| {
            let mut row = vec![severity.to_string()];
            row.extend(columns.iter().map(|&(_, from, route)| {
                match overlay(severity, route, from, &OverlayPolicy::DEFAULT) {
                    Act::Notify { .. } => "notify".to_string(),
                    Act::Defer(_) => "defer".to_string(),
                    Act::LogOnly => "count".to_string(),
                    Act::ResetWithBert(reason) => format!("reset: {}", reason.name()),
                }
            }));
            row
        })
        .collect();
    table(&head, &rows)
}

fn pstate() -> String {
    let kept = entry_pstate(u64::MAX, Target::El2, &PstateFeatures::default())
        & !entry_pstate(0, Target::El2, &PstateFeatures::default());
    assert_eq!(kept, spsr::NZCV | spsr::DIT | spsr::PAN);
    let plain = entry_pstate(0, Target::El2, &PstateFeatures::default());
    let guest = entry_pstate(0, Target::El1, &PstateFeatures::default());
    format!(
        "On a PE without any of the optional features, PSTATE is {plain:#x} on entry to EL2 and \
         {guest:#x} on\nentry to EL1, beside the bits {kept:#x} (NZCV, DIT, PAN) that stay as \
         they were."
    )
}

fn page_layout() -> String {
    let row = |offset: u64, name: &str, writer: &str, meaning: &str| {
        vec![
            format!("{offset:#05x}"),
            name.to_string(),
            writer.into(),
            meaning.into(),
        ]
    };
    let both = "firmware, EL2";
    let rows = [
        row(
            source::ERROR_STATUS_ADDRESS,
            "error status address",
            "firmware, once",
            "physical address of the status block",
        ),
        row(
            source::READ_ACK,
            "read-ack",
            both,
            "0: a record is outstanding. 1: the block may be written. The firmware writes 0 \
             before it touches the block, EL2 writes 1 when it is done with it.",
        ),
        row(
            source::PENDING,
            "pending",
            both,
            "not 0: a deferred record stands in the block and nobody has taken it. The firmware \
             sets it last. Whoever clears it has the record.",
        ),
        row(
            source::SYNDROME,
            "syndrome",
            "firmware",
            "ISS of the deferred record, 25 bits; written before the pending word",
        ),
        row(source::COUNT_RAISED, "raised", "firmware", "errors so far"),
        row(
            source::COUNT_DELIVERED,
            "delivered",
            "firmware",
            "handed over by an SEI",
        ),
        row(
            source::COUNT_DEFERRED,
            "deferred",
            "firmware",
            "that had to wait for their target or for the block",
        ),
        row(
            source::COUNT_DROPPED,
            "dropped",
            "firmware",
            "lost or not recorded",
        ),
        row(
            source::STATUS_BLOCK,
            "status block",
            "firmware",
            &format!(
                "{:#x} bytes: generic error status block (ACPI 18.3.2.7.1)",
                source::STATUS_BLOCK_LEN
            ),
        ),
    ];
    table(&["offset", "word", "who writes", "meaning"], &rows)
}

fn properties() -> String {
    let row = |node: &str, name: &str, value: &str, meaning: &str| {
        vec![
            node.to_string(),
            format!("`{name}`"),
            value.into(),
            meaning.into(),
        ]
    };
    let (region, of_source) = ("region", "source");
    let rows = [
        row(
            region,
            "compatible",
            &format!("`\"{}\"`", sei::COMPATIBLE),
            "this binding",
        ),
        row(region, "reg", "base, length", "everything that is shared"),
        row(
            region,
            "#address-cells, #size-cells",
            "2, 0",
            "for the sources' `reg`",
        ),
        row(
            region,
            sei::PROP_BERT,
            "base, length",
            "boot error record region (ACPI 18.3.1)",
        ),
        row(
            region,
            sei::PROP_PERSISTENT,
            "base, length",
            "memory for EL2 that survives a warm reset: crash page, log",
        ),
        row(
            of_source,
            "reg",
            "2 cells",
            "affinity of the PE, as in its `cpu` node's `reg`",
        ),
        row(
            of_source,
            sei::PROP_ERROR_STATUS_ADDRESS,
            "address",
            "cell that holds the address of the status block",
        ),
        row(
            of_source,
            sei::PROP_ERROR_STATUS_LENGTH,
            "1 cell",
            "length of the status block, in bytes",
        ),
        row(
            of_source,
            sei::PROP_READ_ACK,
            "address",
            "read-ack register",
        ),
        row(of_source, sei::PROP_PENDING, "address", "pending word"),
        row(of_source, sei::PROP_SYNDROME, "address", "syndrome word"),
    ];
    table(&["node", "property", "value", "meaning"], &rows)
}

fn calls() -> String {
    let row = |id: u64, name: &str, arguments: &str, returns: &str| {
        vec![
            format!("`{id:#x}`"),
            name.to_string(),
            arguments.into(),
            returns.into(),
        ]
    };
    let version = smc::INTERFACE_VERSION;
    let rows = [
        row(
            smc::VERSION,
            "VERSION",
            "none",
            &format!("major \\[31:16\\], minor \\[15:0\\]: {version:#x}"),
        ),
        row(
            smc::RAISE,
            "RAISE",
            "x1 syndrome (25 bits), x2 physical address or all ones for none, x3 severity of the \
             record (0 recoverable, 1 fatal, 2 corrected, 3 informational), x4 PE, x5 delay in \
             ticks of CNTPCT",
            "0, or INVALID_PARAMETERS (-2). With delay 0 on the caller's own PE the error happens \
             before the call returns.",
        ),
        row(
            smc::FATAL,
            "FATAL",
            "x1 physical address of a status block, x2 its length",
            "does not return: the block becomes the boot error record and the machine is reset. \
             INVALID_PARAMETERS (-2) when the block is not in RAM.",
        ),
        row(
            smc::UNMASKED,
            "UNMASKED",
            "none",
            "0. A deferred error is tried at once; if it can be delivered, it interrupts the \
             caller behind the SMC.",
        ),
    ];
    table(&["function", "name", "arguments", "returns in x0"], &rows)
}

fn times() -> String {
    format!(
        "The firmware tries again every {} µs. An uncorrected error that nobody has taken after \
         {} ms resets\nthe machine; a corrected one waits for as long as it takes.",
        Limits::RETRY_US,
        Limits::DEFERRAL_MS
    )
}

fn example() -> String {
    let page = qemu_virt::REGION;
    format!(
        "```dts\nfirebreak-sei@{region:x} {{\n\tcompatible = \"{compatible}\";\n\
         \treg = <0x0 {region:#x} 0x0 {region_len:#x}>;\n\
         \t{bert_name} = <0x0 {bert:#x} 0x0 {bert_len:#x}>;\n\
         \t{persistent_name} = <0x0 {persistent:#x} 0x0 {persistent_len:#x}>;\n\
         \t#address-cells = <2>;\n\t#size-cells = <0>;\n\n\
         \tsource@0 {{\n\t\treg = <0x0 0x0>;\n\
         \t\t{} = <0x0 {:#x}>;\n\t\t{} = <{:#x}>;\n\t\t{} = <0x0 {:#x}>;\n\
         \t\t{} = <0x0 {:#x}>;\n\t\t{} = <0x0 {:#x}>;\n\t}};\n}};\n```",
        sei::PROP_ERROR_STATUS_ADDRESS,
        page + source::ERROR_STATUS_ADDRESS,
        sei::PROP_ERROR_STATUS_LENGTH,
        source::STATUS_BLOCK_LEN,
        sei::PROP_READ_ACK,
        page + source::READ_ACK,
        sei::PROP_PENDING,
        page + source::PENDING,
        sei::PROP_SYNDROME,
        page + source::SYNDROME,
        region = qemu_virt::REGION,
        region_len = qemu_virt::REGION_LEN,
        compatible = sei::COMPATIBLE,
        bert_name = sei::PROP_BERT,
        bert = qemu_virt::BERT,
        bert_len = qemu_virt::BERT_LEN,
        persistent_name = sei::PROP_PERSISTENT,
        persistent = qemu_virt::PERSISTENT,
        persistent_len = qemu_virt::PERSISTENT_LEN,
    )
}

#[test]
fn the_tables_in_the_documentation_are_what_the_code_does() {
    check(
        "sei-contract.md",
        &[
            ("sei-routing", sei_routing()),
            ("sea-routing", sea_routing()),
            ("vectors", vectors()),
            ("classes", classes()),
            ("overlay", severity_overlay()),
            ("pstate", pstate()),
            ("times", times()),
            ("layout", page_layout()),
            ("properties", properties()),
            ("example", example()),
            ("calls", calls()),
        ],
    );
}
