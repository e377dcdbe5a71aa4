// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pool's frames against a model that keeps them in sets.

use std::collections::{BTreeMap, BTreeSet};

use firebreak_abi::{Pa, VmId};
use firebreak_vm::{FrameMap, FrameUse};
use proptest::prelude::*;

const FRAMES: usize = 16;
/// Aligned to a frame, and to no more.
const BASE: Pa = Pa::new(0x4030_1000);

#[test]
fn a_frame_that_does_not_exist_is_the_hypervisors() {
    let map = FrameMap::<2>::new();
    assert_eq!(map.use_of(2), FrameUse::Hypervisor);
    assert_eq!(map.retire(2), FrameUse::Hypervisor);
    map.free(2);
    map.note_table(2, VmId(1));
    assert_eq!(map.take_for_table(1, BASE, VmId(0)), None);
}

#[test]
fn a_bad_frame_under_tables_is_retired_when_they_are_given_back() {
    let map = FrameMap::<4>::new();
    for index in 0..4 {
        map.free(index);
    }
    let vm = VmId(5);
    assert_eq!(map.take_for_table(1, BASE, vm), Some(0));
    assert_eq!(map.take_for_table(1, BASE, vm), Some(1));
    let worn = |worn| FrameUse::Table { vm, worn };
    assert!(!map.has_worn_tables(vm));
    assert_eq!(map.retire(1), worn(false));
    assert!(map.has_worn_tables(vm) && !map.has_worn_tables(VmId(4)));
    assert_eq!(map.retire(1), worn(true));
    map.release_tables(VmId(4));
    assert_eq!(map.use_of(1), worn(true));
    map.release_tables(vm);
    assert_eq!(map.use_of(0), FrameUse::Free);
    assert_eq!(map.use_of(1), FrameUse::Retired);
    assert!(!map.has_worn_tables(vm));
    map.release_tables(vm);
    assert_eq!(map.retire(1), FrameUse::Retired);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take(usize, u8),
    Release(u8),
    Retire(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (prop::sample::select(vec![1usize, 2, 4]), 0..3u8).prop_map(|(n, vm)| Step::Take(n, vm)),
        1 => (0..3u8).prop_map(Step::Release),
        1 => (0..FRAMES).prop_map(Step::Retire),
    ]
}

proptest! {
    #[test]
    fn no_frame_is_handed_out_twice_nor_after_it_went_bad(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let map = FrameMap::<FRAMES>::new();
        for index in 2..FRAMES {
            map.free(index);
        }
        let mut tables: BTreeMap<usize, u8> = BTreeMap::new();
        let mut bad: BTreeSet<usize> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Take(count, vm) => {
                    let free = |index: &usize| {
                        *index >= 2 && !tables.contains_key(index) && !bad.contains(index)
                    };
                    // BASE is frame 0x40301: frame n is aligned to 2 when n is odd, and so on.
                    let aligned = |first: usize| (0x4_0301 + first).is_multiple_of(count);
                    let possible = (0..=FRAMES - count)
                        .any(|first| aligned(first) && (first..first + count).all(|i| free(&i)));
                    let taken = map.take_for_table(count, BASE, VmId(vm));
                    prop_assert_eq!(taken.is_some(), possible);
                    for index in taken.into_iter().flat_map(|first| first..first + count) {
                        prop_assert!(free(&index));
                        prop_assert!(aligned(taken.unwrap()));
                    }
                    tables.extend(taken.into_iter().flat_map(|f| f..f + count).map(|i| (i, vm)));
                }
                Step::Release(vm) => {
                    map.release_tables(VmId(vm));
                    tables.retain(|_, of| *of != vm);
                }
                Step::Retire(index) => {
                    map.retire(index);
                    if index >= 2 {
                        bad.insert(index);
                    }
                }
            }
            for index in 0..FRAMES {
                let expected = match (tables.get(&index), bad.contains(&index)) {
                    (Some(vm), worn) => FrameUse::Table { vm: VmId(*vm), worn },
                    (None, true) => FrameUse::Retired,
                    (None, false) if index < 2 => FrameUse::Hypervisor,
                    (None, false) => FrameUse::Free,
                };
                prop_assert_eq!(map.use_of(index), expected);
            }
        }
    }
}
