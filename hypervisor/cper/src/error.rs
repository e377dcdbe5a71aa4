// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be wrong with a record: the field, its value, and what it ran into.

use core::fmt;

/// Why a record, or a part of it, cannot be believed or written.
///
/// `field` names the structure and the field as ACPI and UEFI do. A reader that gets one of
/// these keeps what it read before it and uses nothing behind it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CperError {
    /// The block status is 0: there is no record here.
    Empty,
    /// The bytes end inside of a structure.
    Truncated {
        /// The structure.
        field: &'static str,
        /// Bytes that it needs.
        need_bytes: usize,
        /// Bytes that are there.
        have_bytes: usize,
    },
    /// A length or an offset runs past what holds it.
    Overrun {
        /// The length or offset field.
        field: &'static str,
        /// Its value, in bytes.
        value: u64,
        /// The most that fits, in bytes.
        limit: u64,
    },
    /// A field has a value that the format does not allow.
    Invalid {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// There are more parts than the reader's fixed bound.
    TooMany {
        /// What there is too much of.
        field: &'static str,
        /// The bound.
        max: usize,
    },
    /// The writer's buffer is full.
    NoRoom {
        /// Bytes that the record needs so far.
        need_bytes: usize,
        /// Bytes of the buffer.
        have_bytes: usize,
    },
}

impl CperError {
    /// Returns the name of the field or structure at fault, for a one-word event.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Empty => "status block: block status",
            Self::Truncated { field, .. }
            | Self::Overrun { field, .. }
            | Self::Invalid { field, .. }
            | Self::TooMany { field, .. } => field,
            Self::NoRoom { .. } => "buffer",
        }
    }
}

impl fmt::Display for CperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => write!(f, "no error record: the block status is 0"),
            Self::Truncated {
                field,
                need_bytes,
                have_bytes,
            } => write!(
                f,
                "{field} needs {need_bytes} bytes and {have_bytes} are there; \
                 nothing from there on is used"
            ),
            Self::Overrun {
                field,
                value,
                limit,
            } => write!(
                f,
                "{field} is {value:#x}, at most {limit:#x} fits; nothing from there on is used"
            ),
            Self::Invalid { field, value } => {
                write!(
                    f,
                    "{field} has the value {value:#x}; nothing from there on is used"
                )
            }
            Self::TooMany { field, max } => {
                write!(f, "more than {max} of {field}; the rest is not read")
            }
            Self::NoRoom {
                need_bytes,
                have_bytes,
            } => write!(
                f,
                "the record needs {need_bytes} bytes and the buffer has {have_bytes}; \
                 it is left empty"
            ),
        }
    }
}

impl core::error::Error for CperError {}
