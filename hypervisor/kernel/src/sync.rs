// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks that the SEI path cannot take.

use firebreak_arch::TaskCtx;
use spin::{Mutex, MutexGuard};

/// A spin lock of task context.
///
/// EL2 masks IRQs, so a holder is never interrupted by another taker on its PE; the SEI path
/// does interrupt holders, and has no [`TaskCtx`] to lock with.
#[derive(Debug)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    /// Makes an open lock.
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Waits for the lock.
    #[inline(never)]
    pub(crate) fn lock<'a>(&'a self, _: &TaskCtx) -> MutexGuard<'a, T> {
        self.0.lock()
    }

    /// Takes the lock if it is open: for a dying hypervisor, which must not wait for anyone.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }
}
