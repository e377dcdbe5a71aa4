// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device that is passed through: the board's PL031, whose line is high from an alarm until the guest
//! clears it. An alarm for the present second rings at once, at the very store.

use firebreak_abi::guest_map::GUEST_INTIDS;
use firebreak_guest_rt::{gic, mmio, println};

/// Where `tests/qemu/systems/sweep-device.toml` puts it.
const RTC: u64 = 0x0a00_0000;
/// Its registers (Arm DDI 0224): RTCDR, RTCMR, RTCIMSC, RTCRIS and RTCICR.
const DATA: u64 = RTC;
pub(crate) const MATCH: u64 = RTC + 0x4;
const MASK: u64 = RTC + 0x10;
const RAW: u64 = RTC + 0x14;
const CLEAR: u64 = RTC + 0x1c;
/// It has the highest INTID that is free.
pub(crate) const INTID: u32 = GUEST_INTIDS - 1;
/// GICD_IGROUPR, GICD_ISENABLER, GICD_ISPENDR and GICD_ISACTIVER of it.
const WORD: u64 = INTID as u64 / 32 * 4;
const GROUP: u64 = gic::GICD_CTLR + 0x80 + WORD;
const ENABLE: u64 = gic::GICD_CTLR + 0x100 + WORD;
const PENDING: u64 = gic::GICD_CTLR + 0x200 + WORD;
const ACTIVE: u64 = gic::GICD_CTLR + 0x300 + WORD;
const BIT: u32 = 1 << (INTID % 32);

fn write(register: u64, value: u32) {
    // SAFETY: a register of the GIC or of the device.
    unsafe { mmio::write32(register, value) };
}

/// Looks, before anything is set up, whether a life before left something of it behind.
pub(crate) fn check(round: u64) {
    for (what, register, mask) in [
        ("device-mask", MASK, 1),
        ("device-alarm", RAW, 1),
        ("device-enabled", ENABLE, BIT),
        ("device-pending", PENDING, BIT),
        ("device-active", ACTIVE, BIT),
    ] {
        let found = mmio::read32(register) & mask;
        if found != 0 {
            println!("sweep: bad round={round} at-reset {what}={found:#x} wanted=0x0");
        }
    }
}

/// Lets its interrupt in.
pub(crate) fn set_up() {
    write(CLEAR, 1);
    write(MASK, 1);
    write(GROUP, u32::MAX);
    write(ENABLE, BIT);
}

/// Returns the second that it is.
pub(crate) fn now() -> u64 {
    u64::from(mmio::read32(DATA))
}

/// Lets it ring now, and waits until that is so.
pub(crate) fn ring() {
    while mmio::read32(RAW) == 0 {
        // The second may pass between the two.
        write(MATCH, mmio::read32(DATA));
    }
}

/// Makes it silent.
pub(crate) fn clear() {
    write(CLEAR, 1);
}
