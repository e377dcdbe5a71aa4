// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot error record region (ACPI 6.5, 18.3.1): status blocks one behind the other.
//!
//! The region ends at a block whose status is 0, or where its bytes end.

use crate::bytes::slice_at;
use crate::{CperError, HEADER_LEN_BYTES, Record, StatusBlock, write_record};

/// A boot error record region in private memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bert<'a> {
    region: &'a [u8],
}

impl<'a> Bert<'a> {
    /// Takes the bytes of the region. Nothing is checked before the records are looked at.
    pub const fn new(region: &'a [u8]) -> Self {
        Self { region }
    }

    /// Iterates over the records; ends behind the first that is wrong.
    pub const fn records(&self) -> BertRecords<'a> {
        BertRecords { rest: self.region }
    }
}

/// Iterator over the status blocks of a boot error record region, with the bytes of each.
///
/// Bounded by the region: each block has at least [`HEADER_LEN_BYTES`].
#[derive(Clone, Debug)]
pub struct BertRecords<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for BertRecords<'a> {
    type Item = Result<(StatusBlock<'a>, &'a [u8]), CperError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.len() < HEADER_LEN_BYTES {
            return None;
        }
        match StatusBlock::parse(self.rest) {
            Ok(block) => {
                let bytes = slice_at(self.rest, 0, block.len_bytes()).unwrap_or_default();
                self.rest = self.rest.get(block.len_bytes()..).unwrap_or_default();
                Some(Ok((block, bytes)))
            }
            Err(error) => {
                self.rest = &[];
                (error != CperError::Empty).then_some(Err(error))
            }
        }
    }
}

impl core::iter::FusedIterator for BertRecords<'_> {}

/// Writes a record behind those that the region holds. Returns the offset and the length.
///
/// A region whose content is not a chain of blocks (memory after power-on) is overwritten from
/// its first byte that does not make sense.
///
/// # Errors
///
/// [`CperError::NoRoom`] when it does not fit; the records that were there stay.
pub fn append_record(region: &mut [u8], record: &Record) -> Result<(usize, usize), CperError> {
    let offset = Bert::new(region)
        .records()
        .map_while(Result::ok)
        .fold(0, |end: usize, (block, _)| {
            end.saturating_add(block.len_bytes())
        });
    let len = write_record(region.get_mut(offset..).unwrap_or_default(), record)?;
    // What stood there before may look like one more block: end the chain.
    let end = offset.saturating_add(len);
    if let Some(rest) = region.get_mut(end..) {
        let tail = rest.len().min(HEADER_LEN_BYTES);
        rest.get_mut(..tail).unwrap_or_default().fill(0);
    }
    Ok((offset, len))
}
