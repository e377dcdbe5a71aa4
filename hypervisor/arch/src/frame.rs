// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the vectors save, and the block of each PE at which SP_EL2 points.
//!
//! `vectors.S` takes every offset from here, as `const` operands: no number stands twice.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::AtomicU64;
use firebreak_abi::{Ipa, PAGE_SIZE_BYTES};

/// An interrupted context, as the vectors leave it in memory.
#[repr(C, align(16))]
#[derive(Clone, Default)]
pub struct Frame {
    /// General-purpose registers x0 to x30.
    pub x: [u64; 31],
    /// HPFAR_EL2: faulting IPA bits of a stage-2 abort.
    pub hpfar: u64,
    /// ELR_EL2: where the context goes on.
    pub elr: u64,
    /// SPSR_EL2: its PSTATE.
    pub spsr: u64,
    /// ESR_EL2 of the exception, or [`LOST_SYNDROME`], or [`LOST_ADDRESS`].
    pub esr: u64,
    /// FAR_EL2 of the exception.
    pub far: u64,
    /// SP_EL0 of the context.
    pub sp_el0: u64,
    /// Keeps the size a multiple of 16.
    pub reserved: u64,
}

/// Stands in the place of an ESR_EL2 that an SEI destroyed: an exception class that does not exist.
pub const LOST_SYNDROME: u64 = 0x3f << 26;

/// Stands there when the syndrome was known, but not the address that belongs to it: it was no call, and
/// the instruction that ELR names finds both again.
pub const LOST_ADDRESS: u64 = LOST_SYNDROME | 1;

/// HPFAR_EL2.FIPA, bits \[43:4\]: bits \[51:12\] of the address.
const FIPA_MASK: u64 = 0xfff_ffff_fff0;
const FIPA_SHIFT: u32 = 8;

impl Frame {
    /// Returns the address at which a stage-2 abort was taken: the page of HPFAR_EL2, the offset of
    /// FAR_EL2.
    #[inline]
    pub const fn fault_ipa(&self) -> Ipa {
        let page = (self.hpfar & FIPA_MASK) << FIPA_SHIFT;
        Ipa::new(page | self.far & (PAGE_SIZE_BYTES - 1))
    }

    /// Reads Rt of an instruction: register 31 is XZR.
    #[inline]
    pub fn read_gpr(&self, register: usize) -> u64 {
        self.x.get(register).copied().unwrap_or(0)
    }

    /// Writes Rt of an instruction: register 31 is XZR.
    #[inline]
    pub fn write_gpr(&mut self, register: usize, value: u64) {
        if let Some(slot) = self.x.get_mut(register) {
            *slot = value;
        }
    }
}

/// The head of a PE's block: what the vectors touch. SP_EL2 of the PE points at it.
///
/// The vectors write `guest` before EL2's code runs and read it after; the SEI path writes only
/// its [`SeiLevel`] and atomics, so it never aliases what the code that it interrupted is changing.
#[repr(C, align(64))]
pub struct PeHead {
    /// The guest's context while EL2 runs.
    pub guest: UnsafeCell<Frame>,
    /// Address of the function that takes an interrupt of the guest.
    pub on_irq: u64,
    /// SP_EL0 that EL2's code starts from: top of this PE's stack. Between the two functions, so
    /// that one load brings it and either of them.
    pub el2_sp: u64,
    /// Address of the function that takes a synchronous exit of the guest.
    pub on_sync: u64,
    /// Top of the stack of the SEI path.
    pub sei_sp: u64,
    /// Work to be done before a guest is entered: while it is not 0, `firebreak_resolve` runs first.
    pub attention: AtomicU64,
    /// Address of the firmware's pending word for this PE, or of a word that is always 0.
    pub pending_word: u64,
    /// Address of this block, at the place where a [`SeiLevel`] has it too.
    pub this: u64,
}

/// Where an SEI that interrupts EL2 keeps what it interrupted.
///
/// Level n lies n times the size of a level below the [`PeHead`]. An SEI moves SP_EL2 down by one
/// level with its first instruction, so the next one that barges in has the next level. Fields
/// that both structures have stand at the same offsets.
#[repr(C, align(64))]
pub struct SeiLevel {
    /// The EL2 context, with ELR, SPSR and ESR as they are to be restored.
    pub frame: Frame,
    /// Which level this is: 1 for the first.
    pub level: u64,
    /// ELR_EL2 as the SEI found it.
    pub found_elr: u64,
    /// SPSR_EL2 as the SEI found it.
    pub found_spsr: u64,
    /// Top of the stack of this level.
    pub sei_sp: u64,
    /// ESR_EL2 as the SEI found it.
    pub found_esr: u64,
    /// Nothing: so that what follows stands where the [`PeHead`] has it.
    pub reserved: u64,
    /// Address of the [`PeHead`].
    pub this: u64,
}

impl SeiLevel {
    /// Makes level `level` with the top of its stack, for the [`PeHead`] at `this`.
    #[inline(never)]
    pub fn new(level: u64, sei_sp: u64, this: u64) -> Self {
        Self {
            frame: Frame::default(),
            level,
            sei_sp,
            found_elr: 0,
            found_spsr: 0,
            this,
            found_esr: 0,
            reserved: 0,
        }
    }
}

/// Levels that have a place. Each but the first is there because firmware barged into the one
/// before.
pub const LEVELS: usize = 10;

/// From this level on the machine is reset: more are there only for those that barge in before
/// the reset is under way.
pub const LAST_LEVEL: u64 = 4;

// SAFETY: `guest` is touched by its own PE alone, and there by one exception level of code at a
// time (EL2 masks IRQs and the SEI path does not use it unless it came from the guest); the rest
// is atomic or written before the PE starts.
unsafe impl Sync for PeHead {}

/// Exceptions of EL2's own making on one PE before it gives up: one to tell, and those on the way down.
const MAX_FAULTS: u64 = 5;

const _: () = assert!(size_of::<Frame>() == 304 && size_of::<Frame>().is_multiple_of(16));
// LDP/STP of 64-bit registers reach 504 bytes.
const _: () = assert!(offset_of!(SeiLevel, found_elr) <= 504);
const _: () = assert!(offset_of!(SeiLevel, found_spsr) == offset_of!(SeiLevel, found_elr) + 8);
const _: () = assert!(offset_of!(SeiLevel, this) == offset_of!(PeHead, this));
const _: () = assert!(offset_of!(SeiLevel, sei_sp) == offset_of!(PeHead, sei_sp));
const _: () = assert!(offset_of!(SeiLevel, frame) == 0);
const _: () = assert!(offset_of!(PeHead, on_irq) + 8 == offset_of!(PeHead, el2_sp));
const _: () = assert!(offset_of!(PeHead, el2_sp) + 8 == offset_of!(PeHead, on_sync));

/// What each byte below the boot stack holds as long as the stack has not overflowed. Not 0, which
/// is what rustc's probes of the stack write, one into each page.
pub const BOOT_GUARD_BYTE: u8 = 0x42;
/// Bytes of that pattern: a page, which no overflow can pass over without a write.
pub const BOOT_GUARD_BYTES: usize = 0x1000;

core::arch::global_asm!(
    include_str!("boot.S"),
    BOOT_GUARD_BYTES = const BOOT_GUARD_BYTES,
    BOOT_GUARD_BYTE = const BOOT_GUARD_BYTE,
    EL2_SP = const offset_of!(PeHead, el2_sp),
);

core::arch::global_asm!(
    include_str!("vectors.S"),
    X0 = const offset_of!(Frame, x),
    ELR = const offset_of!(Frame, elr),
    ESR = const offset_of!(Frame, esr),
    SP_EL0 = const offset_of!(Frame, sp_el0),
    EL2_SP = const offset_of!(PeHead, el2_sp),
    ON_IRQ = const offset_of!(PeHead, on_irq),
    SEI_SP = const offset_of!(PeHead, sei_sp),
    ATTENTION = const offset_of!(PeHead, attention),
    PENDING_WORD = const offset_of!(PeHead, pending_word),
    MAX_FAULTS = const MAX_FAULTS,
    LEVEL_BYTES = const size_of::<SeiLevel>(),
    FOUND_ELR = const offset_of!(SeiLevel, found_elr),
    FOUND_ESR = const offset_of!(SeiLevel, found_esr),
    THIS = const offset_of!(PeHead, this),
    MASKING_SCHEME = const !cfg!(feature = "without-masking-scheme") as u32,
    ELR_SAVED_LATE = const cfg!(feature = "seed-elr-saved-late") as u32,
);

core::arch::global_asm!(include_str!("mem.S"));

const _: () = assert!(offset_of!(Frame, hpfar) == offset_of!(Frame, x) + 248);
const _: () = assert!(offset_of!(Frame, spsr) == offset_of!(Frame, elr) + 8);
const _: () = assert!(offset_of!(Frame, far) == offset_of!(Frame, esr) + 8);
const _: () = assert!(offset_of!(PeHead, guest) == 0);
