// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks between PEs, with a bounded wait.

use spin::Mutex;

/// Looks at a lock before giving up: far more than the longest holder, a full log line, needs.
const SPINS: u32 = 50_000_000;

/// Runs `action` on what the lock protects.
///
/// EL3 cannot be interrupted, so a holder is always another PE and always moves on. One that
/// does not within the bound is dead; the machine then goes down with a boot error record
/// rather than hang without a word.
pub(super) fn with<T, R>(lock: &Mutex<T>, action: impl FnOnce(&mut T) -> R) -> R {
    match try_with(lock, SPINS) {
        Some(mut guard) => action(&mut guard),
        None => panic!("lock held for too long"),
    }
}

/// Takes the lock within a number of looks, or gives up.
pub(super) fn try_with<T>(lock: &Mutex<T>, spins: u32) -> Option<spin::MutexGuard<'_, T>> {
    for _ in 0..spins {
        if let Some(guard) = lock.try_lock() {
            return Some(guard);
        }
        core::hint::spin_loop();
    }
    None
}
