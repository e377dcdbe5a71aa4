// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devicetrees for tests: aligned as a bootloader aligns them.

use firebreak_guestdt::FdtWriter;

/// A blob on a multiple of 8.
pub(crate) struct Blob {
    words: Vec<u64>,
    len: usize,
}

impl Blob {
    /// Copies bytes.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0; bytes.len().div_ceil(8)];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_ne_bytes(whole);
        }
        Self {
            words,
            len: bytes.len(),
        }
    }

    /// Writes a tree.
    pub(crate) fn tree(inside: impl FnOnce(&mut FdtWriter<'_>)) -> Self {
        let mut buf = vec![0; 0x1_0000];
        let mut writer = FdtWriter::new(&mut buf);
        writer.node("", inside);
        let len = writer.finish().unwrap();
        Self::new(&buf[..len])
    }

    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &zerocopy::IntoBytes::as_bytes(self.words.as_slice())[..self.len]
    }
}
