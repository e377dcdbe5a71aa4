// SPDX-License-Identifier: MIT OR Apache-2.0
//! A slow serial line is divided: a guest that prints all it can does not hold up the others.

use firebreak_qemu::{Record, field};
use firebreak_wire::{FRAME_BYTES, LineShares, LineSpeed};
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, bare, failed, trial, with_firmware};

/// What `xlnx-versal-virt`'s devicetree says (`current-speed`).
const BITS_PER_SECOND: u32 = 115_200;
const PARTITIONS: usize = 2;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial(
        "line::a_guest_that_pours_holds_up_nobody_and_loses_nothing",
        pour,
    ));
    trials.push(trial("line::a_guest_that_floods_holds_up_nobody", flood));
    trials.push(trial(
        "line::a_full_console_opens_though_the_vcpu_that_filled_it_is_off",
        fill,
    ));
}

/// The vCPU that filled its console goes off: another one of the partition finds room when there is.
fn fill() -> Outcome {
    let machine = with_firmware("cases")?.smp(3).icount(true);
    let mut case = Case::start(machine)?;
    case.line("cases", "cases: ready")?;
    case.machine.type_into(0, "fill\n").map_err(failed)?;
    // Behind what filled the FIFO, on the same line.
    let told = case.wait("the other vCPU to look", |record| {
        record
            .line("cases")
            .is_some_and(|line| line.contains("cases: filled"))
    })?;
    let told = told.line("cases").unwrap_or_default();
    case.hold(
        told.ends_with("cases: filled on=0 room=1"),
        "room for the vCPU that is left",
    )
}

/// Starts the system and types a word to the guest.
fn tell(word: &str) -> Result<Case, Failed> {
    let machine = bare("line")?.machine("xlnx-versal-virt").cpu("cortex-a72");
    let mut case = Case::start(machine.smp(4))?;
    let boot = case.event("boot", |_| true)?;
    case.hold(
        boot.num("line") == Some(BITS_PER_SECOND.into()),
        "the line's speed to be that of the devicetree",
    )?;
    case.line("cases", "cases: ready")?;
    case.line("control", "control: ready")?;
    case.machine
        .type_into(0, &format!("{word}\n"))
        .map_err(failed)?;
    Ok(case)
}

fn shares() -> LineShares {
    LineShares::of(LineSpeed::BitsPerSecond(BITS_PER_SECOND), PARTITIONS, 2)
}

/// What a guest's frame takes on the line: its text has nothing that is escaped.
fn frame_bytes(name: &str, text: &str) -> u64 {
    (name.len() + "| ".len() + text.len() + 1) as u64
}

/// QEMU's line takes no time; so each line that the guest began at a time that it names is put on one
/// of that speed, and whoever had something to say just then would have waited for what stands on it.
fn pour() -> Outcome {
    let case = tell("pour")?;
    let end = case.line("cases", "cases: poured")?;
    let records = case.all_records();
    let mut lines = records.iter();
    let hz = lines.find_map(|record| field(record.line("cases")?, "hz"));
    let hz = hz.ok_or_else(|| failed("the guest does not say its frequency"))?;
    let shares = shares();
    // A line is begun before what came before it has left the guest's half line.
    let bound = shares.hold_up_bytes(PARTITIONS) + FRAME_BYTES;
    let (mut behind, mut last, mut sent, mut first) = (0_u64, 0, 0, None);
    let mut next = 0_u64;
    for record in &records {
        let Some(line) = record.line("cases") else {
            continue;
        };
        let (Some(n), Some(at)) = (field(line, "n"), field(line, "at")) else {
            continue;
        };
        case.hold(n == next, "each line to come, in order")?;
        next += 1;
        let gone = (at - last.min(at)) * u64::from(BITS_PER_SECOND) / 10 / hz;
        let bytes = frame_bytes("cases", line);
        behind = behind.saturating_sub(gone) + bytes;
        (last, sent) = (at, sent + bytes);
        first.get_or_insert(at);
        case.hold(
            behind <= bound,
            "no more on the line than anybody may find before him",
        )?;
    }
    case.hold(
        field(&end, "lines") == Some(next),
        "every line of the guest to come",
    )?;
    case.never("suppressed")?;
    // That it gets as much as it is due, the host tests of `wire/src/line.rs` say: here it depends on
    // how much time the host has for QEMU.
    let elapsed = last - first.unwrap_or(last);
    let share = shares.console_bytes_per_second * elapsed / hz;
    case.hold(
        sent > shares.console_burst_bytes && sent <= share + bound,
        "the guest to print more than a burst, and no more than its share",
    )?;
    case.line("control", "control: ticks=")?;
    Ok(())
}

/// The guest does not look whether there is room: what it loses is counted, and between two such
/// counts no more came than it may print.
fn flood() -> Outcome {
    let case = tell("flood")?;
    case.event_of("restart", "cases")?;
    let shares = shares();
    let (mut since, mut sent, mut intervals) = (None, 0, 0);
    for record in case.all_records() {
        if let Some(line) = record.line("cases") {
            sent += frame_bytes("cases", line);
        }
        let Record::Event(event) = &record else {
            continue;
        };
        if event.name() != "suppressed" {
            continue;
        }
        let now = event
            .num("t")
            .ok_or_else(|| failed("an event without a time"))?;
        if let Some(before) = since {
            // CNTFRQ_EL0 of QEMU's Cortex-A72.
            let gained = shares.console_bytes_per_second * (now - before) / 62_500_000;
            case.hold(
                sent <= gained + shares.console_burst_bytes + FRAME_BYTES,
                "no more of a flood than the guest's share",
            )?;
            intervals += 1;
        }
        (since, sent) = (Some(now), 0);
    }
    case.hold(intervals > 0, "what was left out to be told at least twice")?;
    case.line("control", "control: ticks=")?;
    Ok(())
}
