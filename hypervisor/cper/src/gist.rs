// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gist of an ordinary record, straight from where it stands.
//!
//! The SEI path has a guest waiting, and nearly every record looks alike: aligned entries of the
//! kinds that this crate knows, with lengths that agree. Such a record is read here word by word,
//! each word once at most, so that nothing has to be copied first although somebody else may be
//! writing. Whatever is not ordinary is [`Unusual`], not wrong: [`summary`](crate::summary())
//! says what it is.

use firebreak_abi::Pa;

use crate::arm::{ARM_INFO_LEN_BYTES, ARM_SECTION_LEN_BYTES};
use crate::firebreak::FIREBREAK_SECTION_LEN_BYTES;
use crate::memory::MEMORY_SECTION_MIN_LEN_BYTES;
use crate::status::{ENTRY_V2_LEN_BYTES, ENTRY_V3_LEN_BYTES, HEADER_LEN_BYTES};
use crate::{Guid, Severity};

/// The most sections of an ordinary record.
const MAX_ORDINARY_SECTIONS: usize = 4;
/// The most errors in an Arm processor section of an ordinary record.
const MAX_ORDINARY_INFOS: u32 = 2;

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

/// A status block as 32-bit words, little endian.
pub trait Words {
    /// Returns the word with this index, counted from the start of the block; `None` behind its
    /// end. It is asked for once at most.
    fn word(&self, index: usize) -> Option<u32>;
}

impl Words for &[u32] {
    #[inline]
    fn word(&self, index: usize) -> Option<u32> {
        self.get(index).copied().map(u32::from_le)
    }
}

/// Reads the gist of a block of at most `limit_bytes`.
///
/// # Errors
///
/// [`Unusual`]: copy the block and ask [`summary`](crate::summary()).
#[inline]
pub fn gist(block: &impl Words, limit_bytes: usize) -> Result<Gist, Unusual> {
    let mut reader = Reader::new(block, limit_bytes)?;
    let mut severity = Severity::from_raw(reader.word(4)?);
    for _ in 0..MAX_ORDINARY_SECTIONS {
        if reader.at == reader.end {
            break;
        }
        severity = severity.worse(reader.entry()?);
    }
    if reader.at != reader.end {
        return Err(Unusual);
    }
    Ok(Gist {
        severity,
        pa: reader.memory_pa.or(reader.arm_pa).map(Pa::new),
        iss: reader.iss,
        id: reader.id,
    })
}

struct Reader<'a, W> {
    block: &'a W,
    /// Words that are read already, and words of the block.
    at: usize,
    end: usize,
    memory_pa: Option<u64>,
    arm_pa: Option<u64>,
    iss: Option<u32>,
    id: Option<u64>,
    has_own_section: bool,
}

const fn words(bytes: usize) -> usize {
    bytes / 4
}

impl<'a, W: Words> Reader<'a, W> {
    fn new(block: &'a W, limit_bytes: usize) -> Result<Self, Unusual> {
        let word = |index| block.word(index).ok_or(Unusual);
        let (status, raw_len, data_len) = (word(0)?, word(2)?, word(3)?);
        let end = HEADER_LEN_BYTES + data_len as usize;
        let limit = limit_bytes.min(crate::MAX_BLOCK_LEN_BYTES);
        if status == 0 || raw_len != 0 || !data_len.is_multiple_of(4) || end > limit {
            return Err(Unusual);
        }
        Ok(Self {
            block,
            at: words(HEADER_LEN_BYTES),
            end: words(end),
            memory_pa: None,
            arm_pa: None,
            iss: None,
            id: None,
            has_own_section: false,
        })
    }

    // Always: a call costs more than the load.
    #[inline(always)]
    fn word(&self, index: usize) -> Result<u32, Unusual> {
        self.block.word(index).ok_or(Unusual)
    }

    fn long(&self, index: usize) -> Result<u64, Unusual> {
        Ok(u64::from(self.word(index + 1)?) << 32 | u64::from(self.word(index)?))
    }

    /// Reads the next entry. Returns its severity.
    fn entry(&mut self) -> Result<Severity, Unusual> {
        let start = self.at;
        let revision = self.word(start + 5)?;
        let header = words(match revision >> 8 & 0xff {
            2 => ENTRY_V2_LEN_BYTES,
            3 => ENTRY_V3_LEN_BYTES,
            _ => return Err(Unusual),
        });
        let len_bytes = self.word(start + 6)? as usize;
        let payload = start + header;
        let end = payload + words(len_bytes);
        if !len_bytes.is_multiple_of(4) || end > self.end {
            return Err(Unusual);
        }
        self.at = end;
        let kind = [
            self.word(start)?,
            self.word(start + 1)?,
            self.word(start + 2)?,
            self.word(start + 3)?,
        ];
        const MEMORY: [u32; 4] = Guid::MEMORY.words();
        const ARM_PROCESSOR: [u32; 4] = Guid::ARM_PROCESSOR.words();
        const FIREBREAK: [u32; 4] = Guid::FIREBREAK.words();
        match kind {
            MEMORY => self.memory(payload, len_bytes)?,
            ARM_PROCESSOR => self.arm(payload, len_bytes)?,
            FIREBREAK => self.own(payload, len_bytes)?,
            _ => {}
        }
        Ok(Severity::from_raw(self.word(start + 4)?))
    }

    fn memory(&mut self, at: usize, len_bytes: usize) -> Result<(), Unusual> {
        const VALID_PA: u32 = 1 << 1;
        if len_bytes < MEMORY_SECTION_MIN_LEN_BYTES {
            return Err(Unusual);
        }
        if self.word(at)? & VALID_PA != 0 {
            let pa = self.long(at + 4)?;
            self.note_page(pa)?;
            self.memory_pa = self.memory_pa.or(Some(pa));
        }
        Ok(())
    }

    fn arm(&mut self, at: usize, len_bytes: usize) -> Result<(), Unusual> {
        const VALID_PA: u32 = 1 << 4;
        let infos = self.word(at + 1)? & 0xffff;
        let section_len = self.word(at + 2)? as usize;
        let infos_end = ARM_SECTION_LEN_BYTES + infos as usize * ARM_INFO_LEN_BYTES;
        if infos > MAX_ORDINARY_INFOS || section_len > len_bytes || infos_end > section_len {
            return Err(Unusual);
        }
        let mut info = at + words(ARM_SECTION_LEN_BYTES);
        for _ in 0..infos {
            // Version \[7:0\], length \[15:8\], validation bits \[31:16\].
            let head = self.word(info)?;
            if head >> 8 & 0xff != ARM_INFO_LEN_BYTES as u32 {
                return Err(Unusual);
            }
            if head >> 16 & VALID_PA != 0 {
                let pa = self.long(info + 6)?;
                self.note_page(pa)?;
                self.arm_pa = self.arm_pa.or(Some(pa));
            }
            info += words(ARM_INFO_LEN_BYTES);
        }
        Ok(())
    }

    fn own(&mut self, at: usize, len_bytes: usize) -> Result<(), Unusual> {
        const VALID_ISS: u32 = 1 << 0;
        const VALID_ID: u32 = 1 << 1;
        let head = self.word(at)?;
        let own_len = (head >> 16) as usize;
        let is_sound = head & 0xffff != 0
            && own_len >= FIREBREAK_SECTION_LEN_BYTES
            && own_len <= len_bytes
            && self.word(at + 11)? & 0xff <= 1;
        if !is_sound || self.has_own_section {
            return Err(Unusual);
        }
        self.has_own_section = true;
        let valid = self.word(at + 1)?;
        if valid & VALID_ISS != 0 {
            self.iss = Some(self.word(at + 3)?);
        }
        if valid & VALID_ID != 0 {
            self.id = Some(self.long(at + 8)?);
        }
        Ok(())
    }

    /// A record that names two pages is for the thorough reader.
    fn note_page(&self, pa: u64) -> Result<(), Unusual> {
        match self.memory_pa.or(self.arm_pa) {
            Some(known) if Pa::new(known).page() != Pa::new(pa).page() => Err(Unusual),
            _ => Ok(()),
        }
    }
}
