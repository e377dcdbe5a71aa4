// SPDX-License-Identifier: MIT OR Apache-2.0
//! One decoded section, whichever container (status block or CPER record) it came from.

use crate::{ArmProcessor, CperError, FirebreakSection, Guid, MemorySection, Severity};

/// A section with what its container says about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section<'a> {
    /// Severity of this section.
    pub severity: Severity,
    /// Section flags: see [`crate::entry_flags`].
    pub flags: u32,
    /// Its content.
    pub body: SectionBody<'a>,
}

/// Content of a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SectionBody<'a> {
    /// Platform memory error.
    Memory(MemorySection),
    /// Arm processor error.
    ArmProcessor(ArmProcessor<'a>),
    /// Firebreak's own.
    Firebreak(FirebreakSection),
    /// A type that is not decoded here.
    Other {
        /// Which.
        section_type: Guid,
        /// Its bytes.
        payload: &'a [u8],
    },
}

impl<'a> SectionBody<'a> {
    /// Decodes a payload by its type.
    ///
    /// # Errors
    ///
    /// The field that is wrong. An unknown type is not an error.
    pub fn decode(section_type: Guid, payload: &'a [u8]) -> Result<Self, CperError> {
        Ok(match section_type {
            Guid::MEMORY => Self::Memory(MemorySection::parse(payload)?),
            Guid::ARM_PROCESSOR => Self::ArmProcessor(ArmProcessor::parse(payload)?),
            Guid::FIREBREAK => Self::Firebreak(FirebreakSection::parse(payload)?),
            section_type => Self::Other {
                section_type,
                payload,
            },
        })
    }
}
