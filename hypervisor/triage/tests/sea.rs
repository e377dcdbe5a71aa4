// SPDX-License-Identifier: MIT OR Apache-2.0
//! Synchronous external aborts: what they have in common with SEIs, and where they differ.
//!
//! The oracle is the SEI's decision for the same evidence: an SEA is an error of at least UER,
//! and its context has to be told even when the page is another partition's.

use firebreak_abi::{Pa, VmId};
use firebreak_triage::{
    Class, ContextVerdict, CperSeverity, Evidence, GuestEl, Interrupted, Iss, Owner, PageVerdict,
    Part, Policy, Reaction, RecordSummary, Rule, Severity, triage,
};

const A: VmId = VmId(0);
const B: VmId = VmId(1);
const PA: Pa = Pa::new(0x4812_3000);

/// ISS of an abort by SET, off a table walk, with the SError syndrome of the same state.
const STATES: [(u32, Iss, Severity); 4] = [
    (0x0010, Iss::UER, Severity::Recoverable),
    (0x1810, Iss::UEO, Severity::Restartable),
    (0x1010, Iss::UC, Severity::Uncontainable),
    (0x0810, Iss::IMPDEF, Severity::ImplementationDefined),
];
const INTERRUPTED: [Interrupted; 4] = [
    Interrupted::Guest {
        vm: A,
        el: GuestEl::El0,
    },
    Interrupted::Guest {
        vm: A,
        el: GuestEl::El1,
    },
    Interrupted::Hypervisor,
    Interrupted::Idle,
];
const OWNERS: [Option<Owner>; 12] = [
    None,
    Some(Owner::Partition(A)),
    Some(Owner::Partition(B)),
    Some(Owner::Shared),
    Some(Owner::Stage2Tables(A)),
    Some(Owner::Stage2Tables(B)),
    Some(Owner::Payload(B)),
    Some(Owner::Hypervisor(Part::Text)),
    Some(Owner::Hypervisor(Part::Pool)),
    Some(Owner::Firmware),
    Some(Owner::Device),
    Some(Owner::Unknown),
];

fn sea(iss: u32, interrupted: Interrupted, owner: Option<Owner>) -> Evidence {
    Evidence {
        iss: Iss::new(iss),
        sync: true,
        record: Some(RecordSummary {
            severity: CperSeverity::Recoverable,
            pa: owner.map(|_| PA),
        }),
        interrupted,
        owner,
        corrected_on_page: 1,
    }
}

fn for_each(mut check: impl FnMut(&Evidence, &Evidence, Severity)) {
    for (iss, state, severity) in STATES {
        for interrupted in INTERRUPTED {
            for owner in OWNERS {
                let abort = sea(iss, interrupted, owner);
                // Restartable is not enough for an instruction that was not carried out.
                let like = if state == Iss::UEO { Iss::UER } else { state };
                let error = Evidence {
                    iss: Some(like),
                    sync: false,
                    ..abort
                };
                check(&abort, &error, severity);
            }
        }
    }
}

fn policies() -> [[Policy; 2]; 3] {
    let mut mild = Policy::DEFAULT;
    let mut hard = Policy::DEFAULT;
    for class in Class::ALL {
        mild.set(class, Reaction::Log);
        hard.set(class, Reaction::Restart);
    }
    [[Policy::DEFAULT; 2], [mild, hard], [hard, mild]]
}

#[test]
fn an_abort_is_decided_like_an_serror_of_at_least_uer() {
    let mut cases = 0;
    for policies in policies() {
        for_each(|abort, error, severity| {
            let decision = triage(abort, &policies);
            assert_eq!(decision.severity, severity, "{abort:?}");
            let expected = triage(error, &policies);
            let untold = matches!(abort.interrupted, Interrupted::Guest { .. })
                && expected.context == ContextVerdict::Resume;
            if untold {
                assert_ne!(decision.context, ContextVerdict::Resume, "{abort:?}");
                return;
            }
            assert_eq!(
                (decision.context, decision.page, decision.rule),
                (expected.context, expected.page, expected.rule),
                "{abort:?}"
            );
            cases += 1;
        });
    }
    assert!(cases > 250, "{cases}");
}

#[test]
fn the_interrupted_guest_is_never_sent_back_to_its_instruction_untold() {
    for policies in policies() {
        for_each(|abort, _, _| {
            let decision = triage(abort, &policies);
            if matches!(abort.interrupted, Interrupted::Guest { .. }) {
                assert_ne!(decision.context, ContextVerdict::Resume, "{abort:?}");
            }
        });
    }
}

#[test]
fn a_foreign_page_is_its_owners_and_the_abort_the_interrupted_guests() {
    let evidence = sea(0x10, INTERRUPTED[1], Some(Owner::Partition(B)));
    let decision = triage(&evidence, &[]);
    assert_eq!(decision.rule, Rule::ForeignPageAndContext);
    assert!(matches!(decision.context, ContextVerdict::Inject { vm, .. } if vm == A));
    assert!(matches!(decision.page, PageVerdict::Retire { vm, .. } if vm == B));
}

#[test]
fn a_corrected_record_does_not_let_an_abort_pass() {
    let evidence = Evidence {
        record: Some(RecordSummary {
            severity: CperSeverity::Corrected,
            pa: Some(PA),
        }),
        iss: None,
        ..sea(0x10, INTERRUPTED[1], Some(Owner::Partition(A)))
    };
    let decision = triage(&evidence, &[]);
    assert_eq!(decision.severity, Severity::Corrected);
    assert_eq!(decision.verdict_name(), "retire");
    let own = Evidence {
        owner: Some(Owner::Hypervisor(Part::Data)),
        ..evidence
    };
    assert_eq!(triage(&own, &[]).context, ContextVerdict::ResetMachine);
}

#[test]
fn an_abort_on_a_table_walk_has_no_state_of_its_own_and_is_recoverable() {
    for fsc in [0x13, 0x14, 0x15, 0x16, 0x17] {
        let evidence = sea(fsc | 0x1000, INTERRUPTED[0], Some(Owner::Partition(A)));
        assert_eq!(evidence.severity(), Severity::Recoverable);
        assert_eq!(triage(&evidence, &[]).verdict_name(), "retire");
    }
}
