// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of an error on one PE: raised, handed over or deferred, acknowledged, or the end of
//! the machine.
//!
//! `firebreak-contract` decides each step; this module keeps what the steps need between two
//! visits of EL3 (the record's error, the backlog, delayed errors) and carries the decisions to a
//! [`Machine`]. The binary's machine is the PE and its source page, the tests' a model of them.

use firebreak_abi::Pa;
use firebreak_contract::{
    Act, Action, Backlog, Limits, MaskedUerPolicy, Origin, OverlayPolicy, Raise, ResetReason,
    Severity, Source, SourceState, Target, origin,
};
use firebreak_syndrome::{CperSeverity, Iss, external_abort_state};

use crate::abort::{self, Abort};
use crate::behavior::{self, Mode, Modes, SLOW_FACTOR};

mod misbehave;
mod sea;
mod storm;

use storm::Storm;
pub use storm::{StormCounts, StormRequest};

/// Errors that one PE can hold while its block is in use.
pub const BACKLOG: usize = 16;
/// Errors of one PE that can wait for their moment.
pub const DELAYED: usize = 8;

/// What is raised on demand was consumed by nobody, so the interrupted context may go on while a
/// recoverable one waits.
const POLICY: OverlayPolicy = OverlayPolicy {
    masked_uer: MaskedUerPolicy::Defer,
    ..OverlayPolicy::DEFAULT
};

/// An error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error {
    /// Number that whoever raised it gave to it.
    pub id: u64,
    /// Syndrome.
    pub iss: Iss,
    /// Address that is bad.
    pub pa: Option<Pa>,
    /// Severity of its record; `None`: it comes without a record.
    pub record: Option<CperSeverity>,
    /// It is an SEA, and `iss` that of an abort; `None`: it is an SEI.
    pub abort: Option<Abort>,
    /// Something was really consumed: the interrupted context cannot go on before EL2 has dealt
    /// with it. Otherwise the error is simulated.
    pub real: bool,
    /// How the firmware treats it; `None`: as it treats every error of that PE.
    pub modes: Option<Modes>,
    /// It is one of very many: it is counted, not told line by line.
    pub in_storm: bool,
}

impl Error {
    /// Makes an SEI that is treated as the PE treats every error.
    pub const fn sei(id: u64, iss: Iss, pa: Option<Pa>, record: Option<CperSeverity>) -> Self {
        Self {
            id,
            iss,
            pa,
            record,
            abort: None,
            real: false,
            modes: None,
            in_storm: false,
        }
    }
}

/// An error and the moment at which it is to be raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The error.
    pub error: Error,
    /// Ticks of CNTPCT from the moment at which EL3 of the target PE is left.
    pub delay_ticks: u64,
    /// Whether to wait, from then on, until EL0 or EL1 runs on the target PE.
    pub in_guest: bool,
}

/// What a PE can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// One error.
    Raise(Request),
    /// Very many.
    Storm(StormRequest),
}

/// What EL3 interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// SPSR_EL3.
    pub spsr: u64,
    /// ELR_EL3.
    pub elr: u64,
    /// HCR_EL2.
    pub hcr_el2: u64,
    /// HCRX_EL2.TMEA, where it exists.
    pub tmea: bool,
}

impl Context {
    /// Returns the interrupted exception level.
    pub fn origin(&self) -> Origin {
        // A mode that does not exist is nobody's; the route says what to do about it.
        origin(self.spsr).unwrap_or(Origin::El3)
    }
}

/// A line for the log, and a step for the counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The error happens now.
    Raised,
    /// It was handed over.
    Delivered {
        /// Interrupted level.
        from: Origin,
        /// Vector offset.
        vector_offset: u16,
        /// Interrupted instruction.
        elr: u64,
    },
    /// It has to wait.
    Deferred(&'static str),
    /// EL2 took the deferred record by itself.
    Taken,
    /// EL2 acknowledged the record.
    Acked,
    /// The firmware dealt with it by itself.
    Handled,
    /// It is lost, for this reason.
    Dropped(&'static str),
    /// It ends the machine.
    Reset(ResetReason),
}

/// What this module needs of a PE and its source page.
pub trait Machine {
    /// Returns CNTPCT.
    fn now_ticks(&self) -> u64;
    /// Returns the interrupted context, or `None` on a PE that is off.
    fn context(&self) -> Option<Context>;
    /// Says whether the PE has FEAT_RAS: without, a syndrome says nothing.
    fn has_ras(&self) -> bool;
    /// Returns how this PE treats errors that do not say so themselves.
    fn behavior(&self) -> Modes;
    /// Says whether the read-ack register allows the block to be written.
    fn acked(&self) -> bool;
    /// Returns the pending word.
    fn pending(&self) -> u64;
    /// Clears the read-ack register, then writes the record, with the lies that belong to it.
    fn write_record(&mut self, error: &Error, modes: Modes);
    /// Marks the block empty, after its record was acknowledged.
    fn clear_record(&mut self);
    /// Writes the syndrome word, then sets the pending word.
    fn set_pending(&mut self, iss: Iss);
    /// Clears the pending word; `false` when EL2 was first.
    fn take_pending(&mut self) -> bool;
    /// Makes the context below EL3 look as if it had taken the error.
    fn notify(&mut self, error: &Error, target: Target, vector_offset: u16);
    /// Waits, but not for ever, until another PE reports the same error.
    fn meet(&mut self, error: &Error);
    /// Lets time pass.
    fn pass_time(&mut self);
    /// Counts and logs.
    fn event(&mut self, error: &Error, event: Event);
    /// Tells how a storm went that is over.
    fn storm_over(&mut self, first: &Error, counts: &StormCounts);
    /// Writes the boot error record and resets. Does not return on a real machine.
    fn reset(&mut self, error: &Error, reason: ResetReason);
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So many ticks after EL3 is left.
    In(u64),
    /// At this CNTPCT.
    At(u64),
}

#[derive(Clone, Copy, Debug)]
struct Delayed {
    request: Request,
    moment: Moment,
}

/// All errors of one PE.
#[derive(Debug)]
pub struct PeErrors {
    source: Source,
    /// The error whose record stands in the block.
    current: Option<Error>,
    backlog: Backlog<Held, BACKLOG>,
    delayed: [Option<Delayed>; DELAYED],
    storm: Option<Storm>,
    poll_at_ticks: Option<u64>,
    limits: Limits,
}

/// An error that waits for the block.
#[derive(Clone, Copy, Debug)]
struct Held {
    error: Error,
    /// CNTPCT since when it waits.
    since_ticks: u64,
}

impl PeErrors {
    /// Makes the state after reset.
    pub const fn new(limits: Limits) -> Self {
        Self {
            source: Source::new(limits),
            current: None,
            backlog: Backlog::new(),
            delayed: [None; DELAYED],
            storm: None,
            poll_at_ticks: None,
            limits,
        }
    }

    /// Says whether no error is outstanding, deferred, held or delayed.
    pub fn is_quiet(&self) -> bool {
        self.source.state() == SourceState::Idle
            && self.backlog.is_empty()
            && self.delayed.iter().all(Option::is_none)
            && self.storm.is_none()
    }

    /// Takes an order.
    pub fn order(&mut self, machine: &mut impl Machine, order: Order) {
        match order {
            Order::Raise(request) => self.request(machine, request),
            Order::Storm(request) if self.storm.is_some() => {
                machine.event(&request.first, Event::Dropped("storm-under-way"));
            }
            Order::Storm(request) => {
                self.storm = Some(Storm::new(request));
                self.go_on_with_storm(machine);
            }
        }
    }

    /// Takes a request.
    pub fn request(&mut self, machine: &mut impl Machine, request: Request) {
        if request.delay_ticks == 0 && !request.in_guest {
            return self.happen(machine, request.error);
        }
        let delayed = Delayed {
            request,
            moment: Moment::In(request.delay_ticks),
        };
        match self.delayed.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(delayed),
            None => machine.event(&request.error, Event::Dropped("too-many-delayed")),
        }
    }

    /// Does what is due: on the timer, and whenever EL3 is entered for an error.
    ///
    /// `unmasked`: EL2 says that a deferred error can be taken now.
    pub fn service(&mut self, machine: &mut impl Machine, unmasked: bool) {
        self.poll(machine);
        let now = machine.now_ticks();
        if unmasked || self.poll_at_ticks.is_some_and(|at| now >= at) {
            self.retry(machine);
        }
        for index in 0..DELAYED {
            let due = self.delayed.get_mut(index).and_then(|slot| {
                slot.take_if(|delayed| matches!(delayed.moment, Moment::At(at) if now >= at))
            });
            if let Some(delayed) = due {
                self.moment_came(machine, delayed.request, index);
            }
        }
        self.end_a_wait_too_long(machine);
        self.go_on_with_storm(machine);
        self.schedule_poll(machine);
    }

    /// Returns when the timer has to fire next, if at all. Called last before EL3 is left: delays
    /// count from here.
    pub fn next_deadline(&mut self, now_ticks: u64) -> Option<u64> {
        let look = self
            .storm
            .map(|storm| now_ticks.saturating_add(storm.gap_ticks(self.limits.retry_ticks)));
        let mut deadline = match (self.poll_at_ticks, look) {
            (Some(poll), Some(look)) => Some(poll.min(look)),
            (poll, look) => poll.or(look),
        };
        for delayed in self.delayed.iter_mut().flatten() {
            if let Moment::In(ticks) = delayed.moment {
                delayed.moment = Moment::At(now_ticks.saturating_add(ticks));
            }
            if let Moment::At(at) = delayed.moment {
                deadline = Some(deadline.map_or(at, |other: u64| other.min(at)));
            }
        }
        deadline
    }

    /// Raises the next error of a storm if the block is free, one for each visit of EL3.
    fn go_on_with_storm(&mut self, machine: &mut impl Machine) {
        let Some(storm) = self.storm else {
            return;
        };
        if storm.waits_for_guest() && !is_guest(machine) {
            return;
        }
        let overwrites = modes(machine, storm.first()).has(Mode::EarlyOverwrite);
        match storm.next() {
            Some(error) if overwrites || self.block_is_free() => self.happen(machine, error),
            None if self.block_is_free() => {
                self.storm = None;
                machine.storm_over(storm.first(), storm.counts());
            }
            _ => {}
        }
    }

    /// Counts and logs.
    fn tell(&mut self, machine: &mut impl Machine, error: &Error, event: Event) {
        if let Some(storm) = self.storm.as_mut().filter(|_| error.in_storm) {
            storm.note(event);
        }
        machine.event(error, event);
    }

    fn moment_came(&mut self, machine: &mut impl Machine, request: Request, index: usize) {
        if !request.in_guest || is_guest(machine) {
            return self.happen(machine, request.error);
        }
        // Not yet: look again soon, off the beat of whatever keeps this PE in EL2.
        let again = machine
            .now_ticks()
            .saturating_add(self.limits.retry_ticks / 8 + 1);
        if let Some(slot) = self.delayed.get_mut(index) {
            *slot = Some(Delayed {
                request,
                moment: Moment::At(again),
            });
        }
    }

    /// The error happens.
    fn happen(&mut self, machine: &mut impl Machine, error: Error) {
        self.tell(machine, &error, Event::Raised);
        self.poll(machine);
        if let Some(error) = self.misbehave(machine, error) {
            self.raise(machine, error);
        }
        self.schedule_poll(machine);
    }

    fn raise(&mut self, machine: &mut impl Machine, error: Error) {
        let severity = severity(machine, &error);
        let act = decide(machine, &error, severity);
        if error.abort.is_some() {
            return self.raise_abort(machine, error, act, severity);
        }
        if error.real || matches!(act, Act::ResetWithBert(_) | Act::LogOnly) || self.block_is_free()
        {
            let raise = Raise {
                now_ticks: machine.now_ticks(),
                act,
                severity,
            };
            let action = self.source.on_raise(raise);
            return self.carry_out(machine, error, action);
        }
        // The contract lets the firmware hold what it knows to be simulated.
        self.carry_out(machine, error, Action::Hold);
    }

    fn block_is_free(&self) -> bool {
        self.source.state() == SourceState::Idle && self.backlog.is_empty()
    }

    fn poll(&mut self, machine: &mut impl Machine) {
        let was_deferred = matches!(self.source.state(), SourceState::Deferred { .. });
        let action = self.source.on_poll(machine.pending(), machine.acked());
        if let Some(error) = self.current {
            if was_deferred && action == Action::Free {
                self.tell(machine, &error, Event::Taken);
            }
            self.carry_out(machine, error, action);
        }
    }

    fn retry(&mut self, machine: &mut impl Machine) {
        if !matches!(self.source.state(), SourceState::Deferred { .. }) {
            return;
        }
        let (Some(error), Some(_)) = (self.current, machine.context()) else {
            return;
        };
        let act = decide(machine, &error, severity(machine, &error));
        // The word is taken before the machine is asked to enter EL2: whoever clears it first
        // hands the record over.
        let pending = match act {
            Act::Notify { .. } => u64::from(machine.take_pending()),
            _ => machine.pending(),
        };
        let action = self.source.on_retry(machine.now_ticks(), pending, act);
        self.carry_out(machine, error, action);
    }

    fn carry_out(&mut self, machine: &mut impl Machine, error: Error, action: Action) {
        match action {
            Action::Nothing | Action::RetryAt(_) => {}
            Action::Count => self.tell(machine, &error, Event::Dropped("not-recorded")),
            Action::Hold => {
                let since_ticks = machine.now_ticks();
                let event = if self.backlog.push(Held { error, since_ticks }) {
                    Event::Deferred("busy")
                } else {
                    Event::Dropped("full")
                };
                self.tell(machine, &error, event);
            }
            Action::RecordAndNotify {
                target,
                vector_offset,
            } => {
                self.record(machine, error);
                self.deliver(machine, &error, target, vector_offset);
            }
            Action::RecordAndPend { reason, .. } => {
                self.record(machine, error);
                machine.set_pending(error.iss);
                self.tell(machine, &error, Event::Deferred(reason.name()));
            }
            Action::Notify {
                target,
                vector_offset,
            } => {
                self.deliver(machine, &error, target, vector_offset);
            }
            Action::Taken => self.tell(machine, &error, Event::Taken),
            Action::Free => self.freed(machine, error),
            Action::ResetWithBert(reason) => {
                self.tell(machine, &error, Event::Reset(reason));
                machine.reset(&error, reason);
            }
        }
    }

    fn deliver(
        &mut self,
        machine: &mut impl Machine,
        error: &Error,
        target: Target,
        vector_offset: u16,
    ) {
        if let Some(context) = machine.context() {
            machine.notify(error, target, vector_offset);
            let event = Event::Delivered {
                from: context.origin(),
                vector_offset,
                elr: context.elr,
            };
            self.tell(machine, error, event);
        }
    }

    fn record(&mut self, machine: &mut impl Machine, error: Error) {
        self.current = Some(error);
        if brings_record(machine, &error) {
            machine.write_record(&error, modes(machine, &error));
        }
    }

    /// The block is free again: the next error of the backlog may have it.
    fn freed(&mut self, machine: &mut impl Machine, error: Error) {
        self.current = None;
        if brings_record(machine, &error) {
            machine.clear_record();
            self.tell(machine, &error, Event::Acked);
        }
        // Bounded by the backlog: each turn takes one error out of it.
        while self.source.state() == SourceState::Idle
            && let Some(Held { error: next, .. }) = self.backlog.pop()
        {
            let severity = severity(machine, &next);
            let act = decide(machine, &next, severity);
            let raise = Raise {
                now_ticks: machine.now_ticks(),
                act,
                severity,
            };
            let action = self.source.on_raise(raise);
            self.carry_out(machine, next, action);
        }
    }

    /// Resets the machine when an uncorrected error has waited behind the block for longer than
    /// the limit: the record in the block may be one that can wait for ever.
    fn end_a_wait_too_long(&mut self, machine: &mut impl Machine) {
        let now = machine.now_ticks();
        let late = self.backlog.iter().find(|held| {
            now.saturating_sub(held.since_ticks) >= self.limits.deferral_ticks
                && severity(machine, &held.error) != Severity::Corrected
        });
        if let Some(Held { error, .. }) = late.copied() {
            let reason = ResetReason::DeferralLimit;
            self.carry_out(machine, error, Action::ResetWithBert(reason));
        }
    }

    fn schedule_poll(&mut self, machine: &impl Machine) {
        let now_ticks = machine.now_ticks();
        let busy = self.source.state() != SourceState::Idle || !self.backlog.is_empty();
        let slow = self
            .current
            .is_some_and(|error| modes(machine, &error).has(Mode::SlowRetry));
        let factor = if slow { SLOW_FACTOR } else { 1 };
        self.poll_at_ticks = busy.then(|| match self.poll_at_ticks {
            Some(at) if at > now_ticks => at,
            _ => now_ticks.saturating_add(self.limits.retry_ticks.saturating_mul(factor)),
        });
    }
}

fn severity(machine: &impl Machine, error: &Error) -> Severity {
    let state = match error.abort {
        Some(_) => external_abort_state(error.iss),
        None => error.iss,
    };
    Severity::of(machine.has_ras().then_some(state), error.record)
}

fn decide(machine: &impl Machine, error: &Error, severity: Severity) -> Act {
    let Some(context) = machine.context() else {
        return Act::Defer(firebreak_contract::DeferReason::NotReady);
    };
    if error.abort.is_some() {
        return abort::act(severity, &context, &POLICY);
    }
    let policy = if error.real {
        &OverlayPolicy::DEFAULT
    } else {
        &POLICY
    };
    behavior::act(modes(machine, error), severity, &context, policy)
}

/// Says whether EL0 or EL1 was interrupted.
fn is_guest(machine: &impl Machine) -> bool {
    machine
        .context()
        .is_some_and(|context| matches!(context.origin(), Origin::El0 | Origin::El1))
}

/// Says whether EL2 finds a record of this error in the block.
fn brings_record(machine: &impl Machine, error: &Error) -> bool {
    error.record.is_some() && !modes(machine, error).has(Mode::NoRecord)
}

/// Returns how an error is to be treated.
pub fn modes(machine: &impl Machine, error: &Error) -> Modes {
    error.modes.unwrap_or_else(|| machine.behavior())
}

#[cfg(test)]
mod tests;
