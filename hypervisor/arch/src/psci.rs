// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls into the firmware: SMCCC 1.x by SMC, PSCI's caller side, the SEI contract's calls.

use firebreak_abi::{Mpidr, Pa, psci, sei};

/// CPU_ON with 64-bit arguments.
const CPU_ON: u64 = (psci::CPU_ON | psci::SMC64) as u64;
const CPU_OFF: u64 = psci::CPU_OFF as u64;
const SYSTEM_OFF: u64 = psci::SYSTEM_OFF as u64;
const SYSTEM_RESET: u64 = psci::SYSTEM_RESET as u64;

/// Makes an SMC with up to five arguments; returns x0.
///
/// # Safety
///
/// The call must not make the firmware write memory that Rust owns.
unsafe fn smc(function: u64, arguments: [u64; 5]) -> u64 {
    let result: u64;
    // SAFETY: SMCCC 1.1 preserves x4 and up apart from results; x0 to x17 are declared lost,
    // memory is clobbered. The caller answers for the call's meaning.
    unsafe {
        core::arch::asm!(
            "smc #0",
            inout("x0") function => result,
            inout("x1") arguments[0] => _,
            inout("x2") arguments[1] => _,
            inout("x3") arguments[2] => _,
            inout("x4") arguments[3] => _,
            inout("x5") arguments[4] => _,
            out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
            options(nostack)
        );
    }
    result
}

/// Starts a PE at `entry` with `context` in x0.
///
/// # Errors
///
/// Returns PSCI's error code.
///
/// # Safety
///
/// `entry` must be the address of code that runs at EL2 with the MMU off, and take `context`.
pub unsafe fn cpu_on(target: Mpidr, entry: Pa, context: u64) -> Result<(), i64> {
    // SAFETY: starting a PE writes no memory of this one; the caller answers for the entry.
    let result = unsafe { smc(CPU_ON, [target.get(), entry.get(), context, 0, 0]) };
    match result.cast_signed() {
        0 => Ok(()),
        error => Err(error),
    }
}

/// Turns this PE off. Returns only if the firmware refuses.
pub fn cpu_off() {
    // SAFETY: this PE stops; nothing is written.
    unsafe { smc(CPU_OFF, [0; 5]) };
}

/// Turns the machine off. Returns only if the firmware refuses.
pub fn system_off() {
    // SAFETY: the machine stops; nothing is written.
    unsafe { smc(SYSTEM_OFF, [0; 5]) };
}

/// Resets the machine. Returns only if the firmware refuses.
pub fn system_reset() {
    // SAFETY: the machine restarts; nothing is written.
    unsafe { smc(SYSTEM_RESET, [0; 5]) };
}

/// Hands a status block to the firmware as boot error record and resets the machine
/// (SEI contract, FATAL). Returns only if the firmware refuses.
///
/// # Safety
///
/// Only where the devicetree names a `firebreak,sei-1` firmware: elsewhere the number is unknown.
pub unsafe fn fatal(block: Pa, len_bytes: u64) {
    // SAFETY: the firmware reads the block and resets.
    unsafe { smc(sei::smc::FATAL, [block.get(), len_bytes, 0, 0, 0]) };
}
