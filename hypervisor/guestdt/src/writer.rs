// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes a flattened devicetree (version 17) into a buffer that it is given.
//!
//! Bounded in everything: the buffer, [`MAX_NAMES`] property names of [`MAX_NAMES_BYTES`] in all.
//! The first thing that does not fit or is out of place is remembered, all that comes after it
//! is dropped, and [`FdtWriter::finish`] tells: so a tree is either whole or not there.

use core::fmt;

/// The most different property names.
pub const MAX_NAMES: usize = 64;
/// The most bytes of different property names, their NULs included.
pub const MAX_NAMES_BYTES: usize = 1024;

const HEADER_BYTES: usize = 40;
const RESERVATION_BYTES: usize = 16;
const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const OLDEST_COMPATIBLE_VERSION: u32 = 16;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const END: u32 = 9;

/// Why there is no tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// The buffer is too short for it.
    BufferFull,
    /// It has more property names than this build has room for.
    NamesFull,
    /// A node was ended that never began, one was left open, or a property stands outside of a
    /// node or behind a child.
    Misplaced,
    /// A name or a text holds a NUL.
    Nul,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BufferFull => "the devicetree does not fit its buffer; shorten the command line",
            Self::NamesFull => "the devicetree has too many property names for this build",
            Self::Misplaced => "the devicetree's nodes are not nested",
            Self::Nul => "a name or text of the devicetree holds a NUL; remove it",
        })
    }
}

impl core::error::Error for WriteError {}

/// A devicetree in the making.
pub struct FdtWriter<'a> {
    buf: &'a mut [u8],
    /// Next free byte of `buf`.
    at: usize,
    names: [u8; MAX_NAMES_BYTES],
    names_len: usize,
    /// Where each name starts in `names`, and its length without the NUL.
    index: [(u16, u16); MAX_NAMES],
    index_len: usize,
    depth: usize,
    roots: usize,
    after_child: bool,
    error: Option<WriteError>,
}

impl fmt::Debug for FdtWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FdtWriter")
            .field("at", &self.at)
            .field("depth", &self.depth)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<'a> FdtWriter<'a> {
    /// Starts a tree with an empty reservation block at the start of `buf`.
    pub fn new(buf: &'a mut [u8]) -> Self {
        let start = HEADER_BYTES + RESERVATION_BYTES;
        let error = match buf.get_mut(..start) {
            Some(head) => {
                head.fill(0);
                None
            }
            None => Some(WriteError::BufferFull),
        };
        Self {
            buf,
            at: start,
            names: [0; MAX_NAMES_BYTES],
            names_len: 0,
            index: [(0, 0); MAX_NAMES],
            index_len: 0,
            depth: 0,
            roots: 0,
            after_child: false,
            error,
        }
    }

    /// Writes a node with everything that `inside` writes.
    pub fn node(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.begin_node(name);
        inside(self);
        self.end_node();
    }

    /// Writes a node named `name@<unit in hexadecimal>` with everything that `inside` writes.
    pub fn node_at(&mut self, name: &str, unit: u64, inside: impl FnOnce(&mut Self)) {
        self.open();
        self.text(name);
        self.put(b"@");
        self.hexadecimal(unit);
        self.put(&[0]);
        self.pad();
        inside(self);
        self.end_node();
    }

    /// Begins a node; the root has the empty name.
    #[inline(never)]
    pub fn begin_node(&mut self, name: &str) {
        self.open();
        self.text(name);
        self.put(&[0]);
        self.pad();
    }

    /// Ends the innermost node.
    #[inline(never)]
    pub fn end_node(&mut self) {
        match self.depth.checked_sub(1) {
            Some(depth) => self.depth = depth,
            None => self.fail(WriteError::Misplaced),
        }
        self.after_child = true;
        self.word(END_NODE);
    }

    /// Writes a property without a value.
    pub fn prop_empty(&mut self, name: &str) {
        self.prop_bytes(name, &[]);
    }

    /// Writes one cell.
    #[inline(never)]
    pub fn prop_u32(&mut self, name: &str, value: u32) {
        self.prop_bytes(name, &value.to_be_bytes());
    }

    /// Writes one number of two cells.
    pub fn prop_u64(&mut self, name: &str, value: u64) {
        self.prop_bytes(name, &value.to_be_bytes());
    }

    /// Writes cells.
    #[inline(never)]
    pub fn prop_cells(&mut self, name: &str, values: &[u32]) {
        self.head(name, values.len().saturating_mul(4));
        for value in values {
            self.word(*value);
        }
    }

    /// Writes numbers of two cells each.
    #[inline(never)]
    pub fn prop_u64_list(&mut self, name: &str, values: &[u64]) {
        self.head(name, values.len().saturating_mul(8));
        for value in values {
            self.put(&value.to_be_bytes());
        }
    }

    /// Writes a text.
    #[inline(never)]
    pub fn prop_str(&mut self, name: &str, value: &str) {
        self.prop_str_list(name, &[value]);
    }

    /// Writes a list of texts.
    #[inline(never)]
    pub fn prop_str_list(&mut self, name: &str, values: &[&str]) {
        let len = values.iter().fold(0_usize, |sum, value| {
            sum.saturating_add(value.len()).saturating_add(1)
        });
        self.head(name, len);
        for value in values {
            self.text(value);
            self.put(&[0]);
        }
        self.pad();
    }

    /// Writes bytes as they are.
    #[inline(never)]
    pub fn prop_bytes(&mut self, name: &str, value: &[u8]) {
        self.head(name, value.len());
        self.put(value);
        self.pad();
    }

    /// Ends the tree and returns its length in bytes.
    ///
    /// # Errors
    ///
    /// The first thing that went wrong since [`FdtWriter::new`]; the buffer then holds no tree
    /// (its first word is 0).
    pub fn finish(mut self) -> Result<usize, WriteError> {
        let structs_at = HEADER_BYTES + RESERVATION_BYTES;
        if self.depth != 0 || self.roots != 1 {
            self.fail(WriteError::Misplaced);
        }
        self.word(END);
        let strings_at = self.at;
        let names = self.names;
        if let Some(names) = names.get(..self.names_len) {
            self.put(names);
        }
        self.pad();
        let total = self.at;
        if let Some(error) = self.error {
            return Err(error);
        }
        let header = [
            MAGIC as usize,
            total,
            structs_at,
            strings_at,
            HEADER_BYTES,
            VERSION as usize,
            OLDEST_COMPATIBLE_VERSION as usize,
            0, // boot_cpuid_phys
            self.names_len,
            strings_at - structs_at,
        ];
        self.at = 0;
        for word in header {
            match u32::try_from(word) {
                Ok(word) => self.word(word),
                Err(_) => self.fail(WriteError::BufferFull),
            }
        }
        self.error.map_or(Ok(total), Err)
    }

    #[inline(never)]
    fn fail(&mut self, error: WriteError) {
        self.error.get_or_insert(error);
    }

    #[inline(never)]
    fn open(&mut self) {
        if self.depth == 0 {
            if self.roots != 0 {
                self.fail(WriteError::Misplaced);
            }
            self.roots = 1;
        }
        self.depth = self.depth.saturating_add(1);
        self.after_child = false;
        self.word(BEGIN_NODE);
    }

    #[inline(never)]
    fn head(&mut self, name: &str, len_bytes: usize) {
        if self.depth == 0 || self.after_child {
            self.fail(WriteError::Misplaced);
        }
        let Ok(len) = u32::try_from(len_bytes) else {
            return self.fail(WriteError::BufferFull);
        };
        let name_at = self.name_offset(name.as_bytes());
        self.word(PROP);
        self.word(len);
        self.word(u32::from(name_at));
    }

    /// Finds a property name among those that were used before, or adds it.
    fn name_offset(&mut self, name: &[u8]) -> u16 {
        for (start, len) in self.index.iter().take(self.index_len) {
            let start_at = usize::from(*start);
            if usize::from(*len) == name.len()
                && self.names.get(start_at..start_at + name.len()) == Some(name)
            {
                return *start;
            }
        }
        if name.contains(&0) {
            self.fail(WriteError::Nul);
        }
        let start = self.names_len;
        let end = start.saturating_add(name.len());
        let (Some(room), Some(entry)) = (
            // One byte more for the NUL, which is there already.
            self.names
                .get_mut(start..end)
                .filter(|_| end < MAX_NAMES_BYTES),
            self.index.get_mut(self.index_len),
        ) else {
            self.fail(WriteError::NamesFull);
            return 0;
        };
        room.copy_from_slice(name);
        // Both are below MAX_NAMES_BYTES.
        let narrow = |number: usize| u16::try_from(number).unwrap_or_default();
        *entry = (narrow(start), narrow(name.len()));
        self.index_len += 1;
        self.names_len = end + 1;
        narrow(start)
    }

    #[inline(never)]
    fn text(&mut self, text: &str) {
        if text.as_bytes().contains(&0) {
            self.fail(WriteError::Nul);
        }
        self.put(text.as_bytes());
    }

    fn hexadecimal(&mut self, number: u64) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let shown = (64 - number.leading_zeros()).div_ceil(4).max(1);
        for place in (0..shown).rev() {
            let digit = usize::from((number >> (place * 4)) as u8 & 0xf);
            self.put(DIGITS.get(digit..=digit).unwrap_or_default());
        }
    }

    #[inline(never)]
    fn word(&mut self, word: u32) {
        // Half of all that is put: four bytes of a length that the compiler knows.
        let place = self.buf.get_mut(self.at..);
        match place.and_then(|rest| rest.first_chunk_mut()) {
            Some(room) if self.error.is_none() => {
                *room = word.to_be_bytes();
                self.at += 4;
            }
            _ => self.fail(WriteError::BufferFull),
        }
    }

    #[inline(never)]
    fn put(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        match self.buf.get_mut(self.at..end) {
            Some(room) if self.error.is_none() => {
                room.copy_from_slice(bytes);
                self.at = end;
            }
            _ => self.fail(WriteError::BufferFull),
        }
    }

    #[inline(never)]
    fn pad(&mut self) {
        while !self.at.is_multiple_of(4) && self.error.is_none() {
            self.put(&[0]);
        }
    }
}
