// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a PE does when it cannot simply go back to its guest.

use crate::partition::{Partition, state};
use crate::pe::{PeBlock, Task, attention, work as doing};
use crate::virq::{self, Lrs};
use crate::{
    control, crash, deadlines, irq, lifecycle, lost, recovery, sei, system, unnotified, vserror,
};
use core::sync::atomic::Ordering;
use firebreak_arch::{cpu, gic, guest};
use firebreak_vm::VcpuPower;

/// First Rust function of a PE whose vectors and stacks stand: from here on it takes SEIs.
///
/// # Safety
///
/// Called by `boot.S` alone, once for each PE.
#[unsafe(no_mangle)]
unsafe extern "C" fn firebreak_ready(pe: &'static PeBlock) {
    let Some(system) = system::get() else { return };
    // SAFETY: the only code in task context on this PE.
    let mut task = unsafe { Task::enter(pe) };
    guest::configure_traps(&system.features);
    start_interrupts(&mut task, system);
    lifecycle::adopt(&mut task);
    guest::announce_ready(&system.features);
    cpu::unmask_serror();
}

fn start_interrupts(task: &mut Task, system: &system::System) {
    task.local.redistributor = system::find_redistributor(&system.gicr, task.pe.mpidr);
    if let Some(redistributor) = task.local.redistributor {
        // A redistributor that never wakes has no interrupts to give: the guest is then silent,
        // and its watchdog says so.
        let _ = redistributor.start();
        redistributor.set_private(firebreak_arch::timer::INTID, true);
        redistributor.set_private(system.maintenance_intid, true);
    }
    gic::start_cpu_interface();
}

/// Works off what was asked of this PE until its guest may be entered.
///
/// # Safety
///
/// Called by `vectors.S` alone, on the way to a guest.
#[unsafe(no_mangle)]
unsafe extern "C" fn firebreak_resolve(pe: &'static PeBlock) {
    loop {
        // SAFETY: a path of task context, on the PE that owns the block; the interrupts below
        // are handled when this `Task` is gone.
        let mut task = unsafe { Task::enter(pe) };
        work(&mut task);
        if task.local.running {
            return;
        }
        wait(pe);
    }
}

/// Waits for work. What an SEI interrupts here is a wait, until there is an interrupt to handle or
/// something was asked for; a wake-up for nothing (EL3 handled an interrupt of its own) is not.
fn wait(pe: &'static PeBlock) {
    loop {
        pe.set_work(doing::WAITING);
        cpu::idle(&pe.head);
        if irq::take_pending(pe) {
            while irq::take_pending(pe) {}
            break;
        }
        if pe.head.attention.load(Ordering::Acquire) != 0 || sei::is_pending(pe) {
            break;
        }
    }
    pe.set_work(doing::AT_WORK);
}

/// Takes each kind of work once.
// Out of line: without the loop around it, it needs half of the registers.
#[inline(never)]
fn work(task: &mut Task) {
    crash::stop_if_failing(task.pe);
    let bits = task.pe.head.attention.swap(0, Ordering::AcqRel);
    sei::pull_deferred(task);
    recovery::drain(task);
    unnotified::take(task);
    if bits & OTHER_WORK != 0 {
        do_what_was_asked(task, bits);
    }
    if !runs_as_it_should(task) {
        follow_state(task);
    }
    if bits & (attention::ORDER | attention::STARTED) != 0 {
        control::obey(task, bits & attention::STARTED != 0);
    }
    vserror::settle(task);
}

/// What may be asked of a PE beside errors, orders and changes of state.
const OTHER_WORK: u64 =
    attention::CONTEXT_LOST | attention::INBOX | attention::VSERROR | attention::DEADLINES;

// Out of line, so that an error on its way to a guest does not wait for what it does not need.
#[inline(never)]
fn do_what_was_asked(task: &mut Task, bits: u64) {
    if bits & attention::CONTEXT_LOST != 0 {
        lost::stop(task);
    }
    if bits & attention::INBOX != 0
        && let Some(vcpu) = &mut task.local.vcpu
    {
        let effects = vcpu.vgic.drain_inbox(&mut Lrs);
        virq::carry_out(task, effects);
    }
    if bits & attention::VSERROR != 0
        && let Some(iss) = task.pe.take_requested_vserror()
    {
        vserror::raise(task, iss);
    }
    if bits & attention::DEADLINES != 0 {
        deadlines::adopt(task);
    }
}

/// Says whether this PE's vCPU runs, and is meant to.
fn runs_as_it_should(task: &Task) -> bool {
    task.local.running
        && task.vcpu().is_some_and(|(partition, index)| {
            partition.state() == state::RUNNING
                && power_of(partition, index) == VcpuPower::On.to_raw()
        })
}

/// The power state of a vCPU as its word stands; off for one that is not there.
fn power_of(partition: &Partition, index: u8) -> u8 {
    let vcpu = partition.vcpus.get(usize::from(index));
    vcpu.map_or(VcpuPower::Off.to_raw(), |vcpu| {
        vcpu.power.load(Ordering::Acquire)
    })
}

/// Brings this PE in line with the state of its partition and its vCPU.
#[inline(never)]
fn follow_state(task: &mut Task) {
    let Some((partition, index)) = task.vcpu() else {
        return;
    };
    match partition.state() {
        state::STOPPING => {
            lifecycle::park_for_stop(task);
            // Clearing and loading memory uses this PE's timer.
            deadlines::rearm(task);
        }
        state::STARTING if index == 0 => {
            lifecycle::start_again(task, partition);
            deadlines::rearm(task);
        }
        _ => {}
    }
    let power = VcpuPower::from_raw(power_of(partition, index));
    // Off, or already asked to start again: in both cases this life of the vCPU is over.
    if task.local.running && power != VcpuPower::On {
        lifecycle::park(task, false);
    }
    if !task.local.running && partition.state() == state::RUNNING {
        lifecycle::start_if_asked(task);
    }
}
