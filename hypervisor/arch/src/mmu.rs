// SPDX-License-Identifier: MIT OR Apache-2.0
//! EL2's own translation, and live edits of guests' tables.

use crate::cpu::Features;
use crate::sysreg;
use core::cell::UnsafeCell;
use firebreak_paging::stage1::{MAIR, Stage1, VaSize};
use firebreak_paging::{Op, Plan};

/// SCTLR_EL2 with E2H = 0: RES1 bits (Arm ARM D24.2.178).
const SCTLR_RES1: u64 = 0x30c5_0830;
const SCTLR_M: u64 = 1 << 0;
const SCTLR_C: u64 = 1 << 2;
const SCTLR_SA: u64 = 1 << 3;
const SCTLR_I: u64 = 1 << 12;
/// Writable memory is never executable, whatever its descriptor says.
const SCTLR_WXN: u64 = 1 << 19;
const SCTLR_IESB: u64 = 1 << 21;

/// What a secondary PE loads before its MMU is on: `boot.S` reads it with caches off.
#[repr(C)]
struct MmuRegisters {
    mair: u64,
    tcr: u64,
    ttbr0: u64,
    sctlr: u64,
}

#[repr(transparent)]
struct Shared(UnsafeCell<MmuRegisters>);

// SAFETY: written once by the primary PE in `enable`, before it starts any other.
unsafe impl Sync for Shared {}

#[unsafe(no_mangle)]
static firebreak_mmu_registers: Shared = Shared(UnsafeCell::new(MmuRegisters {
    mair: 0,
    tcr: 0,
    ttbr0: 0,
    sctlr: 0,
}));

/// Turns on the MMU and the caches of the primary PE, and keeps the values for the others.
///
/// # Safety
///
/// `tables` must map, at their own addresses, the running code, its stack and data, and every
/// device that EL2 uses; no line of a cache may shadow what was written so far.
pub unsafe fn enable(features: &Features, tables: &Stage1, size: VaSize) {
    let mut sctlr = SCTLR_RES1 | SCTLR_M | SCTLR_C | SCTLR_SA | SCTLR_I | SCTLR_WXN;
    if features.iesb {
        sctlr |= SCTLR_IESB;
    }
    let registers = MmuRegisters {
        mair: MAIR,
        tcr: size.tcr(features.pa_range.min(5)),
        ttbr0: tables.root().get(),
        sctlr,
    };
    let MmuRegisters {
        mair, tcr, ttbr0, ..
    } = registers;
    let kept = firebreak_mmu_registers.0.get();
    // SAFETY: one PE runs, and it is here.
    unsafe { kept.write(registers) };
    crate::cache::clean_and_invalidate(kept as u64, size_of::<MmuRegisters>() as u64);
    // SAFETY: the caller vouches for the tables; the address of the next instruction is the
    // same with and without translation.
    unsafe {
        core::arch::asm!(
            "msr mair_el2, {mair}",
            "msr tcr_el2, {tcr}",
            "msr ttbr0_el2, {ttbr0}",
            "tlbi alle2",
            "ic iallu",
            "dsb nsh",
            "isb",
            "msr sctlr_el2, {sctlr}",
            "isb",
            mair = in(reg) mair,
            tcr = in(reg) tcr,
            ttbr0 = in(reg) ttbr0,
            sctlr = in(reg) sctlr,
            options(nostack, preserves_flags)
        );
    }
}

/// Carries out a live edit of stage-2 tables.
///
/// `vttbr` is the VTTBR_EL2 of the partition: invalidation works on the VMID that the register
/// holds, so it is put there for the time of the edit and the PE's own is put back.
///
/// # Safety
///
/// The plan must be fresh, made for tables that belong to `vttbr` and are mapped at EL2; the
/// caller holds the lock that keeps other edits of the same tables away.
pub unsafe fn carry_out(plan: &Plan, vttbr: u64) {
    let own = sysreg::vttbr_el2();
    sysreg::write_vttbr_el2(vttbr);
    sysreg::isb();
    for op in plan.ops() {
        match *op {
            Op::Write {
                table,
                index,
                descriptor,
            } => {
                let address = table.get() as usize + 8 * (index & 511);
                let entry = core::ptr::with_exposed_provenance_mut::<u64>(address);
                // SAFETY: a descriptor of a table that the caller vouches for.
                unsafe { entry.write_volatile(descriptor) };
            }
            Op::Dsb => sysreg::dsb_ish(),
            Op::Isb => sysreg::isb(),
            Op::TlbiIpa(ipa) => invalidate_ipa(ipa.get() >> 12),
            Op::TlbiVmallS1 => invalidate_vmall_s1(),
            Op::TlbiVmallS12 => invalidate_vmall_s12(),
        }
    }
    sysreg::write_vttbr_el2(own);
    sysreg::isb();
}

/// Forgets, on all PEs, everything that was cached for the VMID in `vttbr`: its tables are about to
/// go, and no PE runs in them.
pub fn forget(vttbr: u64) {
    let own = sysreg::vttbr_el2();
    sysreg::write_vttbr_el2(vttbr);
    sysreg::isb();
    sysreg::dsb_ish();
    invalidate_vmall_s12();
    sysreg::dsb_ish();
    sysreg::write_vttbr_el2(own);
    sysreg::isb();
}

fn invalidate_ipa(page: u64) {
    // SAFETY: invalidating translations changes no value.
    unsafe {
        core::arch::asm!("tlbi ipas2e1is, {}", in(reg) page, options(nostack, preserves_flags));
    }
}

fn invalidate_vmall_s1() {
    // SAFETY: as above.
    unsafe { core::arch::asm!("tlbi vmalle1is", options(nostack, preserves_flags)) }
}

fn invalidate_vmall_s12() {
    // SAFETY: as above.
    unsafe { core::arch::asm!("tlbi vmalls12e1is", options(nostack, preserves_flags)) }
}
