// SPDX-License-Identifier: MIT OR Apache-2.0
//! The firmware's records, as EL2 reads and acknowledges them.
//!
//! The firmware shares the memory, so each word is read once, into a copy, and only the copy is
//! believed. Nothing here locks or allocates, and each loop has a constant bound: the SEI path
//! runs it.

use crate::system::System;
use core::sync::atomic::{AtomicU64, Ordering};
use firebreak_abi::{Pa, PaRange, sei};
use firebreak_arch::sysreg;
use firebreak_cper as cper;
use firebreak_manifest::Source;
use zerocopy::IntoBytes;

/// Bytes of a record that are copied at most: what the reference firmware writes is below 512.
const MAX_RECORD_BYTES: usize = 1024;

/// A private copy. Only what was copied is initialized: clearing the whole of it first would cost
/// an SEI more than reading the record does.
type Copy = heapless::Vec<u64, { MAX_RECORD_BYTES / 8 }>;

/// What the SEI path wants of a record.
pub(crate) struct Read {
    /// The worst severity; `None` when not even the header could be read.
    pub(crate) severity: Option<cper::Severity>,
    /// Physical address of the error.
    pub(crate) pa: Option<Pa>,
    /// Syndrome that the firmware saw.
    pub(crate) iss: Option<u32>,
    /// The firmware's number of the error.
    pub(crate) id: Option<u64>,
}

/// What stands in a source's block.
pub(crate) enum Reading {
    /// No record: what there was is acknowledged, or there is no source.
    None,
    /// A record; `None` for one that cannot be believed at all.
    Record(Option<Read>),
    /// The firmware wrote again meanwhile: what was read is half one record and half another, and
    /// what stands there now has not been looked at.
    Torn,
}

/// Reads the record of a source, if it has one that is not acknowledged yet.
pub(crate) fn read(system: &System, source: &Source) -> Reading {
    if is_acknowledged(source) {
        return Reading::None;
    }
    let region = system.sei.as_ref().map(|sei| sei.region);
    let Some((block, limit)) = region.and_then(|region| block_of(region, source)) else {
        return Reading::Record(None);
    };
    let status = read_half_word(block);
    let read = read_block(block, limit);
    // Whoever writes there again without having been acknowledged sets the pending word, or
    // interrupts this with an SEI that acknowledges what it found, or is at it right now: the
    // status is 0 until the rest stands.
    let changed = read_half_word(block) != status
        || read_word(source.pending) != 0
        || is_acknowledged(source);
    if changed {
        Reading::Torn
    } else {
        Reading::Record(read)
    }
}

/// Says whether the block is the firmware's to write.
pub(crate) fn is_acknowledged(source: &Source) -> bool {
    read_word(source.read_ack) == sei::source::ACKED
}

/// Reads an ordinary record where it stands, any other one from a copy whose header is read once,
/// and then as many bytes as that said, checked against both sides' limits.
fn read_block(block: Pa, limit: usize) -> Option<Read> {
    if let Ok(gist) = cper::gist(&InPlace { block, limit }, limit) {
        return Some(Read {
            severity: Some(gist.severity),
            pa: gist.pa,
            iss: gist.iss,
            id: gist.id,
        });
    }
    summarize(block, limit).map(|summary| Read {
        severity: summary.severity,
        pa: summary.pa,
        iss: summary.iss,
        id: summary.info.and_then(|info| info.id),
    })
}

/// A status block in memory that the firmware may be writing.
struct InPlace {
    block: Pa,
    limit: usize,
}

impl cper::Words for InPlace {
    #[inline(always)]
    fn word(&self, index: usize) -> Option<u32> {
        (index < self.limit / 4).then(|| {
            let offset = (index as u64).wrapping_mul(4);
            read_half_word(Pa::new(self.block.get().wrapping_add(offset)))
        })
    }
}

/// Copies and summarizes a status block of at most `limit` bytes, which are EL2's to read.
#[inline(never)]
fn summarize(block: Pa, limit: usize) -> Option<cper::Summary> {
    let mut copy = Copy::new();
    copy_until(&mut copy, block, cper::HEADER_LEN_BYTES)?;
    let len = cper::header_len(copy.as_bytes().first_chunk()?, limit).ok()?;
    copy_until(&mut copy, block, len)?;
    Some(cper::summary(copy.as_bytes().get(..len)?))
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
pub(crate) fn acknowledge(system: &System, source: &Source) {
    if read_word(source.pending) != 0 {
        return;
    }
    if let Some((block, _)) = system
        .sei
        .as_ref()
        .and_then(|sei| block_of(sei.region, source))
    {
        write_half_word(block, 0);
    }
    sysreg::dsb_sy();
    write_word(source.read_ack, sei::source::ACKED);
    sysreg::dsb_sy();
}

/// Where the status block is, and how many of its bytes may be read.
fn block_of(region: PaRange, source: &Source) -> Option<(Pa, usize)> {
    let block = Pa::new(read_word(source.error_status_address));
    let limit = (source.error_status_length as usize).min(MAX_RECORD_BYTES);
    let end = block.checked_add(limit as u64)?;
    (block.is_aligned(8) && region.contains(block) && end <= region.end()).then_some((block, limit))
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

/// Marks a status block empty.
pub(crate) fn clear_block(block: Pa) {
    write_half_word(block, 0);
    sysreg::dsb_sy();
}
