// SPDX-License-Identifier: MIT OR Apache-2.0
//! The measured operations: each between two reads of CNTVCT_EL0, with nothing else between.
//!
//! No ISB stands beside the reads: the figures are instruction counts, made where one tick is
//! one instruction, and a barrier would count as one. On silicon they are therefore no latencies.

use core::arch::asm;

/// Makes a function that times one instruction which reads or writes a device register.
macro_rules! timed_mmio {
    ($(#[$doc:meta])* $name:ident, $instruction:literal) => {
        $(#[$doc])*
        #[inline]
        pub(crate) fn $name(ipa: u64, value: u32) -> u64 {
            let before: u64;
            let after: u64;
            // SAFETY: `main` passes device registers only, which are no memory of the program.
            unsafe {
                asm!("mrs {before}, cntvct_el0", $instruction, "mrs {after}, cntvct_el0",
                    before = out(reg) before, after = out(reg) after,
                    ipa = in(reg) ipa, value = inout(reg) u64::from(value) => _,
                    options(nostack, preserves_flags));
            }
            after.wrapping_sub(before)
        }
    };
}

timed_mmio!(
    /// Times a 32-bit load.
    read32,
    "ldr {value:w}, [{ipa}]"
);
timed_mmio!(
    /// Times a 32-bit store.
    write32,
    "str {value:w}, [{ipa}]"
);

/// Makes a function that times one SMCCC call.
macro_rules! timed_call {
    ($(#[$doc:meta])* $name:ident, $instruction:literal) => {
        $(#[$doc])*
        #[inline]
        pub(crate) fn $name(function: u64) -> u64 {
            let before: u64;
            let after: u64;
            // SAFETY: the calling convention keeps x18 and up; these calls touch no memory.
            unsafe {
                asm!("mrs {before}, cntvct_el0", $instruction, "mrs {after}, cntvct_el0",
                    before = out(reg) before, after = out(reg) after,
                    inout("x0") function => _, out("x1") _, out("x2") _, out("x3") _,
                    out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _,
                    out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _,
                    out("x15") _, out("x16") _, out("x17") _,
                    options(nostack));
            }
            after.wrapping_sub(before)
        }
    };
}

timed_call!(
    /// Times an HVC.
    hvc,
    "hvc #0"
);
timed_call!(
    /// Times an SMC.
    smc,
    "smc #0"
);

/// Times nothing: what the two reads cost.
#[inline]
pub(crate) fn empty() -> u64 {
    let before: u64;
    let after: u64;
    // SAFETY: reads a counter.
    unsafe {
        asm!("mrs {before}, cntvct_el0", "mrs {after}, cntvct_el0",
            before = out(reg) before, after = out(reg) after,
            options(nomem, nostack, preserves_flags));
    }
    after.wrapping_sub(before)
}

/// Sends an SGI. Returns CNTVCT_EL0 from right before.
#[inline]
pub(crate) fn send_sgi(sgi1r: u64) -> u64 {
    let before: u64;
    // SAFETY: raises an interrupt, whose handler is installed. S3_0_C12_C11_5 is ICC_SGI1R_EL1.
    unsafe {
        asm!("mrs {before}, cntvct_el0", "msr s3_0_c12_c11_5, {sgi1r}", "isb",
            before = out(reg) before, sgi1r = in(reg) sgi1r,
            options(nostack, preserves_flags));
    }
    before
}

/// Reads CNTVCT_EL0 and CNTPCT_EL0 together. Returns by how much the physical count is ahead.
pub(crate) fn physical_count_lead() -> u64 {
    let virtual_ticks: u64;
    let physical_ticks: u64;
    // SAFETY: reads counters.
    unsafe {
        asm!("mov {physical}, xzr",
            "mrs {virtual}, cntvct_el0", "mrs {physical}, cntpct_el0",
            virtual = out(reg) virtual_ticks, physical = out(reg) physical_ticks,
            options(nomem, nostack, preserves_flags));
    }
    physical_ticks
        .saturating_sub(virtual_ticks)
        .saturating_sub(1)
}
