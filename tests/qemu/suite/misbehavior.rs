// SPDX-License-Identifier: MIT OR Apache-2.0
//! A firmware that breaks the contract, one way in each case, and what the hypervisor makes of it.
//!
//! `docs/sei-contract.md` 11 has the table of which each case here shows one row. What strikes
//! EL2 at one instruction or another runs on a machine whose time is a count of instructions.

use firebreak_qemu::{Event, Raise, Record};
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, failed, field, trial, with_firmware};

const CE: u32 = 0x1811;
const UEO: u32 = 0x0811;
const UER: u32 = 0x0c11;
const UC: u32 = 0x0011;
/// PEs of the systems with two guests.
const CONTROL_PE: u8 = 0;
const VICTIM_PE: u8 = 1;
/// PE of the system `alone`.
const ONLY_PE: u8 = 0;
/// Class and length bit of an SError's ESR.
const SERROR: u64 = 0xbe00_0000;
/// The address that the firmware makes up when it lies (`platform/firmware`, `lie`).
const NOWHERE: u64 = 0x000f_dead_beef_f000;
/// Instructions from one look of the firmware to the next, its own way out of EL3 included: from
/// the vector's first ones to beyond the acknowledgement, at steps that share no factor with a loop.
const GAPS: [u64; 14] = [
    151, 163, 179, 197, 211, 233, 257, 283, 311, 353, 401, 487, 601, 907,
];

/// The same, but so far apart that EL2's handler has ended in between.
const ONE_AT_A_TIME: [u64; 5] = [1201, 1511, 2003, 4001, 10_007];

/// A case by its name.
type Named = (&'static str, fn() -> Outcome);

pub(crate) fn add(trials: &mut Vec<Trial>) {
    let cases: [Named; 13] = [
        ("storm", storm),
        ("handled_in_firmware", handled_in_firmware),
        ("barge_in", barge_in),
        ("routes_by_tea", || routes_by_tea("direct", "neoverse-n1")),
        ("routes_by_tea_without_feat_ras", || {
            routes_by_tea("two", "cortex-a72")
        }),
        ("notifies_uncontainable", notifies_uncontainable),
        ("no_record", no_record),
        ("early_overwrite", early_overwrite),
        ("cross_pe", cross_pe),
        ("slow_retry", slow_retry),
        ("lying_severities", lying_severities),
        ("lying_addresses_and_lengths", lying_addresses_and_lengths),
        ("deferral_limit", deferral_limit),
    ];
    for (name, case) in cases {
        trials.push(trial(format!("misbehavior::{name}"), case));
    }
}

/// Boots a system of two guests, and returns the machine and the victim page's physical address.
fn boot(system: &str) -> Result<(Case, u64), Failed> {
    boot_on(system, "neoverse-n1")
}

fn boot_on(system: &str, cpu: &str) -> Result<(Case, u64), Failed> {
    let case = Case::start(with_firmware(system)?.cpu(cpu).smp(2))?;
    case.line("control", "control: ready")?;
    victim_of(case)
}

/// Boots the victim alone, on a machine whose time is a count of instructions.
fn boot_alone() -> Result<(Case, u64), Failed> {
    victim_of(Case::start(with_firmware("alone")?.smp(1).icount(true))?)
}

fn victim_of(mut case: Case) -> Result<(Case, u64), Failed> {
    let ready = case.line("victim", "victim: ready")?;
    let page = field(&ready, "page").ok_or("the victim names no page")?;
    let pa = case.pa_of("victim", page)?;
    case.line("victim", "victim: alive")?;
    case.forget();
    Ok((case, pa))
}

/// The victim goes on, and the next error is handled like any other.
fn victim_is_well(case: &mut Case, pe: u8) -> Outcome {
    case.forget();
    // Longer than a second: after a storm the host is told of 64 errors a second.
    case.lines("victim", "victim: alive", 12)?;
    let raise = Raise::new(99, pe, CE, "corrected");
    case.raise(&raise)?;
    error(case, 99)?;
    case.firmware("acked", 99)?;
    case.never("killed")
}

/// Both guests go on, and the next error is handled like any other.
fn all_is_well(case: &mut Case) -> Outcome {
    victim_is_well(case, VICTIM_PE)?;
    case.lines("control", "control: ticks=", 2).map(drop)
}

fn error(case: &Case, id: u64) -> Result<Event, Failed> {
    case.event("error", |event| event.num("id") == Some(id))
}

fn count(case: &Case, fits: impl Fn(&Record) -> bool) -> usize {
    case.records().iter().filter(|record| fits(record)).count()
}

/// What the firmware says of a storm.
struct Account {
    raised: u64,
    delivered: u64,
    deferred: u64,
    taken: u64,
    acked: u64,
    dropped: u64,
}

/// Raises a storm of corrected errors, and returns its account.
fn storm_of(case: &mut Case, id: u64, pe: u8, words: &str) -> Result<Account, Failed> {
    let line = format!("storm id={id} pe={pe} iss={CE:x} sev=corrected {words}");
    case.machine.send_firmware(&line).map_err(failed)?;
    let over = case.wait("the end of the storm", |record| {
        let line = record.firmware("storm");
        line.is_some_and(|line| line.num("id") == Some(id))
    })?;
    let number = |key: &str| {
        let value = over.firmware("storm").and_then(|line| line.num(key));
        value.ok_or_else(|| failed(format!("no {key} in {over}")))
    };
    Ok(Account {
        raised: number("raised")?,
        delivered: number("delivered")?,
        deferred: number("deferred")?,
        taken: number("taken")?,
        acked: number("acked")?,
        dropped: number("dropped")?,
    })
}

/// Back to back: each error is raised as soon as the firmware sees the last one acknowledged. The
/// firmware's account balances, none is dropped, and the guests go on.
fn storm() -> Outcome {
    let (mut case, _) = boot("two")?;
    let account = storm_of(&mut case, 1000, VICTIM_PE, "count=2000")?;
    case.hold(
        (account.raised, account.acked, account.dropped) == (2000, 2000, 0),
        "each to be raised and acknowledged, and none to be dropped",
    )?;
    case.hold(
        account.delivered + account.taken == account.raised,
        "each to be handed over once",
    )?;
    all_is_well(&mut case)
}

/// The firmware keeps the error to itself for a while: nothing happens here.
fn handled_in_firmware() -> Outcome {
    let (mut case, pa) = boot("two")?;
    let raise = Raise::new(1, VICTIM_PE, UER, "recoverable").at(pa);
    case.raise(&raise.behaving("handled-in-firmware"))?;
    case.firmware("handled", 1)?;
    case.lines("victim", "victim: alive", 2)?;
    for event in ["error", "unclaimed", "unnotified", "retired"] {
        case.never(event)?;
    }
    all_is_well(&mut case)
}

/// SPSR_EL3.A holds nothing back any more: each error of the storms strikes where it strikes, far
/// enough from the last one that EL2 is done with that. The machine stays, and no record is lost;
/// what single instructions may cost the guest is for `cargo xtask sweep` to say.
fn barge_in() -> Outcome {
    let (mut case, _) = boot_alone()?;
    let behave = format!("behave pe={ONLY_PE} as=barge-in");
    case.machine.send_firmware(&behave).map_err(failed)?;
    case.wait("the firmware to obey", |record| {
        record.firmware("behaving").is_some()
    })?;
    for (round, gap) in (1..).zip(ONE_AT_A_TIME) {
        let words = format!("count=100 gap={gap}");
        let account = storm_of(&mut case, 1000 * round, ONLY_PE, &words)?;
        case.hold(
            (account.deferred, account.delivered, account.acked) == (0, 100, 100),
            "each to be delivered at once, and acknowledged",
        )?;
    }
    for event in ["panic", "boot-error-record"] {
        case.never(event)?;
    }
    // So many that not all were told one by one; a second later there is room again. An account that
    // came when the queue overflowed says nothing of that yet.
    case.event("queue", |event| event.num("suppressed") != Some(0))?;
    case.forget();
    case.raise(&Raise::new(99, ONLY_PE, CE, "corrected"))?;
    error(&case, 99)?;
    case.firmware("acked", 99)
}

/// HCR_EL2.TEA is 0, so the SEI goes to the guest, which takes it as its own. EL2 comes upon the
/// record by itself, and the page goes.
fn routes_by_tea(system: &str, cpu: &str) -> Outcome {
    let (mut case, pa) = boot_on(system, cpu)?;
    let raise = Raise::new(1, VICTIM_PE, UER, "recoverable").at(pa);
    case.raise(&raise.in_guest().behaving("routes-by-tea"))?;
    let line = case.line("victim", "victim: serror")?;
    case.wait("the SEI to go to EL1 itself", |record| {
        let line = record.firmware("delivered");
        line.is_some_and(|line| line.text("vector") == Some("0x380"))
    })?;
    case.hold(
        field(&line, "esr") == Some(SERROR | u64::from(UER)),
        "the victim to take the firmware's own syndrome",
    )?;
    let found = case.event("unnotified", |_| true)?;
    case.hold(
        found.num("pe") == Some(u64::from(VICTIM_PE)),
        "the PE to be told",
    )?;
    let event = error(&case, 1)?;
    case.hold(event.hex("pa") == Some(pa), "the address to be found")?;
    case.hold(
        event.text("severity") == Some("UER"),
        "the syndrome to be found in the record, or the record to stand alone",
    )?;
    case.event("retired", |_| true)?;
    case.firmware("acked", 1)?;
    all_is_well(&mut case)
}

/// The firmware hands over what nobody can contain: EL2 resets the machine with a record.
fn notifies_uncontainable() -> Outcome {
    let (mut case, pa) = boot("two")?;
    let raise = Raise::new(1, VICTIM_PE, UC, "fatal").at(pa);
    case.raise(&raise.in_guest().behaving("notifies-uncontainable"))?;
    case.firmware("delivered", 1)?;
    case.wait("EL2 to ask for the reset", |record| {
        let reset = record.firmware("reset");
        reset.is_some_and(|line| line.text("reason") == Some("fatal-call"))
    })?;
    case.event("boot", |_| true)?;
    let record = case.event("boot-error-record", |_| true)?;
    case.hold(
        record.text("source") == Some("hypervisor"),
        "the hypervisor's own record",
    )?;
    case.hold(record.text("severity") == Some("UC"), "severity UC")?;
    case.hold(record.hex("pa") == Some(pa), "the address to survive")?;
    all_is_well(&mut case)
}

/// The record never comes: the partition that was interrupted answers for it.
fn no_record() -> Outcome {
    let (mut case, pa) = boot("two")?;
    let raise = Raise::new(1, VICTIM_PE, UEO, "recoverable").at(pa);
    case.raise(&raise.in_guest().behaving("no-record"))?;
    case.event("unclaimed", |event| {
        event.num("pe") == Some(u64::from(VICTIM_PE))
    })?;
    case.event_of("killed", "victim")?;
    case.forget();
    case.lines("control", "control: ticks=", 2).map(drop)
}

/// A second record is written over the first, at one instruction after the other of EL2's look at
/// it. Each report is of one record, whole, or of an error that nobody can explain; and each error
/// is reported.
fn early_overwrite() -> Outcome {
    let (mut case, pa) = boot_alone()?;
    let mut lost = 0;
    for (round, gap) in (1..).zip(GAPS) {
        case.forget();
        let id = 1000 * round;
        let words =
            format!("count=2 gap={gap} pa={pa:x} step=40 in=guest as=early-overwrite+slow-retry");
        let account = storm_of(&mut case, id, ONLY_PE, &words)?;
        case.hold(account.raised == 2, "both to be raised")?;
        let reports = case.machine.wait_until(
            "an answer to both errors",
            case.mark(),
            Case::patience(),
            |records| {
                let events = |name| records.iter().filter_map(move |record| record.event(name));
                let errors: Vec<Event> = events("error").cloned().collect();
                (errors.len() >= 2).then_some(errors)
            },
        );
        for event in reports.map_err(failed)? {
            if event.text("cper") == Some("none") {
                lost += 1;
                continue;
            }
            let number = event.num("id").and_then(|own| own.checked_sub(id));
            let address = number.map(|number| pa + 0x40 * number);
            case.hold(
                number.is_some_and(|number| number < 2) && event.hex("pa") == address,
                &format!("gap {gap}: number and address of the same record"),
            )?;
        }
        case.hold(
            lost != 0 || account.dropped == 0,
            "what was overwritten to be reported without a record",
        )?;
    }
    case.hold(lost != 0, "at least one record to have been overwritten")?;
    case.never("killed")?;
    victim_is_well(&mut case, ONLY_PE)
}

/// Two PEs report the same error, and leave EL3 together: both contexts are judged, both records
/// acknowledged, and the page goes once.
fn cross_pe() -> Outcome {
    let (mut case, pa) = boot("two")?;
    let raise = Raise::new(1, CONTROL_PE, UER, "recoverable").at(pa);
    let raise = raise.in_guest().with(VICTIM_PE).behaving("cross-pe");
    case.raise(&raise)?;
    for (pe, name) in [(CONTROL_PE, "control"), (VICTIM_PE, "victim")] {
        let event = case.event("error", |event| event.num("pe") == Some(u64::from(pe)))?;
        case.hold(
            event.num("id") == Some(1) && event.hex("pa") == Some(pa),
            "the same error on both PEs",
        )?;
        case.hold(
            event.text("name") == Some(name),
            "each context to be judged",
        )?;
        case.wait("the acknowledgement", |record| {
            let line = record.firmware("acked");
            line.is_some_and(|line| line.num("pe") == Some(u64::from(pe)))
        })?;
    }
    case.line("victim", "victim: abort")?;
    let retired = count(&case, |record| record.event("retired").is_some());
    case.hold(retired == 1, "the page to be retired once")?;
    let alone = count(&case, |record| {
        let line = record.firmware("error");
        line.is_some_and(|line| line.text("text") == Some("nobody-met"))
    });
    case.hold(alone == 0, "the two to have met")?;
    all_is_well(&mut case)
}

/// What the firmware does not try again in time, EL2 takes by itself.
fn slow_retry() -> Outcome {
    let (mut case, _) = boot_alone()?;
    let mut taken = 0;
    for (round, gap) in (1..).zip(GAPS) {
        let words = format!("count=20 gap={gap} as=slow-retry");
        let account = storm_of(&mut case, 1000 * round, ONLY_PE, &words)?;
        case.hold(
            account.taken == account.deferred,
            "each that was deferred to be taken by EL2",
        )?;
        case.hold(
            (account.delivered + account.taken, account.acked) == (20, 20),
            "each to be handed over once, and acknowledged",
        )?;
        taken += account.taken;
    }
    case.hold(taken != 0, "at least one to have been deferred")?;
    victim_is_well(&mut case, ONLY_PE)
}

/// The block says that the error was corrected, its sections that it was not: the worse one wins.
fn lying_severities() -> Outcome {
    let (mut case, pa) = boot("two")?;
    let raise = Raise::new(1, VICTIM_PE, CE, "recoverable").at(pa);
    case.raise(&raise.in_guest().behaving("lying-severities"))?;
    let event = error(&case, 1)?;
    case.hold(
        event.text("severity") == Some("UER") && event.text("verdict") == Some("retire"),
        "the worse severity to win",
    )?;
    case.event("retired", |_| true)?;
    case.firmware("acked", 1)?;
    all_is_well(&mut case)
}

/// An address that nobody owns costs nobody a page; a section that is too long ends the reading,
/// and what was read before it counts.
fn lying_addresses_and_lengths() -> Outcome {
    let (mut case, pa) = boot("two")?;
    let raise = Raise::new(1, VICTIM_PE, CE, "corrected").at(pa);
    case.raise(&raise.in_guest().behaving("lying-addresses"))?;
    let event = error(&case, 1)?;
    case.hold(
        event.hex("pa") == Some(NOWHERE) && event.num("page_vm").is_none(),
        "nobody to own the address",
    )?;
    case.hold(event.text("verdict") == Some("log"), "the verdict `log`")?;
    case.firmware("acked", 1)?;

    let raise = Raise::new(2, VICTIM_PE, CE, "corrected").at(pa);
    case.raise(&raise.in_guest().behaving("lying-lengths"))?;
    // The section with the number is the one that cannot be read.
    let event = case.event("error", |event| event.hex("pa") == Some(pa))?;
    case.hold(
        event.text("cper") == Some("corrected") && event.text("verdict") == Some("log"),
        "the sections before the broken one to count",
    )?;
    case.firmware("acked", 2)?;

    let raise = Raise::new(3, VICTIM_PE, UER, "recoverable").at(pa);
    case.raise(&raise.in_guest().behaving("lying-record"))?;
    let event = case.event("error", |event| event.text("severity") == Some("UER"))?;
    case.hold(event.hex("pa") == Some(NOWHERE), "the made-up address")?;
    case.line("victim", "victim: serror")?;
    case.firmware("acked", 3)?;
    case.never("retired")?;
    all_is_well(&mut case)
}

/// A hypervisor that never gets ready: a corrected error waits for as long as it takes, an
/// uncorrected one, though it waits behind that, resets the machine when the limit is reached.
fn deferral_limit() -> Outcome {
    let mut case = Case::start(with_firmware("four")?.smp(2).icount(true))?;
    case.event("halt", |_| true)?;
    case.raise(&Raise::new(1, CONTROL_PE, CE, "corrected"))?;
    case.firmware("deferred", 1)?;
    case.raise(&Raise::new(2, CONTROL_PE, UEO, "recoverable"))?;
    case.firmware("deferred", 2)?;
    case.firmware("reset", 2)?;
    case.wait("the limit to be the reason", |record| {
        let reset = record.firmware("reset");
        reset.is_some_and(|line| line.text("reason") == Some("deferral-limit"))
    })?;
    case.forget();
    case.event("halt", |_| true).map(drop)
}
