// SPDX-License-Identifier: MIT OR Apache-2.0
//! Synchronous external aborts that reach EL2: from a guest by HCR_EL2.TEA, or from EL2's own code.
//!
//! The firmware hands them over by the contract, with a record, and nothing masks them. A guest's
//! is taken in task context, which is where its vector leads: decided like an SEI, through the
//! same queue, and answered with an abort of the guest's own. EL2's own is decided by the vector
//! that it came by and the window that it struck, never by its class: firmware that forgets to
//! re-encode it leaves the class of a lower level there.

use crate::pe::{PeBlock, Task};
use crate::recovery::{self, PendingError};
use crate::{crash, inject, sei, vserror};
use firebreak_arch::{Frame, NmiCtx, sysreg, windows};
use firebreak_syndrome::{AbortFsc, DataAbort, Ec, Esr, Iss, external_abort_state};
use firebreak_triage::{Interrupted, Owner};
use firebreak_wire::Event;

/// Times in a row that one guest entry may be begun anew because of an abort at one instruction.
const MOST_REWINDS: u64 = 7;

/// Says whether a syndrome is that of a synchronous external abort, of either level's class.
pub(crate) fn is_external_abort(esr: u64) -> bool {
    let aborts = [Ec::IABT_LOWER, Ec::IABT_SAME, Ec::DABT_LOWER, Ec::DABT_SAME];
    let fsc = DataAbort::new(esr).fsc();
    aborts.contains(&Esr::from_raw(esr).ec())
        && matches!(fsc, AbortFsc::External | AbortFsc::ExternalOnWalk(_))
}

/// Takes an external abort of the guest: with a record it is an error like any other, without one
/// it goes back to the guest that caused it.
#[cold]
#[inline(never)]
pub(crate) fn external_abort(task: &mut Task) {
    // Room in the queue first: this abort has nowhere to wait.
    recovery::drain(task);
    vserror::settle_later(task);
    if sei::take_abort(task) {
        return;
    }
    let iss = u64::from(Iss::from_esr(task.frame.esr).get());
    if let Some((partition, _)) = task.vcpu() {
        let pe = task.pe.id.0;
        partition.report(&task.ctx, &Event::Unclaimed { pe, iss });
    }
    give_back(task);
}

/// Tells the guest of an error that it met itself, as the verdict wants it.
pub(crate) fn tell(task: &mut Task, error: &PendingError) {
    if !task.local.running {
        return;
    }
    if let (Some((pa, Owner::Partition(vm))), Some((partition, vcpu))) =
        (error.evidence.page(), task.vcpu())
        && vm == partition.id
        && let Some(ipa) = partition.ipa_of(&task.ctx, pa)
    {
        let event = Event::Abort {
            vm: vm.0,
            vcpu,
            ipa: ipa.get(),
            far: task.frame.far,
            pc: task.frame.elr,
            write: DataAbort::new(task.frame.esr).is_write(),
            retired: partition.backing.lock(&task.ctx).is_hole(ipa),
        };
        partition.report(&task.ctx, &event);
    }
    give_back(task);
}

/// Makes the guest take the abort that EL2 took from it. The lowest bit of the class says whether
/// it was the taker's own level, which is for EL1 to be told anew.
fn give_back(task: &mut Task) {
    if Esr::from_raw(task.frame.esr).ec().bits() | 1 == Ec::IABT_SAME.bits() {
        inject::instruction_abort(task);
    } else {
        inject::data_abort(task);
    }
}

/// First Rust function of a synchronous exception that EL2 took from itself: an external abort, or
/// a bug. Returns where EL2 goes on, with nothing but what a called function may count on.
///
/// # Safety
///
/// Called by `vectors.S` alone, on the SEI stack, with SError masked.
#[unsafe(no_mangle)]
unsafe extern "C" fn firebreak_el2_sync(pe: &'static PeBlock, slot: u64, frame: &Frame) -> u64 {
    let (esr, pc) = (sysreg::esr_el2(), sysreg::elr_el2());
    if !is_external_abort(esr) {
        // SAFETY: this function's own claim; the vectors use it alike for every other slot.
        unsafe { crash::firebreak_el2_fault(pe, slot, frame) }
    }
    // SAFETY: what this function calls is of the SEI path, and may interrupt EL2 anywhere.
    let ctx = unsafe { NmiCtx::new() };
    let iss = Iss::from_esr(esr);
    let (exit, idle) = (windows::exit(), windows::idle());
    // What is unexplained may be EL2's own code and data: then nothing begins anew.
    let explained = sei::has_record(pe);
    // EL2 waits for a guest (CPU_SUSPEND) unless it has nothing to do.
    let waits_for_guest = idle.contains(pc) && !pe.is_idle();
    if explained && (waits_for_guest || exit.contains(pc) && may_rewind(pe, pc)) {
        // The guest has executed nothing: to it, this is an error that came in between.
        let interrupted = sei::guest_on_its_way(pe);
        sei::take_own_abort(
            &ctx,
            pe,
            (external_abort_state(iss), false),
            pc,
            interrupted,
        );
        return if waits_for_guest {
            idle.start
        } else {
            exit.start
        };
    }
    let goes_on_at = if !explained {
        None
    } else if idle.contains(pc) {
        Some(idle.start)
    } else if windows::guest_write().contains(pc) {
        // Nothing is at stake but the page, and the caller learns that it was not written.
        Some(windows::guest_write_failed())
    } else {
        None
    };
    let interrupted = if goes_on_at.is_some() {
        Interrupted::Idle
    } else {
        Interrupted::Hypervisor
    };
    sei::take_own_abort(&ctx, pe, (iss, true), pc, interrupted);
    if let Some(address) = goes_on_at {
        return address;
    }
    // SAFETY: as above; not reached while triage resets for every SEA of EL2 at work.
    unsafe { crash::firebreak_el2_fault(pe, slot, frame) }
}

/// Says whether the way to the guest may be begun again: not for ever at the same instruction.
fn may_rewind(pe: &PeBlock, pc: u64) -> bool {
    use core::sync::atomic::Ordering::Relaxed;
    // SAFETY: nobody changes the guest's frame while it is being loaded from.
    let elr = unsafe { (*pe.head.guest.get()).elr };
    let place = (pc ^ elr.rotate_left(32)) & !MOST_REWINDS;
    let before = pe.last_rewind.load(Relaxed);
    let times = if before & !MOST_REWINDS == place {
        before & MOST_REWINDS
    } else {
        0
    };
    pe.last_rewind
        .store(place | (times + 1).min(MOST_REWINDS), Relaxed);
    times < MOST_REWINDS
}
