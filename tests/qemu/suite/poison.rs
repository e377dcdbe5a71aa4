// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real poison: pages that granule protection closes, consumed by guests and by EL2 itself.
//!
//! Needs FEAT_RME, which QEMU 7.2 has not. With QEMU 10 and later, its absence is a failure.

use firebreak_qemu::{Event, Raise, Record, qemu_binary, qemu_version};
use libtest_mimic::{Failed, Trial};

use crate::errors::control_ticks;
use crate::harness::{Case, Outcome, failed, field, trial, with_firmware};

pub(crate) const CPU: &str = "max,x-rme=on";
/// First QEMU whose `max` is known to do granule protection.
const NEEDED: (u32, u32, u32) = (10, 0, 0);
/// PE of the guest `touch` in the system `poison`.
const TOUCH_PE: u8 = 1;
const UER: u64 = 0xc11;
const UEU: u32 = 0x411;
const EC_SHIFT: u32 = 26;
const FSC_MASK: u64 = 0x3f;
const WNR: u64 = 1 << 6;

/// A way in which the guest touches its page, with class, WnR and FSC of the abort for it.
const WAYS: [(&str, u64, u64, u64); 5] = [
    ("load", 0x25, 0, 0x10),
    ("store", 0x25, WNR, 0x10),
    ("atomic", 0x25, WNR, 0x10),
    ("fetch", 0x21, 0, 0x10),
    ("walk", 0x25, 0, 0x14),
];

pub(crate) fn add(trials: &mut Vec<Trial>) {
    for way in WAYS {
        for by in ["sea", "sei"] {
            case(trials, format!("guest::{}::{by}", way.0), move || {
                consumed(way, by)
            });
        }
    }
    case(trials, "healed_in_time".to_owned(), healed);
    case(trials, "retired_page_is_not_scrubbed".to_owned(), scrub);
    case(trials, "stage2_table::sea".to_owned(), || {
        stage2_table("sea")
    });
    case(trials, "stage2_table::sei".to_owned(), || {
        stage2_table("sei")
    });
    case(trials, "linux::process::sea".to_owned(), linux_process);
    case(trials, "linux::process::sei".to_owned(), linux_kernel);
    case(
        trials,
        "el2::finds_it_while_it_clears_memory".to_owned(),
        clear,
    );
    case(
        trials,
        "el2::finds_it_where_the_devicetree_goes".to_owned(),
        in_the_way,
    );
    case(
        trials,
        "el2::finds_it_and_has_no_spare".to_owned(),
        in_the_way_for_good,
    );
}

/// Adds a case that says why, where it cannot run.
pub(crate) fn case(
    trials: &mut Vec<Trial>,
    name: String,
    run: impl FnOnce() -> Outcome + Send + 'static,
) {
    trials.push(trial(format!("poison::{name}"), move || {
        let version = qemu_version(&qemu_binary());
        if version.is_none_or(|version| version < NEEDED) {
            eprintln!("poison::{name}: skipped: QEMU {version:?} has no FEAT_RME, 10.0 has it");
            return Ok(());
        }
        run()
    }));
}

/// Boots, and returns the machine.
pub(crate) fn boot(system: &str) -> Result<Case, Failed> {
    let case = Case::start(with_firmware(system)?.cpu(CPU).smp(2))?;
    case.line("control", "control: ready")?;
    case.lines("touch", "touch: alive", 2)?;
    Ok(case)
}

/// Returns the physical address of the page that is touched in this way.
pub(crate) fn page_of(case: &Case, way: &str) -> Result<u64, Failed> {
    let line = case.line("touch", &format!("touch: page way={way} "))?;
    let ipa = field(&line, "ipa").ok_or("the guest names no page")?;
    case.pa_of("touch", ipa)
}

/// Tells the firmware about a page, and waits for its answer.
fn tell(case: &mut Case, command: &str, verb: &'static str) -> Outcome {
    case.machine.send_firmware(command).map_err(failed)?;
    case.wait(command, |record| record.firmware(verb).is_some())
        .map(drop)
}

pub(crate) fn poison(case: &mut Case, pa: u64, by: &str) -> Outcome {
    tell(case, &format!("poison pa={pa:#x} by={by}"), "poisoned")
}

/// Counts how often the page has been touched, by whomever.
fn touched(case: &Case, pa: u64) -> usize {
    touched_in(&case.records(), pa)
}

/// Counts the same in some records.
pub(crate) fn touched_in(records: &[Record], pa: u64) -> usize {
    let in_page = |record: &Record| {
        let line = record.firmware("raised")?;
        Some(line.num("pa")? >> 12 == pa >> 12)
    };
    records
        .iter()
        .filter(|record| in_page(record) == Some(true))
        .count()
}

/// Waits for the error that the page caused.
pub(crate) fn error(case: &Case, pa: u64) -> Result<Event, Failed> {
    case.event("error", |event| {
        event.hex("pa").is_some_and(|at| at >> 12 == pa >> 12)
    })
}

fn consumed((way, class, wnr, fsc): (&str, u64, u64, u64), by: &str) -> Outcome {
    let mut case = boot("poison")?;
    let pa = page_of(&case, way)?;
    case.forget();
    poison(&mut case, pa, by)?;
    let event = error(&case, pa)?;
    let sync = by == "sea";
    case.hold(event.flag("sync") == Some(sync), "the kind of the error")?;
    for (key, word) in [
        ("verdict", "retire"),
        ("rule", "own-page"),
        ("name", "touch"),
        ("severity", "UER"),
        ("from", "el1"),
    ] {
        case.hold(event.text(key) == Some(word), &format!("{key} `{word}`"))?;
    }
    let vector = if sync { 0x400 } else { 0x580 };
    case.wait("the hand-over", |record| {
        let line = record.firmware("delivered");
        line.is_some_and(|line| line.num("vector") == Some(vector))
    })?;
    let retired = case.event("retired", |_| true)?;
    case.hold(retired.hex("pa") == Some(pa), "the page to be retired")?;
    let serror = format!("touch: serror way={way} ");
    if !sync {
        let line = case.first_line("touch", &serror)?;
        let esr = field(&line, "esr").unwrap_or(0);
        case.hold(esr & 0x1ff_ffff == UER, "the syndrome of the policy")?;
    }
    let line = case.first_line("touch", &format!("touch: abort way={way} "))?;
    let esr = field(&line, "esr").unwrap_or(0);
    case.hold(esr >> EC_SHIFT == class, "the class of the abort")?;
    case.hold(esr & WNR == wnr, "WnR as the access was")?;
    // QEMU names another level of the walk than the table's.
    let expected = match way {
        "walk" => esr & FSC_MASK & !0b11 == fsc,
        _ => esr & FSC_MASK == fsc,
    };
    case.hold(expected, &format!("FSC {fsc:#x}"))?;
    case.hold(
        field(&line, "elr") == event.hex("pc"),
        "the abort at the instruction that touched",
    )?;
    neighbors(&case, way)?;
    case.hold(touched(&case, pa) == 1, "the page to be touched once")?;
    if sync {
        case.never("vserror")?;
    }
    Ok(())
}

/// The guest's other pages, the other guest and the machine do not notice.
fn neighbors(case: &Case, way: &str) -> Outcome {
    case.lines("touch", "touch: alive", 4)?;
    control_ticks(case)?;
    let own = format!("way={way} ");
    let stray = case.records().iter().any(|record| {
        record.line("touch").is_some_and(|line| {
            let told = line.starts_with("touch: abort") || line.starts_with("touch: serror");
            told && !line.contains(&own)
        })
    });
    case.hold(!stray, "no other page to be touched in vain")?;
    for event in ["killed", "panic", "boot-error-record", "unclaimed"] {
        case.never(event)?;
    }
    Ok(())
}

/// What is healed before anybody touches it has never been bad.
fn healed() -> Outcome {
    let mut case = boot("poison")?;
    let free = case.pa_of("touch", 0x4090_0000)?;
    case.forget();
    poison(&mut case, free, "sea")?;
    tell(&mut case, &format!("heal pa={free:#x}"), "healed")?;
    case.lines("touch", "touch: alive", 3)?;
    case.machine
        .send_firmware(&format!("heal pa={free:#x}"))
        .map_err(failed)?;
    case.wait("a refusal", |record| {
        let line = record.firmware("error");
        line.is_some_and(|line| line.text("text") == Some("pa-not-poisoned"))
    })?;
    case.never("error")
}

/// A retired page is left alone when its partition is cleared and started again: the firmware
/// would see the access.
fn scrub() -> Outcome {
    let mut case = boot("poison")?;
    let pa = page_of(&case, "load")?;
    case.forget();
    poison(&mut case, pa, "sea")?;
    error(&case, pa)?;
    case.event("retired", |_| true)?;
    case.line("touch", "touch: abort way=load ")?;
    let raise = Raise::new(1, TOUCH_PE, UEU, "recoverable").in_guest();
    case.raise(&raise)?;
    case.event_of("restart", "touch")?;
    case.line("touch", "touch: ready")?;
    control_ticks(&case)?;
    case.hold(touched(&case, pa) == 1, "the page to be touched once")?;
    for event in ["panic", "boot-error-record"] {
        case.never(event)?;
    }
    Ok(())
}

/// Where the devicetree of the guest `touch` goes: the last 64 KiB of 16 MiB.
const DEVICETREE: u64 = 0x40ff_0000;

/// Poisons a page that the guest does not touch, has the guest started again, and waits until EL2
/// has met the page while it cleared the guest's memory.
fn clear_over(system: &str, ipa: u64) -> Result<(Case, u64), Failed> {
    let mut case = boot(system)?;
    let pa = case.pa_of("touch", ipa)?;
    case.forget();
    poison(&mut case, pa, "sea")?;
    let raise = Raise::new(1, TOUCH_PE, UEU, "recoverable").in_guest();
    case.raise(&raise)?;
    case.event_of("restart", "touch")?;
    let event = error(&case, pa)?;
    for (key, word) in [
        ("from", "el2"),
        ("verdict", "retire"),
        ("rule", "page-alone"),
    ] {
        case.hold(event.text(key) == Some(word), &format!("{key} `{word}`"))?;
    }
    case.wait("the hand-over", |record| {
        let line = record.firmware("delivered");
        line.is_some_and(|line| line.num("vector") == Some(0))
    })?;
    let retired = case.event("retired", |_| true)?;
    case.hold(retired.hex("ipa") == Some(ipa), "the page to be retired")?;
    Ok((case, pa))
}

/// EL2's own access costs the page, not the machine, and not the partition.
fn clear() -> Outcome {
    let (case, pa) = clear_over("poison", 0x4090_0000)?;
    case.line("touch", "touch: ready")?;
    case.lines("touch", "touch: alive", 3)?;
    control_ticks(&case)?;
    case.hold(touched(&case, pa) == 1, "the page to be touched once")?;
    for event in ["panic", "boot-error-record"] {
        case.never(event)?;
    }
    Ok(())
}

/// The partition cannot do without this page, and gets another one: its devicetree is the same.
fn in_the_way() -> Outcome {
    let (case, pa) = clear_over("poison", DEVICETREE)?;
    let spare = case.event("spare", |_| true)?;
    case.hold(spare.hex("ipa") == Some(DEVICETREE), "a page in its place")?;
    case.line("touch", "touch: ready")?;
    same_devicetree(&case)?;
    case.hold(touched(&case, pa) == 1, "the page to be touched once")
}

/// Holds that every life of the guest found the same devicetree.
pub(crate) fn same_devicetree(case: &Case) -> Outcome {
    let mut lines = case.said_ever("touch", "touch: devicetree bytes=");
    let count = lines.len();
    lines.dedup();
    let is_one = lines.iter().all(|line| field(line, "bytes") > Some(0));
    case.hold(
        count > 1 && lines.len() == 1 && is_one,
        &format!("the same devicetree in {count} lives"),
    )
}

/// Without a spare page it stays down, and says why.
fn in_the_way_for_good() -> Outcome {
    let (mut case, pa) = clear_over("spares-none", DEVICETREE)?;
    let stopped = case.event_of("stopped", "touch")?;
    let reason = stopped.text("reason").unwrap_or_default();
    case.hold(reason.contains("retired page"), "the page to be the reason")?;
    case.hold(touched(&case, pa) == 1, "the page to be touched once")?;
    case.forget();
    control_ticks(&case)?;
    for event in ["panic", "boot-error-record"] {
        case.never(event)?;
    }
    Ok(())
}

/// Boots the demo, has Linux start a process with a page to lose, and poisons the page.
fn linux(by: &str) -> Result<(Case, u64), Failed> {
    let mut case = Case::start(with_firmware("demo")?.cpu(CPU).smp(4))?;
    case.line("linux", "agent: beat")?;
    let vm = case.event_of("partition", "linux")?.num("vm").unwrap_or(0);
    let number = u8::try_from(vm).map_err(failed)?;
    case.machine.type_into(number, "touch\r").map_err(failed)?;
    let line = case.line("linux", "agent: touch page=")?;
    let ipa = field(&line, "page").ok_or("the process names no page")?;
    let pa = case.pa_of("linux", ipa)?;
    case.forget();
    poison(&mut case, pa, by)?;
    let event = error(&case, pa)?;
    for (key, word) in [("from", "el0"), ("verdict", "retire"), ("name", "linux")] {
        case.hold(event.text(key) == Some(word), &format!("{key} `{word}`"))?;
    }
    Ok((case, pa))
}

/// A synchronous abort costs the process its life (SIGBUS), and nobody else notices.
fn linux_process() -> Outcome {
    const SIGBUS: u64 = 7;
    let (mut case, pa) = linux("sea")?;
    let line = case.line("linux", "agent: child ended")?;
    case.hold(field(&line, "signal") == Some(SIGBUS), "SIGBUS")?;
    case.hold(touched(&case, pa) == 1, "the page to be touched once")?;
    for event in ["killed", "restart", "vserror", "boot-error-record"] {
        case.never(event)?;
    }
    case.forget();
    let beats = case.lines("linux", "agent: beat", 3)?;
    case.hold(
        beats.iter().all(|beat| beat.ends_with("ok")),
        "a sound pattern",
    )?;
    control_ticks(&case)
}

/// An SError with the state UER costs the kernel its life, whatever it interrupted: the partition
/// is started again without the page.
fn linux_kernel() -> Outcome {
    let (mut case, pa) = linux("sei")?;
    case.event("vserror", |event| event.text("state") == Some("taken"))?;
    case.event_of("restart", "linux")?;
    case.line("linux", "agent: ready")?;
    case.hold(touched(&case, pa) == 1, "the page to be touched once")?;
    case.never("boot-error-record")?;
    case.forget();
    case.lines("linux", "agent: beat", 2)?;
    control_ticks(&case)
}

/// The table that a guest's memory is translated by goes bad: the partition cannot go on, and
/// everybody else does. The firmware takes commands on the control guest's PE.
fn stage2_table(by: &str) -> Outcome {
    let mut case = boot("poison")?;
    case.forget();
    let command = format!("poison table=stage2 by={by}");
    case.machine.send_firmware(&command).map_err(failed)?;
    let poisoned = case.wait(&command, |record| record.firmware("poisoned").is_some())?;
    let pa = poisoned
        .firmware("poisoned")
        .and_then(|line| line.num("pa"));
    let pa = pa.ok_or("the firmware names no page")?;
    let event = error(&case, pa)?;
    case.hold(event.text("name") == Some("control"), "control to be hit")?;
    case.event_of("killed", "control")?;
    case.lines("touch", "touch: alive", 4)?;
    for event in ["panic", "boot-error-record"] {
        case.never(event)?;
    }
    Ok(())
}
