// SPDX-License-Identifier: MIT OR Apache-2.0
//! The instruction specific syndrome of an SError: 25 bits, and what they say.

use core::fmt;
use core::num::NonZeroU32;

use crate::Severity;

/// An SError syndrome: ESR_ELx\[24:0\], which is also what VSESR_EL2 holds.
///
/// All 2^25 values are legal; more bits are refused by [`Iss::new`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Iss(NonZeroU32);

/// Set in each [`Iss`] behind its 25 bits: so `Option<Iss>` is one word, and what carries some of
/// them through the SEI path stays small.
const PRESENT: u32 = 1 << 31;

const IDS: u32 = 1 << 24;
const ELS: u32 = 1 << 18;
const WU_SHIFT: u32 = 16;
const VFV: u32 = 1 << 15;
const PFV: u32 = 1 << 14;
const IESB: u32 = 1 << 13;
const AET_SHIFT: u32 = 10;
const AET_MASK: u32 = 0b111 << AET_SHIFT;
const EA: u32 = 1 << 9;
const WNRV: u32 = 1 << 7;
const WNR: u32 = 1 << 6;
const DFSC_MASK: u32 = 0x3f;
const DFSC_UNCATEGORIZED: u32 = 0;
const DFSC_ASYNC: u32 = 0x11;
/// Bits that neither IDS, AET nor DFSC occupy.
const DETAILS: u32 = Iss::MASK & !(IDS | DFSC_MASK);

impl Iss {
    /// The 25 bits that a syndrome may have.
    pub const MASK: u32 = (1 << 25) - 1;
    /// IDS=1 and nothing else: "implementation defined", the default of an injection.
    pub const IMPDEF: Self = Self::of(IDS);
    /// All zeros: a RAS error that says nothing about its containment.
    pub const UNCATEGORIZED: Self = Self::of(0);
    /// Uncontainable (AET 0b000).
    pub const UC: Self = Self::of(0x0011);
    /// Unrecoverable state (AET 0b001).
    pub const UEU: Self = Self::of(0x0411);
    /// Restartable state (AET 0b010).
    pub const UEO: Self = Self::of(0x0811);
    /// Recoverable state (AET 0b011).
    pub const UER: Self = Self::of(0x0c11);
    /// Corrected (AET 0b110).
    pub const CE: Self = Self::of(0x1811);

    /// Makes one of bits of which none is above the 25.
    #[inline]
    const fn of(bits: u32) -> Self {
        match NonZeroU32::new(bits | PRESENT) {
            Some(word) => Self(word),
            // It has at least that one bit.
            None => Self(NonZeroU32::MAX),
        }
    }

    /// Takes a raw syndrome, or `None` when a bit above the 25 is set.
    #[inline]
    pub const fn new(raw: u32) -> Option<Self> {
        if raw & !Self::MASK == 0 {
            Some(Self::of(raw))
        } else {
            None
        }
    }

    /// Takes the syndrome out of an ESR_ELx value, whatever its class.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked to 25 bits first")]
    pub const fn from_esr(esr: u64) -> Self {
        Self::of((esr & Self::MASK as u64) as u32)
    }

    /// Returns the 25 bits.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0.get() & Self::MASK
    }

    /// Says whether IDS is set: all other bits are then IMPLEMENTATION DEFINED.
    #[inline]
    pub const fn is_impdef(self) -> bool {
        self.get() & IDS != 0
    }

    /// Decodes. Total: each of the 2^25 values has one meaning, and [`SError::encode`] undoes it.
    pub const fn decode(self) -> SError {
        let bits = self.get();
        if self.is_impdef() {
            return SError::ImplementationDefined(bits & !IDS);
        }
        let details = Details(bits & DETAILS);
        match bits & DFSC_MASK {
            DFSC_UNCATEGORIZED => SError::Uncategorized(details),
            DFSC_ASYNC => SError::Async {
                aet: Aet::from_bits(bits >> AET_SHIFT),
                details: Details(bits & DETAILS & !AET_MASK),
            },
            dfsc => SError::ReservedDfsc {
                dfsc: dfsc.to_le_bytes()[0],
                details,
            },
        }
    }

    /// Returns how bad the error is for the PE that took it.
    #[inline]
    pub const fn severity(self) -> Severity {
        // As `decode` would have it, without what an error does not wait for.
        if self.is_impdef() {
            Severity::ImplementationDefined
        } else if self.get() & DFSC_MASK != DFSC_ASYNC {
            Severity::Uncategorized
        } else {
            Aet::from_bits(self.get() >> AET_SHIFT).severity()
        }
    }

    /// Merges a second error into one that is still pending, by the architecture's rule for
    /// multiple SErrors (R_JBQSC).
    ///
    /// When either is implementation defined or uncategorized (a reserved DFSC counts as
    /// that), the result is implementation defined; otherwise it is the worse state, with the
    /// worse error's other bits. Equal states keep the first.
    ///
    /// The severity of the result does not depend on the order. This is what a guest may be
    /// told; who decides what to do about two errors takes [`Severity::worse`] of them, which
    /// does not forget a UC behind an implementation defined error.
    #[must_use]
    pub const fn merge(self, later: Self) -> Self {
        if self.is_impdef() {
            return self;
        }
        if later.is_impdef() {
            return later;
        }
        let (first, second) = (self.severity(), later.severity());
        if first.is_unclassified() || second.is_unclassified() {
            return Self::IMPDEF;
        }
        if second.rank() > first.rank() {
            later
        } else {
            self
        }
    }
}

impl fmt::Debug for Iss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iss({:#x})", self.get())
    }
}

impl fmt::LowerHex for Iss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.get(), f)
    }
}

impl fmt::Display for Iss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} ({})", self.get(), self.decode())
    }
}

/// What an SError syndrome says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SError {
    /// IDS=1; the payload is ISS\[23:0\].
    ImplementationDefined(u32),
    /// DFSC 0b000000: a RAS error without a state. AET means nothing here.
    Uncategorized(Details),
    /// DFSC 0b010001: an asynchronous SError with a state.
    Async {
        /// State of the PE.
        aet: Aet,
        /// The other fields.
        details: Details,
    },
    /// Any other DFSC: reserved, and AET means nothing.
    ReservedDfsc {
        /// The 6 bits, neither 0 nor 0x11.
        dfsc: u8,
        /// The other fields.
        details: Details,
    },
}

impl SError {
    /// Encodes. Undoes [`Iss::decode`] exactly; out-of-range payload bits are dropped.
    pub const fn encode(self) -> Iss {
        match self {
            Self::ImplementationDefined(bits) => Iss::of(IDS | bits & (IDS - 1)),
            Self::Uncategorized(details) => Iss::of(details.0 & DETAILS),
            Self::Async { aet, details } => {
                Iss::of(details.0 & DETAILS & !AET_MASK | aet.bits() << AET_SHIFT | DFSC_ASYNC)
            }
            Self::ReservedDfsc { dfsc, details } => {
                Iss::of(details.0 & DETAILS | dfsc as u32 & DFSC_MASK)
            }
        }
    }
}

impl fmt::Display for SError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImplementationDefined(bits) => {
                write!(f, "implementation defined {bits:#x}")
            }
            Self::Uncategorized(details) => write!(f, "uncategorized{details}"),
            Self::Async { aet, details } => write!(f, "{aet}{details}"),
            Self::ReservedDfsc { dfsc, details } => {
                write!(f, "reserved fault status {dfsc:#x}{details}")
            }
        }
    }
}

/// Asynchronous error type, ISS\[12:10\]: the state of the PE after the error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aet {
    /// 0b000: uncontainable.
    Uncontainable,
    /// 0b001: unrecoverable: the interrupted context cannot go on.
    Unrecoverable,
    /// 0b010: restartable: the interrupted context can go on as it is.
    Restartable,
    /// 0b011: recoverable: it can go on once software has dealt with the error.
    Recoverable,
    /// 0b110: corrected.
    Corrected,
    /// 0b100, 0b101, 0b111. Treated as uncontainable, because nothing milder is promised.
    Reserved(u8),
}

impl Aet {
    /// Decodes the lowest three bits.
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 0b111 {
            0b000 => Self::Uncontainable,
            0b001 => Self::Unrecoverable,
            0b010 => Self::Restartable,
            0b011 => Self::Recoverable,
            0b110 => Self::Corrected,
            reserved => Self::Reserved(reserved.to_le_bytes()[0]),
        }
    }

    /// Encodes into the lowest three bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Uncontainable => 0b000,
            Self::Unrecoverable => 0b001,
            Self::Restartable => 0b010,
            Self::Recoverable => 0b011,
            Self::Corrected => 0b110,
            Self::Reserved(bits) => bits as u32 & 0b111,
        }
    }

    /// Returns how bad the state is.
    #[inline]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Uncontainable | Self::Reserved(_) => Severity::Uncontainable,
            Self::Unrecoverable => Severity::Unrecoverable,
            Self::Restartable => Severity::Restartable,
            Self::Recoverable => Severity::Recoverable,
            Self::Corrected => Severity::Corrected,
        }
    }
}

impl fmt::Display for Aet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uncontainable => f.write_str("UC, uncontainable"),
            Self::Unrecoverable => f.write_str("UEU, unrecoverable"),
            Self::Restartable => f.write_str("UEO, restartable"),
            Self::Recoverable => f.write_str("UER, recoverable"),
            Self::Corrected => f.write_str("CE, corrected"),
            Self::Reserved(bits) => write!(f, "reserved error type {bits:#05b}"),
        }
    }
}

/// Whether the store that failed changed memory: ISS\[17:16\], FEAT_RASv2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteUpdate {
    /// 0b00: not known.
    Unknown,
    /// 0b01: reserved.
    Reserved,
    /// 0b10: the location was not updated.
    NotUpdated,
    /// 0b11: the location was updated.
    Updated,
}

/// The fields beside IDS, AET and DFSC, reserved bits included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Details(u32);

impl Details {
    /// Says whether an implicit error synchronization event took the error (IESB, bit 13).
    pub const fn implicit_sync(self) -> bool {
        self.0 & IESB != 0
    }

    /// Returns the external abort type (EA, bit 9), which is IMPLEMENTATION DEFINED.
    pub const fn external_abort_type(self) -> bool {
        self.0 & EA != 0
    }

    /// Says whether the exception link register names the instruction at fault (ELS, bit 18,
    /// FEAT_RASv2).
    pub const fn elr_is_trigger(self) -> bool {
        self.0 & ELS != 0
    }

    /// Returns what happened to the store (WU, bits 17:16, FEAT_RASv2).
    pub const fn write_update(self) -> WriteUpdate {
        match self.0 >> WU_SHIFT & 0b11 {
            0b00 => WriteUpdate::Unknown,
            0b01 => WriteUpdate::Reserved,
            0b10 => WriteUpdate::NotUpdated,
            _ => WriteUpdate::Updated,
        }
    }

    /// Says whether FAR_ELx is valid (VFV, bit 15).
    pub const fn far_valid(self) -> bool {
        self.0 & VFV != 0
    }

    /// Says whether PFAR_ELx is valid (PFV, bit 14).
    pub const fn pfar_valid(self) -> bool {
        self.0 & PFV != 0
    }

    /// Says whether a write was at fault, or `None` when that is not known (WnRV and WnR,
    /// bits 7 and 6, FEAT_RASv2).
    pub const fn write(self) -> Option<bool> {
        if self.0 & WNRV != 0 {
            Some(self.0 & WNR != 0)
        } else {
            None
        }
    }

    /// Returns the bits as they stand in the ISS, reserved ones included.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Drops what only holds for the PE that took the exception itself: IESB, VFV and PFV.
    ///
    /// Who hands an error on writes neither FAR_ELx nor PFAR_ELx, and took no exception at the
    /// target's level.
    #[must_use]
    pub const fn for_hand_over(self) -> Self {
        Self(self.0 & !(IESB | VFV | PFV))
    }
}

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.implicit_sync() {
            f.write_str(", implicit synchronization")?;
        }
        match self.write() {
            Some(true) => f.write_str(", write")?,
            Some(false) => f.write_str(", read")?,
            None => {}
        }
        if self.elr_is_trigger() {
            f.write_str(", at ELR")?;
        }
        Ok(())
    }
}

impl Iss {
    /// Returns the syndrome that goes with this one when it is handed to a lower level.
    ///
    /// An implementation defined syndrome is passed on bit by bit.
    #[must_use]
    pub const fn for_hand_over(self) -> Self {
        match self.decode() {
            SError::ImplementationDefined(_) => self,
            SError::Uncategorized(d) => SError::Uncategorized(d.for_hand_over()).encode(),
            SError::Async { aet, details } => SError::Async {
                aet,
                details: details.for_hand_over(),
            }
            .encode(),
            SError::ReservedDfsc { dfsc, details } => SError::ReservedDfsc {
                dfsc,
                details: details.for_hand_over(),
            }
            .encode(),
        }
    }
}
