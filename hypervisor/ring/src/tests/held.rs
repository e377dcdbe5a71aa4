// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records that are worked on where they stand.

use std::cell::Cell;
use std::rc::Rc;

use super::{ELSEWHERE, HERE, Small, interrupt_at, lose_at, offer, put, values};
use crate::{Peeked, Ring};

/// More steps than anything here has.
const ENOUGH: usize = 64;

#[test]
fn a_held_record_is_its_holders_alone_until_it_is_finished() {
    let ring = Small::new();
    (0..3).for_each(|n| put(&ring, u64::from(n), 1, n));
    let mut held = ring.hold(HERE).unwrap();
    assert_eq!(*held, 0);
    *held = 7;
    let position = held.position();
    assert!(
        !ring.finish(position, HERE),
        "no slot is freed under its holder's hands"
    );
    assert_eq!((ring.counters().pending, ring.counters().taken), (3, 0));
    let mut shown = vec![];
    ring.peek_all(ELSEWHERE, |peeked| shown.push(peeked));
    assert!(
        shown.contains(&Peeked::InHands {
            position,
            stamp_ticks: 0,
            holder: HERE
        }),
        "{shown:?}"
    );
    assert_eq!(values(&ring), [1, 2], "it does not hold the others up");
    assert_eq!(*held, 7);
    held.finish();
    assert_eq!((ring.counters().pending, ring.counters().taken), (0, 3));
    (0..4).for_each(|n| put(&ring, 9, 1, n));
    assert_eq!(values(&ring), [0, 1, 2, 3]);
}

#[test]
fn a_lost_holder_gives_back_what_it_made_of_the_record() {
    for at in 0..ENOUGH {
        let ring = Small::new();
        (0..2).for_each(|n| put(&ring, u64::from(n), 1, n));
        let changed = Cell::new(false);
        let done = lose_at(at, || {
            let mut held = ring.hold(ELSEWHERE).unwrap();
            *held = 7;
            changed.set(true);
            held.finish();
        });
        // SAFETY: the holder has ended, or was unwound and never continues.
        let back = unsafe { ring.release_claims(ELSEWHERE) };
        let first = if changed.get() { 7 } else { 0 };
        let got = values(&ring);
        assert!(
            got == [first, 1] || got == [1] && back == 0 && changed.get(),
            "lost at {at}: {got:?}"
        );
        (0..4).for_each(|n| put(&ring, 9, 1, n));
        assert_eq!(values(&ring), [0, 1, 2, 3]);
        if done.is_some() {
            assert!(at > 3, "it has steps");
            return;
        }
    }
    panic!("never came to an end");
}

#[test]
fn a_producer_may_interrupt_a_holder_at_every_step() {
    for at in 0..ENOUGH {
        let ring = Rc::new(Small::new());
        (0..4).for_each(|n| put(&ring, u64::from(n), 1, n));
        let inner = Rc::clone(&ring);
        let sei = move || offer(&inner, 4, 2, 4);
        let (reached, value) = interrupt_at(at, sei, || {
            let held = ring.hold(HERE).unwrap();
            let value = *held;
            held.finish();
            value
        });
        assert_eq!(value, 0);
        let refused = ring.take_overflow();
        let expected = if reached && !refused {
            vec![1, 2, 3, 4]
        } else {
            vec![1, 2, 3]
        };
        assert_eq!(values(&ring), expected, "at {at}");
        if !reached {
            return;
        }
    }
    panic!("never came to an end");
}

#[test]
fn the_fatal_record_is_held_in_its_own_slot() {
    let ring = Ring::<u32, 2>::new();
    (0..2).for_each(|n| put(&ring, u64::from(n), 1, n));
    ring.publish_fatal(2, 1, 2).unwrap();
    assert_eq!(ring.take(HERE).map(|entry| entry.value), Some(0));
    assert_eq!(ring.take(HERE).map(|entry| entry.value), Some(1));
    let held = ring.hold(HERE).unwrap();
    assert!(held.position().is_emergency());
    assert_eq!(*held, 2);
    assert!(ring.hold(HERE).is_none());
    held.finish();
    assert!(!ring.has_work());
}
