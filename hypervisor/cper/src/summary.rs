// SPDX-License-Identifier: MIT OR Apache-2.0
//! What triage wants to know of a record, in one bounded pass.
//!
//! Runs in the SEI context: no allocation, no formatting, at most [`crate::MAX_SECTIONS`] times
//! [`crate::MAX_ERROR_INFOS`] steps.

use firebreak_abi::{Mpidr, Pa};

use crate::bytes::{array_at, u32_at};
use crate::{
    ArmProcessor, CperError, FirebreakInfo, HEADER_LEN_BYTES, Section, SectionBody, Severity,
    StatusBlock,
};

/// The gist of a status block. Whatever could not be read is `None`, 0 or `false`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// The worst severity of the block and its sections. `None`: there is no record, or not even
    /// a header.
    pub severity: Option<Severity>,
    /// The first physical address that a memory section names; if none does, the first that an
    /// Arm processor section names.
    pub pa: Option<Pa>,
    /// The mask that came with `pa`: bits that are 1 are valid.
    pub pa_mask: Option<u64>,
    /// Whether sections name more than one 4 KiB page. Then `pa` alone is not all that is lost.
    pub more_addresses: bool,
    /// PE that found the error.
    pub mpidr: Option<Mpidr>,
    /// Syndrome, from a Firebreak section.
    pub iss: Option<u32>,
    /// Whether the error was raised on demand.
    pub simulated: bool,
    /// Where the error struck, from a Firebreak section.
    pub info: Option<FirebreakInfo>,
    /// Sections that were read.
    pub sections: u8,
    /// Of these, sections of a type that is not decoded.
    pub unknown_sections: u8,
    /// Flags of all sections together: see [`crate::entry_flags`].
    pub flags: u32,
    /// What stopped the reading, or the first section that could not be decoded.
    /// [`CperError::Empty`] never stands here: an empty block has no severity and no error.
    pub malformed: Option<CperError>,
}

impl Summary {
    /// Says whether there was no record at all: an SEI that found this is unclaimed.
    pub const fn is_empty(&self) -> bool {
        self.severity.is_none() && self.malformed.is_none()
    }

    fn note_error(&mut self, error: CperError) {
        if self.malformed.is_none() && error != CperError::Empty {
            self.malformed = Some(error);
        }
    }

    fn note_severity(&mut self, severity: Severity) {
        self.severity = Some(
            self.severity
                .map_or(severity, |known| known.worse(severity)),
        );
    }

    /// Notes a page; returns whether it is the first.
    fn note_page(&mut self, first_page: &mut Option<Pa>, pa: Pa) -> bool {
        match *first_page {
            None => {
                *first_page = Some(pa.page());
                true
            }
            Some(known) => {
                self.more_addresses |= known != pa.page();
                false
            }
        }
    }

    fn note_arm(&mut self, arm: &ArmProcessor<'_>, first_page: &mut Option<Pa>) -> Option<Pa> {
        self.mpidr = self.mpidr.or(arm.fields.mpidr);
        let mut first = None;
        for info in arm.infos() {
            match info {
                Ok(info) => {
                    if let Some(pa) = info.pa {
                        self.note_page(first_page, pa);
                        first = first.or(Some(pa));
                    }
                }
                Err(error) => self.note_error(error),
            }
        }
        first
    }
}

/// Summarizes a status block that stands in private memory.
///
/// A block that breaks off or lies is summarized as far as it can be believed, and `malformed`
/// says what is wrong: a severity that was read still counts.
pub fn summary(bytes: &[u8]) -> Summary {
    let mut summary = Summary::default();
    let block = match StatusBlock::parse(bytes) {
        Ok(block) => block,
        Err(error) => {
            summary.note_error(error);
            let header = array_at::<HEADER_LEN_BYTES>(bytes, 0);
            if error != CperError::Empty
                && let Some(severity) = header.and_then(|header| u32_at(&header, 16))
            {
                summary.note_severity(Severity::from_raw(severity));
            }
            return summary;
        }
    };
    summary.note_severity(block.severity());
    let mut first_page = None;
    let mut arm_pa = None;
    for entry in block.entries() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                summary.note_error(error);
                continue;
            }
        };
        summary.sections = summary.sections.saturating_add(1);
        summary.flags |= u32::from(entry.flags);
        summary.note_severity(entry.severity);
        match entry.section() {
            Ok(section) => {
                let named = note_section(&mut summary, &section, &mut first_page);
                arm_pa = arm_pa.or(named);
            }
            Err(error) => summary.note_error(error),
        }
    }
    summary.pa = summary.pa.or(arm_pa);
    summary
}

/// Takes over what one section says. Returns the address that an Arm section names.
fn note_section(
    summary: &mut Summary,
    section: &Section<'_>,
    first_page: &mut Option<Pa>,
) -> Option<Pa> {
    match &section.body {
        SectionBody::Memory(memory) => {
            if let Some(pa) = memory.pa {
                summary.note_page(first_page, pa);
                if summary.pa.is_none() {
                    summary.pa = Some(pa);
                    summary.pa_mask = memory.pa_mask;
                }
            }
            None
        }
        SectionBody::ArmProcessor(arm) => summary.note_arm(arm, first_page),
        SectionBody::Firebreak(own) => {
            summary.iss = summary.iss.or(own.iss);
            summary.simulated |= own.simulated;
            summary.info = summary.info.or(Some(own.info));
            None
        }
        SectionBody::Other { .. } => {
            summary.unknown_sections = summary.unknown_sections.saturating_add(1);
            None
        }
    }
}
