// SPDX-License-Identifier: MIT OR Apache-2.0
//! Triage over its whole abstract input space, against a second opinion.
//!
//! The oracle is written from the questions that the design asks, as effects on partitions and
//! pages, not as verdicts; it shares no code with the function. The severity table is letters.

use std::collections::BTreeSet;

use firebreak_abi::{Pa, VmId};
use firebreak_triage::{
    Class, ContextVerdict, CperSeverity, Decision, Evidence, GuestEl, Interrupted, Iss, Owner,
    PageVerdict, Part, Policy, Reaction, RecordSummary, Rule, Severity, triage,
};

const PA: Pa = Pa::new(0x4812_3040);
/// Corrected errors that retire a page, in these tests.
const LIMIT: u16 = 3;

/// Columns: no record, corrected, informational, recoverable, fatal, nonsense.
/// C CE, O UEO, R UER, L UEU ("lost"), I IMPDEF, ? uncategorized, U UC.
const SEVERITIES: [(Option<u32>, &str); 11] = [
    (None, "ICCRUU"),
    (Some(0x1811), "ICCRUU"),
    (Some(0x0811), "IOOOUU"),
    (Some(0x0c11), "IRRRUU"),
    (Some(0x0411), "ILLLUU"),
    (Some(0x100_0abc), "IIIIUU"),
    (Some(0x0000), "????UU"),
    (Some(0x0c12), "????UU"),
    (Some(0x0011), "UUUUUU"),
    (Some(0x1c11), "UUUUUU"),
    (Some(0x1011), "UUUUUU"),
];

const RECORDS: [Option<CperSeverity>; 6] = [
    None,
    Some(CperSeverity::Corrected),
    Some(CperSeverity::Informational),
    Some(CperSeverity::Recoverable),
    Some(CperSeverity::Fatal),
    Some(CperSeverity::Unknown(0x55)),
];

const INTERRUPTED: [Interrupted; 4] = [
    Interrupted::Guest {
        vm: VmId(0),
        el: GuestEl::El0,
    },
    Interrupted::Guest {
        vm: VmId(0),
        el: GuestEl::El1,
    },
    Interrupted::Hypervisor,
    Interrupted::Idle,
];

const OWNERS: [Option<Owner>; 20] = [
    None,
    Some(Owner::Partition(VmId(0))),
    Some(Owner::Partition(VmId(1))),
    Some(Owner::Partition(VmId(200))),
    Some(Owner::Shared),
    Some(Owner::Stage2Tables(VmId(0))),
    Some(Owner::Stage2Tables(VmId(1))),
    Some(Owner::Payload(VmId(0))),
    Some(Owner::Payload(VmId(1))),
    Some(Owner::Hypervisor(Part::Text)),
    Some(Owner::Hypervisor(Part::ReadOnly)),
    Some(Owner::Hypervisor(Part::Data)),
    Some(Owner::Hypervisor(Part::Stack)),
    Some(Owner::Hypervisor(Part::Tables)),
    Some(Owner::Hypervisor(Part::Pool)),
    Some(Owner::Hypervisor(Part::Log)),
    Some(Owner::Firmware),
    Some(Owner::Device),
    Some(Owner::Unused),
    Some(Owner::Unknown),
];

/// Memory without which nothing runs.
const VITAL: [&str; 6] = [
    "hypervisor-text",
    "hypervisor-rodata",
    "hypervisor-data",
    "hypervisor-stack",
    "hypervisor-tables",
    "firmware",
];
/// Memory that the hypervisor can stop using. (Stage-2 tables too, with their partition.)
const DISPENSABLE: [&str; 3] = ["payload", "hypervisor-pool", "hypervisor-log"];

fn reactions() -> [Reaction; 7] {
    [
        Reaction::Log,
        Reaction::Inject(None),
        Reaction::Inject(Iss::new(0x123)),
        Reaction::Retire(None),
        Reaction::Retire(Iss::new(0x456)),
        Reaction::Kill,
        Reaction::Restart,
    ]
}

/// Gives neighboring classes different reactions, so that the wrong class shows.
fn policy(turn: usize) -> Policy {
    let mut policy = Policy {
        corrected_limit: LIMIT,
        ..Policy::DEFAULT
    };
    for (index, class) in Class::ALL.into_iter().enumerate() {
        policy.set(class, reactions()[(index + turn) % 7]);
    }
    policy
}

/// Calls `check` with each evidence of the abstract space and its severity as a letter.
fn for_each_evidence(mut check: impl FnMut(&Evidence, char)) {
    for (iss, letters) in SEVERITIES {
        for (severity, letter) in RECORDS.into_iter().zip(letters.chars()) {
            for pa in [None, Some(PA)] {
                for interrupted in INTERRUPTED {
                    for owner in OWNERS {
                        for corrected_on_page in [0, LIMIT - 1, LIMIT, u16::MAX] {
                            let evidence = Evidence {
                                iss: iss.map(|raw| Iss::new(raw).unwrap()),
                                sync: false,
                                record: severity.map(|severity| RecordSummary { severity, pa }),
                                interrupted,
                                owner,
                                corrected_on_page,
                            };
                            check(&evidence, letter);
                        }
                    }
                }
            }
        }
    }
}

/// What happens to whom.
#[derive(Debug, Default, PartialEq, Eq)]
struct Effects {
    reset: bool,
    killed: BTreeSet<VmId>,
    restarted: BTreeSet<VmId>,
    told: BTreeSet<(VmId, Iss)>,
    retired: BTreeSet<VmId>,
    retired_early: BTreeSet<VmId>,
    retired_shared: bool,
    given_up: Option<&'static str>,
}

fn effects(decision: &Decision) -> Effects {
    let mut effects = Effects::default();
    match decision.context {
        ContextVerdict::Resume => {}
        ContextVerdict::Inject { vm, iss } => assert!(effects.told.insert((vm, iss))),
        ContextVerdict::Kill { vm } => assert!(effects.killed.insert(vm)),
        ContextVerdict::Restart { vm } => assert!(effects.restarted.insert(vm)),
        ContextVerdict::ResetMachine => effects.reset = true,
    }
    let page = match decision.page {
        PageVerdict::None | PageVerdict::Log { .. } => None,
        PageVerdict::Retire { vm, pa, inject } => {
            assert!(effects.retired.insert(vm));
            effects.told.extend(inject.map(|iss| (vm, iss)));
            Some(pa)
        }
        PageVerdict::RetireEarly { vm, pa, inject } => {
            assert!(effects.retired_early.insert(vm));
            effects.told.extend(inject.map(|iss| (vm, iss)));
            Some(pa)
        }
        PageVerdict::RetireShared { pa } => {
            effects.retired_shared = true;
            Some(pa)
        }
        PageVerdict::Inject { vm, iss } => {
            assert!(effects.told.insert((vm, iss)));
            None
        }
        PageVerdict::Kill { vm, pa } => {
            assert!(effects.killed.insert(vm) && effects.retired.insert(vm));
            Some(pa)
        }
        PageVerdict::Restart { vm, pa } => {
            assert!(effects.restarted.insert(vm) && effects.retired.insert(vm));
            Some(pa)
        }
        PageVerdict::StopOwner { vm, pa, again } => {
            let stopped = if again {
                &mut effects.restarted
            } else {
                &mut effects.killed
            };
            assert!(stopped.insert(vm));
            effects.given_up = Some("stage2-tables");
            Some(pa)
        }
        PageVerdict::GiveUp { owner, pa } => {
            effects.given_up = Some(owner.name());
            Some(pa)
        }
    };
    assert!(page.is_none_or(|pa| pa == PA));
    effects
}

/// What the design says, partition by partition.
fn oracle(evidence: &Evidence, letter: char, policies: &[Policy]) -> Effects {
    let reset = || Effects {
        reset: true,
        ..Effects::default()
    };
    let guest = match evidence.interrupted {
        Interrupted::Guest { vm, .. } => Some(vm),
        _ => None,
    };
    let has_address = evidence.record.is_some_and(|record| record.pa.is_some());
    let owner = if has_address { evidence.owner } else { None };
    let owning = match owner {
        Some(Owner::Partition(vm)) => Some(vm),
        _ => None,
    };
    let shared = owner == Some(Owner::Shared);
    let name = owner.map_or("none", Owner::name);
    let tables = match owner {
        Some(Owner::Stage2Tables(vm)) => Some(vm),
        _ => None,
    };
    if letter == 'U' || letter != 'C' && VITAL.contains(&name) {
        return reset();
    }
    if guest.is_none() {
        let recoverable = evidence.interrupted == Interrupted::Idle
            && !["none", "device", "unknown"].contains(&name);
        if "LI?".contains(letter) || letter == 'R' && !recoverable {
            return reset();
        }
    }
    let mut effects = Effects {
        retired_shared: shared && "RLI?".contains(letter),
        ..reset()
    };
    effects.reset = false;
    effects.given_up = given_up(evidence, letter, name, tables, policies);
    // Memory that the interrupted guest cannot have touched.
    let somebody_elses = owning.is_some() && owning != guest
        || !["partition", "shared", "none", "device", "unknown"].contains(&name);
    let concerned: BTreeSet<VmId> = guest.into_iter().chain(owning).chain(tables).collect();
    for vm in concerned {
        let interrupted = guest == Some(vm);
        if tables == Some(vm) && letter != 'C' {
            // Nothing can be mapped for it any more.
            let letter = if interrupted { letter } else { milder(letter) };
            stop(&mut effects, letter, vm, policies);
            continue;
        }
        let owns = owning == Some(vm);
        if !interrupted && !owns {
            continue;
        }
        if interrupted && somebody_elses && "COR".contains(letter) {
            continue;
        }
        let letter = if interrupted { letter } else { milder(letter) };
        one_partition(&mut effects, evidence, letter, vm, owns, policies);
    }
    effects
}

/// Who was not running has a bad page, and nothing worse.
fn milder(letter: char) -> char {
    if "LI?".contains(letter) { 'R' } else { letter }
}

fn policy_for(policies: &[Policy], vm: VmId) -> Policy {
    policies
        .get(usize::from(vm.0))
        .copied()
        .unwrap_or(Policy::DEFAULT)
}

fn given_up(
    evidence: &Evidence,
    letter: char,
    name: &'static str,
    tables: Option<VmId>,
    policies: &[Policy],
) -> Option<&'static str> {
    let limit = match (name, tables) {
        (_, Some(vm)) => policy_for(policies, vm).corrected_limit,
        // Nobody's policy, so the one that holds where nothing is said.
        ("hypervisor-pool", _) => 16,
        _ => 0,
    };
    let worn = limit > 0 && evidence.corrected_on_page >= limit;
    let gone = match letter {
        'C' => worn,
        _ => tables.is_some() || DISPENSABLE.contains(&name),
    };
    gone.then_some(name)
}

fn stop(effects: &mut Effects, letter: char, vm: VmId, policies: &[Policy]) {
    let policy = policy_for(policies, vm);
    let reaction = match letter {
        'O' => policy.ueo,
        'R' => policy.uer,
        'L' => policy.ueu,
        'I' => policy.impdef,
        _ => policy.uncategorized,
    };
    match reaction {
        Reaction::Restart => effects.restarted.insert(vm),
        _ => effects.killed.insert(vm),
    };
}

fn one_partition(
    effects: &mut Effects,
    evidence: &Evidence,
    letter: char,
    vm: VmId,
    owns: bool,
    policies: &[Policy],
) {
    let policy = policy_for(policies, vm);
    let (reaction, default) = match letter {
        'C' => (policy.corrected, 0x1811),
        'O' => (policy.ueo, 0x811),
        'R' => (policy.uer, 0xc11),
        'L' => (policy.ueu, 0x411),
        'I' => (policy.impdef, 0x100_0000),
        '?' => (policy.uncategorized, 0x100_0000),
        _ => unreachable!(),
    };
    let default = Iss::new(default).unwrap();
    // What a class does not allow.
    let reaction = match (letter, reaction) {
        ('C', Reaction::Kill | Reaction::Restart) => Reaction::Log,
        ('R', Reaction::Log) => Reaction::Inject(None),
        ('L', Reaction::Log | Reaction::Inject(_) | Reaction::Retire(_)) => Reaction::Kill,
        (_, reaction) => reaction,
    };
    if let Reaction::Inject(iss) | Reaction::Retire(iss) = reaction {
        effects.told.insert((vm, iss.unwrap_or(default)));
    }
    match reaction {
        Reaction::Kill => effects.killed.insert(vm),
        Reaction::Restart => effects.restarted.insert(vm),
        _ => false,
    };
    if owns
        && matches!(
            reaction,
            Reaction::Retire(_) | Reaction::Kill | Reaction::Restart
        )
    {
        effects.retired.insert(vm);
    }
    let limit = policy.corrected_limit;
    let worn = letter == 'C' && limit > 0 && evidence.corrected_on_page >= limit;
    if owns && worn && matches!(reaction, Reaction::Log | Reaction::Inject(_)) {
        effects.retired_early.insert(vm);
    }
}

#[test]
fn every_evidence_under_every_policy_has_the_effects_that_the_design_names() {
    let mut cases = 0;
    for first in 0..7 {
        for second in 0..7 {
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
    assert_eq!(cases, 7 * 7 * 11 * 6 * 2 * 4 * 20 * 4);
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
    for first in 0..7 {
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
        for turn in 0..7 {
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
    for turn in 0..7 {
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
