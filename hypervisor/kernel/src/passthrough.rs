// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices passed through: their interrupts between the physical and the virtual distributor, and
//! how they fall silent when their partition stops.
//!
//! A physical SPI is enabled, triggered and routed as the guest's own distributor says. It is
//! taken once, put into a list register with HW = 1, and stays active until the guest's end of
//! interrupt deactivates it in hardware (IHI0069, 4.8): EL2 is not entered for that. Its physical
//! priority is EL2's one for everything, so that no guest's interrupt comes before EL2's own.

use crate::early::Found;
use crate::memory::Pace;
use crate::partition::Partition;
use crate::pe::Task;
use crate::sync::Lock;
use crate::system::{self, System};
use crate::virq::{self, Lrs};
use core::sync::atomic::{AtomicU8, Ordering};
use firebreak_abi::guest_map::FIRST_SPI;
use firebreak_abi::{Ipa, PAGE_SIZE_BYTES, Pa, VmId};
use firebreak_arch::{spi, sysreg};
use firebreak_guestdt::{FdtWriter, GuestDevice, interrupt_cells, write_device};
use firebreak_manifest::devices::{MAX_INTERRUPTS, MAX_REGS, Quiesce};
use firebreak_manifest::{Device, Devices, resolve_devices};
use firebreak_paging::{Attributes, Frames, PagingError, Stage2};
use firebreak_vgic::{Effects, HwOp};
use heapless::Vec;
use spin::Once;

/// SPIs of a GICv3 without the extended range.
const SPIS: usize = 988;
/// How long a device may take to become quiet, in ms.
const QUIET_MS: u64 = 20;
/// How often it is asked between two promises to this PE's timer.
const POLLS_AT_ONCE: u32 = 64;

/// INTID that the owner's guest sees, for each physical SPI; 0 for those that nobody owns. Written
/// at boot alone.
static VINTIDS: [AtomicU8; SPIS] = [const { AtomicU8::new(0) }; SPIS];
/// Whoever changes an SPI at the physical distributor: what is written there has to be what the
/// virtual one says at the end, whoever of two PEs comes first, and modes share registers.
static CHANGE: Lock<()> = Lock::new(());

fn cell(pintid: u32) -> Option<&'static AtomicU8> {
    VINTIDS.get(pintid.checked_sub(FIRST_SPI)? as usize)
}

/// Every device that is passed through.
static DEVICES: Once<Devices<'static>> = Once::new();

/// Finds the devices once more, now that there is a place for them. Nothing has changed since the
/// first time, when each mistake was told.
#[inline(never)]
pub(crate) fn find(found: &Found) {
    DEVICES.call_once(|| {
        let devices = resolve_devices(found.dtb_bytes, &found.board, &found.config, &found.plan);
        devices.unwrap_or_default()
    });
}

/// Returns all of them.
pub(crate) fn all() -> &'static [Device<'static>] {
    DEVICES.get().map_or(&[], Vec::as_slice)
}

/// Returns the devices of a partition.
pub(crate) fn devices(vm: VmId) -> impl Iterator<Item = &'static Device<'static>> {
    let all = all().iter();
    all.filter(move |device| device.partition == vm.index())
}

/// Says which physical SPIs stand behind those of the guests; the devices are made quiet before
/// their first owner runs, whatever the bootloader did with them.
pub(crate) fn configure(system: &'static System) {
    for device in all() {
        let Some(partition) = system.partitions.get(device.partition) else {
            continue;
        };
        for one in &device.interrupts {
            partition.distributor.map_spi(one.vintid, one.pintid);
            if let Some(cell) = cell(one.pintid) {
                cell.store((one.vintid & 0xff) as u8, Ordering::Relaxed);
            }
        }
        if let Some(rule) = device.quiesce() {
            // One that does not answer yet is asked again before its partition starts anew.
            let _ = silence(device, rule);
        }
    }
}

/// Takes a physical SPI of a device: acknowledged, its priority dropped. Says whether the guest
/// deactivates it.
#[inline(never)]
pub(crate) fn take(task: &mut Task, pintid: u32) -> bool {
    let vintid = cell(pintid).map_or(0, |cell| u32::from(cell.load(Ordering::Relaxed)));
    let (Some(system), Some(vcpu)) = (system::get(), &mut task.local.vcpu) else {
        return false;
    };
    if vintid == 0 {
        return false;
    }
    if !vcpu.partition.is_running() {
        // Came while the partition stops; a level would come again and again.
        let _ = system.gic.disable_spi(pintid);
        return false;
    }
    vcpu.partition.forwarded.fetch_add(1, Ordering::Relaxed);
    let effects = vcpu.vgic.inject_hw(&mut Lrs, vintid, pintid);
    if !effects.is_none() {
        virq::carry_out(task, effects);
    }
    true
}

/// Says whether a physical SPI is pending.
pub(crate) fn is_pending(pintid: u32) -> bool {
    system::get().is_some_and(|system| system.gic.is_spi_pending(pintid))
}

/// Does at the physical distributor what a guest wrote to its own.
#[inline(never)]
pub(crate) fn carry_out(task: &Task, effects: Effects) {
    let (Some(system), Some((partition, _))) = (system::get(), task.vcpu()) else {
        return;
    };
    let changing = CHANGE.lock(&task.ctx);
    for vintid in effects.intids() {
        let pintid = partition.distributor.physical_intid(0, vintid);
        let Some(pintid) = pintid.filter(|pintid| *pintid >= FIRST_SPI) else {
            continue;
        };
        match effects.op {
            HwOp::None => {}
            HwOp::SetPending => system.gic.set_spi_pending(pintid, true),
            HwOp::ClearPending => system.gic.set_spi_pending(pintid, false),
            HwOp::Enable | HwOp::Disable | HwOp::Route => {
                follow(system, partition, vintid, pintid);
            }
            HwOp::Configure => {
                // A mode may change only while the interrupt is off (IHI0069, 12.9.9).
                let _ = system.gic.disable_spi(pintid);
                let edge = partition.distributor.is_edge(0, vintid);
                system.gic.set_spi_edge(pintid, edge);
                follow(system, partition, vintid, pintid);
            }
        }
    }
    drop(changing);
}

/// Enables and routes a physical SPI as the virtual one is now.
fn follow(system: &System, partition: &Partition, vintid: u32, pintid: u32) {
    let vcpu = partition.distributor.route(vintid).unwrap_or(0);
    let Some(pe) = partition.pes.get(usize::from(vcpu)) else {
        return;
    };
    let enabled = partition.distributor.is_enabled(0, vintid);
    system.gic.set_spi(pintid, pe.mpidr, enabled);
}

/// Takes a stopped partition's devices off: their interrupts are disabled, neither pending nor
/// active, level-sensitive as after a reset; and they stop what they do.
///
/// By the PE that carries the stop out. The devices' own state comes between, since a device that
/// still works can make its interrupt pending again.
pub(crate) fn quiesce(task: &Task, partition: &Partition) {
    let Some(system) = system::get() else { return };
    let lines = || devices(partition.id).flat_map(|device| &device.interrupts);
    let changing = CHANGE.lock(&task.ctx);
    for line in lines() {
        let _ = system.gic.disable_spi(line.pintid);
    }
    let mut loud = false;
    for device in devices(partition.id) {
        loud |= match device.quiesce() {
            Some(rule) => !silence(device, rule) && device.has_dma(),
            None => device.has_dma(),
        };
    }
    partition.loud.store(loud, Ordering::Release);
    for line in lines() {
        system.gic.set_spi_edge(line.pintid, false);
        system.gic.forget_spi(line.pintid);
    }
    drop(changing);
}

/// Makes a device stop what it does, by the rule of its kind; says whether it did. The caller
/// re-arms this PE's timer if it has deadlines.
fn silence(device: &Device<'_>, rule: &Quiesce) -> bool {
    let Some(base) = device.regs.first().map(|reg| reg.start) else {
        return true;
    };
    let at = |offset: u64| Pa::new(base.get() + offset);
    for (offset, value) in rule.writes {
        // SAFETY: in the first page of the device's registers, which `early` mapped; no guest
        // has them now.
        unsafe { spi::write_device(at(*offset), *value) };
    }
    let Some((offset, mask)) = rule.until_clear else {
        return true;
    };
    let start = sysreg::cntpct_el0();
    let patience = sysreg::cntfrq_el0() * QUIET_MS / 1000;
    loop {
        let _pace = Pace::step();
        let late = sysreg::cntpct_el0().wrapping_sub(start) > patience;
        // SAFETY: as above.
        if (0..POLLS_AT_ONCE).any(|_| unsafe { spi::read_device(at(offset)) } & mask == 0) {
            return true;
        }
        if late {
            return false;
        }
    }
}

/// Writes the nodes of a partition's devices into its devicetree.
pub(crate) fn describe(vm: VmId, root: &mut FdtWriter<'_>) {
    for device in devices(vm) {
        let mut reg = Vec::<u64, { 2 * MAX_REGS }>::new();
        let mut interrupts = Vec::<[u32; 3], MAX_INTERRUPTS>::new();
        // As many as the device has, which fit.
        for range in &device.regs {
            let _ = reg.push(device.ipa_of(*range).get());
            let _ = reg.push(range.len_bytes);
        }
        for one in &device.interrupts {
            let _ = interrupts.push(interrupt_cells(one.vintid, one.flags));
        }
        let node = GuestDevice {
            name: device.name(),
            reg: &reg,
            interrupts: &interrupts,
        };
        let properties = device.properties();
        write_device(
            root,
            &node,
            properties.map(|(name, value)| (name, value.bytes())),
        );
    }
}

/// Maps a partition's devices, page by page, where the guest is to see them.
pub(crate) fn map<F: Frames>(stage2: &Stage2, frames: &mut F, vm: VmId) -> Result<(), PagingError> {
    for device in devices(vm) {
        for (ipa, pages) in device.pages() {
            for offset in (0..pages.len_bytes).step_by(PAGE_SIZE_BYTES as usize) {
                let ipa = Ipa::new(ipa.get() + offset);
                // A neighbor of the same partition may have mapped the page they share.
                if stage2.translate(frames, ipa).is_none() {
                    let pa = Pa::new(pages.start.get() + offset);
                    stage2.map(frames, ipa, pa, PAGE_SIZE_BYTES, Attributes::Device)?;
                }
            }
        }
    }
    Ok(())
}

/// Returns the first address behind all that a partition sees of its devices.
pub(crate) fn end(vm: VmId) -> u64 {
    let ends = devices(vm).flat_map(Device::pages);
    ends.map(|(ipa, pages)| ipa.get() + pages.len_bytes)
        .max()
        .unwrap_or(0)
}
