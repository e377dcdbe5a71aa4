// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exceptions that EL2 makes a guest's EL1 take: exception entry in software.
//!
//! Arm ARM J1.1.3, AArch64.TakeException: a guest cannot tell these from its hardware's own.

use crate::pe::Task;
use firebreak_arch::guest::{self, Injection};
use firebreak_arch::sysreg;
use firebreak_syndrome::{
    AbortFsc, DataAbort, Ec, Esr, InstructionAbort, Iss, SyncAbort, UNDEFINED_ESR,
    external_abort_esr,
};

const SPSR_AARCH32: u64 = 1 << 4;
const SPSR_EL_SHIFT: u32 = 2;
const SPSR_SPSEL: u64 = 1;
const EL1H: u64 = 0b0101;
const DAIF: u64 = 0xf << 6;
const NZCV: u64 = 0xf << 28;
const DIT: u64 = 1 << 24;
const PAN: u64 = 1 << 22;
const SSBS: u64 = 1 << 12;
const SCTLR_SPAN: u64 = 1 << 23;
const SCTLR_DSSBS: u64 = 1 << 44;
/// Size of one group of vectors (Arm ARM D1.4.1).
const VECTOR_GROUP: u64 = 0x200;
/// Offset of the SError vector in its group.
const VECTOR_SERROR: u64 = 0x180;

/// Says whether the interrupted guest was at EL1 (and not at EL0).
pub(crate) fn from_el1(spsr: u64) -> bool {
    spsr & SPSR_AARCH32 == 0 && spsr >> SPSR_EL_SHIFT & 3 == 1
}

/// Gives the guest the undefined instruction exception that hardware without the feature would.
pub(crate) fn undefined(task: &mut Task) {
    take(task, UNDEFINED_ESR.raw(), None);
}

/// Turns a stage-2 data abort into a synchronous external abort of the guest itself.
pub(crate) fn data_abort(task: &mut Task) {
    let abort = DataAbort::new(task.frame.esr);
    let given = SyncAbort::from_data_abort(abort, from_el1(task.frame.spsr));
    let esr = walk_level(
        external_abort_esr(given).raw(),
        abort.on_stage1_walk(),
        abort.fsc_bits(),
    );
    let far = (!abort.far_not_valid()).then_some(task.frame.far);
    take(task, esr, far);
}

/// Turns a stage-2 instruction abort into a synchronous external abort of the guest itself.
pub(crate) fn instruction_abort(task: &mut Task) {
    let abort = InstructionAbort::new(task.frame.esr);
    let given = SyncAbort::from_instruction_abort(abort, from_el1(task.frame.spsr));
    let esr = walk_level(
        external_abort_esr(given).raw(),
        abort.on_stage1_walk(),
        abort.fsc_bits(),
    );
    let far = (!abort.far_not_valid()).then_some(task.frame.far);
    take(task, esr, far);
}

/// A guest whose own tables lie in a hole gets the abort of a table walk: FSC 0x14 plus the
/// level, which a stage-2 fault of the walk does not tell; level 0 of the guest's walk is
/// reported as the level of the stage-2 lookup, its two low bits. An external abort on a walk
/// that EL2 took from the guest is passed on as it is.
fn walk_level(esr: u64, on_walk: bool, stage2_fsc: u8) -> u64 {
    const FSC_MASK: u64 = 0x3f;
    const FSC_WALK: u64 = 0x14;
    if let AbortFsc::ExternalOnWalk(_) = AbortFsc::from_bits(stage2_fsc) {
        esr & !FSC_MASK | u64::from(stage2_fsc)
    } else if on_walk {
        esr & !FSC_MASK | FSC_WALK | u64::from(stage2_fsc & 3)
    } else {
        esr
    }
}

/// Makes the guest take a synchronous external abort that nothing in it caused, with everything
/// in the syndrome but the class as the caller wants it; returns ESR_EL1.
pub(crate) fn external_abort(task: &mut Task, fetch: bool, far: Option<u64>, iss: u32) -> u64 {
    let ec = match (fetch, from_el1(task.frame.spsr)) {
        (true, true) => Ec::IABT_SAME,
        (true, false) => Ec::IABT_LOWER,
        (false, true) => Ec::DABT_SAME,
        (false, false) => Ec::DABT_LOWER,
    };
    let esr = Esr::build(ec, true, Iss::from_esr(u64::from(iss))).raw();
    take(task, esr, far);
    esr
}

/// Makes the guest take a virtual SError now. FAR_EL1, which hardware leaves unknown, stays.
pub(crate) fn serror(task: &mut Task, iss: Iss) {
    enter(task, Esr::serror(iss).raw(), None, VECTOR_SERROR);
}

/// Makes EL1 take a synchronous exception where the guest stands.
fn take(task: &mut Task, esr: u64, far: Option<u64>) {
    enter(task, esr, far, 0);
}

/// Exception entry at EL1, through the vector at `vector` in its group.
fn enter(task: &mut Task, esr: u64, far: Option<u64>, vector: u64) {
    let spsr = task.frame.spsr;
    let offset = if from_el1(spsr) {
        if spsr & SPSR_SPSEL == 0 {
            0
        } else {
            VECTOR_GROUP
        }
    } else if spsr & SPSR_AARCH32 == 0 {
        2 * VECTOR_GROUP
    } else {
        3 * VECTOR_GROUP
    };
    let vbar = guest::write_exception(&Injection {
        esr,
        far,
        elr: task.frame.elr,
        spsr,
    });
    task.frame.elr = vbar.wrapping_add(offset + vector);
    task.frame.spsr = entry_pstate(spsr, sysreg::sctlr_el1());
}

/// PSTATE on entry to EL1h (AArch64.TakeException): DAIF set, IL, SS, BTYPE and UAO clear, NZCV
/// and DIT kept, PAN set when SCTLR_EL1.SPAN is 0, SSBS from SCTLR_EL1.DSSBS.
///
/// FEAT_NMI and FEAT_MTE are hidden from guests, so ALLINT and TCO stay 0.
fn entry_pstate(spsr: u64, sctlr: u64) -> u64 {
    let mut pstate = EL1H | DAIF | spsr & (NZCV | DIT | PAN);
    if sctlr & SCTLR_SPAN == 0 && has_pan() {
        pstate |= PAN;
    }
    if sctlr & SCTLR_DSSBS != 0 {
        pstate |= SSBS;
    }
    pstate
}

fn has_pan() -> bool {
    sysreg::id_aa64mmfr1_el1() >> 20 & 0xf != 0
}
