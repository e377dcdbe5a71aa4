// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this PE is and can do.

use crate::sysreg;
use firebreak_abi::Mpidr;

/// Features that change what Firebreak does, read from the ID registers of one PE.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// FEAT_RAS: ID_AA64PFR0_EL1.RAS is not 0. VSESR_EL2, DISR_EL1 and ESB exist.
    pub ras: bool,
    /// ID_AA64PFR0_EL1.GIC: the GIC CPU interface has system registers.
    pub gic_system_registers: bool,
    /// FEAT_IESB.
    pub iesb: bool,
    /// FEAT_PAuth: ID_AA64ISAR1/2_EL1 say that keys exist.
    pub pointer_authentication: bool,
    /// FEAT_HCX: HCRX_EL2 exists.
    pub hcrx: bool,
    /// FEAT_FGT: HFGRTR_EL2 and its like exist.
    pub fine_grained_traps: bool,
    /// FEAT_FGT2: HFGRTR2_EL2 and its like exist.
    pub fine_grained_traps_2: bool,
    /// FEAT_AMUv1: HAFGRTR_EL2 exists, with FEAT_FGT.
    pub amu: bool,
    /// FEAT_MOPS.
    pub mops: bool,
    /// ID_AA64MMFR0_EL1.PARange: encoding of the number of physical address bits.
    pub pa_range: u64,
    /// FEAT_VMID16: VTTBR_EL2.VMID has 16 bits.
    pub vmid16: bool,
    /// PMUv3 is there: PMCR_EL0 exists.
    pub pmu: bool,
}

impl Features {
    /// Reads the ID registers.
    pub fn read() -> Self {
        let pfr0 = sysreg::id_aa64pfr0_el1();
        let dfr0 = sysreg::id_aa64dfr0_el1();
        let mmfr0 = sysreg::id_aa64mmfr0_el1();
        let mmfr1 = sysreg::id_aa64mmfr1_el1();
        let mmfr2 = sysreg::id_aa64mmfr2_el1();
        let isar2 = sysreg::id_aa64isar2_el1();
        let isar1 = id_register(6, 1);
        let field = |value: u64, shift: u32| value >> shift & 0xf;
        let pmu_version = field(dfr0, 8);
        Self {
            ras: field(pfr0, 28) != 0,
            gic_system_registers: field(pfr0, 24) != 0,
            iesb: field(mmfr2, 12) != 0,
            pointer_authentication: field(isar1, 4) != 0
                || field(isar1, 8) != 0
                || field(isar2, 12) != 0,
            hcrx: field(mmfr1, 40) != 0,
            fine_grained_traps: field(mmfr0, 56) != 0,
            fine_grained_traps_2: field(mmfr0, 56) >= 2,
            amu: field(pfr0, 44) != 0,
            mops: field(isar2, 16) != 0,
            pa_range: field(mmfr0, 0),
            vmid16: field(mmfr1, 4) == 2,
            pmu: pmu_version != 0 && pmu_version != 0xf,
        }
    }
}

/// Returns the affinity of this PE.
#[inline]
pub fn mpidr() -> Mpidr {
    Mpidr::from_raw(sysreg::mpidr_el1())
}

/// Reads an ID register with op0 = 3, op1 = 0, CRn = 0; numbers out of range read as 0.
///
/// Arm ARM D24.1: that whole space is readable, and RAZ where nothing is allocated.
pub fn id_register(crm: u64, op2: u64) -> u64 {
    unsafe extern "C" {
        fn firebreak_read_id_register(index: u64) -> u64;
    }
    if !(1..=7).contains(&crm) || op2 > 7 {
        return 0;
    }
    // SAFETY: the index is below 56, the number of entries in the routine's table.
    unsafe { firebreak_read_id_register((crm - 1) * 8 + op2) }
}

/// Waits for an interrupt, masked or not, or for an SEI.
#[inline]
pub fn wait_for_interrupt() {
    // SAFETY: WFI only waits; the barrier makes earlier stores visible first.
    unsafe { core::arch::asm!("dsb ish", "wfi", options(nostack, preserves_flags)) }
}

/// Waits until there may be work for the PE whose head this is: an interrupt is pending, or
/// `attention` or the firmware's pending word is not 0. Loses no wake-up to an SEI.
#[inline]
pub fn idle(head: &crate::PeHead) {
    unsafe extern "C" {
        fn firebreak_idle(head: *const crate::PeHead);
    }
    // SAFETY: the routine reads two words of the head and one that it points at.
    unsafe { firebreak_idle(head) }
}

/// Stops this PE for good, with everything masked: nothing is left to be done.
pub fn park() -> ! {
    // SAFETY: masking exceptions is always allowed.
    unsafe { core::arch::asm!("msr daifset, #0xf", options(nostack, preserves_flags)) };
    loop {
        wait_for_interrupt();
    }
}

/// Returns the stack pointer of whoever calls.
#[inline]
pub fn stack_pointer() -> u64 {
    let value: u64;
    // SAFETY: reading the stack pointer has no effect.
    unsafe {
        core::arch::asm!("mov {}, sp", out(reg) value, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Unmasks SError at EL2. The SEI path may run from here on.
#[inline]
pub fn unmask_serror() {
    // SAFETY: vectors and SEI stack stand before the first call (`boot.S`, enter_run_loop).
    unsafe { core::arch::asm!("msr daifclr, #4", options(nostack, preserves_flags)) }
}
