// SPDX-License-Identifier: MIT OR Apache-2.0
//! The source's state machine with a model of the memory that it shares with EL2.
//!
//! All sequences of events up to a length are tried. The model is the block, its read-ack
//! register and the pending word, and it complains when one side breaks the protocol.

use std::collections::VecDeque;

use firebreak_contract::{
    Act, Action, Backlog, DeferReason, Limits, Raise, ResetReason, Severity, Source, SourceState,
    Target,
};

const LIMITS: Limits = Limits {
    retry_ticks: 10,
    deferral_ticks: 35,
};
const NOTIFY: Act = Act::Notify {
    target: Target::El2,
    vector_offset: 0x580,
};
const DEFER: Act = Act::Defer(DeferReason::Masked);

#[derive(Clone, Copy, Debug)]
enum Event {
    RaiseDeliverable(Severity),
    RaiseMasked(Severity),
    RetryDeliverable,
    RetryMasked,
    Poll,
    /// EL2 sees the pending word before it enters a guest.
    El2Takes,
    El2Acknowledges,
}

const EVENTS: [Event; 8] = [
    Event::RaiseDeliverable(Severity::Corrected),
    Event::RaiseMasked(Severity::Restartable),
    Event::RaiseDeliverable(Severity::Recoverable),
    Event::RetryDeliverable,
    Event::RetryMasked,
    Event::Poll,
    Event::El2Takes,
    Event::El2Acknowledges,
];

/// The shared page and what became of each record.
#[derive(Clone)]
struct Model {
    source: Source,
    now_ticks: u64,
    acked: bool,
    pending: bool,
    handed_over: bool,
    recorded: u32,
    delivered: u32,
    acknowledged: u32,
    reset: bool,
}

impl Model {
    fn new() -> Self {
        Self {
            source: Source::new(LIMITS),
            now_ticks: 1_000,
            acked: true,
            pending: false,
            handed_over: false,
            recorded: 0,
            delivered: 0,
            acknowledged: 0,
            reset: false,
        }
    }

    fn write_record(&mut self) {
        assert!(self.acked, "the block is written while EL2 may read it");
        assert!(!self.pending);
        self.acked = false;
        self.handed_over = false;
        self.recorded += 1;
    }

    fn hand_over(&mut self) {
        assert!(!self.handed_over, "a record is handed over twice");
        assert!(!self.acked);
        self.handed_over = true;
        self.delivered += 1;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::RecordAndNotify { .. } => {
                self.write_record();
                self.hand_over();
            }
            Action::RecordAndPend { retry_at_ticks, .. } => {
                self.write_record();
                self.pending = true;
                assert_eq!(retry_at_ticks, self.now_ticks + LIMITS.retry_ticks);
            }
            Action::Notify { .. } => {
                assert!(self.pending, "EL2 has taken it already");
                self.pending = false;
                self.hand_over();
            }
            Action::RetryAt(at) => {
                assert!(self.pending);
                assert_eq!(at, self.now_ticks + LIMITS.retry_ticks);
            }
            // A retry does not look at the read-ack register: the next look finds it.
            Action::Taken => assert!(self.handed_over && !self.pending),
            Action::Free => assert!(self.acked && self.handed_over),
            Action::ResetWithBert(_) => self.reset = true,
            Action::Hold => assert!(self.source.state() != SourceState::Idle),
            Action::Nothing | Action::Count => {}
        }
    }

    fn step(&mut self, event: Event) {
        self.now_ticks += 1;
        let pending = u64::from(self.pending);
        match event {
            Event::RaiseDeliverable(severity) | Event::RaiseMasked(severity) => {
                let polled = self.source.on_poll(pending, self.acked);
                self.act(polled);
                let masked = matches!(event, Event::RaiseMasked(_));
                let act = if masked { DEFER } else { NOTIFY };
                let raise = Raise {
                    now_ticks: self.now_ticks,
                    act,
                    severity,
                };
                let action = self.source.on_raise(raise);
                self.act(action);
            }
            Event::RetryDeliverable | Event::RetryMasked => {
                let masked = matches!(event, Event::RetryMasked);
                let act = if masked { DEFER } else { NOTIFY };
                let action = self.source.on_retry(self.now_ticks, pending, act);
                self.act(action);
            }
            Event::Poll => {
                let action = self.source.on_poll(pending, self.acked);
                self.act(action);
            }
            Event::El2Takes => {
                if self.pending {
                    self.pending = false;
                    self.hand_over();
                }
            }
            Event::El2Acknowledges => {
                if self.handed_over && !self.acked {
                    self.acked = true;
                    self.acknowledged += 1;
                }
            }
        }
    }

    /// What holds between two events.
    fn check(&self, path: &[Event]) {
        let in_block = u32::from(!self.acked);
        assert_eq!(self.recorded, self.acknowledged + in_block, "{path:?}");
        assert!(self.delivered <= self.recorded, "{path:?}");
        if self.source.state() == SourceState::Idle {
            assert!(self.acked, "{path:?}");
        }
        if self.pending {
            assert!(
                matches!(self.source.state(), SourceState::Deferred { .. }),
                "{path:?}"
            );
        }
    }
}

fn explore(model: &Model, path: &mut Vec<Event>, depth: usize, visited: &mut u64) {
    if depth == 0 || model.reset {
        return;
    }
    for event in EVENTS {
        let mut next = model.clone();
        path.push(event);
        next.step(event);
        next.check(path);
        *visited += 1;
        explore(&next, path, depth - 1, visited);
        path.pop();
    }
}

#[test]
fn no_sequence_of_events_hands_a_record_over_twice_or_writes_over_one() {
    let mut visited = 0;
    explore(&Model::new(), &mut Vec::new(), 6, &mut visited);
    assert!(visited > 100_000, "{visited}");
}

#[test]
fn what_el2_takes_and_acknowledges_between_two_looks_leaves_a_free_block() {
    let mut model = Model::new();
    model.step(Event::RaiseMasked(Severity::Restartable));
    model.step(Event::El2Takes);
    model.step(Event::El2Acknowledges);
    assert_eq!(model.source.on_poll(0, true), Action::Free);
    assert_eq!(model.source.state(), SourceState::Idle);
}

#[test]
fn a_deferred_error_without_a_record_stays_deferred_although_the_block_counts_as_acknowledged() {
    let mut source = Source::new(LIMITS);
    source.on_raise(Raise {
        now_ticks: 0,
        act: DEFER,
        severity: Severity::Restartable,
    });
    assert_eq!(source.on_poll(1, true), Action::Nothing);
    assert!(matches!(
        source.on_retry(10, 1, NOTIFY),
        Action::Notify { .. }
    ));
    assert_eq!(source.on_poll(0, true), Action::Free);
}

#[test]
fn an_uncorrected_error_waits_until_the_limit_and_no_longer() {
    let mut source = Source::new(LIMITS);
    let raise = Raise {
        now_ticks: 100,
        act: DEFER,
        severity: Severity::Restartable,
    };
    let reason = DeferReason::Masked;
    assert_eq!(
        source.on_raise(raise),
        Action::RecordAndPend {
            retry_at_ticks: 110,
            reason
        }
    );
    assert_eq!(source.on_retry(110, 1, DEFER), Action::RetryAt(120));
    assert_eq!(source.on_retry(134, 1, DEFER), Action::RetryAt(144));
    assert!(matches!(
        source.state(),
        SourceState::Deferred {
            since_ticks: 100,
            tries: 3,
            ..
        }
    ));
    let reset = Action::ResetWithBert(ResetReason::DeferralLimit);
    assert_eq!(source.on_retry(135, 1, DEFER), reset);
    // At the limit, a target that has become ready still gets it.
    let mut source = Source::new(LIMITS);
    source.on_raise(raise);
    assert!(matches!(
        source.on_retry(500, 1, NOTIFY),
        Action::Notify { .. }
    ));
}

#[test]
fn a_corrected_error_waits_for_as_long_as_it_takes() {
    let mut source = Source::new(LIMITS);
    source.on_raise(Raise {
        now_ticks: 0,
        act: DEFER,
        severity: Severity::Corrected,
    });
    for now_ticks in (0..1_000_000).step_by(1_000) {
        assert_eq!(
            source.on_retry(now_ticks, 1, DEFER),
            Action::RetryAt(now_ticks + 10)
        );
    }
    assert_eq!(
        source.on_retry(u64::MAX, 1, DEFER),
        Action::RetryAt(u64::MAX)
    );
}

#[test]
fn a_block_in_use_holds_back_what_can_wait_and_resets_for_what_cannot() {
    for severity in Severity::ALL {
        for act in [NOTIFY, DEFER] {
            let mut source = Source::new(LIMITS);
            source.on_raise(Raise {
                now_ticks: 0,
                act: NOTIFY,
                severity: Severity::Corrected,
            });
            let waits = matches!(severity, Severity::Corrected | Severity::Restartable);
            let expected = if waits {
                Action::Hold
            } else {
                Action::ResetWithBert(ResetReason::CannotWait)
            };
            assert_eq!(
                source.on_raise(Raise {
                    now_ticks: 1,
                    act,
                    severity
                }),
                expected
            );
            assert_eq!(source.state(), SourceState::Outstanding);
        }
        let mut source = Source::new(LIMITS);
        source.on_raise(Raise {
            now_ticks: 0,
            act: NOTIFY,
            severity: Severity::Corrected,
        });
        let counted = Raise {
            now_ticks: 1,
            act: Act::LogOnly,
            severity,
        };
        assert_eq!(source.on_raise(counted), Action::Count);
        let reset = Act::ResetWithBert(ResetReason::Uncontainable);
        let fatal = Raise {
            now_ticks: 1,
            act: reset,
            severity,
        };
        assert_eq!(
            source.on_raise(fatal),
            Action::ResetWithBert(ResetReason::Uncontainable)
        );
    }
}

#[test]
fn limits_follow_the_counter() {
    let limits = Limits::from_frequency(62_500_000);
    assert_eq!(
        limits,
        Limits {
            retry_ticks: 6_250,
            deferral_ticks: 312_500_000
        }
    );
    let limits = Limits::from_frequency(1_000_000_000);
    assert_eq!(
        limits,
        Limits {
            retry_ticks: 100_000,
            deferral_ticks: 5_000_000_000
        }
    );
    assert_eq!(
        Limits::from_frequency(0),
        Limits {
            retry_ticks: 1,
            deferral_ticks: 1
        }
    );
    assert!(Limits::from_frequency(u64::MAX).retry_ticks > 0);
}

#[test]
fn the_backlog_keeps_the_order_and_counts_what_does_not_fit() {
    // A pseudo-random walk, compared with the standard library's queue.
    let mut backlog = Backlog::<u32, 5>::new();
    let mut model = VecDeque::new();
    let (mut lost, mut state) = (0, 0x1234_5678u32);
    for number in 0..10_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 30 != 0 {
            let fits = model.len() < 5;
            assert_eq!(backlog.push(number), fits);
            if fits {
                model.push_back(number)
            } else {
                lost += 1
            }
        } else {
            assert_eq!(backlog.pop(), model.pop_front());
        }
        assert_eq!(backlog.len(), model.len());
        assert_eq!(backlog.is_empty(), model.is_empty());
        assert_eq!(backlog.dropped(), lost);
        if number % 100 == 0 {
            while let Some(expected) = model.pop_front() {
                assert_eq!(backlog.pop(), Some(expected));
            }
            assert_eq!(backlog.pop(), None);
        }
    }
    assert!(lost > 100);
    let mut nothing = Backlog::<u32, 0>::default();
    assert!(!nothing.push(1));
    assert_eq!((nothing.pop(), nothing.dropped()), (None, 1));
}
