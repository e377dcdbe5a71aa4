// SPDX-License-Identifier: MIT OR Apache-2.0
//! Probes of system registers that may trap, be hidden or be absent.
//!
//! All are named by encoding, so that the assembler has no opinion. A register is there (a
//! value) or is not (UNDEFINED); nothing else may come of it.

use crate::engine::Expect;
use crate::probe;
use core::arch::asm;
use firebreak_guest_rt::cpu;

/// Makes probes of registers: `r` reads, `w` writes a value, `rw` reads and writes back, `u` reads
/// what must be UNDEFINED at EL1.
macro_rules! registers {
    ($($mode:ident $name:literal $encoding:literal $(= $value:literal)?;)*) => {
        $( registers!(@ $mode $name $encoding $($value)?); )*
    };
    (@ r $name:literal $encoding:literal) => {
        probe!(Expect::ValueOrUndefined, || {
            let value: u64;
            // SAFETY: reads a register; a trap leaves the 0.
            unsafe {
                asm!("mov {v}, xzr", concat!("mrs {v}, ", $encoding), v = out(reg) value,
                    options(nostack, preserves_flags));
            }
            value
        }, concat!("mrs ", $name))
    };
    (@ u $name:literal $encoding:literal) => {
        probe!(Expect::Undefined, || {
            let value: u64;
            // SAFETY: as above.
            unsafe {
                asm!("mov {v}, xzr", concat!("mrs {v}, ", $encoding), v = out(reg) value,
                    options(nostack, preserves_flags));
            }
            value
        }, concat!("mrs ", $name))
    };
    (@ w $name:literal $encoding:literal $value:literal) => {
        probe!(Expect::ValueOrUndefined, || {
            // SAFETY: the registers of the tables steer debug, counters and interrupts that
            // this guest does not use.
            unsafe {
                asm!(concat!("msr ", $encoding, ", {v}"), "isb", v = in(reg) $value as u64,
                    options(nostack, preserves_flags));
            }
            $value
        }, concat!("msr ", $name, " {:#x}"), $value as u64)
    };
    (@ rw $name:literal $encoding:literal) => {
        registers!(@ r $name $encoding);
        probe!(Expect::ValueOrUndefined, || {
            let value: u64;
            // SAFETY: writes back what was read.
            unsafe {
                asm!("mov {v}, xzr", concat!("mrs {v}, ", $encoding),
                    concat!("msr ", $encoding, ", {v}"), "isb", v = out(reg) value,
                    options(nostack, preserves_flags));
            }
            value
        }, concat!("msr ", $name, " back"))
    };
}

/// Identification, control and translation.
fn identity() {
    registers! {
        r "MIDR_EL1" "s3_0_c0_c0_0";
        r "MPIDR_EL1" "s3_0_c0_c0_5";
        r "REVIDR_EL1" "s3_0_c0_c0_6";
        r "AIDR_EL1" "s3_1_c0_c0_7";
        r "CTR_EL0" "s3_3_c0_c0_1";
        r "DCZID_EL0" "s3_3_c0_c0_7";
        r "CLIDR_EL1" "s3_1_c0_c0_1";
        r "CCSIDR_EL1" "s3_1_c0_c0_0";
        r "CCSIDR2_EL1" "s3_1_c0_c0_2";
        rw "CSSELR_EL1" "s3_2_c0_c0_0";
        r "ID_PFR0_EL1" "s3_0_c0_c1_0";
        r "ID_DFR0_EL1" "s3_0_c0_c1_2";
        r "MVFR0_EL1" "s3_0_c0_c3_0";
        r "ID_AA64PFR0_EL1" "s3_0_c0_c4_0";
        r "ID_AA64PFR1_EL1" "s3_0_c0_c4_1";
        r "ID_AA64ZFR0_EL1" "s3_0_c0_c4_4";
        r "ID_AA64SMFR0_EL1" "s3_0_c0_c4_5";
        r "ID_AA64DFR0_EL1" "s3_0_c0_c5_0";
        r "ID_AA64DFR1_EL1" "s3_0_c0_c5_1";
        r "ID_AA64AFR0_EL1" "s3_0_c0_c5_4";
        r "ID_AA64ISAR0_EL1" "s3_0_c0_c6_0";
        r "ID_AA64ISAR1_EL1" "s3_0_c0_c6_1";
        r "ID_AA64ISAR2_EL1" "s3_0_c0_c6_2";
        r "ID_AA64MMFR0_EL1" "s3_0_c0_c7_0";
        r "ID_AA64MMFR1_EL1" "s3_0_c0_c7_1";
        r "ID_AA64MMFR2_EL1" "s3_0_c0_c7_2";
        r "ID_AA64 unallocated" "s3_0_c0_c7_7";
        r "GMID_EL1" "s3_1_c0_c0_4";
        rw "SCTLR_EL1" "s3_0_c1_c0_0";
        rw "ACTLR_EL1" "s3_0_c1_c0_1";
        r "CPACR_EL1" "s3_0_c1_c0_2";
        r "ZCR_EL1" "s3_0_c1_c2_0";
        rw "TTBR0_EL1" "s3_0_c2_c0_0";
        rw "TTBR1_EL1" "s3_0_c2_c0_1";
        rw "TCR_EL1" "s3_0_c2_c0_2";
        rw "APIAKeyLo_EL1" "s3_0_c2_c1_0";
        rw "AFSR0_EL1" "s3_0_c5_c1_0";
        rw "AFSR1_EL1" "s3_0_c5_c1_1";
        rw "MAIR_EL1" "s3_0_c10_c2_0";
        rw "AMAIR_EL1" "s3_0_c10_c3_0";
        rw "LORSA_EL1" "s3_0_c10_c4_0";
        rw "LORC_EL1" "s3_0_c10_c4_3";
        r "LORID_EL1" "s3_0_c10_c4_7";
        rw "MPAM1_EL1" "s3_0_c10_c5_0";
        r "MPAMIDR_EL1" "s3_0_c10_c4_4";
        r "RVBAR_EL1" "s3_0_c12_c0_1";
        r "ISR_EL1" "s3_0_c12_c1_0";
        rw "CONTEXTIDR_EL1" "s3_0_c13_c0_1";
        rw "TPIDR_EL0" "s3_3_c13_c0_2";
        r "RNDR" "s3_3_c2_c4_0";
    }
    // What an ID register promises must be there.
    let promised = if cpu::has_scxtnum() {
        Expect::Value
    } else {
        Expect::ValueOrUndefined
    };
    probe!(
        promised,
        || {
            let value: u64;
            // SAFETY: reads a register; a trap leaves the 0.
            unsafe {
                asm!("mov {v}, xzr", "mrs {v}, s3_0_c13_c0_7", v = out(reg) value,
                    options(nostack, preserves_flags));
            }
            value
        },
        "mrs SCXTNUM_EL1"
    );
}

/// The RAS extension: error records, and where a deferred error shows.
fn errors() {
    registers! {
        r "ERRIDR_EL1" "s3_0_c5_c3_0";
        rw "ERRSELR_EL1" "s3_0_c5_c3_1";
        r "ERXFR_EL1" "s3_0_c5_c4_0";
        rw "ERXCTLR_EL1" "s3_0_c5_c4_1";
        rw "ERXSTATUS_EL1" "s3_0_c5_c4_2";
        rw "ERXADDR_EL1" "s3_0_c5_c4_3";
        r "ERXPFGF_EL1" "s3_0_c5_c4_4";
        rw "ERXPFGCTL_EL1" "s3_0_c5_c4_5";
        rw "ERXPFGCDN_EL1" "s3_0_c5_c4_6";
        rw "ERXMISC0_EL1" "s3_0_c5_c5_0";
        rw "ERXMISC3_EL1" "s3_0_c5_c5_3";
        rw "DISR_EL1" "s3_0_c12_c1_1";
        w "DISR_EL1" "s3_0_c12_c1_1" = 0xffff_ffff_ffff_ffff_u64;
        w "DISR_EL1" "s3_0_c12_c1_1" = 0_u64;
        u "VDISR_EL2" "s3_4_c12_c1_1";
        u "VSESR_EL2" "s3_4_c5_c2_3";
    }
}

/// Debug, trace, profiling and performance monitors.
fn debug() {
    registers! {
        r "MDCCINT_EL1" "s2_0_c0_c2_0";
        rw "MDSCR_EL1" "s2_0_c0_c2_2";
        r "OSDTRRX_EL1" "s2_0_c0_c0_2";
        r "OSECCR_EL1" "s2_0_c0_c6_2";
        rw "DBGBVR0_EL1" "s2_0_c0_c0_4";
        rw "DBGBCR0_EL1" "s2_0_c0_c0_5";
        rw "DBGWVR0_EL1" "s2_0_c0_c0_6";
        rw "DBGWCR0_EL1" "s2_0_c0_c0_7";
        rw "DBGBVR15_EL1" "s2_0_c0_c15_4";
        r "MDRAR_EL1" "s2_0_c1_c0_0";
        w "OSLAR_EL1" "s2_0_c1_c0_4" = 0_u64;
        r "OSLSR_EL1" "s2_0_c1_c1_4";
        rw "OSDLR_EL1" "s2_0_c1_c3_4";
        r "DBGPRCR_EL1" "s2_0_c1_c4_4";
        r "DBGCLAIMSET_EL1" "s2_0_c7_c8_6";
        r "DBGAUTHSTATUS_EL1" "s2_0_c7_c14_6";
        r "MDCCSR_EL0" "s2_3_c0_c1_0";
        r "DBGDTR_EL0" "s2_3_c0_c4_0";
        r "TRCPRGCTLR" "s2_1_c0_c1_0";
        r "TRCIDR0" "s2_1_c0_c8_7";
        rw "PMCR_EL0" "s3_3_c9_c12_0";
        w "PMCR_EL0" "s3_3_c9_c12_0" = 0x7_u64;
        rw "PMCNTENSET_EL0" "s3_3_c9_c12_1";
        rw "PMSELR_EL0" "s3_3_c9_c12_5";
        r "PMCEID0_EL0" "s3_3_c9_c12_6";
        r "PMCCNTR_EL0" "s3_3_c9_c13_0";
        rw "PMXEVTYPER_EL0" "s3_3_c9_c13_1";
        r "PMXEVCNTR_EL0" "s3_3_c9_c13_2";
        rw "PMUSERENR_EL0" "s3_3_c9_c14_0";
        rw "PMINTENSET_EL1" "s3_0_c9_c14_1";
        r "PMMIR_EL1" "s3_0_c9_c14_6";
        rw "PMEVTYPER0_EL0" "s3_3_c14_c12_0";
        r "PMEVCNTR0_EL0" "s3_3_c14_c8_0";
        rw "PMCCFILTR_EL0" "s3_3_c14_c15_7";
        r "PMSCR_EL1" "s3_0_c9_c9_0";
        r "PMBLIMITR_EL1" "s3_0_c9_c10_0";
        r "TRBLIMITR_EL1" "s3_0_c9_c11_0";
        r "AMCR_EL0" "s3_3_c13_c2_0";
        r "AMEVCNTR00_EL0" "s3_3_c13_c4_0";
    }
}

/// The GIC's CPU interface, all of it, Group 0 too.
fn interrupts() {
    registers! {
        r "ICC_IAR0_EL1" "s3_0_c12_c8_0";
        w "ICC_EOIR0_EL1" "s3_0_c12_c8_1" = 1023_u64;
        r "ICC_HPPIR0_EL1" "s3_0_c12_c8_2";
        rw "ICC_BPR0_EL1" "s3_0_c12_c8_3";
        rw "ICC_AP0R0_EL1" "s3_0_c12_c8_4";
        r "ICC_AP0R1_EL1" "s3_0_c12_c8_5";
        rw "ICC_AP1R0_EL1" "s3_0_c12_c9_0";
        r "ICC_AP1R1_EL1" "s3_0_c12_c9_1";
        w "ICC_DIR_EL1" "s3_0_c12_c11_1" = 1023_u64;
        r "ICC_RPR_EL1" "s3_0_c12_c11_3";
        w "ICC_SGI1R_EL1" "s3_0_c12_c11_5" = 0x0100_0000_0000_u64;
        w "ICC_SGI1R_EL1 nobody" "s3_0_c12_c11_5" = 0x00ff_00ff_0fff_ffff_u64;
        w "ICC_ASGI1R_EL1" "s3_0_c12_c11_6" = 0x0100_0000_0000_u64;
        w "ICC_SGI0R_EL1" "s3_0_c12_c11_7" = 0x0100_0000_0000_u64;
        r "ICC_IAR1_EL1" "s3_0_c12_c12_0";
        w "ICC_EOIR1_EL1" "s3_0_c12_c12_1" = 1023_u64;
        w "ICC_EOIR1_EL1" "s3_0_c12_c12_1" = 0x00ff_fffe_u64;
        r "ICC_HPPIR1_EL1" "s3_0_c12_c12_2";
        rw "ICC_BPR1_EL1" "s3_0_c12_c12_3";
        rw "ICC_CTLR_EL1" "s3_0_c12_c12_4";
        w "ICC_SRE_EL1" "s3_0_c12_c12_5" = 0_u64;
        rw "ICC_SRE_EL1" "s3_0_c12_c12_5";
        rw "ICC_IGRPEN0_EL1" "s3_0_c12_c12_6";
        w "ICC_IGRPEN0_EL1" "s3_0_c12_c12_6" = 1_u64;
        rw "ICC_IGRPEN1_EL1" "s3_0_c12_c12_7";
        rw "ICC_PMR_EL1" "s3_0_c4_c6_0";
        u "ICC_SRE_EL2" "s3_4_c12_c9_5";
        u "ICC_CTLR_EL3" "s3_6_c12_c12_4";
        u "ICH_HCR_EL2" "s3_4_c12_c11_0";
        u "ICH_LR0_EL2" "s3_4_c12_c12_0";
    }
}

/// Timers, registers of higher levels, implementation-defined and unallocated ones.
fn rest() {
    registers! {
        r "CNTFRQ_EL0" "s3_3_c14_c0_0";
        r "CNTPCT_EL0" "s3_3_c14_c0_1";
        r "CNTPCTSS_EL0" "s3_3_c14_c0_5";
        rw "CNTKCTL_EL1" "s3_0_c14_c1_0";
        r "CNTP_TVAL_EL0" "s3_3_c14_c2_0";
        rw "CNTP_CTL_EL0" "s3_3_c14_c2_1";
        rw "CNTP_CVAL_EL0" "s3_3_c14_c2_2";
        r "CNTV_TVAL_EL0" "s3_3_c14_c3_0";
        r "CNTPS_CTL_EL1" "s3_7_c14_c2_1";
        u "CNTHP_CTL_EL2" "s3_4_c14_c2_1";
        u "CNTVOFF_EL2" "s3_4_c14_c0_3";
        u "HCR_EL2" "s3_4_c1_c1_0";
        u "VTTBR_EL2" "s3_4_c2_c1_0";
        u "VBAR_EL2" "s3_4_c12_c0_0";
        u "MDCR_EL2" "s3_4_c1_c1_1";
        u "HPFAR_EL2" "s3_4_c6_c0_4";
        u "TPIDR_EL2" "s3_4_c13_c0_2";
        u "SCR_EL3" "s3_6_c1_c1_0";
        u "VBAR_EL3" "s3_6_c12_c0_0";
        u "SCTLR_EL12" "s3_5_c1_c0_0";
        r "IMPDEF c11 op1 0" "s3_0_c11_c0_0";
        r "IMPDEF c11 op1 1" "s3_1_c11_c0_2";
        r "IMPDEF c15 op1 0" "s3_0_c15_c0_0";
        rw "IMPDEF c15 op1 0 c1" "s3_0_c15_c1_0";
        rw "IMPDEF c15 op1 1" "s3_1_c15_c2_0";
        r "IMPDEF c15 op1 3" "s3_3_c15_c2_7";
        r "IMPDEF c15 op1 4" "s3_4_c15_c0_0";
        r "IMPDEF c15 op1 7" "s3_7_c15_c15_7";
        w "IMPDEF c15 op1 0" "s3_0_c15_c8_1" = 0xffff_ffff_ffff_ffff_u64;
        u "unallocated op1 2" "s3_2_c9_c15_7";
        u "unallocated op0 2" "s2_7_c9_c15_7";
    }
}

/// Probes all registers.
pub(crate) fn run() {
    identity();
    errors();
    debug();
    interrupts();
    rest();
}
