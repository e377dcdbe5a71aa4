// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stage 1 of EL2 (E2H=0): one TTBR0_EL2, one privilege level, W^X by type.

use firebreak_abi::{Pa, Va};

use crate::descriptor::El2Attr;
use crate::table::{self, Root, Span, Walk};
use crate::{Frames, PagingError};

/// MAIR_EL2: index 0 is Device-nGnRE, index 1 Normal write-back, read and write allocate.
pub const MAIR: u64 = 0xff04;

/// TCR_EL2 with E2H=0: bits 31 and 23 RES1, SH0 inner shareable, ORGN0 and IRGN0 write-back,
/// TG0 4 KiB.
const TCR_FIXED: u64 = (1 << 31) | (1 << 23) | (0b11 << 12) | (0b01 << 10) | (0b01 << 8);

/// How many bits of virtual address EL2 uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VaSize {
    /// 512 GiB: walks start at level 1. One table fewer.
    Bits39,
    /// 256 TiB: walks start at level 0. For boards whose RAM stands above 512 GiB.
    Bits48,
}

impl VaSize {
    /// Chooses the smaller size that still holds every address below `end`.
    pub const fn for_end(end: Va) -> Self {
        if end.get() <= 1 << 39 {
            Self::Bits39
        } else {
            Self::Bits48
        }
    }

    /// Returns the number of bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Bits39 => 39,
            Self::Bits48 => 48,
        }
    }

    /// Returns TCR_EL2; `ps` is its PS field, the encoding of ID_AA64MMFR0_EL1.PARange (at most
    /// 5: 48 bits).
    pub const fn tcr(self, ps: u64) -> u64 {
        TCR_FIXED | ((ps & 0b111) << 16) | (64 - self.bits() as u64)
    }

    const fn start_level(self) -> u8 {
        match self {
            Self::Bits39 => 1,
            Self::Bits48 => 0,
        }
    }
}

/// The tables of EL2 itself.
///
/// Guard pages are made by leaving holes: what is not mapped faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage1 {
    root: Root,
}

impl Stage1 {
    /// Allocates an empty root.
    ///
    /// # Errors
    ///
    /// [`PagingError::OutOfFrames`].
    pub fn new<F: Frames + ?Sized>(frames: &mut F, size: VaSize) -> Result<Self, PagingError> {
        let table = frames
            .alloc_zeroed(1)
            .ok_or(PagingError::OutOfFrames { input: 0, pages: 1 })?;
        let root = Root {
            table,
            level: size.start_level(),
            input_bits: size.bits(),
            output_bits: 48,
        };
        Ok(Self { root })
    }

    /// Returns the root, TTBR0_EL2.BADDR.
    pub const fn root(&self) -> Pa {
        self.root.table
    }

    /// Maps a range with the largest blocks that fit.
    ///
    /// Only invalid descriptors become valid, so this is allowed with the MMU on too; a DSB and
    /// an ISB are owed before the first use.
    ///
    /// # Errors
    ///
    /// As for [`crate::Stage2::map`].
    pub fn map<F: Frames + ?Sized>(
        &self,
        frames: &mut F,
        va: Va,
        pa: Pa,
        len_bytes: u64,
        attr: El2Attr,
    ) -> Result<(), PagingError> {
        let span = Span {
            input: va.get(),
            output: pa.get(),
            left_bytes: len_bytes,
        };
        table::map(frames, self.root, span, attr.bits())
    }

    /// Looks up a virtual address of EL2 as the PE would: physical address, attributes, level.
    pub fn translate<F: Frames + ?Sized>(&self, frames: &F, va: Va) -> Option<(Pa, El2Attr, u8)> {
        let Walk::Leaf(leaf) = table::walk(frames, self.root, va.get())? else {
            return None;
        };
        let pa = table::output(leaf.descriptor, leaf.level, va.get());
        Some((pa, El2Attr::from_leaf(leaf.descriptor)?, leaf.level))
    }
}
