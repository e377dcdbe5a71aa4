// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual SErrors and virtual external aborts in bare-metal guests, by command: what the guest
//! reads, and what the events say of it.

use firebreak_qemu::Event;
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, failed, field, trial, with_firmware};

pub(crate) fn add(trials: &mut Vec<Trial>) {
    for cpu in ["neoverse-n1", "max"] {
        trials.push(trial(
            format!("vserror::every_class_of_syndrome::{cpu}"),
            move || every_class(cpu),
        ));
    }
    trials.push(trial("vserror::two_pending_ones_merge", merge));
    trials.push(trial("vserror::esb_defers", deferred));
    trials.push(trial(
        "vserror::esb_is_a_nop_where_ras_is_hidden",
        hidden_esb,
    ));
    trials.push(trial("vserror::a_restart_cancels", cancelled));
    trials.push(trial("vserror::at_the_start", at_start));
    trials.push(trial("vserror::without_feat_ras", without_ras));
    trials.push(trial("vserror::external_aborts", external_aborts));
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

/// Numbers of the partitions in the system `control`.
const VICTIM: u8 = 1;
const HIDDEN: u8 = 2;

/// Types a letter that a victim obeys, and waits for its line.
fn tell(case: &mut Case, number: u8, letter: &str, answer: &str) -> Result<String, Failed> {
    case.machine.type_into(number, letter).map_err(failed)?;
    let name = if number == VICTIM { "victim" } else { "hidden" };
    case.line(name, answer)
}

/// What two pending errors are to a guest, by the rule as it stands in the architecture: a table
/// of its own.
fn both(first: u64, second: u64) -> u64 {
    const IDS: u64 = 1 << 24;
    let worst_first = [0x11, 0x411, 0xc11, 0x811, 0x1811];
    for one in [first, second] {
        if one & IDS != 0 {
            return one;
        }
    }
    if first & 0x3f != 0x11 || second & 0x3f != 0x11 {
        return IDS;
    }
    let worst = worst_first
        .into_iter()
        .find(|iss| [first, second].contains(iss));
    worst.unwrap_or(IDS)
}

fn merge() -> Outcome {
    let mut case = boot("neoverse-n1")?;
    let kinds = [0x11, 0x411, 0x811, 0xc11, 0x1811, 0, 0x100_0abc, 0x02];
    for first in kinds {
        for second in kinds {
            case.forget();
            tell(&mut case, VICTIM, "m", "victim: masked")?;
            let one = case.inject(&format!("victim vcpu=0 serror iss={first:#x}"))?;
            case.injection(one, "pending")?;
            let two = case.inject(&format!("victim vcpu=0 serror iss={second:#x}"))?;
            case.injection(one, "merged")?;
            case.injection(two, "pending")?;
            tell(&mut case, VICTIM, "u", "victim: unmasked")?;
            taken(&case, "victim", two, both(first, second))?;
        }
    }
    Ok(())
}

/// The guest masks SError, executes ESB, and reads the syndrome from DISR_EL1.
fn deferred() -> Outcome {
    let mut case = boot("neoverse-n1")?;
    for iss in [0x811_u64, 0xc11, 0x100_0000, 0x1ff_ffff, 0xc11] {
        case.forget();
        tell(&mut case, VICTIM, "m", "victim: masked")?;
        let inj = case.inject(&format!("victim vcpu=0 serror iss={iss:#x}"))?;
        case.injection(inj, "pending")?;
        let line = tell(&mut case, VICTIM, "e", "victim: esb")?;
        // DISR_EL1 has A, IDS and the fields of the ISS; QEMU keeps all 25 bits of it.
        let disr = field(&line, "disr").unwrap_or(0);
        case.hold(disr == 1 << 31 | iss, &format!("DISR_EL1 with {iss:#x}"))?;
        let event = case.injection(inj, "deferred")?;
        case.hold(event.hex("syndrome") == Some(iss), "the event's syndrome")?;
        tell(&mut case, VICTIM, "u", "victim: unmasked")?;
        case.lines("victim", "victim: alive", 2)?;
        let took = case.records().iter().any(|record| {
            record
                .line("victim")
                .is_some_and(|line| line.starts_with("victim: serror"))
        });
        case.hold(!took, "the deferred error not to be taken")?;
    }
    Ok(())
}

/// To a guest that does not see FEAT_RAS, ESB is a NOP: the error is taken when it is unmasked.
fn hidden_esb() -> Outcome {
    let mut case = boot("neoverse-n1")?;
    tell(&mut case, HIDDEN, "m", "victim: masked")?;
    let inj = case.inject("hidden vcpu=0 serror iss=0x1000abc")?;
    case.injection(inj, "pending")?;
    let line = tell(&mut case, HIDDEN, "e", "victim: esb")?;
    case.hold(field(&line, "disr") == Some(0), "no DISR_EL1 to be read")?;
    tell(&mut case, HIDDEN, "u", "victim: unmasked")?;
    taken(&case, "hidden", inj, 0x100_0abc).map(drop)
}

/// What is pending, and what was deferred and not read, is gone with the vCPU.
fn cancelled() -> Outcome {
    let mut case = boot("neoverse-n1")?;
    for end in ["restart victim", "stop victim"] {
        case.forget();
        tell(&mut case, VICTIM, "m", "victim: masked")?;
        let inj = case.inject("victim vcpu=0 serror iss=0xc11")?;
        case.injection(inj, "pending")?;
        case.order(end)?;
        case.injection(inj, "cancelled")?;
        if end.starts_with("stop") {
            case.event_of("stopped", "victim")?;
            case.order("start victim")?;
        }
        case.line("victim", "victim: ready")?;
        case.lines("victim", "victim: alive", 2)?;
        tell(&mut case, VICTIM, "m", "victim: masked")?;
        let line = tell(&mut case, VICTIM, "e", "victim: esb")?;
        case.hold(field(&line, "disr") == Some(0), "nothing left in DISR_EL1")?;
        let took = case.records().iter().any(|record| {
            record
                .line("victim")
                .is_some_and(|line| line.starts_with("victim: serror"))
        });
        case.hold(!took, "no SError after the restart")?;
    }
    Ok(())
}

/// Before the first instruction SError is masked: it is taken when the guest unmasks it.
fn at_start() -> Outcome {
    let mut case = boot("neoverse-n1")?;
    let command = "inject victim vcpu=0 at=start serror iss=0x123456 id=800\n";
    let line = [b"\x01:", command.as_bytes()].concat();
    case.machine.type_raw(&line).map_err(failed)?;
    case.refused("inject victim vcpu=0 serror", "another injection waits")?;
    case.forget();
    case.order("restart victim")?;
    let inj = case
        .answer(800, command)?
        .num("inj")
        .ok_or("no injection")?;
    case.injection(inj, "pending")?;
    case.line("victim", "victim: ready")?;
    taken(&case, "victim", inj, 0x12_3456).map(drop)
}

/// Without FEAT_RAS the syndrome is the CPU's own, and everybody is told so.
fn without_ras() -> Outcome {
    let mut case = boot("cortex-a72")?;
    let answer = case.order("inject victim vcpu=0 serror iss=0xc11")?;
    case.hold(
        answer
            .text("text")
            .is_some_and(|text| text.contains("no FEAT_RAS")),
        "the answer to say that the syndrome cannot be chosen",
    )?;
    let inj = answer.num("inj").ok_or("the answer names no injection")?;
    for state in ["pending", "taken"] {
        let event = case.injection(inj, state)?;
        case.hold(event.value()["syndrome"].is_null(), "no syndrome")?;
        case.hold(event.value()["exact"] == false, "a hint")?;
    }
    let line = case.line("victim", "victim: serror")?;
    case.hold(
        field(&line, "esr").is_some_and(|esr| esr >> 26 == 0x2f && esr & 0x1ff_ffff != 0xc11),
        "an SError without the syndrome that was asked for",
    )?;
    case.lines("victim", "victim: alive", 2).map(drop)
}

/// Data and fetch, with and without an address, each fault status: at EL1.
fn external_aborts() -> Outcome {
    let mut case = boot("neoverse-n1")?;
    let far = 0xffff_8000_1234_5678_u64;
    for (what, class) in [("data", 0x25), ("fetch", 0x21)] {
        for iss in [0x10_u64, 0x13, 0x14, 0x17, 0x18, 0x1f, 0x1810, 0x250] {
            case.forget();
            let command = format!("victim vcpu=0 sea={what} far={far:#x} iss={iss:#x}");
            let inj = case.inject(&command)?;
            let esr = class << 26 | 1 << 25 | iss;
            aborted(&case, inj, esr, Some(far))?;
        }
        case.forget();
        let inj = case.inject(&format!("victim vcpu=0 sea={what}"))?;
        aborted(&case, inj, class << 26 | 1 << 25 | 0x410, None)?;
    }
    case.lines("victim", "victim: alive", 2)?;
    case.never("killed")
}

fn aborted(case: &Case, inj: u64, esr: u64, far: Option<u64>) -> Outcome {
    let event = case.event("vsea", |event| event.num("inj") == Some(inj))?;
    case.hold(
        event.hex("esr") == Some(esr),
        &format!("ESR_EL1 {esr:#x} in the event"),
    )?;
    case.hold(event.hex("far") == far, "FAR_EL1 in the event")?;
    let line = case.line("victim", "victim: abort")?;
    case.hold(field(&line, "esr") == Some(esr), "ESR_EL1 in the guest")?;
    case.hold(
        far.is_none() || field(&line, "far") == far,
        "FAR_EL1 in the guest",
    )?;
    case.hold(
        event.hex("elr") == field(&line, "elr") && event.text("el") == Some("el1"),
        "the place that was interrupted",
    )
}
