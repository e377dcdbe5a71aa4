// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a PE has promised to do later: one timer, few deadlines.

use crate::pe::{Task, attention};
use crate::{irq, lifecycle, mmio, reports, telling, unnotified, virq, vserror};
use firebreak_abi::guest_map;
use firebreak_arch::{sysreg, timer};
use firebreak_vdev::{IrqLevel, Signal};
use firebreak_vm::StopCause;
use firebreak_wire::Event;

/// Sets the timer for the earliest deadline of this PE.
pub(crate) fn rearm(task: &Task) {
    let local = &task.local;
    let injection = local
        .injection
        .and_then(|injection| injection.poll_deadline);
    let waiting = local.unreported.as_ref().map(|waiting| waiting.deadline);
    // An array of them would be copied; this is compared in registers.
    let earliest = or_never(local.console_deadline)
        .min(or_never(local.watchdog_deadline))
        .min(or_never(local.alarm_deadline))
        .min(or_never(local.restart_deadline))
        .min(or_never(local.input_deadline))
        .min(or_never(local.reports.deadline))
        .min(or_never(local.record_deadline))
        .min(or_never(local.order_deadline))
        .min(or_never(injection))
        .min(or_never(waiting));
    match earliest {
        NEVER => timer::disarm(),
        deadline => timer::arm(deadline),
    }
}

/// A time of CNTPCT that does not come.
const NEVER: u64 = u64::MAX;

fn or_never(deadline: Option<u64>) -> u64 {
    deadline.unwrap_or(NEVER)
}

/// Does what is due.
pub(crate) fn expire(task: &mut Task) {
    let now = sysreg::cntpct_el0();
    let due = |deadline: Option<u64>| deadline.is_some_and(|ticks| ticks <= now);
    telling::flush(task);
    if due(task.local.console_deadline) {
        task.local.console_deadline = None;
        mmio::console_due(task);
    }
    if due(task.local.watchdog_deadline) {
        watchdog(task, now);
    }
    if due(task.local.alarm_deadline) {
        alarm(task);
    }
    if due(task.local.order_deadline) {
        task.local.order_deadline = None;
        task.pe.request(task, attention::ORDER);
    }
    if due(task.local.restart_deadline) {
        task.local.restart_deadline = None;
        lifecycle::come_back(task, now);
    }
    if due(task.local.input_deadline) {
        irq::input(task);
    }
    if due(task.local.reports.deadline) {
        reports::tell(task);
    }
    unnotified::look(task, now);
    vserror::watch(task);
    rearm(task);
}

fn alarm(task: &mut Task) {
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    task.local.alarm_deadline = None;
    let mut devices = partition.devices.lock(&task.ctx);
    let change = devices.rtc.advance(mmio::seconds());
    if let Some(level) = change {
        virq::set_level(task, guest_map::RTC_INTID, level == IrqLevel::Raised);
    }
}

/// Takes over the deadlines of the partition's devices: the vCPU that wrote them last went off.
pub(crate) fn adopt(task: &mut Task) {
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    let (watchdog, alarm_s) = {
        let devices = partition.devices.lock(&task.ctx);
        (
            devices.watchdog.next_deadline_ticks(),
            devices.rtc.next_alarm_s(),
        )
    };
    // Its guest may be waiting for room on the console.
    task.local.console_deadline = Some(sysreg::cntpct_el0());
    task.local.watchdog_deadline = watchdog;
    task.local.alarm_deadline = alarm_s.map(|at_s| at_s.saturating_mul(sysreg::cntfrq_el0()));
    rearm(task);
}

fn watchdog(task: &mut Task, now: u64) {
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    let mut devices = partition.devices.lock(&task.ctx);
    let signal = devices.watchdog.expired(now);
    task.local.watchdog_deadline = devices.watchdog.next_deadline_ticks();
    if signal == Signal::Ws0 {
        virq::set_level(task, guest_map::WDT_INTID, true);
    }
    drop(devices);
    match signal {
        Signal::None | Signal::Ws0 => {}
        Signal::Ws1 => {
            let event = Event::Watchdog {
                vm: partition.id.0,
                name: partition.name(),
            };
            crate::console::emit(&task.ctx, &event);
            partition.request_stop(task, StopCause::Silence);
        }
    }
}
