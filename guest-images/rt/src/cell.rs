// SPDX-License-Identifier: MIT OR Apache-2.0
//! Words shared between `main`, exception handlers and a second vCPU.

use core::sync::atomic::{AtomicU64, Ordering};

/// A word that is only ever loaded and stored.
///
/// There is no read-modify-write on purpose: it would need exclusives, which memory with the
/// MMU off does not define. A word that changes by its own value has one writer.
pub struct Cell64(AtomicU64);

impl Cell64 {
    /// Makes a cell.
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Loads the word.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Stores the word.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to the word. Only for the word's single writer.
    #[inline]
    pub fn add(&self, value: u64) {
        self.set(self.get().wrapping_add(value));
    }

    /// Raises the word to `value` when it is lower. Only for the word's single writer.
    #[inline]
    pub fn raise(&self, value: u64) {
        if self.get() < value {
            self.set(value);
        }
    }
}
