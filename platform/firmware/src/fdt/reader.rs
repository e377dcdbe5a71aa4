// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bounded reading of a flattened devicetree.

use super::{Error, HEADER_BYTES, LAST_COMPATIBLE, MAGIC, VERSION};

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// One piece of the structure block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Item<'a> {
    /// A node starts; the name has no terminator.
    Begin(&'a [u8]),
    /// A node ends.
    End,
    /// A property of the current node.
    Property { name: &'a [u8], value: &'a [u8] },
}

/// The blocks of a tree, each cut out once and checked against the whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    structure: &'a [u8],
    /// Strings block.
    pub(super) strings: &'a [u8],
    /// Memory reservation block, up to and with its terminator.
    pub(super) reservations: &'a [u8],
    /// PE that booted.
    pub(super) boot_cpu: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(tree: &'a [u8]) -> Result<Self, Error> {
        let header = |index: usize| word(tree, index.saturating_mul(4));
        if header(0)? != MAGIC || header(5)? < VERSION || header(6)? > LAST_COMPATIBLE {
            return Err(Error::NotADevicetree);
        }
        let total = usize_of(header(1)?)?;
        let tree = tree.get(..total).ok_or(Error::Truncated)?;
        if total < HEADER_BYTES {
            return Err(Error::Truncated);
        }
        let block = |offset: u32, length: u32| {
            let start = usize_of(offset)?;
            let end = start
                .checked_add(usize_of(length)?)
                .ok_or(Error::Truncated)?;
            tree.get(start..end).ok_or(Error::Truncated)
        };
        Ok(Self {
            structure: block(header(2)?, header(9)?)?,
            strings: block(header(3)?, header(8)?)?,
            reservations: reservations(tree.get(usize_of(header(4)?)?..).ok_or(Error::Truncated)?)?,
            boot_cpu: header(7)?,
        })
    }

    /// Reads the item at `at` and returns it with the place of the next one; `None` at the end.
    pub(super) fn item(&self, mut at: usize) -> Result<Option<(Item<'a>, usize)>, Error> {
        loop {
            let token = word(self.structure, at)?;
            at = at.checked_add(4).ok_or(Error::Truncated)?;
            let (item, end) = match token {
                NOP => continue,
                END => return Ok(None),
                END_NODE => (Item::End, at),
                BEGIN_NODE => {
                    let name = c_string(self.structure, at)?;
                    (
                        Item::Begin(name),
                        at.saturating_add(name.len()).saturating_add(1),
                    )
                }
                PROP => {
                    let length = usize_of(word(self.structure, at)?)?;
                    let name = usize_of(word(self.structure, at.saturating_add(4))?)?;
                    let start = at.saturating_add(8);
                    let end = start.checked_add(length).ok_or(Error::Truncated)?;
                    let value = self.structure.get(start..end).ok_or(Error::Truncated)?;
                    (
                        Item::Property {
                            name: c_string(self.strings, name)?,
                            value,
                        },
                        end,
                    )
                }
                _ => return Err(Error::Malformed),
            };
            let next = end.checked_next_multiple_of(4).ok_or(Error::Truncated)?;
            return Ok(Some((item, next)));
        }
    }

    /// Returns the place behind the end of the node whose content starts at `at`.
    pub(super) fn skip_node(&self, mut at: usize) -> Result<usize, Error> {
        let mut depth = 1_usize;
        while let Some((item, next)) = self.item(at)? {
            at = next;
            match item {
                Item::Begin(_) => depth += 1,
                Item::End => depth -= 1,
                Item::Property { .. } => {}
            }
            if depth == 0 {
                return Ok(at);
            }
        }
        Err(Error::Malformed)
    }

    /// Returns the offset of `name` in the strings block, if `name` was cut out of it.
    pub(super) fn offset_of(&self, name: &[u8]) -> Option<u32> {
        let offset = name
            .as_ptr()
            .addr()
            .checked_sub(self.strings.as_ptr().addr())?;
        (offset < self.strings.len())
            .then(|| u32::try_from(offset).ok())
            .flatten()
    }
}

/// Cuts the reservation block behind its all-zero entry.
fn reservations(block: &[u8]) -> Result<&[u8], Error> {
    for (index, entry) in block.chunks_exact(16).enumerate() {
        if entry.iter().all(|byte| *byte == 0) {
            let end = index.saturating_add(1).saturating_mul(16);
            return block.get(..end).ok_or(Error::Truncated);
        }
    }
    Err(Error::Truncated)
}

fn word(block: &[u8], at: usize) -> Result<u32, Error> {
    let end = at.checked_add(4).ok_or(Error::Truncated)?;
    let bytes = block
        .get(at..end)
        .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    bytes.map(u32::from_be_bytes).ok_or(Error::Truncated)
}

fn c_string(block: &[u8], at: usize) -> Result<&[u8], Error> {
    let rest = block.get(at..).ok_or(Error::Truncated)?;
    let length = rest
        .iter()
        .position(|byte| *byte == 0)
        .ok_or(Error::Truncated)?;
    rest.get(..length).ok_or(Error::Truncated)
}

fn usize_of(value: u32) -> Result<usize, Error> {
    usize::try_from(value).map_err(|_| Error::Truncated)
}

/// Tokens for the writer.
pub(super) const TOKENS: Tokens = Tokens {
    begin_node: BEGIN_NODE,
    end_node: END_NODE,
    property: PROP,
    end: END,
};

/// Token values, under names.
pub(super) struct Tokens {
    pub(super) begin_node: u32,
    pub(super) end_node: u32,
    pub(super) property: u32,
    pub(super) end: u32,
}
