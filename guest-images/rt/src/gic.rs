// SPDX-License-Identifier: MIT OR Apache-2.0
//! GICv3: what a guest with a few private interrupts needs.

use crate::mmio::{read32, write32};
use crate::{cpu, read_sysreg, write_sysreg};
use firebreak_abi::guest_map::{GICD, GICR, GICR_STRIDE};

/// GICD_CTLR.
pub const GICD_CTLR: u64 = GICD.get();
/// GICD_TYPER.
pub const GICD_TYPER: u64 = GICD.get() + 0x4;

/// ARE_NS, EnableGrp1A and EnableGrp1: what Linux writes too.
const GICD_CTLR_ENABLE: u32 = 0x13;
const GICR_WAKER: u64 = 0x14;
const GICR_WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const GICR_WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
/// Offset of a redistributor's second frame, SGI_base.
const SGI_BASE: u64 = 0x1_0000;
const GICR_IGROUPR0: u64 = SGI_BASE + 0x80;
const GICR_ISENABLER0: u64 = SGI_BASE + 0x100;
const GICR_ICENABLER0: u64 = SGI_BASE + 0x180;
const GICR_IPRIORITYR: u64 = SGI_BASE + 0x400;
/// In the middle, so that no register's reset value decides.
const PRIORITIES: u32 = 0xa0a0_a0a0;
/// Reads of GICR_WAKER before the redistributor is taken as awake.
const WAKE_READS: u32 = 1000;
/// INTIDs from here on are special: 1023 means that no interrupt is pending.
pub const FIRST_SPECIAL_INTID: u32 = 1020;

/// Returns the address of this vCPU's redistributor.
pub fn redistributor() -> u64 {
    GICR.get() + GICR_STRIDE * cpu::index()
}

/// Returns the address of this vCPU's GICR_ISENABLER0.
pub fn isenabler0() -> u64 {
    redistributor() + GICR_ISENABLER0
}

/// Turns the distributor on.
pub fn init_distributor() {
    // SAFETY: a GIC register.
    unsafe { write32(GICD_CTLR, GICD_CTLR_ENABLE) };
}

/// Wakes this vCPU's redistributor, disables all private interrupts, and turns the CPU
/// interface on. Interrupts still wait for PSTATE.I.
pub fn init_cpu() {
    let base = redistributor();
    // SAFETY: a GIC register.
    unsafe {
        write32(
            base + GICR_WAKER,
            read32(base + GICR_WAKER) & !GICR_WAKER_PROCESSOR_SLEEP,
        )
    };
    for _ in 0..WAKE_READS {
        if read32(base + GICR_WAKER) & GICR_WAKER_CHILDREN_ASLEEP == 0 {
            break;
        }
    }
    // SAFETY: a GIC register.
    unsafe { write32(base + GICR_ICENABLER0, u32::MAX) };
    // SAFETY: a GIC register.
    unsafe { write32(base + GICR_IGROUPR0, u32::MAX) };
    for word in 0..8 {
        // SAFETY: a GIC register.
        unsafe { write32(base + GICR_IPRIORITYR + 4 * word, PRIORITIES) };
    }
    init_cpu_interface();
}

/// Turns the CPU interface on; it is off on a vCPU that starts, the redistributor may not be.
pub fn init_cpu_interface() {
    // ICC_SRE_EL1, ICC_PMR_EL1, ICC_BPR1_EL1, ICC_CTLR_EL1 and ICC_IGRPEN1_EL1 by encoding.
    write_sysreg!("s3_0_c12_c12_5", 7);
    write_sysreg!("s3_0_c4_c6_0", 0xff);
    write_sysreg!("s3_0_c12_c12_3", 0);
    write_sysreg!("s3_0_c12_c12_4", 0);
    write_sysreg!("s3_0_c12_c12_7", 1);
}

/// Enables a private interrupt (INTID 0 to 31) of this vCPU.
pub fn enable_private(intid: u32) {
    // SAFETY: a GIC register.
    unsafe { write32(isenabler0(), 1 << (intid & 31)) };
}

/// Takes the highest-priority pending interrupt (ICC_IAR1_EL1), or `None` when there is none.
#[inline]
pub fn acknowledge() -> Option<u32> {
    let intid = (read_sysreg!("s3_0_c12_c12_0") & 0xff_ffff) as u32;
    (intid < FIRST_SPECIAL_INTID).then_some(intid)
}

/// Ends an interrupt that [`acknowledge`] returned (ICC_EOIR1_EL1).
#[inline]
pub fn end(intid: u32) {
    write_sysreg!("s3_0_c12_c12_1", u64::from(intid));
}

/// Returns the ICC_SGI1R_EL1 value that sends SGI `intid` to the vCPU with affinity level 0
/// `index` (below 16) and all other levels 0.
pub fn sgi_to(index: u64, intid: u64) -> u64 {
    (intid & 0xf) << 24 | 1 << (index & 0xf)
}
