// SPDX-License-Identifier: MIT OR Apache-2.0
//! The atomics and the cell that the queue is made of: `core`'s on the target, loom's under
//! `--cfg loom`.
//!
//! In tests and under loom every access first passes `hook::step`, where a test may run an
//! "SEI" on the same PE, or lose the context for good. On the target that call does not exist.

#[cfg(not(loom))]
use core::sync::atomic::AtomicU64;
#[cfg(loom)]
use loom::sync::atomic::AtomicU64;

use core::mem::MaybeUninit;
use core::sync::atomic::Ordering;

#[cfg(any(test, loom))]
use crate::hook::step;

#[cfg(not(any(test, loom)))]
#[inline(always)]
fn step() {}

/// A 64-bit atomic.
pub(crate) struct Word(AtomicU64);

impl Word {
    /// Makes one that holds 0.
    #[cfg(not(loom))]
    pub(crate) const fn zero() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Makes one that holds 0.
    #[cfg(loom)]
    pub(crate) fn zero() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        step();
        self.0.load(order)
    }

    #[inline]
    pub(crate) fn store(&self, value: u64, order: Ordering) {
        step();
        self.0.store(value, order);
    }

    #[inline]
    pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
        step();
        self.0.swap(value, order)
    }

    #[inline]
    pub(crate) fn add_one(&self) {
        step();
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Replaces `old` by `new`, and says whether it did. A failure orders nothing.
    #[inline]
    pub(crate) fn replace(&self, old: u64, new: u64, success: Ordering) -> bool {
        step();
        self.0
            .compare_exchange(old, new, success, Ordering::Relaxed)
            .is_ok()
    }
}

/// Memory for one value, shared by whoever the slot's word says.
pub(crate) struct Cell<T> {
    #[cfg(not(loom))]
    inner: core::cell::UnsafeCell<MaybeUninit<T>>,
    #[cfg(loom)]
    inner: loom::cell::UnsafeCell<MaybeUninit<T>>,
}

impl<T: Copy> Cell<T> {
    /// Makes an empty one.
    #[cfg(not(loom))]
    pub(crate) const fn empty() -> Self {
        Self {
            inner: core::cell::UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Makes an empty one.
    #[cfg(loom)]
    pub(crate) fn empty() -> Self {
        Self {
            inner: loom::cell::UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    #[cfg(not(loom))]
    #[inline]
    fn with<R>(&self, f: impl FnOnce(*const MaybeUninit<T>) -> R) -> R {
        f(self.inner.get())
    }

    #[cfg(loom)]
    fn with<R>(&self, f: impl FnOnce(*const MaybeUninit<T>) -> R) -> R {
        self.inner.with(f)
    }

    #[cfg(not(loom))]
    #[inline]
    fn with_mut<R>(&self, f: impl FnOnce(*mut MaybeUninit<T>) -> R) -> R {
        f(self.inner.get())
    }

    #[cfg(loom)]
    fn with_mut<R>(&self, f: impl FnOnce(*mut MaybeUninit<T>) -> R) -> R {
        self.inner.with_mut(f)
    }

    /// Writes the value.
    ///
    /// # Safety
    ///
    /// Nobody else reads or writes the cell until this returns, and this happens after every
    /// earlier access: the caller holds the slot as RESERVED, acquired from FREE.
    #[inline]
    pub(crate) unsafe fn write(&self, value: &T) {
        step();
        self.with_mut(|place| {
            // SAFETY: `place` is this cell's own memory, aligned and large enough for T; the
            // caller is alone with it.
            unsafe { core::ptr::copy_nonoverlapping(value, place.cast::<T>(), 1) }
        });
    }

    /// Returns where the value stands.
    #[inline]
    pub(crate) fn place(&self) -> *mut T {
        step();
        self.with_mut(|place| place.cast::<T>())
    }

    /// Copies the value out.
    ///
    /// # Safety
    ///
    /// The cell was written, that happened before this, and nobody writes it until this returns:
    /// the caller holds the slot as CLAIMED or PEEKED, acquired from READY.
    #[inline]
    pub(crate) unsafe fn read(&self) -> T {
        step();
        self.with(|place| {
            // SAFETY: `place` is this cell's own memory and holds a T, which is Copy; the caller
            // keeps writers away.
            unsafe { place.cast::<T>().read() }
        })
    }
}
