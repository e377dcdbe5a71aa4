// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that are passed through: which the board has, and who may have them.
//!
//! [`resolve_devices`] finds the devices that the configuration names in the board's devicetree,
//! and refuses what cannot be given away safely. `firebreak check` and the hypervisor run the same
//! function. What is known of single devices (how to quiesce one, whether it can start DMA) is the
//! table in `known.rs`.

mod fault;
mod known;
mod nodes;
mod resolve;

pub use fault::{DeviceError, DeviceFault};
pub use known::{Known, Quiesce};
pub use nodes::{Place, each_node};
pub use resolve::resolve_devices;

use firebreak_abi::{Ipa, PAGE_SIZE_BYTES, PaRange};
use heapless::Vec;

use crate::tree::{Event, Walk};
use crate::value::Value;

/// The most devices of one partition.
pub const MAX_DEVICES: usize = 16;
/// The most devices of all partitions together.
pub const MAX_ALL_DEVICES: usize = 32;
/// The most ranges of registers of one device.
pub const MAX_REGS: usize = 4;
/// The most interrupts of one device.
pub const MAX_INTERRUPTS: usize = 4;

/// A device as a partition asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceWish<'a> {
    /// Full path in the board's devicetree.
    pub path: &'a str,
    /// Where the guest is to see its first register; `None` for its physical address.
    pub ipa: Option<Ipa>,
    /// Whether the configuration trusts it with DMA to all of memory.
    pub dma_trusted: bool,
}

/// The devices that a partition asks for, as they stand in the configuration: checked, and not
/// copied, because boot has little stack.
#[derive(Clone, Copy, Default)]
pub struct DeviceList<'a> {
    pub(crate) paths: Value<'a>,
    pub(crate) dma: Option<Value<'a>>,
    pub(crate) ipa: Option<Value<'a>>,
}

impl<'a> DeviceList<'a> {
    /// Returns each device.
    pub fn iter(&self) -> impl Iterator<Item = DeviceWish<'a>> + use<'a> {
        let paths = self.paths.bytes();
        let paths = paths.strip_suffix(&[0]).unwrap_or(paths);
        let mut dma = self.dma.and_then(|value| value.cells());
        let mut ipa = self.ipa.and_then(|value| value.cells());
        let none = self.paths.is_empty();
        let paths = paths.split(|byte| *byte == 0).filter(move |_| !none);
        paths.map(move |path| {
            let ipa = ipa.as_mut().and_then(|cells| cells.number(2));
            DeviceWish {
                path: core::str::from_utf8(path).unwrap_or_default(),
                ipa: ipa.filter(|ipa| *ipa != 0).map(Ipa::new),
                dma_trusted: dma.as_mut().and_then(|cells| cells.number(1)) == Some(1),
            }
        })
    }
}

impl core::fmt::Debug for DeviceList<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// An interrupt of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// INTID at the physical GIC, an SPI.
    pub pintid: u32,
    /// INTID that the guest sees, 32 to 159.
    pub vintid: u32,
    /// Trigger as the devicetree's third cell says it.
    pub flags: u32,
}

/// All devices that are passed through.
pub type Devices<'a> = Vec<Device<'a>, MAX_ALL_DEVICES>;

/// A device of the board, and the partition that has it.
#[derive(Clone)]
pub struct Device<'a> {
    /// Number of its partition.
    pub partition: usize,
    /// Full path in the board's devicetree.
    pub path: &'a str,
    /// Where the guest sees the first register.
    pub ipa: Ipa,
    /// Its registers.
    pub regs: Vec<PaRange, MAX_REGS>,
    /// Its interrupts, in the order of the devicetree.
    pub interrupts: Vec<Interrupt, MAX_INTERRUPTS>,
    /// What is known of its kind.
    pub known: Option<&'static Known>,
    /// Whether the configuration trusts it with DMA.
    pub dma_trusted: bool,
    /// phandle of where its interrupts go.
    interrupt_parent: u32,
    /// Its properties in the devicetree.
    walk: Walk<'a>,
}

impl<'a> Device<'a> {
    /// Says whether it may write to memory by itself: whatever is not known to be unable to.
    pub fn has_dma(&self) -> bool {
        self.known.is_none_or(|known| known.dma)
    }

    /// Returns how it is made quiet, if that is known.
    pub fn quiesce(&self) -> Option<&'static Quiesce> {
        self.known.map(|known| &known.quiesce)
    }

    /// Returns where the guest sees one of its ranges.
    pub fn ipa_of(&self, reg: PaRange) -> Ipa {
        let first = self.regs.first().map_or(0, |first| first.start.get());
        let offset = reg.start.get().wrapping_sub(first);
        Ipa::new(self.ipa.get().wrapping_add(offset))
    }

    /// Returns each range of registers as the guest and the machine see it, in whole pages.
    pub fn pages(&self) -> impl Iterator<Item = (Ipa, PaRange)> {
        self.regs
            .iter()
            .map(|reg| (self.ipa_of(*reg).page(), whole_pages(*reg)))
    }

    /// Returns the name of its node without the unit address.
    pub fn name(&self) -> &'a str {
        let name = self.path.rsplit('/').next().unwrap_or(self.path);
        name.split('@').next().unwrap_or(name)
    }

    /// Returns its properties as they stand in the devicetree.
    pub fn properties(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let mut walk = self.walk.clone();
        core::iter::from_fn(move || match walk.next_event() {
            Ok(Some(Event::Property(name, value))) => {
                let name = name.bytes().ok()?;
                Some((core::str::from_utf8(name).ok()?, value))
            }
            _ => None,
        })
    }
}

/// Widens a range to whole pages.
pub(crate) fn whole_pages(range: PaRange) -> PaRange {
    let start = range.start.page().get();
    let end = range.end().get().saturating_add(PAGE_SIZE_BYTES - 1) & !(PAGE_SIZE_BYTES - 1);
    PaRange::new(start, end.saturating_sub(start))
}
