// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors that come together: on two PEs at once, beside a recovery, and into one.

use firebreak_qemu::{Event, Raise, Record};
use libtest_mimic::Failed;

use super::{CE, CONTROL_PE, CPU, HYPERVISOR, UER, UEU, VICTIM, VICTIM_PE, decided, spare_page};
use crate::errors::{boot, boot_machine, control_ticks, victim_loses_page, victim_takes};
use crate::harness::{Case, Outcome, failed, field, with_firmware};

/// Two pages of one partition, found bad by two PEs at the same moment.
pub(super) fn two_at_once() -> Outcome {
    let machine = with_firmware("two")?.smp(2).icount(true);
    let (mut case, page) = boot_machine(machine)?;
    let other = spare_page(&case, "victim")?;
    let pair = [(1, CONTROL_PE, other), (2, VICTIM_PE, page)];
    let raises = pair.map(|(id, pe, pa)| {
        Raise::new(id, pe, UER, "recoverable")
            .at(pa)
            .after_ticks(20_000_000)
            .in_guest()
    });
    for raise in &raises {
        case.machine.send_raise(raise).map_err(failed)?;
    }
    decided(&case, &raises[0], "partition", ("retire", "foreign-page"))?;
    decided(&case, &raises[1], "partition", ("retire", "own-page"))?;
    for (_, _, pa) in pair {
        case.event("retired", |event| event.hex("pa") == Some(pa & !0xfff))?;
    }
    victim_takes(&case, u64::from(UER))?;
    // Of the two pages it only ever touches its own.
    let ipa = case.event("retired", |event| event.hex("pa") == Some(page & !0xfff))?;
    let abort = case.line("victim", "victim: abort")?;
    case.hold(
        field(&abort, "far").map(|far| far & !0xfff) == ipa.hex("ipa"),
        "FAR in the retired page",
    )?;
    for id in [1, 2] {
        case.firmware("acked", id)?;
    }
    control_ticks(&case)?;
    case.never("killed")?;
    case.never("boot")
}

/// Corrected errors without a pause on the PE that recovers from an uncorrected one: all of them are
/// reported, some of them out of the recovery itself, and the recovery is carried out.
pub(super) fn storm_beside() -> Outcome {
    const COUNT: u64 = 600;
    let (mut case, page) = boot("two", CPU)?;
    case.machine
        .send_firmware(&format!(
            "storm id=1000 count={COUNT} pe={VICTIM_PE} iss={CE:x} sev=corrected"
        ))
        .map_err(failed)?;
    let raise = Raise::new(1, VICTIM_PE, UER, "recoverable")
        .at(page)
        .in_guest();
    case.machine.send_raise(&raise).map_err(failed)?;
    decided(&case, &raise, "partition", ("retire", "own-page"))?;
    let over = case.wait("the end of the storm", |record| {
        record.firmware("storm").is_some()
    })?;
    let acked = over.firmware("storm").and_then(|line| line.num("acked"));
    case.hold(
        acked == Some(COUNT),
        "each corrected error to be acknowledged",
    )?;
    victim_takes(&case, u64::from(UER))?;
    victim_loses_page(&case)?;
    let told = |context: &str| {
        let of_storm = |event: &Event| {
            event.text("severity") == Some("CE") && event.text("context") == Some(context)
        };
        case.records()
            .iter()
            .filter(|record| record.event("error").is_some_and(of_storm))
            .count()
    };
    case.hold(told("hypervisor") > 0, "some to strike EL2 at work")?;
    control_ticks(&case)?;
    case.never("killed")?;
    case.never("boot")
}

/// Strikes the PE that starts the victim again with a second error, until it hits EL2 there; returns
/// the machine with what became of that error.
///
/// The victim's end and the second error are asked for together, the second a little later than the
/// first. How much later is the machine's to say (the host types while its time goes on), but not
/// by much, and clearing 16 MiB takes EL2 a while: a few machines are enough.
fn in_recovery(iss: u32, severity: &str) -> Result<(Case, Record), Failed> {
    const MACHINES: u64 = 12;
    const FIRST_TICKS: u64 = 20_000_000;
    for attempt in 0..MACHINES {
        let machine = with_firmware("restarting")?.smp(2).icount(true);
        let (mut case, _) = boot_machine(machine)?;
        let page = spare_page(&case, "control")?;
        let end = Raise::new(1, VICTIM_PE, UEU, "recoverable")
            .after_ticks(FIRST_TICKS)
            .in_guest();
        let second = Raise::new(2, VICTIM_PE, iss, severity)
            .at(page)
            .after_ticks(FIRST_TICKS + 200_000 * (attempt + 1));
        for raise in [&end, &second] {
            case.machine.send_raise(raise).map_err(failed)?;
        }
        let outcome = case.wait("what became of the second error", |record| {
            let error = record.event("error");
            error.is_some_and(|event| event.num("id") == Some(second.id))
                || record.event("boot-error-record").is_some()
        })?;
        let missed = outcome
            .event("error")
            .is_some_and(|event| event.text("context") != Some("hypervisor"));
        if !missed {
            return Ok((case, outcome));
        }
    }
    Err(failed(
        "the second error never struck EL2 while it started the victim again",
    ))
}

/// Nothing was lost: the recovery goes on where it was.
pub(super) fn corrected_in_recovery() -> Outcome {
    let (mut case, outcome) = in_recovery(CE, "corrected")?;
    let event = outcome.event("error").ok_or("the machine was reset")?;
    case.hold(
        event.text("verdict") == Some("log"),
        "the second error to be logged",
    )?;
    case.event_of("restart", "victim")?;
    case.line("victim", "victim: ready")?;
    case.firmware("acked", 2)?;
    case.forget();
    case.lines("victim", "victim: alive", 2)?;
    control_ticks(&case)?;
    case.never("boot")
}

/// Nobody knows what EL2 has made of the bad data: the machine is reset, and the record names EL2's
/// own instruction and no partition.
pub(super) fn recoverable_in_recovery() -> Outcome {
    let (case, outcome) = in_recovery(UER, "recoverable")?;
    let record = outcome
        .event("boot-error-record")
        .ok_or("the machine was not reset")?;
    case.hold(record.num("vm").is_none(), "no partition to be blamed")?;
    case.hold(
        record.hex("pc").is_some_and(|pc| HYPERVISOR.contains(&pc)),
        "the PC to be EL2's",
    )?;
    case.hold(
        record.hex("pa") == Some(spare_page(&case, "control")?),
        "the address to be told",
    )?;
    case.lines("victim", "victim: alive", 2)?;
    control_ticks(&case)
}

/// Two PEs find the same page of the victim bad at the same moment. The victim's own ends its life;
/// while that is told of, the other one wants its vCPU to be told: the next life, which never saw the
/// page, took the virtual SError.
///
/// How long each of the two takes is the machine's to say, but telling of an end takes longest: that
/// the request came in between shows by its being taken back behind the start.
pub(super) fn told_to_the_next_life() -> Outcome {
    const MACHINES: usize = 4;
    const IMPDEF: u32 = 0x100_0000;
    for _ in 0..MACHINES {
        let machine = with_firmware("restarting")?.smp(2).icount(true);
        let (mut case, page) = boot_machine(machine)?;
        let raise = Raise::new(1, CONTROL_PE, IMPDEF, "recoverable").at(page);
        case.raise(&raise.in_guest().with(VICTIM_PE).behaving("cross-pe"))?;
        case.event_of("started", "victim")?;
        case.line("victim", "victim: alive")?;
        control_ticks(&case)?;
        let records = case.records();
        let of_victim = |event: &&Event| event.num("vm") == Some(VICTIM);
        let life = records
            .iter()
            .skip_while(|record| record.event("started").filter(of_victim).is_none());
        let told: Vec<_> = life.filter_map(|record| record.event("vserror")).collect();
        case.hold(
            told.iter()
                .all(|event| event.text("state") == Some("cancelled")),
            "nothing to be told to a life that began after the error",
        )?;
        if !told.is_empty() {
            return Ok(());
        }
    }
    Err(failed("no request came while the victim was put away"))
}
