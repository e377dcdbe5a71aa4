// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boards that need no board file of the user's: each is a page of data.
//!
//! The hypervisor learns its machine from the devicetree and uses none of this. It is what
//! `firebreak check` can know on a desk, before a devicetree is there. `docs/partitions.md`
//! describes the format.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

/// Devicetrees that the board files name: as QEMU 10.0.2 makes them (`-M virt,virtualization=on,
/// gic-version=3,dumpdtb=..`), packed. They say which devices could be passed through.
pub const DEVICETREES: &[(&str, &[u8])] = &[
    ("qemu-virt.dtb", include_bytes!("../qemu-virt.dtb")),
    (
        "xlnx-versal-virt.dtb",
        include_bytes!("../xlnx-versal-virt.dtb"),
    ),
];

/// Name and board file of each board.
pub const KNOWN: &[(&str, &str)] = &[
    ("qemu-virt", include_str!("../qemu-virt.toml")),
    ("xlnx-versal-virt", include_str!("../xlnx-versal-virt.toml")),
];
