// SPDX-License-Identifier: MIT OR Apache-2.0
//! The abstract input space of triage, and what the design wants done in each case of it: effects on
//! partitions and pages, not verdicts. It shares no code with the function.

use std::collections::BTreeSet;

use firebreak_abi::{Pa, VmId};
use firebreak_triage::{
    Class, ContextVerdict, CperSeverity, Decision, Evidence, GuestEl, Interrupted, Iss, Owner,
    PageVerdict, Part, Policy, Reaction, RecordSummary,
};

pub(crate) const PA: Pa = Pa::new(0x4812_3040);
/// Corrected errors that retire a page, in these tests.
pub(crate) const LIMIT: u16 = 3;

/// Columns: no record, corrected, informational, recoverable, fatal, nonsense.
/// C CE, O UEO, R UER, L UEU ("lost"), I IMPDEF, ? uncategorized, U UC.
pub(crate) const SEVERITIES: [(Option<u32>, &str); 11] = [
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

pub(crate) const RECORDS: [Option<CperSeverity>; 6] = [
    None,
    Some(CperSeverity::Corrected),
    Some(CperSeverity::Informational),
    Some(CperSeverity::Recoverable),
    Some(CperSeverity::Fatal),
    Some(CperSeverity::Unknown(0x55)),
];

pub(crate) const INTERRUPTED: [Interrupted; 4] = [
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

pub(crate) const OWNERS: [Option<Owner>; 20] = [
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
pub(crate) const VITAL: [&str; 6] = [
    "hypervisor-text",
    "hypervisor-rodata",
    "hypervisor-data",
    "hypervisor-stack",
    "hypervisor-tables",
    "firmware",
];
/// Memory that the hypervisor can stop using. (Stage-2 tables too, with their partition.)
pub(crate) const DISPENSABLE: [&str; 3] = ["payload", "hypervisor-pool", "hypervisor-log"];

pub(crate) fn reactions() -> [Reaction; 8] {
    [
        Reaction::Ignore,
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
pub(crate) fn policy(turn: usize) -> Policy {
    let mut policy = Policy {
        corrected_limit: LIMIT,
        ..Policy::DEFAULT
    };
    for (index, class) in Class::ALL.into_iter().enumerate() {
        policy.set(class, reactions()[(index + turn) % 8]);
    }
    policy
}

/// Calls `check` with each evidence of the abstract space and its severity as a letter.
pub(crate) fn for_each_evidence(mut check: impl FnMut(&Evidence, char)) {
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
pub(crate) struct Effects {
    pub(crate) reset: bool,
    pub(crate) killed: BTreeSet<VmId>,
    pub(crate) restarted: BTreeSet<VmId>,
    pub(crate) told: BTreeSet<(VmId, Iss)>,
    pub(crate) retired: BTreeSet<VmId>,
    pub(crate) retired_early: BTreeSet<VmId>,
    pub(crate) retired_shared: bool,
    pub(crate) given_up: Option<&'static str>,
}

pub(crate) fn effects(decision: &Decision) -> Effects {
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
pub(crate) fn oracle(evidence: &Evidence, letter: char, policies: &[Policy]) -> Effects {
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
pub(crate) fn milder(letter: char) -> char {
    if "LI?".contains(letter) { 'R' } else { letter }
}

pub(crate) fn policy_for(policies: &[Policy], vm: VmId) -> Policy {
    policies
        .get(usize::from(vm.0))
        .copied()
        .unwrap_or(Policy::DEFAULT)
}

pub(crate) fn given_up(
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

pub(crate) fn stop(effects: &mut Effects, letter: char, vm: VmId, policies: &[Policy]) {
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

pub(crate) fn one_partition(
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
        ('R', Reaction::Ignore | Reaction::Log) => Reaction::Inject(None),
        ('L', Reaction::Ignore | Reaction::Log | Reaction::Inject(_) | Reaction::Retire(_)) => {
            Reaction::Kill
        }
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
    if owns
        && worn
        && matches!(
            reaction,
            Reaction::Ignore | Reaction::Log | Reaction::Inject(_)
        )
    {
        effects.retired_early.insert(vm);
    }
}
