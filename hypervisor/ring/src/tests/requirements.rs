// SPDX-License-Identifier: MIT OR Apache-2.0
//! One group of tests for each requirement; the crate's documentation numbers them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::{ELSEWHERE, HERE, Small, drain, interrupt_at, lose_at, offer, put, steps_of, values};
use crate::hook::with_hook;
use crate::{Peeked, Refused, Ring, take_oldest};

/// More steps than any operation has.
const ENOUGH: usize = 200;

#[test]
fn requirement_1_a_publish_costs_the_same_whatever_waits() {
    let ring = Ring::<u32, 64>::new();
    let costs: Vec<usize> = (0..64)
        .map(|n| steps_of(|| offer(&ring, n, 1, 0)))
        .collect();
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
    assert!(costs[0] <= 8, "{costs:?}");
    assert!(
        steps_of(|| offer(&ring, 64, 1, 0)) <= 8,
        "being refused is no slower"
    );
}

#[test]
fn requirement_1_a_producer_may_interrupt_a_producer_at_every_step() {
    for at in 0..ENOUGH {
        let ring = Rc::new(Small::new());
        let inner = Rc::clone(&ring);
        let sei = move || put(&inner, 20, 2, 2);
        let (reached, outer) = interrupt_at(at, sei, || ring.publish(10, 1, 1));
        assert!(outer.is_ok());
        let entries = drain(&ring);
        assert!(
            entries
                .windows(2)
                .all(|pair| pair[0].position < pair[1].position)
        );
        let mut got: Vec<u32> = entries.iter().map(|entry| entry.value).collect();
        got.sort_unstable();
        assert_eq!(
            got,
            if reached { vec![1, 2] } else { vec![1] },
            "interrupted at {at}"
        );
        for entry in entries {
            assert_eq!(entry.stamp_ticks, u64::from(entry.value) * 10);
            assert_eq!(u32::from(entry.nesting), entry.value);
        }
        if !reached {
            return;
        }
    }
    panic!("never came to an end");
}

#[test]
fn requirement_1_three_levels_deep_at_every_pair_of_steps() {
    let last = steps_of(|| offer(&Small::new(), 0, 1, 0));
    for outer_at in 0..last {
        for middle_at in 0..=last + 4 {
            let ring = Rc::new(Small::new());
            let (one, two) = (Rc::clone(&ring), Rc::clone(&ring));
            let deepest = Cell::new(false);
            let middle = move || {
                let three = Rc::clone(&two);
                let sei = move || put(&three, 30, 3, 3);
                let (reached, result) = interrupt_at(middle_at, sei, || one.publish(20, 2, 2));
                result.unwrap();
                deepest.set(reached);
            };
            let (_, outer) = interrupt_at(outer_at, middle, || ring.publish(10, 1, 1));
            outer.unwrap();
            let mut got = values(&ring);
            got.sort_unstable();
            assert!(
                got == [1, 2, 3] || got == [1, 2],
                "{outer_at} {middle_at}: {got:?}"
            );
        }
    }
}

#[test]
fn requirement_1_interruptions_leave_no_cost_behind() {
    let undisturbed = steps_of(|| offer(&Ring::<u32, 64>::new(), 0, 1, 0));
    for at in 0..undisturbed {
        let ring = Rc::new(Ring::<u32, 64>::new());
        let inner = Rc::clone(&ring);
        let sei = move || (0..20).for_each(|n| put(&inner, 20, 2, n));
        interrupt_at(at, sei, || put(&ring, 10, 1, 1));
        assert_eq!(
            steps_of(|| put(&ring, 30, 1, 2)),
            undisturbed,
            "after an SEI at step {at}"
        );
        let ring = Ring::<u32, 64>::new();
        lose_at(at, || put(&ring, 10, 1, 1));
        assert!(
            steps_of(|| put(&ring, 30, 1, 2)) <= undisturbed + 3,
            "after a loss at {at}"
        );
    }
}

#[test]
fn requirement_1_a_publish_that_is_interrupted_without_end_still_ends() {
    let ring = Rc::new(Small::new());
    let inner = Rc::clone(&ring);
    let inside = Cell::new(false);
    let steps = Rc::new(Cell::new(0));
    let count = Rc::clone(&steps);
    let hook = move || {
        if inside.replace(true) {
            return;
        }
        count.set(count.get() + 1);
        // A record is published and drained by another PE, before every step of the outer one.
        inner.publish(2, 2, 2).unwrap();
        assert!(inner.take(ELSEWHERE).is_some());
        inside.set(false);
    };
    let outer = with_hook(Rc::new(hook), || ring.publish(1, 1, 1));
    assert!(steps.get() < 300, "{} steps", steps.get());
    if outer.is_err() {
        assert!(ring.take_overflow() && ring.counters().refused == 1);
    }
}

#[test]
fn requirement_1_a_producer_may_interrupt_a_consumer_at_every_step() {
    type Operation = fn(&Small) -> Vec<u32>;
    let operations: [(&str, Operation); 6] = [
        ("take", |ring| {
            ring.take(HERE)
                .map(|entry| entry.value)
                .into_iter()
                .collect()
        }),
        ("claim and finish", |ring| {
            let entry = ring.claim(HERE).unwrap();
            assert!(ring.finish(entry.position, HERE));
            vec![entry.value]
        }),
        ("has_work", |ring| {
            assert!(ring.has_work());
            vec![]
        }),
        ("peek_all", |ring| {
            ring.peek_all(HERE, |_| ());
            vec![]
        }),
        ("counters", |ring| {
            ring.counters();
            vec![]
        }),
        ("abandon", |ring| {
            // SAFETY: no producer of this ring is suspended here.
            assert_eq!(unsafe { ring.abandon(0) }, 0);
            vec![]
        }),
    ];
    for (name, operation) in operations {
        for at in 0..ENOUGH {
            let ring = Rc::new(Small::new());
            ring.publish(0, 1, 0).unwrap();
            ring.publish(1, 1, 1).unwrap();
            let inner = Rc::clone(&ring);
            let sei = move || put(&inner, 2, 2, 2);
            let (reached, mut got) = interrupt_at(at, sei, || operation(&ring));
            got.extend(values(&ring));
            let expected = if reached { vec![0, 1, 2] } else { vec![0, 1] };
            assert_eq!(got, expected, "{name} interrupted at step {at}");
            assert_eq!(ring.counters().in_flight, 0);
            if !reached {
                break;
            }
        }
    }
}

#[test]
fn requirement_2_acknowledged_means_published_wherever_the_producer_is_lost() {
    for at in 0..ENOUGH {
        let ring = Small::new();
        let acknowledged = Cell::new(false);
        let done = lose_at(at, || {
            if ring.publish(1, 1, 7).is_ok() {
                acknowledged.set(true);
            }
        });
        // SAFETY: the producer above has ended, or was unwound and never continues.
        unsafe { ring.abandon(1) };
        let got = values(&ring);
        assert!(
            !acknowledged.get() || got == [7],
            "acknowledged and gone, lost at {at}"
        );
        if done.is_some() {
            assert_eq!(got, [7]);
            return;
        }
    }
    panic!("never came to an end");
}

#[test]
fn requirement_2_a_full_queue_refuses_counts_and_remembers() {
    let ring = Small::new();
    (0..4).for_each(|n| put(&ring, u64::from(n), 1, n));
    assert!(!ring.take_overflow());
    assert_eq!(ring.publish(4, 1, 4), Err(Refused::Full));
    assert_eq!(ring.publish(5, 1, 5), Err(Refused::Full));
    assert_eq!(values(&ring), [0, 1, 2, 3]);
    assert!(ring.has_work(), "a refused source waits: this is work, too");
    assert!(
        ring.take_overflow(),
        "the consumer is told to look at the sources again"
    );
    assert!(!ring.take_overflow() && !ring.has_work());
    assert!(ring.publish(4, 1, 4).is_ok());
    let counters = ring.counters();
    assert_eq!(
        (counters.published, counters.taken, counters.refused),
        (5, 4, 2)
    );
}

#[test]
fn requirement_2_nothing_is_lost_when_a_small_queue_meets_a_storm() {
    // 50 errors at one source that holds one record at a time: the firmware model.
    let ring = Small::new();
    let mut got = vec![];
    let mut source: Option<u32> = None;
    let mut raised = 0..50_u32;
    // Bounded, so that a queue which never has room again fails instead of hanging.
    for _ in 0..ENOUGH {
        source = source.or_else(|| raised.next());
        let Some(record) = source else { break };
        match ring.publish(u64::from(record), 1, record) {
            Ok(_) => source = None,
            Err(_) => got.extend(values(&ring)),
        }
    }
    got.extend(values(&ring));
    assert_eq!(got, (0..50).collect::<Vec<_>>());
}

#[test]
fn requirement_2_one_slot_is_left_for_a_fatal_record() {
    let ring = Small::new();
    (0..4).for_each(|n| put(&ring, n, 1, 0));
    assert!(
        ring.publish(4, 1, 0).is_err(),
        "an ordinary record does not get it"
    );
    let position = ring.publish_fatal(5, 1, 9).unwrap();
    assert!(position.is_emergency());
    assert_eq!(ring.publish_fatal(6, 1, 9), Err(Refused::Full));
    assert_eq!(values(&ring), [0, 0, 0, 0, 9]);
    assert!(
        !ring.publish_fatal(7, 1, 9).unwrap().is_emergency(),
        "only when the queue is full"
    );
    (0..3).for_each(|n| put(&ring, n, 1, 0));
    assert!(
        ring.publish_fatal(8, 1, 9).unwrap().is_emergency(),
        "and again, once it is empty"
    );
}

#[test]
fn requirement_3_a_lost_producer_does_not_jam_the_queue() {
    let mut holes = 0;
    for at in 0..ENOUGH {
        let ring = Small::new();
        ring.publish(1, 1, 1).unwrap();
        let done = lose_at(at, || ring.publish(2, 2, 2));
        // SAFETY: the producer of level 2 has ended, or was unwound and never continues.
        let freed = unsafe { ring.abandon(2) };
        holes += freed;
        let mut got = values(&ring);
        got.retain(|value| *value != 2);
        assert_eq!(got, [1]);
        for lap in 0..20 {
            (0..4).for_each(|n| put(&ring, lap, 1, n));
            assert_eq!(values(&ring), [0, 1, 2, 3], "lost at {at}, lap {lap}");
        }
        let counters = ring.counters();
        assert_eq!((counters.in_flight, counters.abandoned), (0, freed as u64));
        if done.is_some() {
            assert!(
                holes >= 3,
                "the test lost a producer between reserving and publishing"
            );
            return;
        }
    }
    panic!("never came to an end");
}

#[test]
fn requirement_3_giving_up_a_deep_producer_leaves_the_interrupted_one_alone() {
    for outer_at in 0..ENOUGH {
        let mut lost_any = false;
        for inner_at in 0..12 {
            let ring = Rc::new(Small::new());
            let inner = Rc::clone(&ring);
            let sei = move || {
                let suspended = inner.counters().in_flight;
                lose_at(inner_at, || inner.publish(20, 2, 2));
                // SAFETY: level 2 has ended or was unwound; level 1 goes on and is not given up.
                let freed = unsafe { inner.abandon(2) };
                assert_eq!(inner.counters().in_flight, suspended, "{freed} given up");
            };
            let (reached, outer) = interrupt_at(outer_at, sei, || ring.publish(10, 1, 1));
            outer.unwrap();
            let got = values(&ring);
            assert!(got.contains(&1), "{outer_at} {inner_at}: {got:?}");
            assert_eq!(ring.counters().in_flight, 0);
            lost_any |= reached;
        }
        if !lost_any {
            return;
        }
    }
    panic!("never came to an end");
}

#[test]
fn requirement_3_a_lost_consumer_gives_back_what_it_held() {
    let mut brought_back = 0;
    for at in 0..ENOUGH {
        let ring = Small::new();
        (0..3).for_each(|n| put(&ring, u64::from(n), 1, n));
        let finished = Cell::new(false);
        let done = lose_at(at, || {
            let entry = ring.claim(ELSEWHERE).unwrap();
            // The work would be done here; then:
            finished.set(ring.finish(entry.position, ELSEWHERE));
        });
        // SAFETY: the consumer has ended, or was unwound and never continues.
        brought_back += unsafe { ring.release_claims(ELSEWHERE) };
        let got = values(&ring);
        if finished.get() {
            assert_eq!(got, [1, 2]);
        } else {
            assert!(got == [0, 1, 2] || (got == [1, 2]), "lost at {at}: {got:?}");
        }
        (0..4).for_each(|n| put(&ring, 9, 1, n));
        assert_eq!(values(&ring), [0, 1, 2, 3]);
        if done.is_some() {
            assert!(brought_back >= 2);
            return;
        }
    }
    panic!("never came to an end");
}

#[test]
fn requirement_3_a_record_that_comes_back_is_handed_out_before_younger_ones() {
    let ring = Small::new();
    (0..4).for_each(|n| put(&ring, u64::from(n), 1, n));
    let lost = ring.claim(ELSEWHERE).unwrap();
    assert_eq!(
        ring.take(HERE).unwrap().value,
        1,
        "a claim does not hold the others up"
    );
    assert_eq!(ring.take(HERE).unwrap().value, 2);
    assert_eq!(
        ring.publish(4, 1, 4),
        Err(Refused::Full),
        "its slot is in use"
    );
    // SAFETY: the claim above is over; its caller does not finish.
    assert_eq!(unsafe { ring.release_claims(ELSEWHERE) }, 1);
    assert_eq!(ring.oldest_stamp_ticks(), Some(lost.stamp_ticks));
    assert_eq!(values(&ring), [0, 3]);
    (0..4).for_each(|n| put(&ring, 9, 1, n));
    assert_eq!(values(&ring), [0, 1, 2, 3]);
}

#[test]
fn requirement_3_claims_of_others_are_not_released() {
    let ring = Small::new();
    ring.publish(0, 1, 0).unwrap();
    let entry = ring.claim(HERE).unwrap();
    // SAFETY: PE 1 never used this ring.
    assert_eq!(unsafe { ring.release_claims(ELSEWHERE) }, 0);
    assert!(
        !ring.finish(entry.position, ELSEWHERE),
        "only the holder finishes"
    );
    assert!(ring.finish(entry.position, HERE));
    assert!(!ring.finish(entry.position, HERE), "and only once");
}

#[test]
fn requirement_4_no_record_waits_when_the_guest_is_entered() {
    // The exit path: drain, look, enter. An SEI in it sends it back to its start.
    for at in 0..ENOUGH {
        let ring = Rc::new(Small::new());
        ring.publish(0, 1, 0).unwrap();
        let rewind = Rc::new(Cell::new(false));
        let (inner, flag) = (Rc::clone(&ring), Rc::clone(&rewind));
        let sei = move || {
            inner.publish(1, 1, 1).unwrap();
            flag.set(true);
        };
        let got = RefCell::new(vec![]);
        let (reached, ()) = interrupt_at(at, sei, || {
            loop {
                got.borrow_mut().extend(values(&ring));
                if !ring.has_work() && !rewind.replace(false) {
                    break;
                }
            }
        });
        assert!(
            !ring.has_work() && ring.take(HERE).is_none(),
            "entered with work, SEI at {at}"
        );
        assert_eq!(got.into_inner(), if reached { vec![0, 1] } else { vec![0] });
        if !reached {
            return;
        }
    }
    panic!("never came to an end");
}

#[test]
fn requirement_4_a_published_record_is_seen_by_the_next_look_at_every_fill_level() {
    let ring = Small::new();
    for lap in 0..40_u64 {
        assert!(!ring.has_work());
        ring.publish(lap, 1, 0).unwrap();
        assert!(ring.has_work());
        assert_eq!(ring.oldest_stamp_ticks(), Some(lap));
        assert!(ring.take(HERE).is_some());
    }
}

#[test]
fn requirement_5_records_come_in_order_and_the_fatal_one_at_its_place() {
    let ring = Small::new();
    (0..4).for_each(|n| put(&ring, u64::from(n), 1, n));
    ring.publish_fatal(4, 1, 4).unwrap();
    assert_eq!(ring.take(HERE).unwrap().value, 0);
    ring.publish(5, 1, 5).unwrap();
    assert_eq!(values(&ring), [1, 2, 3, 4, 5]);
}

#[test]
fn requirement_5_an_unpublished_record_holds_back_the_younger_ones_only() {
    let ring = Rc::new(Small::new());
    ring.publish(0, 1, 0).unwrap();
    let inner = Rc::clone(&ring);
    let seen = Rc::new(RefCell::new(vec![]));
    let note = Rc::clone(&seen);
    // Step 5 of a publish: reserved, not published.
    let sei = move || {
        inner.publish(20, 2, 2).unwrap();
        note.borrow_mut()
            .extend(core::iter::from_fn(|| inner.take(ELSEWHERE)));
    };
    let (reached, outer) = interrupt_at(5, sei, || ring.publish(10, 1, 1));
    assert!(reached && outer.is_ok());
    assert_eq!(
        seen.borrow()
            .iter()
            .map(|entry| entry.value)
            .collect::<Vec<_>>(),
        [0]
    );
    assert_eq!(values(&ring), [1, 2], "in the order of their stamps");
}

#[test]
fn requirement_5_several_queues_merge_by_stamp() {
    let rings = [Small::new(), Small::new(), Small::new()];
    for (ring, stamp) in [(0, 3), (1, 1), (2, 2), (1, 4), (0, 6), (2, 5)] {
        rings[ring].publish(stamp, 1, ring as u32).unwrap();
    }
    let mut stamps = vec![];
    while let Some((index, entry)) = take_oldest(rings.iter(), HERE) {
        assert_eq!(index as u32, entry.value);
        stamps.push(entry.stamp_ticks);
    }
    assert_eq!(stamps, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn requirement_5_the_crash_path_sees_all_and_consumes_nothing() {
    let ring = Small::new();
    (0..4).for_each(|n| put(&ring, u64::from(n), 1, n));
    ring.publish_fatal(4, 2, 4).unwrap();
    let claimed = ring.claim(ELSEWHERE).unwrap();
    assert!(ring.finish(claimed.position, ELSEWHERE));
    let held = ring.claim(ELSEWHERE).unwrap();
    lose_at(5, || ring.publish(5, 1, 5));
    for _ in 0..2 {
        let mut shown = vec![];
        assert_eq!(ring.peek_all(HERE, |peeked| shown.push(peeked)), 5);
        let ready: Vec<u32> = shown
            .iter()
            .filter_map(|peeked| match peeked {
                Peeked::Ready(entry) => Some(entry.value),
                _ => None,
            })
            .collect();
        assert_eq!(ready, [2, 3, 4]);
        let in_hands = Peeked::InHands {
            position: held.position,
            stamp_ticks: 1,
            holder: ELSEWHERE,
        };
        assert_eq!(shown[0], in_hands);
        assert!(
            shown
                .iter()
                .any(|peeked| matches!(peeked, Peeked::Unpublished { .. }))
        );
    }
    assert!(ring.finish(held.position, ELSEWHERE));
    assert_eq!(values(&ring), [2, 3, 4]);
}

#[test]
fn requirement_5_a_crash_path_lost_at_any_step_keeps_every_record() {
    for at in 0..ENOUGH {
        let ring = Small::new();
        (0..3).for_each(|n| put(&ring, u64::from(n), 1, n));
        let done = lose_at(at, || ring.peek_all(ELSEWHERE, |_| ()));
        // SAFETY: the crash path has ended, or was unwound and never continues.
        unsafe { ring.release_claims(ELSEWHERE) };
        assert_eq!(values(&ring), [0, 1, 2], "lost at {at}");
        if done.is_some() {
            return;
        }
    }
    panic!("never came to an end");
}

#[test]
fn requirement_6_an_entry_is_a_copy_that_its_source_cannot_change() {
    let ring = Ring::<[u64; 8], 4>::new();
    let mut shared = [7; 8];
    ring.publish(0, 1, shared).unwrap();
    shared.fill(9);
    assert_eq!(ring.take(HERE).unwrap().value, [7; 8]);
    assert_eq!(shared, [9; 8]);
}
