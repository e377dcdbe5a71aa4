// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stage 2 against a naive model: random maps and live edits, checked at every border.

use std::collections::BTreeMap;

use firebreak_abi::{Ipa, Pa};
use firebreak_paging::{Attributes, PagingError};
use proptest::prelude::*;

use crate::machine::FakeFrames;
use crate::stage2::{GIB1, KIB4, MIB2, build, oracle, planned, run_by_the_rules};

/// One mapped range of the naive model.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    ipa: u64,
    pa: u64,
    len: u64,
    attributes: Attributes,
}

/// Ranges as they were mapped, and single pages that were edited afterwards.
#[derive(Default)]
struct Model {
    ranges: Vec<Mapped>,
    edited: BTreeMap<u64, Option<(u64, Attributes)>>,
}

impl Model {
    fn lookup(&self, ipa: u64) -> Option<(u64, Attributes)> {
        let page = ipa & !(KIB4 - 1);
        let base = match self.edited.get(&page) {
            Some(edit) => *edit,
            None => self
                .ranges
                .iter()
                .find(|one| page >= one.ipa && page - one.ipa < one.len)
                .map(|one| (one.pa + (page - one.ipa), one.attributes)),
        };
        base.map(|(pa, attributes)| (pa + (ipa - page), attributes))
    }

    fn first_taken(&self, ipa: u64, len: u64) -> Option<u64> {
        let starts = self.ranges.iter().filter_map(|one| {
            let at = one.ipa.max(ipa);
            (at < ipa + len && at - one.ipa < one.len).then_some(at)
        });
        starts.min()
    }

    fn interesting(&self) -> Vec<u64> {
        let borders = self
            .ranges
            .iter()
            .flat_map(|one| [one.ipa, one.ipa + one.len]);
        let pages = self.edited.keys().flat_map(|&page| [page, page + KIB4]);
        borders
            .chain(pages)
            .flat_map(|at| [at.wrapping_sub(1), at, at + 0xabc, at + MIB2])
            .collect()
    }
}

fn attributes() -> impl Strategy<Value = Attributes> {
    prop_oneof![
        Just(Attributes::NormalRwx),
        Just(Attributes::NormalRw),
        Just(Attributes::NormalRx),
        Just(Attributes::NormalRo),
        Just(Attributes::Device),
    ]
}

/// Addresses near the borders of blocks of every size, below 8 GiB.
fn address() -> impl Strategy<Value = u64> {
    (0..8u64, 0..4u64, 0..4u64).prop_map(|(gib, mib2, kib4)| gib * GIB1 + mib2 * MIB2 + kib4 * KIB4)
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![
        (1..600u64).prop_map(|pages| pages * KIB4),
        (1..5u64).prop_map(|blocks| blocks * MIB2),
        (1..3u64, 0..2u64).prop_map(|(gib, pages)| gib * GIB1 + pages * KIB4),
    ]
}

fn range() -> impl Strategy<Value = Mapped> {
    // Equal offsets half of the time, so that blocks fit.
    (address(), address(), length(), attributes(), any::<bool>()).prop_map(
        |(ipa, pa, len, attributes, same)| {
            let pa = if same { ipa + GIB1 } else { pa };
            // A gibibyte in pages of 4 KiB teaches nothing and takes long.
            let large = (pa & !(MIB2 - 1)) | (ipa & (MIB2 - 1));
            let pa = if len >= GIB1 { large } else { pa };
            Mapped {
                ipa,
                pa,
                len,
                attributes,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn tables_agree_with_a_naive_model(
        end_bits in prop_oneof![Just(34u8), Just(36), Just(40), Just(44)],
        ranges in prop::collection::vec(range(), 1..6),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 0..8u64), 0..12),
    ) {
        let mut frames = FakeFrames::new(4096);
        let stage2 = build(&mut frames, 1 << end_bits, 48);
        let mut model = Model::default();
        for one in ranges {
            let taken = model.first_taken(one.ipa, one.len);
            let (ipa, pa) = (Ipa::new(one.ipa), Pa::new(one.pa));
            let result = stage2.map(&mut frames, ipa, pa, one.len, one.attributes);
            if let Some(input) = taken {
                let existing = Pa::new(model.lookup(input).expect("taken").0);
                prop_assert_eq!(result, Err(PagingError::Overlap { input, existing }));
                return Ok(());
            }
            prop_assert_eq!(result, Ok(()));
            model.ranges.push(one);
        }
        for (which, unmap, spare) in edits {
            let places = model.interesting();
            let at = which.get(&places) & !(KIB4 - 1) & ((1 << 34) - 1);
            let spare = spare * KIB4;
            // The neighbours of the edited page, and a sample of the rest, at every step.
            let near = [at.saturating_sub(1), at, at + KIB4, at ^ MIB2];
            let watch: Vec<u64> =
                places.iter().step_by(9).chain(&near).copied().collect();
            let mapped = model.lookup(at);
            let attributes = Attributes::NormalRw;
            let plan = planned(&mut frames, |frames| if unmap {
                stage2.unmap_page(frames, Ipa::new(at))
            } else {
                stage2.map_page(frames, Ipa::new(at), Pa::new(spare), attributes)
            });
            match (plan, unmap, mapped) {
                (Ok(plan), true, Some((pa, _))) => {
                    prop_assert_eq!(plan.pa(), Pa::new(pa));
                    run_by_the_rules(&mut frames, &stage2, &plan, at, &watch);
                    model.edited.insert(at, None);
                }
                (Ok(plan), false, None) => {
                    run_by_the_rules(&mut frames, &stage2, &plan, at, &watch);
                    model.edited.insert(at, Some((spare, attributes)));
                }
                (Err(PagingError::NotMapped { input }), true, None) => prop_assert_eq!(input, at),
                (Err(PagingError::Overlap { input, existing }), false, Some((pa, _))) => {
                    prop_assert_eq!((input, existing), (at, Pa::new(pa)));
                }
                other => prop_assert!(false, "{:#x}: {:?}", at, other),
            }
        }
        for at in model.interesting() {
            let expected = model.lookup(at);
            let found = stage2.translate(&frames, Ipa::new(at));
            let walked = oracle(&frames, &stage2, at);
            prop_assert_eq!(found.map(|m| (m.pa.get(), m.attributes)), expected, "{:#x}", at);
            prop_assert_eq!(walked.map(|(pa, _, _)| pa), expected.map(|(pa, _)| pa));
            prop_assert_eq!(walked.map(|(_, _, level)| level), found.map(|m| u32::from(m.level)));
        }
    }
}
