// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values of devicetree properties: cells, ranges, text.
//!
//! Everything is decoded here from the raw words. No length is believed before it was compared
//! with what the value really holds.

use zerocopy::IntoBytes;

/// The value of a property as it stands in the blob.
#[derive(Clone, Copy, Default)]
pub struct Value<'a> {
    /// Big-endian words; the last one may be padding in part.
    words: &'a [u32],
    len_bytes: usize,
}

impl<'a> Value<'a> {
    /// Wraps words of the structure block. `len_bytes` lies inside of them.
    pub(crate) const fn new(words: &'a [u32], len_bytes: usize) -> Self {
        Self { words, len_bytes }
    }

    /// Returns the length in bytes.
    pub const fn len(&self) -> usize {
        self.len_bytes
    }

    /// Says whether the property is a mere flag.
    pub const fn is_empty(&self) -> bool {
        self.len_bytes == 0
    }

    /// Returns the raw bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.words
            .as_bytes()
            .get(..self.len_bytes)
            .unwrap_or_default()
    }

    /// Returns the value as one cell, if it is exactly that.
    pub fn u32(&self) -> Option<u32> {
        match (self.words, self.len_bytes) {
            ([word], 4) => Some(u32::from_be(*word)),
            _ => None,
        }
    }

    /// Returns the value as one number of one or two cells.
    pub fn number(&self) -> Option<u64> {
        match (self.words, self.len_bytes) {
            ([word], 4) => Some(u64::from(u32::from_be(*word))),
            ([high, low], 8) => Some(join(*high, *low)),
            _ => None,
        }
    }

    /// Returns the value as text: one NUL, at the end, and UTF-8 before it.
    pub fn text(&self) -> Option<&'a str> {
        let (last, text) = self.bytes().split_last()?;
        if *last != 0 || text.contains(&0) {
            return None;
        }
        core::str::from_utf8(text).ok()
    }

    /// Says whether a list of strings holds `wanted`.
    pub fn has(&self, wanted: &str) -> bool {
        self.bytes()
            .split(|byte| *byte == 0)
            .any(|one| one == wanted.as_bytes())
    }

    /// Says whether one string of a list starts with `prefix`.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.bytes()
            .split(|byte| *byte == 0)
            .any(|one| one.starts_with(prefix.as_bytes()))
    }

    /// Reads the value as a sequence of cells, or nothing if it does not end with a whole cell.
    pub fn cells(&self) -> Option<Cells<'a>> {
        self.len_bytes
            .is_multiple_of(4)
            .then_some(Cells { rest: self.words })
    }
}

/// Finds a name in a table. One loop for all tables: as a `match`, each name is code.
#[inline(never)]
pub(crate) fn place_of(names: &[&str], name: &[u8]) -> Option<usize> {
    names.iter().position(|known| known.as_bytes() == name)
}

fn join(high: u32, low: u32) -> u64 {
    u64::from(u32::from_be(high)) << 32 | u64::from(u32::from_be(low))
}

/// Cells that have not been read yet.
#[derive(Clone)]
pub struct Cells<'a> {
    rest: &'a [u32],
}

impl Cells<'_> {
    /// Says whether all cells have been read.
    pub const fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads a number of 0, 1 or 2 cells. `None` when they are not there, or for more cells.
    pub fn number(&mut self, cells: u32) -> Option<u64> {
        match (cells, self.rest) {
            (0, _) => Some(0),
            (1, [word, rest @ ..]) => {
                self.rest = rest;
                Some(u64::from(u32::from_be(*word)))
            }
            (2, [high, low, rest @ ..]) => {
                self.rest = rest;
                Some(join(*high, *low))
            }
            _ => None,
        }
    }
}
