// SPDX-License-Identifier: MIT OR Apache-2.0
//! What EL3 sets once on each PE, and what EL2 starts with.

use super::sysreg;

/// SCR_EL3 for every PE: NS, FIQ and EA to EL3, RES1 bits, HCE, no secure fetch from
/// non-secure memory (SIF), EL2 is AArch64 (RW). SMC stays enabled (SMD=0), the secure timer is
/// EL3's alone (ST=0).
const SCR: u64 = 1 << 10 | 1 << 9 | 1 << 8 | 0b11 << 4 | 1 << 3 | 1 << 2 | 1;

/// Frequency that stands in CNTFRQ_EL0 if nothing else does: QEMU's for its named CPU models.
const DEFAULT_FREQUENCY_HZ: u64 = 62_500_000;

/// SCTLR_EL2 at entry: RES1 bits, everything off (E2H=0).
const SCTLR_EL2: u64 = 0x30c5_0830;
/// CPTR_EL2 at entry (E2H=0): RES1 bits. Where SVE and SME exist, two of these are their traps,
/// which EL2 lifts itself.
const CPTR_EL2: u64 = 0x33ff;

/// A feature of the PE that EL3 has to let through: field of an ID register, lowest value that
/// counts, bits of SCR_EL3.
struct Gate {
    register: fn() -> u64,
    shift: u32,
    least: u64,
    scr: u64,
}

const fn gate(register: fn() -> u64, shift: u32, least: u64, scr_bit: u32) -> Gate {
    Gate {
        register,
        shift,
        least,
        scr: 1 << scr_bit,
    }
}

/// Without its bit, each of these traps to EL3 or is hidden from EL2 and its guests
/// (Arm ARM D24.2, SCR_EL3).
const GATES: [Gate; 26] = [
    gate(sysreg::id_aa64isar1_el1, 4, 1, 16),  // APA: APK
    gate(sysreg::id_aa64isar1_el1, 4, 1, 17),  // APA: API
    gate(sysreg::id_aa64isar1_el1, 8, 1, 16),  // API: APK
    gate(sysreg::id_aa64isar1_el1, 8, 1, 17),  // API: API
    gate(sysreg::id_aa64isar2_el1, 12, 1, 16), // APA3: APK
    gate(sysreg::id_aa64isar2_el1, 12, 1, 17), // APA3: API
    gate(sysreg::id_aa64pfr0_el1, 56, 2, 25),  // CSV2: EnSCXT
    gate(sysreg::id_aa64pfr1_el1, 8, 2, 26),   // MTE: ATA
    gate(sysreg::id_aa64mmfr0_el1, 56, 1, 27), // FGT: FGTEn
    gate(sysreg::id_aa64mmfr0_el1, 60, 2, 28), // ECV: ECVEn
    gate(sysreg::id_aa64isar0_el1, 24, 1, 34), // TME
    gate(sysreg::id_aa64pfr0_el1, 44, 2, 35),  // AMU: AMVOFFEN
    gate(sysreg::id_aa64isar1_el1, 60, 3, 36), // LS64: EnAS0
    gate(sysreg::id_aa64isar1_el1, 60, 3, 37), // LS64: ADEn
    gate(sysreg::id_aa64mmfr1_el1, 40, 1, 38), // HCX: HXEn
    gate(sysreg::id_aa64pfr1_el1, 44, 1, 39),  // GCS: GCSEn
    gate(sysreg::id_aa64pfr1_el1, 24, 1, 41),  // SME: EnTP2
    gate(sysreg::id_aa64mmfr3_el1, 0, 1, 43),  // TCRX: TCR2En
    gate(sysreg::id_aa64mmfr3_el1, 4, 1, 44),  // SCTLRX: SCTLR2En
    gate(sysreg::id_aa64mmfr3_el1, 8, 1, 45),  // S1PIE: PIEn
    gate(sysreg::id_aa64mmfr3_el1, 12, 1, 45), // S2PIE: PIEn
    gate(sysreg::id_aa64mmfr3_el1, 24, 1, 46), // AIE: AIEn
    gate(sysreg::id_aa64mmfr3_el1, 32, 1, 47), // D128: D128En
    gate(sysreg::id_aa64pfr2_el1, 32, 1, 50),  // FPMR: EnFPM
    gate(sysreg::id_aa64mmfr0_el1, 56, 2, 59), // FGT: FGTEn2
    gate(sysreg::id_aa64pfr0_el1, 52, 1, 48),  // RME: GPF
];

const fn field(value: u64, shift: u32) -> u64 {
    value >> shift & 0xf
}

/// Opens this PE to EL2. Run once after reset.
pub(super) fn init() {
    let mut scr = SCR;
    for gate in &GATES {
        if field((gate.register)(), gate.shift) >= gate.least {
            scr |= gate.scr;
        }
    }
    sysreg::write_scr_el3(scr);
    sysreg::isb();
    init_traps();
    if sysreg::cntfrq_el0() == 0 {
        sysreg::write_cntfrq_el0(DEFAULT_FREQUENCY_HZ);
    }
}

/// Lifts EL3's traps of floating point, SVE, SME, debug, trace, profiling and PMU.
fn init_traps() {
    let pfr0 = sysreg::id_aa64pfr0_el1();
    let dfr0 = sysreg::id_aa64dfr0_el1();
    let sve = field(pfr0, 32) != 0;
    let sme = field(sysreg::id_aa64pfr1_el1(), 24) != 0;
    // CPTR_EL3: EZ [8] and ESM [12] are enables, all else traps.
    sysreg::write_cptr_el3(u64::from(sve) << 8 | u64::from(sme) << 12);
    sysreg::isb();
    if sve {
        sysreg::write_zcr_el3(0xf);
    }
    if sme {
        // LEN, and FA64 [31] and EZT0 [30], which are RES0 where they do not exist.
        sysreg::write_smcr_el3(1 << 31 | 1 << 30 | 0xf);
    }
    // MDCR_EL3: no self-hosted secure debug (SPD32, SDD); the profiling and trace buffers, where
    // they exist, belong to the normal world (NSPB, NSTB); no traps.
    let mut mdcr = 0b10 << 14 | 1 << 16;
    if field(dfr0, 32) != 0 {
        mdcr |= 0b11 << 12;
    }
    if field(dfr0, 44) != 0 {
        mdcr |= 0b11 << 24;
    }
    sysreg::write_mdcr_el3(mdcr);
    sysreg::isb();
}

/// Gives EL2 the state in which the contract lets it start: HCR_EL2 = 0, so that every SEI is
/// deferred until it says otherwise.
pub(super) fn reset_el2() {
    sysreg::write_hcr_el2(0);
    sysreg::isb();
    if field(sysreg::id_aa64mmfr1_el1(), 40) != 0 {
        sysreg::write_hcrx_el2(0);
    }
    if field(sysreg::id_aa64mmfr0_el1(), 56) != 0 {
        // Unknown after a reset: a hypervisor that does not set them is to notice, so everything
        // that they can trap, they trap.
        sysreg::write_hfgrtr_el2(u64::MAX);
        sysreg::write_hfgwtr_el2(u64::MAX);
        sysreg::write_hdfgrtr_el2(u64::MAX);
    }
    // Unknown after a reset, and EL2 may know nothing of what it is that EL3 has opened to it.
    if field(sysreg::id_aa64mmfr3_el1(), 0) != 0 {
        sysreg::write_tcr2_el2(0);
    }
    if field(sysreg::id_aa64mmfr3_el1(), 4) != 0 {
        sysreg::write_sctlr2_el2(0);
    }
    if field(sysreg::id_aa64pfr1_el1(), 44) != 0 {
        sysreg::write_gcscr_el2(0);
    }
    sysreg::write_sctlr_el2(SCTLR_EL2);
    sysreg::write_cptr_el2(CPTR_EL2);
    sysreg::write_hstr_el2(0);
    sysreg::write_vttbr_el2(0);
    sysreg::write_vbar_el2(0);
    // HPMN [4:0] keeps its reset value, the number of PMU counters; no traps.
    sysreg::write_mdcr_el2(sysreg::mdcr_el2() & 0x1f);
    sysreg::write_vpidr_el2(sysreg::midr_el1());
    sysreg::write_vmpidr_el2(sysreg::mpidr_el1());
    // EL1 may use its own timers until EL2 decides otherwise.
    sysreg::write_cnthctl_el2(0b11);
    sysreg::write_cntvoff_el2(0);
    sysreg::isb();
}
