// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Debian's kernel does with each class of error: the table of `docs/linux-reactions.md`.
//!
//! The table is written down in `table`, from the kernel's source, and each row of it is held
//! against the kernel that the suite boots. The document carries the same table; a trial compares
//! them. One boot serves many rows: a kernel that panics is started again by its policy.

mod judge;
mod table;

use firebreak_qemu::Event;
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, bare, failed, trial};
use judge::Hit;
use table::{Fault, Place, Row, rows};

/// Rows that are run in one machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    UserSpace,
    Kernel,
    Elsewhere,
    RasHidden,
}

impl Group {
    const ALL: [Self; 4] = [
        Self::UserSpace,
        Self::Kernel,
        Self::Elsewhere,
        Self::RasHidden,
    ];

    fn of(place: Place, visible: bool) -> Self {
        match place {
            _ if !visible => Self::RasHidden,
            Place::User => Self::UserSpace,
            Place::Kernel => Self::Kernel,
            _ => Self::Elsewhere,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::UserSpace => "user_space",
            Self::Kernel => "kernel",
            Self::Elsewhere => "elsewhere",
            Self::RasHidden => "ras_hidden",
        }
    }
}

/// How often a place that the kernel is brought to by chance is tried to be hit.
const TRIES: u32 = 60;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    for group in Group::ALL {
        // The kernel is brought there by chance, and on a loaded host not always in time: a suite
        // that decides on others' work cannot rest on that.
        if group == Group::Elsewhere && std::env::var_os("FIREBREAK_ELSEWHERE").is_none() {
            continue;
        }
        let name = format!("linux::reactions::{}", group.name());
        trials.push(trial(name, move || react(group)));
    }
    trials.push(trial(
        "linux::reactions::are_in_the_document",
        table::document,
    ));
}

/// Boots, and hits the kernel by each row.
fn react(group: Group) -> Outcome {
    let visible = group != Group::RasHidden;
    let system = if visible {
        "reactions-visible"
    } else {
        "reactions-hidden"
    };
    let mut case = Case::start(bare(system)?.smp(2))?;
    case.line("linux", "agent: ready")?;
    let mut judge = judge::Judge::default();
    for row in rows(visible) {
        if Group::of(row.place, visible) != group || is_a_gamble(&row) {
            continue;
        }
        run(&mut case, &mut judge, &row, visible).map_err(|error| {
            let why = error.message().unwrap_or("it failed");
            Failed::from(format!("{}, {}: {why}", row.place.words(), row.what))
        })?;
    }
    Ok(())
}

/// An abort in the idle task may find it with a lock that the kernel's own report of it needs: then
/// the kernel hangs without a word, and that is not what the row is about. Such rows are run when
/// somebody asks for them, by `FIREBREAK_IDLE_ABORTS=1`.
fn is_a_gamble(row: &Row) -> bool {
    let is_abort = matches!(row.fault, Fault::Abort { .. });
    let is_asked_for = std::env::var_os("FIREBREAK_IDLE_ABORTS").is_some();
    row.place == Place::Idle && is_abort && !is_asked_for
}

/// Hits the kernel by a row until it was hit where the row wants it, and holds what it did.
fn run(case: &mut Case, judge: &mut judge::Judge, row: &Row, visible: bool) -> Outcome {
    let mut elsewhere = Vec::new();
    for _ in 0..TRIES {
        case.forget();
        let hit = hit(case, row, visible)?;
        if judge.is_there(case, row, &hit)? {
            return Ok(());
        }
        elsewhere.push(hit.place);
    }
    Err(failed(format!(
        "the kernel was never hit there, but at {elsewhere:x?}"
    )))
}

/// Brings the kernel where it is to be hit, and hits it.
fn hit(case: &mut Case, row: &Row, visible: bool) -> Result<Hit, Failed> {
    let inj = match row.place {
        Place::Start => at_start(case, row, 0, |case| case.order("restart linux").map(drop))?,
        Place::SecondStart => at_start(case, row, 1, |case| {
            case.machine.type_into(0, "cpu1 on\n").map_err(failed)
        })?,
        place => {
            if place == Place::PanicOnOops {
                type_in(case, "oops", "agent: panics on oops")?;
            }
            let (command, answer) = place.brought_by();
            type_in(case, command, answer)?;
            if row.place.is_probed() && visible {
                probe(case)?;
            }
            case.inject(&format!("linux {}", row.command()))?
        }
    };
    match row.fault {
        Fault::Serror(_) => followed(case, row, inj),
        Fault::Abort { .. } => {
            let event = case.event("vsea", |event| event.num("inj") == Some(inj))?;
            case.hold(
                event.hex("esr") == Some(row.esr()),
                &format!("the syndrome {:#x}", row.esr()),
            )?;
            at_level(case, row, &event)
        }
    }
}

/// Waits until the kernel has come back from printing: a corrected error tells when it is in user
/// space, and does nothing to it.
fn probe(case: &mut Case) -> Outcome {
    let inj = case.inject("linux vcpu=0 el=0 serror iss=0x1811")?;
    let taken = case.injection(inj, "taken")?;
    case.hold(taken.text("el") == Some("el0"), "the probe to be at EL0")
}

/// Leaves an injection for the start of a vCPU, and starts it.
fn at_start(
    case: &mut Case,
    row: &Row,
    vcpu: u64,
    start: impl FnOnce(&mut Case) -> Outcome,
) -> Result<u64, Failed> {
    const ID: u64 = 800;
    let command = format!("inject linux {}", row.command());
    let line = [b"\x01:", format!("{command} id={ID}\n").as_bytes()].concat();
    case.machine.type_raw(&line).map_err(failed)?;
    // The order is left there before another one is refused for it.
    case.refused(
        &format!("inject linux vcpu={vcpu} serror"),
        "another injection waits",
    )?;
    case.forget();
    start(case)?;
    case.answer(ID, &command)?
        .num("inj")
        .ok_or_else(|| failed("the answer names no injection"))
}

/// Follows a virtual SError until the guest has taken it: at once, or when it unmasks SError.
fn followed(case: &Case, row: &Row, inj: u64) -> Result<Hit, Failed> {
    let of = |event: &Event| event.num("inj") == Some(inj);
    let taken = case.event("vserror", |event| {
        of(event) && event.text("state") != Some("pending")
    })?;
    let was_pending = case.records().iter().any(|record| {
        record.event("vserror").is_some_and(of) && {
            record
                .event("vserror")
                .and_then(|event| event.text("state"))
                == Some("pending")
        }
    });
    let masked = row.place.is_masked();
    // Another exception may hide that the kernel took it; then its own words have to tell.
    let state = taken.text("state").unwrap_or_default();
    case.hold(
        (state == "taken" || masked && state == "gone")
            && taken.flag("exact") == Some(!masked)
            && was_pending == masked,
        if masked {
            "the SError to be pending until the kernel unmasks it, and taken then"
        } else {
            "the SError to be taken at once"
        },
    )?;
    case.hold(
        taken.hex("syndrome") == Some(row.esr() & 0x1ff_ffff),
        "the event's syndrome",
    )?;
    if state == "gone" {
        return Ok(Hit { place: None });
    }
    at_level(case, row, &taken)
}

fn at_level(case: &Case, row: &Row, event: &Event) -> Result<Hit, Failed> {
    let level = event.text("el").unwrap_or_default().to_owned();
    let wanted = row.place.level();
    case.hold(
        wanted.is_none_or(|wanted| wanted == level),
        &format!("the guest to be hit at {}", wanted.unwrap_or_default()),
    )?;
    let pc = event
        .hex("elr")
        .ok_or_else(|| failed("the event has no program counter"))?;
    Ok(Hit {
        place: Some((pc, level)),
    })
}

/// Types a line to Linux, and waits for its answer.
fn type_in(case: &mut Case, command: &str, answer: &str) -> Outcome {
    case.machine
        .type_into(0, &format!("{command}\n"))
        .map_err(failed)?;
    case.line("linux", answer).map(drop)
}
