// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Debian's kernel does with each class of error: the table of `docs/linux-reactions.md`.
//!
//! The table is written down here, from the kernel's source, and each row of it is held against
//! the kernel that the suite boots. The document carries the same table; a trial compares them.

use std::fmt::Write as _;

use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, bare, failed, trial};

/// Where the kernel is when it is hit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In user space.
    User,
    /// In the kernel, on a process's behalf.
    Kernel,
}

/// What it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reaction {
    /// Nothing at all: not a line.
    Nothing,
    /// It panics with these words and reboots.
    Panic(&'static str),
    /// The process ends by this signal, the system goes on.
    Signal(u8),
}

const SERROR: &str = "Asynchronous SError Interrupt";

/// Classes of syndromes of an SError.
const SERRORS: [(&str, u64); 9] = [
    ("IDS = 1", 0x100_0000),
    ("DFSC 0, uncategorized", 0),
    ("DFSC 2, reserved, AET of a CE", 0x1802),
    ("UC", 0x11),
    ("reserved AET 0b100", 0x1011),
    ("UEU", 0x411),
    ("UER", 0xc11),
    ("UEO", 0x811),
    ("CE", 0x1811),
];

/// External aborts: the words of the command, and what it is.
const ABORTS: [(&str, &str); 5] = [
    ("sea=data far=0x1000 iss=0x10", "data, FSC 0x10"),
    ("sea=data iss=0x10", "data, FSC 0x10, FnV"),
    ("sea=fetch far=0x1000 iss=0x10", "fetch, FSC 0x10"),
    (
        "sea=data far=0x1000 iss=0x18",
        "data, FSC 0x18, parity or ECC",
    ),
    ("sea=data far=0x1000 iss=0x16", "data, FSC 0x16, table walk"),
];

/// The kernel's rule for an SError (`arm64_is_ras_serror`, `arm64_is_fatal_ras_serror`): it never
/// looks at where it came from.
fn serror(visible: bool, iss: u64) -> Reaction {
    if visible && [0x811, 0x1811].contains(&iss) {
        Reaction::Nothing
    } else {
        Reaction::Panic(SERROR)
    }
}

/// The kernel's rule for an external abort of a process (`do_sea`, the table of fault statuses).
fn abort(command: &str) -> Reaction {
    if command.ends_with("0x16") {
        Reaction::Signal(9)
    } else {
        Reaction::Signal(7)
    }
}

struct Row {
    place: Place,
    what: String,
    command: String,
    reaction: Reaction,
    iss: Option<u64>,
}

/// The rows of one table, those that need a new boot behind them last in each place.
fn rows(visible: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for place in [Place::User, Place::Kernel] {
        for (name, iss) in SERRORS {
            // The kernel's code is one for all places: a few classes show it for the other ones.
            let run: &[u64] = match place {
                Place::User => &[iss],
                Place::Kernel if visible => &[0x811, 0x1811],
                Place::Kernel => &[0xc11, 0x811],
            };
            if !run.contains(&iss) {
                continue;
            }
            rows.push(Row {
                place,
                what: format!("SError, {name}"),
                command: format!("serror iss={iss:#x}"),
                reaction: serror(visible, iss),
                iss: Some(iss),
            });
        }
        // RAS shown or hidden makes no difference to these.
        if place != Place::User || !visible {
            continue;
        }
        for (command, what) in ABORTS {
            rows.push(Row {
                place,
                what: format!("SEA, {what}"),
                command: (command).to_owned(),
                reaction: abort(command),
                iss: None,
            });
        }
    }
    rows.sort_by_key(|row| {
        let ends = matches!(row.reaction, Reaction::Panic(_));
        (row.place as u8, ends)
    });
    rows
}

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("linux::reactions::ras_visible", || react(true)));
    trials.push(trial("linux::reactions::ras_hidden", || react(false)));
    trials.push(trial("linux::reactions::are_in_the_document", document));
}

/// Boots, and hits the kernel by each row.
fn react(visible: bool) -> Outcome {
    let system = if visible {
        "reactions-visible"
    } else {
        "reactions-hidden"
    };
    let mut case = Case::start(bare(system)?.smp(2))?;
    case.line("linux", "agent: ready")?;
    for row in rows(visible) {
        hit(&mut case, &row)
            .and_then(|()| judge(&mut case, &row))
            .map_err(|error| {
                let why = error.message().unwrap_or("it failed");
                Failed::from(format!("{}, {}: {why}", words(row.place), row.what))
            })?;
    }
    Ok(())
}

/// Brings the kernel where it is to be hit, and hits it.
fn hit(case: &mut Case, row: &Row) -> Outcome {
    case.forget();
    let level = if row.place == Place::User {
        "el0"
    } else {
        "el1"
    };
    match row.place {
        Place::User => type_in(case, "spin", "agent: child spins in user space")?,
        Place::Kernel => type_in(case, "kspin", "agent: child spins in the kernel")?,
    }
    // Time for the kernel to come back from printing that.
    case.order("ps")?;
    case.order("ps")?;
    let el = level.trim_start_matches("el");
    let inj = case.inject(&format!("linux vcpu=0 el={el} {}", row.command))?;
    let name = if row.iss.is_some() { "vserror" } else { "vsea" };
    let event = case.event(name, |event| {
        event.num("inj") == Some(inj) && event.text("state") != Some("pending")
    })?;
    case.hold(
        event.text("el") == Some(level),
        &format!("the guest to be hit at {level}"),
    )
}

fn type_in(case: &mut Case, command: &str, answer: &str) -> Outcome {
    case.machine
        .type_into(0, &format!("{command}\n"))
        .map_err(failed)?;
    if answer.is_empty() {
        return Ok(());
    }
    case.line("linux", answer).map(drop)
}

/// Holds what the kernel does, by its own words, and leaves it running.
fn judge(case: &mut Case, row: &Row) -> Outcome {
    let code = row
        .iss
        .map(|iss| format!("code 0x{:016x} -- SError", 0xbe00_0000 | iss));
    match row.reaction {
        Reaction::Nothing => {
            beats(case)?;
            let spoke = case.records().iter().find_map(|record| {
                let line = record.line("linux")?;
                (!line.starts_with("agent: ")).then(|| line.to_owned())
            });
            case.hold(spoke.is_none(), "not a word of the kernel")
        }
        Reaction::Panic(why) => {
            panics(case, why, code.as_deref())?;
            case.event_of("restart", "linux")?;
            case.line("linux", "agent: ready").map(drop)
        }
        Reaction::Signal(signal) => {
            case.line("linux", &format!("agent: child ended signal={signal}"))?;
            beats(case)
        }
    }
}

fn panics(case: &Case, why: &str, code: Option<&str>) -> Outcome {
    if let Some(code) = code {
        contains(case, "SError Interrupt on CPU")?;
        contains(case, code)?;
    }
    contains(case, &format!("Kernel panic - not syncing: {why}"))
}

fn beats(case: &mut Case) -> Outcome {
    case.forget();
    let beats = case.lines("linux", "agent: beat", 1)?;
    let intact = beats.iter().all(|line| line.ends_with("pattern=ok"));
    case.hold(intact, "Linux's memory to be intact")
}

/// Waits for a line of Linux's console with `part` in it.
fn contains(case: &Case, part: &str) -> Outcome {
    let what = format!("a line of linux with `{part}`");
    case.wait(&what, |record| {
        record.line("linux").is_some_and(|line| line.contains(part))
    })
    .map(drop)
}

fn words(place: Place) -> &'static str {
    match place {
        Place::User => "user space",
        Place::Kernel => "kernel, for a process",
    }
}

fn told(reaction: Reaction) -> String {
    match reaction {
        Reaction::Nothing => "nothing, silently".to_owned(),
        Reaction::Panic(why) => format!("panic \"{why}\""),
        Reaction::Signal(7) => "SIGBUS to the process".to_owned(),
        Reaction::Signal(signal) => format!("signal {signal} to the process"),
    }
}

/// The table as the document carries it.
fn table() -> String {
    let mut text = String::from(
        "| hit in | error | `inject linux vcpu=0 ...` | RAS visible | RAS hidden |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    let hidden = rows(false);
    for row in rows(true) {
        let other = hidden
            .iter()
            .find(|other| other.place == row.place && other.command == row.command);
        let other = other.map_or("not run".to_owned(), |other| told(other.reaction));
        let _ = writeln!(
            text,
            "| {} | {} | `{}` | {} | {other} |",
            words(row.place),
            row.what,
            row.command,
            told(row.reaction),
        );
    }
    text
}

fn document() -> Outcome {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/linux-reactions.md");
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let table = table();
    if text.contains(&table) {
        return Ok(());
    }
    Err(Failed::from(format!(
        "docs/linux-reactions.md does not carry the table of tests/qemu/suite/reactions.rs; put \
         this there:\n{table}"
    )))
}
