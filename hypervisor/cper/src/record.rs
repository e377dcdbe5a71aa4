// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole CPER record (UEFI 2.10, N.2): header, section descriptors, sections.
//!
//! Error sources do not use it; crash logs do (ERST, pstore, a file on the host).

use crate::arm::fixed_part;
use crate::bytes::{array_at, put, slice_at, u16_at, u32_at, u64_at};
use crate::{
    ArmErrorInfo, ArmProcessorFields, CperError, Guid, MAX_SECTIONS, MemorySection, Record,
    Section, SectionBody, Severity, entry_flags, error_type,
};

/// Length of the record header, in bytes.
pub const CPER_HEADER_LEN_BYTES: usize = 128;
/// Length of a section descriptor, in bytes.
pub const CPER_DESCRIPTOR_LEN_BYTES: usize = 72;

const SIGNATURE: [u8; 4] = *b"CPER";
const SIGNATURE_END: u32 = u32::MAX;
const REVISION: u16 = 0x0100;

/// Flags of a record.
pub mod record_flags {
    /// The error was recovered.
    pub const RECOVERED: u32 = 1 << 0;
    /// The error happened before the last reset.
    pub const PREVIOUS: u32 = 1 << 1;
    /// The error was raised on demand.
    pub const SIMULATED: u32 = 1 << 2;
}

/// Fields of the record header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CperHeader {
    /// Severity of the record.
    pub severity: Severity,
    /// How the error was announced, for instance [`Guid::NOTIFY_SEI`].
    pub notification: Guid,
    /// Number of the record; with the creator, unique.
    pub record_id: u64,
    /// See [`record_flags`].
    pub flags: u32,
}

/// A CPER record in private memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CperRecord<'a> {
    /// Its header.
    pub header: CperHeader,
    bytes: &'a [u8],
    section_count: u16,
}

impl<'a> CperRecord<'a> {
    /// Reads the header and checks its lengths. Bytes behind the record are not looked at.
    ///
    /// # Errors
    ///
    /// The field that is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CperError> {
        let short = CperError::Truncated {
            field: "CPER record: header",
            need_bytes: CPER_HEADER_LEN_BYTES,
            have_bytes: bytes.len(),
        };
        let header: [u8; CPER_HEADER_LEN_BYTES] = array_at(bytes, 0).ok_or(short)?;
        let signature = u32_at(&header, 0).ok_or(short)?;
        if signature != u32::from_le_bytes(SIGNATURE) {
            let field = "CPER record: signature";
            return Err(CperError::Invalid {
                field,
                value: signature.into(),
            });
        }
        let end = u32_at(&header, 6).ok_or(short)?;
        if end != SIGNATURE_END {
            let field = "CPER record: signature end";
            return Err(CperError::Invalid {
                field,
                value: end.into(),
            });
        }
        let length = u32_at(&header, 20).ok_or(short)?;
        let record = slice_at(bytes, 0, length as usize)
            .filter(|record| record.len() >= CPER_HEADER_LEN_BYTES)
            .ok_or(CperError::Overrun {
                field: "CPER record: record length",
                value: length.into(),
                limit: bytes.len() as u64,
            })?;
        let section_count = u16_at(&header, 10).ok_or(short)?;
        if descriptors_end(section_count) > record.len() {
            return Err(CperError::Overrun {
                field: "CPER record: section count",
                value: section_count.into(),
                limit: ((record.len() - CPER_HEADER_LEN_BYTES) / CPER_DESCRIPTOR_LEN_BYTES) as u64,
            });
        }
        let header = CperHeader {
            severity: Severity::from_raw(u32_at(&header, 12).ok_or(short)?),
            notification: Guid(array_at(&header, 80).ok_or(short)?),
            record_id: u64_at(&header, 96).ok_or(short)?,
            flags: u32_at(&header, 104).ok_or(short)?,
        };
        Ok(Self {
            header,
            bytes: record,
            section_count,
        })
    }

    /// Says whether the error was raised on demand.
    pub const fn simulated(&self) -> bool {
        self.header.flags & record_flags::SIMULATED != 0
    }

    /// Iterates over the sections, at most [`MAX_SECTIONS`]. A section that is wrong does not
    /// hide those behind it: each has a descriptor of its own.
    pub const fn sections(&self) -> CperSections<'a> {
        CperSections {
            bytes: self.bytes,
            count: self.section_count,
            next: 0,
        }
    }
}

fn descriptors_end(count: u16) -> usize {
    CPER_HEADER_LEN_BYTES
        .saturating_add(usize::from(count).saturating_mul(CPER_DESCRIPTOR_LEN_BYTES))
}

/// Iterator over the sections of a CPER record.
#[derive(Clone, Debug)]
pub struct CperSections<'a> {
    bytes: &'a [u8],
    count: u16,
    next: u16,
}

impl<'a> CperSections<'a> {
    fn read(&self) -> Result<Section<'a>, CperError> {
        let at = descriptors_end(self.next);
        let short = CperError::Truncated {
            field: "CPER record: section descriptor",
            need_bytes: at.saturating_add(CPER_DESCRIPTOR_LEN_BYTES),
            have_bytes: self.bytes.len(),
        };
        let descriptor: [u8; CPER_DESCRIPTOR_LEN_BYTES] = array_at(self.bytes, at).ok_or(short)?;
        let offset = u32_at(&descriptor, 0).ok_or(short)?;
        let length = u32_at(&descriptor, 4).ok_or(short)?;
        if (offset as usize) < descriptors_end(self.count) {
            let field = "CPER section descriptor: offset";
            return Err(CperError::Invalid {
                field,
                value: offset.into(),
            });
        }
        let payload =
            slice_at(self.bytes, offset as usize, length as usize).ok_or(CperError::Overrun {
                field: "CPER section descriptor: length",
                value: length.into(),
                limit: (self.bytes.len() as u64).saturating_sub(offset.into()),
            })?;
        let section_type = Guid(array_at(&descriptor, 16).ok_or(short)?);
        Ok(Section {
            severity: Severity::from_raw(u32_at(&descriptor, 48).ok_or(short)?),
            flags: u32_at(&descriptor, 12).ok_or(short)?,
            body: SectionBody::decode(section_type, payload)?,
        })
    }
}

impl<'a> Iterator for CperSections<'a> {
    type Item = Result<Section<'a>, CperError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            return None;
        }
        if usize::from(self.next) >= MAX_SECTIONS {
            self.next = self.count;
            return Some(Err(CperError::TooMany {
                field: "CPER sections",
                max: MAX_SECTIONS,
            }));
        }
        let section = self.read();
        self.next += 1;
        Some(section)
    }
}

impl core::iter::FusedIterator for CperSections<'_> {}

/// Writes a record as one CPER record: the same sections as [`crate::write_record`]. Returns its
/// length in bytes (at most 600).
///
/// # Errors
///
/// [`CperError::NoRoom`] when it does not fit.
pub fn write_cper(buf: &mut [u8], record_id: u64, record: &Record) -> Result<usize, CperError> {
    let memory = MemorySection {
        pa: record.pa,
        ..MemorySection::default()
    }
    .to_bytes();
    let fields = ArmProcessorFields {
        mpidr: record.mpidr,
        running: Some(true),
        ..ArmProcessorFields::default()
    };
    let info = ArmErrorInfo {
        kind: error_type::BUS,
        pa: record.pa,
        ..ArmErrorInfo::default()
    };
    let arm_fixed = fixed_part(&fields, 1);
    let arm_info = info.to_bytes();
    let own = record.own_section().to_bytes();
    let all: [(bool, Guid, [&[u8]; 2]); 3] = [
        (record.pa.is_some(), Guid::MEMORY, [&memory, &[]]),
        (
            record.mpidr.is_some(),
            Guid::ARM_PROCESSOR,
            [&arm_fixed, &arm_info],
        ),
        (true, Guid::FIREBREAK, [&own, &[]]),
    ];
    let sections = all.into_iter().filter(|(present, ..)| *present);
    let count = 1 + u16::from(record.pa.is_some()) + u16::from(record.mpidr.is_some());
    let payload: usize = sections
        .clone()
        .flat_map(|(_, _, parts)| parts)
        .map(<[u8]>::len)
        .sum();
    let total = descriptors_end(count).saturating_add(payload);
    let no_room = CperError::NoRoom {
        need_bytes: total,
        have_bytes: buf.len(),
    };
    let buf = buf.get_mut(..total).ok_or(no_room)?;
    buf.fill(0);
    let mut offset = descriptors_end(count);
    for (index, (_, section_type, parts)) in sections.enumerate() {
        let flags = if index == 0 { entry_flags::PRIMARY } else { 0 };
        let start = offset;
        for part in parts {
            put(buf, offset, part).ok_or(no_room)?;
            offset = offset.saturating_add(part.len());
        }
        let descriptor = CPER_HEADER_LEN_BYTES.saturating_add(index * CPER_DESCRIPTOR_LEN_BYTES);
        let words: [(usize, &[u8]); 6] = [
            (0, &(start as u32).to_le_bytes()),
            (4, &((offset - start) as u32).to_le_bytes()),
            (8, &0x0300_u16.to_le_bytes()),
            (12, &u32::from(flags).to_le_bytes()),
            (16, &section_type.0),
            (48, &record.severity.raw().to_le_bytes()),
        ];
        for (field, value) in words {
            put(buf, descriptor.saturating_add(field), value).ok_or(no_room)?;
        }
    }
    put_header(buf, record_id, record, count).ok_or(no_room)?;
    Ok(total)
}

fn put_header(buf: &mut [u8], record_id: u64, record: &Record, count: u16) -> Option<()> {
    let flags = if record.simulated {
        record_flags::SIMULATED
    } else {
        0
    };
    let length = u32::try_from(buf.len()).ok()?;
    let words: [(usize, &[u8]); 9] = [
        (0, &SIGNATURE),
        (4, &REVISION.to_le_bytes()),
        (6, &SIGNATURE_END.to_le_bytes()),
        (10, &count.to_le_bytes()),
        (12, &record.severity.raw().to_le_bytes()),
        (20, &length.to_le_bytes()),
        (80, &Guid::NOTIFY_SEI.0),
        (96, &record_id.to_le_bytes()),
        (104, &flags.to_le_bytes()),
    ];
    words
        .into_iter()
        .try_for_each(|(offset, value)| put(buf, offset, value))
}
