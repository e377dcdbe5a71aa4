// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the tables of `docs/triage.md` from the code, or checks that they are up to date.

use firebreak_abi::{Pa, VmId};
use firebreak_triage::{
    Class, ContextVerdict, CperSeverity, Decision, Evidence, GuestEl, Interrupted, Iss, Owner,
    PageVerdict, Part, Policy, Reaction, RecordSummary, Rule, Severity, triage,
};

#[path = "../../contract/tests/generated/mod.rs"]
mod generated;

use generated::{check, table};

const A: VmId = VmId(0);
const B: VmId = VmId(1);

const SYNDROMES: [(&str, Option<Iss>); 8] = [
    ("CE", Some(Iss::CE)),
    ("UEO", Some(Iss::UEO)),
    ("UER", Some(Iss::UER)),
    ("UEU", Some(Iss::UEU)),
    ("IDS=1", Some(Iss::IMPDEF)),
    ("uncategorized, reserved DFSC", Some(Iss::UNCATEGORIZED)),
    ("UC, reserved AET", Some(Iss::UC)),
    ("no FEAT_RAS", None),
];

const OWNERS: [(&str, Option<Owner>); 10] = [
    ("none", None),
    ("A", Some(Owner::Partition(A))),
    ("B", Some(Owner::Partition(B))),
    ("shared", Some(Owner::Shared)),
    ("A's tables", Some(Owner::Stage2Tables(A))),
    ("B's tables", Some(Owner::Stage2Tables(B))),
    ("payload, pool, log", Some(Owner::Hypervisor(Part::Pool))),
    ("hypervisor, firmware", Some(Owner::Hypervisor(Part::Text))),
    ("unused", Some(Owner::Unused)),
    ("device, unknown", Some(Owner::Device)),
];

fn severities() -> String {
    let records = [
        Some(CperSeverity::Corrected),
        Some(CperSeverity::Informational),
        Some(CperSeverity::Recoverable),
        Some(CperSeverity::Fatal),
        Some(CperSeverity::Unknown(4)),
        None,
    ];
    let head = [
        "syndrome",
        "corrected",
        "informational",
        "recoverable",
        "fatal",
        "any other",
        "no record",
    ];
    let rows: Vec<Vec<String>> = SYNDROMES
        .iter()
        .map(|&(name, iss)| {
            let cells = records
                .iter()
                .map(|&record| Severity::of(iss, record).to_string());
            std::iter::once(name.to_string()).chain(cells).collect()
        })
        .collect();
    table(&head, &rows)
}

/// A severity, as evidence that has no other.
fn evidence(severity: Severity, interrupted: Interrupted, owner: Option<Owner>) -> Evidence {
    let (iss, record) = match severity {
        Severity::Corrected => (Iss::CE, CperSeverity::Corrected),
        Severity::Restartable => (Iss::UEO, CperSeverity::Recoverable),
        Severity::Recoverable => (Iss::UER, CperSeverity::Recoverable),
        Severity::Unrecoverable => (Iss::UEU, CperSeverity::Recoverable),
        Severity::ImplementationDefined => (Iss::IMPDEF, CperSeverity::Recoverable),
        Severity::Uncategorized => (Iss::UNCATEGORIZED, CperSeverity::Recoverable),
        Severity::Uncontainable => (Iss::UC, CperSeverity::Fatal),
    };
    let pa = owner.map(|_| Pa::new(0x4812_3000));
    let record = Some(RecordSummary {
        severity: record,
        pa,
    });
    Evidence {
        iss: Some(iss),
        sync: false,
        record,
        interrupted,
        owner,
        corrected_on_page: 1,
    }
}

fn name(vm: VmId) -> &'static str {
    if vm == A { "A" } else { "B" }
}

/// Says a decision in words.
fn words(decision: &Decision) -> String {
    let context = match decision.context {
        ContextVerdict::Resume => "resume".to_string(),
        ContextVerdict::Inject { vm, iss } => format!("tell {} {iss:#x}", name(vm)),
        ContextVerdict::Kill { vm } => format!("**kill {}**", name(vm)),
        ContextVerdict::Restart { vm } => format!("restart {}", name(vm)),
        ContextVerdict::ResetMachine => return "**reset**".to_string(),
    };
    let page = match decision.page {
        PageVerdict::None | PageVerdict::Log { .. } => return context,
        PageVerdict::Retire {
            vm, inject: None, ..
        } => format!("retire {}'s page", name(vm)),
        PageVerdict::Retire {
            vm,
            inject: Some(iss),
            ..
        } => {
            format!("retire {}'s page, tell {} {iss:#x}", name(vm), name(vm))
        }
        PageVerdict::RetireShared { .. } => "retire the page everywhere".to_string(),
        PageVerdict::RetireEarly { vm, .. } => format!("replace {}'s page", name(vm)),
        PageVerdict::Inject { vm, iss } => format!("tell {} {iss:#x}", name(vm)),
        PageVerdict::Kill { vm, .. } => format!("kill {}", name(vm)),
        PageVerdict::Restart { vm, .. } => format!("restart {}", name(vm)),
        PageVerdict::StopOwner { vm, again, .. } => {
            let verb = if again { "**restart" } else { "**kill" };
            format!("{verb} {}**, give its tables up", name(vm))
        }
        PageVerdict::GiveUp {
            owner: Owner::Stage2Tables(_),
            ..
        } => "give its tables up".to_string(),
        PageVerdict::GiveUp { .. } => "give it up".to_string(),
    };
    format!("{context}; {page}")
}

fn decisions(interrupted: Interrupted) -> String {
    let mut head = vec!["severity"];
    head.extend(OWNERS.iter().map(|(name, _)| *name));
    let rows: Vec<Vec<String>> = Severity::ALL
        .into_iter()
        .map(|severity| {
            let mut row = vec![severity.to_string()];
            for (_, owner) in OWNERS {
                let evidence = evidence(severity, interrupted, owner);
                let decision = triage(&evidence, &[]);
                assert_eq!(decision.severity, severity);
                row.push(words(&decision));
            }
            row
        })
        .collect();
    table(&head, &rows)
}

fn reactions() -> String {
    let reactions = [
        Reaction::Ignore,
        Reaction::Log,
        Reaction::Inject(None),
        Reaction::Retire(None),
        Reaction::Kill,
        Reaction::Restart,
    ];
    let head = [
        "class",
        "default",
        "told as",
        "`ignore`",
        "`log`",
        "`inject`",
        "`retire`",
        "`kill`",
        "`restart`",
    ];
    let rows: Vec<Vec<String>> = Class::ALL
        .into_iter()
        .map(|class| {
            let mut row = vec![
                format!("`{class}`"),
                format!("`{}`", Policy::DEFAULT.reaction(class)),
                format!("{:#x}", class.default_syndrome()),
            ];
            row.extend(reactions.iter().map(|reaction| {
                let clamped = reaction.clamped(class);
                if clamped == *reaction {
                    "yes".to_string()
                } else {
                    format!("as `{clamped}`")
                }
            }));
            row
        })
        .collect();
    table(&head, &rows)
}

fn rules() -> String {
    let rows: Vec<Vec<String>> = Rule::ALL
        .into_iter()
        .map(|rule| vec![format!("`{rule}`"), rule.sentence().to_string()])
        .collect();
    table(&["rule", "what it says"], &rows)
}

fn owners() -> String {
    let rows: Vec<Vec<String>> = Owner::all(A)
        .into_iter()
        .map(|owner| {
            vec![
                format!("`{}`", owner.name()),
                owner.consequence().to_string(),
            ]
        })
        .collect();
    table(&["owner", "an uncorrected error in its memory"], &rows)
}

#[test]
fn the_tables_in_the_documentation_are_what_the_function_says() {
    let guest = Interrupted::Guest {
        vm: A,
        el: GuestEl::El1,
    };
    check(
        "triage.md",
        &[
            ("severities", severities()),
            ("guest", decisions(guest)),
            ("hypervisor", decisions(Interrupted::Hypervisor)),
            ("idle", decisions(Interrupted::Idle)),
            ("owners", owners()),
            ("reactions", reactions()),
            ("rules", rules()),
        ],
    );
}

#[test]
fn what_the_tables_leave_together_is_decided_alike() {
    let together: [&[Owner]; 3] = [
        &[Owner::Device, Owner::Unknown],
        &[
            Owner::Hypervisor(Part::Text),
            Owner::Hypervisor(Part::ReadOnly),
            Owner::Hypervisor(Part::Data),
            Owner::Hypervisor(Part::Stack),
            Owner::Hypervisor(Part::Tables),
            Owner::Firmware,
        ],
        &[
            Owner::Hypervisor(Part::Pool),
            Owner::Hypervisor(Part::Log),
            Owner::Payload(A),
            Owner::Payload(B),
        ],
    ];
    let guest = |el| Interrupted::Guest { vm: A, el };
    for severity in Severity::ALL {
        for interrupted in [
            guest(GuestEl::El0),
            guest(GuestEl::El1),
            Interrupted::Hypervisor,
            Interrupted::Idle,
        ] {
            for owners in together {
                let ask = |owner| {
                    let evidence = evidence(severity, interrupted, Some(owner));
                    words(&triage(&evidence, &[]))
                };
                for owner in owners {
                    assert_eq!(ask(*owner), ask(owners[0]), "{severity} {owner:?}");
                }
            }
        }
    }
}
