// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes status blocks: for the EL3 firmware, and for a hypervisor on its way down.
//!
//! No allocation, no formatting, no loop that depends on content, so it runs in any context. The
//! block status is written last: a block that was not finished reads as empty.

use firebreak_abi::{Mpidr, Pa};

use crate::arm::fixed_part;
use crate::bytes::put;
use crate::status::{entry_flags, status_bits};
use crate::{
    ARM_INFO_LEN_BYTES, ARM_SECTION_LEN_BYTES, ArmErrorInfo, ArmProcessorFields, CperError,
    ENTRY_V3_LEN_BYTES, FirebreakInfo, FirebreakSection, Guid, HEADER_LEN_BYTES, MAX_SECTIONS,
    MemorySection, Severity, error_type,
};

const ENTRY_REVISION: u16 = 0x0300;

/// An error as Firebreak's firmware and hypervisor report it. [`write_record`] turns it into
/// sections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Severity of the block and of its sections.
    pub severity: Severity,
    /// Address that is bad: makes a memory section.
    pub pa: Option<Pa>,
    /// PE that found the error: makes an Arm processor section.
    pub mpidr: Option<Mpidr>,
    /// Syndrome of the SError (25 bits), in the Firebreak section.
    pub iss: u32,
    /// Whether the error was raised on demand, in the Firebreak section.
    pub simulated: bool,
    /// Where the error struck, in the Firebreak section.
    pub info: Option<FirebreakInfo>,
}

impl Record {
    /// Makes a record of which nothing but the severity is known.
    pub const fn new(severity: Severity) -> Self {
        Self {
            severity,
            pa: None,
            mpidr: None,
            iss: 0,
            simulated: false,
            info: None,
        }
    }

    /// Returns the Firebreak section of this record.
    pub(crate) fn own_section(&self) -> FirebreakSection {
        FirebreakSection {
            iss: Some(self.iss),
            simulated: self.simulated,
            info: self.info.unwrap_or_default(),
        }
    }
}

/// A memory error: one section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryError {
    /// Severity of the section.
    pub severity: Severity,
    /// Address that is bad.
    pub pa: Option<Pa>,
    /// How much around it is bad: bits that are 1 are valid.
    pub pa_mask: Option<u64>,
    /// Kind of error: 0 unknown, 2 single-bit, 3 multi-bit, and so on.
    pub error_type: Option<u8>,
    /// Section flags: see [`entry_flags`].
    pub flags: u8,
}

impl MemoryError {
    /// Makes an error at an address, of unknown kind.
    pub const fn at(severity: Severity, pa: Pa) -> Self {
        Self {
            severity,
            pa: Some(pa),
            pa_mask: None,
            error_type: None,
            flags: 0,
        }
    }
}

/// A processor error: one section with one error info.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessorError {
    /// PE that found the error.
    pub mpidr: Option<Mpidr>,
    /// Severity of the section.
    pub severity: Severity,
    /// MIDR_EL1 of that PE, or 0.
    pub midr: u64,
    /// Kind: see [`error_type`].
    pub kind: u8,
    /// Physical address that faulted.
    pub pa: Option<Pa>,
    /// Virtual address that faulted.
    pub va: Option<u64>,
    /// Section flags: see [`entry_flags`].
    pub flags: u8,
}

impl ProcessorError {
    /// Makes a bus error without addresses: an SError whose source is not known better.
    pub const fn at(severity: Severity, mpidr: Mpidr) -> Self {
        Self {
            mpidr: Some(mpidr),
            severity,
            midr: 0,
            kind: error_type::BUS,
            pa: None,
            va: None,
            flags: 0,
        }
    }
}

/// Builds a status block, section by section.
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut [u8],
    end: usize,
    sections: usize,
    severity: Severity,
}

impl<'a> Writer<'a> {
    /// Starts a block of this severity. The buffer reads as empty until [`Writer::finish`].
    ///
    /// # Errors
    ///
    /// [`CperError::NoRoom`] when not even the header fits.
    pub fn new(buf: &'a mut [u8], severity: Severity) -> Result<Self, CperError> {
        let have_bytes = buf.len();
        put(buf, 0, &[0; HEADER_LEN_BYTES]).ok_or(CperError::NoRoom {
            need_bytes: HEADER_LEN_BYTES,
            have_bytes,
        })?;
        Ok(Self {
            buf,
            end: HEADER_LEN_BYTES,
            sections: 0,
            severity,
        })
    }

    /// Adds a section of any type: the payload is the parts one behind the other.
    ///
    /// # Errors
    ///
    /// [`CperError::NoRoom`] when it does not fit, [`CperError::TooMany`] behind
    /// [`MAX_SECTIONS`]. The sections before it stay.
    pub fn section(
        &mut self,
        section_type: Guid,
        severity: Severity,
        flags: u8,
        payload: [&[u8]; 2],
    ) -> Result<(), CperError> {
        if self.sections >= MAX_SECTIONS {
            return Err(CperError::TooMany {
                field: "data entries",
                max: MAX_SECTIONS,
            });
        }
        let [first, second] = payload;
        let payload_len = first.len().saturating_add(second.len());
        let need_bytes = self
            .end
            .saturating_add(ENTRY_V3_LEN_BYTES)
            .saturating_add(payload_len);
        let no_room = CperError::NoRoom {
            need_bytes,
            have_bytes: self.buf.len(),
        };
        let entry = self.buf.get_mut(self.end..need_bytes).ok_or(no_room)?;
        entry.fill(0);
        let length = u32::try_from(payload_len).map_err(|_| no_room)?;
        let parts: [(usize, &[u8]); 7] = [
            (0, &section_type.0),
            (16, &severity.raw().to_le_bytes()),
            (20, &ENTRY_REVISION.to_le_bytes()),
            (23, &[flags]),
            (24, &length.to_le_bytes()),
            (ENTRY_V3_LEN_BYTES, first),
            (ENTRY_V3_LEN_BYTES.saturating_add(first.len()), second),
        ];
        for (offset, value) in parts {
            put(entry, offset, value).ok_or(no_room)?;
        }
        self.end = need_bytes;
        self.sections += 1;
        self.severity = self.severity.worse(severity);
        Ok(())
    }

    /// Adds a memory section.
    ///
    /// # Errors
    ///
    /// As [`Writer::section`].
    pub fn memory(&mut self, error: &MemoryError) -> Result<(), CperError> {
        let section = MemorySection {
            pa: error.pa,
            pa_mask: error.pa_mask,
            error_type: error.error_type,
            ..MemorySection::default()
        };
        self.section(
            Guid::MEMORY,
            error.severity,
            error.flags,
            [&section.to_bytes(), &[]],
        )
    }

    /// Adds an Arm processor section with one error info.
    ///
    /// # Errors
    ///
    /// As [`Writer::section`].
    pub fn processor(&mut self, error: &ProcessorError) -> Result<(), CperError> {
        let fields = ArmProcessorFields {
            mpidr: error.mpidr,
            midr: error.midr,
            running: Some(true),
            ..ArmProcessorFields::default()
        };
        let fixed: [u8; ARM_SECTION_LEN_BYTES] = fixed_part(&fields, 1);
        let info: [u8; ARM_INFO_LEN_BYTES] = ArmErrorInfo {
            kind: error.kind,
            pa: error.pa,
            va: error.va,
            ..ArmErrorInfo::default()
        }
        .to_bytes();
        self.section(
            Guid::ARM_PROCESSOR,
            error.severity,
            error.flags,
            [&fixed, &info],
        )
    }

    /// Adds a Firebreak section.
    ///
    /// # Errors
    ///
    /// As [`Writer::section`].
    pub fn firebreak(
        &mut self,
        severity: Severity,
        own: &FirebreakSection,
    ) -> Result<(), CperError> {
        self.section(Guid::FIREBREAK, severity, 0, [&own.to_bytes(), &[]])
    }

    /// Writes the header, block status last, and returns the length of the block in bytes. The
    /// block's severity is the worst of its own and its sections'.
    ///
    /// # Errors
    ///
    /// [`CperError::Overrun`] when the length does not fit its 32-bit field: the block stays
    /// empty.
    pub fn finish(self) -> Result<usize, CperError> {
        let data_len = self.end.saturating_sub(HEADER_LEN_BYTES);
        let length = u32::try_from(data_len).map_err(|_| CperError::Overrun {
            field: "status block: data length",
            value: data_len as u64,
            limit: u32::MAX.into(),
        })?;
        let kind = match self.severity {
            Severity::Corrected | Severity::Informational => status_bits::CORRECTED,
            Severity::Recoverable | Severity::Fatal | Severity::Unknown(_) => {
                status_bits::UNCORRECTED
            }
        };
        // At most MAX_SECTIONS, so nothing is cut off.
        let status = kind | ((self.sections as u32) << status_bits::COUNT_SHIFT);
        let parts: [(usize, &[u8]); 3] = [
            (12, &length.to_le_bytes()),
            (16, &self.severity.raw().to_le_bytes()),
            (0, &status.to_le_bytes()),
        ];
        for (offset, value) in parts {
            let _fits = put(self.buf, offset, value);
        }
        Ok(self.end)
    }
}

/// Writes a whole record: a memory section if there is an address, an Arm processor section if
/// the PE is named, and the Firebreak section. Returns the block's length in bytes (at most 472).
///
/// # Errors
///
/// [`CperError::NoRoom`] when it does not fit: the block is left empty.
pub fn write_record(buf: &mut [u8], record: &Record) -> Result<usize, CperError> {
    let severity = record.severity;
    let mut writer = Writer::new(buf, severity)?;
    if let Some(pa) = record.pa {
        let flags = entry_flags::PRIMARY;
        writer.memory(&MemoryError {
            flags,
            ..MemoryError::at(severity, pa)
        })?;
    }
    if let Some(mpidr) = record.mpidr {
        let flags = if record.pa.is_none() {
            entry_flags::PRIMARY
        } else {
            0
        };
        writer.processor(&ProcessorError {
            pa: record.pa,
            flags,
            ..ProcessorError::at(severity, mpidr)
        })?;
    }
    writer.firebreak(severity, &record.own_section())?;
    writer.finish()
}

/// Writes a block with one memory section. Returns its length in bytes.
///
/// # Errors
///
/// [`CperError::NoRoom`] when it does not fit: the block is left empty.
pub fn write_memory_error(buf: &mut [u8], error: &MemoryError) -> Result<usize, CperError> {
    let mut writer = Writer::new(buf, error.severity)?;
    writer.memory(error)?;
    writer.finish()
}

/// Writes a block with one Arm processor section. Returns its length in bytes.
///
/// # Errors
///
/// [`CperError::NoRoom`] when it does not fit: the block is left empty.
pub fn write_processor_error(buf: &mut [u8], error: &ProcessorError) -> Result<usize, CperError> {
    let mut writer = Writer::new(buf, error.severity)?;
    writer.processor(error)?;
    writer.finish()
}
