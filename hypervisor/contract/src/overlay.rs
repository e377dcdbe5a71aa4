// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether an error may be notified at all: the firmware's own triage, which comes first.

use firebreak_syndrome::Severity;

use crate::route::{DeferReason, Origin, PanicReason, Route, Target};

/// What the firmware does with an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Enter `target` at VBAR + `vector_offset`.
    Notify {
        /// The level.
        target: Target,
        /// Offset from that level's VBAR, in bytes.
        vector_offset: u16,
    },
    /// Keep the record, with the pending word set, and try again.
    Defer(DeferReason),
    /// Count it; nobody is told.
    LogOnly,
    /// Write the boot error record and reset the machine.
    ResetWithBert(ResetReason),
}

/// Why the machine is reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetReason {
    /// The error is uncontainable, or nothing says that it is contained.
    Uncontainable,
    /// The level that would handle the error is the one that it destroyed.
    ContextLost,
    /// The error may not wait, and its target cannot take it now.
    CannotWait,
    /// Nobody can take it.
    NoTarget(PanicReason),
    /// It waited for longer than the limit allows.
    DeferralLimit,
    /// EL2 asked for the reset.
    FatalCall,
}

impl ResetReason {
    /// Returns the word of the `fw: reset` line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uncontainable => "uncontainable",
            Self::ContextLost => "context-lost",
            Self::CannotWait => "cannot-wait",
            Self::NoTarget(_) => "no-target",
            Self::DeferralLimit => "deferral-limit",
            Self::FatalCall => "fatal-call",
        }
    }
}

/// What to do with an implementation defined error (IDS=1, or no FEAT_RAS and no record).
///
/// Cores before FEAT_RAS report every SError this way, so an unconditional reset would be too
/// much for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImpdefPolicy {
    /// From EL0 and EL1 it is notified, and EL2 ends that partition; from EL2 the machine is
    /// reset. The default.
    ByOrigin,
    /// The machine is reset.
    Reset,
    /// It is notified wherever it can be delivered.
    Notify,
}

/// What to do with a corrected error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CorrectedPolicy {
    /// It is notified like any other, or deferred. The default, because the reference firmware
    /// has no other notification.
    Notify,
    /// It is only counted, because another channel (an interrupt, polling) reports it.
    LogOnly,
}

/// What to do with a UER whose target cannot take it now.
///
/// The interrupted context cannot go on before somebody has dealt with the error, so the
/// firmware cannot simply return to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaskedUerPolicy {
    /// The machine is reset. The default.
    Reset,
    /// The firmware can park a PE that was interrupted at EL0 or EL1 until the target takes the
    /// error; from EL2 the machine is reset.
    Park,
    /// It waits like a UEO. Only for errors of which the firmware knows that nothing consumed
    /// them, as those that it was told to simulate.
    Defer,
}

/// The knobs of [`overlay`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OverlayPolicy {
    /// For implementation defined errors.
    pub impdef: ImpdefPolicy,
    /// For corrected errors.
    pub corrected: CorrectedPolicy,
    /// For a UER whose target cannot take it now.
    pub masked_uer: MaskedUerPolicy,
}

impl OverlayPolicy {
    /// What the reference firmware does.
    pub const DEFAULT: Self = Self {
        impdef: ImpdefPolicy::ByOrigin,
        corrected: CorrectedPolicy::Notify,
        masked_uer: MaskedUerPolicy::Reset,
    };
}

impl Default for OverlayPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Decides what the firmware does with an error of this severity that would go this way.
///
/// `severity` is [`Severity::of`] the syndrome and the record. `from` is the interrupted level;
/// [`Route::Panic`] with [`PanicReason::IllegalState`] may come with any.
pub const fn overlay(
    severity: Severity,
    route: Route,
    from: Origin,
    policy: &OverlayPolicy,
) -> Act {
    use Severity as S;
    match (severity, route) {
        // First of all: what is not contained is not for anyone else to handle.
        (S::Uncontainable | S::Uncategorized, _) => Act::ResetWithBert(ResetReason::Uncontainable),
        (S::ImplementationDefined, _) if matches!(policy.impdef, ImpdefPolicy::Reset) => {
            Act::ResetWithBert(ResetReason::Uncontainable)
        }
        // A corrected error hurt nobody: no reset, wherever it was taken.
        (S::Corrected, _) if matches!(policy.corrected, CorrectedPolicy::LogOnly) => Act::LogOnly,
        (S::Corrected, Route::Panic(_)) => Act::LogOnly,
        (_, Route::Panic(reason)) => Act::ResetWithBert(ResetReason::NoTarget(reason)),

        (
            _,
            Route::Deliver {
                target,
                vector_offset,
            },
        ) => {
            let lost = match severity {
                S::Unrecoverable => target.is_same_level(from),
                S::ImplementationDefined => {
                    matches!(policy.impdef, ImpdefPolicy::ByOrigin) && matches!(from, Origin::El2)
                }
                _ => false,
            };
            if lost {
                Act::ResetWithBert(ResetReason::ContextLost)
            } else {
                Act::Notify {
                    target,
                    vector_offset,
                }
            }
        }
        (S::Corrected | S::Restartable, Route::Defer(reason)) => Act::Defer(reason),
        (S::Recoverable, Route::Defer(reason)) => match (policy.masked_uer, from) {
            (MaskedUerPolicy::Defer, _) | (MaskedUerPolicy::Park, Origin::El0 | Origin::El1) => {
                Act::Defer(reason)
            }
            _ => Act::ResetWithBert(ResetReason::CannotWait),
        },
        (S::Unrecoverable | S::ImplementationDefined, Route::Defer(_)) => {
            Act::ResetWithBert(ResetReason::CannotWait)
        }
    }
}
