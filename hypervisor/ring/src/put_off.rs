// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is left of an SEI that could not be taken when it came: the queue was full, or it
//! interrupted the taking of another one.
//!
//! Its record, if it had one, stays with the firmware, because nobody acknowledges it. What only
//! the CPU knew would be lost: the syndrome, and who was interrupted. Of several that wait the last
//! one's syndrome is kept, and EL2 counts as interrupted if one of them interrupted it: to treat
//! damage to EL2 as damage to a guest is the worse mistake.

use crate::sync::Word;
use core::sync::atomic::Ordering;

/// How often a note begins anew, at most: once for each SEI that can interrupt it, since each of
/// those has a level of its own above it.
const TRIES: usize = 4;

/// Bits 24:0 of the word: ESR_EL2.ISS.
const ISS: u64 = (1 << 25) - 1;
/// EL2 was at work.
const AT_EL2: u64 = 1 << 32;
/// One of the SEIs that wait; their number is in bits 63:48.
const ONE: u64 = 1 << 48;

/// What is remembered of an SEI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sei {
    /// ESR_EL2.ISS: 25 bits.
    pub iss: u32,
    /// The PC, if the SEI interrupted EL2 at work, and not a guest or a wait.
    pub el2_pc: Option<u64>,
}

/// The SEIs of one PE that wait to be taken. Written in SEI context, taken in task context, both on
/// that PE.
pub struct PutOff {
    word: Word,
    el2_pc: Word,
}

impl PutOff {
    /// Makes one without any.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            word: Word::zero(),
            el2_pc: Word::zero(),
        }
    }

    /// Makes one without any.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            word: Word::zero(),
            el2_pc: Word::zero(),
        }
    }

    /// Remembers an SEI. From SEI context; at most a constant number of steps.
    pub fn note(&self, sei: Sei) {
        for _ in 0..TRIES {
            let old = self.word.load(Ordering::Relaxed);
            if let Some(pc) = sei.el2_pc {
                self.el2_pc.store(pc, Ordering::Relaxed);
            }
            let at_el2 = if sei.el2_pc.is_some() {
                AT_EL2
            } else {
                old & AT_EL2
            };
            let new =
                (old & !(ISS | AT_EL2)).saturating_add(ONE) | at_el2 | u64::from(sei.iss) & ISS;
            // An SEI in between has changed the word, and perhaps the PC: both are written anew.
            if self.word.replace(old, new, Ordering::Release) {
                return;
            }
        }
    }

    /// Says whether one waits. From any context.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.word.load(Ordering::Acquire) >= ONE
    }

    /// Takes one. From task context.
    pub fn take(&self) -> Option<Sei> {
        loop {
            let old = self.word.load(Ordering::Acquire);
            let left = old.checked_sub(ONE)?;
            let pc = self.el2_pc.load(Ordering::Relaxed);
            let new = if left < ONE { 0 } else { left };
            // An SEI in between is one more; no SEI, no repetition.
            if self.word.replace(old, new, Ordering::AcqRel) {
                return Some(Sei {
                    iss: (old & ISS) as u32,
                    el2_pc: (old & AT_EL2 != 0).then_some(pc),
                });
            }
        }
    }
}

impl Default for PutOff {
    fn default() -> Self {
        Self::new()
    }
}
