// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory with known content, checked slice by slice.
//!
//! A corrupted, lost or swapped page shows, because each word depends on its position.

/// Size of the watched memory, in 8-byte words (16 MiB).
const WORDS: usize = 16 * 1024 * 1024 / 8;
/// How many beats one full pass takes.
const SLICES: usize = 16;

/// Watched memory and the place of the next check.
pub(crate) struct Pattern {
    words: Vec<u64>,
    next_slice: usize,
}

/// Returns the content of the word at `index`: a multiplicative mix, so that neighbors, pages
/// and a page of zeros all differ.
fn expected(index: usize) -> u64 {
    (index as u64 ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Pattern {
    /// Allocates the memory and fills it.
    pub(crate) fn new() -> Self {
        Self::with_words(WORDS)
    }

    fn with_words(count: usize) -> Self {
        Self {
            words: (0..count).map(expected).collect(),
            next_slice: 0,
        }
    }

    /// Checks the next slice. Returns whether each of its words was as written.
    ///
    /// A wrong word stays wrong, so that every later pass reports it again.
    pub(crate) fn check_next_slice(&mut self) -> bool {
        let per_slice = self.words.len() / SLICES;
        let start = self.next_slice * per_slice;
        self.next_slice = (self.next_slice + 1) % SLICES;
        self.words
            .iter()
            .enumerate()
            .skip(start)
            .take(per_slice)
            .all(|(index, word)| std::hint::black_box(*word) == expected(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flipped_bit_anywhere_is_found_in_its_slice_and_in_no_other() {
        for index in [0, 1, 511, 512, SLICES * 64 - 1] {
            let mut pattern = Pattern::with_words(SLICES * 64);
            pattern.words[index] ^= 1 << 63;
            for pass in 0..2 {
                for slice in 0..SLICES {
                    let ok = pattern.check_next_slice();
                    assert_eq!(ok, slice != index / 64, "pass {pass} slice {slice}");
                }
            }
        }
    }

    #[test]
    fn swapped_and_zeroed_pages_are_found() {
        let mut pattern = Pattern::with_words(SLICES * 1024);
        for word in 0..512 {
            pattern.words.swap(word, 512 + word);
        }
        pattern.words[1024..1536].fill(0);
        assert!(!pattern.check_next_slice());
        assert!(!pattern.check_next_slice());
        assert!(pattern.check_next_slice());
    }
}
