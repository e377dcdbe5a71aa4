// SPDX-License-Identifier: MIT OR Apache-2.0
//! Storms of errors: nothing is lost, on any of three accounts.
//!
//! `cargo xtask storm` is the same with a million.

use firebreak_qemu::{Mark, Raise, Storm, StormAccount, deadline};
use libtest_mimic::{Failed, Trial};

use crate::errors::{boot, boot_machine, control_ticks};
use crate::harness::{Case, Outcome, failed, trial, with_firmware};

const VICTIM_PE: u8 = 1;
const UEU: u32 = 0x0411;
/// Errors of the storm that every run of the tests goes through.
const ERRORS: u64 = 20_000;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("storm::three_accounts_agree", accounts));
    trials.push(trial(
        "storm::regression_a_worn_page_has_a_budget_too",
        worn_page,
    ));
    trials.push(trial(
        "storm::a_full_queue_acknowledges_nothing_and_loses_nothing",
        full_queue,
    ));
}

fn account(case: &Case, storm: &Storm) -> Result<StormAccount, Failed> {
    case.machine
        .wait_until(
            "the closed accounts of a storm",
            Mark::START,
            deadline(180),
            |records| StormAccount::read(records, storm),
        )
        .map_err(failed)
}

/// Each error is raised as soon as the one before it was acknowledged.
fn accounts() -> Outcome {
    let (mut case, _) = boot("two", "neoverse-n1")?;
    let storm = Storm::corrected(ERRORS, VICTIM_PE);
    case.machine
        .send_firmware(&storm.to_string())
        .map_err(failed)?;
    let account = account(&case, &storm)?;
    account.check(&storm).map_err(failed)?;
    case.hold(account.suppressed != 0, "some errors to be only counted")?;
    case.hold(account.events >= 256, "the first errors to be told")?;
    case.forget();
    case.lines("victim", "victim: alive", 2)?;
    control_ticks(&case)?;
    case.never("killed")
}

/// All of them on one page, which is worn out after the first sixteen: each further one was told,
/// because its verdict is to retire the page.
fn worn_page() -> Outcome {
    const MIDDLE_IPA: u64 = 0x4080_0000;
    let (mut case, _) = boot("two", "neoverse-n1")?;
    let storm = Storm::corrected(3000, VICTIM_PE).at(case.pa_of("victim", MIDDLE_IPA)?);
    case.machine
        .send_firmware(&storm.to_string())
        .map_err(failed)?;
    let account = account(&case, &storm)?;
    account.check(&storm).map_err(failed)?;
    case.hold(account.suppressed != 0, "some errors to be only counted")?;
    case.event("error", |event| {
        event.text("rule") == Some("worn-page") && event.num("corrected_on_page") == Some(16)
    })?;
    case.forget();
    case.lines("victim", "victim: alive", 2)?;
    control_ticks(&case)
}

/// While EL2 restarts a partition nobody works the queue off, and the storm goes on: the queue
/// fills up, refuses, and the firmware keeps what was refused until there is room.
fn full_queue() -> Outcome {
    let machine = with_firmware("slow-restart")?.smp(2).icount(true);
    let (mut case, _) = boot_machine(machine)?;
    case.raise(&Raise::new(9, VICTIM_PE, UEU, "recoverable").in_guest())?;
    case.event_of("killed", "victim")?;
    // Half a gigabyte is being cleared, and the firmware looks often.
    let storm = Storm::corrected(3000, VICTIM_PE).every_ticks(2_000);
    case.machine
        .send_firmware(&storm.to_string())
        .map_err(failed)?;
    case.event_of("restart", "victim")?;
    let account = account(&case, &storm)?;
    account.check(&storm).map_err(failed)?;
    case.hold(account.refused != 0, "the queue to refuse some")?;
    case.event("error", |event| event.num("id") == Some(9))?;
    case.line("victim", "victim: ready")?;
    control_ticks(&case)
}
