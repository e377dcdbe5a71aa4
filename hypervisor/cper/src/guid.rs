// SPDX-License-Identifier: MIT OR Apache-2.0
//! GUIDs as UEFI stores them: the first three fields little endian, the last eight bytes as written.

use core::fmt;

/// A UEFI GUID in its 16 stored bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// All zeros: "not given".
    pub const ZERO: Self = Self([0; 16]);
    /// Platform memory error section (UEFI 2.10, N.2.5).
    pub const MEMORY: Self = Self::new(
        0xa5bc_1114,
        0x6f64,
        0x4ede,
        [0xb8, 0x63, 0x3e, 0x83, 0xed, 0x7c, 0x83, 0xb1],
    );
    /// Arm processor error section (UEFI 2.10, N.2.4.4).
    pub const ARM_PROCESSOR: Self = Self::new(
        0xe19e_3d16,
        0xbc11,
        0x11e4,
        [0x9c, 0xaa, 0xc2, 0x05, 0x1d, 0x5d, 0x46, 0xb0],
    );
    /// Firebreak's own section: [`crate::FirebreakSection`].
    pub const FIREBREAK: Self = Self::new(
        0x13b0_15d4,
        0xc5a2,
        0x4dae,
        [0x8c, 0x4b, 0x40, 0xd2, 0x80, 0xb3, 0x8a, 0x1c],
    );
    /// PCI Express error section.
    pub const PCIE: Self = Self::new(
        0xd995_e954,
        0xbbc1,
        0x430f,
        [0xad, 0x91, 0xb4, 0x4d, 0xcb, 0x3c, 0x6f, 0x35],
    );
    /// Generic processor error section.
    pub const PROCESSOR_GENERIC: Self = Self::new(
        0x9876_ccad,
        0x47b4,
        0x4bdb,
        [0xb6, 0x5e, 0x16, 0xf1, 0x93, 0xc4, 0xf3, 0xdb],
    );
    /// Firmware error record reference section.
    pub const FIRMWARE_REFERENCE: Self = Self::new(
        0x8121_2a96,
        0x09ed,
        0x4996,
        [0x94, 0x71, 0x8d, 0x72, 0x9c, 0x8e, 0x69, 0xed],
    );
    /// Notification type SEI, of a whole CPER record.
    pub const NOTIFY_SEI: Self = Self::new(
        0x5c28_4c81,
        0xb0ae,
        0x4e87,
        [0xa3, 0x22, 0xb0, 0x4c, 0x85, 0x62, 0x43, 0x23],
    );
    /// Notification type BOOT, of a whole CPER record.
    pub const NOTIFY_BOOT: Self = Self::new(
        0x3d61_a466,
        0xab40,
        0x409a,
        [0xa6, 0x98, 0xf3, 0x62, 0xd4, 0x64, 0xb3, 0x8f],
    );

    /// Makes a GUID from its fields as they are printed.
    pub const fn new(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let [a0, a1, a2, a3] = a.to_le_bytes();
        let [b0, b1] = b.to_le_bytes();
        let [c0, c1] = c.to_le_bytes();
        let [d0, d1, d2, d3, d4, d5, d6, d7] = d;
        Self([
            a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7,
        ])
    }

    /// Returns it as the words that a little-endian reader finds.
    pub(crate) const fn words(self) -> [u32; 4] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        [
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
            u32::from_le_bytes([i, j, k, l]),
            u32::from_le_bytes([m, n, o, p]),
        ]
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, tail @ ..] = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{d0:02x}{d1:02x}-",
            u32::from_le_bytes([a0, a1, a2, a3]),
            u16::from_le_bytes([b0, b1]),
            u16::from_le_bytes([c0, c1]),
        )?;
        tail.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
