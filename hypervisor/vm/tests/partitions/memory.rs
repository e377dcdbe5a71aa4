// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory plan against an oracle that tries every address.

use firebreak_abi::PaRange;
use firebreak_vm::memory::{BLOCK_BYTES, MAX_FREE_RANGES};
use firebreak_vm::{PlanError, Request, plan_memory};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn request(mib: u64) -> Request {
    Request {
        len_bytes: mib * MIB,
        align_bytes: BLOCK_BYTES,
    }
}

fn plan(free: &[PaRange], requests: &[Request]) -> Result<Vec<PaRange>, PlanError> {
    plan_memory::<8>(free, requests).map(|plan| plan.to_vec())
}

#[test]
fn three_partitions_share_a_gibibyte_behind_the_hypervisor() {
    let free = [PaRange::new(0x4066_7000, GIB - 0x66_7000)];
    let placed = plan(&free, &[request(256), request(16), request(16)]).unwrap();
    let expected = [
        PaRange::new(0x4080_0000, 256 * MIB),
        PaRange::new(0x5080_0000, 16 * MIB),
        PaRange::new(0x5180_0000, 16 * MIB),
    ];
    assert_eq!(placed, expected);
}

#[test]
fn large_memory_stands_on_a_gibibyte_if_there_is_one() {
    let free = [PaRange::new(GIB + 2 * MIB, 4 * GIB)];
    let placed = plan(&free, &[request(1024), request(2)]).unwrap();
    assert_eq!(
        placed,
        [
            PaRange::new(2 * GIB, GIB),
            PaRange::new(GIB + 2 * MIB, 2 * MIB)
        ]
    );
    let tight = [PaRange::new(GIB + 2 * MIB, GIB)];
    assert_eq!(plan(&tight, &[request(1024)]).unwrap(), tight);
}

#[test]
fn order_of_the_free_ranges_does_not_matter_and_touching_ones_are_one() {
    let free = [
        PaRange::new(8 * MIB, 4 * MIB),
        PaRange::new(0, 0),
        PaRange::new(4 * MIB, 4 * MIB),
    ];
    assert_eq!(
        plan(&free, &[request(8)]).unwrap(),
        [PaRange::new(4 * MIB, 8 * MIB)]
    );
}

#[test]
fn refusals_name_the_request_and_what_is_left() {
    let free = [PaRange::new(MIB, 9 * MIB)];
    let requests = [request(4), request(6)];
    let refused = plan(&free, &requests).unwrap_err();
    let (len_bytes, longest_bytes) = (6 * MIB, 4 * MIB);
    assert_eq!(
        refused,
        PlanError::DoesNotFit {
            index: 1,
            len_bytes,
            longest_bytes
        }
    );
    assert_eq!(
        refused.to_string(),
        "request 1: no 6 MiB in one piece are free, 4 MiB at most"
    );
    for len_bytes in [0, MIB, 2 * MIB + 1] {
        let requests = [Request {
            len_bytes,
            align_bytes: 1,
        }];
        assert_eq!(
            plan(&free, &requests),
            Err(PlanError::BadLength {
                index: 0,
                len_bytes
            })
        );
    }
    for align_bytes in [0, 3, u64::MAX] {
        let requests = [Request {
            len_bytes: 2 * MIB,
            align_bytes,
        }];
        assert_eq!(
            plan(&free, &requests),
            Err(PlanError::BadAlignment {
                index: 0,
                align_bytes
            })
        );
    }
}

#[test]
fn lying_free_ranges_are_refused() {
    let wraps = PaRange::new(u64::MAX - 5, 100);
    assert_eq!(
        plan(&[wraps], &[request(2)]),
        Err(PlanError::BadFree { range: wraps })
    );
    let (low, high) = (PaRange::new(0, 4 * MIB), PaRange::new(4 * MIB - 1, MIB));
    assert_eq!(
        plan(&[high, low], &[request(2)]),
        Err(PlanError::BadFree { range: high })
    );
}

#[test]
fn too_many_of_anything_is_an_error_and_no_panic() {
    let free: Vec<PaRange> = (0..=MAX_FREE_RANGES as u64)
        .map(|n| PaRange::new(n * 8 * MIB, 4 * MIB))
        .collect();
    assert_eq!(plan(&free, &[request(2)]), Err(PlanError::TooMany));
    assert_eq!(plan(&free[..4], &[request(2); 8]).unwrap().len(), 8);
    assert_eq!(plan(&free[..8], &[request(2); 9]), Err(PlanError::TooMany));
    // The plan itself cuts the free ranges into more than there is room for.
    let free: Vec<PaRange> = (0..MAX_FREE_RANGES as u64)
        .map(|n| PaRange::new(n * 8 * MIB + 4096, 6 * MIB))
        .collect();
    assert_eq!(plan(&free, &[request(2)]), Err(PlanError::TooMany));
}

#[test]
fn the_end_of_the_address_space_does_not_wrap() {
    let last = PaRange::new(u64::MAX - 3 * MIB, 3 * MIB);
    let huge = Request {
        len_bytes: 2 * MIB,
        align_bytes: 1 << 63,
    };
    assert!(matches!(
        plan(&[last], &[huge]),
        Err(PlanError::DoesNotFit {
            longest_bytes: 0,
            ..
        })
    ));
}

/// Memory as a map of MiB, tried address by address.
fn oracle(free: &[(u64, u64)], requests: &[(u64, u64)]) -> Result<Vec<u64>, usize> {
    let mut is_free = vec![false; 12 * 1024];
    for &(start, len) in free {
        is_free[start as usize..(start + len) as usize].fill(true);
    }
    let mut placed = Vec::new();
    for (index, &(len, align)) in requests.iter().enumerate() {
        let fits = |&at: &usize| {
            is_free
                .get(at..at + len as usize)
                .is_some_and(|part| part.iter().all(|&free| free))
        };
        let try_align = |align: u64| (0..is_free.len()).step_by(align as usize).find(fits);
        let large = if len >= 1024 {
            try_align(align.max(1024))
        } else {
            None
        };
        let at = large.or_else(|| try_align(align.max(2))).ok_or(index)?;
        is_free[at..at + len as usize].fill(false);
        placed.push(at as u64);
    }
    Ok(placed)
}

proptest! {
    #[test]
    fn the_plan_is_what_trying_every_address_finds(
        gaps in prop::collection::vec((0..900u64, 1..2600u64), 1..5),
        requests in prop::collection::vec(
            (prop_oneof![1..40u64, 400..700u64], prop::sample::select(vec![1u64, 2, 4, 64])),
            0..8,
        ),
        reversed in any::<bool>(),
    ) {
        let mut at = 0;
        let mut free = Vec::new();
        for (gap, len) in gaps {
            let start = at + gap;
            if start + len <= 12 * 1024 {
                free.push((start, len));
                at = start + len;
            }
        }
        let requests: Vec<_> = requests.into_iter().map(|(len, align)| (2 * len, align)).collect();
        let expected = oracle(&free, &requests);
        let mut ranges: Vec<_> =
            free.iter().map(|&(start, len)| PaRange::new(start * MIB, len * MIB)).collect();
        if reversed {
            ranges.reverse();
        }
        let wanted: Vec<_> = requests
            .iter()
            .map(|&(len, align)| Request { len_bytes: len * MIB, align_bytes: align * MIB })
            .collect();
        match (plan(&ranges, &wanted), expected) {
            (Ok(placed), Ok(starts)) => {
                let placed: Vec<_> = placed.iter().map(|range| range.start.get() / MIB).collect();
                prop_assert_eq!(placed, starts);
            }
            (Err(PlanError::DoesNotFit { index, .. }), Err(expected)) => {
                prop_assert_eq!(index, expected);
            }
            (got, expected) => prop_assert!(false, "{:?} instead of {:?}", got, expected),
        }
    }
}
