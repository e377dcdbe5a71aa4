// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's side of this PE: EL1 state, traps, virtual SError.

use crate::cpu::Features;
use crate::{hcr, sysreg};

/// SCTLR_EL1 at reset: RES1 bits; MMU, caches and alignment checks off.
const SCTLR_EL1_RESET: u64 = 0x30d0_0800;
/// PSTATE of a vCPU that starts: EL1h, DAIF masked (PSCI 6.4.3).
pub const START_PSTATE: u64 = 0x3c5;
/// Value of an off timer: IMASK set, ENABLE clear.
const TIMER_OFF: u64 = 0b10;

/// Makes this PE ready to receive SEIs: from here on HCR_EL2.AMO is set.
pub fn announce_ready(features: &Features) {
    sysreg::write_hcr_el2(hcr::idle_hcr(features));
    sysreg::isb();
}

/// Gives this PE the EL2 control registers that hold for every guest.
pub fn configure_traps(features: &Features) {
    sysreg::write_cptr_el2(hcr::cptr(features));
    sysreg::write_hstr_el2(0);
    sysreg::write_cnthctl_el2(hcr::CNTHCTL);
    sysreg::write_cntvoff_el2(0);
    // Debug registers are the vCPU's own, since the PE is; so are all PMU counters (HPMN = N).
    let counters = if features.pmu {
        hcr::MDCR_HPMD | sysreg::pmcr_el0() >> 11 & 0x1f
    } else {
        0
    };
    sysreg::write_mdcr_el2(counters);
    if features.hcrx {
        sysreg::write_hcrx_el2(if features.mops { hcr::HCRX_MSCEN } else { 0 });
    }
    release_fine_grained_traps(features);
    sysreg::isb();
}

/// Sets the fine-grained traps, whose reset values are unknown: what a guest sees is not trapped,
/// and what no guest sees (bits that trap when they are 0) is.
fn release_fine_grained_traps(features: &Features) {
    if features.fine_grained_traps {
        sysreg::write_hfgrtr_el2(0);
        sysreg::write_hfgwtr_el2(0);
        sysreg::write_hfgitr_el2(0);
        sysreg::write_hdfgrtr_el2(0);
        sysreg::write_hdfgwtr_el2(0);
        if features.amu {
            sysreg::write_hafgrtr_el2(0);
        }
    }
    if features.fine_grained_traps_2 {
        sysreg::write_hfgrtr2_el2(0);
        sysreg::write_hfgwtr2_el2(0);
        sysreg::write_hfgitr2_el2(0);
        sysreg::write_hdfgrtr2_el2(0);
        sysreg::write_hdfgwtr2_el2(0);
    }
}

/// Where a vCPU's memory and identity come from.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// VTCR_EL2 of its partition.
    pub vtcr: u64,
    /// VTTBR_EL2 of its partition, VMID included.
    pub vttbr: u64,
    /// VMPIDR_EL2: what the guest reads as MPIDR_EL1.
    pub vmpidr: u64,
    /// VPIDR_EL2: what the guest reads as MIDR_EL1.
    pub vpidr: u64,
    /// Its external aborts are its own: HCR_EL2.TEA stays clear.
    pub direct_aborts: bool,
}

/// Puts a guest's translation and identity on this PE, with its EL1 state as after reset.
pub fn install(features: &Features, identity: &Identity) {
    sysreg::write_vtcr_el2(identity.vtcr);
    sysreg::write_vttbr_el2(identity.vttbr);
    sysreg::write_vmpidr_el2(identity.vmpidr);
    sysreg::write_vpidr_el2(identity.vpidr);
    let without = if identity.direct_aborts { hcr::TEA } else { 0 };
    sysreg::write_hcr_el2(hcr::guest_hcr(features) & !without);
    if features.ras {
        sysreg::write_vdisr_el2(0);
        sysreg::write_vsesr_el2(IMPDEF_SYNDROME);
    }
    reset_el1(features);
    sysreg::isb();
}

/// A syndrome that claims nothing: IDS = 1. VSESR_EL2 resets to an unknown value.
const IMPDEF_SYNDROME: u64 = 1 << 24;

fn reset_el1(features: &Features) {
    sysreg::write_sctlr_el1(SCTLR_EL1_RESET);
    for write in [
        sysreg::write_ttbr0_el1,
        sysreg::write_ttbr1_el1,
        sysreg::write_tcr_el1,
        sysreg::write_mair_el1,
        sysreg::write_amair_el1,
        sysreg::write_vbar_el1,
        sysreg::write_contextidr_el1,
        sysreg::write_cpacr_el1,
        sysreg::write_csselr_el1,
        sysreg::write_esr_el1,
        sysreg::write_far_el1,
        sysreg::write_afsr0_el1,
        sysreg::write_afsr1_el1,
        sysreg::write_par_el1,
        sysreg::write_elr_el1,
        sysreg::write_spsr_el1,
        sysreg::write_sp_el1,
        sysreg::write_tpidr_el0,
        sysreg::write_tpidrro_el0,
        sysreg::write_tpidr_el1,
        sysreg::write_mdscr_el1,
        sysreg::write_cntkctl_el1,
        sysreg::write_cntv_cval_el0,
        sysreg::write_cntp_cval_el0,
    ] {
        write(0);
    }
    sysreg::write_cntv_ctl_el0(TIMER_OFF);
    sysreg::write_cntp_ctl_el0(TIMER_OFF);
    if features.pmu {
        reset_pmu();
    }
    if features.pointer_authentication {
        forget_keys();
    }
    forget_vectors();
}

/// All counters stopped, at 0, and counting nothing in particular.
fn reset_pmu() {
    const P_AND_C: u64 = 0b110;
    const CYCLES: u64 = 31;
    sysreg::write_pmcr_el0(P_AND_C);
    sysreg::write_pmcntenclr_el0(u64::from(u32::MAX));
    sysreg::write_pmintenclr_el1(u64::from(u32::MAX));
    sysreg::write_pmovsclr_el0(u64::from(u32::MAX));
    sysreg::write_pmuserenr_el0(0);
    for counter in (0..sysreg::pmcr_el0() >> 11 & 0x1f).chain([CYCLES]) {
        sysreg::write_pmselr_el0(counter);
        sysreg::isb();
        sysreg::write_pmxevtyper_el0(0);
    }
    sysreg::write_pmselr_el0(0);
}

/// Overwrites the keys of pointer authentication, which are secrets of the life that made them.
fn forget_keys() {
    for write in [
        sysreg::write_apiakeylo_el1,
        sysreg::write_apiakeyhi_el1,
        sysreg::write_apibkeylo_el1,
        sysreg::write_apibkeyhi_el1,
        sysreg::write_apdakeylo_el1,
        sysreg::write_apdakeyhi_el1,
        sysreg::write_apdbkeylo_el1,
        sysreg::write_apdbkeyhi_el1,
        sysreg::write_apgakeylo_el1,
        sysreg::write_apgakeyhi_el1,
    ] {
        write(0);
    }
}

/// Clears the registers of floating point and SIMD, which hold data of whoever ran here last, with
/// FPCR and FPSR. EL2's own code does not use them.
fn forget_vectors() {
    unsafe extern "C" {
        safe fn firebreak_forget_vectors();
    }
    firebreak_forget_vectors();
}

/// Turns the guest's timers off, so that nothing of it interrupts this PE any more.
pub fn quiesce() {
    sysreg::write_cntv_ctl_el0(TIMER_OFF);
    sysreg::write_cntp_ctl_el0(TIMER_OFF);
    sysreg::isb();
}

/// Forgets all translations of the guest whose VMID is in VTTBR_EL2, on every PE.
pub fn forget_translations() {
    sysreg::dsb_ish();
    // SAFETY: invalidating translations changes no value; the guest's are refilled from tables.
    unsafe { core::arch::asm!("tlbi vmalls12e1is", options(nostack, preserves_flags)) };
    sysreg::dsb_ish();
    sysreg::isb();
}

/// Makes a virtual SError pending with a syndrome of 25 bits; returns VDISR_EL2, which is the
/// guest's to read and clear, and by whose change a deferral is known.
///
/// Without FEAT_RAS the syndrome cannot be chosen and is ignored.
pub fn raise_virtual_serror(ras: bool, iss: u32) -> u64 {
    let mut before = 0;
    if ras {
        before = sysreg::vdisr_el2();
        sysreg::write_vsesr_el2(u64::from(iss));
    }
    sysreg::write_hcr_el2(sysreg::hcr_el2() | hcr::VSE);
    before
}

/// Takes a pending virtual SError back.
pub fn cancel_virtual_serror() {
    sysreg::write_hcr_el2(sysreg::hcr_el2() & !hcr::VSE);
}

/// Says whether a virtual SError is pending (HCR_EL2.VSE), and returns VDISR_EL2, which is 0
/// without FEAT_RAS.
pub fn virtual_serror(ras: bool) -> (bool, u64) {
    let vdisr = if ras { sysreg::vdisr_el2() } else { 0 };
    (sysreg::hcr_el2() & hcr::VSE != 0, vdisr)
}

/// Takes back what the guest's ESB did: VDISR_EL2 is as it was before, and the virtual SError is
/// pending again with the syndrome that is still in VSESR_EL2.
pub fn undo_deferral(vdisr_before: u64) {
    sysreg::write_vdisr_el2(vdisr_before);
    sysreg::write_hcr_el2(sysreg::hcr_el2() | hcr::VSE);
}

/// The syndrome of the virtual SError that is pending, if the PE can say.
pub fn pending_syndrome(ras: bool) -> Option<u32> {
    (ras && sysreg::hcr_el2() & hcr::VSE != 0).then(|| (sysreg::vsesr_el2() & 0x1ff_ffff) as u32)
}

/// Translates a virtual address of the guest for reading, by both of its stages. `None` where the
/// guest itself could not read. PAR_EL1, which is the guest's, is kept.
pub fn translate(va: u64, el0: bool) -> Option<u64> {
    const PAR_F: u64 = 1;
    const PAR_PA: u64 = 0x000f_ffff_ffff_f000;
    let kept = sysreg::par_el1();
    if el0 {
        // SAFETY: an address translation instruction accesses no memory but the tables.
        unsafe { core::arch::asm!("at s12e0r, {}", in(reg) va, options(nostack, preserves_flags)) };
    } else {
        // SAFETY: as above.
        unsafe { core::arch::asm!("at s12e1r, {}", in(reg) va, options(nostack, preserves_flags)) };
    }
    sysreg::isb();
    let par = sysreg::par_el1();
    sysreg::write_par_el1(kept);
    (par & PAR_F == 0).then_some(par & PAR_PA | va & 0xfff)
}

/// A synchronous exception that EL2 makes the guest's EL1 take.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1, where the syndrome says that it is valid.
    pub far: Option<u64>,
    /// Preferred return address for ELR_EL1.
    pub elr: u64,
    /// Interrupted PSTATE for SPSR_EL1.
    pub spsr: u64,
}

/// Writes the EL1 registers of an exception entry; returns VBAR_EL1.
pub fn write_exception(injection: &Injection) -> u64 {
    sysreg::write_esr_el1(injection.esr);
    if let Some(far) = injection.far {
        sysreg::write_far_el1(far);
    }
    sysreg::write_elr_el1(injection.elr);
    sysreg::write_spsr_el1(injection.spsr);
    sysreg::vbar_el1()
}
