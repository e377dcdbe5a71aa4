// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose memory an error hit, and what follows: each part of the machine, corrected and not.
//!
//! Where each part of the hypervisor stands is not written down here: a corrected error in each of
//! its pages, which costs nothing, makes it say so itself.

use std::collections::BTreeMap;
use std::sync::Mutex;

use firebreak_qemu::{Event, Raise};
use libtest_mimic::{Failed, Trial};

use crate::errors::{boot, boot_machine, control_ticks, victim_loses_page, victim_takes};
use crate::harness::{Case, Outcome, failed, trial, with_firmware};

mod together;

const CE: u32 = 0x1811;
const UER: u32 = 0x0c11;
const UEU: u32 = 0x0411;
const CPU: &str = "neoverse-n1";
/// PEs of the system `two` and of those like it.
const CONTROL_PE: u8 = 0;
const VICTIM_PE: u8 = 1;
/// Partitions by number.
const CONTROL: u64 = 0;
const VICTIM: u64 = 1;

/// Between two batches of questions: a PE tells of 64 errors a second one by one, and of 256 more at
/// once (`docs/architecture.md`). An eighth of a second with the counter of QEMU's `virt`.
const BATCH_TICKS: u64 = 8_000_000;
const PAGE_BYTES: u64 = 0x1000;
/// Where the image is loaded, and where the partitions' memory begins.
const HYPERVISOR: std::ops::Range<u64> = 0x4020_0000..0x4040_0000;
/// Addresses outside of it, by `docs/sei-contract.md` and QEMU's `virt`, with 1 GiB of RAM.
const OUTSIDE: [(u64, &str); 9] = [
    (0x4000_0000, "unused"),
    (0x4010_0000, "firmware"),
    (0x4018_0000, "firmware"),
    (0x4019_0000, "hypervisor-log"),
    (0x0800_0000, "device"),
    (0x0900_0000, "device"),
    (0x0b00_0000, "unknown"),
    (0x7fff_f000, "unused"),
    (0x8000_0000, "unknown"),
];
/// What the machine cannot do without.
const VITAL: [&str; 6] = [
    "hypervisor-text",
    "hypervisor-rodata",
    "hypervisor-data",
    "hypervisor-stack",
    "hypervisor-tables",
    "firmware",
];

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("attribution::corrected_in_each_page", map));
    for class in VITAL {
        trials.push(trial(
            format!("attribution::recoverable_resets::{class}"),
            move || vital(class),
        ));
    }
    for (class, rule) in [
        ("hypervisor-log", "persistent-log"),
        ("payload", "payload"),
        ("hypervisor-pool", "pool-frame"),
    ] {
        trials.push(trial(
            format!("attribution::recoverable_is_given_up::{class}"),
            move || dispensable(class, rule),
        ));
    }
    for (class, verdict, rule) in [
        ("unused", "log", "unused-memory"),
        ("device", "inject", "no-page"),
        ("unknown", "inject", "no-page"),
    ] {
        trials.push(trial(
            format!("attribution::recoverable_without_an_owner::{class}"),
            move || nobodys(class, verdict, rule),
        ));
    }
    for (name, test) in [
        ("a_bad_frame_is_never_handed_out", frame as fn() -> Outcome),
        ("bad_tables_stop_their_partition_alone", tables),
        ("bad_tables_are_built_anew", renewed_tables),
        ("a_bad_payload_is_not_loaded_again", payload),
        ("too_many_corrected_retire_a_page_early", worn),
        ("a_window_of_time_ends", window),
        ("two_errors_at_once", together::two_at_once),
        (
            "errors_while_another_is_recovered_from",
            together::storm_beside,
        ),
        (
            "corrected_in_the_recovery_itself",
            together::corrected_in_recovery,
        ),
        (
            "recoverable_in_the_recovery_itself",
            together::recoverable_in_recovery,
        ),
        (
            "regression_an_error_of_one_life_was_told_to_the_next",
            together::told_to_the_next_life,
        ),
        ("the_event_says_which_side_was_worse", evidence),
    ] {
        trials.push(trial(format!("attribution::{name}"), test));
    }
}

/// Waits for the event of an error, and holds what decided it.
fn decided(
    case: &Case,
    raise: &Raise,
    class: &str,
    decision: (&str, &str),
) -> Result<Event, Failed> {
    let event = case.event("error", |event| event.num("id") == Some(raise.id))?;
    let (verdict, rule) = decision;
    for (key, wanted) in [("owner_class", class), ("verdict", verdict), ("rule", rule)] {
        case.hold(
            event.text(key) == Some(wanted),
            &format!("error {} to have {key} = {wanted}", raise.id),
        )?;
    }
    Ok(event)
}

/// Raises corrected errors at addresses, and returns what the hypervisor says of each: the owner's
/// class, and the partition if it is one's.
fn ask(
    case: &mut Case,
    first_id: u64,
    addresses: &[u64],
) -> Result<Vec<(String, Option<u64>)>, Failed> {
    let mut answers = Vec::new();
    // As many as the firmware can hold back.
    for (batch, addresses) in addresses.chunks(8).enumerate() {
        let id_of = |index: usize| first_id + 8 * batch as u64 + index as u64;
        for (index, pa) in addresses.iter().enumerate() {
            let raise = Raise::new(id_of(index), VICTIM_PE, CE, "corrected")
                .at(*pa)
                .after_ticks(BATCH_TICKS);
            case.machine.send_raise(&raise).map_err(failed)?;
        }
        for index in 0..addresses.len() {
            let event = case.event("error", |event| event.num("id") == Some(id_of(index)))?;
            case.hold(
                event.text("verdict") == Some("log"),
                "a corrected error to be logged",
            )?;
            let class = event.text("owner_class").unwrap_or_default().to_owned();
            answers.push((class, event.num("page_vm")));
        }
        case.forget();
    }
    Ok(answers)
}

/// The pages of a class in the image of a system, found once for each system.
fn pages_of(system: &str, class: &str) -> Result<Vec<u64>, Failed> {
    type Map = BTreeMap<String, Vec<u64>>;
    static MAPS: Mutex<BTreeMap<String, Map>> = Mutex::new(BTreeMap::new());
    let mut maps = MAPS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if !maps.contains_key(system) {
        let (mut case, _) = boot(system, CPU)?;
        let mut map = Map::new();
        let pages: Vec<u64> = HYPERVISOR.step_by(PAGE_BYTES as usize).collect();
        let classes = ask(&mut case, 1_000_000, &pages)?;
        let others = OUTSIDE.map(|(pa, class)| (pa, class.to_owned()));
        let inside = pages
            .into_iter()
            .zip(classes)
            .map(|(pa, (class, vm))| match vm {
                // Tables and payloads are somebody's.
                Some(vm) => (pa, format!("{class} {vm}")),
                None => (pa, class),
            });
        for (pa, class) in inside.chain(others) {
            map.entry(class).or_default().push(pa);
        }
        maps.insert(system.to_owned(), map);
    }
    let pages = maps.get(system).and_then(|map| map.get(class)).cloned();
    pages.ok_or_else(|| failed(format!("no page of {system} is {class}: {maps:x?}")))
}

/// Returns one page of a class; of the partition `victim` where partitions have some.
fn page_of(system: &str, class: &str) -> Result<u64, Failed> {
    let key = match class {
        "payload" | "stage2-tables" => format!("{class} {VICTIM}"),
        _ => class.to_owned(),
    };
    let pages = pages_of(system, &key)?;
    pages
        .first()
        .copied()
        .ok_or_else(|| failed("an empty class"))
}

/// A corrected error anywhere is logged and hurts nobody; each part of the hypervisor is there, in
/// the order in which it was laid out; and what is outside of it belongs to whom it should.
fn map() -> Outcome {
    let (mut case, _) = boot("two", CPU)?;
    let pages: Vec<u64> = HYPERVISOR.step_by(PAGE_BYTES as usize).collect();
    let mut order = ask(&mut case, 1, &pages)?;
    order.dedup();
    let names: Vec<&str> = order.iter().map(|(class, _)| class.as_str()).collect();
    let first = |class: &str| names.iter().position(|name| *name == class);
    let laid_out = [
        "hypervisor-text",
        "hypervisor-rodata",
        "hypervisor-data",
        "payload",
        "hypervisor-tables",
        "hypervisor-stack",
    ];
    let places: Vec<Option<usize>> = laid_out.iter().map(|class| first(class)).collect();
    // Tables are made of frames of the pool, wherever it has some.
    let pool = ["stage2-tables", "hypervisor-pool"];
    let behind = |class: &str| first(class) > first("hypervisor-stack");
    case.hold(
        places.iter().all(Option::is_some) && places.is_sorted() && pool.into_iter().all(behind),
        &format!("each part in its place: {order:?}"),
    )?;
    for class in ["stage2-tables", "payload"] {
        for vm in [CONTROL, VICTIM] {
            case.hold(
                order.contains(&(class.to_owned(), Some(vm))),
                &format!("{class} of partition {vm}: {order:?}"),
            )?;
        }
    }
    let (addresses, wanted): (Vec<u64>, Vec<&str>) = OUTSIDE.into_iter().unzip();
    let found = ask(&mut case, 10_000, &addresses)?;
    let found: Vec<&str> = found.iter().map(|(class, _)| class.as_str()).collect();
    case.hold(found == wanted, &format!("{wanted:?}: {found:?}"))?;
    case.lines("victim", "victim: alive", 2)?;
    control_ticks(&case)?;
    for event in ["vserror", "retired", "abort", "killed", "given-up", "boot"] {
        case.never(event)?;
    }
    Ok(())
}

/// Memory that everything rests on: the machine is reset, and the next boot says why.
fn vital(class: &str) -> Outcome {
    let rule = match class {
        "firmware" => "firmware-memory",
        _ => "hypervisor-memory",
    };
    let pa = page_of("two", class)?;
    let (mut case, _) = boot("two", CPU)?;
    let raise = Raise::new(1, VICTIM_PE, UER, "recoverable")
        .at(pa)
        .in_guest();
    case.raise(&raise)?;
    let record = case.event("boot-error-record", |_| true)?;
    case.hold(
        record.hex("pa") == Some(pa),
        "the address to survive the reset",
    )?;
    let crash = case.event("crash", |_| true)?;
    case.hold(
        crash.text("text") == Some(rule),
        "the crash page to name the rule",
    )?;
    case.hold(
        record.text("source") == Some("hypervisor"),
        "the hypervisor to have left the record",
    )?;
    case.hold(
        record.num("vm") == Some(VICTIM),
        "the victim to have been interrupted",
    )?;
    case.lines("victim", "victim: alive", 2)?;
    control_ticks(&case)
}

/// Memory that the hypervisor can do without: the interrupted guest is not told of it.
fn dispensable(class: &str, rule: &str) -> Outcome {
    let pa = page_of("two", class)?;
    let (mut case, _) = boot("two", CPU)?;
    let raise = Raise::new(1, VICTIM_PE, UER, "recoverable")
        .at(pa)
        .in_guest();
    case.raise(&raise)?;
    decided(&case, &raise, class, ("give-up", rule))?;
    let given_up = case.event("given-up", |_| true)?;
    case.hold(given_up.hex("pa") == Some(pa), "the page to be given up")?;
    case.hold(given_up.text("what") == Some(class), "the class to be told")?;
    case.lines("victim", "victim: alive", 2)?;
    control_ticks(&case)?;
    for event in ["vserror", "retired", "abort", "killed", "boot"] {
        case.never(event)?;
    }
    Ok(())
}

/// Memory that nobody has, and what is no memory: the context alone decides.
fn nobodys(class: &str, verdict: &str, rule: &str) -> Outcome {
    let pa = page_of("two", class)?;
    let (mut case, _) = boot("two", CPU)?;
    let raise = Raise::new(1, VICTIM_PE, UER, "recoverable")
        .at(pa)
        .in_guest();
    case.raise(&raise)?;
    decided(&case, &raise, class, (verdict, rule))?;
    if verdict == "inject" {
        victim_takes(&case, u64::from(UER))?;
    } else {
        case.lines("victim", "victim: alive", 2)?;
        case.never("vserror")?;
    }
    control_ticks(&case)?;
    case.never("retired")?;
    case.never("killed")
}

/// The next frame that would become a table goes bad: another one becomes a table, and the map
/// knows both for what they are.
fn frame() -> Outcome {
    let free = pages_of("two", "hypervisor-pool")?;
    let (next, other) = match free.as_slice() {
        [next, other, ..] => (*next, *other),
        _ => return Err(failed("the pool has no two free frames")),
    };
    let (mut case, page) = boot("two", CPU)?;
    let bad = Raise::new(1, CONTROL_PE, UER, "recoverable")
        .at(next)
        .in_guest();
    case.raise(&bad)?;
    decided(&case, &bad, "hypervisor-pool", ("give-up", "pool-frame"))?;
    // The victim's page is part of a block of 2 MiB, which takes a table to be split.
    let split = Raise::new(2, VICTIM_PE, UER, "recoverable")
        .at(page)
        .in_guest();
    case.raise(&split)?;
    decided(&case, &split, "partition", ("retire", "own-page"))?;
    victim_takes(&case, u64::from(UER))?;
    victim_loses_page(&case)?;
    let found = ask(&mut case, 10, &[next, other])?;
    let wanted = [
        ("hypervisor-pool".to_owned(), None),
        ("stage2-tables".to_owned(), Some(VICTIM)),
    ];
    case.hold(found == wanted, &format!("{wanted:?}: {found:?}"))?;
    case.lines("victim", "victim: alive", 2)?;
    control_ticks(&case)
}

/// The victim's tables go bad while the control guest runs: the victim alone stops.
fn tables() -> Outcome {
    let pa = page_of("two", "stage2-tables")?;
    let (mut case, _) = boot("two", CPU)?;
    let raise = Raise::new(1, CONTROL_PE, UER, "recoverable")
        .at(pa)
        .in_guest();
    case.raise(&raise)?;
    let event = decided(
        &case,
        &raise,
        "stage2-tables",
        ("kill", "translation-tables"),
    )?;
    case.hold(
        event.num("page_vm") == Some(VICTIM),
        "the tables to be the victim's",
    )?;
    case.hold(
        event.num("vm") == Some(CONTROL),
        "the control guest to be interrupted",
    )?;
    case.event_of("killed", "victim")?;
    case.event_of("stopped", "victim")?;
    case.forget();
    control_ticks(&case)?;
    case.never("killed")?;
    case.never("boot")
}

/// A partition that starts again has other tables, and they work.
fn renewed_tables() -> Outcome {
    let pa = page_of("worn", "stage2-tables")?;
    let (mut case, page) = boot("worn", CPU)?;
    let raise = Raise::new(1, VICTIM_PE, UER, "recoverable")
        .at(pa)
        .in_guest();
    case.raise(&raise)?;
    // A milder reaction than to stop does not help, so this is a kill; `on_kill` starts it again.
    decided(
        &case,
        &raise,
        "stage2-tables",
        ("kill", "translation-tables"),
    )?;
    case.event_of("restart", "victim")?;
    case.lines("victim", "victim: alive", 2)?;
    case.forget();
    let found = ask(&mut case, 10, &[pa])?;
    case.hold(
        found == [("hypervisor-pool".to_owned(), None)],
        &format!("the bad frame to hold tables no more: {found:?}"),
    )?;
    let raise = Raise::new(2, VICTIM_PE, UER, "recoverable")
        .at(page)
        .in_guest();
    case.raise(&raise)?;
    decided(&case, &raise, "partition", ("retire", "own-page"))?;
    victim_takes(&case, u64::from(UER))?;
    victim_loses_page(&case)?;
    control_ticks(&case)
}

/// The image in memory that the victim was loaded from goes bad: it lives on, but only once.
fn payload() -> Outcome {
    let pa = page_of("worn", "payload")?;
    let (mut case, _) = boot("worn", CPU)?;
    let bad = Raise::new(1, CONTROL_PE, UER, "recoverable")
        .at(pa)
        .in_guest();
    case.raise(&bad)?;
    let event = decided(&case, &bad, "payload", ("give-up", "payload"))?;
    case.hold(
        event.num("page_vm") == Some(VICTIM),
        "the image to be the victim's",
    )?;
    case.lines("victim", "victim: alive", 2)?;
    let end = Raise::new(2, VICTIM_PE, UEU, "recoverable").in_guest();
    case.raise(&end)?;
    case.event_of("restart", "victim")?;
    let stopped = case.event_of("stopped", "victim")?;
    case.hold(
        stopped
            .text("reason")
            .is_some_and(|reason| reason.contains("uncorrected error")),
        "the victim to stay down because of its image",
    )?;
    case.forget();
    control_ticks(&case)
}

/// The third corrected error on one page retires it, and the next life does without.
fn worn() -> Outcome {
    let (mut case, _) = boot("worn", CPU)?;
    // Not the page that it tries: the guest clears that one when it starts, and needs it for it.
    let page = spare_page(&case, "victim")?;
    for (id, decision) in [
        (1, ("log", "corrected")),
        (2, ("log", "corrected")),
        (3, ("retire-early", "worn-page")),
    ] {
        // On either PE: the count is the page's.
        let pe = if id == 2 { CONTROL_PE } else { VICTIM_PE };
        let raise = Raise::new(id, pe, CE, "corrected").at(page + 8 * id);
        case.raise(&raise)?;
        let event = decided(&case, &raise, "partition", decision)?;
        case.hold(
            event.num("corrected_on_page") == Some(id) && event.num("corrected_limit") == Some(3),
            &format!("corrected error {id} of 3"),
        )?;
    }
    // Its content is good still.
    case.lines("victim", "victim: alive", 2)?;
    case.never("retired")?;
    case.never("vserror")?;
    let end = Raise::new(4, VICTIM_PE, UEU, "recoverable").in_guest();
    case.raise(&end)?;
    case.event_of("restart", "victim")?;
    let retired = case.event("retired", |_| true)?;
    case.hold(
        retired.hex("pa") == Some(page & !0xfff),
        "that page to be retired",
    )?;
    case.line("victim", "victim: ready")?;
    case.forget();
    case.lines("victim", "victim: alive", 2)?;
    control_ticks(&case)
}

/// Corrected errors count together for as long as the window lasts, and no longer.
fn window() -> Outcome {
    let machine = with_firmware("worn")?.smp(2).icount(true);
    let (mut case, _) = boot_machine(machine)?;
    let page = spare_page(&case, "control")?;
    // One tick is a nanosecond here, and the window of this partition a second.
    for (id, delay_ticks, decision, count) in [
        (1, 0, ("log", "corrected"), 1),
        (2, 1_500_000_000, ("log", "corrected"), 1),
        (3, 0, ("retire-early", "worn-page"), 2),
    ] {
        let raise = Raise::new(id, VICTIM_PE, CE, "corrected")
            .at(page)
            .after_ticks(delay_ticks);
        case.raise(&raise)?;
        let event = decided(&case, &raise, "partition", decision)?;
        case.hold(
            event.num("corrected_on_page") == Some(count),
            &format!("error {id} to count {count}"),
        )?;
    }
    Ok(())
}

/// Returns the physical address of a page that neither of the two guests uses: in the middle of a
/// partition's memory.
fn spare_page(case: &Case, partition: &str) -> Result<u64, Failed> {
    const MIDDLE_IPA: u64 = 0x4080_0000;
    case.pa_of(partition, MIDDLE_IPA)
}

/// The event names the severity that each side brought; the worse one decided.
fn evidence() -> Outcome {
    let (mut case, page) = boot("two", CPU)?;
    for (id, iss, record, sides, severity) in [
        (1, CE, "corrected", ("CE", "CE"), "CE"),
        (2, 0x0811, "corrected", ("UEO", "CE"), "UEO"),
        (3, CE, "recoverable", ("CE", "UER"), "UER"),
    ] {
        let raise = Raise::new(id, VICTIM_PE, iss, record).at(page).in_guest();
        case.raise(&raise)?;
        let event = case.event("error", |event| event.num("id") == Some(id))?;
        let found = [
            "syndrome_severity",
            "record_severity",
            "severity",
            "context",
        ];
        let found = found.map(|key| event.text(key).unwrap_or_default());
        let wanted = [sides.0, sides.1, severity, "guest"];
        case.hold(found == wanted, &format!("{wanted:?}: {found:?}"))?;
    }
    control_ticks(&case)
}
