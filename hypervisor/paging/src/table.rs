// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of table building and walking that stage 1 and stage 2 share.
//!
//! A *root* is one table, or up to 16 concatenated ones (stage 2 only). Below it every
//! table is one page of 512 descriptors.

use firebreak_abi::{PAGE_SIZE_BYTES, Pa};

use crate::descriptor::{ADDRESS, TABLE_OR_PAGE, VALID};
use crate::{Frames, PagingError};

/// Descriptors of one table.
pub(crate) const ENTRIES: u64 = 512;
/// The level of pages.
pub(crate) const LAST_LEVEL: u8 = 3;

/// Where the walk starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Root {
    /// First table.
    pub(crate) table: Pa,
    /// Level of the first lookup, 0 to 2.
    pub(crate) level: u8,
    /// Bits of an input address.
    pub(crate) input_bits: u8,
    /// Bits of an output address.
    pub(crate) output_bits: u8,
}

/// A leaf (block or page) as a walk found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    /// Table page that holds it.
    pub(crate) table: Pa,
    /// Its index there, 0 to 511.
    pub(crate) index: usize,
    /// Its level.
    pub(crate) level: u8,
    /// The descriptor.
    pub(crate) descriptor: u64,
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Walk {
    /// At a block or page.
    Leaf(Leaf),
    /// At an invalid descriptor.
    Hole { table: Pa, index: usize, level: u8 },
}

/// What is left to map.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) left_bytes: u64,
}

impl Span {
    fn advance(&mut self, bytes: u64) {
        self.input += bytes;
        self.output += bytes;
        self.left_bytes -= bytes;
    }
}

/// Returns the number of input bits below the index of a level: 39, 30, 21, 12.
pub(crate) const fn shift(level: u8) -> u32 {
    (39_u32).saturating_sub(9 * level as u32)
}

/// Returns the bytes that one descriptor of a level covers.
pub(crate) const fn entry_bytes(level: u8) -> u64 {
    1 << shift(level)
}

/// Returns the index of an input address in its table of a level.
const fn index_of(input: u64, level: u8) -> usize {
    ((input >> shift(level)) & (ENTRIES - 1)) as usize
}

/// Returns the page of the (perhaps concatenated) root that an input address selects.
fn root_page(root: Root, input: u64) -> Pa {
    let number = input >> (shift(root.level) + 9);
    Pa::new(root.table.get() + number * PAGE_SIZE_BYTES)
}

const fn leaf(output: u64, level: u8, bits: u64) -> u64 {
    let kind = if level == LAST_LEVEL {
        VALID | TABLE_OR_PAGE
    } else {
        VALID
    };
    output | bits | kind
}

const fn is_table(descriptor: u64, level: u8) -> bool {
    level < LAST_LEVEL && descriptor & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE
}

/// Makes the descriptor that leads to a table.
pub(crate) const fn table_descriptor(table: Pa) -> u64 {
    table.get() | VALID | TABLE_OR_PAGE
}

/// Refuses what no table can express, before anything is written.
pub(crate) fn check(root: Root, span: Span) -> Result<(), PagingError> {
    let Span {
        input,
        output,
        left_bytes: len_bytes,
    } = span;
    if len_bytes == 0 {
        return Err(PagingError::Empty { input });
    }
    if (input | output | len_bytes) & (PAGE_SIZE_BYTES - 1) != 0 {
        return Err(PagingError::Misaligned {
            input,
            output,
            len_bytes,
        });
    }
    let fits = |start: u64, bits: u8| {
        start
            .checked_add(len_bytes - 1)
            .is_some_and(|last| last >> bits == 0)
    };
    if !fits(input, root.input_bits) {
        return Err(PagingError::InputTooHigh {
            input,
            len_bytes,
            input_bits: root.input_bits,
        });
    }
    if !fits(output, root.output_bits) {
        let output_bits = root.output_bits;
        return Err(PagingError::OutputTooHigh {
            output,
            len_bytes,
            output_bits,
        });
    }
    Ok(())
}

/// Maps a checked span with the largest leaves that fit.
pub(crate) fn map<F: Frames + ?Sized>(
    frames: &mut F,
    root: Root,
    mut span: Span,
    bits: u64,
) -> Result<(), PagingError> {
    check(root, span)?;
    while span.left_bytes > 0 {
        let page = root_page(root, span.input);
        fill(frames, page, root.level, &mut span, bits)?;
    }
    Ok(())
}

/// Maps as much of the span as one table covers. Recurses at most three times.
fn fill<F: Frames + ?Sized>(
    frames: &mut F,
    table: Pa,
    level: u8,
    span: &mut Span,
    bits: u64,
) -> Result<(), PagingError> {
    let size = entry_bytes(level);
    let mut index = index_of(span.input, level);
    while span.left_bytes > 0 && index < ENTRIES as usize {
        let aligned = (span.input | span.output) & (size - 1) == 0;
        if level > 0 && aligned && span.left_bytes >= size {
            let room = ENTRIES - index as u64;
            let count = room.min(span.left_bytes >> shift(level));
            let run = Run {
                table,
                index,
                level,
                count,
            };
            fill_run(frames, run, *span, bits)?;
            span.advance(count << shift(level));
            index += count as usize;
        } else {
            let child = child_table(frames, table, index, level, span.input)?;
            fill(frames, child, level + 1, span, bits)?;
            index += 1;
        }
    }
    Ok(())
}

/// Neighbouring descriptors of one table.
struct Run {
    table: Pa,
    index: usize,
    level: u8,
    count: u64,
}

/// Writes leaves side by side: the loop in which nearly all time of a boot map is spent.
#[inline]
fn fill_run<F: Frames + ?Sized>(
    frames: &mut F,
    run: Run,
    span: Span,
    bits: u64,
) -> Result<(), PagingError> {
    let size = entry_bytes(run.level);
    let mut descriptor = leaf(span.output, run.level, bits);
    for index in run.index..run.index + run.count as usize {
        let existing = frames.read(run.table, index);
        if existing & VALID != 0 {
            let input = span.input + (index - run.index) as u64 * size;
            return Err(overlap(frames, existing, run.level, input));
        }
        frames.write(run.table, index, descriptor);
        descriptor = descriptor.wrapping_add(size);
    }
    Ok(())
}

/// Names the first mapped page at or behind `input`, below a valid descriptor.
#[cold]
fn overlap<F: Frames + ?Sized>(
    frames: &F,
    mut existing: u64,
    level: u8,
    input: u64,
) -> PagingError {
    let mut input = input;
    let mut level = level;
    while is_table(existing, level) {
        let table = Pa::new(existing & ADDRESS);
        level += 1;
        let first = index_of(input, level);
        let found = (first..ENTRIES as usize)
            .map(|index| (index, frames.read(table, index)))
            .find(|(_, descriptor)| descriptor & VALID != 0);
        // A table with nothing valid in it cannot be replaced by a block either.
        let Some((index, descriptor)) = found else {
            return PagingError::Overlap {
                input,
                existing: table,
            };
        };
        input += (index - first) as u64 * entry_bytes(level);
        existing = descriptor;
    }
    PagingError::Overlap {
        input,
        existing: output(existing, level, input),
    }
}

/// Returns where a leaf leads an input address.
pub(crate) fn output(descriptor: u64, level: u8, input: u64) -> Pa {
    let offset = entry_bytes(level) - 1;
    Pa::new((descriptor & ADDRESS & !offset) | (input & offset))
}

/// Returns the table below a descriptor, made when there is none.
fn child_table<F: Frames + ?Sized>(
    frames: &mut F,
    table: Pa,
    index: usize,
    level: u8,
    input: u64,
) -> Result<Pa, PagingError> {
    let existing = frames.read(table, index);
    if is_table(existing, level) {
        return Ok(Pa::new(existing & ADDRESS));
    }
    if existing & VALID != 0 {
        return Err(overlap(frames, existing, level, input));
    }
    let child = frames
        .alloc_zeroed(1)
        .ok_or(PagingError::OutOfFrames { input, pages: 1 })?;
    frames.write(table, index, table_descriptor(child));
    Ok(child)
}

/// Walks to the leaf or hole of an input address; `None` outside the input space.
pub(crate) fn walk<F: Frames + ?Sized>(frames: &F, root: Root, input: u64) -> Option<Walk> {
    if input >> root.input_bits != 0 {
        return None;
    }
    let mut table = root_page(root, input);
    let mut level = root.level;
    loop {
        let index = index_of(input, level);
        let descriptor = frames.read(table, index);
        if descriptor & VALID == 0 {
            return Some(Walk::Hole {
                table,
                index,
                level,
            });
        }
        if !is_table(descriptor, level) {
            return Some(Walk::Leaf(Leaf {
                table,
                index,
                level,
                descriptor,
            }));
        }
        table = Pa::new(descriptor & ADDRESS);
        level += 1;
    }
}

/// Fills fresh tables, one below the other in `tables`, so that together they map what the leaf
/// above them mapped, but for the page of `input`, which gets `page`.
///
/// `level` is that of the first fresh table; `outside` makes the descriptor for an entry beside
/// the path. Nobody walks these tables yet.
pub(crate) fn fill_path<F: Frames + ?Sized>(
    frames: &mut F,
    first_table: Pa,
    level: u8,
    input: u64,
    page: u64,
    beside: impl Fn(u64, u8) -> u64,
) {
    let mut table = first_table;
    for level in level..=LAST_LEVEL {
        let on_path = index_of(input, level);
        let covered = input & !(entry_bytes(level) * ENTRIES - 1);
        for index in 0..ENTRIES as usize {
            let descriptor = if index != on_path {
                beside(covered + index as u64 * entry_bytes(level), level)
            } else if level == LAST_LEVEL {
                page
            } else {
                table_descriptor(Pa::new(table.get() + PAGE_SIZE_BYTES))
            };
            frames.write(table, index, descriptor);
        }
        table = Pa::new(table.get() + PAGE_SIZE_BYTES);
    }
}

/// Makes the leaf at `level` that maps `input` to `output` as `like` would.
pub(crate) fn leaf_like(like: u64, output: u64, level: u8) -> u64 {
    leaf(output, level, like & !(ADDRESS | VALID | TABLE_OR_PAGE))
}

/// Makes a page descriptor.
pub(crate) const fn page(output: u64, bits: u64) -> u64 {
    leaf(output, LAST_LEVEL, bits)
}
