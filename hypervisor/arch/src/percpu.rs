// SPDX-License-Identifier: MIT OR Apache-2.0
//! Context tokens: who is running, as a type.
//!
//! *Task* context is EL2's ordinary code: it may lock, print and allocate. *NMI* context is the
//! SEI path: it may have interrupted any instruction of task context on this PE, a lock holder
//! among them. Functions that lock take `&TaskCtx`, functions for the SEI path take `&NmiCtx`;
//! neither can be made from the other, so a lock in the SEI path does not compile.

use core::marker::PhantomData;

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
