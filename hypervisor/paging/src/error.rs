// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be wrong with a request to map or unmap.

use core::fmt;

use firebreak_abi::Pa;

/// Says which address stands in the way, and of what.
///
/// `input` is the address that is translated: an IPA for stage 2, a VA for stage 1. After an
/// error of a construction call, the part of the range below the culprit may be mapped: the
/// caller gives the whole set of tables up. After an error of a live edit nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PagingError {
    /// The range has no bytes.
    Empty {
        /// Start of the range.
        input: u64,
    },
    /// Input, output or length is not a multiple of 4 KiB.
    Misaligned {
        /// Start of the range.
        input: u64,
        /// Where it should lead.
        output: u64,
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// The range does not end inside the space that the tables translate.
    InputTooHigh {
        /// Start of the range.
        input: u64,
        /// Its length in bytes.
        len_bytes: u64,
        /// Width of the input space, in bits.
        input_bits: u8,
    },
    /// The range leads behind the end of the physical address space.
    OutputTooHigh {
        /// Where it should lead.
        output: u64,
        /// Its length in bytes.
        len_bytes: u64,
        /// Width of the physical address space, in bits.
        output_bits: u8,
    },
    /// Something is mapped there already.
    Overlap {
        /// First input address that is taken.
        input: u64,
        /// Where it leads now.
        existing: Pa,
    },
    /// Nothing is mapped there.
    NotMapped {
        /// The input address.
        input: u64,
    },
    /// No page is left for another table.
    OutOfFrames {
        /// Input address for which the table was needed.
        input: u64,
        /// Pages that were asked for.
        pages: usize,
    },
    /// The tables would have to span more than the architecture or the PE allows.
    Geometry {
        /// Bits of input address that were asked for.
        input_bits: u8,
        /// Width of the PE's physical address space, in bits.
        output_bits: u8,
    },
}

impl fmt::Display for PagingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty { input } => write!(f, "range at {input:#x} is empty"),
            Self::Misaligned {
                input,
                output,
                len_bytes,
            } => write!(
                f,
                "{input:#x} -> {output:#x}, {len_bytes:#x} bytes: not a multiple of 4 KiB"
            ),
            Self::InputTooHigh {
                input,
                len_bytes,
                input_bits,
            } => {
                write!(
                    f,
                    "{len_bytes:#x} bytes at {input:#x} do not fit in {input_bits} bits"
                )
            }
            Self::OutputTooHigh {
                output,
                len_bytes,
                output_bits,
            } => write!(
                f,
                "{len_bytes:#x} bytes at physical {output:#x} do not fit in {output_bits} bits"
            ),
            Self::Overlap { input, existing } => {
                write!(f, "{input:#x} is mapped already, to {existing:#x}")
            }
            Self::NotMapped { input } => write!(f, "{input:#x} is not mapped"),
            Self::OutOfFrames { input, pages } => {
                write!(f, "no {pages} page(s) left for the tables of {input:#x}")
            }
            Self::Geometry {
                input_bits,
                output_bits,
            } => write!(
                f,
                "{input_bits}-bit input space is not possible with {output_bits}-bit physical addresses"
            ),
        }
    }
}

impl core::error::Error for PagingError {}
