// SPDX-License-Identifier: MIT OR Apache-2.0
//! Owner map against a linear scan.

use firebreak_abi::{Ipa, Pa, PaRange, VmId};
use firebreak_vm::{Owned, Owner, OwnerMap, OwnerMapError};
use proptest::prelude::*;

#[test]
fn a_page_of_a_partition_is_named_as_the_partition_sees_it() {
    let mut map = OwnerMap::<4>::new();
    let owner = Owner::Partition {
        vm: VmId(2),
        ipa: Ipa::new(0x4000_0000),
    };
    map.insert(PaRange::new(0x5000_0000, 0x1000_0000), owner)
        .unwrap();
    let found = map.owner_of(Pa::new(0x5123_4567));
    assert_eq!(
        found,
        Owned::Partition {
            vm: VmId(2),
            ipa: Ipa::new(0x4123_4567)
        }
    );
    assert_eq!(
        (found.vm(), found.ipa()),
        (Some(VmId(2)), Some(Ipa::new(0x4123_4567)))
    );
    for outside in [0, 0x4fff_ffff, 0x6000_0000, u64::MAX] {
        assert_eq!(map.owner_of(Pa::new(outside)), Owned::Unknown);
    }
}

#[test]
fn refusals_name_the_culprit_and_change_nothing() {
    let mut map = OwnerMap::<2>::new();
    let low = PaRange::new(0x1000, 0x1000);
    map.insert(low, Owner::Firmware).unwrap();
    for range in [PaRange::new(0x5000, 0), PaRange::new(u64::MAX, 2)] {
        assert_eq!(
            map.insert(range, Owner::Free),
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
        assert_eq!(map.insert(range, Owner::Free), Err(refused));
    }
    map.insert(PaRange::new(0x2000, 0x1000), Owner::Device)
        .unwrap();
    let range = PaRange::new(0x8000, 0x1000);
    assert_eq!(
        map.insert(range, Owner::Free),
        Err(OwnerMapError::Full { range, capacity: 2 })
    );
    assert_eq!(map.ranges().len(), 2);
    assert_eq!(map.owner_of(Pa::new(0x1fff)).as_str(), "firmware");
    assert_eq!(map.owner_of(Pa::new(0x2000)).as_str(), "device");
    assert_eq!(map.owner_of(Pa::new(0x8000)).as_str(), "unknown");
}

fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        (0..8u8, 0..0x100u64).prop_map(|(vm, ipa)| Owner::Partition {
            vm: VmId(vm),
            ipa: Ipa::new(ipa << 12)
        }),
        Just(Owner::Hypervisor),
        Just(Owner::Firmware),
        Just(Owner::Device),
        Just(Owner::Free),
    ]
}

fn scan(accepted: &[(PaRange, Owner)], pa: Pa) -> Owned {
    let found = accepted.iter().find(|(range, _)| range.contains(pa));
    match found {
        None => Owned::Unknown,
        Some(&(range, Owner::Partition { vm, ipa })) => {
            let ipa = Ipa::new(ipa.get() + pa.get() - range.start.get());
            Owned::Partition { vm, ipa }
        }
        Some((_, Owner::Hypervisor)) => Owned::Hypervisor,
        Some((_, Owner::Firmware)) => Owned::Firmware,
        Some((_, Owner::Device)) => Owned::Device,
        Some((_, Owner::Free)) => Owned::Free,
    }
}

proptest! {
    #[test]
    fn the_map_agrees_with_a_linear_scan(
        inserts in prop::collection::vec((0..64u64, 0..8u64, owner()), 0..40),
    ) {
        let mut map = OwnerMap::<16>::new();
        let mut accepted: Vec<(PaRange, Owner)> = Vec::new();
        for (start, len, owner) in inserts {
            let range = PaRange::new(start << 12, len << 12);
            let fits = len > 0 && accepted.iter().all(|(one, _)| !one.overlaps(range));
            let result = map.insert(range, owner);
            prop_assert_eq!(result.is_ok(), fits && accepted.len() < 16);
            if result.is_ok() {
                accepted.push((range, owner));
            }
        }
        for page in 0..80u64 {
            for pa in [page << 12, (page << 12) + 0xfff] {
                let pa = Pa::new(pa);
                prop_assert_eq!(map.owner_of(pa), scan(&accepted, pa), "{:?}", pa);
            }
        }
        prop_assert!(map.ranges().is_sorted_by_key(|(range, _)| range.start));
    }
}
