// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hardware errors in bare-metal guests: from the firmware to the guest's own report.
//!
//! The demo shows the six errors of the tour; here are their relatives.

use firebreak_qemu::{Event, Machine, Raise};
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, failed, field, trial, with_firmware};

const CE: u32 = 0x1811;
const UEO: u32 = 0x0811;
const UER: u32 = 0x0c11;
const UEU: u32 = 0x0411;
const UC: u32 = 0x0011;
/// PEs of the system `two`.
const CONTROL_PE: u8 = 0;
const VICTIM_PE: u8 = 1;
/// Ten milliseconds where a tick is a nanosecond and an instruction.
const TEN_MS_TICKS: u64 = 10_000_000;
const EC_SERROR: u64 = 0x2f;
const EC_SHIFT: u32 = 26;
const ISS_MASK: u64 = 0x1ff_ffff;
const FSC_MASK: u64 = 0x3f;
const FSC_EXTERNAL: u64 = 0x10;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    for cpu in ["max", "neoverse-n1", "cortex-a76"] {
        trials.push(trial(
            format!("error::recoverable_in_own_page::{cpu}"),
            move || own_page(cpu),
        ));
    }
    trials.push(trial("error::corrected_is_logged", corrected));
    trials.push(trial(
        "error::regression_uer_on_a_sleeping_pe_does_not_reset_the_machine",
        sleeping_pe,
    ));
    trials.push(trial(
        "error::page_of_a_guest_that_does_not_run",
        foreign_page,
    ));
    trials.push(trial("error::restartable_is_told_by_policy", restartable));
    trials.push(trial("error::unrecoverable_kills", || {
        unrecoverable("two", false)
    }));
    trials.push(trial("error::unrecoverable_restarts_by_policy", || {
        unrecoverable("restarting", true)
    }));
    trials.push(trial(
        "error::uncontainable_resets_the_machine",
        uncontainable,
    ));
    trials.push(trial("error::without_a_record", unclaimed));
    trials.push(trial("error::without_feat_ras", without_ras));
    trials.push(trial("error::many_on_both_pes", many));
    trials.push(trial("error::too_many_on_both_pes", too_many));
}

/// Boots the system `two`, and returns the machine and the physical address of the victim's page.
pub(crate) fn boot(system: &str, cpu: &str) -> Result<(Case, u64), Failed> {
    boot_machine(with_firmware(system)?.cpu(cpu).smp(2))
}

/// Boots a machine with a victim and a control guest, as [`boot`] does.
pub(crate) fn boot_machine(machine: Machine) -> Result<(Case, u64), Failed> {
    let mut case = Case::start(machine)?;
    let ready = case.line("victim", "victim: ready")?;
    let page = field(&ready, "page").ok_or("the victim names no page")?;
    let pa = case.pa_of("victim", page)?;
    case.line("victim", "victim: alive")?;
    case.line("control", "control: ready")?;
    case.forget();
    Ok((case, pa))
}

/// Waits for the event of an error, and holds what all of them have to say.
fn error(case: &Case, raise: &Raise, verdict: &str) -> Result<Event, Failed> {
    let event = case.event("error", |event| event.num("id") == Some(raise.id))?;
    case.hold(
        event.hex("iss") == Some(u64::from(raise.iss)),
        "the syndrome to come through",
    )?;
    case.hold(event.hex("pa") == raise.pa, "the address to come through")?;
    case.hold(
        event.num("pe") == Some(u64::from(raise.pe)),
        "the PE to come through",
    )?;
    case.hold(
        event.text("verdict") == Some(verdict),
        &format!("the verdict `{verdict}`"),
    )?;
    Ok(event)
}

/// Waits until the victim reports an SError with that syndrome.
pub(crate) fn victim_takes(case: &Case, syndrome: u64) -> Outcome {
    let line = case.line("victim", "victim: serror")?;
    let esr = field(&line, "esr").unwrap_or(0);
    case.hold(
        esr >> EC_SHIFT == EC_SERROR,
        "the victim to report an SError",
    )?;
    case.hold(
        esr & ISS_MASK == syndrome,
        &format!("the victim to report syndrome {syndrome:#x}"),
    )
}

/// Waits until the victim touches its retired page, gets the right abort, and goes on.
pub(crate) fn victim_loses_page(case: &Case) -> Outcome {
    let retired = case.event("retired", |_| true)?;
    let line = case.line("victim", "victim: abort")?;
    let (esr, far) = (
        field(&line, "esr").unwrap_or(0),
        field(&line, "far").unwrap_or(0),
    );
    case.hold(esr & FSC_MASK == FSC_EXTERNAL, "FSC 0x10")?;
    case.hold(
        retired.hex("ipa").map(|ipa| ipa >> 12) == Some(far >> 12),
        "FAR in the retired page",
    )?;
    case.lines("victim", "victim: alive", 3).map(drop)
}

pub(crate) fn control_ticks(case: &Case) -> Outcome {
    case.lines("control", "control: ticks=", 2).map(drop)
}

fn own_page(cpu: &str) -> Outcome {
    let (mut case, pa) = boot("two", cpu)?;
    let raise = Raise::new(1, VICTIM_PE, UER, "recoverable")
        .at(pa)
        .in_guest();
    case.raise(&raise)?;
    let event = error(&case, &raise, "retire")?;
    case.hold(event.text("severity") == Some("UER"), "severity UER")?;
    case.hold(
        event.text("name") == Some("victim"),
        "the victim to be interrupted",
    )?;
    victim_takes(&case, u64::from(UER))?;
    victim_loses_page(&case)?;
    case.firmware("acked", 1)?;
    control_ticks(&case)?;
    case.never("killed")
}

fn corrected() -> Outcome {
    let (mut case, pa) = boot("two", "neoverse-n1")?;
    let raise = Raise::new(2, VICTIM_PE, CE, "corrected").at(pa).in_guest();
    case.raise(&raise)?;
    error(&case, &raise, "log")?;
    case.firmware("acked", 2)?;
    case.lines("victim", "victim: alive", 3)?;
    control_ticks(&case)?;
    for event in ["vserror", "retired", "abort", "killed"] {
        case.never(event)?;
    }
    Ok(())
}

/// An SEI that wakes a PE without a guest interrupts the wait, not EL2's work: the page is
/// retired. The label behind WFI once stood one instruction too early, and the machine was reset.
///
/// The `stopped` event is told from inside EL2's work, so an error raised as soon as the host has
/// read it may strike the writer of that very line, and a UER there resets the machine by rule.
/// Hence the delay, on a machine whose time is a count of instructions.
fn sleeping_pe() -> Outcome {
    let machine = with_firmware("two")?.smp(2).icount(true);
    let (mut case, pa) = boot_machine(machine)?;
    let kill = Raise::new(1, CONTROL_PE, UEU, "recoverable").in_guest();
    case.raise(&kill)?;
    case.event("stopped", |event| event.text("name") == Some("control"))?;
    case.firmware("acked", 1)?;
    let raise = Raise::new(2, CONTROL_PE, UER, "recoverable")
        .at(pa)
        .after_ticks(TEN_MS_TICKS);
    case.raise(&raise)?;
    let event = error(&case, &raise, "retire")?;
    case.hold(
        event.text("from") == Some("el2"),
        "EL2's wait to be interrupted",
    )?;
    victim_takes(&case, u64::from(UER))?;
    victim_loses_page(&case)?;
    case.never("boot-error-record")
}

/// The victim's page is found bad while the control guest runs: it concerns the victim alone.
fn foreign_page() -> Outcome {
    let (mut case, pa) = boot("two", "neoverse-n1")?;
    let raise = Raise::new(3, CONTROL_PE, UER, "recoverable")
        .at(pa)
        .in_guest();
    case.raise(&raise)?;
    let event = error(&case, &raise, "retire")?;
    case.hold(
        event.text("name") == Some("control"),
        "the control guest to be interrupted",
    )?;
    let victim = case.machine.since(firebreak_qemu::Mark::START);
    let vm = victim.iter().find_map(|record| {
        record
            .event("partition")
            .filter(|event| event.text("name") == Some("victim"))?
            .num("vm")
    });
    case.hold(
        event.num("page_vm") == vm && vm.is_some(),
        "the page to be the victim's",
    )?;
    victim_takes(&case, u64::from(UER))?;
    victim_loses_page(&case)?;
    control_ticks(&case)?;
    case.never("killed")
}

fn restartable() -> Outcome {
    let (mut case, _) = boot("two", "neoverse-n1")?;
    let raise = Raise::new(4, VICTIM_PE, UEO, "recoverable").in_guest();
    case.raise(&raise)?;
    error(&case, &raise, "inject")?;
    // The policy of the system `two` names this syndrome, of all 25 bits.
    victim_takes(&case, 0x12_3456)?;
    case.lines("victim", "victim: alive", 3)?;
    case.never("retired")?;
    case.never("killed")
}

fn unrecoverable(system: &str, again: bool) -> Outcome {
    let (mut case, _) = boot(system, "neoverse-n1")?;
    let raise = Raise::new(5, VICTIM_PE, UEU, "recoverable").in_guest();
    case.raise(&raise)?;
    error(&case, &raise, if again { "restart" } else { "kill" })?;
    case.event_of("killed", "victim")?;
    if again {
        case.event_of("restart", "victim")?;
        case.line("victim", "victim: ready")?;
    } else {
        case.event_of("stopped", "victim")?;
        case.never("restart")?;
    }
    case.forget();
    control_ticks(&case)?;
    if again {
        return case.lines("victim", "victim: alive", 3).map(drop);
    }
    let speaks = case
        .records()
        .iter()
        .any(|record| record.line("victim").is_some());
    case.hold(!speaks, "the victim to be silent")
}

fn uncontainable() -> Outcome {
    let (mut case, pa) = boot("two", "neoverse-n1")?;
    let raise = Raise::new(6, VICTIM_PE, UC, "fatal").at(pa);
    case.raise(&raise)?;
    case.firmware("reset", 6)?;
    case.event("boot", |_| true)?;
    let record = case.event("boot-error-record", |_| true)?;
    case.hold(record.text("severity") == Some("UC"), "severity UC")?;
    case.hold(
        record.hex("pa") == Some(pa),
        "the address to survive the reset",
    )?;
    case.hold(
        record.num("pe") == Some(u64::from(VICTIM_PE)),
        "the PE to survive the reset",
    )?;
    case.lines("victim", "victim: alive", 2)?;
    control_ticks(&case)
}

/// An SError of which nobody has a record: the partition that it interrupted pays.
fn unclaimed() -> Outcome {
    let (mut case, _) = boot("two", "neoverse-n1")?;
    let mut raise = Raise::new(7, VICTIM_PE, UEO, "recoverable").in_guest();
    raise.no_record = true;
    case.raise(&raise)?;
    let event = case.event("unclaimed", |_| true)?;
    case.hold(
        event.num("pe") == Some(u64::from(VICTIM_PE)),
        "the PE to be told",
    )?;
    case.event_of("killed", "victim")?;
    case.forget();
    control_ticks(&case)
}

/// Where the syndrome says nothing, the record alone decides.
fn without_ras() -> Outcome {
    let (mut case, pa) = boot("two", "cortex-a72")?;
    let raise = Raise::new(8, VICTIM_PE, UEU, "recoverable")
        .at(pa)
        .in_guest();
    case.raise(&raise)?;
    let event = case.event("error", |event| event.num("id") == Some(8))?;
    case.hold(
        event.text("severity") == Some("UER"),
        "the record's severity to decide",
    )?;
    case.line("victim", "victim: serror")?;
    victim_loses_page(&case)?;
    control_ticks(&case)
}

/// Corrected errors on both PEs at once, as many as the firmware holds back for each: none is lost.
fn many() -> Outcome {
    let (mut case, _) = boot("two", "neoverse-n1")?;
    for round in 1..=3 {
        let ids = corrected_on_both(&mut case, round, 16)?;
        for id in ids {
            case.firmware("raised", id)?;
            case.event("error", |event| event.num("id") == Some(id))?;
            case.firmware("acked", id)?;
        }
    }
    control_ticks(&case)?;
    case.never("killed")
}

/// More of them than the firmware can hold back: each is reported, or the firmware says that it
/// refused or dropped it.
fn too_many() -> Outcome {
    let (mut case, _) = boot("two", "neoverse-n1")?;
    for id in corrected_on_both(&mut case, 1, 60)? {
        let told = case.wait(&format!("the end of error {id}"), |record| {
            ["acked", "dropped", "error"].iter().any(|verb| {
                record
                    .firmware(verb)
                    .is_some_and(|line| line.num("id") == Some(id))
            })
        })?;
        if told.firmware("acked").is_some() {
            case.event("error", |event| event.num("id") == Some(id))?;
        }
    }
    control_ticks(&case)?;
    case.never("killed")
}

/// Asks for corrected errors on both PEs in turns, and returns their numbers.
fn corrected_on_both(case: &mut Case, round: u64, each: u64) -> Result<Vec<u64>, Failed> {
    let mut ids = Vec::new();
    for number in 0..each {
        for pe in [CONTROL_PE, VICTIM_PE] {
            let id = 1000 * round + 2 * number + u64::from(pe);
            case.machine
                .send_raise(&Raise::new(id, pe, CE, "corrected"))
                .map_err(failed)?;
            ids.push(id);
        }
    }
    Ok(ids)
}
