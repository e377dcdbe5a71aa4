// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storm: one error after the other on one PE, each raised as soon as the block is free again.

use firebreak_abi::Pa;

use super::{Error, Event};

/// What the host asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StormRequest {
    /// The first error; the numbers of the others count up from its number.
    pub first: Error,
    /// Errors in all.
    pub count: u64,
    /// From the address of one error to that of the next, in bytes.
    pub step_bytes: u64,
    /// Whether the first one waits until EL0 or EL1 runs on that PE.
    pub in_guest: bool,
    /// Ticks of CNTPCT between two looks at the block. `None`: a tenth of the retry time.
    pub gap_ticks: Option<u64>,
}

/// What became of the errors of a storm.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StormCounts {
    /// Errors that happened.
    pub raised: u64,
    /// Handed over by an SEI.
    pub delivered: u64,
    /// That had to wait for their target.
    pub deferred: u64,
    /// Deferred ones that EL2 took by itself.
    pub taken: u64,
    /// Records that EL2 acknowledged.
    pub acked: u64,
    /// Lost or not recorded.
    pub dropped: u64,
}

/// A storm under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storm {
    request: StormRequest,
    counts: StormCounts,
}

impl Storm {
    pub(super) const fn new(request: StormRequest) -> Self {
        let counts = StormCounts {
            raised: 0,
            delivered: 0,
            deferred: 0,
            taken: 0,
            acked: 0,
            dropped: 0,
        };
        Self { request, counts }
    }

    /// Says whether it has to wait for a guest.
    pub(super) const fn waits_for_guest(&self) -> bool {
        self.request.in_guest && self.counts.raised == 0
    }

    /// Returns the next error, or `None` when all have been raised.
    pub(super) fn next(&self) -> Option<Error> {
        let number = self.counts.raised;
        (number < self.request.count).then_some(Error {
            id: self.request.first.id.wrapping_add(number),
            pa: self.address(number),
            in_storm: true,
            ..self.request.first
        })
    }

    fn address(&self, number: u64) -> Option<Pa> {
        let offset = number.wrapping_mul(self.request.step_bytes);
        let first = self.request.first.pa?;
        Some(Pa::new(first.get().wrapping_add(offset)))
    }

    pub(super) const fn first(&self) -> &Error {
        &self.request.first
    }

    pub(super) const fn counts(&self) -> &StormCounts {
        &self.counts
    }

    pub(super) fn gap_ticks(&self, retry_ticks: u64) -> u64 {
        self.request.gap_ticks.unwrap_or(retry_ticks / 10).max(1)
    }

    /// Counts what became of one of its errors.
    pub(super) fn note(&mut self, event: Event) {
        let counter = match event {
            Event::Raised => &mut self.counts.raised,
            Event::Delivered { .. } => &mut self.counts.delivered,
            Event::Deferred(_) => &mut self.counts.deferred,
            Event::Taken => &mut self.counts.taken,
            Event::Acked => &mut self.counts.acked,
            Event::Dropped(_) => &mut self.counts.dropped,
            Event::Handled | Event::Reset(_) => return,
        };
        *counter = counter.saturating_add(1);
    }
}
