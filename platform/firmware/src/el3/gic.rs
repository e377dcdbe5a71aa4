// SPDX-License-Identifier: MIT OR Apache-2.0
//! GICv3: everything belongs to the normal world (Group 1 NS) except the three interrupts of the
//! firmware, which are Group 0 and reach EL3 as FIQ (Arm IHI 0069, 4.6).

use super::mmio::Reg32;
use super::sysreg;
use firebreak_abi::MAX_PES;

/// Distributor of QEMU `virt`.
pub(super) const GICD_BASE: usize = 0x0800_0000;
/// Redistributors of QEMU `virt`: two 64 KiB frames for each PE, in the order of Aff0.
const GICR_BASE: usize = 0x080a_0000;
const GICR_STRIDE: usize = 0x2_0000;
/// Offset of a redistributor's SGI and PPI frame.
const SGI_FRAME: usize = 0x1_0000;

/// Secure UART (SPI 8).
pub(super) const UART_INTID: u32 = 40;
/// Secure physical timer CNTPS (PPI 13).
pub(super) const TIMER_INTID: u32 = 29;
/// SGI from one PE's firmware to another's.
pub(super) const SGI_INTID: u32 = 8;

const CTLR: usize = 0x0000;
const TYPER: usize = 0x0004;
const WAKER: usize = 0x0014;
const IGROUPR: usize = 0x0080;
const ISENABLER: usize = 0x0100;
const IPRIORITYR: usize = 0x0400;
const IGRPMODR: usize = 0x0d00;
const IROUTER: usize = 0x6000;

const CTLR_RWP: u32 = 1 << 31;
const CTLR_ARE_NS: u32 = 1 << 5;
const CTLR_ARE_S: u32 = 1 << 4;
const CTLR_ENABLE_GRP0: u32 = 1 << 0;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
const TYPER_LAST: u32 = 1 << 4;

/// Priorities of the normal world's interrupts until it sets them: the lower half.
const NORMAL_PRIORITIES: u32 = 0x8080_8080;
/// Looks at a register that ought to change at once.
const SPINS: u32 = 1_000_000;

/// Returns a register of the distributor.
fn gicd(offset: usize) -> Reg32 {
    // SAFETY: the offsets of this module are registers of the distributor's 64 KiB frame.
    unsafe { Reg32::new(GICD_BASE + offset) }
}

/// Returns a register of the redistributor of a PE below [`MAX_PES`].
fn gicr(pe: usize, offset: usize) -> Reg32 {
    // SAFETY: QEMU virt has 123 redistributors' worth of frames there, and the offsets of this
    // module lie inside of the two frames of each.
    unsafe { Reg32::new(GICR_BASE + pe * GICR_STRIDE + offset) }
}

/// Sets the distributor up, all groups still disabled.
pub(super) fn init_distributor() {
    gicd(CTLR).write(0);
    wait_rwp();
    gicd(CTLR).write(CTLR_ARE_S);
    wait_rwp();
    gicd(CTLR).write(CTLR_ARE_S | CTLR_ARE_NS);
    wait_rwp();
    // ITLinesNumber counts 32 INTIDs each; the first 32 are the redistributors'.
    let words = (gicd(TYPER).read() & 0x1f) as usize + 1;
    for word in 1..words {
        gicd(IGROUPR + 4 * word).write(u32::MAX);
        gicd(IGRPMODR + 4 * word).write(0);
        for priorities in 8 * word..8 * word + 8 {
            gicd(IPRIORITYR + 4 * priorities).write(NORMAL_PRIORITIES);
        }
    }
    let (word, bit) = (UART_INTID as usize / 32, 1 << (UART_INTID % 32));
    gicd(IGROUPR + 4 * word).modify(bit, 0);
    gicd(IPRIORITYR + UART_INTID as usize).modify(0xff, 0);
    // To the primary, affinity 0.0.0.0.
    gicd(IROUTER + 8 * UART_INTID as usize).write(0);
    gicd(IROUTER + 8 * UART_INTID as usize + 4).write(0);
    gicd(ISENABLER + 4 * word).write(bit);
}

/// Enables Group 0 in the distributor: the sign for which the other PEs wait in `boot.S`.
pub(super) fn release_secondaries() {
    sysreg::dsb_sy();
    gicd(CTLR).modify(0, CTLR_ENABLE_GRP0);
    wait_rwp();
}

/// Counts the redistributors, up to the number of PEs that the firmware has room for.
pub(super) fn count_pes() -> usize {
    let last = (0..MAX_PES - 1).find(|pe| gicr(*pe, 0x8).read() & TYPER_LAST != 0);
    last.map_or(MAX_PES, |last| last + 1)
}

/// Sets this PE's redistributor and CPU interface up.
pub(super) fn init_pe(pe: usize) {
    gicr(pe, WAKER).modify(WAKER_PROCESSOR_SLEEP, 0);
    for _ in 0..SPINS {
        if gicr(pe, WAKER).read() & WAKER_CHILDREN_ASLEEP == 0 {
            break;
        }
    }
    let own = 1 << TIMER_INTID | 1 << SGI_INTID;
    gicr(pe, SGI_FRAME + IGROUPR).write(!own);
    gicr(pe, SGI_FRAME + IGRPMODR).write(0);
    for priorities in 0..8 {
        gicr(pe, SGI_FRAME + IPRIORITYR + 4 * priorities).write(NORMAL_PRIORITIES);
    }
    for intid in [TIMER_INTID, SGI_INTID] {
        let word = intid as usize & !3;
        gicr(pe, SGI_FRAME + IPRIORITYR + word).modify(0xff << (8 * (intid % 4)), 0);
    }
    gicr(pe, SGI_FRAME + ISENABLER).write(own);
    sysreg::init_gic_cpu_interface();
}

/// Sends the firmware's SGI to another PE's EL3.
pub(super) fn notify(pe: usize) {
    sysreg::dsb_sy();
    // ICC_SGI0R_EL1: INTID in [27:24], target list in [15:0], affinity 0.0.0.
    sysreg::write_icc_sgi0r_el1(u64::from(SGI_INTID) << 24 | 1 << pe);
    sysreg::isb();
}

fn wait_rwp() {
    for _ in 0..SPINS {
        if gicd(CTLR).read() & CTLR_RWP == 0 {
            break;
        }
    }
}
