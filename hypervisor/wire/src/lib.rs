// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes over the one serial line that everything shares.
//!
//! Three kinds of lines leave the hypervisor, and nothing that a guest prints can turn one kind
//! into another:
//!
//! * an [`Event`]: a record separator (0x1e), one JSON object, a line feed (RFC 7464);
//! * a frame of a guest's console, made by a [`ConsoleEncoder`]: `name| text` or `name> text`;
//! * the hypervisor's own words, `firebreak: ...`.
//!
//! What is typed comes back through an [`InputDecoder`], which says which partition gets it, or
//! that it was a [`Command`]; each command is answered by one event. An
//! [`OutputBudget`] keeps a storm of one guest from taking the line away from the others; how much each
//! may have of it, [`LineShares`] says.
//!
//! The other end, which takes such a stream apart again, is in `tools/qemu`. Nothing here
//! allocates, and all of it is driven through `&mut dyn Write` and small routines of its own,
//! because the formatting machinery of `core` would cost the image more than this whole crate.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

mod aftermath;
mod answer;
mod budget;
mod command;
mod console;
mod event;
mod input;
mod json;
mod line;
mod transfer;

pub use aftermath::{BootErrorRecord, Crash, CrashRecord, LogEntry};
pub use answer::{Detail, ExitRow, PartitionRow, PeRow, Stats, UsageRow};
pub use budget::OutputBudget;
pub use command::{COMMAND_BYTES, Command, Fault, Name, Place, Refused, Request};
pub use console::{ConsoleEncoder, FRAME_BYTES, LINE_BYTES, is_console_name};
pub use event::{
    ErrorEvent, Event, Level, Ram, RecordSource, SCHEMA_VERSION, VserrorState, write_event,
};
pub use input::{COMMAND, ESCAPE, Input, InputDecoder};
pub use json::{write_decimal, write_hex};
pub use line::{
    ConsoleBudget, DEFAULT_BITS_PER_SECOND, Divisor, GUEST_EVENT_BYTES, HOLD_UP_MS, LineShares,
    LineSpeed,
};
pub use transfer::{Crc32, PIECE_BYTES, Piece, Transfer, TransferFault, encode as encode_piece};

/// First byte of an event: ASCII record separator (RFC 7464, 2.2).
pub const RECORD_SEPARATOR: u8 = 0x1e;
