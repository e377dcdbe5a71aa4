// SPDX-License-Identifier: MIT OR Apache-2.0
//! The function itself: two questions, one severity, one rule.
//!
//! *May the interrupted context resume?* is answered from the severity and the context.
//! *Whose page is it?* is answered from the address. They meet only where the same partition
//! was interrupted and owns the page: its policy is then applied once, not twice.

use firebreak_abi::{Pa, VmId};
use firebreak_syndrome::Severity;

use crate::evidence::{Evidence, Interrupted};
use crate::owner::{Owner, Part, Stake};
use crate::policy::{Class, Policy, Reaction};
use crate::verdict::{ContextVerdict, Decision, PageVerdict, Rule};

/// Decides what happens about an error. Total, bounded, and the same on host and target.
///
/// `policies` is indexed by [`VmId`]; a partition that is not in it has [`Policy::DEFAULT`].
pub fn triage(evidence: &Evidence, policies: &[Policy]) -> Decision {
    let mut decision = Decision::RESET;
    decide(evidence, policies, &mut decision);
    decision
}

/// [`triage`], whose answer is written where it stays: a copy of it costs an SEI twenty
/// instructions.
pub fn decide(evidence: &Evidence, policies: &[Policy], decision: &mut Decision) {
    decision.severity = evidence.severity();
    (decision.context, decision.page, decision.rule) =
        verdicts(evidence, decision.severity, policies);
    if evidence.sync
        && let Interrupted::Guest { vm, .. } = evidence.interrupted
        && decision.context == ContextVerdict::Resume
    {
        // Its instruction was not carried out: sent back untold, it would abort for ever.
        let iss = Class::Uer.default_syndrome();
        decision.context = ContextVerdict::Inject { vm, iss };
    }
}

#[inline(always)]
fn verdicts(evidence: &Evidence, severity: Severity, policies: &[Policy]) -> Parts {
    let Some(class) = Class::of(severity) else {
        return reset(Rule::Uncontainable);
    };
    // The instruction behind an SEA was not carried out, so "nothing was lost" is not enough for it
    // to go on: somebody has to deal with the error first, which is what UER means.
    let class = match class {
        Class::Corrected | Class::Ueo if evidence.sync => Class::Uer,
        class => class,
    };
    let page = evidence.page();
    if let Some(rule) = trusted_base_hit(class, page) {
        return reset(rule);
    }
    match evidence.interrupted {
        Interrupted::Guest { vm, .. } => in_guest(evidence, class, policies, vm, page),
        Interrupted::Hypervisor | Interrupted::Idle => no_guest(evidence, class, page, policies),
    }
}

type Parts = (ContextVerdict, PageVerdict, Rule);

const fn reset(rule: Rule) -> Parts {
    (ContextVerdict::ResetMachine, PageVerdict::None, rule)
}

fn policy_of(policies: &[Policy], vm: VmId) -> &Policy {
    policies.get(vm.index()).unwrap_or(&Policy::DEFAULT)
}

/// Uncorrected errors in what everything else rests on cannot be cut off from anything.
fn trusted_base_hit(class: Class, page: Option<(Pa, Owner)>) -> Option<Rule> {
    if class == Class::Corrected {
        return None;
    }
    match page {
        Some((_, Owner::Firmware)) => Some(Rule::FirmwareMemory),
        Some((_, owner)) if owner.stake() == Stake::Machine => Some(Rule::HypervisorMemory),
        _ => None,
    }
}

/// A guest was interrupted, and nothing that everything rests on is bad.
fn in_guest(
    evidence: &Evidence,
    class: Class,
    policies: &[Policy],
    vm: VmId,
    page: Option<(Pa, Owner)>,
) -> Parts {
    let policy = policy_of(policies, vm);
    let Some((pa, owner)) = page else {
        let context = context_only(class, policy, vm);
        return (context, PageVerdict::None, no_page_rule(evidence, class));
    };
    match owner.stake() {
        Stake::Page(owner) if owner == vm => own_page(evidence, class, policy, vm, pa),
        Stake::Page(owner) => {
            let owners = policy_of(policies, owner);
            foreign_page(evidence, class, policy, vm, (pa, owner, owners))
        }
        Stake::SharedPage => shared_page(class, policy, vm, pa),
        Stake::NoPage => {
            let context = context_only(class, policy, vm);
            (
                context,
                PageVerdict::Log { owner },
                no_page_rule(evidence, class),
            )
        }
        Stake::Partition(own) if own == vm && class != Class::Corrected => {
            let context = if restarts(policy, class) {
                ContextVerdict::Restart { vm }
            } else {
                ContextVerdict::Kill { vm }
            };
            let page = PageVerdict::GiveUp { owner, pa };
            (context, page, Rule::Stage2Tables)
        }
        Stake::Partition(_) | Stake::Dispensable | Stake::Nothing | Stake::Machine => {
            let (page, rule) = not_a_guests_page(evidence, class, policies, pa, owner);
            let context = match class {
                Class::Corrected | Class::Ueo | Class::Uer if !evidence.sync => {
                    ContextVerdict::Resume
                }
                _ => context_only(class, policy, vm),
            };
            (context, page, rule)
        }
    }
}

/// Memory that no guest can touch: what the hypervisor does about it, whoever was interrupted.
fn not_a_guests_page(
    evidence: &Evidence,
    class: Class,
    policies: &[Policy],
    pa: Pa,
    owner: Owner,
) -> (PageVerdict, Rule) {
    let give_up = PageVerdict::GiveUp { owner, pa };
    let policy = owner
        .vm()
        .map_or(&Policy::DEFAULT, |vm| policy_of(policies, vm));
    if class == Class::Corrected {
        return match owner {
            Owner::Stage2Tables(_) | Owner::Hypervisor(Part::Pool)
                if worn(evidence, class, policy) =>
            {
                (give_up, Rule::WornPage)
            }
            _ => (PageVerdict::Log { owner }, Rule::Corrected),
        };
    }
    match owner {
        Owner::Stage2Tables(vm) => {
            let again = restarts(policy, class_for_bystander(class));
            (PageVerdict::StopOwner { vm, pa, again }, Rule::Stage2Tables)
        }
        Owner::Payload(_) => (give_up, Rule::Payload),
        Owner::Hypervisor(Part::Pool) => (give_up, Rule::PoolFrame),
        Owner::Hypervisor(Part::Log) => (give_up, Rule::PersistentLog),
        _ => (PageVerdict::Log { owner }, Rule::UnusedMemory),
    }
}

/// Says whether a partition that has to stop is started again.
fn restarts(policy: &Policy, class: Class) -> bool {
    policy.reaction(class).clamped(class) == Reaction::Restart
}

/// None of a bystander's contexts was hurt, so nothing worse than "deal with this memory"
/// concerns it: its reaction to UER stands for everything above.
const fn class_for_bystander(class: Class) -> Class {
    match class {
        Class::Corrected | Class::Ueo | Class::Uer => class,
        Class::Ueu | Class::Impdef | Class::Uncategorized => Class::Uer,
    }
}

/// The interrupted partition owns the page.
fn own_page(evidence: &Evidence, class: Class, policy: &Policy, vm: VmId, pa: Pa) -> Parts {
    let owner = Owner::Partition(vm);
    let reaction = policy.reaction(class).clamped(class);
    let context = context_of(reaction, class, vm);
    let page = match reaction {
        Reaction::Ignore | Reaction::Log | Reaction::Inject(_) if worn(evidence, class, policy) => {
            return (
                context,
                PageVerdict::RetireEarly {
                    vm,
                    pa,
                    inject: None,
                },
                Rule::WornPage,
            );
        }
        Reaction::Ignore | Reaction::Log | Reaction::Inject(_) => PageVerdict::Log { owner },
        // A dying partition's bad page must not come back with its next life. Its guest is
        // told by the context's verdict, if at all.
        Reaction::Retire(_) | Reaction::Kill | Reaction::Restart => PageVerdict::Retire {
            vm,
            pa,
            inject: None,
        },
    };
    (
        context,
        page,
        if class == Class::Corrected {
            Rule::Corrected
        } else {
            Rule::OwnPage
        },
    )
}

/// Another partition than the interrupted one owns the page.
fn foreign_page(
    evidence: &Evidence,
    class: Class,
    policy: &Policy,
    vm: VmId,
    (pa, owner, owners_policy): (Pa, VmId, &Policy),
) -> Parts {
    let (page, worn) = owners_verdict(evidence, class, owner, owners_policy, pa);
    if worn {
        return (ContextVerdict::Resume, page, Rule::WornPage);
    }
    match class {
        Class::Corrected => (ContextVerdict::Resume, page, Rule::Corrected),
        // After an SEA it cannot simply go on: its instruction still waits for the page.
        Class::Ueo | Class::Uer if !evidence.sync => {
            (ContextVerdict::Resume, page, Rule::ForeignPage)
        }
        Class::Ueo | Class::Uer | Class::Ueu | Class::Impdef | Class::Uncategorized => (
            context_only(class, policy, vm),
            page,
            Rule::ForeignPageAndContext,
        ),
    }
}

/// Several partitions own the page, so no single policy decides about it.
fn shared_page(class: Class, policy: &Policy, vm: VmId, pa: Pa) -> Parts {
    let context = context_only(class, policy, vm);
    match class {
        Class::Corrected => (
            context,
            PageVerdict::Log {
                owner: Owner::Shared,
            },
            Rule::Corrected,
        ),
        Class::Ueo => (
            context,
            PageVerdict::Log {
                owner: Owner::Shared,
            },
            Rule::SharedPage,
        ),
        _ => (context, PageVerdict::RetireShared { pa }, Rule::SharedPage),
    }
}

/// EL2 itself was interrupted, at work or idle.
fn no_guest(
    evidence: &Evidence,
    class: Class,
    page: Option<(Pa, Owner)>,
    policies: &[Policy],
) -> Parts {
    let idle = evidence.interrupted == Interrupted::Idle;
    match class {
        Class::Corrected | Class::Ueo => {}
        // The idle loop holds nothing that could be lost: once the page is cut off, the PE has
        // recovered. At work, nobody knows what EL2 has made of the bad data.
        Class::Uer if idle && can_be_cut_off(page) => {}
        Class::Uer => return reset(Rule::HypervisorNeedsRecovery),
        Class::Ueu => return reset(Rule::HypervisorContextLost),
        Class::Impdef if evidence.record.is_none() => {
            return reset(Rule::HypervisorUnclaimed);
        }
        Class::Impdef | Class::Uncategorized => return reset(Rule::HypervisorUnclassified),
    }
    let rule = if class == Class::Corrected {
        Rule::Corrected
    } else {
        Rule::PageAlone
    };
    let resume = |page, rule| (ContextVerdict::Resume, page, rule);
    let Some((pa, owner)) = page else {
        return resume(PageVerdict::None, rule);
    };
    match owner.stake() {
        Stake::Page(vm) => {
            let policy = policy_of(policies, vm);
            let (page, worn) = owners_verdict(evidence, class, vm, policy, pa);
            resume(page, if worn { Rule::WornPage } else { rule })
        }
        Stake::SharedPage if class == Class::Uer => resume(PageVerdict::RetireShared { pa }, rule),
        Stake::SharedPage | Stake::NoPage => resume(PageVerdict::Log { owner }, rule),
        Stake::Partition(_) | Stake::Dispensable | Stake::Nothing | Stake::Machine => {
            let (page, rule) = not_a_guests_page(evidence, class, policies, pa, owner);
            resume(page, rule)
        }
    }
}

/// Says whether bad memory can be kept from everybody, so that an idle PE has recovered then.
const fn can_be_cut_off(page: Option<(Pa, Owner)>) -> bool {
    match page {
        Some((_, owner)) => !matches!(owner.stake(), Stake::NoPage | Stake::Machine),
        None => false,
    }
}

/// What a partition that was not interrupted gets for its page, and whether the page is worn.
fn owners_verdict(
    evidence: &Evidence,
    class: Class,
    vm: VmId,
    policy: &Policy,
    pa: Pa,
) -> (PageVerdict, bool) {
    let class = class_for_bystander(class);
    let syndrome = |iss: Option<_>| iss.unwrap_or(class.default_syndrome());
    let reaction = policy.reaction(class).clamped(class);
    if worn(evidence, class, policy)
        && matches!(
            reaction,
            Reaction::Ignore | Reaction::Log | Reaction::Inject(_)
        )
    {
        let inject = match reaction {
            Reaction::Inject(iss) => Some(syndrome(iss)),
            _ => None,
        };
        return (PageVerdict::RetireEarly { vm, pa, inject }, true);
    }
    let page = match reaction {
        Reaction::Ignore | Reaction::Log => PageVerdict::Log {
            owner: Owner::Partition(vm),
        },
        Reaction::Inject(iss) => PageVerdict::Inject {
            vm,
            iss: syndrome(iss),
        },
        Reaction::Retire(iss) => PageVerdict::Retire {
            vm,
            pa,
            inject: Some(syndrome(iss)),
        },
        Reaction::Kill => PageVerdict::Kill { vm, pa },
        Reaction::Restart => PageVerdict::Restart { vm, pa },
    };
    (page, false)
}

/// Says whether a page has had as many corrected errors as its owner's policy allows.
fn worn(evidence: &Evidence, class: Class, policy: &Policy) -> bool {
    class == Class::Corrected
        && policy.corrected_limit != 0
        && evidence.corrected_on_page >= policy.corrected_limit
}

/// The reaction of the interrupted partition when there is no page of its own to take away.
#[inline(always)]
fn context_only(class: Class, policy: &Policy, vm: VmId) -> ContextVerdict {
    context_of(policy.reaction(class).clamped(class), class, vm)
}

#[inline(always)]
fn context_of(reaction: Reaction, class: Class, vm: VmId) -> ContextVerdict {
    match reaction {
        Reaction::Ignore | Reaction::Log => ContextVerdict::Resume,
        Reaction::Inject(iss) | Reaction::Retire(iss) => ContextVerdict::Inject {
            vm,
            iss: iss.unwrap_or(class.default_syndrome()),
        },
        Reaction::Kill => ContextVerdict::Kill { vm },
        Reaction::Restart => ContextVerdict::Restart { vm },
    }
}

fn no_page_rule(evidence: &Evidence, class: Class) -> Rule {
    match (class, evidence.record) {
        (Class::Corrected, _) => Rule::Corrected,
        (_, None) => Rule::Unclaimed,
        (_, Some(_)) => Rule::NoPage,
    }
}
