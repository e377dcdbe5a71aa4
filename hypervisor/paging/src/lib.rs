// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation tables of VMSAv8-64 with the 4 KiB granule (Arm ARM, D8): stage 2 for guests,
//! stage 1 for EL2.
//!
//! The crate decides which descriptor stands where; it never touches memory itself. The kernel
//! lends it a [`Frames`], and tests lend it a `BTreeMap`.
//!
//! Two kinds of change exist, and the types keep them apart:
//!
//! * **Construction** ([`Stage2::map`], [`Stage1::map`]) only ever turns invalid descriptors
//!   into valid ones, so it needs no TLB maintenance, and may write at once.
//! * **Live edits** ([`Stage2::unmap_page`], [`Stage2::map_page`]) happen while vCPUs walk the
//!   tables. They return a [`Plan`]: descriptor writes, barriers and invalidations in the order
//!   that break-before-make asks for (Arm ARM, "Using break-before-make when updating translation
//!   table entries"). Nothing that a walker can reach changes before
//!   the kernel carries out the plan.
//!
//! Nothing here uses atomics, so it all works with the MMU off.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

mod descriptor;
mod error;
mod plan;
pub mod stage1;
pub mod stage2;
mod table;

pub use descriptor::{Attributes, El2Attr};
pub use error::PagingError;
pub use plan::{MAX_OPS, Op, Plan};
pub use stage1::{Stage1, VaSize};
pub use stage2::{Geometry, Mapping, Stage2};

use firebreak_abi::Pa;

/// The memory that holds translation tables.
pub trait Frames {
    /// Allocates `count_contiguous` (a power of two) pages of 4 KiB, all zeros, aligned to
    /// their common size; `None` when there are none left.
    fn alloc_zeroed(&mut self, count_contiguous: usize) -> Option<Pa>;

    /// Reads descriptor `index` (0 to 511) of the table page at `table`.
    fn read(&self, table: Pa, index: usize) -> u64;

    /// Writes descriptor `index` (0 to 511) of the table page at `table`, in one 64-bit store.
    fn write(&mut self, table: Pa, index: usize, descriptor: u64);
}
