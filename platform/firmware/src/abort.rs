// SPDX-License-Identifier: MIT OR Apache-2.0
//! Synchronous external aborts: how an SEA differs from an SEI on its way to its target.
//!
//! `errors` asks; the contract crate routes and re-encodes. An SEA cannot wait: the instruction
//! that met the error has to be answered for before anything else happens on that PE.

use firebreak_contract::{
    Act, Kind, Origin, OverlayPolicy, ResetReason, Severity, Taken, Target, esr_for_sea, hcr,
    overlay, route,
};
use firebreak_syndrome::{AbortFsc, Ec, Esr, Iss};

use crate::errors::Context;

/// FnV: FAR_ELx is not valid. Defined off table walks alone (Arm ARM D24.2, ESR_ELx).
const FNV: u32 = 1 << 10;
/// xFSC, ISS\[5:0\].
const FSC: u32 = 0x3f;

/// What makes an error a synchronous one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abort {
    /// Met by an instruction fetch; otherwise by a data access.
    pub fetch: bool,
    /// Virtual address, if it is known.
    pub far: Option<u64>,
}

impl Abort {
    /// Returns the syndrome that goes with this address: FnV says whether FAR_ELx is valid.
    ///
    /// `None` for what is no external abort, and for one on a table walk without an address: its
    /// syndrome has no way to say that there is none.
    pub const fn syndrome(self, iss: Iss) -> Option<Iss> {
        let raw = iss.get();
        match (
            AbortFsc::from_bits((raw & FSC).to_le_bytes()[0]),
            self.far.is_some(),
        ) {
            (AbortFsc::External, true) => Iss::new(raw & !FNV),
            (AbortFsc::External, false) => Iss::new(raw | FNV),
            (AbortFsc::ExternalOnWalk(_), true) => Some(iss),
            _ => None,
        }
    }

    /// Returns ESR_EL3 as hardware would have written it: always the class of a lower level.
    const fn esr_el3(self, iss: Iss) -> u64 {
        let ec = if self.fetch {
            Ec::IABT_LOWER
        } else {
            Ec::DABT_LOWER
        };
        Esr::build(ec, true, iss).raw()
    }

    /// Returns ESR_ELx for the target. `stale`: EL3's class is handed on as it is, which is wrong
    /// for an abort that its own level takes.
    pub const fn esr(self, iss: Iss, from: Origin, to: Target, stale: bool) -> u64 {
        let from = match (stale, from) {
            (true, Origin::El2) => Origin::El1,
            (true, Origin::El1) => Origin::El0,
            (_, from) => from,
        };
        match esr_for_sea(self.esr_el3(iss), from, to) {
            Some(esr) => esr,
            // Not reached: `esr_el3` builds nothing but aborts.
            None => self.esr_el3(iss),
        }
    }
}

/// Decides what the firmware does with an SEA of this severity that struck here.
///
/// An EL2 that has not set HCR_EL2.AMO has no vectors that anybody could count on.
pub fn act(severity: Severity, context: &Context, policy: &OverlayPolicy) -> Act {
    let from = context.origin();
    if from == Origin::El2 && context.hcr_el2 & hcr::AMO == 0 {
        return Act::ResetWithBert(ResetReason::CannotWait);
    }
    let mut taken = Taken::new(Kind::Sea, context.spsr, context.hcr_el2);
    taken.tmea = context.tmea;
    overlay(severity, route(&taken), from, policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: Abort = Abort {
        fetch: false,
        far: Some(0x4000),
    };
    const FETCH: Abort = Abort {
        fetch: true,
        far: None,
    };
    const EL2H: u64 = 0x2c9;
    const EL2T_MASKED: u64 = 0x3c8;
    const EL1H: u64 = 0x3c5;
    const EL0: u64 = 0;

    fn decide(spsr: u64, hcr_el2: u64) -> Act {
        let context = Context {
            spsr,
            elr: 0,
            hcr_el2,
            tmea: false,
        };
        act(Severity::Recoverable, &context, &OverlayPolicy::DEFAULT)
    }

    #[test]
    fn the_class_is_re_encoded_for_the_target_and_a_stale_one_is_not() {
        let iss = Iss::new(0x50).unwrap();
        let cases = [
            (DATA, Origin::El2, Target::El2, false, 0x25),
            (DATA, Origin::El2, Target::El2, true, 0x24),
            (DATA, Origin::El1, Target::El2, false, 0x24),
            (DATA, Origin::El1, Target::El2, true, 0x24),
            (DATA, Origin::El1, Target::El1, false, 0x25),
            (DATA, Origin::El1, Target::El1, true, 0x24),
            (FETCH, Origin::El2, Target::El2, false, 0x21),
            (FETCH, Origin::El2, Target::El2, true, 0x20),
            (FETCH, Origin::El0, Target::El1, false, 0x20),
        ];
        for (abort, from, to, stale, class) in cases {
            let esr = abort.esr(iss, from, to, stale);
            assert_eq!(
                esr,
                class << 26 | 1 << 25 | 0x50,
                "{abort:?} {from:?} {stale}"
            );
        }
    }

    #[test]
    fn fnv_follows_the_address_and_what_is_no_external_abort_is_refused() {
        let with = |raw| DATA.syndrome(Iss::new(raw).unwrap()).map(Iss::get);
        let without = |raw| FETCH.syndrome(Iss::new(raw).unwrap()).map(Iss::get);
        assert_eq!(with(0x450), Some(0x50));
        assert_eq!(without(0x10), Some(0x410));
        assert_eq!(with(0x17), Some(0x17));
        for fsc in [0x13, 0x14, 0x07, 0x11, 0] {
            assert_eq!(without(fsc), None, "{fsc:#x}");
        }
        assert_eq!(with(0x07), None);
    }

    #[test]
    fn an_abort_is_routed_by_tea_never_masked_and_never_early() {
        let notify = |target, vector_offset| Act::Notify {
            target,
            vector_offset,
        };
        let ready = hcr::RW | hcr::AMO | hcr::TEA;
        assert_eq!(decide(EL0, ready), notify(Target::El2, 0x400));
        assert_eq!(decide(EL1H, ready), notify(Target::El2, 0x400));
        assert_eq!(decide(EL1H, hcr::RW | hcr::AMO), notify(Target::El1, 0x200));
        assert_eq!(decide(EL2H, ready), notify(Target::El2, 0x200));
        assert_eq!(decide(EL2T_MASKED, ready), notify(Target::El2, 0x000));
        assert_eq!(
            decide(EL2H, hcr::RW | hcr::TEA),
            Act::ResetWithBert(ResetReason::CannotWait)
        );
    }
}
