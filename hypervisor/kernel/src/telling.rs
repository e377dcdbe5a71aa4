// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is told of an error, and when.
//!
//! An event is some thousand instructions of formatting, and as many bytes on a serial line. Where
//! the verdict lets the guest go on, the guest goes first, and the host is told a moment later.
//! Until then the record stays in the queue, claimed: who looks there after a crash finds it.

use crate::partition::Partition;
use crate::pe::{QUEUE_SLOTS, Task};
use crate::recovery::{self, PendingError};
use crate::vserror::Told;
use crate::{console, owners, system};
use core::sync::atomic::{AtomicU64, Ordering};
use firebreak_abi::Pa;
use firebreak_arch::{sysreg, timer};
use firebreak_ring::Held;
use firebreak_syndrome::{Iss, Severity};
use firebreak_triage::{ContextVerdict, Evidence, GuestEl, Interrupted, Owner, PageVerdict};
use firebreak_wire::{ErrorEvent, Event, Level};

/// How long the guest goes first: enough to begin its own handler, far too little to matter to
/// anybody who reads events.
const WAIT_US: u64 = 20;
const WAITS_PER_SECOND: u64 = 1_000_000 / WAIT_US;

/// Errors are numbered over the whole machine.
static NEXT_ERROR: AtomicU64 = AtomicU64::new(1);

/// An error that is dealt with, and what became of it.
pub(crate) struct Unreported {
    /// In its place in the queue.
    error: Held<'static, PendingError, QUEUE_SLOTS>,
    /// What the guest was given for it.
    injection: Option<Told>,
    /// When the host is told, in ticks of CNTPCT.
    pub(crate) deadline: u64,
}

/// Says whether the guest may go on before the host is told of an error.
pub(crate) fn can_wait(task: &Task, error: &PendingError) -> bool {
    let goes_on = matches!(
        error.decision.context,
        ContextVerdict::Resume | ContextVerdict::Inject { .. }
    );
    let is_told_only = match error.decision.page {
        PageVerdict::None => true,
        // Memory of nobody's is taken out of use.
        PageVerdict::Log { owner } => owner != Owner::Unused,
        _ => false,
    };
    let waits_alone = task.local.unreported.is_none();
    task.local.running && waits_alone && goes_on && is_told_only && !error.evidence.sync
}

/// Lets the host be told of an error later, with what comes of it.
pub(crate) fn later(task: &mut Task, error: Held<'static, PendingError, QUEUE_SLOTS>) {
    let wait_ticks = sysreg::cntfrq_el0() / WAITS_PER_SECOND;
    let deadline = sysreg::cntpct_el0().saturating_add(wait_ticks);
    task.local.unreported = Some(Unreported {
        error,
        injection: None,
        deadline,
    });
    timer::arm_no_later(deadline);
}

/// Tells the host what waits to be told.
pub(crate) fn flush(task: &mut Task) {
    if task.local.unreported.is_some() {
        tell_waiting(task);
    }
}

#[cold]
fn tell_waiting(task: &mut Task) {
    let Some(waiting) = task.local.unreported.take() else {
        return;
    };
    error(task, &waiting.error);
    if let Some(told) = &waiting.injection {
        console::emit(&task.ctx, &told.event());
    }
    waiting.error.finish();
}

/// Tells the host what became of an injection: behind the error that it was for.
#[inline]
pub(crate) fn injection(task: &mut Task, told: Told) {
    match &mut task.local.unreported {
        Some(waiting) if waiting.injection.is_none() => waiting.injection = Some(told),
        _ => injection_now(task, &told),
    }
}

#[cold]
#[inline(never)]
fn injection_now(task: &mut Task, told: &Told) {
    flush(task);
    console::emit(&task.ctx, &told.event());
}

/// Tells the host of an error.
pub(crate) fn error(task: &Task, error: &PendingError) {
    let Evidence {
        iss,
        sync,
        record,
        interrupted,
        ..
    } = error.evidence;
    let raw = u64::from(iss.map_or(0, Iss::get));
    if record.is_none() {
        console::emit(
            &task.ctx,
            &Event::Unclaimed {
                pe: task.pe.id.0,
                iss: raw,
            },
        );
    }
    let (vm, from) = match interrupted {
        Interrupted::Guest {
            vm,
            el: GuestEl::El0,
        } => (Some(vm), Level::El0),
        Interrupted::Guest {
            vm,
            el: GuestEl::El1,
        } => (Some(vm), Level::El1),
        Interrupted::Hypervisor | Interrupted::Idle => (None, Level::El2),
    };
    let owner = error.evidence.page().map(|(_, owner)| owner);
    let limit = match (system::get(), owner) {
        (Some(system), Some(owner)) => recovery::limits_of(system, owner).corrected_limit,
        _ => 0,
    };
    let event = ErrorEvent {
        id: error
            .id
            .unwrap_or_else(|| NEXT_ERROR.fetch_add(1, Ordering::Relaxed)),
        pe: task.pe.id.0,
        vm: vm.map(|vm| vm.0),
        name: vm.and_then(system::partition_of).map(Partition::name),
        from,
        pc: error.pc,
        iss: raw,
        sync,
        severity: recovery::severity_name(error.decision.severity),
        cper: record.map_or("none", |record| record.severity.name()),
        pa: record.and_then(|record| record.pa).map(Pa::get),
        owner: owner.map_or("none", owners::name),
        page_vm: owner.and_then(Owner::vm).map(|vm| vm.0),
        verdict: error.decision.verdict_name(),
        rule: error.decision.rule.name(),
        context: interrupted.name(),
        syndrome_severity: error.evidence.syndrome_severity().map(Severity::name),
        record_severity: error.evidence.record_severity().map(Severity::name),
        owner_class: owner.map_or("none", Owner::name),
        corrected_on_page: u64::from(error.evidence.corrected_on_page),
        corrected_limit: u64::from(limit),
    };
    console::emit(&task.ctx, &Event::Error(event));
}
