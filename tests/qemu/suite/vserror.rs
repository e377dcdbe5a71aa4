// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual SErrors and virtual external aborts in bare-metal guests, by command: what the guest
//! reads, and what the events say of it.

use firebreak_qemu::Event;
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, field, trial, with_firmware};

pub(crate) fn add(trials: &mut Vec<Trial>) {
    for cpu in ["neoverse-n1", "max"] {
        trials.push(trial(
            format!("vserror::every_class_of_syndrome::{cpu}"),
            move || every_class(cpu),
        ));
    }
}

/// Boots the system `control`, and waits until both victims live.
fn boot(cpu: &str) -> Result<Case, Failed> {
    let mut case = Case::start(with_firmware("control")?.cpu(cpu).smp(3))?;
    case.line("victim", "victim: alive")?;
    case.line("hidden", "victim: alive")?;
    case.forget();
    Ok(case)
}

/// Waits until a guest reports an SError, and holds that what it reads is what the event says.
/// A guest that is still in the handler of the last one masks it: then, and only then, it is told
/// to be pending, and the place is a hint.
fn taken(case: &Case, guest: &str, inj: u64, iss: u64) -> Result<Event, Failed> {
    let event = case.injection(inj, "taken")?;
    case.hold(event.hex("syndrome") == Some(iss), "the event's syndrome")?;
    let masked = case.records().iter().any(|record| {
        record.event("vserror").is_some_and(|event| {
            event.num("inj") == Some(inj) && event.text("state") == Some("pending")
        })
    });
    case.hold(
        event.value()["exact"] == !masked,
        "the event to be exact unless the guest masked SError",
    )?;
    case.hold(event.text("el") == Some("el1"), "the event's level")?;
    let line = case.line(guest, "victim: serror")?;
    case.hold(
        field(&line, "esr") == Some(0xbe00_0000 | iss),
        &format!("the guest to read syndrome {iss:#x}"),
    )?;
    case.hold(
        event.hex("elr").is_some() && event.hex("elr") == field(&line, "elr"),
        "the guest to have been interrupted where the event says",
    )?;
    // Nothing but PSTATE.A and the flags of an interrupted EL1h is to be seen.
    case.hold(
        field(&line, "spsr").is_some_and(|spsr| spsr & 0x1f == 5 && spsr >> 8 & 1 == 0),
        "the guest to have had SError unmasked at EL1h",
    )?;
    Ok(event)
}

/// A sample of all 2^25 syndromes: each AET with each kind of DFSC, IDS, all ones, all zeros.
fn every_class(cpu: &str) -> Outcome {
    let mut case = boot(cpu)?;
    let mut syndromes = vec![0, 0x1ff_ffff, 0x100_0000, 0x1aa_aaaa, 0x155_5555, 0xff_ffff];
    for aet in 0..8 {
        syndromes.push(aet << 10 | 0x11);
    }
    for dfsc in [0, 0x02, 0x3f] {
        syndromes.push(0b011 << 10 | dfsc);
    }
    for ids in [0x100_0411, 0x100_0000 | 0x1811] {
        syndromes.push(ids);
    }
    for guest in ["victim", "hidden"] {
        for iss in &syndromes {
            case.forget();
            let inj = case.inject(&format!("{guest} vcpu=0 serror iss={iss:#x}"))?;
            taken(&case, guest, inj, *iss)?;
        }
    }
    case.forget();
    let inj = case.inject("victim vcpu=0 serror")?;
    taken(&case, "victim", inj, 0x100_0000)?;
    case.lines("victim", "victim: alive", 2)?;
    case.never("killed")
}
