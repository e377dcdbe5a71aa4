// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast the shared line is, and who may put how much on it.
//!
//! A line carries a byte in ten bit times (8N1). Guests' consoles get half of that, in equal parts; events
//! that guests cause get an eighth, and so do errors that are only logged. A quarter is left for
//! what nobody may leave out: errors that change something, lives of partitions, answers.
//!
//! What may come at once is as short: all consoles together hold the line for [`HOLD_UP_MS`] at
//! most, and events that guests cause for half as long, unless a share would be too small to be of
//! use. So nobody who has something to say stands behind more than [`LineShares::hold_up_bytes`].
//!
//! There are least shares as well: 640 bytes at once for a console, an event a second (two at once) for a
//! guest, a logged error a second (16 at once) for a PE. On a line that is slow for so many partitions and PEs
//! they are more than the parts above, and the bound holds of what comes at once alone.

use crate::budget::OutputBudget;
use crate::console::{EMPTY_FRAME_BYTES, FRAME_BYTES};

/// Speed that is assumed where the UART has a divisor, but nobody says by which clock it runs.
pub const DEFAULT_BITS_PER_SECOND: u32 = 115_200;

/// How long the consoles' bursts may take on the line, all of them together.
pub const HOLD_UP_MS: u64 = 250;

/// Start bit, eight data bits, stop bit.
const BITS_PER_BYTE: u64 = 10;
/// What an event that a guest causes takes on the line, at most.
pub const GUEST_EVENT_BYTES: u64 = 256;
/// The same of the event that tells how much was left out.
const TOLD_BYTES: u64 = 128;
/// The same of an error event.
const ERROR_EVENT_BYTES: u64 = 512;

/// A console's smallest burst: what stops it ([`ConsoleBudget::opens_at`]) has to fit in.
const LEAST_BURST_BYTES: u64 = 640;
const LEAST_EVENT_BURST: u64 = 2;
const LEAST_REPORT_BURST: u64 = 16;

/// What each guest's console may print where the line takes no time, and the most of everything else.
const FREE_BYTES_PER_SECOND: u64 = 128 * 1024;
const FREE_BURST_BYTES: u64 = 256 * 1024;
const MOST_EVENTS_PER_SECOND: u64 = 20;
const MOST_EVENT_BURST: u64 = 200;
const MOST_REPORTS_PER_SECOND: u64 = 64;
const MOST_REPORT_BURST: u64 = 256;

/// What is known of the line behind a PL011.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineSpeed {
    /// It has this speed.
    BitsPerSecond(u32),
    /// An emulated UART, whose bytes take no time.
    Emulated,
}

impl LineSpeed {
    /// Judges by the devicetree (`current-speed` of the UART, and the rate of its first clock) and
    /// by UARTIBRD and UARTFBRD as the firmware left them.
    ///
    /// A PL011 without a divisor sends nothing: one that does is an emulation (QEMU's).
    pub fn find(current_speed: Option<u32>, clock_hz: Option<u32>, divisor: Divisor) -> Self {
        match (current_speed, clock_hz, divisor.in_64ths()) {
            (Some(speed @ 1..), ..) => Self::BitsPerSecond(speed),
            (_, _, 0) => Self::Emulated,
            // Baud rate = UARTCLK / (16 * divisor) (Arm DDI 0183, 3.3.6).
            (_, Some(hz @ 1..), divisor) => {
                let speed = u64::from(hz) * 4 / u64::from(divisor);
                Self::BitsPerSecond(u32::try_from(speed).unwrap_or(u32::MAX).max(1))
            }
            _ => Self::BitsPerSecond(DEFAULT_BITS_PER_SECOND),
        }
    }

    /// Returns the speed, unless the line takes no time.
    pub const fn bits_per_second(self) -> Option<u32> {
        match self {
            Self::BitsPerSecond(speed) => Some(speed),
            Self::Emulated => None,
        }
    }
}

/// The baud rate divisor of a PL011.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Divisor {
    /// UARTIBRD.
    pub integer: u16,
    /// UARTFBRD, in 64ths.
    pub fraction: u8,
}

impl Divisor {
    /// Returns it in 64ths; 0 if there is none. UARTIBRD of 0 is none, whatever UARTFBRD says.
    const fn in_64ths(self) -> u32 {
        match self.integer {
            0 => 0,
            integer => integer as u32 * 64 + (self.fraction & 0x3f) as u32,
        }
    }
}

/// Who may put how much on the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LineShares {
    /// Bytes that each partition's console may put on the line in a second, names and escapes included.
    pub console_bytes_per_second: u64,
    /// The same at once.
    pub console_burst_bytes: u64,
    /// Events that each partition's guest may cause in a second.
    pub events_per_second: u64,
    /// The same at once.
    pub event_burst: u64,
    /// Errors that are only logged of which each PE tells in a second.
    pub reports_per_second: u64,
    /// The same at once.
    pub report_burst: u64,
}

impl LineShares {
    /// Divides a line among partitions and PEs.
    pub const fn of(speed: LineSpeed, partitions: usize, pes: usize) -> Self {
        let bits = match speed {
            LineSpeed::Emulated => {
                return Self {
                    console_bytes_per_second: FREE_BYTES_PER_SECOND,
                    console_burst_bytes: FREE_BURST_BYTES,
                    events_per_second: MOST_EVENTS_PER_SECOND,
                    event_burst: MOST_EVENT_BURST,
                    reports_per_second: MOST_REPORTS_PER_SECOND,
                    report_burst: MOST_REPORT_BURST,
                };
            }
            LineSpeed::BitsPerSecond(bits) => bits as u64,
        };
        let (partitions, pes) = (at_least(partitions as u64, 1), at_least(pes as u64, 1));
        let bytes = bits / BITS_PER_BYTE;
        let burst = bytes * HOLD_UP_MS / 1000;
        let events = partitions * GUEST_EVENT_BYTES;
        let reports = pes * ERROR_EVENT_BYTES;
        Self {
            console_bytes_per_second: at_least(bytes / 2 / partitions, 1),
            console_burst_bytes: at_least(burst / partitions, LEAST_BURST_BYTES),
            events_per_second: within(bytes / 8 / events, 1, MOST_EVENTS_PER_SECOND),
            event_burst: within(burst / 2 / events, LEAST_EVENT_BURST, MOST_EVENT_BURST),
            reports_per_second: within(bytes / 8 / reports, 1, MOST_REPORTS_PER_SECOND),
            report_burst: within(burst / 2 / reports, LEAST_REPORT_BURST, MOST_REPORT_BURST),
        }
    }

    /// Returns the most that all guests of so many partitions together can have put before whoever
    /// comes next, by their consoles and by events that they cause.
    pub const fn hold_up_bytes(&self, partitions: usize) -> u64 {
        (self.console_burst_bytes + self.event_burst * GUEST_EVENT_BYTES) * partitions as u64
    }
}

const fn at_least(value: u64, least: u64) -> u64 {
    if value < least { least } else { value }
}

const fn within(value: u64, least: u64, most: u64) -> u64 {
    let value = at_least(value, least);
    if value > most { most } else { value }
}

/// The bytes of one console: a guest that looks before it writes is stopped before it loses any.
#[derive(Clone, Copy, Debug)]
pub struct ConsoleBudget {
    bucket: OutputBudget,
    /// With this much to spend, a console that was full is open again.
    reopen_bytes: u64,
}

impl ConsoleBudget {
    /// Below this a console is full. What is left is for a driver that writes without looking, as
    /// drivers do after a transmit interrupt: half a FIFO of line feeds, the first of which ends a line
    /// that was nearly whole, and the last of which is admitted as if it did.
    const FULL_BYTES: u64 = 2 * FRAME_BYTES + 14 * EMPTY_FRAME_BYTES;

    /// Makes one that may spend its whole burst, for a counter that stands at `now_ticks`.
    pub const fn new(shares: &LineShares, ticks_per_second: u64, now_ticks: u64) -> Self {
        let (rate, burst) = (shares.console_bytes_per_second, shares.console_burst_bytes);
        // A pause is as long as a frame takes by this share, and 20 ms at least.
        let pause = at_least(rate / 50, FRAME_BYTES);
        Self {
            bucket: OutputBudget::new(rate, burst, ticks_per_second, now_ticks),
            reopen_bytes: within(Self::FULL_BYTES + pause, 0, burst),
        }
    }

    /// Says whether a byte may come; one that may not is counted. There is enough for the frame that
    /// it may complete then, and for the line that tells what was left out.
    pub fn admits(&mut self, now_ticks: u64) -> bool {
        let told = match self.bucket.suppressed() {
            0 => 0,
            _ => TOLD_BYTES,
        };
        self.bucket.is_open(now_ticks, FRAME_BYTES + told) || {
            self.bucket.refuse(1);
            false
        }
    }

    /// Takes what was put on the line.
    pub fn spend(&mut self, bytes: u64) {
        self.bucket.spend(bytes);
    }

    /// Says whether the guest has to wait now.
    pub fn is_full(&mut self, now_ticks: u64) -> bool {
        !self.bucket.is_open(now_ticks, Self::FULL_BYTES)
    }

    /// Says when a full console is open again, by the same counter; `None`: it is.
    pub fn opens_at(&mut self, now_ticks: u64) -> Option<u64> {
        match self.bucket.ticks_until_open(now_ticks, self.reopen_bytes) {
            0 => None,
            ticks => Some(now_ticks.saturating_add(ticks)),
        }
    }

    /// Returns how many bytes were refused, and starts to count anew: whoever calls this tells it,
    /// and that is paid for.
    pub fn take_suppressed(&mut self) -> u64 {
        let count = self.bucket.take_suppressed();
        if count != 0 {
            self.bucket.spend(TOLD_BYTES);
        }
        count
    }
}

#[cfg(test)]
mod tests;
