// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands to a running system: what they do, and what they refuse.

use firebreak_qemu::{Event, Raise};
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, bare, failed, trial, with_firmware};

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("control::life_cycle", life_cycle));
    trials.push(trial("control::refusals_change_nothing", refusals));
    trials.push(trial("control::noise_on_the_line", noise));
    trials.push(trial(
        "control::regression_typed_bytes_beyond_one_interrupts_bound_were_left_in_the_uart",
        long_input,
    ));
    trials.push(trial(
        "control::regression_what_was_typed_before_the_uart_was_listened_to_stayed_there",
        early_input,
    ));
    trials.push(trial(
        "control::answers_beside_a_guest_that_meets_one_abort_for_ever",
        abort_for_ever,
    ));
    trials.push(trial(
        "control::not_without_the_partition_files_word",
        not_allowed,
    ));
}

/// Boots the system `control`, and waits until both guests live.
fn boot() -> Result<Case, Failed> {
    let mut case = Case::start(with_firmware("control")?.smp(3))?;
    case.line("victim", "victim: alive")?;
    case.line("control", "control: ready")?;
    case.forget();
    Ok(case)
}

/// The row of a partition in the answer to `ps`.
fn row(case: &mut Case, name: &str) -> Result<(String, u64, u64), Failed> {
    let answer = case.order("ps")?;
    let find = |event: &Event| {
        let rows = event.value().get("partitions")?.as_array()?.clone();
        let row = rows.into_iter().find(|row| row["name"] == name)?;
        let state = row["state"].as_str()?.to_owned();
        Some((state, row["vcpus_on"].as_u64()?, row["restarts"].as_u64()?))
    };
    find(&answer).ok_or_else(|| failed("no such row in the answer to ps"))
}

fn life_cycle() -> Outcome {
    let mut case = boot()?;
    let running = row(&mut case, "victim")?;
    case.hold(running == ("running".to_owned(), 1, 0), "a running victim")?;

    case.order("stop victim")?;
    let stopped = case.event_of("stopped", "victim")?;
    case.hold(
        stopped.text("reason") == Some("asked to stop"),
        "the reason to be told",
    )?;
    let there = row(&mut case, "victim")?;
    case.hold(there == ("stopped".to_owned(), 0, 0), "a stopped victim")?;
    case.forget();
    case.lines("control", "control: ticks=", 1)?;
    let silent = !case
        .records()
        .iter()
        .any(|record| record.line("victim").is_some());
    case.hold(silent, "the victim to be silent")?;

    case.forget();
    case.order("start victim")?;
    case.event_of("started", "victim")?;
    case.line("victim", "victim: ready")?;
    case.lines("victim", "victim: alive", 2)?;

    // Its policy allows no restart: what somebody asks for is done all the same.
    for count in 1..=3 {
        case.forget();
        case.order("restart victim")?;
        let event = case.event_of("restart", "victim")?;
        case.hold(
            event.num("count") == Some(count) && event.text("reason") == Some("asked"),
            "the restart to be counted",
        )?;
        case.line("victim", "victim: ready")?;
    }
    case.never("killed")?;
    case.order("stats")?;
    let log = case.order("log")?;
    case.hold(
        log.text("text")
            .is_some_and(|text| text.contains("restart@")),
        "the restart to be in the log",
    )
}

fn refusals() -> Outcome {
    let mut case = boot()?;
    let before = (row(&mut case, "control")?, row(&mut case, "victim")?);
    for (command, part) in [
        ("reboot", "no such command"),
        ("stop", "name a partition"),
        ("stop nobody", "no partition has that name"),
        ("start", "name a partition"),
        ("restart", "name a partition"),
        ("start nobody", "no partition has that name"),
        ("restart nobody", "no partition has that name"),
        ("ps victim", "does not have"),
        ("stats victim", "does not have"),
        ("log victim", "does not have"),
        ("stop victim now", "does not have"),
        ("restart victim now", "does not have"),
        ("inject victim serror", "which vCPU"),
        ("inject victim vcpu=0", "what to inject"),
        ("inject victim vcpu=one serror", "not a number"),
        ("start victim", "not stopped"),
        ("inject victim vcpu=1 serror", "no such vCPU"),
        ("inject victim vcpu=0 serror iss=0x2000000", "25 bits"),
        ("inject victim vcpu=0 sea=data iss=0x21", "external abort"),
        ("inject nobody vcpu=0 serror", "no partition has that name"),
        // The victim has no user space.
        ("inject victim vcpu=0 el=0 serror", "not found there"),
    ] {
        case.refused(command, part)?;
    }
    // Nothing was changed.
    let after = (row(&mut case, "control")?, row(&mut case, "victim")?);
    case.hold(before == after, "`ps` to tell the same before and after")?;
    case.order("stop victim")?;
    case.event_of("stopped", "victim")?;
    for command in [
        "stop victim",
        "restart victim",
        "inject victim vcpu=0 serror",
    ] {
        case.refused(command, "stopped")?;
    }
    for event in ["vserror", "vsea", "restart", "killed"] {
        case.never(event)?;
    }
    case.lines("control", "control: ticks=", 1).map(drop)
}

/// More bytes at once than one interrupt takes, and a command behind them.
fn long_input() -> Outcome {
    let mut case = boot()?;
    for round in 0..8 {
        let mut bytes = vec![b'x'; 500 + round];
        bytes.extend(b"\x01:ps id=");
        bytes.extend(format!("{}\n", 100 + round).bytes());
        case.machine.type_raw(&bytes).map_err(failed)?;
        case.answer(100 + round as u64, "ps behind much input")?;
    }
    Ok(())
}

/// A command that is sent while the partitions are still being started.
fn early_input() -> Outcome {
    for _ in 0..4 {
        let mut case = Case::start(bare("control")?.smp(3))?;
        case.event("boot", |_| true)?;
        case.ask("ps")?;
    }
    Ok(())
}

/// Half commands, long lines, wrong bytes: each costs itself, and nothing else is taken for a
/// command.
fn noise() -> Outcome {
    let mut case = boot()?;
    let noise: [&[u8]; 6] = [
        b"stop victim\n",
        b"\x01:stop victim",
        b"\x01:stop \xff victim id=900\n",
        b"\x01;stop victim\n",
        b"\x01:st\x01op victim\n",
        b"\x01\x02:stop victim\n",
    ];
    for bytes in noise {
        case.machine.type_raw(bytes).map_err(failed)?;
    }
    let mut long = b"\x01:stop victim".to_vec();
    long.extend([b' '; 400]);
    long.push(b'\n');
    case.machine.type_raw(&long).map_err(failed)?;
    let state = row(&mut case, "victim")?;
    case.hold(state.0 == "running", "the victim to run")?;
    let damaged = case.answer(900, "the damaged line")?;
    case.hold(
        damaged
            .text("text")
            .is_some_and(|text| text.contains("damaged")),
        "the damage to be told",
    )?;
    case.event("answer", |event| {
        event
            .text("text")
            .is_some_and(|text| text.contains("longer than 127"))
    })?;
    case.never("stopped")?;
    case.lines("victim", "victim: alive", 2).map(drop)
}

/// A guest without its vectors, on the PE that reads the line: each fetch of them is an exit, which makes
/// the guest fetch them again. It gets no instruction done, and each command is answered.
fn abort_for_ever() -> Outcome {
    const VECTORS_IPA: u64 = 0x4020_0000;
    const PE: u8 = 0;
    const COMMANDS: usize = 40;
    const MANY: u64 = 10_000;
    let mut case = Case::start(with_firmware("reborn")?.smp(2))?;
    case.line("cases", "cases: ready")?;
    let page = case.pa_of("cases", VECTORS_IPA)?;
    case.raise(&Raise::new(1, PE, 0xc11, "recoverable").at(page).in_guest())?;
    case.event("retired", |event| event.hex("pa") == Some(page))?;
    case.order("inject cases vcpu=0 sea=data")?;
    let pc = case.event("abort", |_| true)?.hex("pc");
    case.event("suppressed", |event| {
        event.text("what") == Some("cases") && event.num("count") > Some(MANY)
    })?;
    for _ in 0..COMMANDS {
        let (state, ..) = row(&mut case, "cases")?;
        case.hold(state == "running", "the guest to go on meeting it")?;
    }
    case.forget();
    let again = case.event("abort", |_| true)?.hex("pc");
    case.hold(again == pc, "one abort, at one place")?;
    // With another page in the place of that one it lives.
    case.order("restart cases")?;
    case.line("cases", "cases: ready").map(drop)
}

fn not_allowed() -> Outcome {
    let mut case = Case::start(bare("two")?.smp(2))?;
    case.line("victim", "victim: alive")?;
    case.refused("ps", "control = true")?;
    case.refused("stop victim", "control = true")?;
    case.refused("inject victim vcpu=0 serror", "control = true")?;
    case.never("stopped")?;
    case.never("vserror")?;
    case.forget();
    case.lines("victim", "victim: alive", 2).map(drop)
}
