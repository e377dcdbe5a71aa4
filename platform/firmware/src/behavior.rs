// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the firmware misbehaves when it is told to: each way has a name, and ways add up.
//!
//! `docs/sei-contract.md` 11 says for each what the firmware does wrong and what the hypervisor
//! makes of it. A firmware that nobody told anything conforms. Pure: `errors` asks, and acts.

use core::fmt;

use firebreak_contract::{
    Act, Kind, OverlayPolicy, Route, Severity, Taken, hcr, overlay, route, spsr,
};

use crate::errors::Context;

/// One way to break the contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Mode {
    /// An SEI is delivered although SPSR_EL3.A masks it.
    BargeIn = 1 << 0,
    /// An SEA of the level that also takes it keeps the class of a lower level.
    StaleEc = 1 << 1,
    /// HCR_EL2.TEA routes an SEI, where AMO should.
    RoutesByTea = 1 << 2,
    /// There is no triage: whatever can be delivered is notified, uncontainable or not.
    NotifiesUncontainable = 1 << 3,
    /// The firmware deals with the error by itself: time passes, and nobody is told.
    HandledInFirmware = 1 << 4,
    /// The SEI comes without the record that the firmware has.
    NoRecord = 1 << 5,
    /// The block is written again before its record was acknowledged.
    EarlyOverwrite = 1 << 6,
    /// Two PEs report the error, and meet in EL3 before either returns.
    CrossPe = 1 << 7,
    /// A deferred error is tried again [`SLOW_FACTOR`] times as late.
    SlowRetry = 1 << 8,
    /// The last section claims to be longer than the block.
    LyingLengths = 1 << 9,
    /// The block says `corrected`, whatever its sections say.
    LyingSeverities = 1 << 10,
    /// The memory section names an address where there is nothing.
    LyingAddresses = 1 << 11,
}

/// How much later than it should a slow firmware tries again.
pub const SLOW_FACTOR: u64 = 10_000;

impl Mode {
    /// All of them, with their words in the protocol.
    pub const NAMES: &'static [(Self, &'static str)] = &[
        (Self::BargeIn, "barge-in"),
        (Self::StaleEc, "stale-ec"),
        (Self::RoutesByTea, "routes-by-tea"),
        (Self::NotifiesUncontainable, "notifies-uncontainable"),
        (Self::HandledInFirmware, "handled-in-firmware"),
        (Self::NoRecord, "no-record"),
        (Self::EarlyOverwrite, "early-overwrite"),
        (Self::CrossPe, "cross-pe"),
        (Self::SlowRetry, "slow-retry"),
        (Self::LyingLengths, "lying-lengths"),
        (Self::LyingSeverities, "lying-severities"),
        (Self::LyingAddresses, "lying-addresses"),
    ];
}

/// Word of the protocol for a firmware that keeps to the contract.
const CONFORMING: &str = "conforming";
/// Word of the protocol for all lies at once.
const LYING_RECORD: &str = "lying-record";
/// Joins two modes.
const PLUS: char = '+';

/// A set of modes; the empty one conforms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Modes(u16);

impl Modes {
    /// Keeps to the contract.
    pub const CONFORMING: Self = Self(0);

    /// Makes a set from its raw form; bits that name no mode are dropped.
    pub fn from_raw(raw: u16) -> Self {
        let all = Mode::NAMES
            .iter()
            .fold(0, |all, (mode, _)| all | *mode as u16);
        Self(raw & all)
    }

    /// Returns the set as one number, to be kept in an atomic.
    pub const fn to_raw(self) -> u16 {
        self.0
    }

    /// Says whether the set has this mode.
    pub const fn has(self, mode: Mode) -> bool {
        self.0 & mode as u16 != 0
    }

    /// Returns the set with this mode added.
    #[must_use]
    pub const fn with(self, mode: Mode) -> Self {
        Self(self.0 | mode as u16)
    }

    /// All ways in which a record can lie.
    pub const LYING_RECORD: Self = Self::CONFORMING
        .with(Mode::LyingLengths)
        .with(Mode::LyingSeverities)
        .with(Mode::LyingAddresses);

    /// Returns the modes of both sets.
    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Reads `conforming`, or names joined by `+`; `lying-record` stands for all three lies.
    /// `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text == CONFORMING {
            return Some(Self::CONFORMING);
        }
        text.split(PLUS).try_fold(Self::CONFORMING, |modes, word| {
            if word == LYING_RECORD {
                return Some(modes.and(Self::LYING_RECORD));
            }
            let (mode, _) = Mode::NAMES.iter().find(|(_, name)| *name == word)?;
            Some(modes.with(*mode))
        })
    }
}

impl fmt::Display for Modes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Mode::NAMES.iter().filter(|(mode, _)| self.has(*mode));
        let Some((_, first)) = names.next() else {
            return f.write_str(CONFORMING);
        };
        f.write_str(first)?;
        names.try_for_each(|(_, name)| write!(f, "{PLUS}{name}"))
    }
}

/// Decides what the firmware does with an SEI of this severity that struck here.
pub fn act(modes: Modes, severity: Severity, context: &Context, policy: &OverlayPolicy) -> Act {
    let mut taken = Taken::new(Kind::Sei, context.spsr, context.hcr_el2);
    taken.tmea = context.tmea;
    if modes.has(Mode::BargeIn) {
        taken.spsr_el3 &= !spsr::A;
    }
    if modes.has(Mode::RoutesByTea) {
        let by_tea = taken.hcr_el2 & hcr::TEA != 0;
        taken.hcr_el2 = taken.hcr_el2 & !hcr::AMO | if by_tea { hcr::AMO } else { 0 };
    }
    let route = route(&taken);
    match route {
        Route::Deliver {
            target,
            vector_offset,
        } if modes.has(Mode::NotifiesUncontainable) => Act::Notify {
            target,
            vector_offset,
        },
        Route::Defer(reason) if modes.has(Mode::NotifiesUncontainable) => Act::Defer(reason),
        _ => overlay(severity, route, context.origin(), policy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebreak_contract::{DeferReason, Target, hcr};

    const READY: u64 = hcr::RW | hcr::AMO;
    const EL2H_MASKED: u64 = 0x3c9;

    fn context(spsr: u64, hcr_el2: u64) -> Context {
        Context {
            spsr,
            elr: 0,
            hcr_el2,
            tmea: false,
        }
    }

    fn decide(modes: &str, severity: Severity, spsr: u64, hcr_el2: u64) -> Act {
        let modes = Modes::parse(modes).unwrap();
        act(
            modes,
            severity,
            &context(spsr, hcr_el2),
            &OverlayPolicy::DEFAULT,
        )
    }

    #[test]
    fn every_set_of_modes_is_written_as_it_is_read() {
        let all = Mode::NAMES
            .iter()
            .fold(0, |all, (mode, _)| all | *mode as u16);
        for raw in 0..=all {
            let modes = Modes::from_raw(raw);
            assert_eq!(Modes::parse(&modes.to_string()), Some(modes), "{modes}");
            assert_eq!(Modes::from_raw(modes.to_raw()), modes);
        }
        for wrong in ["", "barge-in+", "+", "conforming+barge-in", "Barge-In"] {
            assert_eq!(Modes::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn routes_by_tea_sends_it_where_an_sea_would_go() {
        let to = |target, vector_offset| Act::Notify {
            target,
            vector_offset,
        };
        let with_tea = hcr::RW | hcr::TEA;
        for (spsr, hcr_el2, act) in [
            (0x005, READY, to(Target::El1, 0x380)),
            (0x000, READY, to(Target::El1, 0x580)),
            (0x105, READY, Act::Defer(DeferReason::Masked)),
            (0x105, with_tea, to(Target::El2, 0x580)),
            (0x105, with_tea | hcr::AMO, to(Target::El2, 0x580)),
            (0x009, READY, Act::Defer(DeferReason::NotReady)),
        ] {
            let got = decide("routes-by-tea", Severity::Restartable, spsr, hcr_el2);
            assert_eq!(got, act, "{spsr:#x} {hcr_el2:#x}");
        }
    }

    #[test]
    fn without_triage_the_worst_is_notified_and_only_routing_holds_it_back() {
        for severity in Severity::ALL {
            let lower = decide("notifies-uncontainable", severity, 0x3c5, READY);
            let same = decide("notifies-uncontainable", severity, 0x009, READY);
            let masked = decide("notifies-uncontainable", severity, EL2H_MASKED, READY);
            let both = decide(
                "notifies-uncontainable+barge-in",
                severity,
                EL2H_MASKED,
                READY,
            );
            let to_el2 = |vector_offset| Act::Notify {
                target: Target::El2,
                vector_offset,
            };
            assert_eq!((lower, same), (to_el2(0x580), to_el2(0x380)));
            assert_eq!(masked, Act::Defer(DeferReason::Masked));
            assert_eq!(both, to_el2(0x380));
        }
    }

    #[test]
    fn barge_in_ignores_the_mask_and_nothing_else() {
        let masked = decide("conforming", Severity::Restartable, EL2H_MASKED, READY);
        assert_eq!(masked, Act::Defer(DeferReason::Masked));
        for (sp, vector_offset) in [(0x3c9, 0x380), (0x3c8, 0x180)] {
            let notified = Act::Notify {
                target: Target::El2,
                vector_offset,
            };
            for severity in [
                Severity::Corrected,
                Severity::Restartable,
                Severity::Recoverable,
            ] {
                assert_eq!(decide("barge-in", severity, sp, READY), notified);
            }
        }
        // An EL2 that takes no SErrors yet has no vector to barge in by.
        let early = decide("barge-in", Severity::Restartable, EL2H_MASKED, hcr::RW);
        assert_eq!(early, Act::Defer(DeferReason::NotReady));
        // Triage still comes first.
        for severity in [Severity::Uncontainable, Severity::Unrecoverable] {
            let act = decide("barge-in", severity, EL2H_MASKED, READY);
            assert!(matches!(act, Act::ResetWithBert(_)), "{severity:?}");
        }
    }
}
