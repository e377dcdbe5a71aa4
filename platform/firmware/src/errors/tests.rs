// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors on a model of a PE: source page, interrupted context, and an EL2 that takes records.

use firebreak_contract::hcr;
use proptest::prelude::*;

use super::*;

mod misbehave;

const LIMITS: Limits = Limits {
    retry_ticks: 100,
    deferral_ticks: 10_000,
};
const EL1H: u64 = 0x3c5;
const EL2H: u64 = 0x2c9;
const EL2H_MASKED: u64 = 0x3c9;
const READY: u64 = hcr::RW | hcr::AMO;

/// A PE and its page. `notify` enters EL2 with SError masked, as the binary's does.
#[derive(Default)]
struct Model {
    now: u64,
    context: Option<(u64, u64)>,
    no_ras: bool,
    modes: Modes,
    unacked: bool,
    pending: u64,
    block: Option<u64>,
    delivered: std::vec::Vec<u64>,
    events: std::vec::Vec<(u64, Event)>,
    reset: Option<(u64, ResetReason)>,
    storm: Option<StormCounts>,
    meetings: u32,
    time_passed: bool,
    /// Records that were overwritten before they were acknowledged.
    overwritten: u32,
}

impl Model {
    fn new(spsr: u64, hcr_el2: u64) -> Self {
        Self {
            context: Some((spsr, hcr_el2)),
            ..Self::default()
        }
    }

    fn acknowledge(&mut self) {
        self.unacked = false;
    }

    /// EL2 takes a deferred record.
    fn pull(&mut self) -> Option<u64> {
        let pending = core::mem::take(&mut self.pending);
        (pending != 0).then_some(self.block).flatten()
    }

    fn names(&self) -> std::vec::Vec<(u64, &'static str)> {
        let name = |event: &Event| match event {
            Event::Raised => "raised",
            Event::Delivered { .. } => "delivered",
            Event::Deferred(reason) => reason,
            Event::Taken => "taken",
            Event::Acked => "acked",
            Event::Handled => "handled",
            Event::Dropped(_) => "dropped",
            Event::Reset(_) => "reset",
        };
        self.events
            .iter()
            .map(|(id, event)| (*id, name(event)))
            .collect()
    }
}

impl Machine for Model {
    fn now_ticks(&self) -> u64 {
        self.now
    }
    fn context(&self) -> Option<Context> {
        let (spsr, hcr_el2) = self.context?;
        Some(Context {
            spsr,
            elr: 0x4020_0000,
            hcr_el2,
            tmea: false,
        })
    }
    fn has_ras(&self) -> bool {
        !self.no_ras
    }
    fn behavior(&self) -> Modes {
        self.modes
    }
    fn acked(&self) -> bool {
        !self.unacked
    }
    fn pending(&self) -> u64 {
        self.pending
    }
    fn meet(&mut self, _error: &Error) {
        self.meetings += 1;
    }
    fn pass_time(&mut self) {
        self.time_passed = true;
    }
    fn write_record(&mut self, error: &Error, _modes: Modes) {
        self.overwritten += u32::from(self.unacked);
        self.unacked = true;
        self.block = Some(error.id);
    }
    fn clear_record(&mut self) {
        self.block = None;
    }
    fn set_pending(&mut self, _iss: Iss) {
        self.pending = 1;
    }
    fn take_pending(&mut self) -> bool {
        core::mem::take(&mut self.pending) != 0
    }
    fn notify(&mut self, error: &Error, target: Target, _vector_offset: u16) {
        assert!(target == Target::El2 || error.abort.is_some());
        self.delivered.push(error.id);
        if let Some((spsr, _)) = &mut self.context {
            *spsr = EL2H_MASKED;
        }
    }
    fn event(&mut self, error: &Error, event: Event) {
        self.events.push((error.id, event));
    }
    fn storm_over(&mut self, _first: &Error, counts: &StormCounts) {
        self.storm = Some(*counts);
    }
    fn reset(&mut self, error: &Error, reason: ResetReason) {
        self.reset.get_or_insert((error.id, reason));
    }
}

fn error(id: u64, iss: Iss, record: CperSeverity) -> Error {
    Error {
        id,
        iss,
        pa: None,
        record: Some(record),
        abort: None,
        real: false,
        modes: None,
        in_storm: false,
    }
}

fn uer(id: u64) -> Request {
    now(error(id, Iss::UER, CperSeverity::Recoverable))
}

fn now(error: Error) -> Request {
    Request {
        error,
        delay_ticks: 0,
        in_guest: false,
    }
}

#[test]
fn from_a_guest_it_is_delivered_and_acknowledged() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    errors.request(&mut model, uer(1));
    assert_eq!((&model.delivered[..], model.block), (&[1][..], Some(1)));
    assert!(!errors.is_quiet());
    model.acknowledge();
    errors.service(&mut model, false);
    assert_eq!(
        model.names(),
        [(1, "raised"), (1, "delivered"), (1, "acked")]
    );
    assert_eq!(model.block, None);
    assert!(errors.is_quiet());
    assert_eq!(errors.next_deadline(0), None);
}

#[test]
fn masked_it_waits_and_is_delivered_when_el2_unmasks() {
    let (mut model, mut errors) = (Model::new(EL2H_MASKED, READY), PeErrors::new(LIMITS));
    errors.request(&mut model, uer(1));
    assert_eq!((model.pending, errors.next_deadline(0)), (1, Some(100)));
    model.now = 100;
    errors.service(&mut model, false);
    assert!(model.delivered.is_empty());
    model.context = Some((EL2H, READY));
    errors.service(&mut model, true);
    assert_eq!((model.pending, &model.delivered[..]), (0, &[1][..]));
    assert_eq!(
        model.names(),
        [(1, "raised"), (1, "masked"), (1, "delivered")]
    );
}

#[test]
fn before_el2_is_ready_it_waits_and_el2_can_take_it() {
    let (mut model, mut errors) = (Model::new(EL2H, hcr::RW), PeErrors::new(LIMITS));
    errors.request(&mut model, uer(1));
    assert_eq!(model.pull(), Some(1));
    model.context = Some((EL2H, READY));
    model.now = 200;
    errors.service(&mut model, false);
    assert!(model.delivered.is_empty());
    model.acknowledge();
    errors.service(&mut model, false);
    assert_eq!(
        model.names(),
        [(1, "raised"), (1, "not-ready"), (1, "taken"), (1, "acked")]
    );
}

#[test]
fn a_record_taken_and_acknowledged_at_once_is_logged_as_both() {
    let (mut model, mut errors) = (Model::new(EL2H, hcr::RW), PeErrors::new(LIMITS));
    errors.request(&mut model, uer(1));
    model.pull();
    model.acknowledge();
    errors.service(&mut model, false);
    assert_eq!(model.names()[2..], [(1, "taken"), (1, "acked")]);
}

#[test]
fn errors_behind_an_unacknowledged_record_are_held_in_order() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    for id in 1..=3 {
        errors.request(&mut model, uer(id));
    }
    assert_eq!(model.delivered, [1]);
    for expected in [&[1, 2][..], &[1, 2, 3]] {
        model.acknowledge();
        model.context = Some((EL1H, READY));
        errors.service(&mut model, false);
        assert_eq!(model.delivered, expected);
    }
    assert_eq!(model.overwritten, 0);
}

#[test]
fn what_does_not_fit_into_the_backlog_is_dropped_and_said_so() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    for id in 0..=17 {
        errors.request(&mut model, uer(id));
    }
    assert_eq!(model.events.last(), Some(&(17, Event::Dropped("full"))));
    assert_eq!(
        model
            .names()
            .iter()
            .filter(|(_, name)| *name == "dropped")
            .count(),
        1
    );
}

#[test]
fn an_uncontainable_error_resets_even_behind_others() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    errors.request(&mut model, uer(1));
    errors.request(&mut model, now(error(2, Iss::UC, CperSeverity::Fatal)));
    assert_eq!(model.reset, Some((2, ResetReason::Uncontainable)));
}

#[test]
fn an_uncorrected_error_that_nobody_takes_resets_at_the_limit_and_a_corrected_one_waits() {
    for (iss, record, resets) in [
        (Iss::UEO, CperSeverity::Recoverable, true),
        (Iss::CE, CperSeverity::Corrected, false),
    ] {
        let (mut model, mut errors) = (Model::new(EL2H, hcr::RW), PeErrors::new(LIMITS));
        errors.request(&mut model, now(error(1, iss, record)));
        while let Some(deadline) = errors.next_deadline(model.now) {
            model.now = deadline;
            errors.service(&mut model, false);
            if model.reset.is_some() || model.now > 2 * LIMITS.deferral_ticks {
                break;
            }
        }
        assert_eq!(model.reset.is_some(), resets);
        assert_eq!(model.now > LIMITS.deferral_ticks, !resets);
    }
}

#[test]
fn a_delay_counts_from_leaving_el3() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    errors.request(
        &mut model,
        Request {
            delay_ticks: 50,
            ..uer(1)
        },
    );
    assert!(model.events.is_empty());
    assert_eq!(errors.next_deadline(1000), Some(1050));
    assert_eq!(errors.next_deadline(1010), Some(1050));
    model.now = 1049;
    errors.service(&mut model, false);
    assert!(model.delivered.is_empty());
    model.now = 1050;
    errors.service(&mut model, false);
    assert_eq!(model.delivered, [1]);
}

#[test]
fn an_error_for_a_guest_waits_until_one_runs() {
    let (mut model, mut errors) = (Model::new(EL2H, READY), PeErrors::new(LIMITS));
    errors.request(
        &mut model,
        Request {
            in_guest: true,
            ..uer(1)
        },
    );
    for _ in 0..10 {
        model.now = errors.next_deadline(model.now).unwrap();
        errors.service(&mut model, false);
    }
    assert!(model.delivered.is_empty());
    model.context = Some((EL1H, READY));
    model.now = errors.next_deadline(model.now).unwrap();
    errors.service(&mut model, false);
    assert_eq!(model.delivered, [1]);
}

#[test]
fn without_a_record_an_error_is_notified_and_the_block_stays_free() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    let unclaimed = Error {
        record: None,
        ..error(1, Iss::UEO, CperSeverity::Fatal)
    };
    errors.request(&mut model, now(unclaimed));
    assert_eq!((&model.delivered[..], model.block), (&[1][..], None));
    model.context = Some((EL1H, READY));
    errors.service(&mut model, false);
    assert!(errors.is_quiet());
    assert_eq!(model.names(), [(1, "raised"), (1, "delivered")]);
}

#[test]
fn without_feat_ras_the_record_alone_says_how_bad_it_is() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    model.no_ras = true;
    errors.request(
        &mut model,
        now(error(1, Iss::UC, CperSeverity::Recoverable)),
    );
    assert_eq!((&model.delivered[..], model.reset), (&[1][..], None));
}

/// A corrected error that nobody takes keeps its block for ever; an uncorrected one behind it must
/// not wait as long.
#[test]
fn regression_an_uncorrected_error_behind_a_corrected_one_has_the_same_limit() {
    let (mut model, mut errors) = (Model::new(EL2H, hcr::RW), PeErrors::new(LIMITS));
    errors.request(&mut model, now(error(1, Iss::CE, CperSeverity::Corrected)));
    errors.request(&mut model, now(error(2, Iss::CE, CperSeverity::Corrected)));
    model.now = 50;
    errors.request(
        &mut model,
        now(error(3, Iss::UEO, CperSeverity::Recoverable)),
    );
    while model.reset.is_none() && model.now < 2 * LIMITS.deferral_ticks {
        model.now = errors.next_deadline(model.now).unwrap();
        errors.service(&mut model, false);
    }
    assert_eq!(model.reset, Some((3, ResetReason::DeferralLimit)));
    assert!((10_050..10_150).contains(&model.now), "{}", model.now);
}

fn storm(count: u64, gap_ticks: Option<u64>) -> Order {
    Order::Storm(StormRequest {
        first: error(1000, Iss::CE, CperSeverity::Corrected),
        count,
        step_bytes: 0,
        in_guest: false,
        gap_ticks,
    })
}

#[test]
fn a_storm_raises_each_error_once_the_last_one_is_acknowledged() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    errors.order(&mut model, storm(1000, Some(7)));
    let mut visits = 0;
    while model.storm.is_none() {
        let deadline = errors.next_deadline(model.now).unwrap();
        assert!(deadline <= model.now + 7, "looks every 7 ticks");
        model.now = deadline;
        // EL2 takes the record, in a guest now and then, and masked at every third look.
        model.context = Some((if visits % 3 == 0 { EL2H_MASKED } else { EL1H }, READY));
        if visits % 2 == 0 && (model.pending == 0 || model.pull().is_some()) {
            model.acknowledge();
        }
        visits += 1;
        errors.service(&mut model, false);
    }
    let counts = model.storm.unwrap();
    assert_eq!(
        (counts.raised, counts.acked, counts.dropped),
        (1000, 1000, 0)
    );
    assert_eq!(counts.delivered + counts.taken, 1000);
    assert!(counts.delivered > 0 && counts.taken > 0 && counts.deferred >= counts.taken);
    assert_eq!(model.overwritten, 0);
    assert!(errors.is_quiet());
    assert_eq!(errors.next_deadline(model.now), None);
    let numbers: std::vec::Vec<u64> = model
        .names()
        .iter()
        .filter(|(_, name)| *name == "raised")
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(numbers, (1000..2000).collect::<std::vec::Vec<u64>>());
}

#[test]
fn a_storm_waits_for_an_acknowledgement_and_a_second_one_is_refused() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    errors.order(&mut model, storm(2, None));
    errors.order(&mut model, storm(5, None));
    for _ in 0..50 {
        model.now = errors.next_deadline(model.now).unwrap();
        errors.service(&mut model, false);
    }
    let dropped = Event::Dropped("storm-under-way");
    assert_eq!(model.events.get(2), Some(&(1000, dropped)));
    assert_eq!((model.events.len(), model.storm), (3, None));
    assert!(!errors.is_quiet());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Raise(bool),
    Guest,
    El2(bool),
    Acknowledge,
    Pull,
    Unmasked,
    Time(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(Step::Raise),
        Just(Step::Guest),
        any::<bool>().prop_map(Step::El2),
        Just(Step::Acknowledge),
        Just(Step::Pull),
        Just(Step::Unmasked),
        (0_u64..300).prop_map(Step::Time),
    ]
}

proptest! {
    /// Whatever EL2 does and whenever: each record is handed over at most once, in order, by one
    /// of the two ways, never written over another, and none is lost but those said to be.
    #[test]
    fn each_record_is_handed_over_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..200)
    ) {
        let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
        let mut raised = 0;
        let mut handed = std::vec::Vec::new();
        let mut seen = 0;
        for step in steps {
            match step {
                Step::Raise(corrected) => {
                    raised += 1;
                    let request = if corrected {
                        now(error(raised, Iss::CE, CperSeverity::Corrected))
                    } else {
                        now(error(raised, Iss::UEO, CperSeverity::Recoverable))
                    };
                    errors.request(&mut model, request);
                }
                Step::Guest => model.context = Some((EL1H, READY)),
                Step::El2(masked) => {
                    model.context = Some((if masked { EL2H_MASKED } else { EL2H }, READY));
                }
                Step::Acknowledge if model.pending == 0 => model.acknowledge(),
                Step::Acknowledge => {}
                Step::Pull => handed.extend(model.pull()),
                Step::Unmasked => errors.service(&mut model, true),
                Step::Time(ticks) => {
                    model.now += ticks;
                    errors.service(&mut model, false);
                }
            }
            prop_assert!(model.delivered.len() - seen <= 1, "two at once");
            handed.extend(&model.delivered[seen..]);
            seen = model.delivered.len();
            if model.reset.is_some() {
                break;
            }
        }
        prop_assert_eq!(model.overwritten, 0);
        let dropped: std::vec::Vec<_> =
            model.names().iter().filter(|(_, name)| *name == "dropped").map(|(id, _)| *id).collect();
        let expected: std::vec::Vec<u64> =
            (1..=raised).filter(|id| !dropped.contains(id)).take(handed.len()).collect();
        prop_assert_eq!(handed, expected);
    }
}

fn sea(id: u64, far: Option<u64>) -> Request {
    let abort = Abort { fetch: false, far };
    now(Error {
        abort: Some(abort),
        ..error(id, Iss::new(0x10).unwrap(), CperSeverity::Recoverable)
    })
}

const WITH_TEA: u64 = READY | hcr::TEA;

#[test]
fn an_abort_is_handed_over_masked_or_not_and_acknowledged() {
    for spsr in [EL1H, EL2H, EL2H_MASKED] {
        let mut model = Model::new(spsr, WITH_TEA);
        let mut errors = PeErrors::new(LIMITS);
        errors.request(&mut model, sea(1, Some(0x4000)));
        assert_eq!(model.delivered, [1], "{spsr:#x}");
        model.acknowledge();
        errors.service(&mut model, false);
        assert_eq!(
            model.names(),
            [(1, "raised"), (1, "delivered"), (1, "acked")]
        );
        assert!(errors.is_quiet());
    }
}

#[test]
fn an_abort_that_finds_the_block_in_use_resets_the_machine() {
    for first in [uer(1), sea(1, None)] {
        let mut model = Model::new(EL1H, WITH_TEA);
        let mut errors = PeErrors::new(LIMITS);
        errors.request(&mut model, first);
        errors.request(&mut model, sea(2, None));
        assert_eq!(model.reset, Some((2, ResetReason::CannotWait)));
        assert_eq!(model.overwritten, 0);
    }
}

#[test]
fn an_abort_that_el1_takes_leaves_the_block_alone() {
    let mut model = Model::new(EL1H, READY);
    let mut errors = PeErrors::new(LIMITS);
    errors.request(&mut model, sea(1, None));
    assert_eq!(model.names(), [(1, "raised"), (1, "delivered")]);
    assert!(!model.unacked && model.block.is_none() && errors.is_quiet());
}

#[test]
fn an_abort_before_el2_is_ready_resets_and_one_of_a_pe_that_is_off_is_none() {
    let mut model = Model::new(EL2H, hcr::RW);
    PeErrors::new(LIMITS).request(&mut model, sea(1, None));
    assert_eq!(model.reset, Some((1, ResetReason::CannotWait)));
    let mut off = Model::default();
    PeErrors::new(LIMITS).request(&mut off, sea(1, None));
    assert_eq!(off.names(), [(1, "raised"), (1, "dropped")]);
    assert_eq!(off.reset, None);
}

#[test]
fn set_says_how_bad_an_abort_is_where_the_pe_has_feat_ras() {
    let uncontainable = |no_ras| {
        let mut model = Model::new(EL1H, WITH_TEA);
        model.no_ras = no_ras;
        let mut request = sea(1, None);
        request.error.iss = Iss::new(0x1010).unwrap();
        PeErrors::new(LIMITS).request(&mut model, request);
        model.reset
    };
    assert_eq!(uncontainable(false), Some((1, ResetReason::Uncontainable)));
    assert_eq!(uncontainable(true), None);
}
