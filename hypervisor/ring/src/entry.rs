// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a queue hands out, and why it refuses.

/// Which record of a queue this is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position(pub(crate) u64);

impl Position {
    const EMERGENCY: u64 = 1 << 63;

    pub(crate) const fn at(number: u64) -> Self {
        Self(number)
    }

    pub(crate) const fn emergency(lap: u64) -> Self {
        Self(Self::EMERGENCY | lap)
    }

    /// Says whether the record stands in the slot that is reserved for a fatal one.
    pub const fn is_emergency(self) -> bool {
        self.0 & Self::EMERGENCY != 0
    }

    /// Returns the number of the record, counted from 0 for the queue (and on its own for the
    /// emergency slot).
    pub const fn number(self) -> u64 {
        self.0 & !Self::EMERGENCY
    }
}

/// Why a record was not taken in. The caller must leave its source unacknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refused {
    /// Every slot is in use, or the slot whose turn it is belongs to a record that is not
    /// finished.
    Full,
    /// So many records were published inside of this call that its bound was reached.
    Interrupted,
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "recovery queue full; the source stays unacknowledged",
            Self::Interrupted => {
                "recovery queue: interrupted too often; the source stays unacknowledged"
            }
        })
    }
}

impl core::error::Error for Refused {}

/// A record and where it came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<T> {
    /// Which record of its queue.
    pub position: Position,
    /// CNTPCT_EL0 as the producer passed it, in ticks.
    pub stamp_ticks: u64,
    /// Nesting level of the producer.
    pub nesting: u8,
    /// The record.
    pub value: T,
}

/// Numbers of a queue. Exact whenever nobody is inside of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Records published since boot.
    pub published: u64,
    /// Records finished.
    pub taken: u64,
    /// Records published and not finished.
    pub pending: u64,
    /// Slots whose producer has not published (yet).
    pub in_flight: u64,
    /// Publish calls that were refused.
    pub refused: u64,
    /// Slots taken back from producers that were lost.
    pub abandoned: u64,
}
