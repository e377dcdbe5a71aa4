// SPDX-License-Identifier: MIT OR Apache-2.0
//! PL031 real-time clock (Arm DDI 0224): seconds, and one alarm.
//!
//! The kernel passes the time, in seconds since whatever epoch it keeps, to every call. It must
//! not run backwards.

use crate::IrqLevel;
use crate::access::{Effects, Line, PRIMECELL_ID, Read, cut, id_byte};

/// Peripheral identification: part 0x031, designer Arm.
const PERIPHERAL_ID: u32 = 0x0004_1031;

/// Offsets of the registers.
pub mod reg {
    /// Data: the time.
    pub const DR: u64 = 0x000;
    /// Match: the alarm.
    pub const MR: u64 = 0x004;
    /// Load: sets the time.
    pub const LR: u64 = 0x008;
    /// Control.
    pub const CR: u64 = 0x00c;
    /// Interrupt mask.
    pub const IMSC: u64 = 0x010;
    /// Raw interrupt status.
    pub const RIS: u64 = 0x014;
    /// Masked interrupt status.
    pub const MIS: u64 = 0x018;
    /// Interrupt clear.
    pub const ICR: u64 = 0x01c;
}

/// The real-time clock of one guest.
#[derive(Clone, Copy, Debug)]
pub struct Pl031 {
    /// What the data register reads at second 0 of the kernel's time.
    offset_s: u32,
    match_s: u32,
    load_s: u32,
    masked: bool,
    raw: bool,
    alarm_at_s: Option<u64>,
    line: Line,
}

impl Pl031 {
    /// Makes a clock that reads `epoch_s` when the kernel's time is 0.
    pub const fn new(epoch_s: u32) -> Self {
        Self {
            offset_s: epoch_s,
            match_s: 0,
            load_s: 0,
            masked: true,
            raw: false,
            alarm_at_s: None,
            line: Line::LOW,
        }
    }

    /// Takes the alarm back, as a reset of the guest does; the time, which a battery keeps, goes
    /// on.
    pub fn reset(&mut self) -> Effects {
        let mut line = self.line;
        *self = Self {
            load_s: self.load_s,
            ..Self::new(self.offset_s)
        };
        Effects {
            output: None,
            irq: line.set(false),
        }
    }

    /// Returns the second at which the alarm goes off, if one is set and not masked.
    pub const fn next_alarm_s(&self) -> Option<u64> {
        if self.masked { None } else { self.alarm_at_s }
    }

    /// Lets time pass: the alarm may go off.
    pub fn advance(&mut self, now_s: u64) -> Option<IrqLevel> {
        if self.alarm_at_s.is_some_and(|at_s| now_s >= at_s) {
            self.alarm_at_s = None;
            self.raw = true;
        }
        self.line.set(self.raw && !self.masked)
    }

    /// Reads a register.
    pub fn read(&mut self, offset: u64, width_bytes: u8, now_s: u64) -> Read {
        let irq = self.advance(now_s);
        let register = match offset & !3 {
            reg::DR => self.time(now_s),
            reg::MR => self.match_s,
            reg::LR => self.load_s,
            // The clock cannot be stopped.
            reg::CR => 1,
            reg::IMSC => u32::from(!self.masked),
            reg::RIS => u32::from(self.raw),
            reg::MIS => u32::from(self.raw && !self.masked),
            id @ 0xfe0..=0xfec => id_byte(PERIPHERAL_ID, id >> 2),
            id @ 0xff0..=0xffc => id_byte(PRIMECELL_ID, id >> 2),
            _ => 0,
        };
        Read {
            value: cut(register, offset, width_bytes),
            irq,
        }
    }

    /// Writes a register. A write that does not start at a register's first byte is ignored.
    pub fn write(&mut self, offset: u64, _width_bytes: u8, value: u64, now_s: u64) -> Effects {
        let value = (value & 0xffff_ffff) as u32;
        let before = self.advance(now_s);
        match offset {
            reg::MR => {
                self.match_s = value;
                self.set_alarm(now_s);
            }
            reg::LR => {
                self.load_s = value;
                self.offset_s = value.wrapping_sub(low_word(now_s));
                self.set_alarm(now_s);
            }
            reg::IMSC => self.masked = value & 1 == 0,
            reg::ICR => self.raw &= value & 1 == 0,
            _ => {}
        }
        let irq = self.advance(now_s);
        // Raised and lowered by the same write: the kernel never saw the line up.
        let irq = if before.is_some() && irq.is_some() {
            None
        } else {
            irq.or(before)
        };
        Effects { output: None, irq }
    }

    const fn time(&self, now_s: u64) -> u32 {
        self.offset_s.wrapping_add(low_word(now_s))
    }

    /// Arms the alarm for the next time that the 32-bit clock reads the match register.
    fn set_alarm(&mut self, now_s: u64) {
        let ahead_s = self.match_s.wrapping_sub(self.time(now_s));
        self.alarm_at_s = now_s.checked_add(u64::from(ahead_s));
    }
}

const fn low_word(seconds: u64) -> u32 {
    (seconds & 0xffff_ffff) as u32
}
