// SPDX-License-Identifier: MIT OR Apache-2.0
//! Partition files in devicetree source.
//!
//! The nearest crates that read this language were given up years ago, and none keeps the places
//! that messages need, so a parser of our own stands in `parse`. `/chosen` is then read in the
//! words of the run-time binding (`docs/partitions.md`) and of Xen's dom0less boot into the same
//! tables that TOML gives. A blob (DTB) is printed as source first, so that messages
//! can point at a line of it.

mod board;
mod chosen;
mod devices;
mod domain;
mod parse;
mod print;
mod tree;

#[cfg(test)]
mod tests;

use crate::diagnostic::{Problem, Source};
use crate::document::Entry;

pub(crate) use board::board_of;
pub(crate) use print::print_blob;

/// Reads a partition file in devicetree source into tables.
///
/// Adds to `problems` what is wrong with single properties.
///
/// # Errors
///
/// Text that is not devicetree source.
pub(crate) fn entries(source: &Source, problems: &mut Vec<Problem>) -> Result<Vec<Entry>, Problem> {
    let root = tree::resolve(parse::parse(source)?, source)?;
    Ok(chosen::entries(&root, source, problems))
}
