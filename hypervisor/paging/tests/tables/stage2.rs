// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stage 2 against an independent walker and the rules of break-before-make.

use std::collections::BTreeMap;

use crate::machine::{FakeFrames, hardware_walk};
use firebreak_abi::{Ipa, Pa};
use firebreak_paging::{Attributes, Geometry, MAX_OPS, Mapping, Op, PagingError, Plan, Stage2};

pub(crate) const KIB4: u64 = 4 << 10;
pub(crate) const MIB2: u64 = 2 << 20;
pub(crate) const GIB1: u64 = 1 << 30;

pub(crate) fn build(frames: &mut FakeFrames, ipa_end: u64, pa_bits: u8) -> Stage2 {
    let geometry = Geometry::new(Ipa::new(ipa_end), pa_bits).expect("possible geometry");
    Stage2::new(frames, geometry).expect("room for the root")
}

pub(crate) fn oracle(frames: &FakeFrames, stage2: &Stage2, ipa: u64) -> Option<(u64, u64, u32)> {
    let geometry = stage2.geometry();
    // SL0 as the manual has it for the 4 KiB granule: 0 is level 2, 1 is level 1, 2 is level 0.
    let vtcr = geometry.vtcr(5);
    let start_level = match (vtcr >> 6) & 3 {
        0 => 2,
        1 => 1,
        2 => 0,
        other => panic!("SL0 {other} is reserved"),
    };
    let root = stage2.vttbr(0x5a) & 0x0000_ffff_ffff_ffff;
    assert_eq!(stage2.vttbr(0x5a) >> 48, 0x5a);
    hardware_walk(frames, root, vtcr & 0x3f, start_level, ipa)
}

#[test]
fn small_guests_get_one_root_at_level_1() {
    let geometry = Geometry::new(Ipa::new(0x5000_0000), 40).unwrap();
    assert_eq!(
        (
            geometry.ipa_bits(),
            geometry.start_level(),
            geometry.root_tables()
        ),
        (32, 1, 1)
    );
    assert_eq!((geometry.t0sz(), geometry.sl0()), (32, 1));
    // T0SZ 32, SL0 1, IRGN0 1, ORGN0 1, SH0 3, TG0 0, PS 2, bit 31 RES1.
    assert_eq!(geometry.vtcr(2), 0x8002_3560);
}

#[test]
fn geometry_grows_with_the_address_space() {
    let cases: [(u64, u8, u8, u8, usize); 9] = [
        (0, 40, 32, 1, 1),
        (1 << 32, 40, 32, 1, 1),
        ((1 << 32) + 1, 40, 33, 1, 1),
        (1 << 39, 40, 39, 1, 1),
        ((1 << 39) + 1, 40, 40, 1, 2),
        (1 << 42, 44, 42, 1, 8),
        (1 << 43, 44, 43, 1, 16),
        ((1 << 43) + 1, 44, 44, 0, 1),
        (1 << 48, 52, 48, 0, 1),
    ];
    for (end, pa_bits, ipa_bits, level, tables) in cases {
        let geometry = Geometry::new(Ipa::new(end), pa_bits).unwrap();
        let got = (
            geometry.ipa_bits(),
            geometry.start_level(),
            geometry.root_tables(),
        );
        assert_eq!(got, (ipa_bits, level, tables), "end {end:#x}");
    }
    for (end, pa_bits) in [
        ((1 << 40) + 1, 40),
        ((1 << 48) + 1, 52),
        (u64::MAX, 52),
        (1, 31),
    ] {
        let refused = Geometry::new(Ipa::new(end), pa_bits);
        assert!(
            matches!(refused, Err(PagingError::Geometry { .. })),
            "end {end:#x}"
        );
    }
}

#[test]
fn largest_blocks_are_used() {
    let mut frames = FakeFrames::new(16);
    let stage2 = build(&mut frames, 4 * GIB1, 40);
    let (ipa, pa) = (GIB1 - KIB4, 3 * GIB1 - KIB4);
    let len = GIB1 + MIB2 + 2 * KIB4;
    stage2
        .map(
            &mut frames,
            Ipa::new(ipa),
            Pa::new(pa),
            len,
            Attributes::NormalRwx,
        )
        .unwrap();
    let level = |at| oracle(&frames, &stage2, at).map(|(_, _, level)| level);
    assert_eq!(level(ipa - 1), None);
    assert_eq!(level(ipa), Some(3));
    assert_eq!(level(GIB1), Some(1));
    assert_eq!(level(2 * GIB1), Some(2));
    assert_eq!(level(2 * GIB1 + MIB2), Some(3));
    assert_eq!(level(2 * GIB1 + MIB2 + KIB4), None);
}

#[test]
fn concatenated_roots_are_one_long_table() {
    let mut frames = FakeFrames::new(64);
    let stage2 = build(&mut frames, 1 << 42, 44);
    assert!(stage2.root().is_aligned(8 * KIB4));
    for ipa in [0, 1 << 39, (1 << 42) - GIB1] {
        let (ipa, pa) = (Ipa::new(ipa), Pa::new(GIB1));
        stage2
            .map(&mut frames, ipa, pa, GIB1, Attributes::NormalRw)
            .unwrap();
        let found = oracle(&frames, &stage2, ipa.get() + 5);
        assert_eq!(found.map(|(pa, _, level)| (pa, level)), Some((GIB1 + 5, 1)));
    }
    // Across the border of two root tables.
    let (ipa, pa) = ((2 << 39) - MIB2, 5 * GIB1 - MIB2);
    let range = (Ipa::new(ipa), Pa::new(pa));
    stage2
        .map(
            &mut frames,
            range.0,
            range.1,
            2 * MIB2,
            Attributes::NormalRwx,
        )
        .unwrap();
    for offset in [0, MIB2 - 1, MIB2, 2 * MIB2 - 1] {
        assert_eq!(
            oracle(&frames, &stage2, ipa + offset).unwrap().0,
            pa + offset
        );
    }
    assert_eq!(oracle(&frames, &stage2, ipa + 2 * MIB2), None);
}

#[test]
fn a_gibibyte_costs_two_accesses_for_each_block() {
    let mut frames = FakeFrames::new(16);
    let stage2 = build(&mut frames, 4 * GIB1, 40);
    frames.accesses.set(0);
    // RAM that stage 2 cannot map with a 1 GiB block.
    let (ipa, pa) = (Ipa::new(GIB1), Pa::new(GIB1 + MIB2));
    stage2
        .map(&mut frames, ipa, pa, GIB1, Attributes::NormalRwx)
        .unwrap();
    assert!(
        frames.accesses.get() <= 2 * 512 + 4,
        "{} accesses",
        frames.accesses.get()
    );
    assert_eq!(frames.pages.len(), 2);
}

#[test]
fn every_refusal_names_its_culprit() {
    let mut frames = FakeFrames::new(3);
    let stage2 = build(&mut frames, 4 * GIB1, 40);
    let mut map = |ipa: u64, pa: u64, len_bytes: u64| {
        let (ipa, pa) = (Ipa::new(ipa), Pa::new(pa));
        stage2.map(&mut frames, ipa, pa, len_bytes, Attributes::NormalRwx)
    };
    let refused = |result: Result<(), PagingError>| result.unwrap_err();
    assert_eq!(refused(map(GIB1, 0, 0)), PagingError::Empty { input: GIB1 });
    for (ipa, pa, len) in [(1, 0, KIB4), (0, 2048, KIB4), (0, 0, KIB4 + 1)] {
        let misaligned = PagingError::Misaligned {
            input: ipa,
            output: pa,
            len_bytes: len,
        };
        assert_eq!(refused(map(ipa, pa, len)), misaligned);
    }
    let too_high = |input, len_bytes| PagingError::InputTooHigh {
        input,
        len_bytes,
        input_bits: 32,
    };
    let last = 4 * GIB1 - KIB4;
    assert_eq!(refused(map(last, 0, 2 * KIB4)), too_high(last, 2 * KIB4));
    let top = u64::MAX - KIB4 + 1;
    assert_eq!(refused(map(top, 0, 2 * KIB4)), too_high(top, 2 * KIB4));
    let output = (1 << 40) - KIB4;
    let bad_output = PagingError::OutputTooHigh {
        output,
        len_bytes: MIB2,
        output_bits: 40,
    };
    assert_eq!(refused(map(0, output, MIB2)), bad_output);
    assert_eq!(map(MIB2, MIB2, KIB4), Ok(()));
    let taken = PagingError::Overlap {
        input: MIB2,
        existing: Pa::new(MIB2),
    };
    assert_eq!(refused(map(0, GIB1, 2 * MIB2)), taken);
    let no_room = PagingError::OutOfFrames {
        input: GIB1,
        pages: 1,
    };
    assert_eq!(refused(map(GIB1, 0, KIB4)), no_room);
    assert_eq!(
        no_room.to_string(),
        "no 1 page(s) left for the tables of 0x40000000"
    );
}

#[test]
fn overlap_with_a_hole_below_a_table_names_the_first_page_that_is_taken() {
    let mut frames = FakeFrames::new(8);
    let stage2 = build(&mut frames, 4 * GIB1, 40);
    let page = GIB1 + 7 * MIB2 + 9 * KIB4;
    let ro = Attributes::NormalRo;
    stage2
        .map(&mut frames, Ipa::new(page), Pa::new(0x7000), KIB4, ro)
        .unwrap();
    let result = stage2.map(&mut frames, Ipa::new(GIB1), Pa::new(GIB1), GIB1, ro);
    assert_eq!(
        result,
        Err(PagingError::Overlap {
            input: page,
            existing: Pa::new(0x7000)
        })
    );
}

/// What the rules of break-before-make know of one descriptor.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Broken {
    Written,
    Visible,
    Invalidating,
    Gone,
}

/// Carries a plan out, step by step, and refuses what a PE's TLBs could not bear.
///
/// `watch` are addresses that must lead where they led before, or fault, at each moment.
pub(crate) fn run_by_the_rules(
    frames: &mut FakeFrames,
    stage2: &Stage2,
    plan: &Plan,
    edited: u64,
    watch: &[u64],
) {
    assert!(plan.ops().len() <= MAX_OPS);
    let edited = Ipa::new(edited).page();
    let before: Vec<_> = watch.iter().map(|&at| oracle(frames, stage2, at)).collect();
    let mut broken: BTreeMap<(u64, usize), (Broken, bool)> = BTreeMap::new();
    let mut unsettled = false;
    for &op in plan.ops() {
        match op {
            Op::Write {
                table,
                index,
                descriptor,
            } => {
                let at = (table.get(), index);
                let old = frames.peek(at.0, at.1);
                if old & 1 == 1 {
                    assert_eq!(descriptor & 1, 0, "valid {old:#x} -> valid {descriptor:#x}");
                    let is_page = index_is_page(frames, stage2, edited.get(), at);
                    broken.insert(at, (Broken::Written, is_page));
                } else if let Some((state, _)) = broken.get(&at) {
                    assert_eq!(*state, Broken::Gone, "made before the old entry is gone");
                }
                unsettled = true;
            }
            Op::Dsb => {
                unsettled = false;
                for (state, _) in broken.values_mut() {
                    *state = match *state {
                        Broken::Written => Broken::Visible,
                        Broken::Visible => Broken::Visible,
                        Broken::Invalidating | Broken::Gone => Broken::Gone,
                    };
                }
            }
            Op::TlbiIpa(ipa) => {
                assert_eq!(ipa, edited, "invalidates another page");
                for (state, is_page) in broken.values_mut() {
                    assert_ne!(*state, Broken::Written, "TLBI before DSB");
                    // By one address: enough for one page only.
                    if *is_page {
                        *state = Broken::Invalidating;
                    }
                }
            }
            Op::TlbiVmallS12 => {
                for (state, _) in broken.values_mut() {
                    assert_ne!(*state, Broken::Written, "TLBI before DSB");
                    *state = Broken::Invalidating;
                }
            }
            Op::TlbiVmallS1 | Op::Isb => {}
        }
        frames.step(op);
        for (&at, before) in watch.iter().zip(&before) {
            let now = oracle(frames, stage2, at);
            let same =
                now.map(|(pa, bits, _)| (pa, bits)) == before.map(|(pa, bits, _)| (pa, bits));
            let edited_now = Ipa::new(at).page() == edited;
            assert!(
                same || now.is_none() || edited_now,
                "{at:#x}: {before:?} -> {now:?}"
            );
        }
    }
    assert!(
        broken.values().all(|(state, _)| *state == Broken::Gone),
        "{broken:?}"
    );
    assert!(!unsettled, "the last write is not behind a barrier");
    assert_eq!(plan.ops().last(), Some(&Op::Isb));
}

/// Says whether the leaf of an address is a page, standing at that place.
fn index_is_page(frames: &FakeFrames, stage2: &Stage2, ipa: u64, at: (u64, usize)) -> bool {
    let last_level = ((ipa >> 12) & 511) as usize == at.1;
    last_level && oracle(frames, stage2, ipa).is_some_and(|(_, _, level)| level == 3)
}

/// Plans, and checks that planning writes to no table that stood before.
pub(crate) fn planned<R>(frames: &mut FakeFrames, plan: impl FnOnce(&mut FakeFrames) -> R) -> R {
    let old: Vec<u64> = frames.pages.keys().copied().collect();
    frames.written.clear();
    let result = plan(frames);
    for page in &frames.written {
        assert!(
            !old.contains(page),
            "planning wrote to the live table {page:#x}"
        );
    }
    result
}

#[test]
fn unmapping_a_page_of_a_1_gib_block_splits_it_by_break_before_make() {
    let mut frames = FakeFrames::new(16);
    let stage2 = build(&mut frames, 4 * GIB1, 40);
    let rwx = Attributes::NormalRwx;
    stage2
        .map(&mut frames, Ipa::new(GIB1), Pa::new(2 * GIB1), GIB1, rwx)
        .unwrap();
    let bad = GIB1 + 5 * MIB2 + 3 * KIB4;
    let plan = planned(&mut frames, |frames| {
        stage2.unmap_page(frames, Ipa::new(bad + 0x123))
    })
    .unwrap();
    assert_eq!(plan.pa(), Pa::new(bad + GIB1));
    assert_eq!(
        stage2
            .translate(&frames, Ipa::new(bad))
            .map(|found| found.level),
        Some(1)
    );
    let watch = [
        GIB1,
        bad - 1,
        bad,
        bad + KIB4,
        bad + MIB2,
        2 * GIB1 - 1,
        GIB1 + 5 * MIB2,
        2 * GIB1,
    ];
    run_by_the_rules(&mut frames, &stage2, &plan, bad, &watch);
    for at in (GIB1..2 * GIB1).step_by(KIB4 as usize) {
        let expected = (at != bad).then_some(at + GIB1);
        assert_eq!(
            oracle(&frames, &stage2, at).map(|(pa, _, _)| pa),
            expected,
            "{at:#x}"
        );
    }
    let level = |at| {
        stage2
            .translate(&frames, Ipa::new(at))
            .map(|found| found.level)
    };
    assert_eq!(
        [level(GIB1), level(bad), level(bad + KIB4)],
        [Some(2), None, Some(3)]
    );
}

#[test]
fn unmapping_a_mapped_page_needs_no_frame() {
    let mut frames = FakeFrames::new(3);
    let stage2 = build(&mut frames, 4 * GIB1, 40);
    let rwx = Attributes::NormalRwx;
    stage2
        .map(&mut frames, Ipa::new(0), Pa::new(0), 2 * KIB4, rwx)
        .unwrap();
    let plan = planned(&mut frames, |frames| {
        stage2.unmap_page(frames, Ipa::new(KIB4))
    })
    .unwrap();
    run_by_the_rules(&mut frames, &stage2, &plan, KIB4, &[0, KIB4]);
    let ipa = Ipa::new(KIB4);
    let gone = stage2.unmap_page(&mut frames, ipa);
    assert_eq!(gone, Err(PagingError::NotMapped { input: KIB4 }));
    assert!(matches!(
        plan.ops(),
        [Op::Write { descriptor: 0, .. }, Op::Dsb, Op::TlbiIpa(_), ..]
    ));
    // A combined entry hides behind a TLBI by IPA: stage 1 goes too, and behind a barrier.
    assert!(
        plan.ops()
            .ends_with(&[Op::Dsb, Op::TlbiVmallS1, Op::Dsb, Op::Isb])
    );
}

#[test]
fn a_split_without_frames_changes_nothing() {
    let mut frames = FakeFrames::new(2);
    let stage2 = build(&mut frames, 4 * GIB1, 40);
    let rwx = Attributes::NormalRwx;
    stage2
        .map(&mut frames, Ipa::new(GIB1), Pa::new(GIB1), GIB1, rwx)
        .unwrap();
    let before = frames.pages.clone();
    let result = stage2.unmap_page(&mut frames, Ipa::new(GIB1));
    assert_eq!(
        result,
        Err(PagingError::OutOfFrames {
            input: GIB1,
            pages: 2
        })
    );
    assert_eq!(frames.pages, before);
}

#[test]
fn a_spare_page_fills_a_hole() {
    let mut frames = FakeFrames::new(16);
    let stage2 = build(&mut frames, 1 << 44, 48);
    let rwx = Attributes::NormalRwx;
    stage2
        .map(&mut frames, Ipa::new(GIB1), Pa::new(GIB1), 2 * MIB2, rwx)
        .unwrap();
    let bad = Ipa::new(GIB1 + 3 * KIB4);
    let plan = planned(&mut frames, |frames| stage2.unmap_page(frames, bad)).unwrap();
    run_by_the_rules(&mut frames, &stage2, &plan, bad.get(), &[GIB1, bad.get()]);
    // Into the hole of the split, and where no table is at all (a fresh path of three).
    for (ipa, spare) in [(bad, 0x7000), (Ipa::new(1 << 43), 0x8000)] {
        let spare = Pa::new(spare);
        let plan = planned(&mut frames, |frames| {
            stage2.map_page(frames, ipa, spare, rwx)
        })
        .unwrap();
        assert_eq!(plan.pa(), spare);
        run_by_the_rules(&mut frames, &stage2, &plan, ipa.get(), &[GIB1, ipa.get()]);
        let found = Mapping {
            pa: spare,
            attributes: rwx,
            level: 3,
        };
        assert_eq!(stage2.translate(&frames, ipa), Some(found));
        let again = stage2.map_page(&mut frames, ipa, Pa::new(0x9000), rwx);
        let input = ipa.get();
        assert_eq!(
            again,
            Err(PagingError::Overlap {
                input,
                existing: spare
            })
        );
    }
    let beside = stage2.translate(&frames, Ipa::new((1 << 43) + KIB4));
    assert_eq!(beside, None);
}
