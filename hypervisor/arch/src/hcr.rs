// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values of the EL2 control registers while guests run.
//!
//! Source: Arm ARM DDI0487 M.a, D24.2 (HCR_EL2, CPTR_EL2, MDCR_EL2, HCRX_EL2).

use crate::cpu::Features;

/// HCR_EL2.VM: stage 2 on.
pub const VM: u64 = 1 << 0;
/// HCR_EL2.SWIO: data cache invalidate by set/way does clean and invalidate.
pub const SWIO: u64 = 1 << 1;
/// HCR_EL2.FMO: FIQs to EL2.
pub const FMO: u64 = 1 << 3;
/// HCR_EL2.IMO: IRQs to EL2, virtual interrupts on.
pub const IMO: u64 = 1 << 4;
/// HCR_EL2.AMO: SErrors to EL2, virtual SError on. The readiness bit of the SEI contract.
pub const AMO: u64 = 1 << 5;
/// HCR_EL2.VSE: a virtual SError is pending. Hardware clears it when the guest takes it.
pub const VSE: u64 = 1 << 8;
/// HCR_EL2.TID3: traps reads of the ID registers of group 3.
pub const TID3: u64 = 1 << 18;
/// HCR_EL2.TSC: traps SMC.
pub const TSC: u64 = 1 << 19;
/// HCR_EL2.TIDCP: traps implementation-defined registers.
pub const TIDCP: u64 = 1 << 20;
/// HCR_EL2.TACR: traps ACTLR_EL1.
pub const TACR: u64 = 1 << 21;
/// HCR_EL2.TSW: traps data cache maintenance by set/way.
pub const TSW: u64 = 1 << 22;
/// HCR_EL2.RW: EL1 is AArch64.
pub const RW: u64 = 1 << 31;
/// HCR_EL2.E2H: EL2 is a host; clear here, and RES1 on a CPU without FEAT_E2H0.
pub const E2H: u64 = 1 << 34;
/// HCR_EL2.TERR: traps the error record registers.
pub const TERR: u64 = 1 << 36;
/// HCR_EL2.TEA: synchronous external aborts to EL2.
pub const TEA: u64 = 1 << 37;
/// HCR_EL2.APK: pointer authentication keys are the guest's.
pub const APK: u64 = 1 << 40;
/// HCR_EL2.API: pointer authentication instructions are the guest's.
pub const API: u64 = 1 << 41;

/// Returns HCR_EL2 for a guest.
///
/// WFI and WFE stay untrapped (TWI = TWE = 0): the PE belongs to the vCPU. TEA and TERR are
/// RES0 without FEAT_RAS and are then left out.
pub fn guest_hcr(features: &Features) -> u64 {
    let mut value = VM | SWIO | FMO | IMO | AMO | TID3 | TSC | TIDCP | TACR | TSW | RW;
    if features.ras {
        value |= TEA | TERR;
    }
    if features.pointer_authentication {
        value |= APK | API;
    }
    value
}

/// Returns HCR_EL2 of a PE that is ready for SEIs and runs no guest.
pub fn idle_hcr(features: &Features) -> u64 {
    guest_hcr(features) & !VM
}

/// CPTR_EL2 with E2H = 0: RES1 bits, SVE (TZ) and SME (TSM) trapped, FP and SIMD the guest's.
const CPTR: u64 = 0x33ff;
/// CPTR_EL2.TTA: traps the registers of the trace unit, which could watch EL2.
const CPTR_TTA: u64 = 1 << 20;
/// CPTR_EL2.TAM: traps the activity monitors, which count for the PE and not for a guest.
const CPTR_TAM: u64 = 1 << 30;

/// Returns CPTR_EL2 for a guest. What its ID registers do not show is trapped.
pub fn cptr(features: &Features) -> u64 {
    let amu = if features.amu { CPTR_TAM } else { 0 };
    CPTR | CPTR_TTA | amu
}

/// MDCR_EL2.HPMD: the guest's event counters do not count while EL2 runs.
pub const MDCR_HPMD: u64 = 1 << 17;

/// HCRX_EL2.MSCEn: the guest may use the memory copy and set instructions (FEAT_MOPS).
pub const HCRX_MSCEN: u64 = 1 << 11;

/// CNTHCTL_EL2 with E2H = 0: EL1 may read the physical counter (EL1PCTEN) and use the
/// physical timer (EL1PCEN).
pub const CNTHCTL: u64 = 0b11;
