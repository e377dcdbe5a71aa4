// SPDX-License-Identifier: MIT OR Apache-2.0
//! A firmware that breaks the contract, one way in each case, and what the hypervisor makes of it.

use firebreak_qemu::Raise;
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, failed, field, trial, with_firmware};

const CE: u32 = 0x1811;
/// PEs of the system `two`.
const VICTIM_PE: u8 = 1;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("misbehavior::storm", storm));
}

/// Boots a system of two guests, and returns the machine and the victim page's physical address.
fn boot(system: &str) -> Result<(Case, u64), Failed> {
    let mut case = Case::start(with_firmware(system)?.smp(2))?;
    let ready = case.line("victim", "victim: ready")?;
    let page = field(&ready, "page").ok_or("the victim names no page")?;
    let pa = case.pa_of("victim", page)?;
    case.line("victim", "victim: alive")?;
    case.line("control", "control: ready")?;
    case.forget();
    Ok((case, pa))
}

/// Back to back: each error is raised as soon as the firmware sees the last one acknowledged. The
/// firmware's account balances, none is dropped, and the guests go on.
fn storm() -> Outcome {
    let (mut case, _) = boot("two")?;
    let count = 2000;
    case.machine
        .send_firmware(&format!(
            "storm id=1 count={count} pe={VICTIM_PE} iss={CE:x} sev=corrected"
        ))
        .map_err(failed)?;
    let over = case.wait("the end of the storm", |record| {
        record.firmware("storm").is_some()
    })?;
    let number = |key: &str| over.firmware("storm").and_then(|line| line.num(key));
    let (delivered, taken) = (number("delivered"), number("taken"));
    case.hold(number("raised") == Some(count), "each to be raised")?;
    case.hold(number("acked") == Some(count), "each to be acknowledged")?;
    case.hold(number("dropped") == Some(0), "none to be dropped")?;
    case.hold(
        delivered.zip(taken).map(|(sei, pulled)| sei + pulled) == Some(count),
        "each to be handed over once",
    )?;
    case.forget();
    case.lines("victim", "victim: alive", 2)?;
    case.lines("control", "control: ticks=", 2)?;
    let raise = Raise::new(9, VICTIM_PE, CE, "corrected");
    case.raise(&raise)?;
    case.event("error", |event| event.num("id") == Some(9))?;
    case.never("killed")
}
