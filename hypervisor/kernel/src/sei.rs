// SPDX-License-Identifier: MIT OR Apache-2.0
//! The SEI path: takes the firmware's record, decides, publishes, acknowledges.
//!
//! It may have interrupted any instruction of EL2 on this PE. Hence no lock, no allocation, no
//! formatting, no loop without a constant bound; it writes atomics of its own PE, the recovery
//! queue, and the two words of the firmware's page that are EL2's to write. [`NmiCtx`] keeps the
//! rest out at compile time.

use crate::pe::{PeBlock, Task, attention};
use crate::record::{self, Reading, read_word, take_word};
use crate::recovery::PendingError;
use crate::system::{self, System};
use crate::{crash, owners};
use firebreak_abi::{Pa, VmId};
use firebreak_arch::frame::{LAST_LEVEL, LOST_SYNDROME};
use firebreak_arch::{Frame, NmiCtx, SeiLevel, sysreg, windows};
use firebreak_manifest::Source;
use firebreak_ring::Sei;
use firebreak_syndrome::{CperSeverity, Iss, Severity, pulled_syndrome};
use firebreak_triage::{
    ContextVerdict, Decision, Evidence, GuestEl, Interrupted, RecordSummary, triage,
};

mod barge_in;

/// SPSR_EL2.M: the exception level that was interrupted.
const SPSR_AARCH32: u64 = 1 << 4;
const SPSR_EL_SHIFT: u32 = 2;

/// What arrived, before anybody has looked at a record.
struct Notification {
    /// ESR_EL2.ISS; `None` without FEAT_RAS, where it says nothing.
    iss: Option<Iss>,
    /// It is an SEA.
    sync: bool,
    /// Interrupted PC.
    pc: u64,
    /// Interrupted context.
    interrupted: Interrupted,
    /// Nesting level for the queue.
    nesting: u8,
    /// No ESR came with it: the record's own syndrome is better than the syndrome word, which is
    /// that of the last deferred record.
    pulled: bool,
    /// What the SEI itself destroyed.
    lost: Lost,
}

/// What an SEI destroyed by arriving while its registers were in use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nothing that mattered.
    Nothing,
    /// The context of the guest.
    Guest,
    /// A context of EL2.
    Hypervisor,
}

/// First Rust function of an SEI that interrupted a guest.
///
/// # Safety
///
/// Called by `vectors.S` alone, on the SEI stack, with SError masked.
#[unsafe(no_mangle)]
unsafe extern "C" fn firebreak_sei_guest(pe: &'static PeBlock) {
    // SAFETY: the SEI path.
    let ctx = unsafe { NmiCtx::new() };
    // SAFETY: the vectors have just saved the guest there; no task context runs on this PE.
    let &Frame { esr, elr, spsr, .. } = unsafe { &*pe.head.guest.get() };
    let notification = Notification {
        iss: syndrome(esr),
        sync: false,
        pc: elr,
        interrupted: guest(pe, spsr),
        nesting: 0,
        pulled: esr == LOST_SYNDROME,
        lost: Lost::Nothing,
    };
    take(&ctx, pe, &notification);
}

/// First Rust function of an SEI that interrupted EL2.
///
/// # Safety
///
/// Called by `vectors.S` alone, on the stack of the level, with SError masked. Returns whether what
/// was interrupted is to be abandoned: 0 or 1.
#[unsafe(no_mangle)]
unsafe extern "C" fn firebreak_sei_el2(pe: &'static PeBlock, level: &mut SeiLevel) -> u64 {
    // SAFETY: the SEI path.
    let ctx = unsafe { NmiCtx::new() };
    if level.level >= LAST_LEVEL {
        crash::reset_from_nmi(&ctx, Iss::from_esr(level.found_esr).get(), pe.id);
    }
    let place = barge_in::settle(pe, level);
    let notification = Notification {
        iss: syndrome(level.found_esr),
        sync: false,
        pc: place.pc,
        interrupted: place.interrupted,
        nesting: level.level as u8,
        pulled: level.found_esr == LOST_SYNDROME,
        lost: place.lost,
    };
    take(&ctx, pe, &notification);
    u64::from(place.abandon)
}

/// Says what an SEI interrupted that found EL2 at `pc`, with SError unmasked, and where that goes on.
fn place(pe: &PeBlock, pc: u64) -> (Interrupted, u64) {
    let (exit, idle) = (windows::exit(), windows::idle());
    if exit.contains(pc) {
        // The way back to a guest starts again, with a new look at `attention`.
        let again = if cfg!(feature = "seed-no-rewind") {
            pc
        } else {
            exit.start
        };
        (guest_on_its_way(pe), again)
    } else if idle.contains(pc) && pe.is_idle() {
        (Interrupted::Idle, idle.start)
    } else if idle.contains(pc) {
        // EL2 waits for a guest (CPU_SUSPEND), whose context is whole.
        (guest_on_its_way(pe), idle.start)
    } else if pe.is_idle() {
        // On the way from the wait to its next round: nothing but the look is at stake.
        (Interrupted::Idle, pc)
    } else {
        (Interrupted::Hypervisor, pc)
    }
}

pub(crate) fn syndrome(esr: u64) -> Option<Iss> {
    let ras = system::get().is_none_or(|system| system.features.ras);
    ras.then(|| Iss::from_esr(esr))
}

fn guest(pe: &PeBlock, spsr: u64) -> Interrupted {
    let el1 = spsr & SPSR_AARCH32 == 0 && spsr >> SPSR_EL_SHIFT & 3 == 1;
    let el = if el1 { GuestEl::El1 } else { GuestEl::El0 };
    if cfg!(feature = "seed-wrong-partition") {
        let vm = VmId(pe.resident().map_or(0, |vcpu| vcpu.vm.0 ^ 1));
        return Interrupted::Guest { vm, el };
    }
    match pe.resident() {
        Some(vcpu) => Interrupted::Guest { vm: vcpu.vm, el },
        None => Interrupted::Hypervisor,
    }
}

/// Says whether an SEI that could not be handed over waits for this PE.
pub(crate) fn is_pending(pe: &PeBlock) -> bool {
    read_word(Pa::new(pe.head.pending_word)) != 0
}

/// Looks at the firmware's pending word: an SEI that could not be handed over. Whoever clears the
/// word has it, once: EL3 clears it when it hands the SEI over after all.
pub(crate) fn pull_deferred(task: &mut Task) {
    let pending = Pa::new(task.pe.head.pending_word);
    // A PE without a source has a constant 0 here, which must not be written.
    if read_word(pending) == 0 || take_word(pending) == 0 {
        return;
    }
    let raw = source_of(task.pe).map_or(0, |source| read_word(source.syndrome));
    take_in_task(task, syndrome(raw & u64::from(Iss::MASK)));
}

/// Takes one that could not be taken when it came: its record stands unacknowledged in the block,
/// if it had one. Says whether there was one.
pub(crate) fn take_refused(task: &mut Task) -> bool {
    let Some(Sei { iss, el2_pc }) = task.pe.put_off.take() else {
        return false;
    };
    take_late(task, syndrome(u64::from(iss)), el2_pc);
    true
}

/// Does in task context what the SEI path would have done, had it come now.
pub(crate) fn take_in_task(task: &mut Task, iss: Option<Iss>) {
    take_late(task, iss, None);
}

/// The same for one that came earlier, and interrupted EL2 at `el2_pc`, or else no more than the
/// guest of this PE or its wait.
fn take_late(task: &mut Task, iss: Option<Iss>, el2_pc: Option<u64>) {
    // SAFETY: the functions below are those of the SEI path; nothing that they touch is locked
    // or borrowed here, and a new record cannot come before this one is acknowledged.
    let ctx = unsafe { NmiCtx::new() };
    let interrupted = match task.pe.resident() {
        _ if el2_pc.is_some() => Interrupted::Hypervisor,
        Some(vcpu) if task.local.running => {
            let el1 = crate::inject::from_el1(task.frame.spsr);
            Interrupted::Guest {
                vm: vcpu.vm,
                el: if el1 { GuestEl::El1 } else { GuestEl::El0 },
            }
        }
        _ => Interrupted::Idle,
    };
    let pc = el2_pc.unwrap_or(task.frame.elr);
    take(
        &ctx,
        task.pe,
        &Notification {
            iss,
            sync: false,
            pc,
            interrupted,
            nesting: 0,
            pulled: true,
            lost: Lost::Nothing,
        },
    );
}

/// Takes an SEA of the guest, in task context. Says whether there was a record to take.
pub(crate) fn take_abort(task: &mut Task) -> bool {
    if !has_record(task.pe) {
        return false;
    }
    // SAFETY: as in `take_in_task`: the firmware holds back every other error of this PE until
    // this one's record is acknowledged.
    let ctx = unsafe { NmiCtx::new() };
    let notification = Notification {
        iss: syndrome(task.frame.esr),
        sync: true,
        pc: task.frame.elr,
        interrupted: guest(task.pe, task.frame.spsr),
        nesting: 0,
        pulled: false,
        lost: Lost::Nothing,
    };
    take(&ctx, task.pe, &notification);
    true
}

/// Takes an SEA of EL2's own; `iss` with whether it is that of an abort.
pub(crate) fn take_own_abort(
    ctx: &NmiCtx,
    pe: &'static PeBlock,
    (iss, sync): (Iss, bool),
    pc: u64,
    interrupted: Interrupted,
) {
    let notification = Notification {
        iss: syndrome(u64::from(iss.get())),
        sync,
        pc,
        interrupted,
        nesting: 1,
        pulled: false,
        lost: Lost::Nothing,
    };
    take(ctx, pe, &notification);
}

/// What is interrupted where nothing but the guest of the frame is at stake.
pub(crate) fn guest_on_its_way(pe: &PeBlock) -> Interrupted {
    // SAFETY: nobody changes the guest's frame while it is being loaded from, or while EL2 waits for
    // that guest.
    guest(pe, unsafe { (*pe.head.guest.get()).spsr })
}

/// Says whether a record of this PE's source waits to be taken.
pub(crate) fn has_record(pe: &PeBlock) -> bool {
    source_of(pe).is_some_and(|source| !record::is_acknowledged(source))
}

pub(crate) fn source_of(pe: &PeBlock) -> Option<&'static Source> {
    system::get()?.sources.get(pe.id.index())?.as_ref()
}

/// Takes a record, decides, publishes, acknowledges, acts on what cannot wait.
fn take(ctx: &NmiCtx, pe: &'static PeBlock, notification: &Notification) {
    pe.sei_count
        .fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    let Some(system) = system::get() else {
        crash::reset_from_nmi(ctx, notification.iss.map_or(0, Iss::get), pe.id);
    };
    if notification.lost == Lost::Guest {
        pe.request_from_nmi(ctx, attention::CONTEXT_LOST);
    }
    // Looked at before the taking begins: a record that comes from then on is that of an SEI that
    // is put off, and is left for it.
    let source = source_of(pe).filter(|source| !record::is_acknowledged(source));
    if pe.begin_taking(ctx) {
        take_record(ctx, pe, (system, source), notification);
        pe.end_taking(ctx);
    } else {
        // It interrupted the taking of another one. Firmware that conforms does so in the last
        // instructions of that: it saw the acknowledgement, and its new record stands in the
        // block. The drain takes it, before any guest goes on; what the syndrome alone decides
        // cannot wait for that.
        let error = decide_alone(system, pe, notification);
        match error.evidence.syndrome_severity() {
            None | Some(Severity::Corrected | Severity::Restartable) => {}
            Some(_) => reset_if_due(ctx, system, pe, &error),
        }
        put_off(ctx, pe, notification);
    }
    pe.request_from_nmi(ctx, attention::RECOVERY);
}

/// Leaves an SEI to the drain, which takes it before any guest goes on.
fn put_off(_: &NmiCtx, pe: &PeBlock, notification: &Notification) {
    pe.put_off.note(Sei {
        iss: notification.iss.map_or(0, Iss::get),
        el2_pc: (notification.interrupted == Interrupted::Hypervisor).then_some(notification.pc),
    });
}

fn reset_if_due(ctx: &NmiCtx, system: &System, pe: &'static PeBlock, error: &PendingError) {
    if error.decision.context == ContextVerdict::ResetMachine {
        crash::fatal_error(ctx, system, pe, error);
    }
}

/// `source`: the one of this PE, if a record stood there when the SEI came.
fn take_record(
    ctx: &NmiCtx,
    pe: &'static PeBlock,
    (system, source): (&System, Option<&Source>),
    notification: &Notification,
) {
    let reading = source.map_or(Reading::None, |source| record::read(system, source));
    let (outstanding, summary) = match &reading {
        // What stands there after all is taken in its turn.
        Reading::None | Reading::Torn => (false, None),
        Reading::Record(summary) => (true, summary.as_ref()),
    };
    // By reference from here on: each copy of it costs an SEI fifty instructions.
    let error = &decide(system, pe, notification, summary);
    reset_if_due(ctx, system, pe, error);
    if cfg!(feature = "seed-ack-before-publish")
        && let Some(source) = source
    {
        record::acknowledge(system, source);
    }
    let stamp = sysreg::cntpct_el0();
    let published = pe.queue.publish(stamp, notification.nesting, error).is_ok();
    match source {
        // A damaged record is acknowledged like a good one: nobody could make more of it.
        Some(source) if published && outstanding => record::acknowledge(system, source),
        _ => {}
    }
    if !published {
        // The firmware keeps the record, because it is not acknowledged; the drain comes back
        // for it. `attention` keeps the guest out until then.
        put_off(ctx, pe, notification);
    }
}

/// Decides without a record.
#[cold]
#[inline(never)]
fn decide_alone(system: &System, pe: &PeBlock, notification: &Notification) -> PendingError {
    decide(system, pe, notification, None)
}

/// Decides on one error. Inline, so that the answer is built where it stays.
#[inline(always)]
fn decide(
    system: &System,
    pe: &PeBlock,
    notification: &Notification,
    summary: Option<&record::Read>,
) -> PendingError {
    let record = summary.and_then(|summary| {
        let severity = CperSeverity::from_raw(summary.severity?.raw());
        Some(RecordSummary {
            severity,
            pa: summary.pa,
        })
    });
    let owner = record
        .and_then(|record| record.pa)
        .map(|pa| owners::owner_of(&system.owners, pa));
    let recorded = summary.and_then(|summary| summary.iss).and_then(Iss::new);
    let iss = match notification.iss {
        Some(iss) if notification.pulled => pulled_syndrome(iss, recorded),
        iss => iss,
    };
    let mut error = PendingError {
        evidence: Evidence {
            iss,
            sync: notification.sync,
            record,
            interrupted: notification.interrupted,
            owner,
            // Counted in task context, where corrected errors are decided on once more.
            corrected_on_page: 0,
        },
        decision: Decision::RESET,
        pc: notification.pc,
        id: summary.and_then(|summary| summary.id),
        vcpu: pe.resident(),
    };
    error.decision = triage(&error.evidence, &system.policies);
    if notification.lost != Lost::Nothing {
        count_loss(&mut error.decision, notification, system);
    }
    error
}

/// Decides anew on an error that also destroyed a context.
#[cold]
fn count_loss(decision: &mut Decision, notification: &Notification, system: &System) {
    *decision = match (notification.lost, notification.interrupted) {
        (Lost::Guest, Interrupted::Guest { vm, .. }) => {
            decision.with_lost_guest(vm, &system.policies)
        }
        _ => decision.with_lost_hypervisor(),
    };
}
