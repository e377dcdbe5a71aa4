// SPDX-License-Identifier: MIT OR Apache-2.0
//! Flash banks that nobody ever wrote.

/// Both flash banks of QEMU `virt`, erased: every bit reads as one, and a command changes
/// nothing. A driver that asks for the CFI identification finds none.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErasedFlash;

impl ErasedFlash {
    /// Reads `width_bytes` (1, 2, 4, 8).
    #[inline]
    pub const fn read(&self, width_bytes: u8) -> u64 {
        match width_bytes {
            1 => 0xff,
            2 => 0xffff,
            4 => 0xffff_ffff,
            _ => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_is_one() {
        for (width, value) in [(1, 0xff), (2, 0xffff), (4, 0xffff_ffff), (8, u64::MAX)] {
            assert_eq!(ErasedFlash.read(width), value);
        }
    }
}
