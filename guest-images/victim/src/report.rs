// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors that were taken, waiting to be printed.
//!
//! The handler of an error may interrupt `main` in the middle of a line. It therefore only notes
//! the error here; whoever finds the console free prints.

use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::{console, println};

/// Errors that can wait at a time; more are counted, and shown as a gap in `n`.
const SLOTS: u64 = 16;

/// What one error was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Error {
    /// An SError interrupt.
    SError {
        /// Its number, from 1.
        n: u64,
        /// ESR_EL1.
        esr: u64,
        /// ELR_EL1.
        elr: u64,
        /// SPSR_EL1.
        spsr: u64,
        /// DISR_EL1.
        disr: u64,
    },
    /// A synchronous data abort.
    Abort {
        /// Its number, from 1.
        n: u64,
        /// ESR_EL1.
        esr: u64,
        /// FAR_EL1.
        far: u64,
        /// ELR_EL1.
        elr: u64,
    },
}

struct Slot {
    is_abort: Cell64,
    words: [Cell64; 5],
}

impl Slot {
    const fn new() -> Self {
        Self {
            is_abort: Cell64::new(0),
            words: [const { Cell64::new(0) }; 5],
        }
    }
}

static QUEUE: [Slot; SLOTS as usize] = [const { Slot::new() }; SLOTS as usize];
// Counts of errors noted (written with SErrors masked) and printed (by the one who prints).
static NOTED: Cell64 = Cell64::new(0);
static PRINTED: Cell64 = Cell64::new(0);
static PRINTING: Cell64 = Cell64::new(0);

fn slot(count: u64) -> Option<&'static Slot> {
    QUEUE.get((count % SLOTS) as usize)
}

/// Notes an error. Called from exception handlers only, where SErrors are masked.
pub(crate) fn note(error: Error) {
    if NOTED.get() - PRINTED.get() >= SLOTS {
        return;
    }
    let Some(slot) = slot(NOTED.get()) else {
        return;
    };
    let (is_abort, words) = match error {
        Error::SError {
            n,
            esr,
            elr,
            spsr,
            disr,
        } => (0, [n, esr, elr, spsr, disr]),
        Error::Abort { n, esr, far, elr } => (1, [n, esr, far, elr, 0]),
    };
    slot.is_abort.set(is_abort);
    for (cell, word) in slot.words.iter().zip(words) {
        cell.set(word);
    }
    NOTED.add(1);
}

/// Prints what was noted, unless a line is being printed already: its writer comes back here.
pub(crate) fn print_noted() {
    if console::is_busy() || PRINTING.get() != 0 {
        return;
    }
    PRINTING.set(1);
    while PRINTED.get() != NOTED.get() {
        let Some(slot) = slot(PRINTED.get()) else {
            break;
        };
        let [n, a, b, c, d] = slot.words.each_ref().map(Cell64::get);
        if slot.is_abort.get() == 0 {
            println!("victim: serror n={n} esr={a:#x} elr={b:#x} spsr={c:#x} disr={d:#x}");
        } else {
            println!("victim: abort n={n} esr={a:#x} far={b:#x} elr={c:#x}");
        }
        PRINTED.add(1);
    }
    PRINTING.set(0);
}
