// SPDX-License-Identifier: MIT OR Apache-2.0
//! The firmware's records, as EL2 reads and acknowledges them.
//!
//! The firmware shares the memory, so each word is read once, into a copy, and only the copy is
//! believed. Nothing here locks or allocates, and each loop has a constant bound: the SEI path
//! runs it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use firebreak_abi::{Pa, PaRange, sei};
use firebreak_arch::{cache, sysreg};
use firebreak_cper as cper;
use firebreak_manifest::Source;
use firebreak_syndrome::CperSeverity;
use firebreak_triage::RecordSummary;
use zerocopy::IntoBytes;

/// Bytes of a record that are copied at most: what the reference firmware writes is below 512.
const MAX_RECORD_BYTES: usize = 1024;

/// A private copy. Only what was copied is initialized: clearing the whole of it first would cost
/// an SEI more than reading the record does.
type Copy = heapless::Vec<u64, { MAX_RECORD_BYTES / 8 }>;

/// The error source of a PE.
#[derive(Clone, core::marker::Copy)]
pub(crate) struct ErrorSource {
    /// What the devicetree says. The words are aligned and lie in the region that the firmware
    /// shares.
    pub(crate) words: Source,
    /// How many bytes of a status block are read at most.
    limit_bytes: usize,
    /// Where in the region a block of that length may begin.
    blocks: PaRange,
}

impl ErrorSource {
    /// Checks where the words of a source stand.
    pub(crate) fn new(words: Source, region: PaRange) -> Option<Self> {
        let all = [
            words.error_status_address,
            words.read_ack,
            words.pending,
            words.syndrome,
        ];
        let limit_bytes = (words.error_status_length as usize).min(MAX_RECORD_BYTES);
        // In a region that is too short for a block there is no place for one.
        let room = (region.len_bytes + 1).saturating_sub(limit_bytes.max(4) as u64);
        all.iter()
            .all(|word| word.is_aligned(8) && region.contains(*word))
            .then_some(Self {
                words,
                limit_bytes,
                blocks: PaRange::new(region.start.get(), room),
            })
    }
}

/// What the SEI path wants of a record.
#[derive(Clone, core::marker::Copy)]
pub(crate) struct Read {
    /// What triage looks at; `None` when not even the header could be read.
    pub(crate) record: Option<RecordSummary>,
    /// Syndrome that the firmware saw.
    pub(crate) iss: Option<u32>,
    /// The firmware's number of the error.
    pub(crate) id: Option<u64>,
}

impl Read {
    /// A record that cannot be believed at all.
    const NOTHING: Self = Self {
        record: None,
        iss: None,
        id: None,
    };

    #[inline(always)]
    fn new(severity: cper::Severity, pa: Option<Pa>, iss: Option<u32>, id: Option<u64>) -> Self {
        let severity = CperSeverity::from_raw(severity.raw());
        Self {
            record: Some(RecordSummary { severity, pa }),
            iss,
            id,
        }
    }
}

/// Reads the record of a source, which was not acknowledged a moment ago, and says where it stands
/// if that can be believed.
///
/// `None`: it is acknowledged by now, or the firmware wrote again meanwhile. What was read is then
/// half one record and half another, and what stands there now has not been looked at.
#[inline(always)]
pub(crate) fn read(source: &ErrorSource) -> Option<(Read, Option<Pa>)> {
    // The firmware may publish from another PE. Its read-ack word was read before this: nothing of
    // the record is read earlier; and nothing of the second look before the record.
    fence(Ordering::Acquire);
    let Some((block, limit)) = block_of(source) else {
        return (!is_acknowledged(source)).then_some((Read::NOTHING, None));
    };
    let status = read_half_word(block);
    let read = read_block(block, limit);
    // Whoever writes there again without having been acknowledged sets the pending word, or
    // interrupts this with an SEI that acknowledges what it found, or is at it right now: the
    // status is 0 until the rest stands.
    fence(Ordering::Acquire);
    let changed = read_half_word(block) != status
        || read_word(source.words.pending) != 0
        || is_acknowledged(source);
    (!changed).then_some((read, Some(block)))
}

/// The syndrome in the record of a source; `None` when there is no whole record.
#[cold]
#[inline(never)]
pub(crate) fn recorded_syndrome(source: &ErrorSource) -> Option<Option<u32>> {
    read(source).map(|(read, _)| read.iss)
}

/// Says whether the block is the firmware's to write.
#[inline]
pub(crate) fn is_acknowledged(source: &ErrorSource) -> bool {
    read_word(source.words.read_ack) == sei::source::ACKED
}

/// Reads an ordinary record where it stands, any other one from a copy whose header is read once,
/// and then as many bytes as that said, checked against both sides' limits.
#[inline(always)]
fn read_block(block: Pa, limit: usize) -> Read {
    match cper::gist(words_of(block, limit)) {
        Ok(gist) => Read::new(gist.severity, gist.pa, gist.iss, gist.id),
        Err(cper::Unusual) => summarize(block, limit).unwrap_or(Read::NOTHING),
    }
}

/// A block in memory that the firmware may be writing.
fn words_of(block: Pa, limit: usize) -> &'static [AtomicU32] {
    let words = core::ptr::with_exposed_provenance(block.get() as usize);
    // SAFETY: `block_of` has checked that all of it lies, aligned, in the region that the firmware
    // shares, which stays mapped; the firmware's writes to it are no data races with atomic reads.
    unsafe { core::slice::from_raw_parts(words, limit / 4) }
}

/// Copies and summarizes a status block of at most `limit` bytes, which are EL2's to read.
#[cold]
#[inline(never)]
fn summarize(block: Pa, limit: usize) -> Option<Read> {
    let mut copy = Copy::new();
    copy_until(&mut copy, block, cper::HEADER_LEN_BYTES)?;
    let len = cper::header_len(copy.as_bytes().first_chunk()?, limit).ok()?;
    copy_until(&mut copy, block, len)?;
    let summary = cper::summary(copy.as_bytes().get(..len)?);
    let id = summary.info.and_then(|info| info.id);
    Some(match summary.severity {
        Some(severity) => Read::new(severity, summary.pa, summary.iss, id),
        None => Read {
            iss: summary.iss,
            id,
            ..Read::NOTHING
        },
    })
}

/// Copies on from where the copy ends, until it has `len` bytes at least.
fn copy_until(copy: &mut Copy, block: Pa, len: usize) -> Option<()> {
    let from = block.get().checked_add(8 * copy.len() as u64)?;
    let words = len.div_ceil(8).checked_sub(copy.len())?;
    for index in 0..words as u64 {
        copy.push(read_word(Pa::new(from.wrapping_add(8 * index))).to_le())
            .ok()?;
    }
    Some(())
}

/// Gives the block back: clears the block status, then writes the read-ack register (ACPI 6.5,
/// 18.3.2.8). The record stands in the queue by now.
///
/// Unless the pending word is set: then the firmware has written another record there, before its
/// time, and that one is taken and acknowledged in its turn.
pub(crate) fn acknowledge(source: &ErrorSource, block: Option<Pa>) {
    if read_word(source.words.pending) != 0 {
        return;
    }
    if let Some(block) = block {
        write_half_word(block, 0);
    }
    sysreg::dsb_sy();
    write_word(source.words.read_ack, sei::source::ACKED);
    sysreg::dsb_sy();
}

/// Where the status block is, and how many of its bytes may be read.
#[inline(always)]
fn block_of(source: &ErrorSource) -> Option<(Pa, usize)> {
    let block = Pa::new(read_word(source.words.error_status_address));
    // From the first place, so that one comparison says that it is inside.
    let fits = block.get().wrapping_sub(source.blocks.start.get()) < source.blocks.len_bytes;
    (block.is_aligned(8) && fits).then_some((block, source.limit_bytes))
}

/// Takes the value of a word and leaves 0.
pub(crate) fn take_word(pa: Pa) -> u64 {
    let word = core::ptr::with_exposed_provenance::<AtomicU64>(pa.get() as usize);
    // SAFETY: as in `read_word`; aligned to 8 bytes, as boot checked.
    unsafe { &*word }.swap(0, Ordering::AcqRel)
}

pub(crate) fn read_word(pa: Pa) -> u64 {
    // SAFETY: a word of the region that the firmware shares (or the constant zero word), mapped
    // at EL2; the caller checked that the address lies in it.
    unsafe { core::ptr::with_exposed_provenance::<u64>(pa.get() as usize).read_volatile() }
}

fn read_half_word(pa: Pa) -> u32 {
    // SAFETY: as in `read_word`.
    unsafe { core::ptr::with_exposed_provenance::<u32>(pa.get() as usize).read_volatile() }
}

fn write_word(pa: Pa, value: u64) {
    // SAFETY: as in `read_word`; the word is one that the contract lets EL2 write.
    unsafe {
        core::ptr::with_exposed_provenance_mut::<u64>(pa.get() as usize).write_volatile(value)
    }
}

fn write_half_word(pa: Pa, value: u32) {
    // SAFETY: as in `write_word`.
    unsafe {
        core::ptr::with_exposed_provenance_mut::<u32>(pa.get() as usize).write_volatile(value)
    }
}

/// Copies bytes that the firmware shares, once each.
pub(crate) fn copy_bytes(from: Pa, to: &mut [u8]) {
    for (index, byte) in to.iter_mut().enumerate() {
        let pointer = core::ptr::with_exposed_provenance::<u8>(from.get() as usize + index);
        // SAFETY: as in `read_word`.
        *byte = unsafe { pointer.read_volatile() };
    }
}

/// Marks a status block empty, in memory too: a reset need not write caches back.
pub(crate) fn clear_block(block: Pa) {
    write_half_word(block, 0);
    cache::clean_and_invalidate(block.get(), 4);
}
