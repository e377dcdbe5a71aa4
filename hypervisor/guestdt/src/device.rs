// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node of a passed-through device: the board's own, at the guest's addresses and numbers.

use firebreak_abi::Ipa;
use firebreak_abi::guest_map::FIRST_SPI;

use crate::guest::{CLOCK, SPI};
use crate::writer::FdtWriter;

/// Properties of the board's node that are written anew, or mean nothing in a guest.
const REPLACED: [&str; 7] = [
    "reg",
    "interrupts",
    "interrupt-parent",
    "phandle",
    "linux,phandle",
    "status",
    "clocks",
];
/// The most clocks that a device can name.
const MAX_CLOCKS: usize = 8;

/// A passed-through device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestDevice<'a> {
    /// Name of its node, without the address.
    pub name: &'a str,
    /// Its registers as the guest sees them: start and length in bytes, in turns.
    pub reg: &'a [u64],
    /// Its interrupts: see [`interrupt_cells`].
    pub interrupts: &'a [[u32; 3]],
}

/// Returns the GIC's three cells for an SPI (INTID 32 and up) with the trigger `flags`.
pub const fn interrupt_cells(intid: u32, flags: u32) -> [u32; 3] {
    [SPI, intid.saturating_sub(FIRST_SPI), flags]
}

/// Writes the node of a device below the root. `properties` are those of the board's node, whose
/// clocks (8 at most) all are the one that every guest has.
pub fn write_device<'a>(
    root: &mut FdtWriter<'_>,
    device: &GuestDevice<'_>,
    properties: impl Iterator<Item = (&'a str, &'a [u8])>,
) {
    let unit = Ipa::new(device.reg.first().copied().unwrap_or_default());
    root.node_at(device.name, unit.get(), |node| {
        for (name, value) in properties {
            if !REPLACED.contains(&name) {
                node.prop_bytes(name, value);
            } else if name == "clocks" {
                let clocks = [CLOCK; MAX_CLOCKS];
                let count = value.len() / size_of::<u32>();
                node.prop_cells(name, clocks.get(..count).unwrap_or(&clocks));
            }
        }
        node.prop_u64_list("reg", device.reg);
        if !device.interrupts.is_empty() {
            node.prop_cells("interrupts", device.interrupts.as_flattened());
        }
    });
}
