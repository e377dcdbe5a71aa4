// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an exception saves, and where it came in.

use core::fmt;

/// Registers of the interrupted program, as `vectors.S` stores them.
///
/// The handler may change all of them. FP and SIMD registers are kept too, out of reach.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Where the exception returns to.
    pub elr: u64,
    /// PSTATE to return with.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1; only some syndromes make it valid.
    pub far: u64,
    /// CNTVCT_EL0, read with the vector's second instruction.
    pub entered_at_ticks: u64,
}

// `vectors.S` counts on it.
const _: () = assert!(size_of::<Frame>() == 288);

/// Data abort without a change of exception level (Arm ARM D24.2.40, EC 0x25).
pub const EC_DATA_ABORT: u64 = 0x25;
/// Instruction abort without a change of exception level (EC 0x21).
pub const EC_FETCH_ABORT: u64 = 0x21;
/// Unknown reason, which an UNDEFINED instruction has (EC 0).
pub const EC_UNKNOWN: u64 = 0;
/// Synchronous external abort, not on a table walk (xFSC 0x10).
pub const FSC_EXTERNAL: u64 = 0x10;

impl Frame {
    /// Returns the exception class, ESR_EL1\[31:26\].
    pub fn class(&self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// Returns the fault status code, ESR_EL1\[5:0\], of an abort.
    pub fn fault_status(&self) -> u64 {
        self.esr & 0x3f
    }

    /// Goes on behind the interrupted instruction.
    pub fn skip_instruction(&mut self) {
        self.elr = self.elr.wrapping_add(4);
    }
}

/// What kind of exception it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Synchronous.
    Sync,
    /// IRQ.
    Irq,
    /// FIQ.
    Fiq,
    /// SError.
    SError,
}

/// One of the sixteen vectors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Vector(u64);

impl Vector {
    /// Takes a vector's number, 0 to 15, in the order of the table.
    pub fn from_index(index: u64) -> Self {
        Self(index & 0xf)
    }

    /// Returns the offset from VBAR_EL1, in bytes.
    pub fn offset(self) -> u64 {
        self.0 * 0x80
    }

    /// Returns the kind.
    pub fn kind(self) -> Kind {
        match self.0 & 3 {
            0 => Kind::Sync,
            1 => Kind::Irq,
            2 => Kind::Fiq,
            _ => Kind::SError,
        }
    }
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:#x}", self.kind(), self.offset())
    }
}

/// Reports an exception that the guest did not expect, and turns the machine off.
pub fn unexpected(frame: &Frame, vector: Vector) -> ! {
    panic!(
        "unexpected {vector:?} esr={:#x} elr={:#x} far={:#x} spsr={:#x}",
        frame.esr, frame.elr, frame.far, frame.spsr
    )
}
