// SPDX-License-Identifier: MIT OR Apache-2.0
//! EL2's own tables against an independent walker.

use crate::machine::{FakeFrames, hardware_walk};
use firebreak_abi::{Pa, Va};
use firebreak_paging::{El2Attr, PagingError, Stage1, VaSize, stage1};

const KIB4: u64 = 4 << 10;
const MIB2: u64 = 2 << 20;
const XN: u64 = 1 << 54;
const READ_ONLY: u64 = 1 << 7;

fn walk(frames: &FakeFrames, stage1: &Stage1, size: VaSize, va: u64) -> Option<(u64, u64, u32)> {
    let start_level = if size == VaSize::Bits39 { 1 } else { 0 };
    hardware_walk(
        frames,
        stage1.root().get(),
        size.tcr(5) & 0x3f,
        start_level,
        va,
    )
}

#[test]
fn an_image_with_guard_pages_maps_as_it_is_told() {
    for size in [VaSize::Bits39, VaSize::Bits48] {
        let mut frames = FakeFrames::new(16);
        let stage1 = Stage1::new(&mut frames, size).unwrap();
        let text = 0x4020_0000;
        let layout = [
            (text, 0x1_8000, El2Attr::Text),
            (text + 0x1_8000, 0x4000, El2Attr::RoData),
            // A hole of one page: the guard below the stack.
            (text + 0x1_d000, 0x4000, El2Attr::Data),
            (0x4040_0000, 62 * MIB2, El2Attr::Data),
            (0x0900_0000, KIB4, El2Attr::Device),
        ];
        for (start, len, attr) in layout {
            stage1
                .map(&mut frames, Va::new(start), Pa::new(start), len, attr)
                .unwrap();
        }
        for (start, len, attr) in layout {
            for at in [start, start + len - 1] {
                let (pa, bits, level) = walk(&frames, &stage1, size, at).unwrap();
                assert_eq!(pa, at, "identity");
                assert_eq!(
                    stage1.translate(&frames, Va::new(at)),
                    Some((Pa::new(at), attr, level as u8))
                );
                let (writable, executable) = (bits & READ_ONLY == 0, bits & XN == 0);
                let expected = match attr {
                    El2Attr::Text => (false, true),
                    El2Attr::RoData => (false, false),
                    El2Attr::Data | El2Attr::Device => (true, false),
                };
                assert_eq!((writable, executable), expected, "{attr:?}");
                let memory_type = (stage1::MAIR >> (((bits >> 2) & 7) * 8)) & 0xff;
                assert_eq!(
                    memory_type,
                    if attr == El2Attr::Device { 0x04 } else { 0xff }
                );
            }
        }
        assert_eq!(
            walk(&frames, &stage1, size, text + 0x1_c000),
            None,
            "guard page"
        );
        assert_eq!(
            walk(&frames, &stage1, size, 0x4040_0000).unwrap().2,
            2,
            "block"
        );
    }
}

#[test]
fn tcr_says_what_the_tables_are() {
    // T0SZ, IRGN0 1, ORGN0 1, SH0 3, PS, RES1 bits 23 and 31.
    assert_eq!(VaSize::Bits39.tcr(2), 0x8082_3519);
    assert_eq!(VaSize::Bits48.tcr(5), 0x8085_3510);
    assert_eq!(VaSize::for_end(Va::new(1 << 39)), VaSize::Bits39);
    assert_eq!(VaSize::for_end(Va::new((1 << 39) + 1)), VaSize::Bits48);
}

#[test]
fn addresses_outside_and_overlaps_are_refused() {
    let mut frames = FakeFrames::new(16);
    let stage1 = Stage1::new(&mut frames, VaSize::Bits39).unwrap();
    let high = 1 << 39;
    let refused = stage1.map(
        &mut frames,
        Va::new(high),
        Pa::new(high),
        KIB4,
        El2Attr::Data,
    );
    assert!(matches!(
        refused,
        Err(PagingError::InputTooHigh { input_bits: 39, .. })
    ));
    let (va, pa) = (Va::new(MIB2), Pa::new(MIB2));
    stage1
        .map(&mut frames, va, pa, KIB4, El2Attr::Text)
        .unwrap();
    let refused = stage1.map(&mut frames, va, pa, KIB4, El2Attr::Data);
    assert_eq!(
        refused,
        Err(PagingError::Overlap {
            input: MIB2,
            existing: pa
        })
    );
}
