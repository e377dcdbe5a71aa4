// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys that set memory aside.

use firebreak_abi::PAGE_SIZE_BYTES;
use firebreak_manifest::config::{
    DEFAULT_SPARE_PAGES, MAX_LOG_BYTES, MAX_RELOAD_ROOM_BYTES, MAX_SPARE_PAGES, MAX_TRACE_BYTES,
    MIN_LOG_BYTES,
};

use std::ops::Range;

use crate::board::BoardFile;
use crate::diagnostic::{Problem, Source};
use crate::document::{At, Table, parse_size};

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

impl Records {
    /// Returns how long the log is on this board, in bytes: what the file says, or what its firmware
    /// has room for.
    pub(crate) fn log_on(&self, board: &BoardFile) -> u64 {
        self.log_bytes.map_or(room_for_log(board), |wanted| {
            wanted.min(room_for_log(board))
        })
    }
}

/// Where the log stands: behind the crash page.
pub(crate) const LOG_OFFSET: u64 = PAGE_SIZE_BYTES;

/// Returns how long a log the board's firmware has room for, in bytes.
fn room_for_log(board: &BoardFile) -> u64 {
    let kept = board.persistent.map_or(0, |range| range.len_bytes);
    let room = kept.saturating_sub(LOG_OFFSET) & !1023;
    if room < MIN_LOG_BYTES {
        0
    } else {
        room.min(MAX_LOG_BYTES)
    }
}

/// Refuses a log that would be cut short, or not be there at all.
pub(crate) fn check_log(
    source: &Source,
    log: Option<&Range<usize>>,
    records: Records,
    board: &BoardFile,
) -> Option<Problem> {
    let (span, wanted, room) = (log?.clone(), records.log_bytes?, room_for_log(board));
    if wanted <= room {
        return None;
    }
    let name = &board.name;
    let (message, label, remedy) = if room == 0 {
        (
            format!("nothing is known of memory that the firmware of {name} keeps over a reset"),
            "no room for a log",
            source
                .say(
                    "leave log out; or, if there is such memory, name it in the board file (persistent)",
                    "leave firebreak,log out; or, if there is such memory, name it in a board file (persistent)",
                )
                .to_owned(),
        )
    } else {
        let (wanted, room) = (wanted >> 10, room >> 10);
        let remedy = source.say(
            "leave log out for as much as there is",
            "leave firebreak,log out for as much as there is",
        );
        (
            format!(
                "the firmware of {name} keeps memory for a log of {room} KiB, not of {wanted} KiB"
            ),
            "does not fit",
            format!("use up to {room} KiB, or {remedy}"),
        )
    };
    Some(Problem::error(source, span, message, label, remedy))
}

/// Reads `log` and `trace` of the system, and returns where the size of the log stands.
pub(crate) fn records(
    table: &mut Table<'_, '_>,
    problems: &mut Vec<Problem>,
) -> Result<(Records, Option<Range<usize>>), Problem> {
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
    let records = Records {
        log_bytes: log.as_ref().map(|log| log.value),
        trace_bytes: trace.map_or(0, |trace| trace.value),
    };
    Ok((records, log.map(|log| log.span)))
}

/// Reads a size; `wrong` says what to do about one that cannot be.
fn size(
    table: &mut Table<'_, '_>,
    key: &'static str,
    problems: &mut Vec<Problem>,
    wrong: fn(u64) -> Option<&'static str>,
) -> Result<Option<At<u64>>, Problem> {
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
            None => {
                return Ok(Some(At {
                    value: bytes,
                    span: text.span,
                }));
            }
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
