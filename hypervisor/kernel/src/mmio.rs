// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accesses to what stage 2 does not map: emulated devices, and holes.

use crate::console::Rest;
use crate::inject;
use crate::partition::Partition;
use crate::pe::{PeBlock, Task};
use crate::virq::{self, Lrs};
use core::sync::atomic::Ordering;
use firebreak_abi::{Ipa, guest_map};
use firebreak_arch::{guest, sysreg};
use firebreak_syndrome::{AbortFsc, AccessSize, DataAbort, InstructionAbort};
use firebreak_vdev::watchdog::Frame as WatchdogFrame;
use firebreak_vdev::{Effects, ErasedFlash, IrqLevel, Read};
use firebreak_wire::Event;

/// A64 instructions have four bytes.
const INSTRUCTION_BYTES: u64 = 4;
/// A half line on a console is flushed when nothing follows for this long.
const FLUSH_AFTER_MS: u64 = 20;

/// The faulting IPA of a stage-2 abort: HPFAR_EL2.FIPA has bits \[51:12\] in \[43:4\].
#[inline]
fn fault_ipa(task: &Task) -> Ipa {
    task.frame.fault_ipa()
}

/// Answers a load of a guest from what stage 2 does not map: finds the device, and lets it
/// answer in tail position.
#[inline(never)]
pub(crate) fn data_read(pe: &'static PeBlock) {
    // SAFETY: the tail of `firebreak_sync`, which made no `Task`.
    let task = unsafe { Task::enter(pe) };
    if !DataAbort::new(task.frame.esr).is_emulable() {
        return rare(pe);
    }
    let ipa = fault_ipa(&task);
    if inside(ipa, guest_map::GICD, guest_map::GICD_LEN).is_some() {
        gicd_read(pe);
    } else if inside(ipa, guest_map::UART, 0x1000).is_some() {
        uart_read(pe);
    } else if inside(ipa, guest_map::GICR, gicr_len(&task)).is_some() {
        gicr_read(pe);
    } else {
        other_read(pe);
    }
}

/// Answers a store of a guest to what stage 2 does not map.
#[inline(never)]
pub(crate) fn data_write(pe: &'static PeBlock) {
    // SAFETY: the tail of `firebreak_sync`, which made no `Task`.
    let task = unsafe { Task::enter(pe) };
    if !DataAbort::new(task.frame.esr).is_emulable() {
        return rare(pe);
    }
    let ipa = fault_ipa(&task);
    if inside(ipa, guest_map::GICR, gicr_len(&task)).is_some() {
        gicr_write(pe);
    } else if inside(ipa, guest_map::GICD, guest_map::GICD_LEN).is_some() {
        gicd_write(pe);
    } else {
        other_write(pe);
    }
}

/// Puts the value of a load where the instruction wants it, and goes on behind it.
#[inline]
fn give(task: &mut Task, value: u64) {
    let abort = DataAbort::new(task.frame.esr);
    task.frame.write_gpr(abort.register(), abort.extend(value));
    skip(task);
}

#[inline]
fn skip(task: &mut Task) {
    task.frame.elr = task.frame.elr.wrapping_add(INSTRUCTION_BYTES);
}

/// Takes the value of a store.
#[inline]
fn stored(task: &Task) -> u64 {
    let abort = DataAbort::new(task.frame.esr);
    task.frame.read_gpr(abort.register()) & abort.size().mask()
}

#[inline]
fn width(task: &Task) -> usize {
    DataAbort::new(task.frame.esr).size().bytes() as usize
}

/// Offset in the distributor's frame, which stands on a multiple of its length.
#[inline]
fn gicd_offset(task: &Task) -> u32 {
    fault_ipa(task).get() as u32 & (guest_map::GICD_LEN as u32 - 1)
}

#[inline(never)]
fn gicd_read(pe: &'static PeBlock) {
    // SAFETY: the tail of `data_read`, which uses its own `Task` no more.
    let mut task = unsafe { Task::enter(pe) };
    let offset = gicd_offset(&task);
    let abort = DataAbort::new(task.frame.esr);
    // An aligned word without sign, as drivers read registers: it needs no cutting.
    if abort.size() != AccessSize::Word || abort.sign_extend() || !offset.is_multiple_of(4) {
        return gicd_read_odd(pe);
    }
    let Some(vcpu) = &task.local.vcpu else {
        return;
    };
    let value = vcpu.vgic.gicd_read(&Lrs, offset, 4);
    task.frame.write_gpr(abort.register(), value);
    skip(&mut task);
}

#[cold]
#[inline(never)]
fn gicd_read_odd(pe: &'static PeBlock) {
    // SAFETY: the tail of `gicd_read`, which uses its own `Task` no more.
    let mut task = unsafe { Task::enter(pe) };
    let offset = gicd_offset(&task);
    let width = width(&task);
    let Some(vcpu) = &task.local.vcpu else {
        return;
    };
    let value = vcpu.vgic.gicd_read(&Lrs, offset, width);
    give(&mut task, value);
}

#[inline(never)]
fn gicr_read(pe: &'static PeBlock) {
    // SAFETY: the tail of `data_read`, which uses its own `Task` no more.
    let mut task = unsafe { Task::enter(pe) };
    let offset = fault_ipa(&task).get().wrapping_sub(guest_map::GICR.get());
    let target = (offset / guest_map::GICR_STRIDE) as u8;
    let offset = (offset % guest_map::GICR_STRIDE) as u32;
    let width = width(&task);
    let Some(vcpu) = &task.local.vcpu else { return };
    let value = vcpu.vgic.gicr_read(&Lrs, target, offset, width);
    give(&mut task, value);
}

#[inline(never)]
fn gicr_write(pe: &'static PeBlock) {
    // SAFETY: the tail of `data_write`, which uses its own `Task` no more.
    let mut task = unsafe { Task::enter(pe) };
    let offset = fault_ipa(&task).get().wrapping_sub(guest_map::GICR.get());
    let target = (offset / guest_map::GICR_STRIDE) as u8;
    let offset = (offset % guest_map::GICR_STRIDE) as u32;
    let (width, value) = (width(&task), stored(&task));
    skip(&mut task);
    let Some(vcpu) = &mut task.local.vcpu else {
        return;
    };
    let effects = vcpu.vgic.gicr_write(&mut Lrs, target, offset, width, value);
    if !effects.is_none() {
        rest(pe, effects);
    }
}

#[inline(never)]
fn gicd_write(pe: &'static PeBlock) {
    // SAFETY: the tail of `data_write`, which uses its own `Task` no more.
    let mut task = unsafe { Task::enter(pe) };
    let offset = gicd_offset(&task);
    let (width, value) = (width(&task), stored(&task));
    skip(&mut task);
    let Some(vcpu) = &mut task.local.vcpu else {
        return;
    };
    let effects = vcpu.vgic.gicd_write(&mut Lrs, offset, width, value);
    if !effects.is_none() {
        rest(pe, effects);
    }
}

#[inline(never)]
fn rest(pe: &'static PeBlock, effects: firebreak_vgic::Effects) {
    // SAFETY: the tail of a write, which uses its own `Task` no more.
    let mut task = unsafe { Task::enter(pe) };
    virq::carry_out(&mut task, effects);
}

#[inline(never)]
fn uart_read(pe: &'static PeBlock) {
    // SAFETY: the tail of `data_read`, which uses its own `Task` no more.
    let mut task = unsafe { Task::enter(pe) };
    let ipa = fault_ipa(&task);
    let width = width(&task) as u8;
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    if !partition.config.console {
        return hole(&mut task, ipa, false);
    }
    // Held until the line is set: two PEs that change it must not pass each other on the way.
    let mut devices = partition.devices.lock(&task.ctx);
    let Read { value, irq } = devices.uart.read(ipa.page_offset(), width);
    give(&mut task, value);
    if irq.is_some() {
        set_line(&mut task, guest_map::UART_INTID, irq);
    }
}

#[inline(never)]
fn other_read(pe: &'static PeBlock) {
    // SAFETY: the tail of `data_read`, which uses its own `Task` no more.
    let mut task = unsafe { Task::enter(pe) };
    let ipa = fault_ipa(&task);
    let width = width(&task) as u64;
    match read_other(&mut task, ipa, width) {
        Some(value) => give(&mut task, value),
        None => hole(&mut task, ipa, false),
    }
}

#[inline(never)]
fn other_write(pe: &'static PeBlock) {
    // SAFETY: the tail of `data_write`, which uses its own `Task` no more.
    let mut task = unsafe { Task::enter(pe) };
    let ipa = fault_ipa(&task);
    let (width, value) = (width(&task) as u64, stored(&task));
    if write_other(&mut task, ipa, width, value) {
        skip(&mut task);
    } else {
        hole(&mut task, ipa, true);
    }
}

#[cold]
#[inline(never)]
fn rare(pe: &'static PeBlock) {
    // SAFETY: the tail of `data_read` or `data_write`, which use their own `Task` no more.
    not_emulated(&mut unsafe { Task::enter(pe) });
}

#[inline]
fn inside(ipa: Ipa, start: Ipa, len_bytes: u64) -> Option<u64> {
    let offset = ipa.get().wrapping_sub(start.get());
    (offset < len_bytes).then_some(offset)
}

#[inline]
fn gicr_len(task: &Task) -> u64 {
    task.vcpu().map_or(0, |(partition, _)| {
        u64::from(partition.config.vcpus) * guest_map::GICR_STRIDE
    })
}

fn read_other(task: &mut Task, ipa: Ipa, width: u64) -> Option<u64> {
    let (partition, _) = task.vcpu()?;
    if let Some(offset) = inside(ipa, guest_map::RTC, 0x1000) {
        let now_s = seconds();
        let mut devices = partition.devices.lock(&task.ctx);
        let read = devices.rtc.read(offset, width as u8, now_s);
        set_line(task, guest_map::RTC_INTID, read.irq);
        return Some(read.value);
    }
    if let Some((frame, offset)) = watchdog_frame(task, ipa) {
        return Some(
            partition
                .devices
                .lock(&task.ctx)
                .watchdog
                .read(frame, offset, width as u8)
                .value,
        );
    }
    if let Some(offset) = pvpanic(task, ipa) {
        return Some(partition.devices.lock(&task.ctx).pvpanic.read(offset));
    }
    inside(ipa, guest_map::FLASH, guest_map::FLASH_LEN).map(|_| ErasedFlash.read(width as u8))
}

fn write_other(task: &mut Task, ipa: Ipa, width: u64, value: u64) -> bool {
    let Some((partition, _)) = task.vcpu() else {
        return false;
    };
    let width = width as u8;
    if let Some(offset) = inside(ipa, guest_map::UART, 0x1000) {
        if !partition.config.console {
            return false;
        }
        let mut devices = partition.devices.lock(&task.ctx);
        let effects = devices.uart.write(offset, width, value);
        set_line(task, guest_map::UART_INTID, effects.irq);
        drop(devices);
        console_output(task, effects);
        return true;
    }
    if let Some(offset) = inside(ipa, guest_map::RTC, 0x1000) {
        let now_s = seconds();
        let mut devices = partition.devices.lock(&task.ctx);
        let effects = devices.rtc.write(offset, width, value, now_s);
        let alarm_s = devices.rtc.next_alarm_s();
        set_line(task, guest_map::RTC_INTID, effects.irq);
        drop(devices);
        let frequency = sysreg::cntfrq_el0();
        task.local.alarm_deadline = alarm_s.map(|at_s| at_s.saturating_mul(frequency));
        crate::deadlines::rearm(task);
        return true;
    }
    if let Some((frame, offset)) = watchdog_frame(task, ipa) {
        write_watchdog(task, frame, offset, width, value);
        return true;
    }
    if let Some(offset) = pvpanic(task, ipa) {
        let events = partition
            .devices
            .lock(&task.ctx)
            .pvpanic
            .write(offset, value);
        if events != 0 {
            let (vm, name) = (partition.id.0, partition.name());
            crate::console::emit(&task.ctx, &Event::Pvpanic { vm, name, events });
        }
        return true;
    }
    // Erased flash ignores writes: nobody programs it.
    inside(ipa, guest_map::FLASH, guest_map::FLASH_LEN).is_some()
}

fn write_watchdog(task: &mut Task, frame: WatchdogFrame, offset: u64, width: u8, value: u64) {
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    let now = sysreg::cntpct_el0();
    let mut devices = partition.devices.lock(&task.ctx);
    let effects = devices.watchdog.write(frame, offset, width, value, now);
    let deadline = devices.watchdog.next_deadline_ticks();
    set_line(task, guest_map::WDT_INTID, effects.irq);
    drop(devices);
    task.local.watchdog_deadline = deadline;
    crate::deadlines::rearm(task);
}

fn pvpanic(task: &Task, ipa: Ipa) -> Option<u64> {
    let (partition, _) = task.vcpu()?;
    let offset = inside(ipa, guest_map::PVPANIC, firebreak_abi::PAGE_SIZE_BYTES)?;
    partition.config.pvpanic.then_some(offset)
}

fn watchdog_frame(task: &Task, ipa: Ipa) -> Option<(WatchdogFrame, u64)> {
    let (partition, _) = task.vcpu()?;
    if !partition.config.watchdog {
        return None;
    }
    inside(ipa, guest_map::WDT_REFRESH, 0x1000)
        .map(|offset| (WatchdogFrame::Refresh, offset))
        .or_else(|| {
            inside(ipa, guest_map::WDT_CONTROL, 0x1000)
                .map(|offset| (WatchdogFrame::Control, offset))
        })
}

fn set_line(task: &mut Task, intid: u32, change: Option<IrqLevel>) {
    if let Some(level) = change {
        virq::set_level(task, intid, level == IrqLevel::Raised);
    }
}

fn console_output(task: &mut Task, effects: Effects) {
    let (Some(byte), Some((partition, _))) = (effects.output, task.vcpu()) else {
        return;
    };
    let mut console = partition.console.lock(&task.ctx);
    let rest = console.push(&task.ctx, partition.name(), byte);
    attend(task, partition, rest);
}

/// Writes out what waits on a console, and lets its guest go on if there is room again.
pub(crate) fn console_due(task: &mut Task) {
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    let mut console = partition.console.lock(&task.ctx);
    let rest = console.flush(&task.ctx, partition.name());
    attend(task, partition, rest);
}

/// Sees to it that what is left to do for a console is done by this PE. Under the console's lock: two
/// PEs that say whether there is room must not pass each other on the way.
fn attend(task: &mut Task, partition: &'static Partition, rest: Rest) {
    if let Some(room) = rest.room {
        let mut devices = partition.devices.lock(&task.ctx);
        let effects = devices.uart.set_room(room);
        set_line(task, guest_map::UART_INTID, effects.irq);
    }
    let wanted = task.local.console_deadline;
    let deadline = match (rest.full_until, rest.half_line) {
        (Some(open), _) => Some(open),
        (None, false) => None,
        (None, true) => wanted.or_else(|| {
            let later = sysreg::cntfrq_el0() * FLUSH_AFTER_MS / 1000;
            Some(sysreg::cntpct_el0() + later)
        }),
    };
    if deadline != wanted {
        task.local.console_deadline = deadline;
        if deadline.is_some() {
            crate::deadlines::rearm(task);
        }
    }
}

pub(crate) fn seconds() -> u64 {
    sysreg::cntpct_el0() / sysreg::cntfrq_el0().max(1)
}

/// An access that no device can answer: to memory that went away, by an instruction that the
/// syndrome does not describe, by a table walk; or an external abort that hardware sent here.
#[cold]
fn not_emulated(task: &mut Task) {
    let abort = DataAbort::new(task.frame.esr);
    if is_external(abort.fsc()) {
        return crate::sea::external_abort(task);
    }
    let ipa = fault_ipa(task);
    if mapped_again(task, ipa) {
        return;
    }
    if abort.is_cache_maintenance() && abort.is_translation() && !abort.on_stage1_walk() {
        // Nothing is cached of what is not there.
        task.frame.elr = task.frame.elr.wrapping_add(INSTRUCTION_BYTES);
        return;
    }
    hole(task, ipa, abort.is_write());
}

/// Answers an instruction abort from a guest.
#[cold]
pub(crate) fn instruction_abort(task: &mut Task) {
    let abort = InstructionAbort::new(task.frame.esr);
    if is_external(abort.fsc()) {
        return crate::sea::external_abort(task);
    }
    let ipa = fault_ipa(task);
    if mapped_again(task, ipa) {
        return;
    }
    report(task, ipa, false);
    inject::instruction_abort(task);
}

fn is_external(fsc: AbortFsc) -> bool {
    matches!(fsc, AbortFsc::External | AbortFsc::ExternalOnWalk(_))
}

/// Answers an access to nothing as hardware does: a synchronous external abort.
#[cold]
#[inline(never)]
fn hole(task: &mut Task, ipa: Ipa, write: bool) {
    if mapped_again(task, ipa) {
        return;
    }
    report(task, ipa, write);
    inject::data_abort(task);
}

/// Says whether the address is mapped after all: another PE was splitting the block that holds
/// it, or this one holds an old translation beside a new one. The guest then tries again. Any other
/// abort would come again for ever.
fn mapped_again(task: &Task, ipa: Ipa) -> bool {
    match AbortFsc::from_bits(task.frame.esr as u8) {
        AbortFsc::Translation(_) => {}
        AbortFsc::TlbConflict => guest::forget_translations(),
        _ => return false,
    }
    let Some((partition, _)) = task.vcpu() else {
        return false;
    };
    if !partition.is_ram(ipa) {
        return false;
    }
    // Bad tables are not walked. The partition is being stopped: its guest does not try again.
    if partition.tables_lost.load(Ordering::Acquire) {
        return true;
    }
    let stage2 = partition.stage2.lock(&task.ctx);
    let mut pool = crate::memory::POOL.lock(&task.ctx);
    stage2
        .translate(&pool.tables_of(partition.id), ipa)
        .is_some()
}

fn report(task: &Task, ipa: Ipa, write: bool) {
    let Some((partition, vcpu)) = task.vcpu() else {
        return;
    };
    let retired = partition.backing.lock(&task.ctx).is_hole(ipa);
    let event = Event::Abort {
        vm: partition.id.0,
        vcpu,
        ipa: ipa.get(),
        far: task.frame.far,
        pc: task.frame.elr,
        write,
        retired,
    };
    partition.report(&task.ctx, &event);
}
