// SPDX-License-Identifier: MIT OR Apache-2.0
//! Synchronous external aborts that the firmware hands over: from a guest, and from EL2 itself.
//!
//! Simulated ones: the firmware pretends that the interrupted instruction took them. `poison` has
//! the real ones.

use firebreak_qemu::{Event, Raise};
use libtest_mimic::{Failed, Trial};

use crate::errors::{boot, boot_machine, control_ticks};
use crate::harness::{Case, Outcome, failed, field, trial, with_firmware};

/// PEs of the system `two`.
const CONTROL_PE: u8 = 0;
const VICTIM_PE: u8 = 1;
/// ISS of an external abort, off a table walk, by SET; and one on a walk at level 3.
const RECOVERABLE: u32 = 0x10;
const RESTARTABLE: u32 = 0x1810;
const UNCONTAINABLE: u32 = 0x1010;
const ON_WALK: u32 = 0x17;
const WRITE: u32 = 1 << 6;
const FNV: u64 = 1 << 10;
/// UEU, as an SEI.
const UEU: u32 = 0x0411;
const EC_SHIFT: u32 = 26;
const EC_FETCH_ABORT: u64 = 0x21;
const EC_DATA_ABORT: u64 = 0x25;
/// An address that the victim does not skip the access to.
const FAR: u64 = 0xffff_dead_0000_4568;
/// 10 ms under `-icount`: more than a PE takes to go to sleep.
const TEN_MS_TICKS: u64 = 10_000_000;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    for (name, abort) in [
        ("load", Abort::new(RECOVERABLE, "data", EC_DATA_ABORT)),
        (
            "store",
            Abort::new(RECOVERABLE | WRITE, "data", EC_DATA_ABORT),
        ),
        ("fetch", Abort::new(RECOVERABLE, "fetch", EC_FETCH_ABORT)),
        ("walk", Abort::new(ON_WALK, "data", EC_DATA_ABORT)),
        (
            "restartable",
            Abort::new(RESTARTABLE, "data", EC_DATA_ABORT),
        ),
        (
            "without_an_address",
            Abort {
                far: None,
                ..Abort::new(RECOVERABLE, "data", EC_DATA_ABORT)
            },
        ),
        (
            "of_the_wrong_class",
            Abort {
                modes: Some("stale-ec"),
                ..Abort::new(RECOVERABLE, "data", EC_DATA_ABORT)
            },
        ),
    ] {
        trials.push(trial(format!("sea::guest::{name}"), move || {
            in_guest(&abort)
        }));
    }
    trials.push(trial("sea::guest::unclaimed_goes_back", unclaimed));
    trials.push(trial("sea::guest::page_of_another", page_of_another));
    trials.push(trial("sea::guest::without_feat_ras", without_ras));
    trials.push(trial(
        "sea::uncontainable_resets_the_machine",
        uncontainable,
    ));
    for modes in ["conforming", "stale-ec"] {
        trials.push(trial(
            format!("sea::el2::in_its_wait::{modes}"),
            move || in_the_wait(modes),
        ));
    }
    for (modes, source) in [
        ("conforming", "firmware"),
        ("no-record", "hypervisor"),
        ("no-record+stale-ec", "hypervisor"),
    ] {
        trials.push(trial(
            format!("sea::el2::in_its_wait_unexplained::{modes}"),
            move || in_the_wait_unexplained(modes, source),
        ));
    }
    trials.push(trial("sea::el2::wherever_it_strikes", wherever_it_strikes));
}

/// An abort that the victim takes.
struct Abort {
    iss: u32,
    met_by: &'static str,
    far: Option<u64>,
    modes: Option<&'static str>,
    class: u64,
}

impl Abort {
    fn new(iss: u32, met_by: &'static str, class: u64) -> Self {
        Self {
            iss,
            met_by,
            far: Some(FAR),
            modes: None,
            class,
        }
    }
}

/// Waits for the event of an SEA.
fn error(case: &Case, raise: &Raise, verdict: &str) -> Result<Event, Failed> {
    let event = case.event("error", |event| event.num("id") == Some(raise.id))?;
    case.hold(event.flag("sync") == Some(true), "the error to be an SEA")?;
    case.hold(
        event.text("verdict") == Some(verdict),
        &format!("the verdict `{verdict}`"),
    )?;
    Ok(event)
}

/// Waits for what the firmware says of the hand-over, and holds its vector.
fn delivered(case: &Case, id: u64, vector: u64) -> Outcome {
    let line = case.wait("the hand-over", |record| {
        record
            .firmware("delivered")
            .is_some_and(|line| line.num("id") == Some(id))
    })?;
    let given = line
        .firmware("delivered")
        .and_then(|line| line.num("vector"));
    case.hold(given == Some(vector), &format!("vector {vector:#x}"))
}

/// Waits until the victim reports an abort of that class and status.
fn victim_aborts(case: &Case, class: u64, iss: u64) -> Result<String, Failed> {
    let line = case.first_line("victim", "victim: abort")?;
    let esr = field(&line, "esr").unwrap_or(0);
    case.hold(esr >> EC_SHIFT == class, &format!("class {class:#x}"))?;
    case.hold(
        esr & 0x1ff_ffff == iss,
        &format!("the victim to report syndrome {iss:#x}"),
    )?;
    Ok(line)
}

fn in_guest(abort: &Abort) -> Outcome {
    let (mut case, pa) = boot("two", "neoverse-n1")?;
    let mut raise = Raise::new(1, VICTIM_PE, abort.iss, "recoverable")
        .at(pa)
        .sync(abort.met_by, abort.far)
        .in_guest();
    raise.modes = abort.modes.map(str::to_owned);
    case.raise(&raise)?;
    let event = error(&case, &raise, "retire")?;
    case.hold(
        event.text("name") == Some("victim"),
        "the victim to be interrupted",
    )?;
    let severity = match abort.iss {
        RESTARTABLE => "UEO",
        _ => "UER",
    };
    case.hold(event.text("severity") == Some(severity), severity)?;
    delivered(&case, 1, 0x400)?;
    // SET is not the guest's to know; the rest it is told as it was.
    let mut told = u64::from(abort.iss & (WRITE | 0x3f));
    if abort.far.is_none() {
        told |= FNV;
    }
    let line = victim_aborts(&case, abort.class, told)?;
    if let Some(far) = abort.far {
        case.hold(field(&line, "far") == Some(far), "FAR to come through")?;
    }
    case.hold(
        field(&line, "elr") == event.hex("pc"),
        "the victim to take it at the instruction that it struck",
    )?;
    case.event("retired", |_| true)?;
    case.firmware("acked", 1)?;
    // The page is gone, which the victim finds at its next access.
    let lines = case.lines("victim", "victim: abort", 2)?;
    let next = lines.into_iter().nth(1).unwrap_or_default();
    case.hold(
        field(&next, "far").map(|far| far & 0xfff) == Some(pa & 0xfff),
        "the next abort at the page's first word",
    )?;
    case.lines("victim", "victim: alive", 3)?;
    control_ticks(&case)?;
    for event in ["vserror", "killed", "unclaimed", "undef"] {
        case.never(event)?;
    }
    Ok(())
}

/// Nobody has a record: the guest gets what hardware gave, and nothing else happens.
fn unclaimed() -> Outcome {
    let (mut case, _) = boot("two", "neoverse-n1")?;
    let mut raise = Raise::new(1, VICTIM_PE, RECOVERABLE, "recoverable")
        .sync("data", Some(FAR))
        .in_guest();
    raise.no_record = true;
    case.raise(&raise)?;
    let event = case.event("unclaimed", |_| true)?;
    case.hold(
        event.num("pe") == Some(u64::from(VICTIM_PE)),
        "the PE to be told",
    )?;
    victim_aborts(&case, EC_DATA_ABORT, u64::from(RECOVERABLE))?;
    case.lines("victim", "victim: alive", 3)?;
    control_ticks(&case)?;
    for event in ["error", "vserror", "retired", "killed"] {
        case.never(event)?;
    }
    Ok(())
}

/// The record names another partition's page: its owner loses it, and who took the abort is told
/// of the abort all the same.
fn page_of_another() -> Outcome {
    let (mut case, _) = boot("two", "neoverse-n1")?;
    let control = case.machine.since(firebreak_qemu::Mark::START);
    let pa = control
        .iter()
        .find_map(|record| {
            let event = record.event("partition")?;
            (event.text("name") == Some("control")).then(|| last_page(event))?
        })
        .ok_or_else(|| failed("the control guest has no memory"))?;
    let raise = Raise::new(1, VICTIM_PE, RECOVERABLE, "recoverable")
        .at(pa)
        .sync("data", Some(FAR))
        .in_guest();
    case.raise(&raise)?;
    let event = error(&case, &raise, "retire")?;
    case.hold(
        event.text("rule") == Some("foreign-page-and-context"),
        "the rule `foreign-page-and-context`",
    )?;
    victim_aborts(&case, EC_DATA_ABORT, u64::from(RECOVERABLE))?;
    let retired = case.event("retired", |_| true)?;
    case.hold(retired.hex("pa") == Some(pa), "the page to be retired")?;
    case.never("killed")
}

/// The last page of a partition's memory: nothing that the control guest uses.
fn last_page(partition: &Event) -> Option<u64> {
    let piece = partition.value().get("ram")?.as_array()?.last()?;
    let hex = |key: &str| {
        let text = piece.get(key)?.as_str()?.strip_prefix("0x")?;
        u64::from_str_radix(text, 16).ok()
    };
    Some(hex("pa")? + hex("len")? - 0x1000)
}

/// Without FEAT_RAS there is no HCR_EL2.TEA: the abort is the guest's EL1's own.
fn without_ras() -> Outcome {
    let (mut case, pa) = boot("two", "cortex-a72")?;
    let raise = Raise::new(1, VICTIM_PE, RECOVERABLE, "recoverable")
        .at(pa)
        .sync("data", Some(FAR))
        .in_guest();
    case.raise(&raise)?;
    let line = case.first_line("victim", "victim: abort")?;
    case.hold(field(&line, "far") == Some(FAR), "FAR to come through")?;
    case.lines("victim", "victim: alive", 3)?;
    case.never("error")?;
    // EL2 has heard of nothing, and can still be told of the next error.
    let raise = Raise::new(2, VICTIM_PE, 0, "corrected").at(pa).in_guest();
    case.raise(&raise)?;
    case.event("error", |event| event.num("id") == Some(2))?;
    case.firmware("acked", 2)?;
    control_ticks(&case)
}

fn uncontainable() -> Outcome {
    let (mut case, pa) = boot("two", "neoverse-n1")?;
    let raise = Raise::new(1, VICTIM_PE, UNCONTAINABLE, "recoverable")
        .at(pa)
        .sync("data", Some(FAR))
        .in_guest();
    case.raise(&raise)?;
    case.firmware("reset", 1)?;
    let record = case.event("boot-error-record", |_| true)?;
    case.hold(record.hex("pa") == Some(pa), "the address to survive")?;
    case.lines("victim", "victim: alive", 2)?;
    control_ticks(&case)
}

/// Boots, stops the control guest, and returns when its PE sleeps in EL2.
fn asleep() -> Result<(Case, u64), Failed> {
    let machine = with_firmware("two")?.smp(2).icount(true);
    let (mut case, pa) = boot_machine(machine)?;
    let kill = Raise::new(1, CONTROL_PE, UEU, "recoverable").in_guest();
    case.raise(&kill)?;
    case.event("stopped", |event| event.text("name") == Some("control"))?;
    case.firmware("acked", 1)?;
    Ok((case, pa))
}

/// EL2's wait begins anew after an SEA, whatever class the firmware leaves in ESR_EL2.
fn in_the_wait(modes: &str) -> Outcome {
    let (mut case, pa) = asleep()?;
    let raise = Raise::new(2, CONTROL_PE, RECOVERABLE, "recoverable")
        .at(pa)
        .sync("data", Some(FAR))
        .after_ticks(TEN_MS_TICKS)
        .behaving(modes);
    case.raise(&raise)?;
    let event = error(&case, &raise, "retire")?;
    case.hold(event.text("from") == Some("el2"), "EL2 to be interrupted")?;
    delivered(&case, 2, 0x000)?;
    case.event("retired", |_| true)?;
    case.line("victim", "victim: serror")?;
    case.lines("victim", "victim: alive", 3)?;
    for event in ["boot-error-record", "panic"] {
        case.never(event)?;
    }
    Ok(())
}

/// Without a record nobody knows what EL2 consumed. Conforming firmware does not even try to tell
/// it; where it does, EL2 goes down with a record of its own.
fn in_the_wait_unexplained(modes: &str, source: &str) -> Outcome {
    let (mut case, pa) = asleep()?;
    let mut raise = Raise::new(2, CONTROL_PE, RECOVERABLE, "recoverable")
        .at(pa)
        .sync("data", Some(FAR))
        .after_ticks(TEN_MS_TICKS)
        .behaving(modes);
    raise.no_record = source == "firmware";
    case.raise(&raise)?;
    let record = case.event("boot-error-record", |_| true)?;
    case.hold(
        record.text("source") == Some(source),
        &format!("the record to be the {source}'s"),
    )?;
    case.hold(
        record.num("pe") == Some(u64::from(CONTROL_PE)),
        "the PE to be recorded",
    )?;
    case.never("panic")?;
    case.lines("victim", "victim: alive", 2).map(drop)
}

/// What an SEA at EL2 came to.
#[derive(PartialEq, Eq, Debug)]
enum End {
    /// A guest was interrupted.
    Guest,
    /// EL2 began its way to the guest anew.
    Rewound,
    /// The machine was reset, with the place in the record.
    Reset,
}

/// Moments while a guest calls the hypervisor without pause, in instructions from one another.
fn wherever_it_strikes() -> Outcome {
    let mut ends = Vec::new();
    for moment in 0..60 {
        ends.push(strike(1_000_000 + 7 * moment)?);
        let both = [End::Rewound, End::Reset]
            .iter()
            .all(|end| ends.contains(end));
        if both {
            return Ok(());
        }
    }
    Err(failed(format!("EL2 was not met in both ways: {ends:?}")))
}

fn strike(delay_ticks: u64) -> Result<End, Failed> {
    let mut case = Case::start(with_firmware("bench")?.icount(true))?;
    case.line("bench", "bench: op=")?;
    case.forget();
    let raise = Raise::new(1, 0, RECOVERABLE, "recoverable")
        .sync("data", Some(FAR))
        .after_ticks(delay_ticks);
    case.raise(&raise)?;
    let line = case.wait("the hand-over", |record| {
        record.firmware("delivered").is_some()
    })?;
    let from = line
        .firmware("delivered")
        .and_then(|line| line.text("from"));
    let elr = line.firmware("delivered").and_then(|line| line.num("elr"));
    let end = case.wait("an error or a record of one", |record| {
        record.event("error").is_some() || record.event("boot-error-record").is_some()
    })?;
    let place = |event: &Event| event.hex("pc") == elr;
    if from != Some("el2") {
        case.hold(
            end.event("error").is_some(),
            "the guest's abort to be an error",
        )?;
        return Ok(End::Guest);
    }
    match (end.event("error"), end.event("boot-error-record")) {
        (Some(event), _) => {
            case.hold(place(event), "the error to name the instruction")?;
            case.hold(event.text("name") == Some("bench"), "the guest to be told")?;
            case.event("vserror", |_| true)?;
            Ok(End::Rewound)
        }
        (_, Some(event)) => {
            case.hold(place(event), "the record to name the instruction")?;
            case.hold(
                event.text("source") == Some("hypervisor"),
                "EL2's own record",
            )?;
            Ok(End::Reset)
        }
        _ => Err(failed("neither an error nor a record")),
    }
}
