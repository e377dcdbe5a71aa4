// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lives of a partition: what one leaves to the next, and what all of them leave behind.

use firebreak_qemu::Event;
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, failed, field, trial, with_firmware};

/// Restarts that the suite makes; `FIREBREAK_RESTARTS` says otherwise.
const RESTARTS: u64 = 1000;
/// What the suite's machines have.
const CPU: &str = "neoverse-n1";
/// Number of the partition `cases` in the system `reborn`.
const CASES_VM: u8 = 0;
/// Number of its neighbor.
const CONTROL_VM: u8 = 1;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial(
        "lifecycle::a_thousand_restarts_leak_nothing",
        many_restarts,
    ));
    trials.push(trial("lifecycle::restarts_back_off", back_off));
    trials.push(trial(
        "lifecycle::autostart_false_waits_for_start",
        autostart,
    ));
    trials.push(trial(
        "lifecycle::regression_a_stop_for_good_was_lost_in_a_restart",
        stop_in_restart,
    ));
    for way in ["restart", "stop", "reset", "off"] {
        trials.push(trial(
            format!("lifecycle::a_new_life_finds_nothing_of_the_last::{way}"),
            move || neighbor_is_in_time(&mut fresh(way, (CPU, 4))?),
        ));
    }
    trials.push(trial(
        "lifecycle::a_new_life_finds_nothing_of_the_last::restart_on_max",
        || fresh("restart", ("max", 5)).map(drop),
    ));
}

/// A partition that keeps resetting itself comes back later each time, and then no more. By the
/// virtual clock a tick is a nanosecond.
fn back_off() -> Outcome {
    const MS_NS: u64 = 1_000_000;
    let mut case = Case::start(with_firmware("backoff")?.smp(2).icount(true))?;
    case.line("cases", "cases: ready")?;
    for (count, delay_ms) in [(1, 100), (2, 200), (3, 400)] {
        case.forget();
        say(&mut case, "reset")?;
        let stopped = case.event_of("stopped", "cases")?;
        let reason = format!("reset, starts again in {delay_ms} ms");
        case.hold(stopped.text("reason") == Some(&reason), &reason)?;
        let restart = case.event_of("restart", "cases")?;
        let waited_ns = restart.num("t").zip(stopped.num("t")).map(|(b, a)| b - a);
        // The line of the event itself takes a few milliseconds at most.
        let least_ns = (delay_ms - 5) * MS_NS;
        case.hold(
            restart.num("count") == Some(count) && restart.text("reason") == Some("reset"),
            "the restart to be counted, with its reason",
        )?;
        case.hold(
            waited_ns.is_some_and(|ns| (least_ns..(delay_ms + 5) * MS_NS).contains(&ns)),
            &format!("{delay_ms} ms to pass, not {waited_ns:?} ns"),
        )?;
        case.line("cases", "cases: ready")?;
    }
    case.forget();
    say(&mut case, "reset")?;
    let stopped = case.event_of("stopped", "cases")?;
    case.hold(
        stopped.text("reason") == Some("reset, after 3 restart(s), the limit"),
        "the limit to be told",
    )?;
    // Started by a person, it is counted anew; a wait is ended by `stop`.
    case.order("start cases")?;
    case.line("cases", "cases: ready")?;
    case.forget();
    case.order("restart cases")?;
    let again = case.event_of("started", "cases")?;
    case.hold(again.num("restarts") == Some(1), "a restart at once")?;
    case.line("cases", "cases: ready")?;
    case.never("stopped")
}

/// A partition that is not to be started at boot waits for a command.
fn autostart() -> Outcome {
    let mut case = Case::start(with_firmware("backoff")?.smp(2).icount(true))?;
    let stopped = case.event_of("stopped", "control")?;
    case.hold(
        stopped.text("reason") == Some("not started at boot: autostart = false"),
        "the reason to be told",
    )?;
    case.line("cases", "cases: ready")?;
    case.refused("stop control", "stopped")?;
    let silent = |case: &Case| {
        !case
            .records()
            .iter()
            .any(|one| one.line("control").is_some())
    };
    case.hold(silent(&case), "a partition that has not run")?;
    case.order("start control")?;
    case.event_of("started", "control")?;
    case.line("control", "control: ticks=").map(drop)
}

/// A partition that is just being cleared for its restart is asked to stop: it does not start.
fn stop_in_restart() -> Outcome {
    let mut case = boot()?;
    case.order("restart control")?;
    // Clearing its memory takes longer than the line of the next command; its PE is not the UART's.
    case.order("stop control")?;
    let stopped = case.event_of("stopped", "control")?;
    case.hold(
        stopped.text("reason") == Some("asked to stop"),
        "the later cause to be told",
    )?;
    case.never("started")?;
    case.order("start control")?;
    case.event_of("started", "control")?;
    case.line("control", "control: ready").map(drop)
}

/// Boots the system `reborn` by the virtual clock, in which no host makes a tick late.
fn boot() -> Result<Case, Failed> {
    boot_on(CPU)
}

fn boot_on(cpu: &str) -> Result<Case, Failed> {
    let machine = with_firmware("reborn")?.cpu(cpu).smp(2).icount(true);
    let mut case = Case::start(machine)?;
    case.line("cases", "cases: ready")?;
    case.line("control", "control: ready")?;
    case.forget();
    Ok(case)
}

fn say(case: &mut Case, word: &str) -> Outcome {
    let line = format!("{word}\n");
    case.machine.type_into(CASES_VM, &line).map_err(failed)
}

/// The neighbor lost no tick, and goes on.
fn neighbor_is_in_time(case: &mut Case) -> Outcome {
    case.forget();
    let told = case.line("control", "control: ticks=")?;
    case.hold(
        field(&told, "missed") == Some(0),
        "the neighbor to miss no tick",
    )
}

/// What the answer to `stats` has beside `usage` of the stopped partition itself.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    pool_free: Option<u64>,
    pool_retired: Option<u64>,
    /// Of every partition.
    vmids_and_tables: Vec<(Option<u64>, Option<u64>)>,
    /// Of the stopped partition.
    irqs: (Option<u64>, Option<u64>),
    /// Records that wait, on all PEs.
    waiting: Option<u64>,
    /// Retired pages of every partition.
    retired: Vec<Option<u64>>,
}

fn rows(answer: &Event, key: &str) -> Vec<serde_json::Value> {
    let array = answer.value().get(key).and_then(|rows| rows.as_array());
    array.cloned().unwrap_or_default()
}

/// Counts what could leak, while the partition is stopped.
fn held(case: &mut Case) -> Result<Held, Failed> {
    let ps = case.order("ps")?;
    let stats = case.order("stats")?;
    let usage = rows(&stats, "usage");
    let own = usage
        .iter()
        .find(|row| row["vm"].as_u64() == Some(u64::from(CASES_VM)))
        .ok_or("no usage of the partition")?;
    let neighbor = usage
        .iter()
        .find(|row| row["vm"].as_u64() == Some(u64::from(CONTROL_VM)));
    let enabled = neighbor.and_then(|row| row["irqs_enabled"].as_u64());
    case.hold(enabled == Some(1), "the neighbor's timer to be enabled")?;
    let pes = rows(&stats, "pes");
    Ok(Held {
        pool_free: stats.num("pool_free"),
        pool_retired: stats.num("pool_retired"),
        vmids_and_tables: usage
            .iter()
            .map(|row| (row["vmid"].as_u64(), row["tables"].as_u64()))
            .collect(),
        irqs: (own["irqs_enabled"].as_u64(), own["irqs_raised"].as_u64()),
        waiting: pes.iter().map(|row| row["waiting"].as_u64()).sum(),
        retired: rows(&ps, "partitions")
            .iter()
            .map(|row| row["retired"].as_u64())
            .collect(),
    })
}

/// Stops the partition, counts, and starts it again.
fn count_and_start(case: &mut Case) -> Result<Held, Failed> {
    case.forget();
    case.order("stop cases")?;
    case.event_of("stopped", "cases")?;
    let held = held(case)?;
    case.forget();
    case.order("start cases")?;
    case.line("cases", "cases: ready")?;
    Ok(held)
}

/// By a command and by the guest itself, in turns.
fn many_restarts() -> Outcome {
    let restarts = std::env::var("FIREBREAK_RESTARTS").map_or(Ok(RESTARTS), |text| text.parse());
    let restarts = restarts.map_err(failed)?;
    let mut case = boot()?;
    let before = count_and_start(&mut case)?;
    case.hold(
        before.irqs == (Some(0), Some(0)) && before.pool_free > Some(0),
        "a stopped partition without interrupts, and frames in the pool",
    )?;
    case.hold(
        before
            .vmids_and_tables
            .iter()
            .all(|(vmid, tables)| *vmid > Some(0) && *tables > Some(0)),
        "each partition to have a VMID and tables",
    )?;
    for count in 1..=restarts {
        case.forget();
        if count % 2 == 0 {
            case.order("restart cases")?;
        } else {
            say(&mut case, "reset")?;
        }
        let restart = case.event_of("restart", "cases")?;
        case.hold(
            restart.num("count") == Some(count),
            "each restart to be counted",
        )?;
        case.line("cases", "cases: ready")?;
        for event in ["panic", "killed", "halt", "stopped"] {
            case.never(event)?;
        }
    }
    let after = count_and_start(&mut case)?;
    case.hold(
        after == before,
        &format!("what is held to be {before:?}, not {after:?}"),
    )?;
    neighbor_is_in_time(&mut case)
}

/// Memory, interrupts, timers, a pending virtual SError and so many registers (with FEAT_PAuth one
/// more), by each way into another life.
fn fresh(way: &str, (cpu, registers): (&str, u64)) -> Result<Case, Failed> {
    let mut case = boot_on(cpu)?;
    say(&mut case, "soil")?;
    let soiled = case.line("cases", "cases: fresh")?;
    let at_least = |key: &str, least: u64| field(&soiled, key).is_some_and(|value| value >= least);
    case.hold(
        at_least("dirty", 1000)
            && at_least("gic", 6)
            && at_least("isr", 1)
            && field(&soiled, "registers") == Some(registers),
        "much to be left behind",
    )?;
    case.hold(
        field(&soiled, "timers") == Some(0x5_0000_0005),
        "both timers to be due",
    )?;
    let inj = case.inject("cases vcpu=0 serror")?;
    case.injection(inj, "pending")?;
    case.forget();
    match way {
        "restart" => case.order("restart cases").map(drop)?,
        "stop" => {
            case.order("stop cases")?;
            case.event_of("stopped", "cases")?;
            case.refused("stop cases", "stopped")?;
            case.order("start cases")?;
        }
        "off" => {
            say(&mut case, "off")?;
            let stopped = case.event_of("stopped", "cases")?;
            case.hold(
                stopped.text("reason") == Some("turned itself off"),
                "the reason to be told",
            )?;
            case.order("start cases")?;
        }
        _ => say(&mut case, way)?,
    }
    case.injection(inj, "cancelled")?;
    case.event_of("started", "cases")?;
    case.line("cases", "cases: ready")?;
    case.refused("start cases", "not stopped")?;
    say(&mut case, "fresh")?;
    let told = case.line("cases", "cases: fresh")?;
    // Both timers are off, and masked.
    case.hold(
        told == "cases: fresh dirty=0 gic=0 isr=0x0 timers=0x200000002 registers=0",
        "nothing to be left",
    )?;
    Ok(case)
}
