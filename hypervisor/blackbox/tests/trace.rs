// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trace of a PE, as it is read while it is written.

use std::sync::atomic::{AtomicU64, Ordering};

use firebreak_blackbox::trace::{Cause, EXIT_BYTES, EXIT_WORDS, Exit, Ring};

fn memory(exits: usize) -> Vec<AtomicU64> {
    (0..exits * EXIT_WORDS).map(|_| AtomicU64::new(0)).collect()
}

/// Each word says which exit it belongs to.
fn exit(number: u64) -> Exit {
    Exit {
        ticks: number,
        pc: number << 8,
        cause: Cause::Exception(number << 16),
        about: number << 24,
    }
}

#[test]
fn an_exit_is_what_was_written() {
    for cause in [
        Cause::Exception(0x5a00_0000),
        Cause::Interrupt(1019),
        Cause::Interrupt(0),
    ] {
        let exit = Exit {
            ticks: u64::MAX,
            pc: 0x4020_0000,
            cause,
            about: 0xc400_0001,
        };
        assert_eq!(
            Exit::from_words(&exit.to_words()[..], 0),
            Some(exit),
            "{cause:?}"
        );
    }
    assert_eq!(EXIT_BYTES, 32);
    assert_eq!(Exit::from_words(&[0; 4][..], 0), None);
}

#[test]
fn the_last_exits_are_kept_and_no_other() {
    let words = memory(4);
    let ring = Ring::new(&words).expect("room");
    assert_eq!((ring.last(), ring.get(0), ring.get(1)), (0, None, None));
    for number in 1..=9 {
        ring.push(&exit(number));
        assert_eq!(ring.last(), number);
        for asked in 0..=number + 1 {
            // The place of the oldest one may be in use for the next.
            let kept = asked > 0 && asked <= number && asked + 3 > number;
            assert_eq!(
                ring.get(asked),
                kept.then(|| exit(asked)),
                "{asked} of {number}"
            );
        }
    }
}

#[test]
fn a_ring_needs_room_for_two() {
    for (exits, fits) in [(0, false), (1, false), (2, true)] {
        assert_eq!(Ring::new(&memory(exits)).is_some(), fits);
    }
}

/// A reader never sees half of one exit and half of another.
#[test]
fn no_exit_is_torn_while_it_is_read() {
    const EXITS: u64 = 200_000;
    let words = memory(3);
    let ring = Ring::new(&words).expect("room");
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=EXITS {
                ring.push(&exit(number));
            }
        });
        while ring.last() < EXITS {
            let last = ring.last();
            for number in last.saturating_sub(2)..=last + 1 {
                if let Some(found) = ring.get(number) {
                    assert_eq!(found, exit(number));
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    assert_eq!(ring.get(EXITS), Some(exit(EXITS)));
}
