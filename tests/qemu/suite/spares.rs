// SPDX-License-Identifier: MIT OR Apache-2.0
//! Spare pages behind retired ones: a partition that starts again has its whole memory again, also
//! where its kernel lies, and no bad page is ever touched: the firmware would see it.

use libtest_mimic::{Failed, Trial};

use crate::errors::control_ticks;
use crate::harness::{Case, Outcome};
use crate::poison;

const PAGE: u64 = 0x1000;
const LOAD: u64 = 0x4080_0000;
/// Restarts by command, beside those that follow from errors.
const RESTARTS: u32 = 20;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    poison::case(
        trials,
        "spare::stands_behind_a_retired_page".to_owned(),
        life,
    );
}

/// Has the guest started again, and waits until it has touched all its pages, without an abort.
fn restart(case: &mut Case) -> Outcome {
    case.forget();
    case.order("restart touch")?;
    case.line("touch", "touch: ready")?;
    case.lines("touch", "touch: alive", 2)?;
    let failed = case.records().iter().any(|record| {
        record.line("touch").is_some_and(|line| {
            line.starts_with("touch: abort") || line.starts_with("touch: serror")
        })
    });
    case.hold(!failed, "all pages to be there")
}

/// Returns the guest's row of `ps`: retired pages, and spare ones that are left.
fn counts(case: &mut Case) -> Result<(Option<u64>, Option<u64>), Failed> {
    let ps = case.order("ps")?;
    let rows = ps
        .value()
        .get("partitions")
        .and_then(|rows| rows.as_array());
    let row = rows.and_then(|rows| rows.iter().find(|row| row["name"] == "touch"));
    let row = row.ok_or("no row of the guest")?;
    Ok((row["retired"].as_u64(), row["spares"].as_u64()))
}

/// Poisons a page that the guest touches in that way, and waits until it is retired and the guest
/// has said so.
fn lose(case: &mut Case, pa: u64, way: &str) -> Outcome {
    case.forget();
    poison::poison(case, pa, "sea")?;
    poison::error(case, pa)?;
    case.event("retired", |event| event.hex("pa") == Some(pa))?;
    case.line("touch", &format!("touch: abort way={way} "))
        .map(drop)
}

/// Returns the spare page that stands at an address since the last restart.
fn spare_at(case: &Case, ipa: u64) -> Result<u64, Failed> {
    let event = case.event("spare", |event| event.hex("ipa") == Some(ipa))?;
    event.hex("pa").ok_or_else(|| "it has no address".into())
}

fn life() -> Outcome {
    let mut case = poison::boot("spares")?;
    // A page of code, which is of no use without what it held, and one that holds nothing.
    let code_ipa = page_ipa(&case, "fetch")?;
    let (load, code) = (case.pa_of("touch", LOAD)?, case.pa_of("touch", code_ipa)?);
    lose(&mut case, load, "load")?;
    lose(&mut case, code, "fetch")?;
    restart(&mut case)?;
    let first = spare_at(&case, LOAD)?;
    let second = spare_at(&case, code_ipa)?;
    case.hold(second == first + PAGE, "the next spare page")?;
    let (retired, left) = (Some(2), Some(2));
    let counted = counts(&mut case)?;
    case.hold(
        counted == (retired, left),
        "two retired, two spare pages left",
    )?;

    // The same pages stand there in each life.
    for _ in 0..RESTARTS {
        restart(&mut case)?;
        case.never("spare")?;
        case.never("retired")?;
    }

    // The third one goes bad while nobody uses it, the first one in use: EL2 finds the third bad
    // while it clears it, and takes the fourth.
    let third = second + PAGE;
    poison::poison(&mut case, third, "sea")?;
    lose(&mut case, first, "load")?;
    restart(&mut case)?;
    case.event("retired", |event| event.hex("pa") == Some(third))?;
    let fourth = spare_at(&case, LOAD)?;
    case.hold(fourth == third + PAGE, "the spare page behind the bad one")?;
    let counted = counts(&mut case)?;
    case.hold(counted == (Some(4), Some(0)), "no spare page to be left")?;
    poison::same_devicetree(&case)?;

    // Without one it is a hole, also in the devicetree.
    lose(&mut case, fourth, "load")?;
    case.forget();
    case.order("restart touch")?;
    case.line("touch", "touch: ready")?;
    case.line("touch", "touch: abort way=load ")?;
    case.never("spare")?;
    let told = case.line("touch", "touch: devicetree bytes=")?;
    let before = case.said_ever("touch", "touch: devicetree bytes=");
    case.hold(
        before.first() != Some(&told),
        "the hole to stand in the devicetree",
    )?;
    never_again(&case, &[load, code, first, third, fourth])
}

fn page_ipa(case: &Case, way: &str) -> Result<u64, Failed> {
    let lines = case.said_ever("touch", &format!("touch: page way={way} "));
    let line = lines.first().ok_or("the guest names no page")?;
    crate::harness::field(line, "ipa").ok_or_else(|| "no address".into())
}

/// Each bad page was touched once, when it was found to be bad.
fn never_again(case: &Case, pages: &[u64]) -> Outcome {
    let records = case.all_records();
    for pa in pages {
        let count = poison::touched_in(&records, *pa);
        case.hold(
            count == 1,
            &format!("{pa:#x} to be touched once, not {count} times"),
        )?;
    }
    for event in ["panic", "boot-error-record"] {
        case.never(event)?;
    }
    control_ticks(case)
}
