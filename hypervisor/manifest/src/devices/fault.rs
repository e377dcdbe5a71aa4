// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a device cannot be passed through.

use core::fmt;

use firebreak_abi::{Ipa, Pa};
use heapless::String;

use super::{MAX_ALL_DEVICES, MAX_INTERRUPTS, MAX_REGS};
use crate::config::MAX_NAME_LEN;
use crate::error::NodePath;
use crate::tree::TreeFault;

/// A device that cannot be passed through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceError<'a> {
    /// Number of the partition that wants it.
    pub partition: usize,
    /// Its path.
    pub path: &'a str,
    /// Why not.
    pub fault: DeviceFault<'a>,
}

/// Why a device cannot be passed through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceFault<'a> {
    /// The devicetree is damaged.
    Tree(TreeFault),
    /// There is no such node.
    Absent,
    /// The board says that it is not to be used.
    Disabled,
    /// Firebreak needs it itself, as this.
    Own(&'static str),
    /// Its addresses are not physical ones.
    BehindBus,
    /// It has no registers in memory.
    NoRegisters,
    /// It has more of these than are supported.
    TooMany(&'static str, usize),
    /// There are more devices than are supported.
    TooManyDevices,
    /// It has nodes below it.
    Children,
    /// Its interrupts go elsewhere than to the GIC, or are none of its three-cell form.
    NotGic,
    /// It has an interrupt of each PE.
    Ppi(u32),
    /// A property names another node, which the guest will not have.
    Refers(&'a str),
    /// Its clock is none that a guest has.
    Clock,
    /// It is given away already.
    Twice(String<MAX_NAME_LEN>),
    /// It shares a page with what its partition does not have.
    SharesPage(Pa, NodePath<'a>),
    /// It shares an interrupt with what its partition does not have.
    SharesInterrupt(u32, NodePath<'a>),
    /// It may start DMA, and nobody said that it is trusted.
    Dma,
    /// It is trusted with DMA, but the guest's addresses are not the machine's.
    DmaNotDirect,
    /// The guest has something else where it is to see the device.
    Occupied(Ipa, &'static str),
    /// The place that was chosen stands otherwise in its page than the registers.
    PageOffset(Ipa),
    /// The guest's interrupt controller has no INTID left.
    NoIntid,
}

impl fmt::Display for DeviceError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path;
        match &self.fault {
            DeviceFault::Tree(fault) => write!(f, "devicetree: {fault}"),
            DeviceFault::Absent => write!(
                f,
                "there is no device {path} in the board's devicetree; name a node that there is"
            ),
            fault => write!(f, "{path} {fault}"),
        }
    }
}

impl fmt::Display for DeviceFault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(_) | Self::Absent => f.write_str("is not there; name another device"),
            Self::Disabled => f.write_str(
                "is disabled in the board's devicetree, or firmware's; choose another device",
            ),
            Self::Own(what) => write!(f, "is {what}, which Firebreak uses itself; remove it"),
            Self::BehindBus => f.write_str(
                "stands behind a bus without plain addresses: not supported yet; choose another device",
            ),
            Self::NoRegisters => {
                f.write_str("has no registers in memory; name the node of a device")
            }
            Self::TooMany(what, most) => write!(
                f,
                "has more {what} than {most}: not supported yet; choose another device"
            ),
            Self::TooManyDevices => {
                write!(f, "is one device too many; pass at most {MAX_ALL_DEVICES} through")
            }
            Self::Children => f.write_str(
                "has nodes below it: not supported yet; choose another device",
            ),
            Self::NotGic => f.write_str(
                "has interrupts that do not go straight to the GIC: not supported yet; choose another device",
            ),
            Self::Ppi(intid) => write!(
                f,
                "has the private interrupt {intid}: not supported yet; choose another device"
            ),
            Self::Refers(property) => write!(
                f,
                "names other nodes in `{property}`, which its guest would not have: not supported yet; choose another device"
            ),
            Self::Clock => f.write_str(
                "needs a clock that is no fixed-clock of 24 MHz: not supported yet; choose another device",
            ),
            Self::Twice(owner) => {
                write!(f, "is given to partition {owner} already; give it to one partition, once")
            }
            Self::SharesPage(page, with) => write!(
                f,
                "shares the 4 KiB page {page:#x} with {with}, which its partition does not have; \
                 give all devices of a page to one partition, by `page = {page:#x}` or one by one"
            ),
            Self::SharesInterrupt(intid, with) => write!(
                f,
                "shares interrupt {intid} with {with}, which its partition does not have; give both to one partition"
            ),
            Self::Dma => f.write_str(
                "may write to all of memory by DMA, and there is no SMMU to hold it; \
                 say dma = \"trusted\" if it may, and give the partition memory with direct_map = true",
            ),
            Self::DmaNotDirect => f.write_str(
                "is trusted with DMA, but it would miss its guest's memory; \
                 give the partition memory with direct_map = true, so that addresses are the machine's",
            ),
            Self::Occupied(ipa, what) => write!(
                f,
                "would stand at {ipa:#x} in its guest, where there is {what}; choose another place by `at`"
            ),
            Self::PageOffset(ipa) => write!(
                f,
                "cannot stand at {ipa:#x} in its guest; choose an address with the same last 12 bits as its own"
            ),
            Self::NoIntid => {
                f.write_str("has interrupts for which its guest has no number left; pass fewer devices through")
            }
        }
    }
}

impl core::error::Error for DeviceError<'_> {}

/// How many registers and interrupts a device may have.
pub(super) const TOO_MANY_REGS: DeviceFault<'_> =
    DeviceFault::TooMany("ranges of registers", MAX_REGS);
/// See [`TOO_MANY_REGS`].
pub(super) const TOO_MANY_INTERRUPTS: DeviceFault<'_> =
    DeviceFault::TooMany("interrupts", MAX_INTERRUPTS);
