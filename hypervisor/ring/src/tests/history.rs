// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random histories of one PE's queue, with lost contexts, against a plain model.

use proptest::prelude::*;

use super::lose_at;
use crate::{Position, Ring};
use firebreak_abi::PeId;

const SLOTS: usize = 4;
type Queue = Ring<u64, SLOTS>;

#[derive(Clone, Debug)]
enum Step {
    Publish { fatal: bool },
    LoseProducer { at: usize },
    Abandon,
    Claim { pe: u8 },
    Finish { index: usize },
    LosePe { pe: u8 },
    Peek,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(|fatal| Step::Publish { fatal }),
        1 => (0..12_usize).prop_map(|at| Step::LoseProducer { at }),
        1 => Just(Step::Abandon),
        4 => (0..3_u8).prop_map(|pe| Step::Claim { pe }),
        4 => (0..4_usize).prop_map(|index| Step::Finish { index }),
        1 => (0..3_u8).prop_map(|pe| Step::LosePe { pe }),
        1 => Just(Step::Peek),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    Hole,
    Ready,
    By(u8),
}

/// A record: its place in the order of reservations, its number in the ring unless it stands in
/// the emergency slot, and its state.
#[derive(Clone, Copy, Debug)]
struct Live {
    number: Option<u64>,
    value: u64,
    held: Held,
}

/// The queue as a list in the order of reservations.
#[derive(Default, Debug)]
struct Model {
    live: Vec<Live>,
    head: u64,
    published: u64,
    taken: u64,
    refused: u64,
    abandoned: u64,
    source_waits: bool,
    flag_unknown: bool,
}

impl Model {
    fn full(&self) -> bool {
        let blocking = self.head.checked_sub(SLOTS as u64);
        blocking.is_some() && self.live.iter().any(|live| live.number == blocking)
    }

    fn emergency_used(&self) -> bool {
        self.live.iter().any(|live| live.number.is_none())
    }

    fn reserve(&mut self, fatal: bool, value: u64, held: Held) -> bool {
        let number = if !self.full() {
            self.head += 1;
            Some(self.head - 1)
        } else if fatal && !self.emergency_used() {
            None
        } else {
            self.refused += 1;
            self.source_waits = true;
            return false;
        };
        self.live.push(Live {
            number,
            value,
            held,
        });
        self.published += u64::from(held == Held::Ready);
        true
    }

    /// What a claim must return: the oldest that is ready and not behind a hole; a fatal record
    /// does not wait for a hole.
    fn next(&self) -> Option<usize> {
        let hole = self.live.iter().position(|live| live.held == Held::Hole);
        self.live.iter().enumerate().position(|(index, live)| {
            live.held == Held::Ready
                && (hole.is_none_or(|hole| index < hole) || live.number.is_none())
        })
    }
}

fn publish(queue: &Queue, fatal: bool, value: u64) -> bool {
    if fatal {
        queue.publish_fatal(value, 1, value).is_ok()
    } else {
        queue.publish(value, 1, value).is_ok()
    }
}

fn run(steps: &[Step]) {
    let queue = Queue::new();
    let mut model = Model::default();
    let mut claims: Vec<(u8, Position, u64)> = vec![];
    for (value, step) in steps.iter().enumerate() {
        let value = value as u64;
        match step {
            Step::Publish { fatal } => {
                let accepted = model.reserve(*fatal, value, Held::Ready);
                assert_eq!(publish(&queue, *fatal, value), accepted);
            }
            Step::LoseProducer { at } => lose(&queue, &mut model, *at, value),
            Step::Abandon => {
                // SAFETY: every producer of this history has ended or was unwound.
                let freed = unsafe { queue.abandon(0) };
                let before = model.live.len();
                model.live.retain(|live| live.held != Held::Hole);
                assert_eq!(freed, before - model.live.len());
                model.abandoned += freed as u64;
                model.source_waits = true;
            }
            Step::Claim { pe } => {
                let expected = model.next();
                let got = queue.claim(PeId(*pe));
                assert_eq!(
                    got.map(|entry| entry.value),
                    expected.map(|i| model.live[i].value)
                );
                if let (Some(entry), Some(index)) = (got, expected) {
                    assert_eq!(entry.stamp_ticks, entry.value);
                    model.live[index].held = Held::By(*pe);
                    claims.push((*pe, entry.position, entry.value));
                }
            }
            Step::Finish { index } => {
                if *index < claims.len() {
                    let (pe, position, value) = claims.remove(*index);
                    assert!(queue.finish(position, PeId(pe)));
                    model.live.retain(|live| live.value != value);
                    model.taken += 1;
                }
            }
            Step::LosePe { pe } => {
                // SAFETY: no call by this PE is under way.
                let released = unsafe { queue.release_claims(PeId(*pe)) };
                let before = claims.len();
                claims.retain(|(holder, ..)| holder != pe);
                assert_eq!(released, before - claims.len());
                for live in &mut model.live {
                    if live.held == Held::By(*pe) {
                        live.held = Held::Ready;
                    }
                }
            }
            Step::Peek => {
                assert_eq!(queue.peek_all(PeId(7), |_| ()), model.live.len());
            }
        }
        check(&queue, &mut model);
    }
}

/// Loses a producer. Where it stood by then, the counters say; what follows must agree with that.
fn lose(queue: &Queue, model: &mut Model, at: usize, value: u64) {
    let before = queue.counters();
    lose_at(at, || publish(queue, false, value));
    let after = queue.counters();
    if after.in_flight > before.in_flight {
        assert!(model.reserve(false, value, Held::Hole));
    } else if after.published > before.published {
        assert!(model.reserve(false, value, Held::Ready));
    } else if after.refused > before.refused {
        assert!(!model.reserve(false, value, Held::Ready));
    } else if model.full() {
        // Lost before it counted the refusal: before or after it set the flag.
        model.flag_unknown = !model.source_waits;
    }
}

fn check(queue: &Queue, model: &mut Model) {
    let counters = queue.counters();
    let holes = model
        .live
        .iter()
        .filter(|live| live.held == Held::Hole)
        .count() as u64;
    assert_eq!(counters.published, model.published);
    assert_eq!(counters.taken, model.taken);
    assert_eq!(counters.refused, model.refused);
    assert_eq!(counters.abandoned, model.abandoned);
    assert_eq!(counters.in_flight, holes);
    assert_eq!(counters.pending, model.live.len() as u64 - holes);
    let next = model.next().map(|index| model.live[index].value);
    assert_eq!(queue.oldest_stamp_ticks(), next);
    if next.is_none() && model.flag_unknown {
        model.flag_unknown = false;
        model.source_waits |= queue.has_work();
    }
    // The history never clears the flag that a source waits.
    assert_eq!(
        queue.has_work(),
        next.is_some() || model.source_waits,
        "{model:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 2000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_agrees_with_the_model(steps in prop::collection::vec(step(), 0..60)) {
        run(&steps);
    }
}
