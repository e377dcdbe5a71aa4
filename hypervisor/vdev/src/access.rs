// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an access gives back, and how its width cuts a 32-bit register.

/// New level of a device's interrupt line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IrqLevel {
    /// The line went up: the interrupt is pending now.
    Raised,
    /// The line went down.
    Lowered,
}

/// What a read gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Read {
    /// The value, zero-extended.
    pub value: u64,
    /// New level of the interrupt line, when the read changed it.
    pub irq: Option<IrqLevel>,
}

impl Read {
    /// Makes a read that changed nothing.
    #[inline]
    pub(crate) const fn plain(value: u64) -> Self {
        Self { value, irq: None }
    }
}

/// What a write, or an event from outside, makes the kernel do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use = "an interrupt or a console byte would be lost"]
pub struct Effects {
    /// Byte that the guest sent to its console.
    pub output: Option<u8>,
    /// New level of the interrupt line, when it changed.
    pub irq: Option<IrqLevel>,
}

/// Remembers the level of an interrupt line, and tells changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    high: bool,
}

impl Line {
    /// A line that is down.
    pub(crate) const LOW: Self = Self { high: false };

    /// Takes the level that the device's state asks for now.
    #[inline]
    pub(crate) fn set(&mut self, high: bool) -> Option<IrqLevel> {
        if self.high == high {
            return None;
        }
        self.high = high;
        Some(if high {
            IrqLevel::Raised
        } else {
            IrqLevel::Lowered
        })
    }

    /// Returns the level.
    #[inline]
    pub(crate) const fn is_high(self) -> bool {
        self.high
    }
}

/// Cuts what an access of `width_bytes` (1, 2, 4) at `offset` sees out of its 32-bit register.
#[inline]
pub(crate) const fn cut(register: u32, offset: u64, width_bytes: u8) -> u64 {
    let shifted = (register as u64) >> ((offset & 3) * 8);
    match width_bytes {
        1 => shifted & 0xff,
        2 => shifted & 0xffff,
        _ => shifted & 0xffff_ffff,
    }
}

/// Returns byte `number` (0 to 3) of the identification word that Arm's PrimeCell devices show
/// in four registers of one byte.
#[inline]
pub(crate) const fn id_byte(word: u32, number: u64) -> u32 {
    (word >> ((number & 3) * 8)) & 0xff
}

/// PrimeCell identification, offsets 0xff0 to 0xffc of every AMBA device.
pub(crate) const PRIMECELL_ID: u32 = 0xb105_f00d;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_only_changes() {
        let mut line = Line::LOW;
        assert_eq!(line.set(false), None);
        assert_eq!(line.set(true), Some(IrqLevel::Raised));
        assert_eq!(line.set(true), None);
        assert!(line.is_high());
        assert_eq!(line.set(false), Some(IrqLevel::Lowered));
    }

    #[test]
    fn narrow_reads_see_their_bytes() {
        assert_eq!(cut(0x1234_5678, 0, 4), 0x1234_5678);
        assert_eq!(cut(0x1234_5678, 0, 8), 0x1234_5678);
        assert_eq!(cut(0x1234_5678, 2, 2), 0x1234);
        assert_eq!(cut(0x1234_5678, 1, 1), 0x56);
        assert_eq!(cut(0x1234_5678, 3, 4), 0x12);
    }
}
