// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fuzzer's bytes, read as numbers. Behind the end they are zeros, so that cutting an input short
//! leaves its start's meaning as it was.

/// What is left of an input.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    /// Says whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one byte.
    pub(crate) fn u8(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Takes four bytes.
    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(core::array::from_fn(|_| self.u8()))
    }

    /// Takes eight bytes.
    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(core::array::from_fn(|_| self.u8()))
    }

    /// Takes one byte for a number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.u8()) % bound
    }
}
