// SPDX-License-Identifier: MIT OR Apache-2.0
//! GHES status blocks and CPER sections: bounded reader and writer.
//!
//! The EL3 firmware writes an error record, the hypervisor reads it (in the SEI context, where
//! nothing may allocate, print or loop without bound), and a dying hypervisor writes one more
//! that the firmware keeps for the next boot. This crate is the codec of all three, and of the
//! host tool; it decides nothing: `firebreak-triage` does.
//!
//! Formats: ACPI 6.5, 18.3.2.7 (generic error status block, generic error data entry), 18.3.1
//! (boot error record table); UEFI 2.10, appendix N (record header, section descriptor, memory,
//! Arm processor). All numbers are little endian, all structures packed.
//!
//! How to read a record that the firmware shares, so that what was checked is what is used:
//!
//! 1. Copy the first [`HEADER_LEN_BYTES`] bytes into private memory, once.
//! 2. [`header_len`] says how many bytes the block has, or why it cannot be believed.
//! 3. Copy the rest, up to that many bytes, behind the private header.
//! 4. [`summary()`] or [`StatusBlock::parse`] on the private copy. Every length is checked again
//!    there, against the private bytes.
//!
//! Invariants: no byte sequence makes the reader panic or read outside of its slice; every loop
//! is bounded by [`MAX_SECTIONS`], [`MAX_ERROR_INFOS`] or [`MAX_CONTEXTS`]. The writer leaves the
//! block empty (status 0) until the last section is in place.
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

mod arm;
mod bert;
mod bytes;
mod error;
mod firebreak;
mod gist;
mod guid;
mod memory;
mod record;
mod section;
mod severity;
mod status;
mod summary;
mod write;

pub use arm::{
    ARM_INFO_LEN_BYTES, ARM_SECTION_LEN_BYTES, ArmContext, ArmContexts, ArmErrorInfo,
    ArmErrorInfos, ArmProcessor, ArmProcessorFields, MAX_CONTEXTS, MAX_ERROR_INFOS, error_type,
};
pub use bert::{Bert, BertRecords, append_record};
pub use error::CperError;
pub use firebreak::{FIREBREAK_SECTION_LEN_BYTES, FirebreakInfo, FirebreakSection, Source};
pub use gist::{Gist, Unusual, Word, gist, gist_of};
pub use guid::Guid;
pub use memory::{MEMORY_SECTION_LEN_BYTES, MEMORY_SECTION_MIN_LEN_BYTES, MemorySection};
pub use record::{
    CPER_DESCRIPTOR_LEN_BYTES, CPER_HEADER_LEN_BYTES, CperHeader, CperRecord, CperSections,
    record_flags, write_cper,
};
pub use section::{Section, SectionBody};
pub use severity::Severity;
pub use status::{
    DataEntries, DataEntry, ENTRY_V2_LEN_BYTES, ENTRY_V3_LEN_BYTES, HEADER_LEN_BYTES,
    MAX_BLOCK_LEN_BYTES, MAX_SECTIONS, StatusBlock, entry_flags, header_len, status_bits,
};
pub use summary::{Summary, summary};
pub use write::{MemoryError, ProcessorError, Record, Writer, write_record};
pub use write::{write_memory_error, write_processor_error};
