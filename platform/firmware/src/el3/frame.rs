// SPDX-License-Identifier: MIT OR Apache-2.0
//! The context below EL3, as `vectors.S` saves it, and the way back into it.

use firebreak_el3::psci::Start;

use super::{STACK_BYTES, pe};

/// Registers of the interrupted context.
#[repr(C, align(16))]
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// x0 to x30.
    pub(super) x: [u64; 31],
    /// ELR_EL3. Follows x30: the two are moved as a pair.
    pub(super) elr: u64,
    /// SPSR_EL3.
    pub(super) spsr: u64,
}

/// SPSR_EL3 for a start at EL2: EL2h, DAIF masked.
const EL2H_MASKED: u64 = 0x3c9;

unsafe extern "C" {
    /// Leaves EL3 by the frame at `frame` (`vectors.S`).
    fn el3_exit(frame: *const Frame) -> !;
    /// End of the stacks, which grow down from there, PE 0's first (`linker/el3.ld`).
    static __stacks_end: u8;
}

/// Starts EL2 of this PE afresh.
pub(super) fn enter_el2(pe: usize, start: Start) -> ! {
    pe::reset_el2();
    let mut frame = Frame {
        x: [0; 31],
        elr: start.entry,
        spsr: EL2H_MASKED,
    };
    frame.x[0] = start.context;
    let top = (&raw const __stacks_end).addr() - pe * STACK_BYTES;
    let slot = core::ptr::with_exposed_provenance_mut::<Frame>(top - size_of::<Frame>());
    // SAFETY: the topmost frame of each stack is kept free for this: `boot.S` starts Rust below
    // it, and a handler that got here does not return to the context saved in it.
    unsafe { slot.write(frame) };
    // SAFETY: `slot` is the topmost frame of this PE's stack, just filled in.
    unsafe { el3_exit(slot) }
}
