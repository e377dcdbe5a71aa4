// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device accesses.
//!
//! They are written in assembly so that each is one load or store without writeback: only those
//! give a hypervisor a syndrome that describes the access (ESR_EL2.ISV, Arm ARM D24.2.40).

use core::arch::asm;

/// Reads 32 bits.
///
/// A wrong address is an exception in this guest, which is what a guest is for; Rust's memory is
/// not touched, so the function is safe.
#[inline]
pub fn read32(ipa: u64) -> u32 {
    let value: u32;
    // SAFETY: a load changes no memory; a load that faults goes to the guest's exception handler.
    unsafe {
        asm!("ldr {value:w}, [{ipa}]", value = out(reg) value, ipa = in(reg) ipa,
            options(nostack, preserves_flags));
    }
    value
}

/// Writes 32 bits to a device register.
///
/// # Safety
///
/// No Rust object may stand at `ipa`.
#[inline]
pub unsafe fn write32(ipa: u64, value: u32) {
    // SAFETY: the caller promises that this is no memory of the program.
    unsafe {
        asm!("str {value:w}, [{ipa}]", value = in(reg) value, ipa = in(reg) ipa,
            options(nostack, preserves_flags));
    }
}
