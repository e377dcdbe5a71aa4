// SPDX-License-Identifier: MIT OR Apache-2.0
//! The SEI path: takes the firmware's record, decides, publishes, acknowledges.
//!
//! It may have interrupted any instruction of EL2 on this PE. Hence no lock, no allocation, no
//! formatting, no loop without a constant bound; it writes atomics of its own PE, the recovery
//! queue, and the two words of the firmware's page that are EL2's to write. [`NmiCtx`] keeps the
//! rest out at compile time.

use crate::pe::{PeBlock, Task, attention};
use crate::record::{self, ErrorSource, read_word, take_word};
use crate::recovery::PendingError;
use crate::system::{self, System};
use crate::{crash, owners};
use firebreak_abi::{Pa, VcpuId, VmId};
use firebreak_arch::frame::{LAST_LEVEL, LOST_SYNDROME};
use firebreak_arch::{Frame, NmiCtx, SeiLevel, sysreg, windows};
use firebreak_ring::Sei;
use firebreak_syndrome::{Iss, Severity, pulled_syndrome};
use firebreak_triage::{ContextVerdict, GuestEl, Interrupted, RecordSummary, decide};

mod barge_in;

/// SPSR_EL2.M: the exception level that was interrupted.
const SPSR_AARCH32: u64 = 1 << 4;
const SPSR_EL_SHIFT: u32 = 2;

/// How an error came, beside what is in the error itself.
#[derive(Clone, Copy)]
struct How {
    /// Nesting level for the queue.
    nesting: u8,
    /// No ESR came with it: the record's own syndrome is better than the syndrome word, which is
    /// that of the last deferred record.
    pulled: bool,
    /// What the SEI itself destroyed.
    lost: Lost,
}

impl How {
    /// As the contract wants it.
    const PLAIN: Self = Self {
        nesting: 0,
        pulled: false,
        lost: Lost::Nothing,
    };
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
    let system = system_or_reset(&ctx, pe, esr);
    let vcpu = pe.resident();
    let iss = syndrome(pe, esr);
    let mut error = PendingError::new(vcpu, guest(vcpu, spsr), iss, elr);
    let how = How {
        pulled: esr == LOST_SYNDROME,
        ..How::PLAIN
    };
    take(&ctx, pe, system, &mut error, how);
}

/// Before there is a system nobody can deal with an error.
fn system_or_reset(ctx: &NmiCtx, pe: &PeBlock, esr: u64) -> &'static System {
    match system::get() {
        Some(system) => system,
        None => crash::reset_from_nmi(ctx, Iss::from_esr(esr).get(), pe.id),
    }
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
    let system = system_or_reset(&ctx, pe, level.found_esr);
    let place = barge_in::settle(pe, level);
    let iss = syndrome(pe, level.found_esr);
    let mut error = PendingError::new(pe.resident(), place.interrupted, iss, place.pc);
    let how = How {
        nesting: level.level as u8,
        pulled: level.found_esr == LOST_SYNDROME,
        lost: place.lost,
    };
    take(&ctx, pe, system, &mut error, how);
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

/// Returns the syndrome of an exception on this PE; `None` without FEAT_RAS.
pub(crate) fn syndrome(pe: &PeBlock, esr: u64) -> Option<Iss> {
    pe.ras.then(|| Iss::from_esr(esr))
}

fn guest(resident: Option<VcpuId>, spsr: u64) -> Interrupted {
    let el1 = spsr & SPSR_AARCH32 == 0 && spsr >> SPSR_EL_SHIFT & 3 == 1;
    let el = if el1 { GuestEl::El1 } else { GuestEl::El0 };
    if cfg!(feature = "seed-wrong-partition") {
        let vm = VmId(resident.map_or(0, |vcpu| vcpu.vm.0 ^ 1));
        return Interrupted::Guest { vm, el };
    }
    match resident {
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
    let raw = task
        .pe
        .source
        .map_or(0, |source| read_word(source.words.syndrome));
    take_in_task(task, syndrome(task.pe, raw & u64::from(Iss::MASK)));
}

/// Takes one that could not be taken when it came: its record stands unacknowledged in the block,
/// if it had one. Says whether there was one.
pub(crate) fn take_refused(task: &mut Task) -> bool {
    let Some(Sei { iss, el2_pc }) = task.pe.put_off.take() else {
        return false;
    };
    take_late(task, syndrome(task.pe, u64::from(iss)), el2_pc);
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
    let how = How {
        pulled: true,
        ..How::PLAIN
    };
    let mut error = PendingError::new(task.pe.resident(), interrupted, iss, pc);
    let system = system_or_reset(&ctx, task.pe, iss.map_or(0, |iss| u64::from(iss.get())));
    take(&ctx, task.pe, system, &mut error, how);
}

/// Takes an SEA of the guest, in task context. Says whether there was a record to take.
pub(crate) fn take_abort(task: &mut Task) -> bool {
    if !has_record(task.pe) {
        return false;
    }
    // SAFETY: as in `take_in_task`: the firmware holds back every other error of this PE until
    // this one's record is acknowledged.
    let ctx = unsafe { NmiCtx::new() };
    let Frame { esr, elr, spsr, .. } = *task.frame;
    let system = system_or_reset(&ctx, task.pe, esr);
    let vcpu = task.pe.resident();
    let iss = syndrome(task.pe, esr);
    let mut error = PendingError::new(vcpu, guest(vcpu, spsr), iss, elr);
    error.evidence.sync = true;
    take(&ctx, task.pe, system, &mut error, How::PLAIN);
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
    let esr = u64::from(iss.get());
    let system = system_or_reset(ctx, pe, esr);
    let iss = syndrome(pe, esr);
    let mut error = PendingError::new(pe.resident(), interrupted, iss, pc);
    error.evidence.sync = sync;
    let how = How {
        nesting: 1,
        ..How::PLAIN
    };
    take(ctx, pe, system, &mut error, how);
}

/// What is interrupted where nothing but the guest of the frame is at stake.
pub(crate) fn guest_on_its_way(pe: &PeBlock) -> Interrupted {
    // SAFETY: nobody changes the guest's frame while it is being loaded from, or while EL2 waits for
    // that guest.
    guest(pe.resident(), unsafe { (*pe.head.guest.get()).spsr })
}

/// Says whether a record of this PE's source waits to be taken.
pub(crate) fn has_record(pe: &PeBlock) -> bool {
    let source = pe.source.as_ref();
    source.is_some_and(|source| !record::is_acknowledged(source))
}

/// Takes a record, decides, publishes, acknowledges, acts on what cannot wait.
fn take(ctx: &NmiCtx, pe: &'static PeBlock, system: &System, error: &mut PendingError, how: How) {
    pe.sei_count
        .fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    if how.lost == Lost::Guest {
        pe.request_from_nmi(ctx, attention::CONTEXT_LOST);
    }
    // Looked at before the taking begins: a record that comes from then on is that of an SEI that
    // is put off, and is left for it.
    let source = pe.source.as_ref();
    let source = source.filter(|source| !record::is_acknowledged(source));
    if pe.begin_taking(ctx) {
        take_record(ctx, pe, (system, source), error, how);
        pe.end_taking(ctx);
    } else {
        take_syndrome(ctx, pe, system, error, how);
    }
    pe.request_from_nmi(ctx, attention::RECOVERY);
}

/// It interrupted the taking of another one. Firmware that conforms does so in the last
/// instructions of that: it saw the acknowledgement, and its new record stands in the block. The
/// drain takes it, before any guest goes on; what the syndrome alone decides cannot wait for that.
#[cold]
#[inline(never)]
fn take_syndrome(
    ctx: &NmiCtx,
    pe: &'static PeBlock,
    system: &System,
    error: &mut PendingError,
    how: How,
) {
    let given = error.evidence.iss;
    decide_error(system, error, how, None);
    match error.evidence.syndrome_severity() {
        None | Some(Severity::Corrected | Severity::Restartable) => {}
        Some(_) => reset_if_due(ctx, system, pe, error),
    }
    put_off(ctx, pe, given, error);
}

/// Leaves an SEI to the drain, which takes it before any guest goes on. `iss` as it came.
#[cold]
fn put_off(_: &NmiCtx, pe: &PeBlock, iss: Option<Iss>, error: &PendingError) {
    let at_work = error.evidence.interrupted == Interrupted::Hypervisor;
    pe.put_off.note(Sei {
        iss: iss.map_or(0, Iss::get),
        el2_pc: at_work.then_some(error.pc),
    });
}

fn reset_if_due(ctx: &NmiCtx, system: &System, pe: &'static PeBlock, error: &PendingError) {
    if error.decision.context == ContextVerdict::ResetMachine {
        crash::fatal_error(ctx, system, pe, error);
    }
}

/// `source`: the one of this PE, if a record stood there when the SEI came.
#[inline(always)]
fn take_record(
    ctx: &NmiCtx,
    pe: &'static PeBlock,
    (system, source): (&System, Option<&ErrorSource>),
    error: &mut PendingError,
    how: How,
) {
    let given = error.evidence.iss;
    let mut recorded = None;
    // What is to be acknowledged, and its block. What stands there after all, where nothing did or
    // the firmware wrote again, is taken in its turn.
    let mut outstanding = None;
    if let Some(source) = source
        && let Some((read, block)) = record::read(source)
    {
        error.evidence.record = read.record;
        error.id = read.id;
        recorded = read.iss;
        outstanding = Some((source, block));
    }
    decide_error(system, error, how, recorded);
    reset_if_due(ctx, system, pe, error);
    if cfg!(feature = "seed-ack-before-publish")
        && let Some((source, block)) = outstanding
    {
        record::acknowledge(source, block);
    }
    let stamp = sysreg::cntpct_el0();
    // By reference: each copy of it costs an SEI thirty instructions.
    let error: &PendingError = error;
    if pe.queue.publish(stamp, how.nesting, error).is_err() {
        // The firmware keeps the record, because it is not acknowledged; the drain comes back
        // for it. `attention` keeps the guest out until then.
        return put_off(ctx, pe, given, error);
    }
    // A damaged record is acknowledged like a good one: nobody could make more of it.
    if let Some((source, block)) = outstanding {
        record::acknowledge(source, block);
    }
}

/// Decides on one error; `recorded` is the syndrome in its record.
#[inline(always)]
fn decide_error(system: &System, error: &mut PendingError, how: How, recorded: Option<u32>) {
    let evidence = &mut error.evidence;
    if how.pulled
        && let Some(iss) = evidence.iss
    {
        evidence.iss = pulled_syndrome(iss, recorded.and_then(Iss::new));
    }
    if let Some(RecordSummary { pa: Some(pa), .. }) = evidence.record {
        evidence.owner = Some(owners::owner_of(system.owners, pa));
    }
    decide(evidence, &system.policies, &mut error.decision);
    if how.lost != Lost::Nothing {
        count_loss(error, how.lost, system);
    }
}

/// Decides anew on an error that also destroyed a context.
#[cold]
fn count_loss(error: &mut PendingError, lost: Lost, system: &System) {
    let decision = &mut error.decision;
    *decision = match (lost, error.evidence.interrupted) {
        (Lost::Guest, Interrupted::Guest { vm, .. }) => {
            decision.with_lost_guest(vm, &system.policies)
        }
        _ => decision.with_lost_hypervisor(),
    };
}
