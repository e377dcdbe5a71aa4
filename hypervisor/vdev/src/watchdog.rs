// SPDX-License-Identifier: MIT OR Apache-2.0
//! SBSA generic watchdog (Arm DEN0094, annex "Generic Watchdog"), version 1: 48-bit offset.
//!
//! Two timeouts in a row without a refresh: the first raises WS0, an interrupt to the guest; the
//! second raises WS1, which on a real board resets it. Here WS1 means that the guest fell
//! silent, and the partition's policy decides.
//!
//! Time is the guest's own counter (CNTVCT_EL0), passed to every call: Linux compares WCV with
//! it. The timeline is exact even when nobody calls in between: the second period starts where
//! the first ended, not where it was noticed.

use crate::access::{Effects, Line, Read, cut};

/// W_IIDR: architecture version 1, implementer Arm.
const W_IIDR: u32 = 0x0001_043b;
/// WCS.EN.
const WCS_ENABLE: u32 = 1 << 0;
/// WCS.WS0.
const WCS_WS0: u32 = 1 << 1;
/// WCS.WS1.
const WCS_WS1: u32 = 1 << 2;
/// WOR holds 48 bits.
const OFFSET_MASK: u64 = 0x0000_ffff_ffff_ffff;

/// Offsets of the registers.
pub mod reg {
    /// Refresh frame: watchdog refresh.
    pub const WRR: u64 = 0x000;
    /// Control frame: control and status.
    pub const WCS: u64 = 0x000;
    /// Control frame: offset, low word.
    pub const WOR_LOW: u64 = 0x008;
    /// Control frame: offset, bits \[47:32\].
    pub const WOR_HIGH: u64 = 0x00c;
    /// Control frame: compare value, low word.
    pub const WCV_LOW: u64 = 0x010;
    /// Control frame: compare value, high word.
    pub const WCV_HIGH: u64 = 0x014;
    /// Both frames: identification.
    pub const W_IIDR: u64 = 0xfcc;
}

/// Which of the watchdog's two pages is accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Where a guest says that it is alive.
    Refresh,
    /// Where it sets the watchdog up.
    Control,
}

/// What passing time did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Nothing new.
    None,
    /// First timeout: the interrupt line went up.
    Ws0,
    /// Second timeout: the guest is silent. Told once.
    Ws1,
}

/// The watchdog of one guest.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    enabled: bool,
    ws0: bool,
    ws1: bool,
    offset_ticks: u64,
    compare_ticks: u64,
    line: Line,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}

impl Watchdog {
    /// Makes a watchdog as it is after reset: disabled.
    pub const fn new() -> Self {
        Self {
            enabled: false,
            ws0: false,
            ws1: false,
            offset_ticks: 0,
            compare_ticks: 0,
            line: Line::LOW,
        }
    }

    /// Disables it, as a reset does.
    pub fn reset(&mut self) -> Effects {
        let mut line = self.line;
        *self = Self::new();
        Effects {
            output: None,
            irq: line.set(false),
        }
    }

    /// Returns the counter value at which something happens next, or `None` when nothing will.
    pub const fn next_deadline_ticks(&self) -> Option<u64> {
        // A timeout is when the counter is greater than the compare value.
        if self.enabled && !self.ws1 {
            self.compare_ticks.checked_add(1)
        } else {
            None
        }
    }

    /// Says whether the interrupt line (WS0) is up.
    pub const fn irq_is_high(&self) -> bool {
        self.line.is_high()
    }

    /// Lets time pass. [`Signal::Ws0`] raises the interrupt line; when both timeouts passed
    /// unseen, [`Signal::Ws1`] alone is told.
    pub fn expired(&mut self, now_ticks: u64) -> Signal {
        let mut signal = Signal::None;
        if !self.ws0 && self.is_due(now_ticks) {
            self.ws0 = true;
            // The counter was one past the compare value when the timeout came.
            self.compare_ticks = self
                .compare_ticks
                .saturating_add(1)
                .saturating_add(self.offset_ticks);
            signal = Signal::Ws0;
        }
        if self.ws0 && self.is_due(now_ticks) {
            self.ws1 = true;
            signal = Signal::Ws1;
        }
        let _ = self.line.set(self.ws0);
        signal
    }

    fn is_due(&self, now_ticks: u64) -> bool {
        self.next_deadline_ticks()
            .is_some_and(|deadline_ticks| now_ticks >= deadline_ticks)
    }

    /// Reads a register of either frame. Reading changes nothing; call [`Self::expired`] first.
    pub fn read(&self, frame: Frame, offset: u64, width_bytes: u8) -> Read {
        let word = self.word(frame, offset & !3);
        if width_bytes == 8 && offset & 7 == 0 {
            let high = self.word(frame, offset | 4);
            return Read::plain(u64::from(high) << 32 | u64::from(word));
        }
        Read::plain(cut(word, offset, width_bytes))
    }

    fn word(&self, frame: Frame, offset: u64) -> u32 {
        match (frame, offset) {
            (_, reg::W_IIDR) => W_IIDR,
            (Frame::Control, reg::WCS) => self.status(),
            (Frame::Control, reg::WOR_LOW) => low(self.offset_ticks),
            (Frame::Control, reg::WOR_HIGH) => low(self.offset_ticks >> 32),
            (Frame::Control, reg::WCV_LOW) => low(self.compare_ticks),
            (Frame::Control, reg::WCV_HIGH) => low(self.compare_ticks >> 32),
            _ => 0,
        }
    }

    const fn status(&self) -> u32 {
        (if self.enabled { WCS_ENABLE } else { 0 })
            | (if self.ws0 { WCS_WS0 } else { 0 })
            | (if self.ws1 { WCS_WS1 } else { 0 })
    }

    /// Writes a register of either frame: 32 bits, or 64 at a multiple of 8. Narrower writes
    /// are ignored: the architecture does not allow them.
    pub fn write(
        &mut self,
        frame: Frame,
        offset: u64,
        width_bytes: u8,
        value: u64,
        now_ticks: u64,
    ) -> Effects {
        match (width_bytes, offset & 7) {
            (4, 0 | 4) => self.write_word(frame, offset, low(value), now_ticks),
            (8, 0) => {
                self.write_word(frame, offset, low(value), now_ticks);
                self.write_word(frame, offset | 4, low(value >> 32), now_ticks);
            }
            _ => {}
        }
        Effects {
            output: None,
            irq: self.line.set(self.ws0),
        }
    }

    fn write_word(&mut self, frame: Frame, offset: u64, value: u32, now_ticks: u64) {
        let word = u64::from(value);
        match (frame, offset) {
            (Frame::Refresh, reg::WRR) => self.refresh(now_ticks),
            (Frame::Control, reg::WCS) => {
                self.enabled = value & WCS_ENABLE != 0;
                self.refresh(now_ticks);
            }
            (Frame::Control, reg::WOR_LOW) => {
                self.offset_ticks = (self.offset_ticks & !0xffff_ffff) | word;
                self.refresh(now_ticks);
            }
            (Frame::Control, reg::WOR_HIGH) => {
                self.offset_ticks =
                    ((self.offset_ticks & 0xffff_ffff) | (word << 32)) & OFFSET_MASK;
                self.refresh(now_ticks);
            }
            (Frame::Control, reg::WCV_LOW) => {
                self.compare_ticks = (self.compare_ticks & !0xffff_ffff) | word;
            }
            (Frame::Control, reg::WCV_HIGH) => {
                self.compare_ticks = (self.compare_ticks & 0xffff_ffff) | (word << 32);
            }
            _ => {}
        }
    }

    /// Starts the first period anew (an explicit refresh): both signals go down.
    fn refresh(&mut self, now_ticks: u64) {
        self.ws0 = false;
        self.ws1 = false;
        if self.enabled {
            self.compare_ticks = now_ticks.saturating_add(self.offset_ticks);
        }
    }
}

const fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}
