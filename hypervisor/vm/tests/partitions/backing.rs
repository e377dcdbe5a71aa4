// SPDX-License-Identifier: MIT OR Apache-2.0
//! Spare pages behind retired ones: which, when, and that a bad page never comes back.

use firebreak_abi::{Ipa, PAGE_SIZE_BYTES, Pa, PaRange};
use firebreak_vm::Backing;
use proptest::prelude::*;

const FIRST: u64 = 0x4000_0000;
const RAM: u64 = 0x8000_0000;
const RAM_BYTES: u64 = 16 * PAGE_SIZE_BYTES;
const SPARES: u64 = 0x9000_0000;

fn backing<const N: usize>(spares: u64) -> Backing<N> {
    Backing::new(
        Ipa::new(FIRST),
        PaRange::new(RAM, RAM_BYTES),
        PaRange::new(SPARES, spares * PAGE_SIZE_BYTES),
    )
}

fn page(number: u64) -> (Ipa, Pa) {
    let offset = number * PAGE_SIZE_BYTES;
    (Ipa::new(FIRST + offset), Pa::new(RAM + offset))
}

fn spare(number: u64) -> Pa {
    Pa::new(SPARES + number * PAGE_SIZE_BYTES)
}

#[test]
fn a_retired_page_is_a_hole_until_a_spare_is_lent_to_it() {
    let mut memory = backing::<4>(2);
    let (ipa, pa) = page(3);
    assert_eq!(memory.pa_of(ipa), Some(pa));
    assert_eq!(memory.retire(Pa::new(pa.get() + 0x123)), Ok(true));
    assert!(memory.is_hole(ipa) && memory.pa_of(ipa).is_none());
    assert_eq!(memory.holes().collect::<Vec<_>>(), [ipa]);
    assert_eq!(memory.lend(), Some((ipa, spare(0))));
    assert_eq!(memory.lend(), None, "there is no hole any more");
    let inside = Ipa::new(ipa.get() + 0x18);
    assert_eq!(memory.pa_of(inside), Some(Pa::new(SPARES + 0x18)));
    assert_eq!(memory.ipa_of(Pa::new(SPARES + 0x18)), Some(inside));
    assert!(!memory.is_hole(ipa));
    assert_eq!((memory.spares_left(), memory.lent_mask()), (1, 0b01));
}

#[test]
fn a_spare_that_goes_bad_is_replaced_by_the_next_and_never_used_again() {
    let mut memory = backing::<4>(3);
    let (ipa, pa) = page(0);
    assert_eq!(memory.retire(pa), Ok(true));
    assert_eq!(memory.lend(), Some((ipa, spare(0))));
    assert_eq!(memory.retire(spare(0)), Ok(true));
    assert_eq!(memory.retire(spare(0)), Ok(false));
    assert!(memory.is_hole(ipa));
    assert_eq!(
        memory.holes().count(),
        1,
        "one hole, whatever stood behind it"
    );
    // An idle spare goes bad: no page of the partition is lost, and nobody gets it.
    assert_eq!(memory.retire(spare(1)), Ok(true));
    assert_eq!(memory.retired().as_slice().len(), 2);
    assert_eq!(memory.lend(), Some((ipa, spare(2))));
    assert_eq!(memory.lent().collect::<Vec<_>>(), [(ipa, spare(2))]);
    assert_eq!(memory.spares_left(), 0);
}

#[test]
fn without_a_spare_the_page_stays_a_hole() {
    for spares in [0, 1] {
        let mut memory = backing::<4>(spares);
        for number in 0..=spares {
            assert_eq!(memory.retire(page(number).1), Ok(true));
        }
        let lent = core::iter::from_fn(|| memory.lend()).count() as u64;
        assert_eq!(lent, spares);
        assert_eq!(memory.holes().collect::<Vec<_>>(), [page(spares).0]);
    }
}

#[test]
fn a_full_list_of_retired_pages_still_strikes_a_spare_out() {
    let mut memory = backing::<1>(2);
    assert_eq!(memory.retire(page(1).1), Ok(true));
    assert_eq!(memory.lend(), Some((page(1).0, spare(0))));
    assert!(memory.retire(spare(0)).is_err());
    assert_eq!(memory.pa_of(page(1).0), None, "a bad page is never used");
    assert_eq!(memory.lend(), Some((page(1).0, spare(1))));
}

#[test]
fn what_is_no_memory_of_the_partition_has_no_page() {
    let mut memory = backing::<4>(2);
    let end = Ipa::new(FIRST + RAM_BYTES);
    for ipa in [Ipa::new(FIRST - 1), end, Ipa::new(u64::MAX), Ipa::new(0)] {
        assert_eq!((memory.pa_of(ipa), memory.is_hole(ipa)), (None, false));
    }
    for pa in [RAM - 1, RAM + RAM_BYTES, SPARES - 1, SPARES, spare(2).get()] {
        assert_eq!(memory.ipa_of(Pa::new(pa)), None, "{pa:#x}");
    }
    assert_eq!(memory.retire(spare(2)), Ok(false));
}

proptest! {
    /// Whatever goes bad in whatever order: the runs cover all pages but the holes, in their
    /// order; no run holds a page that went bad; no page stands behind two.
    #[test]
    fn runs_hold_no_bad_page_and_no_page_twice(
        spares in 0_u64..6,
        steps in proptest::collection::vec((0_u64..22, any::<bool>()), 0..40),
        most_pages in 1_u64..20,
    ) {
        let mut memory = backing::<64>(spares);
        let mut bad = std::collections::HashSet::new();
        for (number, restart) in steps {
            let pa = if number < 16 { page(number).1 } else { spare(number - 16) };
            let is_known = number < 16 || number - 16 < spares;
            prop_assert_eq!(memory.retire(pa), Ok(is_known && bad.insert(pa)));
            while restart && memory.lend().is_some() {}
        }
        let (mut ipa, mut seen, mut holes) = (FIRST, std::collections::HashSet::new(), 0);
        while ipa < FIRST + RAM_BYTES {
            let Some(run) = memory.run_at(Ipa::new(ipa), most_pages * PAGE_SIZE_BYTES) else {
                prop_assert!(memory.is_hole(Ipa::new(ipa)));
                holes += 1;
                ipa += PAGE_SIZE_BYTES;
                continue;
            };
            prop_assert!(run.len_bytes > 0 && run.len_bytes <= most_pages * PAGE_SIZE_BYTES);
            for at in (0..run.len_bytes).step_by(PAGE_SIZE_BYTES as usize) {
                let pa = Pa::new(run.start.get() + at);
                prop_assert!(!bad.contains(&pa), "{:x?} is bad", pa);
                prop_assert!(seen.insert(pa));
                prop_assert_eq!(memory.ipa_of(pa), Some(Ipa::new(ipa + at)));
                prop_assert_eq!(memory.pa_of(Ipa::new(ipa + at)), Some(pa));
            }
            ipa += run.len_bytes;
        }
        prop_assert_eq!(holes, memory.holes().count());
        prop_assert_eq!(memory.lent().count() as u32, {
            let of_bad = bad.iter().filter(|pa| memory.ipa_of(**pa).is_some() && pa.get() >= SPARES);
            memory.lent_mask().count_ones() - of_bad.count() as u32
        });
    }
}
