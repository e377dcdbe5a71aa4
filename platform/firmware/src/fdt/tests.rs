// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devicetree's own tests: a tree like QEMU's, read back with another crate's parser.

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use proptest::prelude::*;

use super::*;

const REGION: u64 = 0x4010_0000;

fn additions(sources: &[Source]) -> Additions<'_> {
    Additions {
        region: PaRange::new(REGION, 0x10_0000),
        boot_error_record: PaRange::new(REGION + 0x8_0000, 0x1000),
        persistent: PaRange::new(REGION + 0x9_0000, 0x7_0000),
        sources,
    }
}
