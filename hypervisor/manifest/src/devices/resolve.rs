// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the devices that partitions ask for, and judges whether they may have them.

use firebreak_abi::{PaRange, guest_map};
use heapless::Vec;

use super::fault::{TOO_MANY_INTERRUPTS, TOO_MANY_REGS};
use super::nodes::{Id, Node};
use super::{
    Device, DeviceError, DeviceFault, Devices, Interrupt, Known, Place, each_node, whole_pages,
};
use crate::board::Board;
use crate::config::SystemConfig;
use crate::plan::MemoryPlan;
use crate::tree::Walk;

/// The clock that every guest has.
const CLOCK_HZ: u32 = 24_000_000;
/// Properties that name other nodes.
const REFERRING: [&str; 19] = [
    "interrupts-extended",
    "interrupt-map",
    "iommus",
    "iommu-map",
    "msi-parent",
    "msi-map",
    "dmas",
    "resets",
    "power-domains",
    "phys",
    "pinctrl-0",
    "memory-region",
    "interconnects",
    "nvmem-cells",
    "assigned-clocks",
    "mboxes",
    "hwlocks",
    "io-channels",
    "thermal-sensors",
];
/// INTIDs of a guest that emulated devices have.
const EMULATED: [u32; 3] = [
    guest_map::UART_INTID,
    guest_map::RTC_INTID,
    guest_map::WDT_INTID,
];

type Fallible<'a> = Result<(), DeviceError<'a>>;

/// Finds the devices that the partitions ask for in the board's devicetree.
///
/// # Errors
///
/// The first device that cannot be passed through, and why.
#[inline(never)]
pub fn resolve_devices<'a>(
    dtb: &'a [u8],
    board: &Board,
    config: &SystemConfig<'a>,
    plan: &MemoryPlan,
) -> Result<Devices<'a>, DeviceError<'a>> {
    let mut found = Found {
        devices: Devices::new(),
        gic: None,
        clocks: Vec::new(),
        error: None,
    };
    found.list(config)?;
    let Some(first) = found.devices.first() else {
        return Ok(found.devices);
    };
    let (partition, path) = (first.partition, first.path);
    let damaged = |fault| DeviceError {
        partition,
        path,
        fault: DeviceFault::Tree(fault),
    };
    let mut damage = each_node(dtb, |node| found.take(board, node));
    if damage.is_ok() && found.error.is_none() {
        found.judge(config, plan)?;
        damage = each_node(dtb, |node| found.neighbor(node));
    }
    match (damage, found.error) {
        (Err(fault), _) => Err(damaged(fault)),
        (_, Some(error)) => Err(error),
        _ => Ok(found.devices),
    }
}

/// What has been found so far.
struct Found<'a> {
    devices: Devices<'a>,
    /// phandle of the GIC.
    gic: Option<u32>,
    /// phandles of the clocks that a guest has too.
    clocks: Vec<u32, 8>,
    error: Option<DeviceError<'a>>,
}

fn refuse<'a, T>(device: &Device<'a>, fault: DeviceFault<'a>) -> Result<T, DeviceError<'a>> {
    Err(DeviceError {
        partition: device.partition,
        path: device.path,
        fault,
    })
}

impl<'a> Found<'a> {
    /// Lists what is asked for.
    fn list(&mut self, config: &SystemConfig<'a>) -> Fallible<'a> {
        for (partition, one) in config.partitions.iter().enumerate() {
            for wish in one.devices.iter() {
                let device = Device {
                    partition,
                    path: wish.path,
                    ipa: wish.ipa.unwrap_or_default(),
                    regs: Vec::new(),
                    interrupts: Vec::new(),
                    known: None,
                    dma_trusted: wish.dma_trusted,
                    interrupt_parent: 0,
                    walk: Walk::default(),
                };
                let mut others = self.devices.iter();
                if let Some(other) = others.find(|other| other.path == wish.path) {
                    let owner = config.partitions.get(other.partition);
                    let owner = owner.map(|owner| owner.name.clone()).unwrap_or_default();
                    return refuse(&device, DeviceFault::Twice(owner));
                }
                if let Err(device) = self.devices.push(device) {
                    return refuse(&device, DeviceFault::TooManyDevices);
                }
            }
        }
        Ok(())
    }

    /// Takes what a node says, if it is one of the devices or something that they need.
    fn take(&mut self, board: &Board, node: &Node<'a, '_>) -> bool {
        let compatible = node.get(Id::Compatible).unwrap_or_default();
        if let Some(phandle) = node.get(Id::Phandle).and_then(|value| value.u32()) {
            let frequency = node.get(Id::ClockFrequency).and_then(|value| value.u32());
            if compatible.has("arm,gic-v3") {
                self.gic = Some(phandle);
            } else if compatible.has("fixed-clock") && frequency == Some(CLOCK_HZ) {
                // One too many is a clock that nobody can use.
                let _ = self.clocks.push(phandle);
            }
        }
        if let Some(device) = self.devices.iter_mut().find(|device| node.is(device.path)) {
            device.known = Known::of(compatible);
            device.walk = node.walk.clone();
            device.interrupt_parent = node.interrupt_parent;
            if let Err(fault) = describe(device, board, node) {
                self.error = refuse::<()>(device, fault).err();
                return false;
            }
        }
        true
    }

    /// Judges each device by itself, and gives its interrupts numbers in the guest.
    fn judge(&mut self, config: &SystemConfig<'a>, plan: &MemoryPlan) -> Fallible<'a> {
        for device in &self.devices {
            if device.regs.is_empty() {
                return refuse(device, DeviceFault::Absent);
            }
            if let Some(fault) = self.wrong_reference(device) {
                return refuse(device, fault);
            }
            let partition = config.partitions.get(device.partition);
            let direct = partition.is_some_and(|partition| partition.direct_map);
            match (device.has_dma(), device.dma_trusted) {
                (true, false) => return refuse(device, DeviceFault::Dma),
                (true, true) if !direct => return refuse(device, DeviceFault::DmaNotDirect),
                _ => {}
            }
            let vcpus = partition.map_or(1, |partition| partition.vcpus);
            if let Some(fault) = self.occupied(device, vcpus, plan) {
                return refuse(device, fault);
            }
        }
        self.number()
    }

    fn wrong_reference(&self, device: &Device<'a>) -> Option<DeviceFault<'a>> {
        for (name, value) in device.properties() {
            let refers = REFERRING.contains(&name)
                || ["-supply", "-gpio", "-gpios"]
                    .iter()
                    .any(|end| name.ends_with(end));
            if refers {
                return Some(DeviceFault::Refers(name));
            }
            if name == "clocks" {
                let mut cells = value.cells()?;
                while let Some(phandle) = cells.number(1) {
                    if !self.clocks.iter().any(|one| u64::from(*one) == phandle) {
                        return Some(DeviceFault::Clock);
                    }
                }
            }
        }
        let gic_alone = device.interrupts.is_empty() || Some(device.interrupt_parent) == self.gic;
        (!gic_alone).then_some(DeviceFault::NotGic)
    }

    /// Says what stands where the guest is to see the device.
    fn occupied(
        &self,
        device: &Device<'a>,
        vcpus: u8,
        plan: &MemoryPlan,
    ) -> Option<DeviceFault<'a>> {
        let first = device.regs.first()?;
        if device.ipa.page_offset() != first.start.page_offset() {
            return Some(DeviceFault::PageOffset(device.ipa));
        }
        // As physical ranges, though they are the guest's: only to be compared.
        let at = |start: u64, len_bytes| PaRange::new(start, len_bytes);
        let ram = plan.placements.get(device.partition);
        let ram = ram.map(|placement| at(placement.ram_ipa.get(), placement.ram.len_bytes));
        let emulated = guest_map::emulated(vcpus);
        for (ipa, pages) in device.pages() {
            let mut others = self
                .devices
                .iter()
                .filter(|other| other.partition == device.partition);
            let here = at(ipa.get(), pages.len_bytes);
            let what = if here.start.checked_add(here.len_bytes).is_none() {
                "the end of all addresses"
            } else if emulated
                .iter()
                .any(|(start, len)| at(start.get(), *len).overlaps(here))
            {
                "an emulated device"
            } else if ram.is_some_and(|ram| ram.overlaps(here)) {
                "its memory"
            } else if others.any(|other| {
                // The same page may be seen by several, as long as it is the same.
                other.pages().any(|(other_ipa, other_pages)| {
                    at(other_ipa.get(), other_pages.len_bytes).overlaps(here)
                        && other_ipa.get().wrapping_sub(other_pages.start.get())
                            != ipa.get().wrapping_sub(pages.start.get())
                })
            }) {
                "another device"
            } else {
                continue;
            };
            return Some(DeviceFault::Occupied(ipa, what));
        }
        None
    }

    /// Gives each interrupt its INTID in the guest: the same one, or else the highest that is free.
    fn number(&mut self) -> Fallible<'a> {
        for at in 0..self.devices.len() {
            for line in 0..super::MAX_INTERRUPTS {
                let pick = self.devices.get(at).and_then(|device| {
                    let one = device.interrupts.get(line)?;
                    Some((device.partition, one.pintid))
                });
                let Some((partition, pintid)) = pick else {
                    break;
                };
                let vintid = self.free_intid(partition, pintid);
                let Some(device) = self.devices.get_mut(at) else {
                    break;
                };
                match (vintid, device.interrupts.get_mut(line)) {
                    (Some(vintid), Some(one)) => one.vintid = vintid,
                    _ => return refuse(device, DeviceFault::NoIntid),
                }
            }
        }
        Ok(())
    }

    fn free_intid(&self, partition: usize, pintid: u32) -> Option<u32> {
        let of_partition = || {
            let devices = self
                .devices
                .iter()
                .filter(move |one| one.partition == partition);
            devices.flat_map(|device| &device.interrupts)
        };
        let shared = of_partition().find(|one| one.pintid == pintid && one.vintid != 0);
        if let Some(shared) = shared {
            return Some(shared.vintid);
        }
        let natural = |intid: u32| intid < guest_map::GUEST_INTIDS && !EMULATED.contains(&intid);
        if natural(pintid) {
            return Some(pintid);
        }
        // Nobody's own number, so that it does not matter who comes first.
        (32..guest_map::GUEST_INTIDS).rev().find(|intid| {
            natural(*intid)
                && !of_partition().any(|one| one.vintid == *intid || one.pintid == *intid)
        })
    }

    /// Holds a node against the devices of partitions that do not have it.
    fn neighbor(&mut self, node: &Node<'a, '_>) -> bool {
        if node.place != Place::Mapped {
            return true;
        }
        let owner = self.devices.iter().find(|device| node.is(device.path));
        let owner = owner.map(|device| device.partition);
        for device in self
            .devices
            .iter()
            .filter(|device| Some(device.partition) != owner)
        {
            let shared_page = |reg: PaRange| {
                let pages = whole_pages(reg);
                let own = device.regs.iter().map(|own| whole_pages(*own));
                let mut shared = own.filter(|own| own.overlaps(pages));
                shared.next().map(|own| own.start.max(pages.start))
            };
            let shared_intid = |[kind, number, _]: [u32; 3]| {
                let intid = number.wrapping_add(32);
                let mut own = device.interrupts.iter();
                (kind == 0 && own.any(|own| own.pintid == intid)).then_some(intid)
            };
            let fault = if let Some(page) = node.regs().find_map(shared_page) {
                DeviceFault::SharesPage(page, node.path())
            } else if Some(node.interrupt_parent) == self.gic
                && let Some(intid) = node.interrupts().find_map(shared_intid)
            {
                DeviceFault::SharesInterrupt(intid, node.path())
            } else {
                continue;
            };
            self.error = refuse::<()>(device, fault).err();
            return false;
        }
        true
    }
}

/// What the node itself says of a device.
fn describe<'a>(
    device: &mut Device<'a>,
    board: &Board,
    node: &Node<'a, '_>,
) -> Result<(), DeviceFault<'a>> {
    if let Some(what) = own(board, node) {
        return Err(DeviceFault::Own(what));
    }
    match node.place {
        Place::Mapped => {}
        Place::Disabled => return Err(DeviceFault::Disabled),
        Place::BehindBus => return Err(DeviceFault::BehindBus),
    }
    if node.has_children() {
        return Err(DeviceFault::Children);
    }
    for reg in node.regs() {
        device.regs.push(reg).map_err(|_| TOO_MANY_REGS)?;
    }
    let first = device.regs.first().ok_or(DeviceFault::NoRegisters)?;
    if device.ipa.get() == 0 {
        device.ipa = firebreak_abi::Ipa::new(first.start.get());
    }
    for [kind, number, flags] in node.interrupts() {
        let intid = match (kind, number) {
            (0, 0..988) => number + 32,
            (1, 0..16) => return Err(DeviceFault::Ppi(number + 16)),
            _ => return Err(DeviceFault::NotGic),
        };
        let interrupt = Interrupt {
            pintid: intid,
            vintid: 0,
            flags,
        };
        device
            .interrupts
            .push(interrupt)
            .map_err(|_| TOO_MANY_INTERRUPTS)?;
    }
    Ok(())
}

/// Says what a node is to Firebreak itself.
fn own(board: &Board, node: &Node<'_, '_>) -> Option<&'static str> {
    let compatible = node.get(Id::Compatible).unwrap_or_default();
    let kind = node.get(Id::DeviceType).unwrap_or_default();
    let is_uart = |uart: crate::board::Uart| node.regs().any(|reg| reg.contains(uart.base));
    if compatible.has("arm,gic-v3") || compatible.has("arm,gic-v3-its") {
        Some("the interrupt controller")
    } else if compatible.has("arm,armv8-timer") {
        Some("the generic timer")
    } else if compatible.has_prefix("arm,psci") || compatible.has(firebreak_abi::sei::COMPATIBLE) {
        Some("the firmware")
    } else if kind.has("memory") {
        Some("memory")
    } else if kind.has("cpu") {
        Some("a PE")
    } else if board.uart.is_some_and(is_uart) {
        Some("the console")
    } else {
        None
    }
}
