// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the system writes down of itself, in the sizes that the partition file chooses.

use firebreak_abi::guest_map::{UART, VTIMER_INTID};
use firebreak_abi::{PAGE_SIZE_BYTES, sei::qemu_virt};
use firebreak_qemu::Raise;
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::crash::{Program, UDF, patch, trigger};
use crate::harness::{Case, Outcome, trial, with_firmware};

/// Exits that 2 KiB have room for; the oldest may be in use for the next.
const KEPT: u64 = 64 - 1;
/// Entries of a log of 8 KiB, the first of which is the header.
const ENTRIES: u64 = 7;
/// What the next boot has written when it tells of those before: `boot` and `boot-error-record`.
const WRITTEN_SINCE: u64 = 2;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("records::trace_tells_the_last_exits", told));
    trials.push(trial("records::crash_page_and_a_short_log", crashed));
    trials.push(trial("records::ignored_errors_are_counted", ignored));
}

fn boot() -> Result<Case, Failed> {
    let mut case = Case::start(with_firmware("records")?.smp(2).icount(true).debugger())?;
    // Its timer has come between the two.
    case.lines("victim", "victim: alive", 2)?;
    case.line("control", "control: ready")?;
    case.forget();
    Ok(case)
}

fn rows(event: &firebreak_qemu::Event) -> Vec<Value> {
    let exits = event.value()["exits"].as_array();
    exits.cloned().unwrap_or_default()
}

fn hex(row: &Value, key: &str) -> Option<u64> {
    u64::from_str_radix(row[key].as_str()?.strip_prefix("0x")?, 16).ok()
}

/// A write to the UART: a data abort of a lower level (EC 0x24) at its page.
fn is_output(row: &Value) -> bool {
    let page = UART.get()..UART.get() + PAGE_SIZE_BYTES;
    let abort = hex(row, "esr").is_some_and(|esr| esr >> 26 & 0x3f == 0x24);
    abort && hex(row, "about").is_some_and(|ipa| page.contains(&ipa))
}

/// How often all pages are asked for: while a slow host asks for the next one, the guest runs on and
/// writes over what it was to have.
const TRIES: usize = 20;

/// All exits of the victim that are kept, page by page, newest first.
fn pages(case: &mut Case) -> Result<Vec<Value>, Failed> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let before = all.last().and_then(|row| row["n"].as_u64());
        let before = before.map_or(String::new(), |number| format!(" before={number}"));
        let page = rows(&case.order(&format!("trace victim vcpu=0{before}"))?);
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

fn told() -> Outcome {
    let mut case = boot()?;
    let number = |row: &Value| row["n"].as_u64();
    let timer = |row: &Value| row["intid"].as_u64() == Some(VTIMER_INTID.into());
    let mut all = Vec::new();
    for _ in 0..TRIES {
        all = pages(&mut case)?;
        let in_order = all
            .windows(2)
            .all(|two| number(&two[0]) == number(&two[1]).map(|n| n + 1));
        case.hold(in_order, "numbers that go down by one")?;
        let count = all.len() as u64;
        case.hold(count <= KEPT, &format!("{KEPT} exits at most, not {count}"))?;
        if count >= 16 && all.iter().any(is_output) && all.iter().any(timer) {
            break;
        }
    }
    let count = all.len();
    case.hold(count >= 16, &format!("some exits, not {count}"))?;
    case.hold(all.iter().any(is_output), "output of the guest")?;
    case.hold(all.iter().any(timer), "its timer")?;
    case.refused("trace victim vcpu=1", "no such vCPU")?;
    case.refused("trace nobody", "no partition has that name")
}

/// The crash page has the last exits of the PE that failed, over the reset too; and the log has no more
/// entries than it was given.
fn crashed() -> Outcome {
    let mut case = boot()?;
    let (at, _) = Program::load()?.find("firebreak_resolve")?;
    patch(&case, &[(at, UDF)])?;
    trigger(&mut case, 7)?;
    let mut told = Vec::new();
    for replayed in [false, true] {
        let event = case.event("crash", |event| event.flag("replayed") == Some(replayed))?;
        case.hold(event.flag("whole") == Some(true), "the page to be whole")?;
        told.push(rows(&event));
    }
    case.hold(
        told[0].len() == 8 && told[0] == told[1],
        "the same eight exits",
    )?;
    let times: Vec<_> = told[0].iter().map(|row| row["at"].as_u64()).collect();
    case.hold(times.is_sorted(), "the oldest first")?;
    let in_guest = |row: &Value| hex(row, "pc").is_some_and(|pc| pc < qemu_virt::IMAGE + (1 << 24));
    case.hold(told[0].iter().all(in_guest), "PCs of the guest")?;
    // The victim may have said that it lives before the machine failed.
    let panic = |text: &str| text.contains("\"ev\":\"panic\"");
    case.event("log", |entry| entry.text("text").is_some_and(panic))?;
    case.event_of("started", "victim")?;
    case.line("victim", "victim: alive").map(drop)?;
    let records = case.records();
    let logged: Vec<_> = records
        .iter()
        .filter_map(|record| record.event("log"))
        .collect();
    let numbers: Vec<u64> = logged
        .iter()
        .filter_map(|entry| entry.num("number"))
        .collect();
    let last = numbers.last().copied().unwrap_or(0);
    let first = (last + WRITTEN_SINCE + 1).saturating_sub(ENTRIES);
    case.hold(
        first > 1 && numbers.iter().copied().eq(first..=last),
        &format!("the last of {ENTRIES} entries of the log, not {numbers:?}"),
    )?;
    let told = logged.last().and_then(|entry| entry.text("text"));
    case.hold(told.is_some_and(panic), "the panic to be the last of them")
}

/// Errors of a class that the policy ignores are counted, and none is told by itself; one of another
/// class is.
fn ignored() -> Outcome {
    const CE: u32 = 0x1811;
    const UEO: u32 = 0x0811;
    let mut case = boot()?;
    for id in 1..=3 {
        case.raise(&Raise::new(id, 1, CE, "corrected").in_guest())?;
        case.firmware("acked", id)?;
    }
    case.event("suppressed", |event| {
        event.text("what") == Some("errors") && event.num("count") == Some(3)
    })?;
    case.event("queue", |event| {
        event.num("suppressed") == Some(3) && event.num("published") == Some(3)
    })?;
    case.never("error")?;
    case.raise(&Raise::new(4, 1, UEO, "recoverable").in_guest())?;
    case.event("error", |event| event.num("id") == Some(4))?;
    case.forget();
    case.line("victim", "victim: alive").map(drop)
}
