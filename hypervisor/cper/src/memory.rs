// SPDX-License-Identifier: MIT OR Apache-2.0
//! Platform memory error section (UEFI 2.10, N.2.5).

use firebreak_abi::Pa;

use crate::CperError;
use crate::bytes::{put, u8_at, u16_at, u64_at, valid_bits};

/// Length of the section since UEFI 2.3, in bytes.
pub const MEMORY_SECTION_LEN_BYTES: usize = 80;
/// Length of the section before UEFI 2.3, in bytes: it ends behind the error type.
pub const MEMORY_SECTION_MIN_LEN_BYTES: usize = 73;

const VALID_STATUS: u32 = 1 << 0;
const VALID_PA: u32 = 1 << 1;
const VALID_PA_MASK: u32 = 1 << 2;
const VALID_NODE: u32 = 1 << 3;
const VALID_TYPE: u32 = 1 << 14;
const VALID_RANK: u32 = 1 << 15;

/// A memory error. Fields whose validation bit is clear are `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemorySection {
    /// Error status (UEFI 2.10, N.2.12).
    pub status: Option<u64>,
    /// Physical address of the error.
    pub pa: Option<Pa>,
    /// Mask of the address: bits that are 1 are valid, so its zeros say how large the bad region is.
    pub pa_mask: Option<u64>,
    /// Node of a multi-node system.
    pub node: Option<u16>,
    /// Kind of error: 0 unknown, 2 single-bit, 3 multi-bit, 8 parity, 14 uncorrected by the
    /// scrubber, and so on.
    pub error_type: Option<u8>,
    /// Rank of the memory device.
    pub rank: Option<u16>,
}

impl MemorySection {
    /// Reads the section from its payload.
    ///
    /// # Errors
    ///
    /// [`CperError::Truncated`] when it is shorter than
    /// [`MEMORY_SECTION_MIN_LEN_BYTES`].
    pub fn parse(payload: &[u8]) -> Result<Self, CperError> {
        let short = CperError::Truncated {
            field: "memory section",
            need_bytes: MEMORY_SECTION_MIN_LEN_BYTES,
            have_bytes: payload.len(),
        };
        if payload.len() < MEMORY_SECTION_MIN_LEN_BYTES {
            return Err(short);
        }
        let valid = u64_at(payload, 0).ok_or(short)?;
        let given = |bit: u32| valid & u64::from(bit) != 0;
        Ok(Self {
            status: given(VALID_STATUS).then(|| u64_at(payload, 8)).flatten(),
            pa: given(VALID_PA)
                .then(|| u64_at(payload, 16))
                .flatten()
                .map(Pa::new),
            pa_mask: given(VALID_PA_MASK).then(|| u64_at(payload, 24)).flatten(),
            node: given(VALID_NODE).then(|| u16_at(payload, 32)).flatten(),
            error_type: given(VALID_TYPE).then(|| u8_at(payload, 72)).flatten(),
            rank: given(VALID_RANK).then(|| u16_at(payload, 74)).flatten(),
        })
    }

    /// Encodes as it stands in a section of today's length.
    pub fn to_bytes(self) -> [u8; MEMORY_SECTION_LEN_BYTES] {
        let valid = valid_bits([
            (self.status.is_some(), VALID_STATUS),
            (self.pa.is_some(), VALID_PA),
            (self.pa_mask.is_some(), VALID_PA_MASK),
            (self.node.is_some(), VALID_NODE),
            (self.error_type.is_some(), VALID_TYPE),
            (self.rank.is_some(), VALID_RANK),
        ]);
        let mut bytes = [0; MEMORY_SECTION_LEN_BYTES];
        let parts: [(usize, &[u8]); 7] = [
            (0, &u64::from(valid).to_le_bytes()),
            (8, &self.status.unwrap_or(0).to_le_bytes()),
            (16, &self.pa.map_or(0, Pa::get).to_le_bytes()),
            (24, &self.pa_mask.unwrap_or(0).to_le_bytes()),
            (32, &self.node.unwrap_or(0).to_le_bytes()),
            (72, &[self.error_type.unwrap_or(0)]),
            (74, &self.rank.unwrap_or(0).to_le_bytes()),
        ];
        for (offset, value) in parts {
            let _fits = put(&mut bytes, offset, value);
        }
        bytes
    }
}
