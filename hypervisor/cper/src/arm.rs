// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arm processor error section (UEFI 2.10, N.2.4.4): 40 bytes, error infos, contexts.

use firebreak_abi::{Mpidr, Pa};

use crate::CperError;
use crate::bytes::{put, slice_at, u8_at, u16_at, u32_at, u64_at, valid_bits};

/// Length of the section's fixed part, in bytes.
pub const ARM_SECTION_LEN_BYTES: usize = 40;
/// Length of one error info structure, in bytes.
pub const ARM_INFO_LEN_BYTES: usize = 32;
/// The most error infos that are read.
pub const MAX_ERROR_INFOS: usize = 16;
/// The most contexts that are read.
pub const MAX_CONTEXTS: usize = 16;

const CONTEXT_HEADER_LEN_BYTES: usize = 8;

/// Bits of an error info's type. Firmware before UEFI 2.9 used numbers from 0 instead.
pub mod error_type {
    /// Cache error.
    pub const CACHE: u8 = 1 << 1;
    /// TLB error.
    pub const TLB: u8 = 1 << 2;
    /// Bus error.
    pub const BUS: u8 = 1 << 3;
    /// Error of the micro-architecture.
    pub const VENDOR: u8 = 1 << 4;
}

const VALID_MPIDR: u32 = 1 << 0;
const VALID_AFFINITY: u32 = 1 << 1;
const VALID_RUNNING: u32 = 1 << 2;

/// The section's own fields. Fields whose validation bit is clear are `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ArmProcessorFields {
    /// Affinity of the PE that found the error.
    pub mpidr: Option<Mpidr>,
    /// Affinity level that the error concerns: 0 is this PE alone.
    pub affinity_level: Option<u8>,
    /// MIDR_EL1 of that PE.
    pub midr: u64,
    /// Whether the PE runs; if it does not, see `psci_state`.
    pub running: Option<bool>,
    /// PSCI state of a PE that does not run.
    pub psci_state: u32,
}

/// One error of an Arm processor section. Fields whose validation bit is clear are `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ArmErrorInfo {
    /// Kind: see [`error_type`].
    pub kind: u8,
    /// How many errors: 0 one, 1 several, else a count.
    pub multiple: Option<u16>,
    /// Bit 0 first, 1 last, 2 propagated, 3 overflow.
    pub flags: Option<u8>,
    /// Error information, by kind.
    pub error_info: Option<u64>,
    /// Virtual address that faulted.
    pub va: Option<u64>,
    /// Physical address that faulted.
    pub pa: Option<Pa>,
}

impl ArmErrorInfo {
    const VALID_MULTIPLE: u32 = 1 << 0;
    const VALID_FLAGS: u32 = 1 << 1;
    const VALID_INFO: u32 = 1 << 2;
    const VALID_VA: u32 = 1 << 3;
    const VALID_PA: u32 = 1 << 4;

    fn parse(bytes: &[u8]) -> Result<Self, CperError> {
        let short = CperError::Truncated {
            field: "Arm error info",
            need_bytes: ARM_INFO_LEN_BYTES,
            have_bytes: bytes.len(),
        };
        let length = u8_at(bytes, 1).ok_or(short)?;
        if usize::from(length) != ARM_INFO_LEN_BYTES {
            return Err(CperError::Invalid {
                field: "Arm error info: length",
                value: length.into(),
            });
        }
        let valid = u32::from(u16_at(bytes, 2).ok_or(short)?);
        let given = |bit| valid & bit != 0;
        let word = |bit, offset| given(bit).then(|| u64_at(bytes, offset)).flatten();
        Ok(Self {
            kind: u8_at(bytes, 4).ok_or(short)?,
            multiple: given(Self::VALID_MULTIPLE)
                .then(|| u16_at(bytes, 5))
                .flatten(),
            flags: given(Self::VALID_FLAGS).then(|| u8_at(bytes, 7)).flatten(),
            error_info: word(Self::VALID_INFO, 8),
            va: word(Self::VALID_VA, 16),
            pa: word(Self::VALID_PA, 24).map(Pa::new),
        })
    }

    /// Encodes as it stands in a section.
    pub fn to_bytes(self) -> [u8; ARM_INFO_LEN_BYTES] {
        let valid = valid_bits([
            (self.multiple.is_some(), Self::VALID_MULTIPLE),
            (self.flags.is_some(), Self::VALID_FLAGS),
            (self.error_info.is_some(), Self::VALID_INFO),
            (self.va.is_some(), Self::VALID_VA),
            (self.pa.is_some(), Self::VALID_PA),
        ]);
        let mut bytes = [0; ARM_INFO_LEN_BYTES];
        let parts: [(usize, &[u8]); 8] = [
            (1, &[ARM_INFO_LEN_BYTES as u8]),
            (2, &(valid as u16).to_le_bytes()),
            (4, &[self.kind]),
            (5, &self.multiple.unwrap_or(0).to_le_bytes()),
            (7, &[self.flags.unwrap_or(0)]),
            (8, &self.error_info.unwrap_or(0).to_le_bytes()),
            (16, &self.va.unwrap_or(0).to_le_bytes()),
            (24, &self.pa.map_or(0, Pa::get).to_le_bytes()),
        ];
        for (offset, value) in parts {
            let _fits = put(&mut bytes, offset, value);
        }
        bytes
    }
}

/// An Arm processor error section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArmProcessor<'a> {
    /// Its fields.
    pub fields: ArmProcessorFields,
    infos: &'a [u8],
    contexts: &'a [u8],
    context_count: u16,
}

impl<'a> ArmProcessor<'a> {
    /// Reads the section from its payload and checks that the infos lie inside.
    ///
    /// # Errors
    ///
    /// The field that is wrong: the section's own length, or the number of infos.
    pub fn parse(payload: &'a [u8]) -> Result<Self, CperError> {
        let short = CperError::Truncated {
            field: "Arm processor section",
            need_bytes: ARM_SECTION_LEN_BYTES,
            have_bytes: payload.len(),
        };
        let psci_state = u32_at(payload, 36).ok_or(short)?;
        let section_len = u32_at(payload, 8).ok_or(short)?;
        let section = slice_at(payload, 0, section_len as usize)
            .filter(|section| section.len() >= ARM_SECTION_LEN_BYTES)
            .ok_or(CperError::Overrun {
                field: "Arm processor section: section length",
                value: section_len.into(),
                limit: payload.len() as u64,
            })?;
        let info_count = u16_at(section, 4).ok_or(short)?;
        let infos_len = usize::from(info_count).saturating_mul(ARM_INFO_LEN_BYTES);
        let infos = slice_at(section, ARM_SECTION_LEN_BYTES, infos_len).ok_or({
            CperError::Overrun {
                field: "Arm processor section: error info number",
                value: info_count.into(),
                limit: (section.len().saturating_sub(ARM_SECTION_LEN_BYTES) / ARM_INFO_LEN_BYTES)
                    as u64,
            }
        })?;
        let valid = u32_at(section, 0).ok_or(short)?;
        let given = |bit| valid & bit != 0;
        let fields = ArmProcessorFields {
            mpidr: given(VALID_MPIDR)
                .then(|| u64_at(section, 16))
                .flatten()
                .map(Mpidr::from_raw),
            affinity_level: given(VALID_AFFINITY).then(|| u8_at(section, 12)).flatten(),
            midr: u64_at(section, 24).ok_or(short)?,
            running: given(VALID_RUNNING)
                .then(|| u32_at(section, 32))
                .flatten()
                .map(|state| state & 1 != 0),
            psci_state,
        };
        let contexts = section
            .get(ARM_SECTION_LEN_BYTES.saturating_add(infos_len)..)
            .unwrap_or_default();
        Ok(Self {
            fields,
            infos,
            contexts,
            context_count: u16_at(section, 6).ok_or(short)?,
        })
    }

    /// Iterates over the errors, at most [`MAX_ERROR_INFOS`]; ends behind the first that is wrong.
    pub const fn infos(&self) -> ArmErrorInfos<'a> {
        ArmErrorInfos {
            rest: self.infos,
            left: MAX_ERROR_INFOS,
        }
    }

    /// Iterates over the register contexts, at most [`MAX_CONTEXTS`]; ends behind the first that
    /// is wrong.
    pub const fn contexts(&self) -> ArmContexts<'a> {
        ArmContexts {
            rest: self.contexts,
            declared: self.context_count,
            left: MAX_CONTEXTS,
        }
    }
}

/// Encodes a section's fixed part for `info_count` infos and no context.
pub(crate) fn fixed_part(fields: &ArmProcessorFields, info_count: u16) -> [u8; 40] {
    // Bit 31 of MPIDR_EL1 is RES1 (Arm ARM D24.2.118); the affinity type does not keep it.
    const MPIDR_RES1: u64 = 1 << 31;
    let valid = valid_bits([
        (fields.mpidr.is_some(), VALID_MPIDR),
        (fields.affinity_level.is_some(), VALID_AFFINITY),
        (fields.running.is_some(), VALID_RUNNING),
    ]);
    let length = ARM_SECTION_LEN_BYTES as u32 + u32::from(info_count) * ARM_INFO_LEN_BYTES as u32;
    let mut bytes = [0; ARM_SECTION_LEN_BYTES];
    let parts: [(usize, &[u8]); 8] = [
        (0, &valid.to_le_bytes()),
        (4, &info_count.to_le_bytes()),
        (8, &length.to_le_bytes()),
        (12, &[fields.affinity_level.unwrap_or(0)]),
        (
            16,
            &fields
                .mpidr
                .map_or(0, |mpidr| mpidr.get() | MPIDR_RES1)
                .to_le_bytes(),
        ),
        (24, &fields.midr.to_le_bytes()),
        (
            32,
            &u32::from(fields.running.unwrap_or(false)).to_le_bytes(),
        ),
        (36, &fields.psci_state.to_le_bytes()),
    ];
    for (offset, value) in parts {
        let _fits = put(&mut bytes, offset, value);
    }
    bytes
}

/// Iterator over the errors of an Arm processor section.
#[derive(Clone, Debug)]
pub struct ArmErrorInfos<'a> {
    rest: &'a [u8],
    left: usize,
}

impl Iterator for ArmErrorInfos<'_> {
    type Item = Result<ArmErrorInfo, CperError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let found = if self.left == 0 {
            Err(CperError::TooMany {
                field: "Arm error infos",
                max: MAX_ERROR_INFOS,
            })
        } else {
            ArmErrorInfo::parse(self.rest)
        };
        self.left = self.left.saturating_sub(1);
        self.rest = match found {
            Ok(_) => self.rest.get(ARM_INFO_LEN_BYTES..).unwrap_or_default(),
            Err(_) => &[],
        };
        Some(found)
    }
}

impl core::iter::FusedIterator for ArmErrorInfos<'_> {}

/// A set of registers that the firmware recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArmContext<'a> {
    /// Which: 4 AArch64 general purpose, 5 EL1, 6 EL2, 7 EL3, 8 others; 0 to 3 AArch32.
    pub register_type: u16,
    /// The registers.
    pub registers: &'a [u8],
}

/// Iterator over the contexts of an Arm processor section.
#[derive(Clone, Debug)]
pub struct ArmContexts<'a> {
    rest: &'a [u8],
    declared: u16,
    left: usize,
}

impl<'a> ArmContexts<'a> {
    fn read(&self) -> Result<(ArmContext<'a>, &'a [u8]), CperError> {
        if self.left == 0 {
            return Err(CperError::TooMany {
                field: "Arm contexts",
                max: MAX_CONTEXTS,
            });
        }
        let short = CperError::Truncated {
            field: "Arm context: header",
            need_bytes: CONTEXT_HEADER_LEN_BYTES,
            have_bytes: self.rest.len(),
        };
        let size = u32_at(self.rest, 4).ok_or(short)?;
        let register_type = u16_at(self.rest, 2).ok_or(short)?;
        let registers = slice_at(self.rest, CONTEXT_HEADER_LEN_BYTES, size as usize).ok_or({
            CperError::Overrun {
                field: "Arm context: register array size",
                value: size.into(),
                limit: self.rest.len().saturating_sub(CONTEXT_HEADER_LEN_BYTES) as u64,
            }
        })?;
        let len = CONTEXT_HEADER_LEN_BYTES.saturating_add(registers.len());
        let rest = self.rest.get(len..).unwrap_or_default();
        Ok((
            ArmContext {
                register_type,
                registers,
            },
            rest,
        ))
    }
}

impl<'a> Iterator for ArmContexts<'a> {
    type Item = Result<ArmContext<'a>, CperError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.declared == 0 {
            return None;
        }
        match self.read() {
            Ok((context, rest)) => {
                self.declared -= 1;
                self.left -= 1;
                self.rest = rest;
                Some(Ok(context))
            }
            Err(error) => {
                self.declared = 0;
                Some(Err(error))
            }
        }
    }
}

impl core::iter::FusedIterator for ArmContexts<'_> {}
