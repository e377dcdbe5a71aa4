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

    /// Says whether somebody holds it.
    pub(crate) fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    /// Takes the lock, from its holder if need be: for a dying hypervisor, which waits for nobody.
    ///
    /// # Safety
    ///
    /// Nobody may touch what the lock guards any more: this PE does not go back, and the others
    /// have stopped or never come out of where they hang.
    pub(crate) unsafe fn force(&self) -> MutexGuard<'_, T> {
        loop {
            if let Some(guard) = self.0.try_lock() {
                return guard;
            }
            // SAFETY: the holder never goes on: the caller's claim.
            unsafe { self.0.force_unlock() };
        }
    }

    /// Takes the lock if it is open: for a dying hypervisor, which must not wait for anyone.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }
}
