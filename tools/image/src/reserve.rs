// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys that set memory aside.

use firebreak_abi::PAGE_SIZE_BYTES;
use firebreak_manifest::config::{DEFAULT_SPARE_PAGES, MAX_RELOAD_ROOM_BYTES, MAX_SPARE_PAGES};

use crate::diagnostic::Problem;
use crate::document::{Table, parse_size};

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

/// Reads `reload_room` of a partition, in bytes.
pub(crate) fn reload_room(table: &mut Table<'_, '_>, control: bool) -> Result<u64, Problem> {
    let Some(text) = table.string("reload_room")? else {
        return Ok(0);
    };
    let wrong = |message: String, label: &str, remedy: &str| {
        let span = text.span.clone();
        Err(Problem::error(table.source, span, message, label, remedy))
    };
    let Some(bytes) = parse_size(&text.value) else {
        let message = format!("\"{}\" is not a size", text.value);
        let remedy = "write a whole number and KiB, MiB or GiB, such as \"256 KiB\"";
        return wrong(message, "not a size", remedy);
    };
    if bytes % PAGE_SIZE_BYTES != 0 || bytes > MAX_RELOAD_ROOM_BYTES {
        let message = format!(
            "there cannot be room of \"{}\" for another image",
            text.value
        );
        let remedy = "use a multiple of 4 KiB, up to 64 MiB";
        return wrong(message, "out of bounds", remedy);
    }
    if bytes != 0 && !control {
        let message =
            "nobody can bring another image to a system that takes no commands".to_owned();
        let remedy = "add control = true under [system], so that `reload` is taken";
        return wrong(message, "never used", remedy);
    }
    Ok(bytes)
}
