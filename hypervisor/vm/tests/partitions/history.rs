// SPDX-License-Identifier: MIT OR Apache-2.0
//! Corrected errors by page, against one that remembers everything.

use std::collections::BTreeMap;

use firebreak_abi::Pa;
use firebreak_vm::CorrectedErrors;
use proptest::prelude::*;

const WINDOW_TICKS: u64 = 100;

#[test]
fn a_window_begins_with_an_error_and_ends_by_the_clock() {
    let mut history = CorrectedErrors::<4>::new();
    let mut note = |pa, now| history.note(Pa::new(pa), now, WINDOW_TICKS);
    assert_eq!(note(0x1000, 50), 1);
    assert_eq!(note(0x1fff, 60), 2, "the whole page counts as one");
    assert_eq!(note(0x2000, 61), 1);
    assert_eq!(note(0x1000, 149), 3, "the last tick of the window");
    assert_eq!(note(0x1000, 150), 1, "the first behind it");
    assert_eq!(note(0x1000, 249), 2);
}

#[test]
fn the_length_is_that_of_the_moment_when_the_window_began() {
    let mut history = CorrectedErrors::<4>::new();
    assert_eq!(history.note(Pa::new(0x1000), 0, 10), 1);
    assert_eq!(history.note(Pa::new(0x1000), 9, 1000), 2);
    assert_eq!(history.note(Pa::new(0x1000), 10, 1000), 1);
    assert_eq!(history.note(Pa::new(0x1000), 900, 10), 2);
}

#[test]
fn a_full_history_forgets_what_matters_least() {
    let mut history = CorrectedErrors::<2>::new();
    let mut note = |pa, now| history.note(Pa::new(pa), now, WINDOW_TICKS);
    assert_eq!((note(0x1000, 0), note(0x1000, 1)), (1, 2));
    assert_eq!(note(0x2000, 2), 1);
    // Page 2 has fewer than page 1.
    assert_eq!(note(0x3000, 3), 1);
    assert_eq!(note(0x1000, 4), 3);
    assert_eq!(note(0x2000, 5), 1, "forgotten, and back in place of page 3");
    // Page 1 has more, but its window is over.
    assert_eq!(note(0x4000, 101), 1);
    assert_eq!(note(0x2000, 102), 2);
    assert_eq!(note(0x1000, 103), 1);
}

#[test]
fn a_count_that_cannot_grow_stays_where_it_is() {
    let mut history = CorrectedErrors::<1>::new();
    for expected in 1..=u16::MAX {
        assert_eq!(history.note(Pa::new(0x1000), 0, 1), expected);
    }
    assert_eq!(history.note(Pa::new(0x1000), 0, 1), u16::MAX);
}

proptest! {
    #[test]
    fn with_room_for_all_pages_nothing_is_forgotten(
        errors in prop::collection::vec((0..8u64, 0..60u64), 0..100),
    ) {
        let mut history = CorrectedErrors::<8>::new();
        let mut now = 0;
        let mut seen: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (page, pause) in errors {
            now += pause;
            let times = seen.entry(page).or_default();
            times.push(now);
            // Windows, from the first error on.
            let (mut start, mut count) = (times[0], 0u16);
            for time in times.iter() {
                if *time >= start + WINDOW_TICKS {
                    (start, count) = (*time, 0);
                }
                count += 1;
            }
            prop_assert_eq!(history.note(Pa::new(page << 12), now, WINDOW_TICKS), count);
        }
    }
}
