// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table: where, what, and what the kernel does by its own source.

use std::fmt::Write as _;

use libtest_mimic::Failed;

use super::Group;
use crate::harness::{Outcome, failed};

/// Where the kernel is when it is hit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In user space.
    User,
    /// In the kernel, on a process's behalf.
    Kernel,
    /// The same, and the kernel is told to panic on an oops.
    PanicOnOops,
    /// The same of the first process.
    First,
    /// In the idle loop.
    Idle,
    /// In an interrupt, or what follows it at once.
    Interrupt,
    /// In an exception's first or last instructions, with SError masked.
    Masked,
    /// Before the first instruction of all.
    Start,
    /// Before the first instruction of the second CPU.
    SecondStart,
}

impl Place {
    const ALL: [Self; 9] = [
        Self::User,
        Self::Kernel,
        Self::PanicOnOops,
        Self::First,
        Self::Idle,
        Self::Interrupt,
        Self::Masked,
        Self::SecondStart,
        Self::Start,
    ];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::User => "user space",
            Self::Kernel => "kernel, for a process",
            Self::PanicOnOops => "kernel, for a process, `panic_on_oops`",
            Self::First => "kernel, for the first process",
            Self::Idle => "kernel, idle loop",
            Self::Interrupt => "kernel, in an interrupt",
            Self::Masked => "kernel, SError masked in entry or exit",
            Self::Start => "first CPU, before its first instruction",
            Self::SecondStart => "second CPU, before its first instruction",
        }
    }

    /// What is typed to the agent, and its answer.
    pub(super) fn brought_by(self) -> (&'static str, &'static str) {
        match self {
            Self::User | Self::Interrupt => ("spin", "agent: child spins in user space"),
            Self::First => ("first", "agent: init spins in the kernel"),
            Self::Idle => ("nap", "agent: child naps"),
            Self::Masked => ("calls", "agent: child calls the kernel"),
            _ => ("kspin", "agent: child spins in the kernel"),
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::User => "vcpu=0 el=0",
            Self::Masked => "vcpu=0 at=masked",
            Self::Start => "vcpu=0 at=start",
            Self::SecondStart => "vcpu=1 at=start",
            // Where the kernel masks SError it has not put away the registers of an exception yet:
            // an abort destroys them, and the kernel does not come back from that.
            _ => "vcpu=0 at=unmasked",
        }
    }

    /// The exception level that is interrupted. What is masked may come back to a process first.
    pub(super) fn level(self) -> Option<&'static str> {
        match self {
            Self::User => Some("el0"),
            Self::Masked => None,
            _ => Some("el1"),
        }
    }

    /// Whether it has to be known that nothing is being printed: an abort that hits the console's
    /// driver leaves it locked, and nobody would learn of it.
    pub(super) fn is_probed(self) -> bool {
        matches!(
            self,
            Self::Kernel | Self::PanicOnOops | Self::First | Self::Idle | Self::Interrupt
        )
    }

    pub(super) fn is_masked(self) -> bool {
        matches!(self, Self::Masked | Self::Start | Self::SecondStart)
    }
}

/// What hits it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// An SError with that syndrome.
    Serror(u64),
    /// An external abort: of a fetch, with an address, with that syndrome.
    Abort { fetch: bool, far: bool, iss: u64 },
}

/// What the kernel does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reaction {
    /// Nothing at all: not a line.
    Nothing,
    /// It panics over an SError, and reboots.
    Panic,
    /// The same, and it stays there.
    Halt,
    /// The process ends by this signal, without a word of the kernel.
    Signal(u8),
    /// It says that this is an internal error, and ends the process.
    Oops(&'static str),
    /// It says that this is an internal error, and panics with these words.
    Fatal(&'static str, &'static str),
}

/// Classes of syndromes of an SError.
const SERRORS: [(&str, u64); 11] = [
    ("IDS = 1", 0x100_0000),
    ("DFSC 0, uncategorized", 0),
    ("DFSC 2, reserved, AET of a CE", 0x1802),
    ("UC", 0x11),
    ("reserved AET 0b100", 0x1011),
    ("reserved AET 0b101", 0x1411),
    ("reserved AET 0b111", 0x1c11),
    ("UEU", 0x411),
    ("UER", 0xc11),
    ("UEO", 0x811),
    ("CE", 0x1811),
];

const IMPDEF: u64 = 0x100_0000;
const UER: u64 = 0xc11;
const UEO: u64 = 0x811;
const CE: u64 = 0x1811;
const FNV: u64 = 1 << 10;
const EXTERNAL: u64 = 0x10;
const PARITY: u64 = 0x18;
const WALK_LEVEL_2: u64 = 0x16;

/// A row of the table.
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) what: String,
    pub(super) fault: Fault,
    pub(super) reaction: Reaction,
}

impl Row {
    /// What follows the partition's name in the command.
    pub(super) fn command(&self) -> String {
        let fault = match self.fault {
            Fault::Serror(iss) => format!("serror iss={iss:#x}"),
            Fault::Abort { fetch, far, iss } => {
                let what = if fetch { "fetch" } else { "data" };
                let far = if far { " far=0x1000" } else { "" };
                format!("sea={what}{far} iss={iss:#x}")
            }
        };
        format!("{} {fault}", self.place.command())
    }

    /// ESR_EL1 as the kernel finds it.
    pub(super) fn esr(&self) -> u64 {
        let (class, iss) = match self.fault {
            Fault::Serror(iss) => (0x2f, iss),
            Fault::Abort { fetch, far, iss } => {
                let class = if fetch { 0x20 } else { 0x24 };
                let fnv = if far { 0 } else { FNV };
                (class | u64::from(self.place != Place::User), iss | fnv)
            }
        };
        class << 26 | 1 << 25 | iss
    }
}

/// The kernel's rule for an SError (`arm64_is_ras_serror`, `arm64_is_fatal_ras_serror`): it never
/// looks at where it came from. Before the kernel has looked at its CPU's features it does not
/// know of FEAT_RAS (`this_cpu_has_cap`), nor that it is to reboot after a panic.
fn serror(place: Place, visible: bool, iss: u64) -> Reaction {
    if place == Place::Start {
        Reaction::Halt
    } else if visible && [UEO, CE].contains(&iss) {
        Reaction::Nothing
    } else {
        Reaction::Panic
    }
}

/// The kernel's table of fault statuses (`fault_info`): what it calls them.
fn name_of(iss: u64) -> &'static str {
    match iss & 0x3f {
        0x10 => "synchronous external abort",
        0x13 => "unknown 19",
        0x14 => "level 0 (translation table walk)",
        0x15 => "level 1 (translation table walk)",
        0x16 => "level 2 (translation table walk)",
        0x17 => "level 3 (translation table walk)",
        0x18 => "synchronous parity or ECC error",
        0x1b => "unknown 27",
        0x1c => "level 0 synchronous parity error (translation table walk)",
        0x1d => "level 1 synchronous parity error (translation table walk)",
        0x1e => "level 2 synchronous parity error (translation table walk)",
        _ => "level 3 synchronous parity error (translation table walk)",
    }
}

/// The kernel's rule for an external abort (`do_sea`, `die`, `make_task_dead`).
fn abort(place: Place, iss: u64) -> Reaction {
    let name = name_of(iss);
    match place {
        Place::User if [EXTERNAL, PARITY].contains(&(iss & 0x3f)) => Reaction::Signal(7),
        Place::User => Reaction::Signal(9),
        Place::PanicOnOops => Reaction::Fatal(name, "synchronous external abort: Fatal exception"),
        Place::First => Reaction::Fatal(name, "Attempted to kill init! exitcode=0x0000000b"),
        Place::Idle => Reaction::Fatal(name, "Attempted to kill the idle task!"),
        Place::Interrupt => Reaction::Fatal(
            name,
            "synchronous external abort: Fatal exception in interrupt",
        ),
        _ => Reaction::Oops(name),
    }
}

/// SErrors that are run at a place, by their syndromes.
fn syndromes(place: Place, visible: bool) -> Vec<u64> {
    let all = SERRORS.iter().map(|(_, iss)| *iss).collect();
    match (place, visible) {
        (Place::User, _) | (Place::Kernel, true) => all,
        (Place::Kernel, false) => vec![UER, UEO, CE],
        (Place::Idle | Place::Masked, true) => vec![IMPDEF, UER, UEO, CE],
        (Place::Start | Place::SecondStart, true) => vec![UER, UEO, CE],
        (Place::Interrupt, true) => vec![UEO, CE],
        (Place::Idle | Place::Masked | Place::Start | Place::SecondStart, false) => vec![UEO],
        _ => Vec::new(),
    }
}

fn data(iss: u64) -> Fault {
    Fault::Abort {
        fetch: false,
        far: true,
        iss,
    }
}

fn fetch(iss: u64) -> Fault {
    Fault::Abort {
        fetch: true,
        far: true,
        iss,
    }
}

/// External aborts that are run at a place.
fn aborts(place: Place, visible: bool) -> Vec<Fault> {
    let without_far = Fault::Abort {
        fetch: false,
        far: false,
        iss: EXTERNAL,
    };
    match (place, visible) {
        (Place::User, true) => {
            let walks = (0x13..=0x17).chain(0x1b..=0x1f).map(data);
            let others = [data(EXTERNAL), without_far, data(PARITY)];
            let fetches = [EXTERNAL, PARITY, WALK_LEVEL_2].map(fetch);
            others.into_iter().chain(fetches).chain(walks).collect()
        }
        (Place::Kernel, true) => vec![
            data(EXTERNAL),
            without_far,
            data(PARITY),
            data(WALK_LEVEL_2),
            fetch(EXTERNAL),
            fetch(WALK_LEVEL_2),
        ],
        (Place::User, false)
        | (Place::PanicOnOops | Place::First | Place::Idle | Place::Interrupt, true) => {
            vec![data(EXTERNAL)]
        }
        _ => Vec::new(),
    }
}

fn what(fault: Fault) -> String {
    match fault {
        Fault::Serror(iss) => {
            let class = SERRORS.iter().find(|(_, of)| *of == iss);
            format!("SError, {}", class.map_or("", |(name, _)| *name))
        }
        Fault::Abort { fetch, far, iss } => {
            let access = if fetch { "fetch" } else { "data" };
            let far = if far { "" } else { ", FnV" };
            let kind = match iss {
                EXTERNAL => "",
                PARITY => ", parity or ECC",
                _ => ", table walk",
            };
            format!("SEA, {access}, FSC {iss:#x}{kind}{far}")
        }
    }
}

/// The rows of one table, those that need a new boot behind them last in each place.
pub(super) fn rows(visible: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for place in Place::ALL {
        let serrors = syndromes(place, visible).into_iter().map(Fault::Serror);
        for fault in serrors.chain(aborts(place, visible)) {
            rows.push(Row {
                place,
                what: what(fault),
                fault,
                reaction: match fault {
                    Fault::Serror(iss) => serror(place, visible, iss),
                    Fault::Abort { iss, .. } => abort(place, iss),
                },
            });
        }
    }
    rows.sort_by_key(|row| {
        let ends = matches!(
            row.reaction,
            Reaction::Panic | Reaction::Halt | Reaction::Fatal(..)
        );
        let place = Place::ALL.iter().position(|place| *place == row.place);
        (place, ends)
    });
    rows
}

fn told(reaction: Reaction) -> String {
    match reaction {
        Reaction::Nothing => "nothing, silently".to_owned(),
        Reaction::Panic => "panic".to_owned(),
        Reaction::Halt => "panic, and no reboot".to_owned(),
        Reaction::Signal(7) => "SIGBUS to the process".to_owned(),
        Reaction::Signal(_) => "SIGKILL to the process".to_owned(),
        Reaction::Oops(name) => format!("oops \"{name}\"; the process ends (SIGSEGV)"),
        Reaction::Fatal(name, words) => format!("oops \"{name}\"; panic \"{words}\""),
    }
}

/// The table as the document carries it.
fn table() -> String {
    let mut text = String::from(
        "| hit in | error | `inject linux ...` | RAS visible | RAS hidden | cases |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    let hidden = rows(false);
    for row in rows(true) {
        let other = hidden
            .iter()
            .find(|other| other.place == row.place && other.fault == row.fault);
        let mut cases = format!("`{}`", Group::of(row.place, true).name());
        if other.is_some() {
            let _ = write!(cases, ", `{}`", Group::RasHidden.name());
        }
        let other = other.map_or("not run".to_owned(), |other| told(other.reaction));
        let _ = writeln!(
            text,
            "| {} | {} | `{}` | {} | {other} | {cases} |",
            row.place.words(),
            row.what,
            row.command(),
            told(row.reaction),
        );
    }
    text
}

/// Holds that the document carries the table.
pub(super) fn document() -> Outcome {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/linux-reactions.md");
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let table = table();
    if text.contains(&table) {
        return Ok(());
    }
    Err(Failed::from(format!(
        "docs/linux-reactions.md does not carry the table of tests/qemu/suite/reactions/table.rs; \
         put this there:\n{table}"
    )))
}
