// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every kind of machine boots: with and without firmware, four CPU models, 1, 2 and 4 PEs.

use firebreak_qemu::Machine;
use libtest_mimic::Trial;

use crate::harness::{Case, Outcome, bare, trial, with_firmware};

const CPUS: [&str; 4] = ["max", "neoverse-n1", "cortex-a76", "cortex-a72"];
/// Has no FEAT_RAS.
const CPU_WITHOUT_RAS: &str = "cortex-a72";
const FIRMWARE: &str = "firebreak,sei-1";

/// Names of guests, each with its kind.
type Guests = &'static [(&'static str, &'static str)];

/// Systems of bare-metal guests by number of PEs.
const SYSTEMS: [(u32, &str, Guests); 3] = [
    (1, "one", &[("control", "control")]),
    (2, "two", &[("control", "control"), ("victim", "victim")]),
    (
        4,
        "four",
        &[
            ("control", "control"),
            ("victim", "victim"),
            ("second", "control"),
            ("third", "victim"),
        ],
    ),
];

pub(crate) fn add(trials: &mut Vec<Trial>) {
    for cpu in CPUS {
        for (pes, system, guests) in SYSTEMS {
            for firmware in [false, true] {
                let with = if firmware { "with" } else { "without" };
                trials.push(trial(
                    format!("boot::{cpu}::{pes}_pes_{with}_firmware"),
                    move || bare_metal(cpu, pes, system, guests, firmware),
                ));
            }
        }
    }
    for (cpu, firmware) in [
        ("neoverse-n1", true),
        ("neoverse-n1", false),
        ("cortex-a76", true),
        ("cortex-a72", true),
    ] {
        let with = if firmware { "with" } else { "without" };
        trials.push(trial(
            format!("boot::linux::{cpu}_{with}_firmware"),
            move || linux(cpu, firmware),
        ));
    }
    trials.push(trial(
        "boot::again_after_a_reset_from_outside",
        reset_from_outside,
    ));
    trials.push(trial("boot::guests_do_not_need_all_pes", spare_pes));
}

fn machine(
    system: &str,
    cpu: &str,
    pes: u32,
    firmware: bool,
) -> Result<Machine, libtest_mimic::Failed> {
    let machine = if firmware {
        with_firmware(system)?
    } else {
        bare(system)?
    };
    Ok(machine.cpu(cpu).smp(pes))
}

fn bare_metal(cpu: &str, pes: u32, system: &str, guests: Guests, firmware: bool) -> Outcome {
    let case = Case::start(machine(system, cpu, pes, firmware)?)?;
    let boot = case.event("boot", |_| true)?;
    case.hold(
        boot.num("pes") == Some(u64::from(pes)),
        "every PE to be counted",
    )?;
    case.hold(
        boot.flag("ras") == Some(cpu != CPU_WITHOUT_RAS),
        "FEAT_RAS to be told",
    )?;
    case.hold(
        boot.text("firmware") == firmware.then_some(FIRMWARE),
        "the firmware to be named",
    )?;
    case.hold(
        boot.num("partitions") == Some(guests.len() as u64),
        "every partition to be counted",
    )?;
    if !firmware {
        case.plain("no firmware-first")?;
    }
    for (name, kind) in guests {
        case.event_of("started", name)?;
        case.line(name, &format!("{kind}: ready"))?;
    }
    for (name, kind) in guests {
        let sign = if *kind == "control" {
            "control: ticks=1000"
        } else {
            "victim: alive n=3"
        };
        case.line(name, sign)?;
    }
    for event in ["panic", "halt", "killed", "restart", "undef", "abort"] {
        case.never(event)?;
    }
    Ok(())
}

fn linux(cpu: &str, firmware: bool) -> Outcome {
    let case = Case::start(machine("demo", cpu, 4, firmware)?)?;
    case.line("linux", "agent: watchdog timeout_s=")?;
    case.line("linux", "agent: ready kernel=")?;
    for beat in case.lines("linux", "agent: beat", 3)? {
        case.hold(beat.ends_with("pattern=ok"), "Linux's memory to be intact")?;
    }
    case.line("control", "control: ticks=")?;
    case.line("victim", "victim: alive n=3")?;
    for event in ["panic", "killed", "restart", "watchdog"] {
        case.never(event)?;
    }
    Ok(())
}

fn reset_from_outside() -> Outcome {
    let mut case = Case::start(machine("two", "neoverse-n1", 2, true)?)?;
    case.line("victim", "victim: alive n=2")?;
    case.forget();
    case.machine
        .system_reset()
        .map_err(crate::harness::failed)?;
    case.event("boot", |_| true)?;
    case.line("victim", "victim: alive n=2")?;
    case.line("control", "control: ready")?;
    // Nothing failed, so there is nothing to tell.
    case.never("boot-error-record")
}

fn spare_pes() -> Outcome {
    let case = Case::start(machine("one", "neoverse-n1", 4, true)?)?;
    case.event("boot", |_| true)?;
    case.line("control", "control: ticks=1000").map(drop)
}
