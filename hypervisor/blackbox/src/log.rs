// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of the last events: a ring of slots of [`SLOT_BYTES`] bytes.
//!
//! The first slot is the header:
//!
//! | word | content |
//! | --- | --- |
//! | 0 | `FBLOG\0\0` and the version, 1 |
//! | 1 | sum over words 2 to 4 |
//! | 2 | number of slots behind the header |
//! | 3 | number of the boot that writes, from 1 |
//! | 4 | sum over the configuration: names and PEs of the partitions |
//!
//! Entry number `n`, counted from 1 over all boots, stands in slot `(n - 1) mod count`:
//!
//! | word | content |
//! | --- | --- |
//! | 0 | sum over words 1 to 3 and those of the text; 0 while it is being written |
//! | 1 | number of the entry |
//! | 2 | CNTPCT_EL0 |
//! | 3 | \[15:0\] bytes of text; \[23:16\] PE; \[31:24\] flags: bit 0 the text was cut; \[63:32\] number of the boot |
//! | 4 to 127 | text: the event as it went over the serial line, without its first and its last byte |
//!
//! Numbers are handed out by an atomic and each writer has its slot for itself, so writing takes no
//! lock. A write that did not come to its end leaves a slot whose sum is wrong, and nothing else.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::{Sum, Words, store, text};

/// Length of a slot, in bytes.
pub const SLOT_BYTES: usize = 1024;
/// The longest text of an entry, in bytes.
pub const TEXT_BYTES: usize = SLOT_BYTES - 8 * TEXT;
/// The most entries, however much memory there is.
pub const MAX_ENTRIES: usize = 255;

const SLOT_WORDS: usize = SLOT_BYTES / 8;
const MAGIC: u64 = u64::from_le_bytes(*b"FBLOG\0\0\x01");
const TEXT: usize = 4;
const FLAG_CUT: u64 = 1 << 24;

/// The header's words 2 to 4.
#[derive(Clone, Copy)]
struct Header {
    count: u64,
    boot: u64,
    configuration: u64,
}

impl Header {
    fn sum(self) -> u64 {
        Sum::START
            .add(self.count)
            .add(self.boot)
            .add(self.configuration)
            .value()
    }

    fn read(words: &(impl Words + ?Sized)) -> Option<Self> {
        let header = Self {
            count: words.word(2),
            boot: words.word(3),
            configuration: words.word(4),
        };
        let whole = words.word(0) == MAGIC && words.word(1) == header.sum();
        // A dump may be shorter than the memory was: what is not there is not whole either.
        (whole && header.count != 0 && header.count <= MAX_ENTRIES as u64).then_some(header)
    }

    fn write(self, words: &[AtomicU64]) {
        store(words, 1, 0, Ordering::Release);
        for (index, value) in [(2, self.count), (3, self.boot), (4, self.configuration)] {
            store(words, index, value, Ordering::Relaxed);
        }
        store(words, 0, MAGIC, Ordering::Relaxed);
        store(words, 1, self.sum(), Ordering::Release);
    }
}

/// What an earlier boot left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Earlier {
    /// Whether that boot had the same partitions on the same PEs.
    pub same_configuration: bool,
    /// Number of the last entry that is whole; 0 if there is none.
    pub last: u64,
    /// Number of that boot.
    pub boot: u64,
}

/// A log that is being written.
#[derive(Debug)]
pub struct Log<'a> {
    words: &'a [AtomicU64],
    count: u64,
    boot: u64,
    next: AtomicU64,
}

impl<'a> Log<'a> {
    /// Takes a log over from the boot before this one, or begins a new one where there is none.
    /// Returns `None` when there is no room for an entry.
    ///
    /// `configuration` is a [`Sum`] over what the numbers of partitions and PEs mean.
    pub fn adopt(words: &'a [AtomicU64], configuration: u64) -> Option<(Self, Option<Earlier>)> {
        let count = (words.len() / SLOT_WORDS).checked_sub(1)?.min(MAX_ENTRIES) as u64;
        if count == 0 {
            return None;
        }
        let earlier = Header::read(words)
            .filter(|header| header.count == count)
            .map(|header| Earlier {
                same_configuration: header.configuration == configuration,
                last: last(words, count),
                boot: header.boot,
            });
        if earlier.is_none() {
            for slot in 1..=count as usize {
                store(words, slot * SLOT_WORDS, 0, Ordering::Relaxed);
                store(words, slot * SLOT_WORDS + 1, 0, Ordering::Relaxed);
            }
        }
        let header = Header {
            count,
            boot: earlier.map_or(0, |earlier| earlier.boot).wrapping_add(1),
            configuration,
        };
        header.write(words);
        let next = earlier.map_or(0, |earlier| earlier.last).wrapping_add(1);
        let log = Self {
            words,
            count,
            boot: header.boot,
            next: AtomicU64::new(next),
        };
        Some((log, earlier))
    }

    /// Returns the number of this boot.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Returns what is in it.
    pub fn view(&self) -> View<'a, [AtomicU64]> {
        View {
            words: self.words,
            count: self.count,
        }
    }

    /// Begins an entry. In any context; the oldest entry is gone from here on.
    pub fn entry(&self, pe: u8, ticks: u64) -> EntryWriter<'a> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let first = slot(number, self.count);
        let words = self
            .words
            .get(first..first.saturating_add(SLOT_WORDS))
            .unwrap_or_default();
        store(words, 0, 0, Ordering::Release);
        store(words, 1, number, Ordering::Relaxed);
        EntryWriter {
            words,
            number,
            ticks,
            head: u64::from(pe) << 16 | self.boot << 32,
            len_bytes: 0,
            word: 0,
        }
    }
}

/// First word of the slot of an entry.
fn slot(number: u64, count: u64) -> usize {
    let index = number.wrapping_sub(1).checked_rem(count).unwrap_or(0);
    (index as usize)
        .saturating_add(1)
        .saturating_mul(SLOT_WORDS)
}

fn last(words: &(impl Words + ?Sized), count: u64) -> u64 {
    (1..=count as usize)
        .filter_map(|slot| Entry::read(words, slot.saturating_mul(SLOT_WORDS)))
        .filter(|entry| slot(entry.number, count) == entry.first)
        .map(|entry| entry.number)
        // Numbers that a boot could never reach are not believed: they would wrap.
        .filter(|number| *number < u64::MAX / 2)
        .max()
        .unwrap_or(0)
}

/// An entry that is being written. Bytes below 0x20 are dropped: an event has none but its frame.
#[derive(Debug)]
pub struct EntryWriter<'a> {
    words: &'a [AtomicU64],
    number: u64,
    ticks: u64,
    head: u64,
    len_bytes: usize,
    word: u64,
}

impl<'a> EntryWriter<'a> {
    fn push(&mut self, byte: u8) {
        if byte < 0x20 {
            return;
        }
        if self.len_bytes == TEXT_BYTES {
            self.head |= FLAG_CUT;
            return;
        }
        let at = self.len_bytes % 8;
        self.word |= u64::from(byte) << (8 * at);
        self.len_bytes += 1;
        if at == 7 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let index = TEXT + self.len_bytes.saturating_sub(1) / 8;
        store(self.words, index, self.word, Ordering::Relaxed);
        self.word = 0;
    }

    /// Makes the entry whole. Returns the words that it takes, for whoever has to push them out
    /// to memory.
    pub fn finish(mut self) -> &'a [AtomicU64] {
        if !self.len_bytes.is_multiple_of(8) {
            self.flush();
        }
        let head = self.head | self.len_bytes as u64;
        for (index, value) in [(1, self.number), (2, self.ticks), (3, head)] {
            store(self.words, index, value, Ordering::Relaxed);
        }
        store(
            self.words,
            0,
            sum(self.words, 0, self.len_bytes),
            Ordering::Release,
        );
        self.words
            .get(..TEXT + self.len_bytes.div_ceil(8))
            .unwrap_or_default()
    }
}

impl fmt::Write for EntryWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

fn sum(words: &(impl Words + ?Sized), first: usize, len_bytes: usize) -> u64 {
    (1..TEXT + len_bytes.div_ceil(8))
        .fold(Sum::START, |sum, index| {
            sum.add(words.word(first.saturating_add(index)))
        })
        .value()
}

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// CNTPCT_EL0 when it was made.
    pub ticks: u64,
    /// PE that made it.
    pub pe: u8,
    /// Number of the boot that made it.
    pub boot: u32,
    /// Whether its text was cut.
    pub cut: bool,
    first: usize,
    len_bytes: usize,
}

impl Entry {
    fn read(words: &(impl Words + ?Sized), first: usize) -> Option<Self> {
        let word = |index: usize| words.word(first.saturating_add(index));
        let head = word(3);
        let len_bytes = (head & 0xffff) as usize;
        if word(0) == 0 || len_bytes > TEXT_BYTES || word(0) != sum(words, first, len_bytes) {
            return None;
        }
        Some(Self {
            number: word(1),
            ticks: word(2),
            pe: (head >> 16) as u8,
            boot: (head >> 32) as u32,
            cut: head & FLAG_CUT != 0,
            first,
            len_bytes,
        })
    }
}

/// A log that is read.
#[derive(Debug)]
pub struct View<'a, W: Words + ?Sized> {
    words: &'a W,
    count: u64,
}

impl<'a, W: Words + ?Sized> View<'a, W> {
    /// Finds a log; `None` when its header is not there or not whole.
    pub fn read(words: &'a W) -> Option<Self> {
        let count = Header::read(words)?.count;
        Some(Self { words, count })
    }

    /// Returns how many entries it can hold.
    pub fn capacity(&self) -> u64 {
        self.count
    }

    /// Returns how many slots were written and are not whole.
    pub fn damaged(&self) -> usize {
        (1..=self.count as usize)
            .map(|slot| slot.saturating_mul(SLOT_WORDS))
            .filter(|first| {
                let word = |index| self.words.word(first.saturating_add(index));
                word(0) | word(1) != 0
            })
            .filter(|first| Entry::read(self.words, *first).is_none())
            .count()
    }

    /// Returns an entry by number, if it is still there and whole.
    pub fn entry(&self, number: u64) -> Option<Entry> {
        Entry::read(self.words, slot(number, self.count)).filter(|entry| entry.number == number)
    }

    /// Returns the number of the newest entry; 0 if there is none.
    pub fn last(&self) -> u64 {
        last(self.words, self.count)
    }

    /// Iterates over the entries, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let last = self.last();
        let first = last.saturating_sub(self.count).saturating_add(1);
        (first..=last).filter_map(|number| self.entry(number))
    }

    /// Copies the text of an entry of this log.
    pub fn text<'b>(&self, entry: &Entry, buffer: &'b mut [u8; TEXT_BYTES]) -> &'b str {
        text::read(
            self.words,
            entry.first.saturating_add(TEXT),
            entry.len_bytes,
            buffer,
        )
    }
}
