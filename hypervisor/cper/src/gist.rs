// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gist of an ordinary record, straight from where it stands.
//!
//! The SEI path has a guest waiting, and nearly every record looks alike: entries of revision 3 of
//! the kinds that this crate knows, each once at most, in the order of its writer and with one
//! severity for all, and lengths that agree. Such a record is read here word by word, each word
//! once at most, so that nothing has to be copied first although somebody else may be writing.
//! Whatever is not ordinary is [`Unusual`], not wrong: [`summary`](crate::summary()) says what it
//! is.

use core::sync::atomic::{AtomicU32, Ordering};

use firebreak_abi::Pa;

use crate::arm::{ARM_INFO_LEN_BYTES, ARM_SECTION_LEN_BYTES};
use crate::firebreak::{FIREBREAK_SECTION_LEN_BYTES, VERSION};
use crate::memory::MEMORY_SECTION_MIN_LEN_BYTES;
use crate::status::{ENTRY_V3_LEN_BYTES, HEADER_LEN_BYTES};
use crate::{Guid, MAX_BLOCK_LEN_BYTES, Severity};

/// What triage asks of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gist {
    /// The worst severity of the block and its sections.
    pub severity: Severity,
    /// The physical address that a memory section names; if none does, an Arm processor section.
    pub pa: Option<Pa>,
    /// Syndrome, from a Firebreak section.
    pub iss: Option<u32>,
    /// Number of the error, from a Firebreak section.
    pub id: Option<u64>,
}

/// The record is empty, damaged, or just not of the ordinary kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unusual;

/// A word of a status block, little endian. Somebody else may be writing it.
pub trait Word {
    /// Reads it. It is asked for once at most.
    fn read(&self) -> u32;
}

impl Word for AtomicU32 {
    #[inline]
    fn read(&self) -> u32 {
        u32::from_le(self.load(Ordering::Relaxed))
    }
}

impl Word for u32 {
    #[inline]
    fn read(&self) -> u32 {
        Self::from_le(*self)
    }
}

/// Reads the gist of a block where it stands.
///
/// # Errors
///
/// [`Unusual`]: copy the block and ask [`summary`](crate::summary()).
#[inline(never)]
pub fn gist(block: &[AtomicU32]) -> Result<Gist, Unusual> {
    gist_of(block)
}

/// The same for other memory than that which the firmware shares.
///
/// # Errors
///
/// As [`gist`].
#[inline]
pub fn gist_of<W: Word>(block: &[W]) -> Result<Gist, Unusual> {
    let ([status, _, raw_len, data_len, severity], rest) =
        block.split_first_chunk().ok_or(Unusual)?;
    let data_len = data_len.read() as usize;
    let is_sound = status.read() != 0
        && raw_len.read() == 0
        && data_len.is_multiple_of(4)
        && data_len <= MAX_BLOCK_LEN_BYTES - HEADER_LEN_BYTES;
    if !is_sound {
        return Err(Unusual);
    }
    let rest = rest.get(..words(data_len)).ok_or(Unusual)?;
    let mut entries = Entries {
        first: first(rest),
        rest,
        severity: severity.read(),
    };
    let memory_pa = match entries.next(&MEMORY)? {
        Some(payload) => memory(payload)?,
        None => None,
    };
    let arm_pa = match entries.next(&ARM_PROCESSOR)? {
        Some(payload) => arm(payload)?,
        None => None,
    };
    let own = match entries.next(&FIREBREAK)? {
        Some(payload) => own(payload)?,
        None => Own::default(),
    };
    if !entries.rest.is_empty() {
        return Err(Unusual);
    }
    Ok(Gist {
        severity: Severity::from_raw(entries.severity),
        pa: one_page(memory_pa, arm_pa)?.map(Pa::new),
        iss: own.iss,
        id: own.id,
    })
}

const MEMORY: [u32; 4] = Guid::MEMORY.words();
const ARM_PROCESSOR: [u32; 4] = Guid::ARM_PROCESSOR.words();
const FIREBREAK: [u32; 4] = Guid::FIREBREAK.words();

const fn words(bytes: usize) -> usize {
    bytes / 4
}

/// The first word of an entry tells the kinds apart; 0, which none begins with, behind the last.
fn first<W: Word>(rest: &[W]) -> u32 {
    rest.first().map_or(0, Word::read)
}

fn long<W: Word>(low: &W, high: &W) -> u64 {
    u64::from(high.read()) << 32 | u64::from(low.read())
}

/// The entries that are not read yet.
struct Entries<'a, W> {
    rest: &'a [W],
    /// The first word of `rest`, which is read already.
    first: u32,
    /// The severity of the block, which that of each entry is.
    severity: u32,
}

impl<'a, W: Word> Entries<'a, W> {
    /// Returns the payload of the entry in front, if it is of this kind.
    // Always: the kind is then a number in the instructions.
    #[inline(always)]
    fn next(&mut self, kind: &[u32; 4]) -> Result<Option<&'a [W]>, Unusual> {
        const REVISION_3: u32 = 3;
        if self.first != kind[0] {
            return Ok(None);
        }
        let (header, rest) = self
            .rest
            .split_first_chunk::<{ words(ENTRY_V3_LEN_BYTES) }>()
            .ok_or(Unusual)?;
        let [_, two, three, four, severity, revision, len, ..] = header;
        let len_bytes = len.read() as usize;
        let is_ordinary = revision.read() >> 8 & 0xff == REVISION_3
            && severity.read() == self.severity
            && two.read() == kind[1]
            && three.read() == kind[2]
            && four.read() == kind[3]
            && len_bytes.is_multiple_of(4);
        if !is_ordinary {
            return Err(Unusual);
        }
        let (payload, rest) = rest.split_at_checked(words(len_bytes)).ok_or(Unusual)?;
        self.rest = rest;
        self.first = first(rest);
        Ok(Some(payload))
    }
}

/// Returns the address that a memory section names.
#[inline(always)]
fn memory<W: Word>(payload: &[W]) -> Result<Option<u64>, Unusual> {
    const VALID_PA: u32 = 1 << 1;
    let [valid, _, _, _, pa_low, pa_high] = payload.first_chunk().ok_or(Unusual)?;
    if payload.len() < MEMORY_SECTION_MIN_LEN_BYTES.div_ceil(4) {
        return Err(Unusual);
    }
    Ok((valid.read() & VALID_PA != 0).then(|| long(pa_low, pa_high)))
}

/// Returns the address that an Arm processor section with one error names.
#[inline(always)]
fn arm<W: Word>(payload: &[W]) -> Result<Option<u64>, Unusual> {
    const VALID_PA: u32 = 1 << 4;
    const ONE_LEN_BYTES: usize = ARM_SECTION_LEN_BYTES + ARM_INFO_LEN_BYTES;
    let (header, infos) = payload
        .split_first_chunk::<{ words(ARM_SECTION_LEN_BYTES) }>()
        .ok_or(Unusual)?;
    let info: &[W; words(ARM_INFO_LEN_BYTES)] = infos.first_chunk().ok_or(Unusual)?;
    let [_, counts, section_len, ..] = header;
    // Version \[7:0\], length \[15:8\], validation bits \[31:16\].
    let [head, _, _, _, _, _, pa_low, pa_high] = info;
    let section_len = section_len.read() as usize;
    let head = head.read();
    let is_ordinary = counts.read() & 0xffff == 1
        && section_len >= ONE_LEN_BYTES
        && section_len.div_ceil(4) <= payload.len()
        && head >> 8 & 0xff == ARM_INFO_LEN_BYTES as u32;
    if !is_ordinary {
        return Err(Unusual);
    }
    Ok((head >> 16 & VALID_PA != 0).then(|| long(pa_low, pa_high)))
}

/// What a Firebreak section says.
#[derive(Clone, Copy, Default)]
struct Own {
    iss: Option<u32>,
    id: Option<u64>,
}

/// Reads a Firebreak section of this version.
#[inline(always)]
fn own<W: Word>(payload: &[W]) -> Result<Own, Unusual> {
    const HEAD: u32 = (FIREBREAK_SECTION_LEN_BYTES as u32) << 16 | VERSION as u32;
    const VALID_ISS: u32 = 1 << 0;
    const VALID_ID: u32 = 1 << 1;
    let section: &[W; words(FIREBREAK_SECTION_LEN_BYTES)] = payload.first_chunk().ok_or(Unusual)?;
    let [head, valid, _, iss, _, _, _, _, id_low, id_high, _, who, ..] = section;
    let is_ordinary = head.read() == HEAD && who.read() & 0xff <= 1;
    if !is_ordinary {
        return Err(Unusual);
    }
    let valid = valid.read();
    Ok(Own {
        iss: (valid & VALID_ISS != 0).then(|| iss.read()),
        id: (valid & VALID_ID != 0).then(|| long(id_low, id_high)),
    })
}

/// Returns the first of two addresses that there is. A record that names two pages is for the
/// thorough reader.
fn one_page(one: Option<u64>, other: Option<u64>) -> Result<Option<u64>, Unusual> {
    match (one, other) {
        (Some(one), Some(other)) if Pa::new(one).page() != Pa::new(other).page() => Err(Unusual),
        (one, other) => Ok(one.or(other)),
    }
}
