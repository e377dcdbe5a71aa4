// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one door to a flattened devicetree.
//!
//! This module alone knows the `fdt` crate. The crate splits a blob into its blocks; what it is
//! given has passed the header checks here first, because it adds offsets without looking, and
//! only its fallible constructor is called. Its node iterators are not used: they read each node
//! twice, end silently at their depth limit and check every name for UTF-8. On QEMU's 8 KB tree
//! that takes 121,000 instructions, half of what the whole boot may. [`Walk`] reads the tokens of
//! the structure block once, forward, bounded in nodes and depth (28,000 for the same tree), and
//! every fault in the blob becomes a [`TreeFault`].
//!
//! Words are read as aligned 32-bit loads only, since the walk runs before the MMU is on, when
//! all memory is Device memory and an unaligned load is a fault.

use core::fmt;

use fdt::Fdt;
use fdt::parsing::BigEndianU32;
use zerocopy::{FromBytes, IntoBytes};

use crate::value::Value;

/// The most nodes that a tree may have.
pub const MAX_NODES: u32 = 4096;
/// The most levels that a tree may have, the root being level 1.
pub const MAX_DEPTH: usize = 16;
/// Length of the header of version 17, in bytes.
pub const HEADER_LEN: usize = 40;
/// The largest devicetree that is read, in bytes.
pub const MAX_TREE_BYTES: u32 = 2 * 1024 * 1024;

const MAGIC: u32 = 0xd00d_feed;

/// What is wrong with a blob as such.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TreeFault {
    /// It does not start on a multiple of 8 (Devicetree Specification 5.1), or the slice does not.
    Misaligned,
    /// It is shorter than its header, or than the header says.
    Truncated,
    /// It does not start with 0xd00dfeed.
    Magic(u32),
    /// It cannot be read as version 17.
    Version(u32),
    /// The header claims more than [`MAX_TREE_BYTES`].
    TooLarge(u32),
    /// The header puts this block outside of the blob, or misaligned.
    Block(&'static str),
    /// Not a token where one must be, at this offset in the structure block.
    Token(usize),
    /// A property runs past the structure block, at this offset.
    Property(usize),
    /// A property's name lies outside of the strings block, or has no end: its offset there.
    PropertyName(usize),
    /// A property stands behind a child node, at this offset.
    PropertyAfterChild(usize),
    /// A node's name has no end, at this offset.
    NodeName(usize),
    /// The structure block ends inside a node.
    Unfinished,
    /// More than [`MAX_NODES`] nodes.
    TooManyNodes,
    /// More than [`MAX_DEPTH`] levels.
    TooDeep(usize),
}

impl fmt::Display for TreeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Misaligned => {
                f.write_str("the blob is not 8-byte aligned; load it at a multiple of 8")
            }
            Self::Truncated => {
                f.write_str("the blob is shorter than its header says; load all of it")
            }
            Self::Magic(found) => {
                write!(
                    f,
                    "magic is {found:#010x}, not 0xd00dfeed; pass a devicetree blob in x0"
                )
            }
            Self::Version(found) => {
                write!(
                    f,
                    "version {found} cannot be read as 17; compile it with a current dtc"
                )
            }
            Self::TooLarge(bytes) => {
                write!(
                    f,
                    "{bytes} bytes are claimed, at most {MAX_TREE_BYTES} are read; pack it"
                )
            }
            Self::Block(which) => {
                write!(
                    f,
                    "the {which} block lies outside of the blob; the header is damaged"
                )
            }
            Self::Token(at) => write!(
                f,
                "no token at structure offset {at:#x}; the blob is damaged"
            ),
            Self::Property(at) => {
                write!(
                    f,
                    "the property at structure offset {at:#x} runs past the block; the blob is damaged"
                )
            }
            Self::PropertyName(at) => {
                write!(
                    f,
                    "a property has its name at strings offset {at:#x}, where none is; the blob is damaged"
                )
            }
            Self::PropertyAfterChild(at) => write!(
                f,
                "a property stands behind a child node at structure offset {at:#x}; put properties first"
            ),
            Self::NodeName(at) => {
                write!(
                    f,
                    "the node name at structure offset {at:#x} has no end; the blob is damaged"
                )
            }
            Self::Unfinished => f.write_str("it ends inside a node; the blob is damaged"),
            Self::TooManyNodes => {
                write!(f, "more than {MAX_NODES} nodes; remove what is not needed")
            }
            Self::TooDeep(at) => {
                write!(
                    f,
                    "more than {MAX_DEPTH} levels at structure offset {at:#x}; flatten it"
                )
            }
        }
    }
}

/// One word of the header, or nothing past its end.
fn header_word(words: &[u32], index: usize) -> Result<u32, TreeFault> {
    words
        .get(index)
        .map(|word| u32::from_be(*word))
        .ok_or(TreeFault::Truncated)
}

/// Returns the length of the devicetree whose header is given, in bytes.
///
/// # Errors
///
/// A header that is not one, or that claims more than [`MAX_TREE_BYTES`].
pub fn blob_len(header: &[u8; HEADER_LEN]) -> Result<usize, TreeFault> {
    let mut words = header.chunks_exact(4).map(|chunk| {
        chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
    });
    let magic = words.next().ok_or(TreeFault::Truncated)?;
    if magic != MAGIC {
        return Err(TreeFault::Magic(magic));
    }
    let total = words.next().ok_or(TreeFault::Truncated)?;
    if total > MAX_TREE_BYTES {
        return Err(TreeFault::TooLarge(total));
    }
    usize::try_from(total).map_err(|_| TreeFault::TooLarge(total))
}

/// Returns how many bytes of a devicetree of `len` bytes say something, by its header: QEMU's are
/// some kilobytes in a whole megabyte. The blocks themselves are checked when they are read.
pub fn used_len(header: &[u8; HEADER_LEN], len: usize) -> usize {
    let word = |index: usize| {
        let bytes = header.get(4 * index..).and_then(<[u8]>::first_chunk);
        bytes.map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes)) as usize
    };
    let (structs, strings, reservations) = (word(2), word(3), word(4));
    // The map of reservations has no length, but an end in front of what is behind it.
    if reservations >= structs.min(strings) {
        return len;
    }
    let ends = [
        structs.saturating_add(word(9)),
        strings.saturating_add(word(8)),
    ];
    ends.into_iter().fold(HEADER_LEN, usize::max).min(len)
}

/// A devicetree whose header has been checked.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    structs: &'a [u32],
    strings: &'a [u8],
    reservations: &'a [u32],
    boot_cpu: u32,
}

/// Offset and length of a block, once both lie inside `total` bytes.
fn block(
    total: u32,
    offset: u32,
    len: u32,
    which: &'static str,
) -> Result<(usize, usize), TreeFault> {
    let end = offset.checked_add(len).ok_or(TreeFault::Block(which))?;
    if end > total || (offset as usize) < HEADER_LEN {
        return Err(TreeFault::Block(which));
    }
    Ok((offset as usize, len as usize))
}

impl<'a> Tree<'a> {
    /// Checks the header and splits the blob. `blob` may be longer than the header says.
    ///
    /// # Errors
    ///
    /// Any lie of the header.
    pub fn open(blob: &'a [u8]) -> Result<Self, TreeFault> {
        let whole = blob.len() & !3;
        let words = <[u32]>::ref_from_bytes(blob.get(..whole).ok_or(TreeFault::Truncated)?)
            .map_err(|_| TreeFault::Misaligned)?;
        let magic = header_word(words, 0)?;
        if magic != MAGIC {
            return Err(TreeFault::Magic(magic));
        }
        let total = header_word(words, 1)?;
        if total > MAX_TREE_BYTES {
            return Err(TreeFault::TooLarge(total));
        }
        if (total as usize) < HEADER_LEN || total as usize > blob.len() {
            return Err(TreeFault::Truncated);
        }
        let (version, oldest) = (header_word(words, 5)?, header_word(words, 6)?);
        if version < 17 || oldest > 17 {
            return Err(TreeFault::Version(version));
        }
        let (structs_at, structs_len) = block(
            total,
            header_word(words, 2)?,
            header_word(words, 9)?,
            "structure",
        )?;
        block(
            total,
            header_word(words, 3)?,
            header_word(words, 8)?,
            "strings",
        )?;
        let (reserve_at, _) = block(total, header_word(words, 4)?, 0, "reservation")?;
        if structs_at % 4 != 0 || structs_len % 4 != 0 {
            return Err(TreeFault::Block("structure"));
        }
        if reserve_at % 4 != 0 {
            return Err(TreeFault::Block("reservation"));
        }
        let blob = blob.get(..total as usize).ok_or(TreeFault::Truncated)?;
        let fdt = Fdt::new_unaligned_fallible(blob).map_err(|_| TreeFault::Block("structure"))?;
        let structs = <[u32]>::ref_from_bytes(fdt.structs_block())
            .map_err(|_| TreeFault::Block("structure"))?;
        Ok(Self {
            structs,
            strings: fdt.strings_block(),
            reservations: words
                .get(reserve_at / 4..total as usize / 4)
                .ok_or(TreeFault::Block("reservation"))?,
            boot_cpu: fdt.header().boot_cpuid,
        })
    }

    /// Returns the `boot_cpuid_phys` of the header.
    pub const fn boot_cpu(&self) -> u32 {
        self.boot_cpu
    }

    /// Iterates over the memory reservation block: (address, length in bytes), up to its end mark.
    pub fn reservations(&self) -> impl Iterator<Item = (u64, u64)> + 'a {
        let pair = |high: u32, low: u32| {
            u64::from(u32::from_be(high)) << 32 | u64::from(u32::from_be(low))
        };
        self.reservations
            .chunks_exact(4)
            .map_while(move |entry| match *entry {
                [a, b, c, d] => Some((pair(a, b), pair(c, d))),
                _ => None,
            })
            .take_while(|entry| *entry != (0, 0))
    }

    /// Starts at the root node.
    pub fn walk(&self) -> Walk<'a> {
        Walk {
            structs: self.structs,
            strings: self.strings,
            at: 0,
            depth: 0,
            nodes: 0,
            properties_over: false,
            done: false,
        }
    }
}

/// What comes next in the structure block.
#[derive(Clone, Copy)]
pub enum Event<'a> {
    /// A node starts. The name is empty for the root.
    Begin(&'a [u8]),
    /// A property of the node that started last.
    Property(Name<'a>, Value<'a>),
    /// The innermost open node ends.
    End,
}

/// The name of a property, still in the strings block.
///
/// Finding its end takes longer than anything else in a walk, so that is left to those who want
/// to know; one offset is one name, which they may remember.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    strings: &'a [u8],
    offset: usize,
}

impl<'a> Name<'a> {
    /// Returns the offset in the strings block.
    #[inline]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Returns the name.
    ///
    /// # Errors
    ///
    /// [`TreeFault::PropertyName`] when it lies outside of the block or has no end.
    pub fn bytes(&self) -> Result<&'a [u8], TreeFault> {
        let fault = TreeFault::PropertyName(self.offset);
        let rest = self.strings.get(self.offset..).ok_or(fault)?;
        let len = rest.iter().position(|byte| *byte == 0).ok_or(fault)?;
        rest.get(..len).ok_or(fault)
    }
}

/// Reads a structure block once, token by token.
#[derive(Clone, Default)]
pub struct Walk<'a> {
    structs: &'a [u32],
    strings: &'a [u8],
    /// Index of the next word.
    at: usize,
    depth: usize,
    nodes: u32,
    properties_over: bool,
    done: bool,
}

impl<'a> Walk<'a> {
    /// Returns the number of nodes that are open: 1 inside the root.
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// Returns the next property of the node that has just begun, or `None` when it has no more:
    /// then a child or its end comes next. Quicker than waiting for [`Event::Property`].
    ///
    /// # Errors
    ///
    /// The blob's fault; the walk is over then.
    #[inline(always)]
    pub fn next_property(&mut self) -> Result<Option<(Name<'a>, Value<'a>)>, TreeFault> {
        loop {
            match self
                .structs
                .get(self.at)
                .copied()
                .map(BigEndianU32::from_be)
            {
                Some(TOKEN_PROP) => self.at += 1,
                Some(TOKEN_NOP) => {
                    self.at += 1;
                    continue;
                }
                _ => return Ok(None),
            }
            return match self.property() {
                Ok(property) => Ok(Some(property)),
                Err(fault) => {
                    self.done = true;
                    Err(fault)
                }
            };
        }
    }

    /// Returns the next event, or `None` behind the root's end.
    ///
    /// # Errors
    ///
    /// The blob's fault; the walk is over then.
    pub fn next_event(&mut self) -> Result<Option<Event<'a>>, TreeFault> {
        if self.done {
            return Ok(None);
        }
        let event = self.read_event();
        if !matches!(event, Ok(Some(_))) {
            self.done = true;
        }
        event
    }

    fn read_event(&mut self) -> Result<Option<Event<'a>>, TreeFault> {
        loop {
            let token = BigEndianU32::from_be(self.word().ok_or(TreeFault::Unfinished)?);
            if token == TOKEN_PROP {
                return self
                    .property()
                    .map(|(name, value)| Some(Event::Property(name, value)));
            }
            if token == TOKEN_BEGIN {
                return self.begin().map(Some);
            }
            if token == TOKEN_END_NODE {
                self.depth = self
                    .depth
                    .checked_sub(1)
                    .ok_or(self.fault(TreeFault::Token))?;
                self.properties_over = true;
                return Ok(Some(Event::End));
            }
            if token == TOKEN_END {
                return if self.depth == 0 && self.nodes > 0 {
                    Ok(None)
                } else {
                    Err(TreeFault::Unfinished)
                };
            }
            if token != TOKEN_NOP {
                return Err(self.fault(TreeFault::Token));
            }
        }
    }

    fn begin(&mut self) -> Result<Event<'a>, TreeFault> {
        if self.depth == 0 && self.nodes > 0 {
            return Err(self.fault(TreeFault::Token));
        }
        if self.depth == MAX_DEPTH {
            return Err(self.fault(TreeFault::TooDeep));
        }
        if self.nodes == MAX_NODES {
            return Err(TreeFault::TooManyNodes);
        }
        let rest = self.structs.get(self.at..).unwrap_or_default();
        let (words, len_bytes) = name_len(rest).ok_or(self.fault(TreeFault::NodeName))?;
        let name = rest.as_bytes().get(..len_bytes).unwrap_or_default();
        self.at += words;
        self.depth += 1;
        self.nodes += 1;
        self.properties_over = false;
        Ok(Event::Begin(name))
    }

    #[inline(always)]
    fn property(&mut self) -> Result<(Name<'a>, Value<'a>), TreeFault> {
        if self.depth == 0 || self.properties_over {
            return Err(self.fault(TreeFault::PropertyAfterChild));
        }
        let len = u32::from_be(self.word().ok_or(TreeFault::Unfinished)?) as usize;
        let name_at = u32::from_be(self.word().ok_or(TreeFault::Unfinished)?) as usize;
        let words = len / 4 + usize::from(!len.is_multiple_of(4));
        let end = self
            .at
            .checked_add(words)
            .ok_or(self.fault(TreeFault::Property))?;
        let value = self
            .structs
            .get(self.at..end)
            .ok_or(self.fault(TreeFault::Property))?;
        let name = Name {
            strings: self.strings,
            offset: name_at,
        };
        self.at = end;
        Ok((name, Value::new(value, len)))
    }

    #[inline]
    fn word(&mut self) -> Option<u32> {
        let word = *self.structs.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    /// Makes a fault that says where the last token stood.
    fn fault(&self, make: fn(usize) -> TreeFault) -> TreeFault {
        make(self.at.saturating_sub(1) * 4)
    }
}

const TOKEN_BEGIN: BigEndianU32 = BigEndianU32::from_ne(1);
const TOKEN_END_NODE: BigEndianU32 = BigEndianU32::from_ne(2);
const TOKEN_PROP: BigEndianU32 = BigEndianU32::from_ne(3);
const TOKEN_NOP: BigEndianU32 = BigEndianU32::from_ne(4);
const TOKEN_END: BigEndianU32 = BigEndianU32::from_ne(9);

/// Finds the word that holds the first NUL byte: the number of words up to it, itself included,
/// and the number of bytes before the NUL. `None` when there is no NUL.
#[inline]
fn name_len(words: &[u32]) -> Option<(usize, usize)> {
    const ONES: u32 = 0x0101_0101;
    const TOPS: u32 = 0x8080_8080;
    for (index, word) in words.iter().enumerate() {
        // Not zero exactly when one of the four bytes is zero; which one is seen below.
        if word.wrapping_sub(ONES) & !word & TOPS != 0 {
            let bytes = word.to_ne_bytes();
            let before = bytes.iter().take_while(|byte| **byte != 0).count();
            return Some((index + 1, index * 4 + before));
        }
    }
    None
}
