// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a life of the partition begins with, and how to leave as much as possible behind.

use core::ops::Range;
use firebreak_abi::guest_map::{PTIMER_INTID, RAM, VTIMER_INTID};
use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::{cpu, gic, mmio, println, read_sysreg, timer, write_sysreg};

/// SGI that is left pending.
const SGI_INTID: u32 = 9;
/// SPI that is left pending.
const SPI_INTID: u64 = 100;
/// Offset between the words that are soiled and looked at.
const STRIDE: usize = 256;
/// Memory that neither this program nor the devicetree uses, in 4 MiB of RAM: before and behind
/// the program. Offsets from the start of RAM.
const UNUSED: [Range<u64>; 2] = [0x10_0000..0x20_0000, 0x2c_0000..0x3e_0000];
const PATTERN: u32 = 0x5011_ed00;
/// Offsets from GICR_ISENABLER0: GICR_ISPENDR0 and GICR_ISACTIVER0.
const ISPENDR: u64 = 0x100;
const ISACTIVER: u64 = 0x200;
/// Offsets from GICD_CTLR: GICD_ISENABLER, GICD_ISPENDR and GICD_ISACTIVER of the SPI.
const SPI_WORD: u64 = SPI_INTID / 32 * 4;
const SPI_REGISTERS: [u64; 3] = [0x100 + SPI_WORD, 0x200 + SPI_WORD, 0x300 + SPI_WORD];

/// Words that were not zero.
static DIRTY: Cell64 = Cell64::new(0);
/// Bits of the GIC's registers that say enabled, pending or active.
static GIC: Cell64 = Cell64::new(0);
/// ISR_EL1: an interrupt or an SError is pending.
static ISR: Cell64 = Cell64::new(0);
/// Timers' controls, the virtual one's in the low half.
static TIMERS: Cell64 = Cell64::new(0);
/// Registers of floating point, performance monitors and pointer authentication that were not zero.
static REGISTERS: Cell64 = Cell64::new(0);

/// ID_AA64PFR0_EL1 and its like: whether a 4-bit field is not 0.
fn has(register: u64, shift: u32) -> bool {
    register >> shift & 0xf != 0
}

/// PMUv3 is there.
fn has_pmu() -> bool {
    has(read_sysreg!("id_aa64dfr0_el1"), 8)
}

/// FEAT_PAuth is there, by either of its algorithms.
fn has_pointer_authentication() -> bool {
    let isar1 = read_sysreg!("id_aa64isar1_el1");
    has(isar1, 4) || has(isar1, 8)
}

/// A register that the compiler has no use for in so little code.
fn last_vector() -> u64 {
    let value: u64;
    // SAFETY: reading a register changes nothing.
    unsafe {
        core::arch::asm!("fmov {}, d31", out(reg) value, options(nomem, nostack, preserves_flags));
    }
    value
}

/// FPCR, V31, the cycle counter with the type of the first event counter, a key.
fn registers() -> [u64; 5] {
    let (mut cycles, mut event, mut key) = (0, 0, 0);
    if has_pmu() {
        cycles = read_sysreg!("pmccntr_el0");
        write_sysreg!("pmselr_el0", 0_u64);
        event = read_sysreg!("pmxevtyper_el0");
    }
    if has_pointer_authentication() {
        key = read_sysreg!("s3_0_c2_c1_0");
    }
    [read_sysreg!("fpcr"), last_vector(), cycles, event, key]
}

/// Leaves something in each of them.
fn soil_registers() {
    const ROUND_TO_ZERO: u64 = 0b11 << 22;
    if has_pmu() {
        write_sysreg!("pmselr_el0", 0_u64);
        write_sysreg!("pmxevtyper_el0", 8_u64);
        write_sysreg!("pmccntr_el0", u64::from(PATTERN));
    }
    if has_pointer_authentication() {
        write_sysreg!("s3_0_c2_c1_0", u64::from(PATTERN));
    }
    write_sysreg!("fpcr", ROUND_TO_ZERO);
    // SAFETY: the register is declared lost; that the value stays in it is only hoped for, and seen.
    unsafe {
        core::arch::asm!("fmov d31, {}", in(reg) u64::from(PATTERN), out("v31") _,
            options(nomem, nostack, preserves_flags));
    }
}

fn words() -> impl Iterator<Item = u64> {
    let ranges = UNUSED.into_iter();
    ranges.flat_map(|range| range.step_by(STRIDE).map(|offset| RAM.get() + offset))
}

/// Looks, before anything is set up.
pub(crate) fn look() {
    let used = registers().iter().filter(|value| **value != 0).count();
    REGISTERS.set(used as u64);
    DIRTY.set(words().filter(|word| mmio::read32(*word) != 0).count() as u64);
    let private = [0, ISPENDR, ISACTIVER].map(|offset| gic::isenabler0() + offset);
    let shared = SPI_REGISTERS.map(|offset| gic::GICD_CTLR + offset);
    let registers = private.into_iter().chain(shared);
    let bits = registers.map(|register| u64::from(mmio::read32(register).count_ones()));
    GIC.set(bits.sum());
    ISR.set(read_sysreg!("isr_el1"));
    TIMERS.set(read_sysreg!("cntp_ctl_el0") << 32 | read_sysreg!("cntv_ctl_el0"));
}

/// Tells what was seen then, and what is to be seen now.
pub(crate) fn tell() {
    let (dirty, gic, isr, timers) = (DIRTY.get(), GIC.get(), ISR.get(), TIMERS.get());
    let registers = REGISTERS.get();
    println!(
        "cases: fresh dirty={dirty} gic={gic} isr={isr:#x} timers={timers:#x} registers={registers}"
    );
}

/// Leaves memory, timers and interrupts in a state in which nothing may find them again.
pub(crate) fn soil() {
    cpu::mask_irq();
    for word in words() {
        // SAFETY: nothing of this program stands there.
        unsafe { mmio::write32(word, PATTERN) };
    }
    for intid in [SGI_INTID, VTIMER_INTID, PTIMER_INTID] {
        gic::enable_private(intid);
    }
    // Their time has come: both lines are high.
    timer::arm(timer::now());
    write_sysreg!("cntp_cval_el0", 0_u64);
    write_sysreg!("cntp_ctl_el0", 1_u64);
    write_sysreg!(
        "s3_0_c12_c11_5",
        gic::sgi_to(cpu::index(), u64::from(SGI_INTID))
    );
    let [enable, pend, _] = SPI_REGISTERS;
    for register in [enable, pend] {
        // SAFETY: a GIC register.
        unsafe { mmio::write32(gic::GICD_CTLR + register, 1 << (SPI_INTID % 32)) };
    }
    soil_registers();
    look();
    tell();
}
