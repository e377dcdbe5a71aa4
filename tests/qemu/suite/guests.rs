// SPDX-License-Identifier: MIT OR Apache-2.0
//! What guests may do, and what they may not: nothing a guest does stops another.

use libtest_mimic::Trial;

use crate::harness::{Case, Outcome, bare, failed, field, trial, with_firmware};

pub(crate) fn add(trials: &mut Vec<Trial>) {
    for cpu in ["max", "neoverse-n1", "cortex-a76", "cortex-a72"] {
        trials.push(trial(
            format!("guest::reads_and_writes_everywhere::{cpu}"),
            move || prober(cpu),
        ));
    }
    trials.push(trial(
        "guest::memory_of_partitions_is_disjoint",
        disjoint_memory,
    ));
    trials.push(trial("guest::linux_resets_itself", || {
        linux_ends("reboot", "restart")
    }));
    trials.push(trial("guest::linux_panics", || {
        linux_ends("panic", "restart")
    }));
    trials.push(trial("guest::linux_powers_off", || {
        linux_ends("poweroff", "stopped")
    }));
    trials.push(trial("guest::linux_falls_silent", || {
        linux_ends("silence", "watchdog")
    }));
    trials.push(trial("guest::restarts_have_a_limit", restart_limit));
    trials.push(trial(
        "guest::typed_text_reaches_the_focused_guest_only",
        input,
    ));
}

/// The prober touches everything that it may not, and sees only what it is told to expect.
fn prober(cpu: &str) -> Outcome {
    let case = Case::start(with_firmware("prober")?.cpu(cpu).smp(2))?;
    let done = case.line("prober", "prober: done probes=")?;
    case.hold(
        field(&done, "probes").is_some_and(|probes| probes > 50),
        "many probes",
    )?;
    let lines = case.lines("prober", "prober: ", 1)?;
    let unexpected: Vec<&String> = lines
        .iter()
        .filter(|line| line.ends_with("UNEXPECTED"))
        .collect();
    case.hold(
        unexpected.is_empty(),
        &format!("no unexpected outcome, not {unexpected:#?}"),
    )?;
    case.line("prober", "prober: unexpected=0")?;
    // It turns itself off at the end; its neighbor ticks on.
    case.event_of("stopped", "prober")?;
    case.line("control", "control: ticks=1000")?;
    for event in ["panic", "killed", "restart", "halt"] {
        case.never(event)?;
    }
    Ok(())
}

fn disjoint_memory() -> Outcome {
    let case = Case::start(bare("demo")?)?;
    let mut pieces = Vec::new();
    for event in case.partitions(3)? {
        let ram = event
            .value()
            .get("ram")
            .and_then(|ram| ram.as_array())
            .cloned();
        for piece in ram.into_iter().flatten() {
            let hex = |key: &str| {
                let text = piece.get(key)?.as_str()?.strip_prefix("0x")?;
                u64::from_str_radix(text, 16).ok()
            };
            pieces.push((hex("pa"), hex("len")));
        }
    }
    pieces.sort();
    for pair in pieces.windows(2) {
        let [(Some(pa), Some(len)), (Some(next), _)] = pair else {
            return Err("a piece of memory has no address".into());
        };
        case.hold(pa + len <= *next, "partitions' memory not to overlap")?;
    }
    Ok(())
}

/// Linux ends in one of its ways; the hypervisor does what its policy says, and nobody else cares.
fn linux_ends(command: &str, event: &str) -> Outcome {
    let mut case = Case::start(with_firmware("demo")?)?;
    case.line("linux", "agent: beat n=1")?;
    case.line("control", "control: ready")?;
    case.forget();
    case.machine
        .type_into(0, &format!("{command}\n"))
        .map_err(failed)?;
    case.event_of(event, "linux")?;
    if event == "stopped" {
        case.line("control", "control: ticks=")?;
        return case.never("restart");
    }
    case.event_of("restart", "linux")?;
    case.event_of("started", "linux")?;
    // Its life before may still have had lines on the way.
    let again = case.machine.mark();
    let deadline = firebreak_qemu::deadline(120);
    let ready = |record: &firebreak_qemu::Record| {
        record
            .line("linux")
            .is_some_and(|line| line.starts_with("agent: beat n=1 pattern=ok"))
    };
    case.machine
        .wait_for("linux to beat again", again, deadline, ready)
        .map_err(failed)?;
    case.line("victim", "victim: alive")?;
    case.never("killed")?;
    case.never("panic")
}

/// A guest that resets itself again and again is stopped in the end.
fn restart_limit() -> Outcome {
    let mut case = Case::start(with_firmware("limited")?.smp(1))?;
    for restarts in 0..=2 {
        case.event("started", |event| event.num("restarts") == Some(restarts))?;
        let again = case.machine.mark();
        let beats = |record: &firebreak_qemu::Record| {
            record
                .line("linux")
                .is_some_and(|line| line.starts_with("agent: beat n=0"))
        };
        let start = if restarts == 0 {
            firebreak_qemu::Mark::START
        } else {
            again
        };
        let deadline = firebreak_qemu::deadline(120);
        case.machine
            .wait_for("linux to beat", start, deadline, beats)
            .map_err(failed)?;
        case.machine.type_into(0, "reboot\n").map_err(failed)?;
    }
    let stopped = case.event_of("stopped", "linux")?;
    case.hold(
        stopped
            .text("reason")
            .is_some_and(|reason| !reason.is_empty()),
        "a reason",
    )
}

/// Only the guest with the focus hears what is typed.
fn input() -> Outcome {
    let mut case = Case::start(with_firmware("demo")?)?;
    case.line("linux", "agent: beat n=0")?;
    // Nobody listens at the control guest; its neighbor must not hear a word.
    case.machine.type_into(1, "help\n").map_err(failed)?;
    case.forget();
    case.lines("linux", "agent: beat", 2)?;
    let answered = case.records().iter().any(|record| {
        record
            .line("linux")
            .is_some_and(|line| line.starts_with("agent: commands:"))
    });
    case.hold(!answered, "linux not to hear what was typed to control")?;
    case.machine.type_into(0, "help\n").map_err(failed)?;
    case.line("linux", "agent: commands:").map(drop)
}
