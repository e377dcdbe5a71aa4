// SPDX-License-Identifier: MIT OR Apache-2.0
//! A passed-through device whose interrupt is a level: the board's PL031, whose line is high from
//! an alarm until the guest clears it.

use firebreak_abi::guest_map::GUEST_INTIDS;
use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::{cpu, gic, mmio, println, psci, timer};

/// Where `tests/qemu/systems/level.toml` puts the device.
const RTC: u64 = 0x0a00_0000;
/// Its registers (Arm DDI 0224): RTCDR, RTCMR, RTCIMSC, RTCRIS and RTCICR.
const DATA: u64 = RTC;
const MATCH: u64 = RTC + 0x4;
const MASK: u64 = RTC + 0x10;
const RAW: u64 = RTC + 0x14;
const CLEAR: u64 = RTC + 0x1c;
/// Its own INTID, 34, is that of the emulated PL031: it has the highest that is free.
const INTID: u32 = GUEST_INTIDS - 1;
/// GICD_ISENABLER, GICD_ICENABLER, GICD_ISPENDR and GICD_ISACTIVER of it.
const WORD: u64 = INTID as u64 / 32 * 4;
const ENABLE: u64 = gic::GICD_CTLR + 0x100 + WORD;
const DISABLE: u64 = gic::GICD_CTLR + 0x180 + WORD;
const PENDING: u64 = gic::GICD_CTLR + 0x200 + WORD;
const ACTIVE: u64 = gic::GICD_CTLR + 0x300 + WORD;
const BIT: u32 = 1 << (INTID % 32);
/// GICD_IGROUPR of it.
const GROUP: u64 = gic::GICD_CTLR + 0x80 + WORD;
/// How often the interrupt is ended while the line stays high.
const ENDS: u64 = 5;
/// How long a line that is high is left alone, in us.
const LONG_US: u64 = 2000;

/// Interrupts of the device that were taken.
static TAKEN: Cell64 = Cell64::new(0);
/// After how many of them the alarm is cleared; 0 for never, and then none is ended either.
static CLEARED_AFTER: Cell64 = Cell64::new(0);
/// Set by an interrupt that came though the alarm had been cleared.
static SPURIOUS: Cell64 = Cell64::new(0);

fn write(register: u64, value: u32) {
    // SAFETY: a register of the GIC or of the device.
    unsafe { mmio::write32(register, value) };
}

fn bit(register: u64) -> u8 {
    u8::from(mmio::read32(register) & BIT != 0)
}

/// Lets the line be high from now on; the caller lets interrupts in again.
fn ring() {
    cpu::mask_irq();
    while mmio::read32(RAW) == 0 {
        // The second may pass between the two.
        write(MATCH, mmio::read32(DATA));
    }
}

fn wait(us: u64) {
    let end = timer::now() + timer::frequency_hz() * us / 1_000_000;
    while timer::now() < end {
        cpu::yield_now();
    }
}

/// Waits until so many were taken, but not for ever.
fn wait_for(count: u64) {
    for _ in 0..100 {
        if TAKEN.get() >= count {
            return;
        }
        wait(100);
    }
}

/// Takes an interrupt of the device; says whether it was one.
pub(crate) fn take(intid: u32) -> bool {
    if intid != INTID {
        return false;
    }
    if mmio::read32(RAW) == 0 {
        SPURIOUS.add(1);
    }
    TAKEN.add(1);
    let limit = CLEARED_AFTER.get();
    if limit == 0 {
        // Active for good, with the line high; the caller gets no second one.
        return true;
    }
    // Long enough for a storm to be one.
    wait(LONG_US / 10);
    if TAKEN.get() == limit {
        write(CLEAR, 1);
    }
    gic::end(intid);
    true
}

fn set_up(cleared_after: u64) {
    TAKEN.set(0);
    SPURIOUS.set(0);
    CLEARED_AFTER.set(cleared_after);
    write(GROUP, u32::MAX);
    write(CLEAR, 1);
    write(MASK, 1);
}

/// Ends the interrupt several times while the line is high, and lets the line be high while the
/// interrupt is disabled.
pub(crate) fn run() {
    let found = (bit(ENABLE), bit(PENDING), bit(ACTIVE));
    set_up(ENDS);
    write(ENABLE, BIT);
    ring();
    cpu::unmask_irq();
    wait_for(ENDS);
    wait(LONG_US);
    let taken = TAKEN.get();
    // Nothing may come while it is disabled, and it must not be lost either.
    write(DISABLE, BIT);
    CLEARED_AFTER.set(taken + 1);
    ring();
    cpu::unmask_irq();
    wait(LONG_US);
    psci::hvc(psci::VERSION, [0; 3]);
    let (held, pending) = (TAKEN.get() - taken, bit(PENDING));
    write(ENABLE, BIT);
    wait_for(taken + 1);
    wait(LONG_US);
    let late = TAKEN.get() - taken - held;
    write(DISABLE, BIT);
    let spurious = SPURIOUS.get();
    let (enabled, stale, active) = found;
    println!(
        "cases: level found={enabled}{stale}{active} taken={taken} held={held} pending={pending} late={late} spurious={spurious}"
    );
}

/// Takes the interrupt, and ends neither it nor the alarm: both are left behind.
pub(crate) fn leave_active() {
    set_up(0);
    write(ENABLE, BIT);
    ring();
    cpu::unmask_irq();
    wait_for(1);
    let (taken, active) = (TAKEN.get(), bit(ACTIVE));
    println!("cases: left taken={taken} active={active}");
}

/// Leaves the alarm ringing, with the interrupt pending and not taken.
pub(crate) fn leave_pending() {
    set_up(0);
    write(ENABLE, BIT);
    ring();
    wait(LONG_US);
    let (taken, pending) = (TAKEN.get(), bit(PENDING));
    println!("cases: left taken={taken} pending={pending}");
}
