// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layout of the memory that survives a warm reset: a crash page, and behind it a log of events.
//!
//! The hypervisor writes both, also while it dies; the next boot and the host tool read them. This
//! crate is the layout, its writers and its readers; it knows no register and decides nothing.
//!
//! Everything is made of 64-bit words, little endian in memory. Writers store whole words with
//! atomics, take no lock and allocate nothing, so they work in every context. What is read may be
//! anything (memory after power-on, a write that a reset tore, another version's layout): each
//! piece carries a [`Sum`], readers never index beyond what they were given, and text comes out as
//! printable ASCII.
//!
//! | offset | content |
//! | --- | --- |
//! | 0x0000 | crash page, [`CRASH_PAGE_BYTES`] bytes: see [`crash`] |
//! | 0x1000 | log: see [`log`] |
//!
//! The [`trace`] of a PE stands elsewhere; its last exits are copied into the crash page.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

pub mod crash;
pub mod log;
mod text;
pub mod trace;

use core::sync::atomic::{AtomicU64, Ordering};

/// Length of the crash page, in bytes.
pub const CRASH_PAGE_BYTES: usize = 0x1000;
/// Length of the crash page, in words.
pub const CRASH_PAGE_WORDS: usize = CRASH_PAGE_BYTES / 8;

/// Words that can be read, wherever they stand: live memory at EL2, a file's bytes on the host.
pub trait Words {
    /// Returns the number of words.
    fn count(&self) -> usize;
    /// Returns a word; 0 behind the end.
    fn word(&self, index: usize) -> u64;
}

impl Words for [u64] {
    fn count(&self) -> usize {
        self.len()
    }

    fn word(&self, index: usize) -> u64 {
        self.get(index).copied().unwrap_or(0)
    }
}

impl Words for [AtomicU64] {
    fn count(&self) -> usize {
        self.len()
    }

    fn word(&self, index: usize) -> u64 {
        self.get(index)
            .map_or(0, |word| u64::from_le(word.load(Ordering::Acquire)))
    }
}

/// Stores a word; one behind the end is dropped.
fn store(words: &[AtomicU64], index: usize, value: u64, order: Ordering) {
    if let Some(word) = words.get(index) {
        word.store(value.to_le(), order);
    }
}

/// The sum over words: FNV-1a, a word at a time, folded after each step so that high bits count.
///
/// It tells a torn or foreign piece from a whole one. It is no protection against somebody who
/// means to deceive: nobody but the hypervisor can write there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sum(u64);

impl Sum {
    /// The sum over nothing.
    pub const START: Self = Self(0xcbf2_9ce4_8422_2325);

    /// Adds a word.
    #[must_use]
    pub const fn add(self, word: u64) -> Self {
        let mixed = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        Self(mixed ^ mixed >> 32)
    }

    /// Adds text, zero padded to whole words.
    #[must_use]
    pub fn add_text(self, text: &str) -> Self {
        text.as_bytes().chunks(8).fold(self, |sum, chunk| {
            let word = chunk
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte));
            sum.add(word)
        })
    }

    /// Returns the value. It is never 0, which stands for "not written".
    pub const fn value(self) -> u64 {
        if self.0 == 0 { 1 } else { self.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_sees_each_bit_and_the_order() {
        let sum = |words: [u64; 2]| Sum::START.add(words[0]).add(words[1]).value();
        let whole = sum([5, 9]);
        for bit in 0..64 {
            assert_ne!(sum([5 ^ 1 << bit, 9]), whole);
            assert_ne!(sum([5, 9 ^ 1 << bit]), whole);
        }
        assert_ne!(sum([9, 5]), whole);
        assert_eq!(
            Sum::START.add_text("abcdefghi"),
            Sum::START
                .add(u64::from_le_bytes(*b"abcdefgh"))
                .add(u64::from(b'i'))
        );
    }
}
