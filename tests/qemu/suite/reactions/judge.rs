// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel did, by its own words, held against the table.

use std::collections::BTreeMap;

use libtest_mimic::Failed;

use super::table::{Place, Reaction, Row};
use super::type_in;
use crate::harness::{Case, Outcome, failed};

const PANIC: &str = "Kernel panic - not syncing: ";
const SERROR: &str = "Asynchronous SError Interrupt";

/// The kernel's function that waits for an interrupt, and more than its size.
const IDLE_LOOP: &str = "cpu_do_idle";
const IDLE_LOOP_BYTES: u64 = 0x40;

/// Where the hypervisor says that it hit the guest: program counter and level, if it knows.
pub(super) struct Hit {
    pub(super) place: Option<(u64, String)>,
}

/// How a kernel that was hit went on.
enum End {
    /// A process ended by that signal.
    Signal(u8),
    /// It panicked with these words.
    Panic(String),
}

/// Holds what the kernel does, and leaves it running.
#[derive(Default)]
pub(super) struct Judge {
    /// Addresses of the kernel's symbols, as the kernel itself says. It is where it was linked to,
    /// at each start.
    symbols: BTreeMap<String, Vec<u64>>,
}

impl Judge {
    /// Says whether the kernel was hit where the row wants it; then, it did what the row says.
    pub(super) fn is_there(
        &mut self,
        case: &mut Case,
        row: &Row,
        hit: &Hit,
    ) -> Result<bool, Failed> {
        match row.reaction {
            Reaction::Nothing => self.silent(case, row, hit),
            Reaction::Panic | Reaction::Halt => self.panicked(case, row, hit),
            Reaction::Signal(signal) => signalled(case, signal).map(|()| true),
            Reaction::Oops(name) => self.oopsed(case, row, hit, name, None),
            Reaction::Fatal(name, words) => self.oopsed(case, row, hit, name, Some(words)),
        }
    }

    /// Not a word, and everything goes on.
    fn silent(&mut self, case: &mut Case, row: &Row, hit: &Hit) -> Result<bool, Failed> {
        goes_on(case, row)?;
        match &hit.place {
            None => Ok(false),
            Some((pc, _)) if row.place == Place::Idle => {
                let starts = self.addresses(case, IDLE_LOOP)?;
                Ok(starts
                    .iter()
                    .any(|start| (*start..start + IDLE_LOOP_BYTES).contains(pc)))
            }
            Some(_) => Ok(true),
        }
    }

    fn panicked(&mut self, case: &mut Case, row: &Row, hit: &Hit) -> Result<bool, Failed> {
        let cpu = u8::from(row.place == Place::SecondStart);
        let code = format!(
            "SError Interrupt on CPU{cpu}, code 0x{:016x} -- SError",
            row.esr()
        );
        contains(case, &code)?;
        contains(case, &format!("{PANIC}{SERROR}"))?;
        let pc = program_counter(case)?;
        // Whatever interrupts EL2 ends the guest's WFI as well, so the idle task is mostly met on its
        // way to the next one. The kernel says which task it was.
        let wanted = row.place != Place::Idle || said(case, "Comm: swapper/0").is_some();
        if row.reaction == Reaction::Halt {
            // `panic=-1` has not been read yet: the kernel stays where it is.
            contains(case, "---[ end Kernel panic")?;
            let since = case.records();
            let by_itself = since.iter().any(|record| {
                let event = record.event("restart");
                event.is_some_and(|event| event.text("reason") != Some("asked"))
            });
            case.hold(!by_itself, "the kernel to stay where it is")?;
            case.forget();
            case.order("restart linux")?;
        }
        restarted(case)?;
        self.hold_place(case, hit, &pc)?;
        Ok(wanted)
    }

    /// An oops: the process ends, or the kernel, by what it was doing. It says itself what that
    /// was; what it does then has to be right in any case.
    fn oopsed(
        &mut self,
        case: &mut Case,
        row: &Row,
        hit: &Hit,
        name: &str,
        words: Option<&str>,
    ) -> Result<bool, Failed> {
        contains(case, &format!("Internal error: {name}: {:016x}", row.esr()))?;
        let end = end(case)?;
        let pc = program_counter(case)?;
        let (who, wanted) = match &end {
            End::Signal(signal) => {
                case.hold(*signal == 11, "the process to end by SIGSEGV")?;
                (Place::Kernel, words.is_none())
            }
            End::Panic(told) => {
                let who = victim(case, told)?;
                restarted(case)?;
                (who, words == Some(told.as_str()))
            }
        };
        if wanted {
            case.hold(who == row.place, "the panic's words to fit the place")?;
        }
        beats(case)?;
        self.hold_place(case, hit, &pc)?;
        Ok(wanted)
    }

    /// Holds that the kernel's program counter is the one that the hypervisor told. A process's is
    /// a number, the kernel's own a symbol of its and an offset.
    fn hold_place(&mut self, case: &mut Case, hit: &Hit, pc: &str) -> Outcome {
        let Some((hit, level)) = &hit.place else {
            return Ok(());
        };
        let told = |holds: bool, case: &Case| {
            case.hold(
                holds,
                &format!("the kernel's pc `{pc}` to be {hit:#x}, at {level}"),
            )
        };
        if let Ok(address) = u64::from_str_radix(pc, 16) {
            return told(level == "el0" && address == *hit, case);
        }
        let (symbol, offset) = pc
            .split_once("+0x")
            .ok_or_else(|| failed(format!("`{pc}` is no symbol and offset")))?;
        let offset = offset.split('/').next().unwrap_or_default();
        let offset = u64::from_str_radix(offset, 16).map_err(failed)?;
        let starts = self.addresses(case, symbol)?;
        let is_it = |start: &u64| start.wrapping_add(offset) == *hit;
        told(level == "el1" && starts.iter().any(is_it), case)
    }

    fn addresses(&mut self, case: &mut Case, symbol: &str) -> Result<Vec<u64>, Failed> {
        if let Some(known) = self.symbols.get(symbol) {
            return Ok(known.clone());
        }
        case.forget();
        let start = format!("agent: symbol {symbol}=");
        type_in(case, &format!("symbol {symbol}"), &start)?;
        let line = case.line("linux", &start)?;
        let addresses: Vec<u64> = line
            .trim_start_matches(&start)
            .split(',')
            .filter_map(|hex| u64::from_str_radix(hex.trim_start_matches("0x"), 16).ok())
            .collect();
        self.symbols.insert(symbol.to_owned(), addresses.clone());
        Ok(addresses)
    }
}

fn goes_on(case: &mut Case, row: &Row) -> Outcome {
    if row.place == Place::SecondStart {
        case.line("linux", "agent: cpu1 online=1")?;
        type_in(case, "cpu1 off", "agent: cpu1 online=0")?;
    } else {
        type_in(case, "rest", "agent: rests")?;
        // By `rest`: it has lived until now.
        case.line("linux", "agent: child ended signal=9")?;
    }
    let spoke = case.records().iter().find_map(|record| {
        let line = record.line("linux")?;
        line.starts_with('[').then(|| line.to_owned())
    });
    case.hold(spoke.is_none(), "not a word of the kernel")?;
    beats(case)
}

fn signalled(case: &mut Case, signal: u8) -> Outcome {
    let line = case.first_line("linux", "agent: child ended signal=")?;
    case.hold(
        line == format!("agent: child ended signal={signal}"),
        &format!("the process to end by signal {signal}"),
    )?;
    let spoke = case.records().iter().any(|record| {
        record
            .line("linux")
            .is_some_and(|line| line.contains("Internal error"))
    });
    case.hold(!spoke, "no oops")?;
    beats(case)
}

/// Waits for the end of the process or of the kernel, whichever comes first.
fn end(case: &Case) -> Result<End, Failed> {
    let ended = |line: &str| {
        if let Some(words) = after(line, PANIC) {
            return Some(End::Panic(words.trim_end().to_owned()));
        }
        let signal = line.strip_prefix("agent: child ended signal=")?;
        Some(End::Signal(signal.trim().parse().ok()?))
    };
    let record = case.wait("the end of the process, or a panic", |record| {
        record.line("linux").and_then(ended).is_some()
    })?;
    record
        .line("linux")
        .and_then(ended)
        .ok_or_else(|| failed("no end"))
}

/// What was hit, by the kernel's words of who ran; it must fit its reason to panic.
fn victim(case: &Case, told: &str) -> Result<Place, Failed> {
    let (place, who): (Place, &[&str]) = if told.ends_with("in interrupt") {
        (
            Place::Interrupt,
            &[
                "_64_irq",
                "_64_fiq",
                "do_interrupt_handler",
                "do_softirq",
                "gic_",
            ],
        )
    } else if told.contains("idle task") {
        (Place::Idle, &["Comm: swapper/0"])
    } else if told.contains("kill init") {
        (Place::First, &["PID: 1 Comm: init"])
    } else {
        (Place::PanicOnOops, &["Comm: init"])
    };
    case.hold(
        who.iter().any(|who| said(case, who).is_some()),
        &format!("a line with one of {who:?} to explain `{told}`"),
    )?;
    Ok(place)
}

/// The kernel's first line of its program counter, in what it said.
fn program_counter(case: &Case) -> Result<String, Failed> {
    const PC: &str = "pc : ";
    contains(case, PC)?;
    said(case, PC)
        .and_then(|line| after(&line, PC).map(|pc| pc.trim().to_owned()))
        .ok_or_else(|| failed("the kernel names no program counter"))
}

fn after<'a>(line: &'a str, part: &str) -> Option<&'a str> {
    line.split_once(part).map(|(_, rest)| rest)
}

fn said(case: &Case, part: &str) -> Option<String> {
    case.records().iter().find_map(|record| {
        let line = record.line("linux")?;
        line.contains(part).then(|| line.to_owned())
    })
}

fn restarted(case: &mut Case) -> Outcome {
    case.event_of("restart", "linux")?;
    case.line("linux", "agent: ready").map(drop)
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
