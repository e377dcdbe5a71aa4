// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting, parking and restarting the vCPUs of a partition.
//!
//! Each step on a vCPU's registers is taken by the PE that owns it. What concerns the partition
//! as a whole is done by the PE whose vCPU parked last: nobody else can run in it then.

use crate::partition::{NO_ENTRY, Partition, state};
use crate::pe::{Task, Vcpu, attention};
use crate::virq::Lrs;
use crate::{
    console, control, deadlines, load, passthrough, retire, system, telling, unnotified, vserror,
};
use core::fmt::Write as _;
use core::sync::atomic::Ordering;
use firebreak_abi::guest_map;
use firebreak_arch::{gic, guest, sysreg};
use firebreak_paging::PagingError;
use firebreak_vgic::VcpuGic;
use firebreak_vm::power::heir;
use firebreak_vm::{Next, StopCause, VcpuPower};
use firebreak_wire::Event;

/// Gives this PE the vCPU that the configuration put on it, if any.
pub(crate) fn adopt(task: &mut Task) {
    let Some(system) = system::get() else { return };
    for partition in system.partitions.iter().copied() {
        for (index, pe) in partition.pes.iter().enumerate() {
            if pe.id == task.pe.id {
                let index = index as u8;
                let vgic = VcpuGic::new(&partition.distributor, index);
                task.local.vcpu = Some(Vcpu {
                    partition,
                    index,
                    vgic,
                });
                task.pe.set_resident(partition.id, index);
            }
        }
    }
}

/// Starts the vCPU of this PE if somebody asked for it. Says whether it may be entered.
pub(crate) fn start_if_asked(task: &mut Task) -> bool {
    let (Some(system), Some((partition, index))) = (system::get(), task.vcpu()) else {
        return false;
    };
    let Some(shared) = partition.vcpus.get(usize::from(index)) else {
        return false;
    };
    if shared.power.load(Ordering::Acquire) != VcpuPower::OnPending.to_raw() {
        return false;
    }
    let entry = shared.entry.swap(NO_ENTRY, Ordering::AcqRel);
    if entry == NO_ENTRY {
        return false;
    }
    // What another PE asked for while the last life ended is not for this one.
    if let Some(iss) = task.pe.take_requested_vserror() {
        vserror::raise(task, iss);
    }
    guest::install(&system.features, &partition.identity(index, system.midr));
    guest::forget_translations();
    gic::reset_virtual_interface();
    *task.frame = firebreak_arch::Frame::default();
    task.frame.x[0] = shared.context.load(Ordering::Relaxed);
    task.frame.elr = entry;
    task.frame.spsr = guest::START_PSTATE;
    if let Some(redistributor) = task.local.redistributor {
        // A guest that enabled them before CPU_OFF does not enable them again.
        for intid in [guest_map::VTIMER_INTID, guest_map::PTIMER_INTID] {
            redistributor.set_private(intid, partition.distributor.is_enabled(index, intid));
        }
    }
    if let Some(vcpu) = &mut task.local.vcpu {
        let effects = vcpu.vgic.resume(&mut Lrs);
        crate::virq::carry_out(task, effects);
    }
    task.local.record_deadline = unnotified::first_look(task, partition.config.direct_aborts);
    deadlines::rearm(task);
    task.local.running = true;
    shared
        .power
        .store(VcpuPower::On.to_raw(), Ordering::Release);
    // An order may have waited for this.
    task.pe.request(task, attention::STARTED);
    true
}

/// Takes the vCPU off this PE: it turned itself off, or its partition stops.
pub(crate) fn park(task: &mut Task, stopping: bool) {
    let Some(system) = system::get() else { return };
    guest::quiesce();
    vserror::cancel(task);
    telling::flush(task);
    if let Some(redistributor) = task.local.redistributor {
        for intid in [guest_map::VTIMER_INTID, guest_map::PTIMER_INTID] {
            redistributor.set_private(intid, false);
        }
    }
    if let Some(vcpu) = &mut task.local.vcpu {
        if stopping {
            vcpu.vgic.reset(&mut Lrs);
        } else {
            let effects = vcpu.vgic.park(&mut Lrs);
            crate::virq::carry_out(task, effects);
        }
    }
    if let Some(redistributor) = task.local.redistributor {
        redistributor.clear_private();
    }
    guest::announce_ready(&system.features);
    task.local.running = false;
    task.local.console_deadline = None;
    task.local.watchdog_deadline = None;
    task.local.alarm_deadline = None;
    task.local.record_deadline = None;
    if task.local.order_deadline.take().is_some() {
        // Who waits for the guest to come by is told that it is off.
        task.pe.request(task, attention::ORDER);
    }
    deadlines::rearm(task);
    if !stopping {
        hand_over(task);
    }
}

/// A vCPU turned itself off: another one watches the devices' deadlines; if there is none, the
/// partition is over.
fn hand_over(task: &Task) {
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    let powers = partition.vcpus.iter();
    let powers = powers.map(|vcpu| VcpuPower::from_raw(vcpu.power.load(Ordering::Acquire)));
    match heir(powers).and_then(|index| partition.pes.get(index)) {
        Some(pe) => pe.request(task, attention::DEADLINES),
        None => partition.request_stop(task, StopCause::Off),
    }
}

/// Parks for a stop; the last vCPU to come carries it out.
pub(crate) fn park_for_stop(task: &mut Task) {
    let Some((partition, index)) = task.vcpu() else {
        return;
    };
    if partition.has_parked(index) {
        return;
    }
    park(task, true);
    if partition.note_parked(index) {
        finish_stop(task, partition);
    }
}

/// Everything that one PE does alone for a partition that has stopped.
fn finish_stop(task: &mut Task, partition: &'static Partition) {
    let cause = partition.cause();
    partition
        .console
        .lock(&task.ctx)
        .finish(&task.ctx, partition.name());
    passthrough::quiesce(task, partition);
    {
        // Under the lock, so that nobody raises a line between the devices' reset and the GIC's.
        let mut devices = partition.devices.lock(&task.ctx);
        let _ = devices.uart.reset();
        let _ = devices.rtc.reset();
        let _ = devices.watchdog.reset();
        devices.pvpanic.reset();
        partition.distributor.reset();
    }
    for shared in &partition.vcpus {
        shared
            .power
            .store(VcpuPower::Off.to_raw(), Ordering::Release);
        shared.entry.store(NO_ENTRY, Ordering::Release);
    }
    conclude(task, partition, cause);
}

/// Decides what comes after a stop, which everybody has parked for.
fn conclude(task: &mut Task, partition: &'static Partition, cause: StopCause) {
    let (vm, name) = (partition.id.0, partition.name());
    if matches!(cause, StopCause::Killed | StopCause::KilledForRestart) {
        console::emit(
            &task.ctx,
            &Event::Killed {
                vm,
                name,
                reason: cause.as_str(),
            },
        );
    }
    let count = partition.restarts.load(Ordering::Relaxed);
    match partition.config.restart.decide(cause, count) {
        Next::Restart => match partition.config.restart.delay_ms(cause, count) {
            0 => restart(task, partition, cause, count.saturating_add(1)),
            delay_ms => back_off(task, partition, cause, delay_ms),
        },
        Next::Stop(why) => {
            let mut reason = heapless::String::<256>::new();
            let _ = write!(reason, "{why}");
            stop(task, partition, &reason);
        }
    }
}

/// Leaves a partition down for a while, with a deadline on this PE.
fn back_off(task: &mut Task, partition: &'static Partition, cause: StopCause, delay_ms: u32) {
    let ticks = sysreg::cntfrq_el0().saturating_mul(u64::from(delay_ms)) / 1000;
    let at = sysreg::cntpct_el0().saturating_add(ticks);
    partition.restart_at.store(at, Ordering::Release);
    task.local.restart_deadline = Some(at);
    deadlines::rearm(task);
    let mut reason = heapless::String::<64>::new();
    let _ = write!(reason, "{}, starts again in {delay_ms} ms", cause.as_str());
    control::refuse_orders(task, partition);
    let event = Event::Stopped {
        vm: partition.id.0,
        name: partition.name(),
        reason: &reason,
    };
    console::emit(&task.ctx, &event);
    // Last: from here on another PE may start it.
    if let Err(outranking) = partition.wait_for_restart(cause) {
        task.local.restart_deadline = None;
        conclude(task, partition, outranking);
    }
}

/// Starts the partition of this PE again, if it still waits and its time has come. A deadline of
/// a wait that somebody cut short may be left over.
#[cold]
pub(crate) fn come_back(task: &mut Task, now: u64) {
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    if partition.restart_at.load(Ordering::Acquire) > now {
        return;
    }
    // As in a stop: nobody else touches it.
    if let Some(cause) = partition.end_wait() {
        let count = partition.restarts.load(Ordering::Relaxed);
        restart(task, partition, cause, count.saturating_add(1));
    }
}

/// Ends the wait of a back-off by a stop; says whether there was one.
pub(crate) fn stop_waiting(task: &Task, partition: &Partition) -> bool {
    let waited = partition.end_wait().is_some();
    if waited {
        stop(task, partition, "asked to stop");
    }
    waited
}

/// Leaves a partition down that is to be started by a command alone.
pub(crate) fn keep_down(task: &Task, partition: &Partition) {
    stop(task, partition, "not started at boot: autostart = false");
}

fn stop(task: &Task, partition: &Partition, reason: &str) {
    stay(task, partition, state::STOPPED, reason);
}

fn stay(task: &Task, partition: &Partition, state: u8, reason: &str) {
    partition.set_state(state);
    control::refuse_orders(task, partition);
    let event = Event::Stopped {
        vm: partition.id.0,
        name: partition.name(),
        reason,
    };
    console::emit(&task.ctx, &event);
}

fn restart(task: &mut Task, partition: &'static Partition, cause: StopCause, count: u32) {
    let (vm, name) = (partition.id.0, partition.name());
    let count_event = u64::from(count);
    console::emit(
        &task.ctx,
        &Event::Restart {
            vm,
            name,
            reason: cause.as_str(),
            count: count_event,
        },
    );
    begin(task, partition, cause, count);
}

fn stop_for_tables(task: &Task, partition: &Partition, error: PagingError) {
    let mut reason = heapless::String::<96>::new();
    let _ = write!(reason, "its tables: {error}");
    stop(task, partition, &reason);
}

/// Starts a partition that stopped for `cause`, and that nobody else touches.
fn begin(task: &mut Task, partition: &'static Partition, cause: StopCause, count: u32) {
    if partition.worn_out.load(Ordering::Acquire) {
        return stop(task, partition, "it has more bad pages than are remembered");
    }
    if partition.loud.load(Ordering::Acquire) {
        let reason = "a device of it cannot be made quiet and may still write to its memory";
        return stop(task, partition, reason);
    }
    if let Err(error) = retire::renew(task, partition) {
        return stop_for_tables(task, partition, error);
    }
    if let Err(error) = load::scrub(task, partition) {
        return stop(task, partition, error.as_str());
    }
    if let Err(error) = retire::mend(task, partition) {
        return stop_for_tables(task, partition, error);
    }
    partition.restarts.store(count, Ordering::Relaxed);
    match partition.end_stop(cause) {
        Ok(()) => run(task, partition),
        Err(outranking) => conclude(task, partition, outranking),
    }
}

/// Loads a partition that may run from now on, on a PE of its own, and starts it.
fn run(task: &mut Task, partition: &'static Partition) {
    match load::load(task, partition) {
        Ok(start) => launch(task, partition, start),
        Err(error) => stop(task, partition, error.as_str()),
    }
}

/// Starts a stopped partition that somebody asked for; its restarts are counted anew.
pub(crate) fn start_again(task: &mut Task, partition: &'static Partition) {
    begin(task, partition, StopCause::AskedForRestart, 0);
}

/// Keeps a partition down that cannot run at all.
pub(crate) fn refuse(task: &Task, partition: &Partition, reason: &str) {
    stay(task, partition, state::UNUSABLE, reason);
}

/// Starts a partition for the first time. Its PEs may be others than this one, so it is held until it
/// is loaded: nobody is to take an error that comes up meanwhile for a stop to be carried out.
pub(crate) fn start_first(task: &mut Task, partition: &'static Partition) {
    partition.hold();
    let start = match load::load(task, partition) {
        Ok(start) => start,
        Err(error) => return stop(task, partition, error.as_str()),
    };
    match partition.end_hold() {
        Ok(()) => launch(task, partition, start),
        Err(cause) => {
            // Its own PEs carry that out.
            partition.set_state(state::RUNNING);
            partition.request_stop(task, cause);
        }
    }
}

/// Asks the first vCPU's PE to start a partition that is loaded.
fn launch(task: &mut Task, partition: &'static Partition, start: load::Start) {
    // Its new tables went bad before it ran: whoever found that could not stop what was stopped.
    if partition.tables_lost.load(Ordering::Acquire) {
        return partition.request_stop(task, StopCause::KilledForRestart);
    }
    let restarts = u64::from(partition.restarts.load(Ordering::Relaxed));
    let event = Event::Started {
        vm: partition.id.0,
        name: partition.name(),
        restarts,
    };
    console::emit(&task.ctx, &event);
    if let (Some(shared), Some(pe)) = (partition.vcpus.first(), partition.pes.first()) {
        shared
            .context
            .store(start.devicetree.get(), Ordering::Relaxed);
        shared
            .power
            .store(VcpuPower::OnPending.to_raw(), Ordering::Release);
        shared.entry.store(start.entry.get(), Ordering::Release);
        pe.request(task, attention::STATE);
    }
}
