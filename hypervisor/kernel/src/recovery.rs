// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the SEI path decided and left to task context: reports, pages, partitions, injections.

use crate::partition::Partition;
use crate::pe::Task;
use crate::sync::Lock;
use crate::{console, reports, retire, sea, sei, system, telling, vserror};
use core::sync::atomic::Ordering;
use firebreak_abi::{VcpuId, VmId};
use firebreak_arch::sysreg;
use firebreak_syndrome::{Iss, Severity};
use firebreak_triage::{
    ContextVerdict, Decision, Evidence, Interrupted, Owner, PageVerdict, Policy, Rule, decide,
};
use firebreak_vm::{CorrectedErrors, StopCause, VcpuPower};

/// Pages whose corrected errors are counted at a time.
const COUNTED_PAGES: usize = 64;
/// Corrected errors by page.
static HISTORY: Lock<CorrectedErrors<COUNTED_PAGES>> = Lock::new(CorrectedErrors::new());

/// An error as the SEI path leaves it in the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingError {
    /// What triage saw.
    pub(crate) evidence: Evidence,
    /// What triage answered.
    pub(crate) decision: Decision,
    /// Interrupted PC.
    pub(crate) pc: u64,
    /// The firmware's number of the error.
    pub(crate) id: Option<u64>,
    /// vCPU that lives on the PE.
    pub(crate) vcpu: Option<VcpuId>,
}

impl PendingError {
    /// What is known before anybody has looked at a record; `iss` is `None` without FEAT_RAS.
    #[inline(always)]
    pub(crate) fn new(
        vcpu: Option<VcpuId>,
        interrupted: Interrupted,
        iss: Option<Iss>,
        pc: u64,
    ) -> Self {
        Self {
            evidence: Evidence {
                iss,
                sync: false,
                record: None,
                interrupted,
                owner: None,
                // Counted in task context, where corrected errors are decided on once more.
                corrected_on_page: 0,
            },
            decision: Decision::RESET,
            pc,
            id: None,
            vcpu,
        }
    }
}

/// Works off the queue of this PE. A record leaves it when its verdict has been carried out.
///
/// What did not fit was not acknowledged either, so the firmware still holds one record in its
/// block: it is taken now that there is room. Each round frees at least one slot.
///
/// What only has to be told can be told later: the guest goes on first ([`telling::later`]).
pub(crate) fn drain(task: &mut Task) {
    loop {
        while let Some(mut error) = task.pe.queue.hold(task.pe.id) {
            count_corrected(task, &mut error);
            let is_told = reports::admit(task, &error);
            if is_told && telling::can_wait(task, &error) {
                let context = error.decision.context;
                telling::later(task, error);
                if let ContextVerdict::Inject { iss, .. } = context {
                    vserror::raise(task, iss);
                }
            } else {
                tell_and_act(task, &error, is_told);
                error.finish();
            }
        }
        if task.pe.queue.take_overflow() {
            reports::overflow(task);
        }
        if !sei::take_refused(task) {
            return;
        }
    }
}

#[inline(never)]
fn tell_and_act(task: &mut Task, error: &PendingError, is_told: bool) {
    telling::flush(task);
    if is_told {
        telling::error(task, error);
    }
    act(task, error);
}

/// Counts a corrected error on its page, and decides on it with what the count says.
///
/// Here and not in the SEI path: the history is one for all PEs, behind a lock, and nothing about
/// a corrected error is urgent.
fn count_corrected(task: &Task, error: &mut PendingError) {
    let lost = error.decision.rule == Rule::ContextDestroyed;
    if !lost && error.decision.severity == Severity::Corrected {
        count_on_page(task, error);
    }
}

#[inline(never)]
fn count_on_page(task: &Task, error: &mut PendingError) {
    let (Some(system), Some((pa, owner))) = (system::get(), error.evidence.page()) else {
        return;
    };
    let window_s = u64::from(limits_of(system, owner).corrected_window_s);
    let window_ticks = sysreg::cntfrq_el0().saturating_mul(window_s);
    let now_ticks = sysreg::cntpct_el0();
    error.evidence.corrected_on_page = HISTORY.lock(&task.ctx).note(pa, now_ticks, window_ticks);
    decide(&error.evidence, &system.policies, &mut error.decision);
}

/// Whose limits count for memory of an owner: its partition's, or those that hold by default.
pub(crate) fn limits_of(system: &system::System, owner: Owner) -> &Policy {
    let policy = owner.vm().and_then(|vm| system.policies.get(vm.index()));
    policy.unwrap_or(&Policy::DEFAULT)
}

/// Words for severities, as events and boot error records carry them.
pub(crate) fn severity_name(severity: Severity) -> &'static str {
    severity.name()
}

/// Carries the verdict out.
fn act(task: &mut Task, error: &PendingError) {
    let decision = &error.decision;
    if let Some((vm, pa)) = decision.retires() {
        retire::page(task, vm, pa);
    }
    // Before anybody is stopped: who starts again must find what not to use.
    match decision.page {
        PageVerdict::GiveUp { owner, pa } => {
            let lost = decision.severity != Severity::Corrected;
            retire::give_up(task, owner, pa, lost);
        }
        PageVerdict::Log {
            owner: Owner::Unused,
        } if decision.severity != Severity::Corrected => {
            if let Some((pa, _)) = error.evidence.page() {
                retire::unused(task, pa);
            }
        }
        PageVerdict::StopOwner { vm, pa, .. } => {
            retire::give_up(task, Owner::Stage2Tables(vm), pa, true);
        }
        _ => {}
    }
    for (vm, again) in decision.stops().into_iter().flatten() {
        let Some(partition) = system::partition_of(vm) else {
            continue;
        };
        dump(task, partition, error);
        let cause = if again {
            StopCause::KilledForRestart
        } else {
            StopCause::Killed
        };
        partition.request_stop(task, cause);
    }
    if let ContextVerdict::Inject { iss, .. } = decision.context {
        if error.evidence.sync {
            sea::tell(task, error);
        } else {
            vserror::raise(task, iss);
        }
    }
    match decision.page {
        PageVerdict::Inject { vm, iss }
        | PageVerdict::Retire {
            vm,
            inject: Some(iss),
            ..
        } => {
            raise_vserror_in(task, vm, iss);
        }
        // The content is still good, and the guest is using it: taking the page now would turn a
        // corrected error into an abort. It is left out when the partition next starts.
        PageVerdict::RetireEarly { vm, pa, inject } => {
            retire::page_at_next_start(task, vm, pa);
            if let Some(iss) = inject {
                raise_vserror_in(task, vm, iss);
            }
        }
        PageVerdict::None
        | PageVerdict::Log { .. }
        | PageVerdict::Retire { .. }
        | PageVerdict::RetireShared { .. }
        | PageVerdict::Kill { .. }
        | PageVerdict::Restart { .. }
        | PageVerdict::StopOwner { .. }
        | PageVerdict::GiveUp { .. } => {}
    }
}

/// Raises a virtual SError in a partition that may live elsewhere: on its first vCPU that is on,
/// unless one of its vCPUs runs here.
fn raise_vserror_in(task: &mut Task, vm: VmId, iss: Iss) {
    if task.local.running && task.vcpu().is_some_and(|(partition, _)| partition.id == vm) {
        vserror::raise(task, iss);
        return;
    }
    let Some(partition) = system::partition_of(vm) else {
        return;
    };
    let on = VcpuPower::On.to_raw();
    let awake = partition
        .vcpus
        .iter()
        .zip(&partition.pes)
        .find(|(vcpu, _)| vcpu.power.load(Ordering::Acquire) == on);
    match awake {
        Some((_, pe)) => pe.request_vserror(task, iss),
        None => {
            vserror::cancel_unraised(task, partition, 0, iss);
        }
    }
}

/// Prints what is known of a partition that is about to die.
fn dump(task: &Task, partition: &Partition, error: &PendingError) {
    let name = partition.name();
    console::say(
        &task.ctx,
        format_args!(
            "{name}: stopped by {}: {}",
            severity_name(error.decision.severity),
            error.decision.rule
        ),
    );
    let mut events = heapless::String::<256>::new();
    console::last_events(&task.ctx, |ticks, event| {
        let _ = core::fmt::Write::write_fmt(&mut events, format_args!(" {event}@{ticks}"));
    });
    console::say(&task.ctx, format_args!("{name}: last events:{events}"));
    if task.vcpu().is_none_or(|(own, _)| own.id != partition.id) {
        return;
    }
    let frame = &task.frame;
    console::say(
        &task.ctx,
        format_args!(
            "{name}: pc {:#018x} pstate {:#010x} esr_el2 {:#010x} far_el2 {:#018x} hpfar_el2 {:#x}",
            frame.elr, frame.spsr, frame.esr, frame.far, frame.hpfar
        ),
    );
    console::say(
        &task.ctx,
        format_args!(
            "{name}: esr_el1 {:#010x} elr_el1 {:#018x} far_el1 {:#018x} sctlr_el1 {:#x} vbar_el1 {:#018x}",
            sysreg::esr_el1(),
            sysreg::elr_el1(),
            sysreg::far_el1(),
            sysreg::sctlr_el1(),
            sysreg::vbar_el1()
        ),
    );
    for (row, registers) in frame.x.chunks(4).enumerate() {
        let mut line = heapless::String::<256>::new();
        for (column, value) in registers.iter().enumerate() {
            let _ = core::fmt::Write::write_fmt(
                &mut line,
                format_args!("x{:<2} {value:#018x} ", 4 * row + column),
            );
        }
        console::say(&task.ctx, format_args!("{name}: {}", line.trim_end()));
    }
}
