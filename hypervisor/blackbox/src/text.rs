// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text in words: eight bytes each, the first one lowest.

use crate::Words;

/// Copies `len_bytes` bytes of text out of the words from `first` on. What is not printable ASCII
/// becomes `?`; what does not fit is left out.
pub(crate) fn read<'b>(
    words: &(impl Words + ?Sized),
    first: usize,
    len_bytes: usize,
    buffer: &'b mut [u8],
) -> &'b str {
    let len = len_bytes.min(buffer.len());
    for (index, byte) in buffer.iter_mut().enumerate().take(len) {
        let word = words.word(first.saturating_add(index / 8));
        let raw = (word >> (8 * (index % 8))) as u8;
        *byte = if (0x20..0x7f).contains(&raw) {
            raw
        } else {
            b'?'
        };
    }
    // ASCII alone, so always UTF-8.
    core::str::from_utf8(buffer.get(..len).unwrap_or_default()).unwrap_or_default()
}
