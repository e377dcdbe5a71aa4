// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's pvpanic device, by which a guest's kernel says that it panics (QEMU's `docs/specs/pvpanic.rst`).

/// It panics, and that is the end of it.
pub const PANICKED: u8 = 1 << 0;
/// It panics, and goes on with a kernel of its own that was loaded for that (kdump).
pub const CRASH_LOADED: u8 = 1 << 1;

/// One register of a byte: what can be said when it is read, what is said when it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pvpanic {
    said: u8,
}

impl Pvpanic {
    /// Makes the device of a guest that has said nothing.
    pub const fn new() -> Self {
        Self { said: 0 }
    }

    /// The guest starts anew.
    pub const fn reset(&mut self) {
        self.said = 0;
    }

    /// Reads at `offset`, whatever the width.
    #[inline]
    pub const fn read(&self, offset: u64) -> u64 {
        match offset {
            0 => (PANICKED | CRASH_LOADED) as u64,
            _ => 0,
        }
    }

    /// Writes at `offset`, and returns what was not said before: a guest that says it again is not
    /// heard again.
    #[inline]
    pub const fn write(&mut self, offset: u64, value: u64) -> u8 {
        if offset != 0 {
            return 0;
        }
        let new = value as u8 & (PANICKED | CRASH_LOADED) & !self.said;
        self.said |= new;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_heard_once_in_a_life() {
        let mut device = Pvpanic::new();
        assert_eq!(device.read(0), 3);
        assert_eq!(device.read(1), 0);
        assert_eq!(device.write(1, 1), 0);
        assert_eq!(device.write(0, 0xfc), 0);
        assert_eq!(device.write(0, 0xff01), PANICKED);
        assert_eq!(device.write(0, 3), CRASH_LOADED);
        assert_eq!(device.write(0, 3), 0);
        device.reset();
        assert_eq!(device.write(0, 3), PANICKED | CRASH_LOADED);
    }
}
