// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual timer (CNTV_*, PPI 27) and time itself.

use crate::{read_sysreg, write_sysreg};
use core::arch::asm;

/// Returns CNTVCT_EL0, not earlier than the instructions before.
#[inline]
pub fn now() -> u64 {
    let ticks: u64;
    // SAFETY: reads a counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags)) };
    ticks
}

/// Returns the counter's frequency in Hz, at least 1.
pub fn frequency_hz() -> u64 {
    read_sysreg!("cntfrq_el0").max(1)
}

/// Converts a number of ticks to ns, saturating.
pub fn ticks_to_ns(ticks: u64, frequency_hz: u64) -> u64 {
    let ns = u128::from(ticks) * 1_000_000_000 / u128::from(frequency_hz.max(1));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// Lets the timer's interrupt be pending from the moment at which CNTVCT reaches `at_ticks`.
#[inline]
pub fn arm(at_ticks: u64) {
    write_sysreg!("cntv_cval_el0", at_ticks);
    write_sysreg!("cntv_ctl_el0", 1);
}

/// Stops the timer, and with it its interrupt.
#[inline]
pub fn stop() {
    write_sysreg!("cntv_ctl_el0", 0);
}
