// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the machine said in recorded runs of the demo, against the code that decides it.
//!
//! `tests/host/transcripts` holds the records of one run, cut by case; `cargo xtask demo` leaves
//! those of its last run in `target/firebreak/demo.log`. Here the errors of that run are judged
//! again on this machine: the hypervisor must have answered as the very same crates do.

use std::fs;
use std::path::Path;

use firebreak_abi::{Pa, VmId};
use firebreak_qemu::{Event, Record};
use firebreak_syndrome::{CperSeverity, Ec, Esr, Iss};
use firebreak_triage::{
    Class, Evidence, GuestEl, Interrupted, Owner, Policy, Reaction, RecordSummary, triage,
};

/// Every event that there is (`firebreak-wire`).
const EVENTS: &[&str] = &[
    "boot",
    "partition",
    "started",
    "error",
    "vserror",
    "retired",
    "spare",
    "abort",
    "undef",
    "killed",
    "restart",
    "stopped",
    "watchdog",
    "pvpanic",
    "suppressed",
    "boot-error-record",
    "given-up",
    "unclaimed",
    "panic",
    "queue",
    "halt",
    "vsea",
    "answer",
    "crash",
    "crash-record",
    "log",
];

fn records() -> Vec<Record> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let mut records = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        records.extend(text.lines().map(Record::parse));
    }
    assert!(records.len() > 100);
    records
}

/// The policies of the demo, in the order of its partitions.
fn policies() -> [Policy; 3] {
    let [mut linux, control, victim] = [Policy::DEFAULT; 3];
    linux.set(Class::Ueo, Reaction::Inject(Iss::new(0x811)));
    linux.set(Class::Impdef, Reaction::Inject(Iss::new(0x100_0000)));
    [linux, control, victim]
}

fn partition(event: &Event, key: &str) -> Option<VmId> {
    event.num(key).map(|vm| VmId(u8::try_from(vm).unwrap()))
}

fn evidence(event: &Event) -> Evidence {
    let el = if event.text("from") == Some("el0") {
        GuestEl::El0
    } else {
        GuestEl::El1
    };
    let owner = partition(event, "page_vm").map_or(Owner::Unknown, Owner::Partition);
    Evidence {
        iss: Iss::new(u32::try_from(event.hex("iss").unwrap()).unwrap()),
        sync: event.flag("sync") == Some(true),
        record: Some(RecordSummary {
            severity: CperSeverity::from_name(event.text("cper").unwrap()).unwrap(),
            pa: event.hex("pa").map(Pa::new),
        }),
        interrupted: Interrupted::Guest {
            vm: partition(event, "vm").unwrap(),
            el,
        },
        owner: event.hex("pa").map(|_| owner),
        corrected_on_page: 1,
    }
}

#[test]
fn the_hypervisor_decided_as_triage_does_here() {
    let records = records();
    let errors: Vec<&Event> = records
        .iter()
        .filter_map(|record| record.event("error"))
        .collect();
    assert_eq!(errors.len(), 5);
    for event in errors {
        let decision = triage(&evidence(event), &policies());
        assert_eq!(
            event.text("severity"),
            Some(decision.severity.name()),
            "{event:?}"
        );
        assert_eq!(
            event.text("verdict"),
            Some(decision.verdict_name()),
            "{event:?}"
        );
        assert_eq!(event.text("rule"), Some(decision.rule.name()), "{event:?}");
    }
}

#[test]
fn every_event_has_a_known_name_and_a_time() {
    let mut seen = 0;
    for record in records() {
        if let Record::Event(event) = record {
            assert!(EVENTS.contains(&event.name()), "{event:?}");
            assert!(event.num("t").is_some(), "{event:?}");
            seen += 1;
        }
    }
    assert!(seen > 20);
}

#[test]
fn what_the_victim_reported_are_syndromes_as_the_codec_reads_them() {
    let mut errors = 0;
    for record in records() {
        let Some(line) = record.line("victim") else {
            continue;
        };
        let Some((kind, rest)) = line.split_once(" n=") else {
            continue;
        };
        let Some(esr) = rest
            .split_whitespace()
            .find_map(|word| word.strip_prefix("esr=0x"))
        else {
            continue;
        };
        let esr = Esr::from_raw(u64::from_str_radix(esr, 16).unwrap());
        match kind {
            "victim: serror" => assert_eq!(esr.ec(), Ec::SERROR, "{line}"),
            "victim: abort" => assert_eq!(esr.ec(), Ec::DABT_SAME, "{line}"),
            _ => panic!("{line}"),
        }
        errors += 1;
    }
    assert!(errors > 1);
}
