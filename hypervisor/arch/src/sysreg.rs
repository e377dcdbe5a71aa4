// SPDX-License-Identifier: MIT OR Apache-2.0
//! System registers by name.
//!
//! `aarch64-cpu` declares its accesses `nomem`, so the compiler may move loads and stores across
//! a write of HCR_EL2 or DAIF. The accessors here are not: each is a compiler barrier for memory.
//! They also cover the registers that crate lacks (VSESR_EL2, ICH_LR<n>_EL2, DISR_EL1...).
//! Bit names come from `aarch64-cpu` where it has them.

macro_rules! read_only {
    ($($(#[$doc:meta])* $read:ident = $name:literal;)*) => {$(
        $(#[$doc])*
        #[inline]
        #[must_use]
        pub fn $read() -> u64 {
            let value: u64;
            // SAFETY: reading this register at EL2 has no effect on memory or on Rust's state.
            unsafe {
                core::arch::asm!(
                    concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags)
                );
            }
            value
        }
    )*};
}

macro_rules! write_only {
    ($($(#[$doc:meta])* $write:ident = $name:literal;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub(crate) fn $write(value: u64) {
            // SAFETY: the register steers guests, interrupts or timers, not EL2's own memory;
            // callers inside this crate document the effect. Memory is clobbered, so the
            // compiler keeps loads and stores on their side.
            unsafe {
                core::arch::asm!(
                    concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)
                );
            }
        }
    )*};
}

read_only! {
    /// Reads CNTPCT_EL0, the physical count, without ISB: good to a few instructions.
    cntpct_el0 = "cntpct_el0";
    /// Reads CNTFRQ_EL0, the frequency of the counters in Hz.
    cntfrq_el0 = "cntfrq_el0";
    /// Reads MPIDR_EL1.
    mpidr_el1 = "mpidr_el1";
    /// Reads MIDR_EL1.
    midr_el1 = "midr_el1";
    /// Reads ID_AA64PFR0_EL1.
    id_aa64pfr0_el1 = "id_aa64pfr0_el1";
    /// Reads ID_AA64PFR1_EL1.
    id_aa64pfr1_el1 = "id_aa64pfr1_el1";
    /// Reads ID_AA64DFR0_EL1.
    id_aa64dfr0_el1 = "id_aa64dfr0_el1";
    /// Reads ID_AA64ISAR2_EL1.
    id_aa64isar2_el1 = "S3_0_C0_C6_2";
    /// Reads ID_AA64MMFR0_EL1.
    id_aa64mmfr0_el1 = "id_aa64mmfr0_el1";
    /// Reads ID_AA64MMFR1_EL1.
    id_aa64mmfr1_el1 = "id_aa64mmfr1_el1";
    /// Reads ID_AA64MMFR2_EL1.
    id_aa64mmfr2_el1 = "id_aa64mmfr2_el1";
    /// Reads ESR_EL2.
    esr_el2 = "esr_el2";
    /// Reads ELR_EL2.
    elr_el2 = "elr_el2";
    /// Reads FAR_EL2.
    far_el2 = "far_el2";
    /// Reads HCR_EL2.
    hcr_el2 = "hcr_el2";
    /// Reads VTTBR_EL2.
    vttbr_el2 = "vttbr_el2";
    /// Reads HPFAR_EL2.
    hpfar_el2 = "hpfar_el2";
    /// Reads SCTLR_EL2.
    sctlr_el2 = "sctlr_el2";
    /// Reads VBAR_EL2.
    vbar_el2 = "vbar_el2";
    /// Reads VBAR_EL1 of the guest on this PE.
    vbar_el1 = "vbar_el1";
    /// Reads SCTLR_EL1 of the guest on this PE.
    sctlr_el1 = "sctlr_el1";
    /// Reads ELR_EL1 of the guest on this PE.
    elr_el1 = "elr_el1";
    /// Reads SPSR_EL1 of the guest on this PE.
    spsr_el1 = "spsr_el1";
    /// Reads ESR_EL1 of the guest on this PE.
    esr_el1 = "esr_el1";
    /// Reads FAR_EL1 of the guest on this PE.
    far_el1 = "far_el1";
    /// Reads PAR_EL1.
    par_el1 = "par_el1";
    /// Reads ISR_EL1: pending IRQ, FIQ and SError.
    isr_el1 = "isr_el1";
    /// Reads PMCR_EL0.
    pmcr_el0 = "pmcr_el0";
    /// Reads VSESR_EL2 (FEAT_RAS).
    vsesr_el2 = "S3_4_C5_C2_3";
    /// Reads VDISR_EL2 (FEAT_RAS).
    vdisr_el2 = "S3_4_C12_C1_1";
    /// Reads ICC_IAR1_EL1: acknowledges the highest-priority Group 1 interrupt.
    icc_iar1_el1 = "S3_0_C12_C12_0";
    /// Reads ICC_SRE_EL2.
    icc_sre_el2 = "S3_4_C12_C9_5";
    /// Reads ICC_CTLR_EL1.
    icc_ctlr_el1 = "S3_0_C12_C12_4";
    /// Reads ICH_VTR_EL2.
    ich_vtr_el2 = "S3_4_C12_C11_1";
    /// Reads ICH_VMCR_EL2: the guest's view of its CPU interface.
    ich_vmcr_el2 = "S3_4_C12_C11_7";
    /// Reads ICH_AP0R0_EL2: active priorities of group 0.
    ich_ap0r0_el2 = "S3_4_C12_C8_0";
    /// Reads ICH_AP1R0_EL2: active priorities of group 1.
    ich_ap1r0_el2 = "S3_4_C12_C9_0";
    /// Reads ICH_HCR_EL2.
    ich_hcr_el2 = "S3_4_C12_C11_0";
    /// Reads ICH_ELRSR_EL2: list registers that are free.
    ich_elrsr_el2 = "S3_4_C12_C11_5";
    /// Reads ICH_EISR_EL2: list registers with an EOI maintenance interrupt.
    ich_eisr_el2 = "S3_4_C12_C11_3";
    /// Reads CNTHP_CTL_EL2.
    cnthp_ctl_el2 = "cnthp_ctl_el2";
    /// Reads CNTHP_CVAL_EL2.
    cnthp_cval_el2 = "cnthp_cval_el2";
}

write_only! {
    write_hcr_el2 = "hcr_el2";
    write_vttbr_el2 = "vttbr_el2";
    write_vtcr_el2 = "vtcr_el2";
    write_vpidr_el2 = "vpidr_el2";
    write_vmpidr_el2 = "vmpidr_el2";
    write_vsesr_el2 = "S3_4_C5_C2_3";
    write_vdisr_el2 = "S3_4_C12_C1_1";
    write_cptr_el2 = "cptr_el2";
    write_hstr_el2 = "hstr_el2";
    write_mdcr_el2 = "mdcr_el2";
    write_hcrx_el2 = "S3_4_C1_C2_2";
    write_hfgrtr_el2 = "S3_4_C1_C1_4";
    write_hfgwtr_el2 = "S3_4_C1_C1_5";
    write_hfgitr_el2 = "S3_4_C1_C1_6";
    write_hdfgrtr_el2 = "S3_4_C3_C1_4";
    write_hdfgwtr_el2 = "S3_4_C3_C1_5";
    write_hafgrtr_el2 = "S3_4_C3_C1_6";
    write_hfgrtr2_el2 = "S3_4_C3_C1_2";
    write_hfgwtr2_el2 = "S3_4_C3_C1_3";
    write_hfgitr2_el2 = "S3_4_C3_C1_7";
    write_hdfgrtr2_el2 = "S3_4_C3_C1_0";
    write_hdfgwtr2_el2 = "S3_4_C3_C1_1";
    write_cnthctl_el2 = "cnthctl_el2";
    write_cntvoff_el2 = "cntvoff_el2";
    write_cnthp_ctl_el2 = "cnthp_ctl_el2";
    write_cnthp_cval_el2 = "cnthp_cval_el2";
    write_cntv_ctl_el0 = "cntv_ctl_el0";
    write_cntv_cval_el0 = "cntv_cval_el0";
    write_cntp_ctl_el0 = "cntp_ctl_el0";
    write_cntp_cval_el0 = "cntp_cval_el0";
    write_cntkctl_el1 = "cntkctl_el1";
    write_sctlr_el1 = "sctlr_el1";
    write_ttbr0_el1 = "ttbr0_el1";
    write_ttbr1_el1 = "ttbr1_el1";
    write_tcr_el1 = "tcr_el1";
    write_mair_el1 = "mair_el1";
    write_amair_el1 = "amair_el1";
    write_vbar_el1 = "vbar_el1";
    write_contextidr_el1 = "contextidr_el1";
    write_cpacr_el1 = "cpacr_el1";
    write_csselr_el1 = "csselr_el1";
    write_esr_el1 = "esr_el1";
    write_far_el1 = "far_el1";
    write_afsr0_el1 = "afsr0_el1";
    write_afsr1_el1 = "afsr1_el1";
    write_par_el1 = "par_el1";
    write_elr_el1 = "elr_el1";
    write_spsr_el1 = "spsr_el1";
    write_sp_el1 = "sp_el1";
    write_tpidr_el0 = "tpidr_el0";
    write_tpidrro_el0 = "tpidrro_el0";
    write_tpidr_el1 = "tpidr_el1";
    write_mdscr_el1 = "mdscr_el1";
    write_pmcr_el0 = "pmcr_el0";
    write_pmcntenclr_el0 = "pmcntenclr_el0";
    write_pmintenclr_el1 = "pmintenclr_el1";
    write_pmovsclr_el0 = "pmovsclr_el0";
    write_pmuserenr_el0 = "pmuserenr_el0";
    write_pmselr_el0 = "pmselr_el0";
    write_pmxevtyper_el0 = "pmxevtyper_el0";
    write_apiakeylo_el1 = "S3_0_C2_C1_0";
    write_apiakeyhi_el1 = "S3_0_C2_C1_1";
    write_apibkeylo_el1 = "S3_0_C2_C1_2";
    write_apibkeyhi_el1 = "S3_0_C2_C1_3";
    write_apdakeylo_el1 = "S3_0_C2_C2_0";
    write_apdakeyhi_el1 = "S3_0_C2_C2_1";
    write_apdbkeylo_el1 = "S3_0_C2_C2_2";
    write_apdbkeyhi_el1 = "S3_0_C2_C2_3";
    write_apgakeylo_el1 = "S3_0_C2_C3_0";
    write_apgakeyhi_el1 = "S3_0_C2_C3_1";
    write_icc_sre_el2 = "S3_4_C12_C9_5";
    write_icc_sre_el1 = "S3_0_C12_C12_5";
    write_icc_pmr_el1 = "S3_0_C4_C6_0";
    write_icc_bpr1_el1 = "S3_0_C12_C12_3";
    write_icc_ctlr_el1 = "S3_0_C12_C12_4";
    write_icc_igrpen1_el1 = "S3_0_C12_C12_7";
    write_icc_eoir1_el1 = "S3_0_C12_C12_1";
    write_icc_dir_el1 = "S3_0_C12_C11_1";
    write_icc_sgi1r_el1 = "S3_0_C12_C11_5";
    write_ich_hcr_el2 = "S3_4_C12_C11_0";
    write_ich_vmcr_el2 = "S3_4_C12_C11_7";
    write_ich_ap0r0_el2 = "S3_4_C12_C8_0";
    write_ich_ap1r0_el2 = "S3_4_C12_C9_0";
}

/// Synchronizes context: what was written to system registers before holds for what follows.
#[inline]
pub fn isb() {
    // SAFETY: a barrier only orders.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) }
}

/// Completes all memory accesses and maintenance before what follows.
#[inline]
pub fn dsb_sy() {
    // SAFETY: a barrier only orders.
    unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) }
}

/// Completes all memory accesses and maintenance of the inner shareable domain.
#[inline]
pub fn dsb_ish() {
    // SAFETY: a barrier only orders.
    unsafe { core::arch::asm!("dsb ish", options(nostack, preserves_flags)) }
}
