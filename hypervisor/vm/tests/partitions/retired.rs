// SPDX-License-Identifier: MIT OR Apache-2.0
//! Retired pages: once each, whole pages, a limit that is reported.

use firebreak_abi::{Ipa, Pa};
use firebreak_vm::{RetiredPage, RetiredPages, RetiredPagesFull};

#[test]
fn a_page_is_retired_once_whatever_address_in_it_went_bad() {
    let mut pages = RetiredPages::<4>::new();
    assert_eq!(
        pages.insert(Ipa::new(0x4000_1234), Pa::new(0x8000_1234)),
        Ok(true)
    );
    assert_eq!(
        pages.insert(Ipa::new(0x4000_1fff), Pa::new(0x8000_1fff)),
        Ok(false)
    );
    let page = RetiredPage {
        ipa: Ipa::new(0x4000_1000),
        pa: Pa::new(0x8000_1000),
    };
    assert_eq!(pages.as_slice(), [page]);
    assert!(pages.contains_ipa(Ipa::new(0x4000_1abc)) && pages.contains_pa(Pa::new(0x8000_1000)));
    assert!(!pages.contains_ipa(Ipa::new(0x4000_2000)) && !pages.contains_pa(Pa::new(0x8000_0fff)));
}

#[test]
fn a_spare_that_goes_bad_too_is_another_page() {
    let mut pages = RetiredPages::<4>::new();
    let ipa = Ipa::new(0x4000_1000);
    assert_eq!(pages.insert(ipa, Pa::new(0x8000_1000)), Ok(true));
    assert_eq!(pages.insert(ipa, Pa::new(0x9000_0000)), Ok(true));
    assert_eq!(pages.as_slice().len(), 2);
}

#[test]
fn one_too_many_is_reported_and_the_list_stays() {
    let mut pages = RetiredPages::<2>::new();
    for page in 0..2 {
        assert_eq!(
            pages.insert(Ipa::new(page << 12), Pa::new(page << 12)),
            Ok(true)
        );
    }
    let page = RetiredPage {
        ipa: Ipa::new(0x9000),
        pa: Pa::new(0x9000),
    };
    let full = RetiredPagesFull { page, capacity: 2 };
    assert_eq!(pages.insert(page.ipa, page.pa), Err(full));
    assert!(!pages.contains_pa(page.pa));
    assert_eq!(
        pages.insert(Ipa::new(0x1000), Pa::new(0x1000)),
        Ok(false),
        "full, but known"
    );
    assert!(full.to_string().contains("0x9000"));
}

#[test]
fn a_page_is_cut_off_once_and_only_if_it_was_retired() {
    let mut pages = RetiredPages::<2>::new();
    let pa = Pa::new(0x8000_1234);
    assert!(!pages.mark_cut_off(pa));
    pages.insert(Ipa::new(0x4000_1234), pa).unwrap();
    assert!(pages.mark_cut_off(Pa::new(0x8000_1fff)));
    assert!(!pages.mark_cut_off(pa));
    assert_eq!(pages.insert(Ipa::new(0x4000_1234), pa), Ok(false));
    assert!(!pages.mark_cut_off(pa));
}
