// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions and system registers without a module of their own.

use core::arch::asm;

/// Reads a system register named by a string literal: `read_sysreg!("cntvct_el0")`.
#[macro_export]
macro_rules! read_sysreg {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading this register changes nothing that the compiler knows of.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value,
                options(nostack, preserves_flags));
        }
        value
    }};
}

/// Writes a system register named by a string literal, followed by an ISB.
#[macro_export]
macro_rules! write_sysreg {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the registers that the guests write steer interrupts and timers, no memory.
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), "isb", in(reg) value,
                options(nostack, preserves_flags));
        }
    }};
}

/// Waits for an interrupt.
#[inline]
pub fn wfi() {
    // SAFETY: changes no state; an interrupt is handled before or behind it.
    unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) };
}

/// Waits for an event; used in spin loops so that another vCPU's thread may run.
#[inline]
pub fn yield_now() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) };
}

/// Lets interrupts in (PSTATE.I = 0).
#[inline]
pub fn unmask_irq() {
    // SAFETY: the handlers are installed before Rust runs.
    unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
}

/// Keeps interrupts out (PSTATE.I = 1).
#[inline]
pub fn mask_irq() {
    // SAFETY: delays handlers, nothing else.
    unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) };
}

/// Lets SErrors in (PSTATE.A = 0).
#[inline]
pub fn unmask_serror() {
    // SAFETY: the handlers are installed before Rust runs.
    unsafe { asm!("msr daifclr, #4", options(nostack, preserves_flags)) };
}

/// Keeps SErrors out (PSTATE.A = 1).
#[inline]
pub fn mask_serror() {
    // SAFETY: delays handlers, nothing else.
    unsafe { asm!("msr daifset, #4", options(nostack, preserves_flags)) };
}

/// Error synchronization barrier (HINT #16): with FEAT_RAS, a pending SError that is masked is
/// deferred into DISR_EL1; a NOP without.
#[inline]
pub fn esb() {
    // SAFETY: changes DISR_EL1 alone.
    unsafe { asm!("hint #16", options(nostack, preserves_flags)) };
}

/// Masks every asynchronous exception.
#[inline]
pub fn mask_all() {
    // SAFETY: delays handlers, nothing else.
    unsafe { asm!("msr daifset, #0xf", options(nostack, preserves_flags)) };
}

/// Says whether this CPU implements the RAS extension (ID_AA64PFR0_EL1.RAS, bits 31:28).
pub fn has_ras() -> bool {
    read_sysreg!("id_aa64pfr0_el1") >> 28 & 0xf != 0
}

/// Says whether ID registers promise SCXTNUM_EL1 (ID_AA64PFR0_EL1.CSV2, bits 59:56, from 2 on).
pub fn has_scxtnum() -> bool {
    read_sysreg!("id_aa64pfr0_el1") >> 56 & 0xf > 1
}

/// Reads and clears DISR_EL1; 0 on a CPU without the RAS extension, which has no such register.
pub fn take_disr() -> u64 {
    if !has_ras() {
        return 0;
    }
    // DISR_EL1 by its encoding, as the base architecture's assembler does not know the name.
    let disr = read_sysreg!("s3_0_c12_c1_1");
    if disr != 0 {
        write_sysreg!("s3_0_c12_c1_1", 0);
    }
    disr
}

/// Returns this vCPU's affinity level 0, its number inside the partition.
pub fn index() -> u64 {
    read_sysreg!("mpidr_el1") & 0xff
}
