// SPDX-License-Identifier: MIT OR Apache-2.0
//! Physical interrupts.

use crate::pe::{PeBlock, Task, work};
use crate::virq::{self, Lrs};
use crate::{console, control, deadlines, passthrough, system, vserror};
use core::sync::atomic::Ordering;
use firebreak_abi::guest_map;
use firebreak_arch::{gic, sysreg, timer};
use firebreak_vdev::IrqLevel;
use firebreak_vgic::Effects;
use firebreak_wire::Input;

/// Typed bytes that one interrupt takes at most: the UART's FIFO twice.
const INPUT_BYTES_AT_ONCE: usize = 64;
/// When to come back for more, in us: the guest runs meanwhile.
const INPUT_AGAIN_US: u64 = 100;

/// First Rust function of an interrupt that arrived while a guest ran.
///
/// # Safety
///
/// Called by `vectors.S` alone, once for each interrupt, by way of [`PeHead::on_irq`].
///
/// [`PeHead::on_irq`]: firebreak_arch::PeHead
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn firebreak_irq(pe: &'static PeBlock) {
    take(pe, gic::acknowledge());
}

/// Takes one physical interrupt while no guest runs; says whether there was one.
pub(crate) fn take_pending(pe: &'static PeBlock) -> bool {
    pe.set_work(work::ASKING);
    let intid = gic::acknowledge();
    if intid >= gic::SPURIOUS_FIRST {
        return false;
    }
    pe.set_work(work::AT_WORK);
    take(pe, intid);
    true
}

/// Takes an interrupt that was acknowledged, or none.
#[inline]
pub(crate) fn take(pe: &'static PeBlock, intid: u32) {
    match intid {
        guest_map::VTIMER_INTID | guest_map::PTIMER_INTID => guest_timer(pe, intid),
        gic::SPURIOUS_FIRST.. => {}
        _ => own(pe, intid),
    }
}

/// Hands a timer interrupt on. It stays active until the guest's own end of interrupt, because
/// the list register has HW = 1.
#[inline]
fn guest_timer(pe: &'static PeBlock, intid: u32) {
    gic::drop_priority(intid);
    // SAFETY: the tail of a vector of task context, or of the idle loop, whose `Task` is not
    // used meanwhile.
    let task = unsafe { Task::enter(pe) };
    let Some(vcpu) = &mut task.local.vcpu else {
        return gic::deactivate(intid);
    };
    let effects = vcpu.vgic.inject_hw(&mut Lrs, intid, intid);
    if !effects.is_none() {
        rest(pe, effects);
    }
}

#[cold]
#[inline(never)]
fn rest(pe: &'static PeBlock, effects: Effects) {
    // SAFETY: the tail of `guest_timer`, which uses its own `Task` no more.
    let mut task = unsafe { Task::enter(pe) };
    virq::carry_out(&mut task, effects);
}

/// Handles what is EL2's own.
#[inline(never)]
fn own(pe: &'static PeBlock, intid: u32) {
    // SAFETY: as in `guest_timer`.
    let task = &mut unsafe { Task::enter(pe) };
    gic::drop_priority(intid);
    match intid {
        timer::INTID => deadlines::expire(task),
        // A kick says only that `attention` is not 0: the way back to the guest looks there.
        gic::KICK_INTID => gic::accept_kick(),
        _ => {
            if let Some(system) = system::get() {
                if intid == system.maintenance_intid {
                    maintenance(task);
                } else if Some(intid) == system.uart_intid {
                    input(task);
                } else if passthrough::take(task, intid) {
                    // Active until the guest ends it.
                    return vserror::watch(task);
                }
            }
        }
    }
    gic::deactivate(intid);
    vserror::watch(task);
}

fn maintenance(task: &mut Task) {
    task.pe.maintenance_count.fetch_add(1, Ordering::Relaxed);
    if let Some(vcpu) = &mut task.local.vcpu {
        let effects = vcpu.vgic.maintenance(&mut Lrs);
        virq::carry_out(task, effects);
    }
}

/// Gives typed bytes to the partition that has the focus, and obeys commands.
///
/// A PL011 tells of bytes when their number reaches a level: what is left behind by this bound
/// would never be told of again, so a deadline comes back for it.
pub(crate) fn input(task: &mut Task) {
    task.local.input_deadline = None;
    console::CONSOLE.lock(&task.ctx).begin_input();
    for _ in 0..INPUT_BYTES_AT_ONCE {
        let Some(decoded) = console::CONSOLE.lock(&task.ctx).next_input() else {
            return;
        };
        match decoded {
            Some(Input::Byte { partition, byte }) => deliver(task, partition, byte),
            Some(Input::Focus(number)) => {
                let name = system::partition(number).map_or("?", |partition| partition.name());
                console::say(&task.ctx, format_args!("input goes to {name}"));
            }
            Some(Input::NoSuchPartition(number)) => {
                console::say(&task.ctx, format_args!("there is no partition {number}"));
            }
            Some(Input::Command(command)) => control::take(task, &command),
            None => {}
        }
    }
    let soon = sysreg::cntfrq_el0() * INPUT_AGAIN_US / 1_000_000;
    task.local.input_deadline = Some(sysreg::cntpct_el0() + soon);
    deadlines::rearm(task);
}

fn deliver(task: &Task, number: u8, byte: u8) {
    let Some(partition) = system::partition(number) else {
        return;
    };
    if !partition.config.console {
        return;
    }
    // Held until the line is set: two PEs that change it must not pass each other on the way.
    let mut devices = partition.devices.lock(&task.ctx);
    // A guest that does not read loses what is typed, as on a real line without handshake.
    let effects = devices.uart.receive(byte);
    if let Some(level) = effects.irq {
        virq::set_level_of(
            task,
            partition,
            guest_map::UART_INTID,
            level == IrqLevel::Raised,
        );
    }
}
