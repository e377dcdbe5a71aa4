// SPDX-License-Identifier: MIT OR Apache-2.0
//! The generic error status block and its data entries (ACPI 6.5, tables 18.13 and 18.14).

use crate::bytes::{array_at, slice_at, u8_at, u16_at, u32_at};
use crate::{CperError, Guid, Section, SectionBody, Severity};

/// Length of the status block's header, in bytes.
pub const HEADER_LEN_BYTES: usize = 20;
/// Length of a data entry's header before revision 3.0, in bytes: there is no time stamp.
pub const ENTRY_V2_LEN_BYTES: usize = 64;
/// Length of a data entry's header since revision 3.0, in bytes.
pub const ENTRY_V3_LEN_BYTES: usize = 72;
/// The most sections of a block that are read. More is an error, not a longer loop.
pub const MAX_SECTIONS: usize = 16;
/// The longest block that anybody may declare, in bytes (what Linux accepts too).
pub const MAX_BLOCK_LEN_BYTES: usize = 64 * 1024;

/// Bits of the block status.
pub mod status_bits {
    /// An uncorrected error is reported.
    pub const UNCORRECTED: u32 = 1 << 0;
    /// A corrected error is reported.
    pub const CORRECTED: u32 = 1 << 1;
    /// More than one uncorrected error.
    pub const MULTIPLE_UNCORRECTED: u32 = 1 << 2;
    /// More than one corrected error.
    pub const MULTIPLE_CORRECTED: u32 = 1 << 3;
    /// First bit of the number of data entries, \[13:4\].
    pub const COUNT_SHIFT: u32 = 4;
    /// Mask of the number of data entries, after the shift.
    pub const COUNT_MASK: u32 = 0x3ff;
}

/// Flags of a data entry (UEFI 2.10, N.2.2, section flags).
pub mod entry_flags {
    /// The section that the others belong to.
    pub const PRIMARY: u8 = 1 << 0;
    /// The error was not contained and may have spread to storage or the network.
    pub const CONTAINMENT_WARNING: u8 = 1 << 1;
    /// The component was reset and must be initialized again.
    pub const RESET: u8 = 1 << 2;
    /// Corrected errors of this component passed a threshold.
    pub const THRESHOLD_EXCEEDED: u8 = 1 << 3;
    /// The resource cannot be reached any more.
    pub const NOT_ACCESSIBLE: u8 = 1 << 4;
    /// Contained, not consumed yet.
    pub const LATENT: u8 = 1 << 5;
}

/// The header's own fields, before any length is believed.
struct Header {
    status: u32,
    raw_offset: u32,
    raw_len: u32,
    data_len: u32,
    severity: u32,
}

fn read_header(bytes: &[u8]) -> Result<Header, CperError> {
    let short = CperError::Truncated {
        field: "status block: header",
        need_bytes: HEADER_LEN_BYTES,
        have_bytes: bytes.len(),
    };
    let word = |offset| u32_at(bytes, offset).ok_or(short);
    Ok(Header {
        status: word(0)?,
        raw_offset: word(4)?,
        raw_len: word(8)?,
        data_len: word(12)?,
        severity: word(16)?,
    })
}

/// Lengths of a block, checked against each other and against a limit.
struct Extent {
    /// Bytes of the data entries, behind the header.
    data_len: usize,
    /// Offset of the raw data from the start of the block; equals the block's length without any.
    raw_offset: usize,
    /// Bytes of the whole block.
    total: usize,
}

fn extent(header: &Header, limit_bytes: usize) -> Result<Extent, CperError> {
    if header.status == 0 {
        return Err(CperError::Empty);
    }
    let limit = limit_bytes.min(MAX_BLOCK_LEN_BYTES);
    let over = |field, value: u32, from: usize| CperError::Overrun {
        field,
        value: value.into(),
        limit: limit.saturating_sub(from) as u64,
    };
    let fits = |from: usize, len: u32| {
        let end = from.checked_add(usize::try_from(len).ok()?)?;
        (end <= limit).then_some(end)
    };
    if header.data_len != 0 && (header.data_len as usize) < ENTRY_V2_LEN_BYTES {
        return Err(CperError::Invalid {
            field: "status block: data length",
            value: header.data_len.into(),
        });
    }
    let data_end = fits(HEADER_LEN_BYTES, header.data_len).ok_or(over(
        "status block: data length",
        header.data_len,
        HEADER_LEN_BYTES,
    ))?;
    let data_len = data_end - HEADER_LEN_BYTES;
    if header.raw_len == 0 {
        return Ok(Extent {
            data_len,
            raw_offset: data_end,
            total: data_end,
        });
    }
    let raw_offset = fits(0, header.raw_offset).ok_or(over(
        "status block: raw data offset",
        header.raw_offset,
        0,
    ))?;
    if raw_offset < data_end {
        return Err(CperError::Invalid {
            field: "status block: raw data offset",
            value: header.raw_offset.into(),
        });
    }
    let total = fits(raw_offset, header.raw_len).ok_or(over(
        "status block: raw data length",
        header.raw_len,
        raw_offset,
    ))?;
    Ok(Extent {
        data_len,
        raw_offset,
        total,
    })
}

/// Returns how many bytes the block has, header included, from a private copy of its header.
///
/// `max_bytes` is what the error source declares (error status block length). The result is at
/// least [`HEADER_LEN_BYTES`] and at most `max_bytes`.
///
/// # Errors
///
/// [`CperError::Empty`] when the block status is 0; otherwise the length field that lies. Then
/// nothing behind the header can be used, while [`summary`](crate::summary()) of the bare header
/// still tells the severity.
pub fn header_len(header: &[u8; HEADER_LEN_BYTES], max_bytes: usize) -> Result<usize, CperError> {
    let header = read_header(header)?;
    if max_bytes < HEADER_LEN_BYTES {
        return Err(CperError::Truncated {
            field: "status block: header",
            need_bytes: HEADER_LEN_BYTES,
            have_bytes: max_bytes,
        });
    }
    Ok(extent(&header, max_bytes)?.total)
}

/// A generic error status block in private memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusBlock<'a> {
    status: u32,
    severity: Severity,
    data: &'a [u8],
    raw: &'a [u8],
    len_bytes: usize,
}

impl<'a> StatusBlock<'a> {
    /// Reads the header and checks its lengths. Bytes behind the block are not looked at.
    ///
    /// # Errors
    ///
    /// [`CperError::Empty`] when the block status is 0; otherwise the field that is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CperError> {
        let header = read_header(bytes)?;
        let extent = extent(&header, bytes.len())?;
        let short = CperError::Truncated {
            field: "status block: data",
            need_bytes: extent.total,
            have_bytes: bytes.len(),
        };
        let raw_len = extent.total.saturating_sub(extent.raw_offset);
        Ok(Self {
            status: header.status,
            severity: Severity::from_raw(header.severity),
            data: slice_at(bytes, HEADER_LEN_BYTES, extent.data_len).ok_or(short)?,
            raw: slice_at(bytes, extent.raw_offset, raw_len).ok_or(short)?,
            len_bytes: extent.total,
        })
    }

    /// Returns the block status: see [`status_bits`].
    pub const fn status(&self) -> u32 {
        self.status
    }

    /// Returns the severity of the whole block.
    pub const fn severity(&self) -> Severity {
        self.severity
    }

    /// Returns the length of the block, header and raw data included, in bytes.
    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Returns the number of entries that the block status claims. The entries are found by
    /// their lengths; this number is not used for anything, because real firmware gets it wrong.
    pub const fn declared_entries(&self) -> u32 {
        (self.status >> status_bits::COUNT_SHIFT) & status_bits::COUNT_MASK
    }

    /// Returns the raw data, whose format only the platform knows.
    pub const fn raw_data(&self) -> &'a [u8] {
        self.raw
    }

    /// Iterates over the entries, at most [`MAX_SECTIONS`]; ends behind the first error.
    pub const fn entries(&self) -> DataEntries<'a> {
        DataEntries {
            rest: self.data,
            left: MAX_SECTIONS,
        }
    }
}

/// A generic error data entry: header and payload of one section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataEntry<'a> {
    /// Which section this is.
    pub section_type: Guid,
    /// Severity of this section.
    pub severity: Severity,
    /// Revision of the entry, 0x0201 or 0x0300.
    pub revision: u16,
    /// See [`entry_flags`].
    pub flags: u8,
    /// Field replaceable unit, if given.
    pub fru_id: Option<Guid>,
    /// Its name, if given: 20 bytes, zero padded, of no checked encoding.
    pub fru_text: Option<[u8; 20]>,
    /// Time stamp in BCD (seconds, minutes, hours, flags, day, month, year, century), if given.
    pub timestamp_bcd: Option<[u8; 8]>,
    /// The section itself.
    pub payload: &'a [u8],
}

impl<'a> DataEntry<'a> {
    const FRU_ID_VALID: u8 = 1 << 0;
    const FRU_TEXT_VALID: u8 = 1 << 1;
    const TIMESTAMP_VALID: u8 = 1 << 2;

    /// Reads one entry from the start of `bytes`. Returns it and its length, payload included.
    fn parse(bytes: &'a [u8]) -> Result<(Self, usize), CperError> {
        let short = CperError::Truncated {
            field: "data entry: header",
            need_bytes: ENTRY_V2_LEN_BYTES,
            have_bytes: bytes.len(),
        };
        let header: [u8; ENTRY_V2_LEN_BYTES] = array_at(bytes, 0).ok_or(short)?;
        let revision = u16_at(&header, 20).ok_or(short)?;
        let header_len = match revision >> 8 {
            2 => ENTRY_V2_LEN_BYTES,
            3 => ENTRY_V3_LEN_BYTES,
            _ => {
                return Err(CperError::Invalid {
                    field: "data entry: revision",
                    value: revision.into(),
                });
            }
        };
        if bytes.len() < header_len {
            return Err(CperError::Truncated {
                field: "data entry: header",
                need_bytes: header_len,
                have_bytes: bytes.len(),
            });
        }
        let payload_len = u32_at(&header, 24).ok_or(short)?;
        let payload = slice_at(bytes, header_len, payload_len as usize).ok_or({
            CperError::Overrun {
                field: "data entry: error data length",
                value: payload_len.into(),
                limit: bytes.len().saturating_sub(header_len) as u64,
            }
        })?;
        let valid = u8_at(&header, 22).ok_or(short)?;
        let given = |bit| valid & bit != 0;
        let entry = Self {
            section_type: Guid(array_at(&header, 0).ok_or(short)?),
            severity: Severity::from_raw(u32_at(&header, 16).ok_or(short)?),
            revision,
            flags: u8_at(&header, 23).ok_or(short)?,
            fru_id: given(Self::FRU_ID_VALID)
                .then(|| array_at(&header, 28))
                .flatten()
                .map(Guid),
            fru_text: given(Self::FRU_TEXT_VALID)
                .then(|| array_at(&header, 44))
                .flatten(),
            timestamp_bcd: (given(Self::TIMESTAMP_VALID) && header_len == ENTRY_V3_LEN_BYTES)
                .then(|| array_at(bytes, 64))
                .flatten(),
            payload,
        };
        Ok((entry, header_len.saturating_add(payload.len())))
    }

    /// Decodes the payload by its type.
    ///
    /// # Errors
    ///
    /// The field that is wrong, when the type is one that this crate knows.
    pub fn section(&self) -> Result<Section<'a>, CperError> {
        Ok(Section {
            severity: self.severity,
            flags: self.flags.into(),
            body: SectionBody::decode(self.section_type, self.payload)?,
        })
    }
}

/// Iterator over the entries of a block.
#[derive(Clone, Debug)]
pub struct DataEntries<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for DataEntries<'a> {
    type Item = Result<DataEntry<'a>, CperError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let found = if self.left == 0 {
            Err(CperError::TooMany {
                field: "data entries",
                max: MAX_SECTIONS,
            })
        } else {
            DataEntry::parse(self.rest)
        };
        match found {
            Ok((entry, len)) => {
                self.left -= 1;
                self.rest = self.rest.get(len..).unwrap_or_default();
                Some(Ok(entry))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

impl core::iter::FusedIterator for DataEntries<'_> {}
