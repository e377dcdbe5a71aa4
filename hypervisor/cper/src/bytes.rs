// SPDX-License-Identifier: MIT OR Apache-2.0
//! Little-endian numbers at an offset of a byte slice, checked.
//!
//! Everything that reads a record goes through here, so that no other module indexes.

/// Returns the byte at `offset`, or `None` past the end.
pub(crate) fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// Returns the 16-bit number at `offset`, or `None` past the end.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(array_at(bytes, offset)?))
}

// Out of line: parsing a record takes dozens of them, and it is not often done.
/// Returns the 32-bit number at `offset`, or `None` past the end.
#[inline(never)]
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(array_at(bytes, offset)?))
}

/// Returns the 64-bit number at `offset`, or `None` past the end.
#[inline(never)]
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(array_at(bytes, offset)?))
}

/// Returns `N` bytes from `offset` on, or `None` past the end.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// Returns `len` bytes from `offset` on, or `None` past the end.
pub(crate) fn slice_at(bytes: &[u8], offset: usize, len: usize) -> Option<&[u8]> {
    bytes.get(offset..offset.checked_add(len)?)
}

/// Writes `value` at `offset`. Returns `None`, and writes nothing, past the end.
pub(crate) fn put(bytes: &mut [u8], offset: usize, value: &[u8]) -> Option<()> {
    bytes
        .get_mut(offset..offset.checked_add(value.len())?)?
        .copy_from_slice(value);
    Some(())
}

/// Returns the validation bits of the fields that are given.
pub(crate) fn valid_bits<const N: usize>(fields: [(bool, u32); N]) -> u32 {
    fields
        .into_iter()
        .filter(|(given, _)| *given)
        .fold(0, |bits, (_, bit)| bits | bit)
}
