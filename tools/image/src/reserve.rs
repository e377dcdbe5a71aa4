// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys that set memory aside.

use firebreak_manifest::config::{DEFAULT_SPARE_PAGES, MAX_SPARE_PAGES};

use crate::diagnostic::Problem;
use crate::document::Table;

/// Reads `spare_pages` of a partition.
pub(crate) fn spare_pages(table: &mut Table<'_, '_>) -> Result<u8, Problem> {
    let Some(pages) = table.integer("spare_pages")? else {
        return Ok(DEFAULT_SPARE_PAGES);
    };
    match u8::try_from(pages.value) {
        Ok(count @ 0..=MAX_SPARE_PAGES) => Ok(count),
        _ => {
            let message = format!("a partition cannot have {} spare pages", pages.value);
            let remedy = format!("use 0 to {MAX_SPARE_PAGES}");
            Err(Problem::error(
                table.source,
                pages.span,
                message,
                "out of bounds",
                remedy,
            ))
        }
    }
}
