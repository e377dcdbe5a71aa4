// SPDX-License-Identifier: MIT OR Apache-2.0
//! Context tokens: who is running, as a type.
//!
//! *Task* context is EL2's ordinary code: it may lock, print and allocate. *NMI* context is the
//! SEI path: it may have interrupted any instruction of task context on this PE, a lock holder
//! among them. Functions that lock take `&TaskCtx`, functions for the SEI path take `&NmiCtx`;
//! neither can be made from the other, so a lock in the SEI path does not compile.
//!
//! Nothing here touches a register, so that the rule can be tested where `cargo test` runs. This
//! compiles:
//!
//! ```
//! use firebreak_context::{Lock, TaskCtx};
//! fn sei_path(lock: &Lock<u32>, ctx: &TaskCtx) -> u32 {
//!     *lock.lock(ctx)
//! }
//! ```
//!
//! What the SEI path has in its hands is not enough for the same (mismatched types):
//!
//! ```compile_fail,E0308
//! use firebreak_context::{Lock, NmiCtx};
//! fn sei_path(lock: &Lock<u32>, ctx: &NmiCtx) -> u32 {
//!     *lock.lock(ctx)
//! }
//! ```
//!
//! Nor for the lock that keeps an order:
//!
//! ```compile_fail,E0308
//! use firebreak_context::{FairLock, NmiCtx};
//! fn sei_path(lock: &FairLock<u32>, ctx: &NmiCtx) -> u32 {
//!     *lock.lock(ctx)
//! }
//! ```
//!
//! Nor can it make something better of it:
//!
//! ```compile_fail,E0277
//! use firebreak_context::{NmiCtx, TaskCtx};
//! fn sei_path(ctx: NmiCtx) -> TaskCtx {
//!     ctx.into()
//! }
//! ```
//!
//! ```compile_fail,E0423
//! use firebreak_context::TaskCtx;
//! fn sei_path() -> TaskCtx {
//!     TaskCtx(core::marker::PhantomData)
//! }
//! ```
//!
//! ```compile_fail,E0133
//! use firebreak_context::TaskCtx;
//! fn sei_path() -> TaskCtx {
//!     TaskCtx::new()
//! }
//! ```
//!
//! ```compile_fail,E0277
//! use firebreak_context::TaskCtx;
//! fn sei_path() -> TaskCtx {
//!     Default::default()
//! }
//! ```
//!
//! And task context cannot leave its token where an SEI, or another PE, would find it:
//!
//! ```compile_fail,E0277
//! use firebreak_context::{Lock, TaskCtx};
//! static LEFT: Lock<Option<TaskCtx>> = Lock::new(None);
//! ```
//!
//! ```
//! use firebreak_context::Lock;
//! static LEFT: Lock<Option<u32>> = Lock::new(None);
//! ```
//!
//! ```compile_fail,E0308
//! use firebreak_context::TaskCtx;
//! fn keep(ctx: &TaskCtx) -> TaskCtx {
//!     ctx.clone()
//! }
//! ```
#![no_std]

use core::marker::PhantomData;

use spin::mutex::{SpinMutex, SpinMutexGuard, TicketMutex, TicketMutexGuard};

/// Proof of running in EL2's ordinary code on this PE, with IRQs masked.
///
/// Made once per exception by the vector glue. Not `Send`: it speaks of this PE.
#[derive(Debug)]
pub struct TaskCtx(PhantomData<*const ()>);

impl TaskCtx {
    /// Makes the token.
    ///
    /// # Safety
    ///
    /// Only for the first Rust function of a vector of task context, or for boot code on a PE
    /// that takes no SEI yet. Never from the SEI path.
    #[inline]
    pub const unsafe fn new() -> Self {
        Self(PhantomData)
    }
}

/// Proof of running in the SEI path of this PE.
///
/// There is no way from this token to a lock, to memory allocation or to formatting.
#[derive(Debug)]
pub struct NmiCtx(PhantomData<*const ()>);

impl NmiCtx {
    /// Makes the token.
    ///
    /// # Safety
    ///
    /// Only for the first Rust function of the SEI path.
    #[inline]
    pub const unsafe fn new() -> Self {
        Self(PhantomData)
    }
}

/// Defines a lock of task context over one of `spin`'s.
macro_rules! lock {
    ($(#[$about:meta])* $lock:ident over $mutex:ident, $guard:ident is $inner:ident) => {
        #[doc = concat!("What [`", stringify!($lock), "::lock`] returns: dropping it opens the lock.")]
        pub type $guard<'a, T> = $inner<'a, T>;

        $(#[$about])*
        #[derive(Debug)]
        pub struct $lock<T>($mutex<T>);

        impl<T> $lock<T> {
            /// Makes an open lock.
            pub const fn new(value: T) -> Self {
                Self($mutex::new(value))
            }

            /// Waits for the lock.
            #[inline(never)]
            pub fn lock<'a>(&'a self, _: &TaskCtx) -> $guard<'a, T> {
                self.0.lock()
            }

            /// Says whether somebody holds it.
            pub fn is_locked(&self) -> bool {
                self.0.is_locked()
            }

            /// Takes the lock, from its holder if need be: for a dying hypervisor, which waits for
            /// nobody.
            ///
            /// # Safety
            ///
            /// Nobody may touch what the lock guards any more: this PE does not go back, and the
            /// others have stopped or never come out of where they hang.
            pub unsafe fn force(&self) -> $guard<'_, T> {
                loop {
                    if let Some(guard) = self.0.try_lock() {
                        return guard;
                    }
                    // SAFETY: the holder never goes on: the caller's claim.
                    unsafe { self.0.force_unlock() };
                }
            }

            /// Takes the lock if it is open: for a dying hypervisor, which must not wait for anyone.
            pub fn try_lock(&self) -> Option<$guard<'_, T>> {
                self.0.try_lock()
            }
        }
    };
}

lock! {
    /// A spin lock of task context.
    ///
    /// EL2 masks IRQs, so a holder is never interrupted by another taker on its PE; the SEI path
    /// does interrupt holders, and has no [`TaskCtx`] to lock with.
    Lock over SpinMutex, Guard is SpinMutexGuard
}

lock! {
    /// The same for what all partitions share and use for long: PEs get it in the order in which they
    /// came. If whoever is quickest took it, a PE that tells of a storm of errors could keep another
    /// one from the console for as long as it has something to say. It costs some ten instructions more.
    FairLock over TicketMutex, FairGuard is TicketMutexGuard
}
