// SPDX-License-Identifier: MIT OR Apache-2.0
//! System registers that the firmware uses, by name.

macro_rules! read_only {
    ($($(#[$doc:meta])* $read:ident = $name:literal;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub(super) fn $read() -> u64 {
            let value: u64;
            // SAFETY: reading this register at EL3 changes nothing in memory. (Reading
            // ICC_IAR0_EL1 acknowledges an interrupt, which is what its callers want.)
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
        pub(super) fn $write(value: u64) {
            // SAFETY: the register steers a lower exception level, an interrupt or a timer,
            // never EL3's own memory, stack or translation.
            unsafe {
                core::arch::asm!(
                    concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)
                );
            }
        }
    )*};
}

read_only! {
    midr_el1 = "midr_el1";
    mpidr_el1 = "mpidr_el1";
    id_aa64pfr0_el1 = "S3_0_C0_C4_0";
    id_aa64pfr1_el1 = "S3_0_C0_C4_1";
    id_aa64pfr2_el1 = "S3_0_C0_C4_2";
    id_aa64dfr0_el1 = "S3_0_C0_C5_0";
    id_aa64dfr1_el1 = "S3_0_C0_C5_1";
    id_aa64isar0_el1 = "S3_0_C0_C6_0";
    id_aa64isar1_el1 = "S3_0_C0_C6_1";
    id_aa64isar2_el1 = "S3_0_C0_C6_2";
    id_aa64mmfr0_el1 = "S3_0_C0_C7_0";
    id_aa64mmfr1_el1 = "S3_0_C0_C7_1";
    id_aa64mmfr3_el1 = "S3_0_C0_C7_3";
    cntpct_el0 = "cntpct_el0";
    cntfrq_el0 = "cntfrq_el0";
    hcr_el2 = "hcr_el2";
    vbar_el2 = "vbar_el2";
    vttbr_el2 = "vttbr_el2";
    sctlr_el2 = "sctlr_el2";
    esr_el3 = "esr_el3";
    far_el3 = "far_el3";
    elr_el3 = "elr_el3";
    spsr_el3 = "spsr_el3";
    icc_iar0_el1 = "S3_0_C12_C8_0";
    mdcr_el2 = "mdcr_el2";
    vbar_el1 = "vbar_el1";
    sctlr_el1 = "sctlr_el1";
    hcrx_el2 = "S3_4_C1_C2_2";
    mfar_el3 = "S3_6_C6_C0_5";
    gcscr_el2 = "S3_4_C2_C5_0";
    gcscr_el1 = "S3_0_C2_C5_0";
}

write_only! {
    write_scr_el3 = "scr_el3";
    write_gptbr_el3 = "S3_6_C2_C1_4";
    write_gpccr_el3 = "S3_6_C2_C1_6";
    write_hfgrtr_el2 = "S3_4_C1_C1_4";
    write_hfgwtr_el2 = "S3_4_C1_C1_5";
    write_hdfgrtr_el2 = "S3_4_C3_C1_4";
    write_cptr_el3 = "cptr_el3";
    write_mdcr_el3 = "mdcr_el3";
    write_zcr_el3 = "S3_6_C1_C2_0";
    write_smcr_el3 = "S3_6_C1_C2_6";
    write_cntfrq_el0 = "cntfrq_el0";
    write_cntps_ctl_el1 = "S3_7_C14_C2_1";
    write_cntps_cval_el1 = "S3_7_C14_C2_2";
    write_icc_sre_el3 = "S3_6_C12_C12_5";
    write_icc_sre_el2 = "S3_4_C12_C9_5";
    write_icc_sre_el1 = "S3_0_C12_C12_5";
    write_icc_pmr_el1 = "S3_0_C4_C6_0";
    write_icc_igrpen0_el1 = "S3_0_C12_C12_6";
    write_icc_igrpen1_el3 = "S3_6_C12_C12_7";
    write_icc_eoir0_el1 = "S3_0_C12_C8_1";
    write_icc_sgi0r_el1 = "S3_0_C12_C11_7";
    write_hcr_el2 = "hcr_el2";
    write_hcrx_el2 = "S3_4_C1_C2_2";
    write_sctlr2_el2 = "S3_4_C1_C0_3";
    write_tcr2_el2 = "S3_4_C2_C0_3";
    write_gcscr_el2 = "S3_4_C2_C5_0";
    write_sctlr_el2 = "sctlr_el2";
    write_cptr_el2 = "cptr_el2";
    write_hstr_el2 = "hstr_el2";
    write_vttbr_el2 = "vttbr_el2";
    write_vbar_el2 = "vbar_el2";
    write_mdcr_el2 = "mdcr_el2";
    write_vpidr_el2 = "vpidr_el2";
    write_vmpidr_el2 = "vmpidr_el2";
    write_cnthctl_el2 = "cnthctl_el2";
    write_cntvoff_el2 = "cntvoff_el2";
    write_elr_el2 = "elr_el2";
    write_spsr_el2 = "spsr_el2";
    write_esr_el2 = "esr_el2";
    write_far_el2 = "far_el2";
    write_elr_el1 = "elr_el1";
    write_spsr_el1 = "spsr_el1";
    write_esr_el1 = "esr_el1";
    write_far_el1 = "far_el1";
}

/// Returns the number of this PE: Aff0, and nothing but Aff0 gets past `boot.S`.
#[inline]
pub(super) fn this_pe() -> usize {
    mpidr_el1() as usize & 0xff
}

/// Returns HCRX_EL2.TMEA where FEAT_HCX and FEAT_DoubleFault2 exist.
pub(super) fn masked_errors_to_el2() -> bool {
    const TMEA: u64 = 1 << 19;
    let has_hcrx = id_aa64mmfr1_el1() >> 40 & 0xf != 0;
    let has_double_fault_2 = id_aa64pfr1_el1() >> 56 & 0xf != 0;
    has_hcrx && has_double_fault_2 && hcrx_el2() & TMEA != 0
}

/// Returns GCSCR_ELx.EXLOCKEN of EL2 or EL1. Only for a PE with FEAT_GCS.
pub(super) fn exception_lock(el2: bool) -> bool {
    const EXLOCKEN: u64 = 1 << 6;
    let control = if el2 { gcscr_el2() } else { gcscr_el1() };
    control & EXLOCKEN != 0
}

/// Makes every PE look at the granule protection table anew (TLBI PAALLOS). Only with FEAT_RME.
pub(super) fn forget_granules() {
    // SAFETY: forgetting cached protection changes no memory.
    unsafe { core::arch::asm!("sys #6, c8, c1, #4", options(nostack, preserves_flags)) };
    dsb_sy();
    isb();
}

/// Synchronizes context.
#[inline]
pub(super) fn isb() {
    // SAFETY: a barrier only orders.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) }
}

/// Returns an instruction of EL2.
pub(super) fn instruction(address: u64) -> u32 {
    let place = core::ptr::with_exposed_provenance::<u32>(address as usize);
    // SAFETY: EL2 has just executed it: RAM of the normal world.
    unsafe { place.read_volatile() }
}

/// Replaces an instruction of EL2, and returns the one that stood there.
pub(super) fn replace_instruction(address: u64, instruction: u32) -> u32 {
    let place = core::ptr::with_exposed_provenance_mut::<u32>(address as usize);
    // SAFETY: RAM of the normal world, as the command's parser checked; nobody refers to it here.
    let before = unsafe { place.read_volatile() };
    // SAFETY: as above. EL2 does not run on this PE, and gets its instruction back before it could.
    unsafe { place.write_volatile(instruction) };
    // SAFETY: cache maintenance by address changes no value.
    unsafe {
        core::arch::asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb",
            in(reg) address, options(nostack, preserves_flags));
    }
    before
}

/// Writes a range back to memory, for who reads it without a cache or behind a reset.
pub(super) fn clean(start: u64, len_bytes: u64) {
    const LINE_BYTES: usize = 64;
    for line in (start..start + len_bytes).step_by(LINE_BYTES) {
        // SAFETY: cache maintenance by address changes no value.
        unsafe {
            core::arch::asm!("dc cvac, {0}", in(reg) line, options(nostack, preserves_flags))
        };
    }
    dsb_sy();
}

/// Completes all memory accesses.
#[inline]
pub(super) fn dsb_sy() {
    // SAFETY: a barrier only orders.
    unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) }
}

/// Waits for an interrupt, masked or not.
#[inline]
pub(super) fn wait_for_interrupt() {
    // SAFETY: WFI only waits; the barrier makes earlier stores visible first.
    unsafe { core::arch::asm!("dsb sy", "wfi", options(nostack, preserves_flags)) }
}

/// Turns this PE's GIC CPU interface on for Group 0; Group 1 is the normal world's.
pub(super) fn init_gic_cpu_interface() {
    // SRE, DFB, DIB, and Enable: system registers here and below.
    const SRE: u64 = 0b1111;
    write_icc_sre_el3(SRE);
    isb();
    write_icc_sre_el2(SRE);
    write_icc_sre_el1(0b111);
    isb();
    write_icc_pmr_el1(0xff);
    write_icc_igrpen1_el3(0);
    write_icc_igrpen0_el1(1);
    isb();
}
