// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the exception level finds when EL3 hands an exception to it: PSTATE and ESR.
//!
//! The rest needs no decision: ELR_ELx and SPSR_ELx are ELR_EL3 and SPSR_EL3 as they were, the
//! entry is VBAR_ELx plus the offset of the route, HCR_EL2 and the stack pointers stay as they
//! are. FAR_ELx is unknown after an SEI.

use firebreak_syndrome::{Ec, Esr, Iss};

use crate::route::{Origin, Target, spsr};

/// ISS bits of a synchronous external abort that are handed on: SET, FnV, EA, CM, S1PTW, WnR
/// and xFSC. ISV and what it describes, and PFV, are not.
const SEA_ISS: u64 = 0x1fff;

/// Features of the PE and settings of the target that shape the new PSTATE.
///
/// `Default` is a PE that has none of the features.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PstateFeatures {
    /// FEAT_PAN: the value of SCTLR_ELx.SPAN at the target.
    pub span: Option<bool>,
    /// The target is EL2 and HCR_EL2.{E2H,TGE} are both set. EL1 always honors SPAN, EL2 only
    /// as a host.
    pub in_host: bool,
    /// FEAT_SSBS: the value of SCTLR_ELx.DSSBS at the target.
    pub ssbs: Option<bool>,
    /// FEAT_MTE: tag checks are overridden on entry.
    pub mte: bool,
    /// FEAT_NMI: the value of SCTLR_ELx.SPINTMASK at the target.
    pub spintmask: Option<bool>,
    /// FEAT_GCS: the value of GCSCR_ELx.EXLOCKEN at the target, for an entry from a lower level.
    pub exlock: bool,
    /// FEAT_EBEP, FEAT_SPE_EXC or FEAT_TRBE_EXC: the profiling exception is masked on entry.
    pub profiling_exception: bool,
}

/// Returns SPSR_EL3 for the ERET that stands for the exception entry at `target`.
///
/// Mode is ELxh, D, A, I and F are set, IL, SS, UAO and BTYPE are clear, the condition flags,
/// DIT and PAN stay; the rest as `features` say (`AArch64.TakeException()`). Setting A here
/// masks the target while it saves its context. It has nothing to do with looking at A in the
/// interrupted PSTATE, which is [`route`](crate::route()) and comes first.
pub const fn entry_pstate(spsr_el3: u64, target: Target, features: &PstateFeatures) -> u64 {
    let kept = spsr_el3 & (spsr::NZCV | spsr::DIT | spsr::PAN);
    let mode = match target {
        Target::El1 => spsr::EL1H,
        Target::El2 => spsr::EL2H,
    };
    let mut new = kept | mode | spsr::D | spsr::A | spsr::I | spsr::F;
    let honors_span = matches!(target, Target::El1) || features.in_host;
    if honors_span && matches!(features.span, Some(false)) {
        new |= spsr::PAN;
    }
    if matches!(features.ssbs, Some(true)) {
        new |= spsr::SSBS;
    }
    if features.mte {
        new |= spsr::TCO;
    }
    if matches!(features.spintmask, Some(false)) {
        new |= spsr::ALLINT;
    }
    if features.exlock {
        new |= spsr::EXLOCK;
    }
    if features.profiling_exception {
        new |= spsr::PM;
    }
    new
}

/// Returns ESR_ELx for an SEI: class 0x2f whatever the levels, IL set, and the syndrome without
/// the bits that only hold for EL3's own exception (IESB, VFV, PFV).
pub const fn esr_for_sei(esr_el3: u64) -> u64 {
    Esr::serror(Iss::from_esr(esr_el3).for_hand_over()).raw()
}

/// Returns ESR_ELx for a synchronous external abort, or `None` when ESR_EL3 holds no abort.
///
/// EL3 always sees the "lower level" class; at the target it is the "same level" class when the
/// error interrupted the target's own level.
pub const fn esr_for_sea(esr_el3: u64, from: Origin, to: Target) -> Option<u64> {
    let same = to.is_same_level(from);
    let ec = match (Esr::from_raw(esr_el3).ec(), same) {
        (Ec::IABT_LOWER | Ec::IABT_SAME, false) => Ec::IABT_LOWER,
        (Ec::IABT_LOWER | Ec::IABT_SAME, true) => Ec::IABT_SAME,
        (Ec::DABT_LOWER | Ec::DABT_SAME, false) => Ec::DABT_LOWER,
        (Ec::DABT_LOWER | Ec::DABT_SAME, true) => Ec::DABT_SAME,
        _ => return None,
    };
    Some(Esr::build(ec, true, Iss::from_esr(esr_el3 & SEA_ISS)).raw())
}
