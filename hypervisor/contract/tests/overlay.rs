// SPDX-License-Identifier: MIT OR Apache-2.0
//! The severity overlay, cell by cell, and the words of its answers.

use firebreak_contract::{
    Act, CorrectedPolicy, DeferReason, ImpdefPolicy, MaskedUerPolicy, Origin, OverlayPolicy,
    PanicReason, ResetReason, Route, Severity, Target, overlay,
};

const fn deliver(target: Target, vector_offset: u16) -> Route {
    Route::Deliver {
        target,
        vector_offset,
    }
}

/// Where an error comes from and where it would go: the columns of [`TABLE`].
const COLUMNS: [(Origin, Route); 11] = [
    (Origin::El0, deliver(Target::El2, 0x580)),
    (Origin::El1, deliver(Target::El2, 0x580)),
    (Origin::El0, deliver(Target::El1, 0x580)),
    (Origin::El1, deliver(Target::El1, 0x380)),
    (Origin::El2, deliver(Target::El2, 0x380)),
    (Origin::El0, Route::Defer(DeferReason::Masked)),
    (Origin::El1, Route::Defer(DeferReason::Masked)),
    (Origin::El2, Route::Defer(DeferReason::Masked)),
    (Origin::El2, Route::Defer(DeferReason::NotReady)),
    (Origin::El3, Route::Panic(PanicReason::FromEl3)),
    (Origin::El1, Route::Panic(PanicReason::Aarch32Target)),
];

/// N notify, D defer, L log only, U reset (uncontainable), C reset (context lost),
/// W reset (cannot wait), P reset (no target). A knob's cells are small letters.
///
/// i: N by origin; c: C by origin, otherwise notify; p: D when the PE can be parked, or UER may
/// be deferred, else W; e: D when UER may be deferred, else W; n, d: L when corrected errors are
/// only logged.
const TABLE: [(Severity, &str); 7] = [
    (Severity::Uncontainable, "UUUUUUUUUUU"),
    (Severity::Uncategorized, "UUUUUUUUUUU"),
    (Severity::ImplementationDefined, "iiiicWWWWPP"),
    (Severity::Unrecoverable, "NNNCCWWWWPP"),
    (Severity::Recoverable, "NNNNNppeePP"),
    (Severity::Restartable, "NNNNNDDDDPP"),
    (Severity::Corrected, "nnnnnddddLL"),
];

fn expected(letter: char, severity: Severity, route: Route, policy: &OverlayPolicy) -> Act {
    let notify = || match route {
        Route::Deliver {
            target,
            vector_offset,
        } => Act::Notify {
            target,
            vector_offset,
        },
        other => panic!("{other:?}"),
    };
    let defer = || match route {
        Route::Defer(reason) => Act::Defer(reason),
        other => panic!("{other:?}"),
    };
    let cannot_wait = Act::ResetWithBert(ResetReason::CannotWait);
    if severity == Severity::ImplementationDefined && policy.impdef == ImpdefPolicy::Reset {
        return Act::ResetWithBert(ResetReason::Uncontainable);
    }
    let log_only = policy.corrected == CorrectedPolicy::LogOnly;
    match letter {
        'U' => Act::ResetWithBert(ResetReason::Uncontainable),
        'C' => Act::ResetWithBert(ResetReason::ContextLost),
        'c' if policy.impdef == ImpdefPolicy::ByOrigin => {
            Act::ResetWithBert(ResetReason::ContextLost)
        }
        'W' => cannot_wait,
        'P' => match route {
            Route::Panic(reason) => Act::ResetWithBert(ResetReason::NoTarget(reason)),
            other => panic!("{other:?}"),
        },
        'p' if policy.masked_uer == MaskedUerPolicy::Reset => cannot_wait,
        'e' if policy.masked_uer != MaskedUerPolicy::Defer => cannot_wait,
        'n' | 'd' if log_only => Act::LogOnly,
        'L' => Act::LogOnly,
        'D' | 'd' | 'p' | 'e' => defer(),
        'N' | 'n' | 'i' | 'c' => notify(),
        other => panic!("{other}"),
    }
}

#[test]
fn every_cell_under_every_policy_is_as_the_table_says() {
    for impdef in [
        ImpdefPolicy::ByOrigin,
        ImpdefPolicy::Reset,
        ImpdefPolicy::Notify,
    ] {
        for corrected in [CorrectedPolicy::Notify, CorrectedPolicy::LogOnly] {
            for masked_uer in [
                MaskedUerPolicy::Reset,
                MaskedUerPolicy::Park,
                MaskedUerPolicy::Defer,
            ] {
                let policy = OverlayPolicy {
                    impdef,
                    corrected,
                    masked_uer,
                };
                for (severity, letters) in TABLE {
                    assert_eq!(letters.len(), COLUMNS.len());
                    for (letter, (from, route)) in letters.chars().zip(COLUMNS) {
                        assert_eq!(
                            overlay(severity, route, from, &policy),
                            expected(letter, severity, route, &policy),
                            "{severity} from {from:?} by {route:?} under {policy:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_severity_has_a_row() {
    for severity in Severity::ALL {
        assert_eq!(TABLE.iter().filter(|(row, _)| *row == severity).count(), 1);
    }
}

#[test]
fn words_of_the_protocol_are_fixed() {
    let resets = [
        (ResetReason::Uncontainable, "uncontainable"),
        (ResetReason::ContextLost, "context-lost"),
        (ResetReason::CannotWait, "cannot-wait"),
        (ResetReason::NoTarget(PanicReason::FromEl3), "no-target"),
        (ResetReason::DeferralLimit, "deferral-limit"),
        (ResetReason::FatalCall, "fatal-call"),
    ];
    for (reason, word) in resets {
        assert_eq!(reason.name(), word);
    }
    assert_eq!(DeferReason::Masked.name(), "masked");
    assert_eq!(DeferReason::NotReady.name(), "not-ready");
    assert_eq!(OverlayPolicy::default(), OverlayPolicy::DEFAULT);
}
