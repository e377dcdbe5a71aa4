// SPDX-License-Identifier: MIT OR Apache-2.0
//! Firebreak's own section: what ACPI and UEFI have no field for.
//!
//! Section type `13b015d4-c5a2-4dae-8c4b-40d280b38a1c`, 64 bytes, little endian:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 2 | version, 1 |
//! | 2 | 2 | length, 64; a later version may be longer and keeps what is here |
//! | 4 | 4 | validation bits: 0 ISS, 1 error id, 2 PE, 3 partition, 4 vCPU, 5 PC, 6 exception level, 7 ticks |
//! | 8 | 4 | flags: bit 0 simulated (raised on demand, nothing is broken) |
//! | 12 | 4 | ISS, the 25 bits of the SError syndrome |
//! | 16 | 8 | PC that was interrupted |
//! | 24 | 8 | CNTPCT_EL0 when the record was made, in ticks |
//! | 32 | 8 | error id: the number that whoever raised or received the error gave to it |
//! | 40 | 1 | logical number of the PE |
//! | 41 | 1 | partition |
//! | 42 | 1 | vCPU, its number in the partition |
//! | 43 | 1 | exception level that was interrupted, 0 to 3 |
//! | 44 | 1 | who wrote the record: 0 firmware, 1 hypervisor |
//! | 45 | 19 | zero |

use firebreak_abi::{PeId, VmId};

use crate::CperError;
use crate::bytes::{put, slice_at, u8_at, u16_at, u32_at, u64_at, valid_bits};

/// Length of the section, in bytes.
pub const FIREBREAK_SECTION_LEN_BYTES: usize = 64;

pub(crate) const VERSION: u16 = 1;
const VALID_ISS: u32 = 1 << 0;
const VALID_ID: u32 = 1 << 1;
const VALID_PE: u32 = 1 << 2;
const VALID_PARTITION: u32 = 1 << 3;
const VALID_VCPU: u32 = 1 << 4;
const VALID_PC: u32 = 1 << 5;
const VALID_EL: u32 = 1 << 6;
const VALID_TICKS: u32 = 1 << 7;
const FLAG_SIMULATED: u32 = 1 << 0;

/// Who wrote a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Source {
    /// The EL3 firmware.
    #[default]
    Firmware,
    /// The hypervisor, on its way down.
    Hypervisor,
}

impl Source {
    /// Returns its name, as events spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Hypervisor => "hypervisor",
        }
    }
}

/// Where an error struck, and who says so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FirebreakInfo {
    /// Who wrote the record.
    pub source: Source,
    /// Number of the error.
    pub id: Option<u64>,
    /// PE that was interrupted.
    pub pe: Option<PeId>,
    /// Partition that ran there.
    pub partition: Option<VmId>,
    /// vCPU that ran there: its number inside the partition.
    pub vcpu: Option<u8>,
    /// PC that was interrupted.
    pub pc: Option<u64>,
    /// Exception level that was interrupted.
    pub el: Option<u8>,
    /// CNTPCT_EL0 when the record was made, in ticks.
    pub ticks: Option<u64>,
}

/// The whole section: [`FirebreakInfo`] with syndrome and flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FirebreakSection {
    /// Syndrome of the SError (25 bits), if one is known.
    pub iss: Option<u32>,
    /// Whether the error was raised on demand.
    pub simulated: bool,
    /// Where it struck.
    pub info: FirebreakInfo,
}

impl FirebreakSection {
    /// Reads the section from its payload. A longer section of a later version is read as far as
    /// this version goes.
    ///
    /// # Errors
    ///
    /// The field that is wrong: version 0, a length that lies, an unknown source.
    pub fn parse(payload: &[u8]) -> Result<Self, CperError> {
        let short = CperError::Truncated {
            field: "Firebreak section",
            need_bytes: FIREBREAK_SECTION_LEN_BYTES,
            have_bytes: payload.len(),
        };
        let version = u16_at(payload, 0).ok_or(short)?;
        if version < VERSION {
            let field = "Firebreak section: version";
            return Err(CperError::Invalid {
                field,
                value: version.into(),
            });
        }
        let length = u16_at(payload, 2).ok_or(short)?;
        let section = slice_at(payload, 0, length.into())
            .filter(|section| section.len() >= FIREBREAK_SECTION_LEN_BYTES)
            .ok_or(CperError::Overrun {
                field: "Firebreak section: length",
                value: length.into(),
                limit: payload.len() as u64,
            })?;
        let valid = u32_at(section, 4).ok_or(short)?;
        let byte = |bit, offset| (valid & bit != 0).then(|| u8_at(section, offset)).flatten();
        let word = |bit, offset| {
            (valid & bit != 0)
                .then(|| u64_at(section, offset))
                .flatten()
        };
        let source = match u8_at(section, 44).ok_or(short)? {
            0 => Source::Firmware,
            1 => Source::Hypervisor,
            other => {
                let field = "Firebreak section: source";
                return Err(CperError::Invalid {
                    field,
                    value: other.into(),
                });
            }
        };
        Ok(Self {
            iss: (valid & VALID_ISS != 0)
                .then(|| u32_at(section, 12))
                .flatten(),
            simulated: u32_at(section, 8).ok_or(short)? & FLAG_SIMULATED != 0,
            info: FirebreakInfo {
                source,
                id: word(VALID_ID, 32),
                pe: byte(VALID_PE, 40).map(PeId),
                partition: byte(VALID_PARTITION, 41).map(VmId),
                vcpu: byte(VALID_VCPU, 42),
                pc: word(VALID_PC, 16),
                el: byte(VALID_EL, 43),
                ticks: word(VALID_TICKS, 24),
            },
        })
    }

    /// Encodes as it stands in a record.
    pub fn to_bytes(self) -> [u8; FIREBREAK_SECTION_LEN_BYTES] {
        let info = self.info;
        let valid = valid_bits([
            (self.iss.is_some(), VALID_ISS),
            (info.id.is_some(), VALID_ID),
            (info.pe.is_some(), VALID_PE),
            (info.partition.is_some(), VALID_PARTITION),
            (info.vcpu.is_some(), VALID_VCPU),
            (info.pc.is_some(), VALID_PC),
            (info.el.is_some(), VALID_EL),
            (info.ticks.is_some(), VALID_TICKS),
        ]);
        let flags = u32::from(self.simulated) * FLAG_SIMULATED;
        let mut bytes = [0; FIREBREAK_SECTION_LEN_BYTES];
        let parts: [(usize, &[u8]); 13] = [
            (0, &VERSION.to_le_bytes()),
            (2, &(FIREBREAK_SECTION_LEN_BYTES as u16).to_le_bytes()),
            (4, &valid.to_le_bytes()),
            (8, &flags.to_le_bytes()),
            (12, &self.iss.unwrap_or(0).to_le_bytes()),
            (16, &info.pc.unwrap_or(0).to_le_bytes()),
            (24, &info.ticks.unwrap_or(0).to_le_bytes()),
            (32, &info.id.unwrap_or(0).to_le_bytes()),
            (40, &[info.pe.map_or(0, |pe| pe.0)]),
            (41, &[info.partition.map_or(0, |vm| vm.0)]),
            (42, &[info.vcpu.unwrap_or(0)]),
            (43, &[info.el.unwrap_or(0)]),
            (44, &[u8::from(info.source == Source::Hypervisor)]),
        ];
        for (offset, value) in parts {
            let _fits = put(&mut bytes, offset, value);
        }
        bytes
    }
}
