// SPDX-License-Identifier: MIT OR Apache-2.0
//! Data and instruction aborts: cheap decoding for the trap path, and building one for a guest.
//!
//! The decoders are a word and a few shifts each, so that the hottest exits of a guest pay for
//! nothing that they do not ask for (Arm ARM, D24.2, "ISS encoding for an exception from a Data
//! Abort" and "... from an Instruction Abort").

use crate::{Ec, Esr, Iss};

const IL: u64 = 1 << 25;
const ISV: u64 = 1 << 24;
const SAS_SHIFT: u32 = 22;
const SSE: u64 = 1 << 21;
const SRT_SHIFT: u32 = 16;
const SF: u64 = 1 << 15;
const SET_SHIFT: u32 = 11;
const FNV: u64 = 1 << 10;
const EA: u64 = 1 << 9;
const CM: u64 = 1 << 8;
const S1PTW: u64 = 1 << 7;
const WNR: u64 = 1 << 6;
const FSC_MASK: u64 = 0x3f;
const FSC_EXTERNAL: u32 = 0x10;

/// ESR_EL1 of an undefined instruction: class 0, IL set.
pub const UNDEFINED_ESR: Esr = Esr::build(Ec::UNKNOWN, true, Iss::UNCATEGORIZED);

/// Fault status code, ISS\[5:0\] of an abort, as far as a hypervisor tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AbortFsc {
    /// Address size fault at a level; -1 is possible.
    AddressSize(i8),
    /// Translation fault at a level; -1 is possible.
    Translation(i8),
    /// Access flag fault at a level.
    AccessFlag(i8),
    /// Permission fault at a level.
    Permission(i8),
    /// Synchronous external abort that is not on a table walk.
    External,
    /// Synchronous external abort on a table walk at a level; -1 is possible.
    ExternalOnWalk(i8),
    /// Alignment fault.
    Alignment,
    /// TLB conflict.
    TlbConflict,
    /// Anything else, by its code.
    Other(u8),
}

impl AbortFsc {
    /// Decodes the lowest six bits. Total.
    pub const fn from_bits(bits: u8) -> Self {
        let level = (bits & 0b11).cast_signed();
        match bits & 0x3f {
            0x00..=0x03 => Self::AddressSize(level),
            0x04..=0x07 => Self::Translation(level),
            0x08..=0x0b => Self::AccessFlag(level),
            0x0c..=0x0f => Self::Permission(level),
            0x10 => Self::External,
            0x13 => Self::ExternalOnWalk(-1),
            0x14 => Self::ExternalOnWalk(0),
            0x15 => Self::ExternalOnWalk(1),
            0x16 => Self::ExternalOnWalk(2),
            0x17 => Self::ExternalOnWalk(3),
            0x21 => Self::Alignment,
            0x29 => Self::AddressSize(-1),
            0x2b => Self::Translation(-1),
            0x30 => Self::TlbConflict,
            other => Self::Other(other),
        }
    }
}

/// Width of a trapped access (SAS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessSize {
    /// One byte.
    Byte,
    /// Two bytes.
    Halfword,
    /// Four bytes.
    Word,
    /// Eight bytes.
    Doubleword,
}

impl AccessSize {
    /// Returns the width in bytes.
    #[inline]
    pub const fn bytes(self) -> u64 {
        1 << self as u64
    }

    /// Returns the bits of a register that an access of this width moves.
    #[inline]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

/// The syndrome of a data abort, as taken from ESR_ELx. Every accessor is a shift and a mask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct DataAbort(u64);

impl DataAbort {
    /// Wraps ESR_ELx. The caller has looked at the class.
    #[inline]
    pub const fn new(esr: u64) -> Self {
        Self(esr)
    }

    /// Says whether SAS, SSE, SRT and SF describe the access (ISV).
    #[inline]
    pub const fn is_described(self) -> bool {
        self.0 & ISV != 0
    }

    /// Says whether it is an access that a device can answer: one that the syndrome describes, to what
    /// stage 2 does not map, by an instruction of four bytes.
    ///
    /// T32 has loads and stores of two bytes, which AArch32 runs at EL0.
    #[inline]
    pub const fn is_emulable(self) -> bool {
        self.is_translation() && self.is_described() && !self.on_stage1_walk() && self.0 & IL != 0
    }

    /// Returns the width of the access (SAS). Meaningful when [described](Self::is_described).
    #[inline]
    pub const fn size(self) -> AccessSize {
        match self.0 >> SAS_SHIFT & 0b11 {
            0 => AccessSize::Byte,
            1 => AccessSize::Halfword,
            2 => AccessSize::Word,
            _ => AccessSize::Doubleword,
        }
    }

    /// Says whether what was loaded is to be sign extended (SSE).
    #[inline]
    pub const fn sign_extend(self) -> bool {
        self.0 & SSE != 0
    }

    /// Returns the register to transfer, 0 to 31 (SRT); 31 is XZR.
    #[inline]
    pub const fn register(self) -> usize {
        (self.0 >> SRT_SHIFT).to_le_bytes()[0] as usize & 0x1f
    }

    /// Says whether the register is 64 bits wide (SF).
    #[inline]
    pub const fn is_64_bit(self) -> bool {
        self.0 & SF != 0
    }

    /// Says whether FAR_ELx is not valid (FnV).
    #[inline]
    pub const fn far_not_valid(self) -> bool {
        self.0 & FNV != 0
    }

    /// Returns the external abort type (EA), which is IMPLEMENTATION DEFINED.
    #[inline]
    pub const fn external_abort_type(self) -> bool {
        self.0 & EA != 0
    }

    /// Says whether a cache maintenance or translation instruction faulted (CM).
    #[inline]
    pub const fn is_cache_maintenance(self) -> bool {
        self.0 & CM != 0
    }

    /// Says whether stage 2 faulted while stage 1 was walked (S1PTW).
    #[inline]
    pub const fn on_stage1_walk(self) -> bool {
        self.0 & S1PTW != 0
    }

    /// Says whether it was a write (WnR).
    #[inline]
    pub const fn is_write(self) -> bool {
        self.0 & WNR != 0
    }

    /// Returns the fault status code, six bits.
    #[inline]
    pub const fn fsc_bits(self) -> u8 {
        (self.0 & FSC_MASK).to_le_bytes()[0]
    }

    /// Returns the fault status.
    #[inline]
    pub const fn fsc(self) -> AbortFsc {
        AbortFsc::from_bits(self.fsc_bits())
    }

    /// Says whether it is a translation fault, at any level.
    #[inline]
    pub const fn is_translation(self) -> bool {
        self.0 & 0x3c == 0x04
    }

    /// Says whether it is a permission fault, at any level.
    #[inline]
    pub const fn is_permission(self) -> bool {
        self.0 & 0x3c == 0x0c
    }

    /// Cuts and extends a value that was read for this access as the load instruction would:
    /// to the access's width, then by sign or with zeros to 32 or 64 bits.
    #[inline]
    pub const fn extend(self, value: u64) -> u64 {
        let unused_bits = 64 - 8 * self.size().bytes();
        let value = value << unused_bits;
        if !self.sign_extend() {
            return value >> unused_bits;
        }
        let wide = (value.cast_signed() >> unused_bits).cast_unsigned();
        if self.is_64_bit() {
            wide
        } else {
            wide & 0xffff_ffff
        }
    }
}

/// The syndrome of an instruction abort, as taken from ESR_ELx.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct InstructionAbort(u64);

impl InstructionAbort {
    /// Wraps ESR_ELx. The caller has looked at the class.
    #[inline]
    pub const fn new(esr: u64) -> Self {
        Self(esr)
    }

    /// Says whether FAR_ELx is not valid (FnV).
    #[inline]
    pub const fn far_not_valid(self) -> bool {
        self.0 & FNV != 0
    }

    /// Says whether stage 2 faulted while stage 1 was walked (S1PTW).
    #[inline]
    pub const fn on_stage1_walk(self) -> bool {
        self.0 & S1PTW != 0
    }

    /// Returns the fault status code, six bits.
    #[inline]
    pub const fn fsc_bits(self) -> u8 {
        (self.0 & FSC_MASK).to_le_bytes()[0]
    }

    /// Returns the fault status.
    #[inline]
    pub const fn fsc(self) -> AbortFsc {
        AbortFsc::from_bits(self.fsc_bits())
    }
}

/// Returns the SError syndrome that says of the PE what this external abort says: SET\[12:11\]
/// where the abort has one, which is off table walks (xFSC 0x10); a walk's is recoverable, because
/// the abort is precise and nothing was done with what was read.
///
/// SET is 0b00 recoverable, 0b10 uncontainable, 0b11 restartable; 0b01 is reserved and says nothing.
pub const fn external_abort_state(iss: Iss) -> Iss {
    let set = iss.get() >> SET_SHIFT & 0b11;
    match (iss.get() & 0x3f, set) {
        (FSC_EXTERNAL, 0b10) => Iss::UC,
        (FSC_EXTERNAL, 0b11) => Iss::UEO,
        (FSC_EXTERNAL, 0b01) => Iss::IMPDEF,
        _ => Iss::UER,
    }
}

/// What a synchronous external abort for a guest is made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncAbort {
    /// An instruction fetch; otherwise a data access.
    pub fetch: bool,
    /// The access was a write. Ignored for a fetch.
    pub write: bool,
    /// The guest was at EL1, the level that takes the abort; otherwise it was at EL0.
    pub from_el1: bool,
    /// A cache maintenance instruction did it. Ignored for a fetch.
    pub cache_maintenance: bool,
    /// The address is not known: FAR_EL1 is not to be believed (FnV).
    pub far_not_valid: bool,
}

impl SyncAbort {
    /// Returns the abort that passes a guest's stage-2 data abort on to the guest itself.
    #[inline]
    pub const fn from_data_abort(abort: DataAbort, from_el1: bool) -> Self {
        Self {
            fetch: false,
            write: abort.is_write(),
            from_el1,
            cache_maintenance: abort.is_cache_maintenance(),
            far_not_valid: abort.far_not_valid(),
        }
    }

    /// Returns the abort that passes a guest's stage-2 instruction abort on to the guest itself.
    #[inline]
    pub const fn from_instruction_abort(abort: InstructionAbort, from_el1: bool) -> Self {
        Self {
            fetch: true,
            write: false,
            from_el1,
            cache_maintenance: false,
            far_not_valid: abort.far_not_valid(),
        }
    }
}

/// Builds ESR_EL1 of a synchronous external abort (FSC 0x10, not on a table walk).
///
/// The class says whether the guest was at the level that takes it; ISV is 0, so the guest
/// decodes the instruction itself if it must, and IL is 1, as it is for any abort without ISV;
/// SET is 0.
pub const fn external_abort_esr(abort: SyncAbort) -> Esr {
    let ec = match (abort.fetch, abort.from_el1) {
        (true, false) => Ec::IABT_LOWER,
        (true, true) => Ec::IABT_SAME,
        (false, false) => Ec::DABT_LOWER,
        (false, true) => Ec::DABT_SAME,
    };
    let mut iss = FSC_EXTERNAL as u64;
    if abort.write && !abort.fetch {
        iss |= WNR;
    }
    if abort.cache_maintenance && !abort.fetch {
        iss |= CM;
    }
    if abort.far_not_valid {
        iss |= FNV;
    }
    Esr::build(ec, true, Iss::from_esr(iss))
}
