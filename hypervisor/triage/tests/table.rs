// SPDX-License-Identifier: MIT OR Apache-2.0
//! Triage over its whole abstract input space, against a second opinion.
//!
//! The second opinion is in `table/space.rs`, with the severity table as letters.

#[path = "table/space.rs"]
mod space;

use std::collections::BTreeSet;

use firebreak_abi::{Pa, VmId};
use firebreak_triage::{
    ContextVerdict, CperSeverity, Decision, Evidence, GuestEl, Interrupted, Iss, Owner,
    PageVerdict, Policy, Reaction, RecordSummary, Rule, Severity, triage,
};

use space::{INTERRUPTED, OWNERS, PA, effects, for_each_evidence, oracle, policy};

#[test]
fn every_evidence_under_every_policy_has_the_effects_that_the_design_names() {
    let mut cases = 0;
    for first in 0..8 {
        for second in 0..8 {
            let policies = [policy(first), policy(second)];
            for_each_evidence(|evidence, letter| {
                let decision = triage(evidence, &policies);
                assert_eq!(
                    effects(&decision),
                    oracle(evidence, letter, &policies),
                    "{evidence:?}\n{decision:?}"
                );
                cases += 1;
            });
        }
    }
    assert_eq!(cases, 8 * 8 * 11 * 6 * 2 * 4 * 20 * 4);
}

#[test]
fn severities_are_those_of_the_letter_table() {
    for_each_evidence(|evidence, letter| {
        let expected = match letter {
            'C' => Severity::Corrected,
            'O' => Severity::Restartable,
            'R' => Severity::Recoverable,
            'L' => Severity::Unrecoverable,
            'I' => Severity::ImplementationDefined,
            '?' => Severity::Uncategorized,
            _ => Severity::Uncontainable,
        };
        assert_eq!(triage(evidence, &[]).severity, expected, "{evidence:?}");
    });
}

#[test]
fn nobody_but_the_interrupted_partition_and_the_owner_is_ever_hit() {
    for first in 0..8 {
        let policies = [policy(first), policy(first + 3), policy(first + 5)];
        for_each_evidence(|evidence, _| {
            let mut allowed = BTreeSet::new();
            if let Interrupted::Guest { vm, .. } = evidence.interrupted {
                allowed.insert(vm);
            }
            if let (Some(_), Some(Owner::Partition(vm) | Owner::Stage2Tables(vm))) =
                (evidence.page(), evidence.owner)
            {
                allowed.insert(vm);
            }
            let decision = triage(evidence, &policies);
            let effects = effects(&decision);
            let told = effects.told.iter().map(|(vm, _)| vm);
            let hit: BTreeSet<VmId> = effects
                .killed
                .iter()
                .chain(&effects.restarted)
                .chain(&effects.retired)
                .chain(&effects.retired_early)
                .chain(told)
                .copied()
                .collect();
            assert!(hit.is_subset(&allowed), "{evidence:?}\n{decision:?}");
            if effects.retired_shared {
                assert_eq!(evidence.owner, Some(Owner::Shared));
            }
        });
    }
}

#[test]
fn no_policy_can_forbid_a_reset_or_force_one() {
    for_each_evidence(|evidence, letter| {
        let by_default = triage(evidence, &[]);
        let reset = by_default.context == ContextVerdict::ResetMachine;
        assert!(reset || letter != 'U', "UC always resets");
        assert!(!reset || letter != 'C', "CE never resets");
        for turn in 0..8 {
            let decision = triage(evidence, &[policy(turn), policy(turn + 1)]);
            assert_eq!(decision.context == ContextVerdict::ResetMachine, reset);
            if reset {
                assert_eq!(decision.page, PageVerdict::None);
                assert_eq!(decision, by_default);
            }
        }
    });
}

#[test]
fn a_corrected_error_stops_nobody_and_a_ueu_resumes_nobody() {
    for turn in 0..8 {
        for_each_evidence(|evidence, letter| {
            let decision = triage(evidence, &[policy(turn), policy(turn + 2)]);
            match letter {
                'C' => assert_eq!(decision.stops(), [None, None]),
                'L' => assert!(
                    !matches!(
                        decision.context,
                        ContextVerdict::Resume | ContextVerdict::Inject { .. }
                    ),
                    "{evidence:?}\n{decision:?}"
                ),
                // Told at least, unless it was not theirs.
                'R' if matches!(evidence.interrupted, Interrupted::Guest { .. }) => {
                    let not_theirs = [
                        Rule::ForeignPage,
                        Rule::Stage2Tables,
                        Rule::Payload,
                        Rule::PoolFrame,
                        Rule::PersistentLog,
                        Rule::UnusedMemory,
                    ];
                    assert!(
                        decision.context != ContextVerdict::Resume
                            || not_theirs.contains(&decision.rule)
                    );
                }
                _ => {}
            }
        });
    }
}

#[test]
fn by_default_a_worse_error_is_never_answered_more_mildly() {
    let rank = |decision: Decision| match decision.context {
        ContextVerdict::Resume => 0,
        ContextVerdict::Inject { .. } => 1,
        ContextVerdict::Restart { .. } | ContextVerdict::Kill { .. } => 2,
        ContextVerdict::ResetMachine => 3,
    };
    let mildest_first = [Iss::CE, Iss::UEO, Iss::UER, Iss::UEU, Iss::IMPDEF, Iss::UC];
    for interrupted in INTERRUPTED {
        for owner in OWNERS {
            let ranks = mildest_first.map(|iss| {
                let severity = CperSeverity::Informational;
                let record = Some(RecordSummary {
                    severity,
                    pa: Some(PA),
                });
                let evidence = Evidence {
                    iss: Some(iss),
                    sync: false,
                    record,
                    interrupted,
                    owner,
                    corrected_on_page: 0,
                };
                rank(triage(&evidence, &[]))
            });
            assert!(ranks.is_sorted(), "{interrupted:?} {owner:?} {ranks:?}");
        }
    }
}

#[test]
fn without_an_address_the_owner_does_not_count() {
    for_each_evidence(|evidence, _| {
        if evidence.page().is_none() {
            let ownerless = Evidence {
                owner: None,
                ..*evidence
            };
            assert_eq!(triage(evidence, &[]), triage(&ownerless, &[]));
        }
    });
}

#[test]
fn every_rule_is_reached_and_names_are_words_of_their_own() {
    let mut reached = BTreeSet::new();
    for_each_evidence(|evidence, _| {
        reached.insert(triage(evidence, &[]).rule.name());
        reached.insert(triage(evidence, &[policy(0), policy(0)]).rule.name());
    });
    let all: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(all.len(), Rule::ALL.len());
    // What the notification itself destroyed is found out after triage.
    reached.insert(Rule::ContextDestroyed.name());
    assert_eq!(reached, all);
    for rule in Rule::ALL {
        assert!(
            rule.name()
                .bytes()
                .all(|b| b == b'-' || b.is_ascii_lowercase())
        );
        assert!(rule.sentence().ends_with('.'));
    }
}

#[test]
fn a_rule_is_found_by_its_name_alone() {
    for rule in Rule::ALL {
        assert_eq!(Rule::from_name(rule.name()), Some(rule));
    }
    for other in ["", "own", "own-page ", "Own-Page"] {
        assert_eq!(Rule::from_name(other), None);
    }
}

#[test]
fn every_owner_has_a_word_of_its_own_and_a_consequence() {
    let all = Owner::all(VmId(0));
    let names: BTreeSet<_> = all.iter().map(|owner| owner.name()).collect();
    assert_eq!(names.len(), all.len());
    assert!(all.iter().all(|owner| owner.consequence().ends_with('.')));
    for owner in OWNERS.into_iter().flatten() {
        assert!(names.contains(owner.name()), "{owner:?}");
    }
}

#[test]
fn the_evidence_says_which_side_brought_the_severity() {
    for_each_evidence(|evidence, _| {
        let severity = evidence.severity();
        let sides = [evidence.syndrome_severity(), evidence.record_severity()];
        assert_eq!(sides[0].is_some(), evidence.iss.is_some());
        assert_eq!(sides[1].is_some(), evidence.record.is_some());
        // The worse of the two, but for "recoverable" beside UEO, and where there is no record.
        if sides == [Some(Severity::Restartable), Some(Severity::Recoverable)] {
            assert_eq!(severity, Severity::Restartable);
        } else if evidence.record.is_some() {
            assert_eq!(Some(severity), sides.into_iter().flatten().max());
        }
    });
}

#[test]
fn the_verdicts_of_the_demonstration_are_these() {
    let linux = Policy {
        ueo: Reaction::Inject(None),
        impdef: Reaction::Inject(Some(Iss::IMPDEF)),
        ..Policy::DEFAULT
    };
    let policies = [linux, Policy::DEFAULT];
    let ask = |vm, iss, severity, pa: Option<Pa>| {
        let evidence = Evidence {
            iss: Some(iss),
            sync: false,
            record: Some(RecordSummary { severity, pa }),
            interrupted: Interrupted::Guest {
                vm: VmId(vm),
                el: GuestEl::El1,
            },
            owner: Some(Owner::Partition(VmId(vm))),
            corrected_on_page: 1,
        };
        triage(&evidence, &policies)
    };
    let decision = ask(0, Iss::CE, CperSeverity::Corrected, Some(PA));
    assert_eq!(
        (decision.verdict_name(), decision.context),
        ("log", ContextVerdict::Resume)
    );
    let decision = ask(1, Iss::UER, CperSeverity::Recoverable, Some(PA));
    assert_eq!(decision.verdict_name(), "retire");
    assert_eq!(
        decision.context,
        ContextVerdict::Inject {
            vm: VmId(1),
            iss: Iss::UER
        }
    );
    assert_eq!(decision.retires(), Some((VmId(1), PA)));
    let decision = ask(0, Iss::UEO, CperSeverity::Recoverable, None);
    assert_eq!(
        decision.context,
        ContextVerdict::Inject {
            vm: VmId(0),
            iss: Iss::UEO
        }
    );
    let decision = ask(0, Iss::IMPDEF, CperSeverity::Recoverable, None);
    assert_eq!(
        decision.context,
        ContextVerdict::Inject {
            vm: VmId(0),
            iss: Iss::IMPDEF
        }
    );
    assert_eq!(decision.verdict_name(), "inject");
    let decision = ask(1, Iss::UEU, CperSeverity::Recoverable, None);
    assert_eq!(decision.stops(), [Some((VmId(1), false)), None]);
    assert_eq!(decision.verdict_name(), "kill");
    let decision = ask(1, Iss::UC, CperSeverity::Fatal, None);
    assert_eq!(decision.verdict_name(), "reset");
}

#[test]
fn a_decision_fits_into_a_few_registers() {
    assert!(size_of::<Decision>() <= 48, "{}", size_of::<Decision>());
    assert!(size_of::<Evidence>() <= 48, "{}", size_of::<Evidence>());
}
