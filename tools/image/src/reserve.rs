// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys that set memory aside.

use firebreak_abi::PAGE_SIZE_BYTES;
use firebreak_manifest::config::{
    DEFAULT_SPARE_PAGES, MAX_LOG_BYTES, MAX_RELOAD_ROOM_BYTES, MAX_SPARE_PAGES, MAX_TRACE_BYTES,
    MIN_LOG_BYTES,
};

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

/// What the system writes down of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Records {
    /// The log that survives a reset, in bytes; `None` for as much as the firmware keeps.
    pub log_bytes: Option<u64>,
    /// The trace of each PE, in bytes.
    pub trace_bytes: u64,
}

/// Reads `log` and `trace` of the system.
pub(crate) fn records(
    table: &mut Table<'_, '_>,
    problems: &mut Vec<Problem>,
) -> Result<Records, Problem> {
    let log = size(table, "log", problems, |bytes| match bytes {
        0 | MIN_LOG_BYTES..=MAX_LOG_BYTES => None,
        1..MIN_LOG_BYTES => {
            Some("use 2 KiB at least, for its header and one entry; or 0 KiB for none")
        }
        _ => Some("use up to 256 KiB, or leave it out for as much as the firmware keeps"),
    })?;
    let trace = size(table, "trace", problems, |bytes| {
        (bytes > MAX_TRACE_BYTES).then_some("use up to 32 KiB: 1024 exits of each PE")
    })?;
    Ok(Records {
        log_bytes: log,
        trace_bytes: trace.unwrap_or(0),
    })
}

/// Reads a size; `wrong` says what to do about one that cannot be.
fn size(
    table: &mut Table<'_, '_>,
    key: &'static str,
    problems: &mut Vec<Problem>,
    wrong: fn(u64) -> Option<&'static str>,
) -> Result<Option<u64>, Problem> {
    let Some(text) = table.string(key)? else {
        return Ok(None);
    };
    let (message, label, remedy) = match parse_size(&text.value) {
        None => (
            format!("\"{}\" is not a size", text.value),
            "not a size",
            "write a whole number and KiB, such as \"4 KiB\"",
        ),
        Some(bytes) => match wrong(bytes) {
            None => return Ok(Some(bytes)),
            Some(remedy) => (
                format!("there cannot be a {key} of \"{}\"", text.value),
                "out of bounds",
                remedy,
            ),
        },
    };
    problems.push(Problem::error(
        table.source,
        text.span,
        message,
        label,
        remedy,
    ));
    Ok(None)
}
