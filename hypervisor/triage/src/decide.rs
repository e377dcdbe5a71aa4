// SPDX-License-Identifier: MIT OR Apache-2.0
//! The function itself: two questions, one severity, one rule.
//!
//! *May the interrupted context resume?* is answered from the severity and the context.
//! *Whose page is it?* is answered from the address. They meet only where the same partition
//! was interrupted and owns the page: its policy is then applied once, not twice.

use firebreak_abi::{Pa, VmId};

use crate::evidence::{Evidence, Interrupted, Owner};
use crate::policy::{Class, Policy, Reaction};
use crate::verdict::{ContextVerdict, Decision, PageVerdict, Rule};

/// Decides what happens about an error. Total, bounded, and the same on host and target.
///
/// `policies` is indexed by [`VmId`]; a partition that is not in it has [`Policy::DEFAULT`].
pub fn triage(evidence: &Evidence, policies: &[Policy]) -> Decision {
    let severity = evidence.severity();
    let decide = |(context, page, rule)| Decision {
        severity,
        context: match (evidence.interrupted, context) {
            // Its instruction was not carried out: sent back untold, it would abort for ever.
            (Interrupted::Guest { vm, .. }, ContextVerdict::Resume) if evidence.sync => {
                let iss = Class::Uer.default_syndrome();
                ContextVerdict::Inject { vm, iss }
            }
            (_, context) => context,
        },
        page,
        rule,
    };
    let Some(class) = Class::of(severity) else {
        return decide(reset(Rule::Uncontainable));
    };
    // The instruction behind an SEA was not carried out, so "nothing was lost" is not enough for it
    // to go on: somebody has to deal with the error first, which is what UER means.
    let class = match class {
        Class::Corrected | Class::Ueo if evidence.sync => Class::Uer,
        class => class,
    };
    let page = evidence.page();
    if let Some(rule) = trusted_base_hit(class, page) {
        return decide(reset(rule));
    }
    match evidence.interrupted {
        Interrupted::Guest { vm, .. } => {
            let policy = policy_of(policies, vm);
            match page {
                Some((pa, Owner::Partition(owner))) if owner == vm => {
                    decide(own_page(evidence, class, policy, vm, pa))
                }
                Some((pa, Owner::Partition(owner))) => {
                    let owners = policy_of(policies, owner);
                    decide(foreign_page(
                        evidence,
                        class,
                        policy,
                        vm,
                        (pa, owner, owners),
                    ))
                }
                Some((pa, Owner::Shared)) => decide(shared_page(class, policy, vm, pa)),
                Some((_, owner)) => {
                    let context = context_only(class, policy, vm);
                    decide((
                        context,
                        PageVerdict::Log { owner },
                        no_page_rule(evidence, class),
                    ))
                }
                None => {
                    let context = context_only(class, policy, vm);
                    decide((context, PageVerdict::None, no_page_rule(evidence, class)))
                }
            }
        }
        Interrupted::Hypervisor | Interrupted::Idle => {
            decide(no_guest(evidence, class, page, policies))
        }
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
        Some((_, Owner::Hypervisor)) => Some(Rule::HypervisorMemory),
        Some((_, Owner::Firmware)) => Some(Rule::FirmwareMemory),
        _ => None,
    }
}

/// The interrupted partition owns the page.
fn own_page(evidence: &Evidence, class: Class, policy: &Policy, vm: VmId, pa: Pa) -> Parts {
    let owner = Owner::Partition(vm);
    let reaction = policy.reaction(class).clamped(class);
    let context = context_of(reaction, class, vm);
    let page = match reaction {
        Reaction::Log | Reaction::Inject(_) if worn(evidence, class, policy) => {
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
        Reaction::Log | Reaction::Inject(_) => PageVerdict::Log { owner },
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
        Class::Uer if idle && matches!(page, Some((_, Owner::Partition(_) | Owner::Shared))) => {}
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
    let page = match page {
        Some((pa, Owner::Partition(owner))) => {
            let policy = policy_of(policies, owner);
            let (page, worn) = owners_verdict(evidence, class, owner, policy, pa);
            if worn {
                return (ContextVerdict::Resume, page, Rule::WornPage);
            }
            page
        }
        Some((pa, Owner::Shared)) if class == Class::Uer => PageVerdict::RetireShared { pa },
        Some((_, owner)) => PageVerdict::Log { owner },
        None => PageVerdict::None,
    };
    (ContextVerdict::Resume, page, rule)
}

/// What a partition that was not interrupted gets for its page, and whether the page is worn.
///
/// None of its contexts was hurt, so nothing worse than "deal with this page" concerns it: its
/// reaction to UER stands for everything above.
fn owners_verdict(
    evidence: &Evidence,
    class: Class,
    vm: VmId,
    policy: &Policy,
    pa: Pa,
) -> (PageVerdict, bool) {
    let class = match class {
        Class::Corrected | Class::Ueo | Class::Uer => class,
        Class::Ueu | Class::Impdef | Class::Uncategorized => Class::Uer,
    };
    let syndrome = |iss: Option<_>| iss.unwrap_or(class.default_syndrome());
    let reaction = policy.reaction(class).clamped(class);
    if worn(evidence, class, policy) && matches!(reaction, Reaction::Log | Reaction::Inject(_)) {
        let inject = match reaction {
            Reaction::Inject(iss) => Some(syndrome(iss)),
            _ => None,
        };
        return (PageVerdict::RetireEarly { vm, pa, inject }, true);
    }
    let page = match reaction {
        Reaction::Log => PageVerdict::Log {
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
fn context_only(class: Class, policy: &Policy, vm: VmId) -> ContextVerdict {
    context_of(policy.reaction(class).clamped(class), class, vm)
}

fn context_of(reaction: Reaction, class: Class, vm: VmId) -> ContextVerdict {
    match reaction {
        Reaction::Log => ContextVerdict::Resume,
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
