// SPDX-License-Identifier: MIT OR Apache-2.0
//! One PE's error source as the firmware sees it: whose turn is it with the status block?
//!
//! ```text
//!            raise, deliverable                      EL2 acknowledges
//!   Idle ------------------------> Outstanding ------------------------> Idle
//!     |                                 ^
//!     | raise, cannot be taken          | retry succeeds: SEI
//!     +-----------> Deferred -----------+
//!                   (pending word set)    EL2 takes it: pending word cleared
//! ```
//!
//! The block is written in `Idle` alone. The pending word decides who hands a deferred record
//! over: EL2 takes it by swapping the word to 0, the firmware clears the word before it enters
//! EL2. Both run on the PE that owns the block, so one of them always comes first, once.

use firebreak_syndrome::Severity;

use crate::overlay::{Act, ResetReason};
use crate::route::{DeferReason, Target};

/// Times of the deferral, in ticks of CNTPCT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// From one attempt to deliver a deferred record to the next.
    pub retry_ticks: u64,
    /// The longest that an uncorrected error may wait.
    pub deferral_ticks: u64,
}

impl Limits {
    /// Microseconds between two attempts.
    pub const RETRY_US: u64 = 100;
    /// Milliseconds until an uncorrected error that nobody takes resets the machine.
    pub const DEFERRAL_MS: u64 = 5_000;

    /// Scales the contract's times to a counter frequency in Hz (CNTFRQ_EL0). At least one tick.
    pub const fn from_frequency(cntfrq_hz: u64) -> Self {
        let retry = cntfrq_hz.saturating_mul(Self::RETRY_US) / 1_000_000;
        let deferral = cntfrq_hz.saturating_mul(Self::DEFERRAL_MS) / 1_000;
        Self {
            retry_ticks: if retry == 0 { 1 } else { retry },
            deferral_ticks: if deferral == 0 { 1 } else { deferral },
        }
    }
}

/// Where a source stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceState {
    /// The block is the firmware's.
    Idle,
    /// The record was handed over and is not acknowledged: the block is EL2's.
    Outstanding,
    /// A record stands in the block, with the pending word set, and was not handed over.
    Deferred {
        /// CNTPCT when it was raised.
        since_ticks: u64,
        /// Failed attempts, the first one included.
        tries: u32,
        /// It is a corrected error: it waits for as long as it takes.
        corrected: bool,
    },
}

/// An error that arrives at a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Raise {
    /// CNTPCT.
    pub now_ticks: u64,
    /// What [`overlay`](crate::overlay()) says about it, now.
    pub act: Act,
    /// How bad it is: the severity that `act` was made from.
    pub severity: Severity,
}

/// What the firmware has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Count the error; it is not recorded.
    Count,
    /// The block is in use: keep the error in the [`Backlog`].
    Hold,
    /// Write the record and clear the read-ack register, then enter the target.
    RecordAndNotify {
        /// The level.
        target: Target,
        /// Offset from that level's VBAR, in bytes.
        vector_offset: u16,
    },
    /// Write the record and clear the read-ack register, set the pending word, and call
    /// [`Source::on_retry`] at this time (CNTPCT).
    RecordAndPend {
        /// When to try again.
        retry_at_ticks: u64,
        /// For the `fw: deferred` line.
        reason: DeferReason,
    },
    /// Clear the pending word and enter the target: the record stands already.
    Notify {
        /// The level.
        target: Target,
        /// Offset from that level's VBAR, in bytes.
        vector_offset: u16,
    },
    /// Still not: call [`Source::on_retry`] again at this time (CNTPCT).
    RetryAt(u64),
    /// EL2 took the deferred record by itself.
    Taken,
    /// The record is acknowledged and the block free: raise the next one of the [`Backlog`].
    Free,
    /// Write the boot error record and reset the machine.
    ResetWithBert(ResetReason),
}

/// The state machine of one PE's source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    state: SourceState,
    limits: Limits,
}

impl Source {
    /// Makes a source whose block is free.
    pub const fn new(limits: Limits) -> Self {
        Self {
            state: SourceState::Idle,
            limits,
        }
    }

    /// Returns where the source stands.
    pub const fn state(&self) -> SourceState {
        self.state
    }

    /// Takes a new error, or the next one of the backlog.
    ///
    /// Call [`on_poll`](Self::on_poll) first, so that an acknowledgement is not overlooked.
    ///
    /// What resets the machine does so whatever stands in the block, and what is only counted
    /// needs no block. Everything else needs the block. A corrected error or a UEO waits until
    /// it is free; anything worse cannot, because the interrupted context would go on without
    /// anyone having dealt with the error, and an SEI whose block holds another error's record
    /// would be mistaken for that one. A firmware that knows an error to be simulated, so that
    /// nothing goes on with bad data, may keep it in the [`Backlog`] without asking.
    pub const fn on_raise(&mut self, raise: Raise) -> Action {
        match (raise.act, self.state) {
            (Act::ResetWithBert(reason), _) => Action::ResetWithBert(reason),
            (Act::LogOnly, _) => Action::Count,
            (_, SourceState::Outstanding | SourceState::Deferred { .. }) => match raise.severity {
                Severity::Corrected | Severity::Restartable => Action::Hold,
                _ => Action::ResetWithBert(ResetReason::CannotWait),
            },
            (
                Act::Notify {
                    target,
                    vector_offset,
                },
                SourceState::Idle,
            ) => {
                self.state = SourceState::Outstanding;
                Action::RecordAndNotify {
                    target,
                    vector_offset,
                }
            }
            (Act::Defer(reason), SourceState::Idle) => {
                self.state = SourceState::Deferred {
                    since_ticks: raise.now_ticks,
                    tries: 1,
                    corrected: raise.severity.rank() == Severity::Corrected.rank(),
                };
                let retry_at_ticks = raise.now_ticks.saturating_add(self.limits.retry_ticks);
                Action::RecordAndPend {
                    retry_at_ticks,
                    reason,
                }
            }
        }
    }

    /// Tries to hand a deferred record over: when its time has come, and when EL2 says that it
    /// unmasked.
    ///
    /// `pending` is the pending word as it stands; `act` is what [`overlay`](crate::overlay())
    /// says about the deferred error now.
    pub const fn on_retry(&mut self, now_ticks: u64, pending: u64, act: Act) -> Action {
        let SourceState::Deferred {
            since_ticks,
            tries,
            corrected,
        } = self.state
        else {
            return Action::Nothing;
        };
        if pending == 0 {
            self.state = SourceState::Outstanding;
            return Action::Taken;
        }
        match act {
            Act::Notify {
                target,
                vector_offset,
            } => {
                self.state = SourceState::Outstanding;
                Action::Notify {
                    target,
                    vector_offset,
                }
            }
            // The error could wait when it was raised. What EL2 does meanwhile makes it no
            // worse, so the limit alone ends the wait.
            Act::Defer(_) | Act::LogOnly | Act::ResetWithBert(_) => {
                let waited_ticks = now_ticks.saturating_sub(since_ticks);
                if !corrected && waited_ticks >= self.limits.deferral_ticks {
                    return Action::ResetWithBert(ResetReason::DeferralLimit);
                }
                let tries = tries.saturating_add(1);
                self.state = SourceState::Deferred {
                    since_ticks,
                    tries,
                    corrected,
                };
                Action::RetryAt(now_ticks.saturating_add(self.limits.retry_ticks))
            }
        }
    }

    /// Looks at the source's words: `pending` and whether the read-ack register says that the
    /// block may be written.
    ///
    /// EL2 takes a deferred record and acknowledges it without telling the firmware, so both
    /// steps may be seen at once: the answer is then [`Action::Free`].
    pub const fn on_poll(&mut self, pending: u64, acked: bool) -> Action {
        match (self.state, pending, acked) {
            (SourceState::Outstanding, _, true) | (SourceState::Deferred { .. }, 0, true) => {
                self.state = SourceState::Idle;
                Action::Free
            }
            (SourceState::Deferred { .. }, 0, false) => {
                self.state = SourceState::Outstanding;
                Action::Taken
            }
            _ => Action::Nothing,
        }
    }
}

/// Errors that the firmware could not record yet, oldest first. What does not fit is counted.
#[derive(Clone, Debug)]
pub struct Backlog<T, const N: usize> {
    slots: [Option<T>; N],
    first: usize,
    len: usize,
    dropped: u64,
}

impl<T: Copy, const N: usize> Backlog<T, N> {
    /// Makes an empty one.
    pub const fn new() -> Self {
        Self {
            slots: [None; N],
            first: 0,
            len: 0,
            dropped: 0,
        }
    }

    /// Returns the number of errors that wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Says whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns how many errors did not fit and are lost.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the errors that wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    /// Appends. When it is full the new error is lost and counted, and the answer is `false`.
    pub fn push(&mut self, error: T) -> bool {
        let index = if N == 0 {
            0
        } else {
            (self.first + self.len) % N
        };
        match self.slots.get_mut(index) {
            Some(slot) if self.len < N => {
                *slot = Some(error);
                self.len += 1;
                true
            }
            _ => {
                self.dropped = self.dropped.saturating_add(1);
                false
            }
        }
    }

    /// Removes the oldest.
    pub fn pop(&mut self) -> Option<T> {
        let error = self.slots.get_mut(self.first).and_then(Option::take)?;
        self.first = (self.first + 1) % N;
        self.len -= 1;
        Some(error)
    }
}

impl<T: Copy, const N: usize> Default for Backlog<T, N> {
    fn default() -> Self {
        Self::new()
    }
}
