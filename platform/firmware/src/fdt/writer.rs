// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing of a flattened devicetree into a buffer of fixed length.

use core::fmt::Write as _;

use firebreak_abi::{PaRange, sei};
use heapless::String;

use super::reader::{Reader, TOKENS};
use super::{Error, HEADER_BYTES, LAST_COMPATIBLE, MAGIC, VERSION};

/// Names that the source's strings block may lack; they are written behind it.
const NAMES: [&str; 17] = [
    "enable-method",
    "compatible",
    "method",
    "#address-cells",
    "#size-cells",
    "ranges",
    "reg",
    "no-map",
    "status",
    "phandle",
    sei::PROP_BERT,
    sei::PROP_PERSISTENT,
    sei::PROP_ERROR_STATUS_ADDRESS,
    sei::PROP_ERROR_STATUS_LENGTH,
    sei::PROP_READ_ACK,
    sei::PROP_PENDING,
    sei::PROP_SYNDROME,
];

/// A tree in the making: header and reservations stand, the structure block grows.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
    structure_start: usize,
    old_strings_len: u32,
}

impl<'a> Writer<'a> {
    /// Starts with room for the header and a copy of the source's reservations.
    pub(super) fn new(out: &'a mut [u8], reader: &Reader<'_>) -> Result<Self, Error> {
        let old_strings_len = u32_of(reader.strings.len())?;
        let mut writer = Self {
            out,
            at: HEADER_BYTES,
            structure_start: 0,
            old_strings_len,
        };
        writer.bytes(reader.reservations)?;
        writer.structure_start = writer.at;
        Ok(writer)
    }

    /// Starts a node.
    pub(super) fn begin(&mut self, name: &[u8]) -> Result<(), Error> {
        self.word(TOKENS.begin_node)?;
        self.bytes(name)?;
        self.bytes(&[0])?;
        self.pad()
    }

    /// Starts a node with a unit address.
    pub(super) fn begin_at(&mut self, name: &[u8], unit: u64) -> Result<(), Error> {
        let mut suffix: String<20> = String::new();
        write!(suffix, "@{unit:x}").map_err(|_| Error::NoSpace)?;
        self.word(TOKENS.begin_node)?;
        self.bytes(name)?;
        self.bytes(suffix.as_bytes())?;
        self.bytes(&[0])?;
        self.pad()
    }

    /// Ends a node.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.word(TOKENS.end_node)
    }

    /// Copies a property of the source, whose strings block is copied whole later.
    pub(super) fn copy_property(
        &mut self,
        reader: &Reader<'_>,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), Error> {
        let offset = reader.offset_of(name).ok_or(Error::Malformed)?;
        self.raw_property(offset, value, &[])
    }

    /// Writes a property with one of [`NAMES`].
    pub(super) fn property(&mut self, name: &str, value: &[u8]) -> Result<(), Error> {
        self.raw_property(self.name_offset(name)?, value, &[])
    }

    /// Writes a property that is one string.
    pub(super) fn string(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.raw_property(self.name_offset(name)?, value.as_bytes(), &[0])
    }

    /// Writes a property of up to four 32-bit cells.
    pub(super) fn cells(&mut self, name: &str, cells: &[u32]) -> Result<(), Error> {
        let mut value: heapless::Vec<u8, 16> = heapless::Vec::new();
        for cell in cells {
            value
                .extend_from_slice(&cell.to_be_bytes())
                .map_err(|_| Error::NoSpace)?;
        }
        self.property(name, &value)
    }

    /// Writes a property that is one address of two cells.
    pub(super) fn address(&mut self, name: &str, address: u64) -> Result<(), Error> {
        self.property(name, &address.to_be_bytes())
    }

    /// Writes a property that is a base and a length, two cells each.
    pub(super) fn range(&mut self, name: &str, range: PaRange) -> Result<(), Error> {
        let [base, length] = [range.start.get(), range.len_bytes].map(u64::to_be_bytes);
        self.raw_property(self.name_offset(name)?, &base, &length)
    }

    /// Ends the structure, writes strings and header, and returns the length of the tree.
    pub(super) fn finish(mut self, reader: &Reader<'_>) -> Result<usize, Error> {
        self.word(TOKENS.end)?;
        let strings_start = self.at;
        self.bytes(reader.strings)?;
        for name in NAMES {
            self.bytes(name.as_bytes())?;
            self.bytes(&[0])?;
        }
        let strings_len = self.at.saturating_sub(strings_start);
        self.pad()?;
        let total = self.at;
        let header = [
            MAGIC,
            u32_of(total)?,
            u32_of(self.structure_start)?,
            u32_of(strings_start)?,
            u32_of(HEADER_BYTES)?,
            VERSION,
            LAST_COMPATIBLE,
            reader.boot_cpu,
            u32_of(strings_len)?,
            u32_of(strings_start.saturating_sub(self.structure_start))?,
        ];
        self.at = 0;
        for field in header {
            self.word(field)?;
        }
        Ok(total)
    }

    fn name_offset(&self, name: &str) -> Result<u32, Error> {
        let mut offset = self.old_strings_len;
        for known in NAMES {
            if known == name {
                return Ok(offset);
            }
            let next = u32_of(known.len())?.checked_add(1);
            offset = next
                .and_then(|len| offset.checked_add(len))
                .ok_or(Error::NoSpace)?;
        }
        Err(Error::Malformed)
    }

    fn raw_property(&mut self, name: u32, value: &[u8], more: &[u8]) -> Result<(), Error> {
        self.word(TOKENS.property)?;
        self.word(u32_of(value.len().saturating_add(more.len()))?)?;
        self.word(name)?;
        self.bytes(value)?;
        self.bytes(more)?;
        self.pad()
    }

    fn pad(&mut self) -> Result<(), Error> {
        while !self.at.is_multiple_of(4) {
            self.bytes(&[0])?;
        }
        Ok(())
    }

    fn word(&mut self, word: u32) -> Result<(), Error> {
        self.bytes(&word.to_be_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.at.checked_add(bytes.len()).ok_or(Error::NoSpace)?;
        self.out
            .get_mut(self.at..end)
            .ok_or(Error::NoSpace)?
            .copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }
}

fn u32_of(value: usize) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| Error::NoSpace)
}
