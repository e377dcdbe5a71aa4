// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trace of a PE: a ring of its last exits, in memory that a reset does not keep.
//!
//! An exit has four words, 32 bytes:
//!
//! | word | content |
//! | --- | --- |
//! | 0 | CNTPCT_EL0 |
//! | 1 | the guest's PC (ELR_EL2) |
//! | 2 | ESR_EL2 of an exception; of an interrupt, its INTID with bit 63 set |
//! | 3 | what the exception is about: the guest's address (IPA) of an abort, else x0 |
//!
//! One PE writes, without a lock and never waiting; others read while it does. The writer's stores
//! are ordered (release), so a reader that saw a word of a newer exit sees that it was begun, and
//! drops what it read.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{Words, store};

/// Words of an exit.
pub const EXIT_WORDS: usize = 4;
/// Bytes of an exit.
pub const EXIT_BYTES: usize = 8 * EXIT_WORDS;

const INTERRUPT: u64 = 1 << 63;

/// Why a guest was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// By an exception with this ESR_EL2.
    Exception(u64),
    /// By a physical interrupt with this INTID.
    Interrupt(u32),
}

/// An exit of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// CNTPCT_EL0.
    pub ticks: u64,
    /// The guest's PC.
    pub pc: u64,
    /// Why.
    pub cause: Cause,
    /// IPA of an abort, else x0; 0 for an interrupt.
    pub about: u64,
}

impl Exit {
    /// Makes its four words.
    pub const fn to_words(self) -> [u64; EXIT_WORDS] {
        let cause = match self.cause {
            Cause::Exception(esr) => esr & !INTERRUPT,
            Cause::Interrupt(intid) => INTERRUPT | intid as u64,
        };
        [self.ticks, self.pc, cause, self.about]
    }

    /// Reads four words; `None` where nothing was written.
    pub fn from_words(words: &(impl Words + ?Sized), first: usize) -> Option<Self> {
        let word = |index: usize| words.word(first.saturating_add(index));
        let cause = match word(2) {
            raw if raw & INTERRUPT != 0 => Cause::Interrupt(raw as u32),
            esr => Cause::Exception(esr),
        };
        (word(0) != 0).then(|| Self {
            ticks: word(0),
            pc: word(1),
            cause,
            about: word(3),
        })
    }
}

/// A ring of exits. The oldest one is overwritten while the next is written, so one less than it
/// has room for can be read.
#[derive(Debug)]
pub struct Ring<'a> {
    words: &'a [AtomicU64],
    room: u64,
    /// Exits that were written; the next one may be under way.
    done: AtomicU64,
}

impl<'a> Ring<'a> {
    /// Makes an empty ring over memory that nobody else writes; `None` if it is too small.
    pub fn new(words: &'a [AtomicU64]) -> Option<Self> {
        let room = (words.len() / EXIT_WORDS) as u64;
        let done = AtomicU64::new(0);
        (room > 1).then_some(Self { words, room, done })
    }

    /// Writes an exit. By one PE alone.
    pub fn push(&self, exit: &Exit) {
        let number = self.done.load(Ordering::Relaxed);
        let first = self.place(number);
        for (index, word) in exit.to_words().into_iter().enumerate() {
            store(self.words, first + index, word, Ordering::Release);
        }
        self.done.store(number.wrapping_add(1), Ordering::Release);
    }

    fn place(&self, number: u64) -> usize {
        // `new` left out an empty ring.
        number.checked_rem(self.room).unwrap_or(0) as usize * EXIT_WORDS
    }

    /// Returns the number of exits that were written, which is that of the last one.
    pub fn last(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// Returns an exit by its number, counted from 1, if it is still there.
    pub fn get(&self, number: u64) -> Option<Exit> {
        let index = number.checked_sub(1)?;
        let exit = (number <= self.last())
            .then(|| Exit::from_words(self.words, self.place(index)))
            .flatten();
        // Read behind the words: its place is in use again once all the others were filled.
        exit.filter(|_| self.last() < index.saturating_add(self.room))
    }
}
