// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random sequences of guest accesses, device events, acknowledges and ends, against the oracle.

use super::machine::HW_INTIDS;
use super::pair::{Op, VCPUS, sequence};
use proptest::prelude::*;

/// SPIs that the sequences are about: a few of the first word, and of the last.
fn spi() -> impl Strategy<Value = u32> {
    prop_oneof![32..48u32, 128..132u32, Just(159u32)]
}

fn intid() -> impl Strategy<Value = u32> {
    prop_oneof![2 => 0..32u32, 2 => spi()]
}

fn mask() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => (0..32u32).prop_map(|bit| 1 << bit),
        2 => any::<u32>().prop_map(|bits| bits & 0xffff),
        1 => any::<u32>(),
        1 => Just(u32::MAX),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let vcpu = 0..VCPUS;
    prop_oneof![
        6 => (vcpu.clone(), 1..7usize, prop_oneof![3 => Just(1u32), 1 => Just(4u32)], mask())
            .prop_map(|(by, bits, word, value)| Op::SpiBits { by, bits, word, value }),
        1 => (vcpu.clone(), prop_oneof![Just(1u32), Just(4u32)], mask())
            .prop_map(|(by, word, value)| Op::SpiBits { by, bits: 0, word, value: !value }),
        6 => (vcpu.clone(), vcpu.clone(), 1..7usize, mask())
            .prop_map(|(by, target, bits, value)| Op::PrivateBits { by, target, bits, value }),
        1 => (vcpu.clone(), vcpu.clone(), mask())
            .prop_map(|(by, target, value)| Op::PrivateBits { by, target, bits: 0, value: !value }),
        4 => (vcpu.clone(), intid(), any::<u8>())
            .prop_map(|(by, intid, value)| Op::Priority { by, intid, value }),
        1 => (vcpu.clone(), intid(), any::<bool>())
            .prop_map(|(by, intid, edge)| Op::Config { by, intid, edge }),
        3 => (vcpu.clone(), spi(), prop_oneof![8 => 0..VCPUS as u32, 1 => Just(7u32), 1 => Just(0x100u32)])
            .prop_map(|(by, intid, affinity)| Op::Route { by, intid, affinity }),
        1 => (vcpu.clone(), 0..4u32).prop_map(|(by, value)| Op::Ctlr { by, value }),
        5 => (vcpu.clone(), 0..HW_INTIDS.len()).prop_map(|(vcpu, which)| Op::Fire { vcpu, which }),
        5 => (vcpu.clone(), intid()).prop_map(|(vcpu, intid)| Op::Edge { vcpu, intid }),
        8 => (vcpu.clone(), intid(), any::<bool>())
            .prop_map(|(vcpu, intid, high)| Op::Level { vcpu, intid, high }),
        6 => (vcpu.clone(), 0..16u64, 0..16u64, prop::bool::weighted(0.2))
            .prop_map(|(vcpu, intid, list, all)| Op::Sgi {
                vcpu,
                value: intid << 24 | list | u64::from(all) << 40,
            }),
        20 => vcpu.clone().prop_map(|vcpu| Op::Ack { vcpu }),
        14 => vcpu.clone().prop_map(|vcpu| Op::Eoi { vcpu }),
        6 => (vcpu.clone(), 0..8usize).prop_map(|(vcpu, pick)| Op::Dir { vcpu, pick }),
        3 => Just(Op::Kicks),
        1 => vcpu.prop_map(|vcpu| Op::Park { vcpu }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_delivery_is_what_the_architecture_says(
        lrs in prop_oneof![Just(1usize), Just(2), Just(4), Just(16)],
        split in any::<bool>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        sequence(lrs, split, true, &ops);
    }

    #[test]
    fn late_kicks_lose_nothing(
        lrs in prop_oneof![Just(1usize), Just(2), Just(4), Just(16)],
        split in any::<bool>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        sequence(lrs, split, false, &ops);
    }
}
