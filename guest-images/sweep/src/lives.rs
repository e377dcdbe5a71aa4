// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rounds that end a life of the partition: what the next one must not find.

use crate::registers::System;
use core::ops::Range;
use firebreak_abi::guest_map::RAM;
use firebreak_guest_rt::{gic, mmio, println, read_sysreg};

/// Distance of the words that are soiled, and looked at.
const STRIDE_BYTES: usize = 1024;
/// Memory that neither this program nor the devicetree uses, in 6 MiB of RAM: before and behind
/// the program. Offsets from the start of RAM.
const UNUSED: [Range<u64>; 2] = [0x10_0000..0x20_0000, 0x2c_0000..0x5e_0000];
const PATTERN: u32 = 0x5eed_0bad;
/// Offsets from GICR_ISENABLER0: itself, GICR_ISPENDR0 and GICR_ISACTIVER0.
const PRIVATE: [u64; 3] = [0, 0x100, 0x200];

fn words() -> impl Iterator<Item = u64> {
    let ranges = UNUSED.into_iter();
    ranges.flat_map(|range| range.step_by(STRIDE_BYTES).map(|offset| RAM.get() + offset))
}

/// Looks, before anything is set up, whether this life begins like the first one. Says each
/// difference; `round` is the period in which it began.
pub(crate) fn check(round: u64) {
    System::read().compare_with_reset(round);
    let dirty = words().filter(|word| mmio::read32(*word) != 0).count() as u64;
    let private: u32 = PRIVATE
        .iter()
        .map(|offset| mmio::read32(gic::isenabler0() + offset).count_ones())
        .sum();
    let timers = read_sysreg!("cntv_ctl_el0") & 1 | read_sysreg!("cntp_ctl_el0") & 1;
    for (what, found) in [
        ("dirty", dirty),
        ("gic", u64::from(private)),
        ("isr", read_sysreg!("isr_el1")),
        ("timers", timers),
    ] {
        if found != 0 {
            println!("sweep: bad round={round} at-reset {what}={found:#x} wanted=0x0");
        }
    }
}

/// Leaves in memory what the next life must not find.
pub(crate) fn soil() {
    for word in words() {
        // SAFETY: nothing of this program stands there.
        unsafe { mmio::write32(word, PATTERN) };
    }
}
