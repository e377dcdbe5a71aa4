// SPDX-License-Identifier: MIT OR Apache-2.0
//! Owner map against a linear scan.

use firebreak_abi::{Ipa, Pa, PaRange, VmId};
use firebreak_vm::{Owned, Owner, OwnerMap, OwnerMapError, Part};
use proptest::prelude::*;

const UNKNOWN: Owned = Owned {
    owner: Owner::Unknown,
    ipa: None,
};

#[test]
fn a_page_of_a_partition_is_named_as_the_partition_sees_it() {
    let mut map = OwnerMap::<4>::new();
    let owner = Owner::Partition(VmId(2));
    let range = PaRange::new(0x5000_0000, 0x1000_0000);
    map.insert(range, owner, Some(Ipa::new(0x4000_0000)))
        .unwrap();
    let found = map.owner_of(Pa::new(0x5123_4567));
    let ipa = Some(Ipa::new(0x4123_4567));
    assert_eq!(found, Owned { owner, ipa });
    for outside in [0, 0x4fff_ffff, 0x6000_0000, u64::MAX] {
        assert_eq!(map.owner_of(Pa::new(outside)), UNKNOWN);
    }
}

#[test]
fn refusals_name_the_culprit_and_change_nothing() {
    let mut map = OwnerMap::<2>::new();
    let low = PaRange::new(0x1000, 0x1000);
    map.insert(low, Owner::Firmware, None).unwrap();
    for range in [PaRange::new(0x5000, 0), PaRange::new(u64::MAX, 2)] {
        assert_eq!(
            map.insert(range, Owner::Unused, None),
            Err(OwnerMapError::BadRange { range })
        );
    }
    for range in [
        PaRange::new(0x1fff, 1),
        PaRange::new(0, 0x1001),
        PaRange::new(0, 0x9000),
        low,
    ] {
        let refused = OwnerMapError::Overlap {
            range,
            existing: low,
            owner: Owner::Firmware,
        };
        assert_eq!(map.insert(range, Owner::Unused, None), Err(refused));
    }
    map.insert(PaRange::new(0x2000, 0x1000), Owner::Device, None)
        .unwrap();
    let range = PaRange::new(0x8000, 0x1000);
    let full = Err(OwnerMapError::Full { range, capacity: 2 });
    assert_eq!(map.insert(range, Owner::Unused, None), full);
    assert_eq!(map.fill(range, Owner::Unused), full);
    let range = PaRange::new(u64::MAX, 2);
    assert_eq!(
        map.fill(range, Owner::Unused),
        Err(OwnerMapError::BadRange { range })
    );
    assert_eq!(map.ranges().len(), 2);
    assert_eq!(map.owner_of(Pa::new(0x1fff)).owner, Owner::Firmware);
    assert_eq!(map.owner_of(Pa::new(0x2000)).owner, Owner::Device);
    assert_eq!(map.owner_of(Pa::new(0x8000)), UNKNOWN);
}

fn owner() -> impl Strategy<Value = (Owner, Option<Ipa>)> {
    prop_oneof![
        (0..8u8, 0..0x100u64)
            .prop_map(|(vm, ipa)| (Owner::Partition(VmId(vm)), Some(Ipa::new(ipa << 12)))),
        Just((Owner::Hypervisor(Part::Text), None)),
        Just((Owner::Payload(VmId(3)), None)),
        Just((Owner::Firmware, None)),
        Just((Owner::Device, None)),
        Just((Owner::Unused, None)),
    ]
}

fn scan(accepted: &[(PaRange, Owner, Option<Ipa>)], pa: Pa) -> Owned {
    let found = accepted.iter().find(|(range, ..)| range.contains(pa));
    found.map_or(UNKNOWN, |&(range, owner, first)| Owned {
        owner,
        ipa: first.map(|first| Ipa::new(first.get() + pa.get() - range.start.get())),
    })
}

proptest! {
    #[test]
    fn the_map_agrees_with_a_linear_scan(
        inserts in prop::collection::vec((0..64u64, 0..8u64, owner()), 0..40),
    ) {
        let mut map = OwnerMap::<16>::new();
        let mut accepted: Vec<(PaRange, Owner, Option<Ipa>)> = Vec::new();
        for (start, len, (owner, ipa)) in inserts {
            let range = PaRange::new(start << 12, len << 12);
            let fits = len > 0 && accepted.iter().all(|(one, ..)| !one.overlaps(range));
            let result = map.insert(range, owner, ipa);
            prop_assert_eq!(result.is_ok(), fits && accepted.len() < 16);
            if result.is_ok() {
                accepted.push((range, owner, ipa));
            }
        }
        for page in 0..80u64 {
            for pa in [page << 12, (page << 12) + 0xfff] {
                let pa = Pa::new(pa);
                prop_assert_eq!(map.owner_of(pa), scan(&accepted, pa), "{:?}", pa);
            }
        }
        prop_assert!(map.ranges().is_sorted_by_key(|(range, ..)| range.start));
    }

    /// Page by page: what had an owner keeps it, the rest of the range gets one.
    #[test]
    fn filling_gives_away_what_nobody_has(
        inserts in prop::collection::vec((0..64u64, 1..8u64), 0..12),
        fills in prop::collection::vec((0..64u64, 0..40u64, owner()), 1..4),
    ) {
        let mut map = OwnerMap::<128>::new();
        let mut pages = [Owner::Unknown; 128];
        for (start, len) in inserts {
            let range = PaRange::new(start << 12, len << 12);
            if map.insert(range, Owner::Shared, None).is_ok() {
                pages[start as usize..(start + len) as usize].fill(Owner::Shared);
            }
        }
        for (start, len, (owner, _)) in fills {
            map.fill(PaRange::new(start << 12, len << 12), owner).unwrap();
            for page in &mut pages[start as usize..(start + len) as usize] {
                if *page == Owner::Unknown {
                    *page = owner;
                }
            }
        }
        for (index, expected) in pages.into_iter().enumerate() {
            let pa = Pa::new((index as u64) << 12);
            prop_assert_eq!(map.owner_of(pa).owner, expected);
        }
    }
}
