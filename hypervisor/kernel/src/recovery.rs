// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the SEI path decided and left to task context: reports, pages, partitions, injections.

use crate::partition::Partition;
use crate::pe::Task;
use crate::{console, memory, sea, sei, system, vserror};
use core::sync::atomic::{AtomicU64, Ordering};
use firebreak_abi::{Pa, VcpuId, VmId};
use firebreak_arch::{mmu, sysreg};
use firebreak_paging::PagingError;
use firebreak_syndrome::{Iss, Severity};
use firebreak_triage::{ContextVerdict, Decision, Evidence, GuestEl, Interrupted, PageVerdict};
use firebreak_vm::{Owned, StopCause, VcpuPower};
use firebreak_wire::{ErrorEvent, Event, Level};

/// Errors are numbered over the whole machine.
static NEXT_ERROR: AtomicU64 = AtomicU64::new(1);

/// An error as the SEI path leaves it in the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingError {
    /// What triage saw.
    pub(crate) evidence: Evidence,
    /// Owner of the address, with the address as the owner sees it.
    pub(crate) owned: Option<Owned>,
    /// What triage answered.
    pub(crate) decision: Decision,
    /// Interrupted PC.
    pub(crate) pc: u64,
    /// The firmware's number of the error.
    pub(crate) id: Option<u64>,
    /// vCPU that lives on the PE.
    pub(crate) vcpu: Option<VcpuId>,
}

/// Works off the queue of this PE. A record leaves it when its verdict has been carried out.
///
/// What did not fit was not acknowledged either, so the firmware still holds one record in its
/// block: it is taken now that there is room. Each round frees at least one slot.
pub(crate) fn drain(task: &mut Task) {
    loop {
        while let Some(entry) = task.pe.queue.claim(task.pe.id) {
            let error = entry.value;
            report(task, &error);
            act(task, &error);
            task.pe.queue.finish(entry.position, task.pe.id);
        }
        if !task.pe.queue.take_overflow() {
            return;
        }
        let event = Event::Suppressed {
            what: "error records that the queue refused",
            count: 1,
        };
        console::emit(&task.ctx, &event);
        sei::take_refused(task);
    }
}

/// Tells the host.
fn report(task: &Task, error: &PendingError) {
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
        severity: severity_name(error.decision.severity),
        cper: record.map_or("none", |record| record.severity.name()),
        pa: record.and_then(|record| record.pa).map(Pa::get),
        owner: error.owned.map_or("none", |owned| {
            owned
                .vm()
                .and_then(system::partition_of)
                .map_or(owned.as_str(), Partition::name)
        }),
        page_vm: error.owned.and_then(Owned::vm).map(|vm| vm.0),
        verdict: error.decision.verdict_name(),
        rule: error.decision.rule.name(),
    };
    console::emit(&task.ctx, &Event::Error(event));
}

/// Words for severities, as events and boot error records carry them.
pub(crate) fn severity_name(severity: Severity) -> &'static str {
    severity.name()
}

/// Carries the verdict out.
fn act(task: &mut Task, error: &PendingError) {
    let decision = &error.decision;
    if let Some((vm, pa)) = decision.retires() {
        retire(task, vm, pa);
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
            retire_at_next_start(task, vm, pa);
            if let Some(iss) = inject {
                raise_vserror_in(task, vm, iss);
            }
        }
        PageVerdict::None
        | PageVerdict::Log { .. }
        | PageVerdict::Retire { .. }
        | PageVerdict::RetireShared { .. }
        | PageVerdict::Kill { .. }
        | PageVerdict::Restart { .. } => {}
    }
}

/// Takes a page away from its partition, for good.
fn retire(task: &Task, vm: VmId, pa: Pa) {
    let Some(partition) = system::partition_of(vm) else {
        return;
    };
    let page = pa.page();
    let Some(ipa) = partition.ram_ipa(page) else {
        return;
    };
    let recorded = partition.retired.lock(&task.ctx).insert(ipa, page);
    match recorded {
        // Known already, but perhaps only to be left out at the next start: it goes now.
        Ok(true | false) => {}
        Err(_) => {
            console::say(
                &task.ctx,
                format_args!(
                    "{}: too many retired pages; it is stopped",
                    partition.name()
                ),
            );
            return partition.request_stop(task, StopCause::Killed);
        }
    }
    let stage2 = partition.stage2.lock(&task.ctx);
    let plan = stage2.unmap_page(&mut *memory::POOL.lock(&task.ctx), ipa);
    match plan {
        Ok(plan) => {
            // SAFETY: made just now for this partition's tables, whose lock is held.
            unsafe { mmu::carry_out(&plan, partition.vttbr) };
            let event = Event::Retired {
                vm: vm.0,
                ipa: ipa.get(),
                pa: page.get(),
            };
            console::emit(&task.ctx, &event);
        }
        Err(PagingError::NotMapped { .. }) => {}
        Err(error) => {
            drop(stage2);
            console::say(
                &task.ctx,
                format_args!(
                    "{}: cannot retire a page: {error}; it is stopped",
                    partition.name()
                ),
            );
            partition.request_stop(task, StopCause::Killed);
        }
    }
}

/// Leaves a page out of its partition from the next start on.
fn retire_at_next_start(task: &Task, vm: VmId, pa: Pa) {
    let Some(partition) = system::partition_of(vm) else {
        return;
    };
    if let Some(ipa) = partition.ram_ipa(pa.page()) {
        // A full set only means that this page, still good, is used again.
        let _ = partition.retired.lock(&task.ctx).insert(ipa, pa.page());
    }
}

/// Raises a virtual SError in a partition that may live elsewhere: on its first vCPU, unless one
/// of its vCPUs lives here.
fn raise_vserror_in(task: &mut Task, vm: VmId, iss: Iss) {
    if task.vcpu().is_some_and(|(partition, _)| partition.id == vm) {
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
