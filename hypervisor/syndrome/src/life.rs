// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of a virtual SError, from what registers show at a later look.
//!
//! Hardware delivers a virtual SError without an exit: it clears HCR_EL2.VSE when the guest takes
//! the exception, or when the guest's ESB defers it into VDISR_EL2 (Arm ARM D20.5.1). Which of
//! the two it was has to be read off the guest's own registers, which the guest goes on using.

use crate::{Ec, Esr, Iss};

/// VDISR_EL2.A: an SError was deferred.
const VDISR_A: u64 = 1 << 31;
const PSTATE_A: u64 = 1 << 8;

/// The registers at the time of the look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// HCR_EL2.VSE.
    pub vse: bool,
    /// Syndrome of the injection; `None` where it could not be chosen (no FEAT_RAS).
    pub iss: Option<Iss>,
    /// VDISR_EL2 when the injection was made.
    pub vdisr_before: u64,
    /// VDISR_EL2 now; 0 without FEAT_RAS.
    pub vdisr: u64,
    /// ESR_EL1 now.
    pub esr_el1: u64,
}

/// How far it got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// The guest has not taken it.
    Pending,
    /// The guest took it.
    Taken,
    /// The guest's ESB deferred it.
    Deferred,
    /// One of the two; which of them has been overwritten since.
    Gone,
}

impl Look {
    /// Decides. Deferred needs a VDISR_EL2 that changed, taken an ESR_EL1 that is the injection's.
    pub const fn life(&self) -> Life {
        if self.vse {
            return Life::Pending;
        }
        if self.vdisr & VDISR_A != 0 && self.vdisr != self.vdisr_before {
            return Life::Deferred;
        }
        let esr = Esr::from_raw(self.esr_el1);
        let taken = match self.iss {
            Some(iss) => esr.raw() == Esr::serror(iss).raw(),
            None => esr.ec().bits() == Ec::SERROR.bits(),
        };
        if taken { Life::Taken } else { Life::Gone }
    }
}

/// Says whether a guest takes a virtual SError before its next instruction: PSTATE.A is clear
/// (Arm ARM D1.3.4: it is masked by nothing else at EL1 and EL0).
#[inline]
pub const fn takes_serror_at_once(pstate: u64) -> bool {
    pstate & PSTATE_A == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Look = Look {
        vse: false,
        iss: Some(Iss::UER),
        vdisr_before: 0,
        vdisr: 0,
        esr_el1: 0,
    };

    #[test]
    fn vse_alone_says_that_it_is_pending() {
        for vdisr in [0, VDISR_A | 0xc11] {
            for esr_el1 in [0, Esr::serror(Iss::UER).raw()] {
                let look = Look {
                    vse: true,
                    vdisr,
                    esr_el1,
                    ..LOOK
                };
                assert_eq!(look.life(), Life::Pending);
            }
        }
    }

    #[test]
    fn a_deferred_one_shows_in_vdisr_and_not_for_the_one_before_it() {
        let vdisr = VDISR_A | 0xc11;
        assert_eq!(Look { vdisr, ..LOOK }.life(), Life::Deferred);
        let old = Look {
            vdisr,
            vdisr_before: vdisr,
            ..LOOK
        };
        assert_eq!(old.life(), Life::Gone);
        // Bits without A are nothing that was deferred.
        assert_eq!(
            Look {
                vdisr: 0xc11,
                ..LOOK
            }
            .life(),
            Life::Gone
        );
    }

    #[test]
    fn a_taken_one_shows_in_esr_el1_with_its_own_syndrome() {
        for (iss, esr_el1, life) in [
            (Some(Iss::UER), 0xbe00_0c11, Life::Taken),
            (Some(Iss::UER), 0xbe00_0811, Life::Gone),
            (Some(Iss::IMPDEF), 0xbf00_0000, Life::Taken),
            (Some(Iss::UNCATEGORIZED), 0xbe00_0000, Life::Taken),
            // A system call since.
            (Some(Iss::UER), 0x5600_0000, Life::Gone),
            (None, 0xbe00_0000, Life::Taken),
            (None, 0xbf00_1234, Life::Taken),
            (None, 0x9600_0010, Life::Gone),
        ] {
            let look = Look {
                iss,
                esr_el1,
                ..LOOK
            };
            assert_eq!(look.life(), life, "{iss:?} {esr_el1:#x}");
        }
    }

    #[test]
    fn only_pstate_a_masks() {
        assert!(takes_serror_at_once(0));
        assert!(takes_serror_at_once(0b10_1100_0101 & !(1 << 8)));
        assert!(!takes_serror_at_once(0x3c5));
        assert!(!takes_serror_at_once(1 << 8));
    }
}
