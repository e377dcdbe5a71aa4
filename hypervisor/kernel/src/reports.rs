// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many errors of one PE the host hears of one by one, and the accounts of the others.
//!
//! A storm of errors that change nothing must not fill the line, so such errors have a budget.
//! What it leaves out is counted, and told at intervals and once more when the storm is over:
//! `error` events and the counts of `suppressed` ones add up to the records that went through the
//! queue. An error that stops a partition, takes a page or is told to a guest is always reported.

use crate::pe::Task;
use crate::recovery::{self, PendingError};
use crate::{console, deadlines, system, telling};
use firebreak_arch::sysreg;
use firebreak_syndrome::Severity;
use firebreak_triage::{Class, ContextVerdict, Interrupted, PageVerdict, Reaction};
use firebreak_wire::{Event, OutputBudget};

/// The accounts of one PE.
pub(crate) struct Reports {
    budget: OutputBudget,
    /// Errors that the host was told of, one by one.
    reported: u64,
    /// Errors that were only counted.
    suppressed: u64,
    /// Those of them that a policy wants to be ignored, and that were not told of yet.
    ignored: u64,
    /// When the accounts are told next, in ticks of CNTPCT; `None` while there is no news.
    pub(crate) deadline: Option<u64>,
}

impl Reports {
    /// Makes empty ones.
    pub(crate) fn new() -> Self {
        let (hz, now) = (sysreg::cntfrq_el0(), sysreg::cntpct_el0());
        let shares = console::shares();
        Self {
            budget: OutputBudget::new(shares.reports_per_second, shares.report_burst, hz, now),
            reported: 0,
            suppressed: 0,
            ignored: 0,
            deadline: None,
        }
    }
}

/// Says whether the host is to be told of this error, and counts it in either case.
pub(crate) fn admit(task: &mut Task, error: &PendingError) -> bool {
    let decision = &error.decision;
    let changes_nothing = match decision.page {
        PageVerdict::None | PageVerdict::Log { .. } => true,
        // The page wore out when it came to the limit. What comes behind says so again, for as long
        // as nobody starts the partition anew.
        PageVerdict::RetireEarly { inject: None, .. } | PageVerdict::GiveUp { .. } => {
            error.evidence.page().is_some_and(|(_, owner)| {
                let limit =
                    system::get().map(|system| recovery::limits_of(system, owner).corrected_limit);
                decision.severity == Severity::Corrected
                    && limit.is_some_and(|limit| error.evidence.corrected_on_page > limit)
            })
        }
        _ => false,
    };
    let only_logged = matches!(decision.context, ContextVerdict::Resume) && changes_nothing;
    let ignored = only_logged && is_ignored(error);
    let reports = &mut task.local.reports;
    if ignored {
        // Counted like one that the budget left out, which what is ignored does not use up.
        reports.ignored += 1;
    }
    if !ignored && (!only_logged || reports.budget.take(sysreg::cntpct_el0(), 1)) {
        reports.reported += 1;
        return true;
    }
    reports.suppressed += 1;
    tell_later(task);
    false
}

/// Says whether the partition that an error concerns wants it to be ignored: the owner of the page,
/// or the one that was interrupted where there is no page.
fn is_ignored(error: &PendingError) -> bool {
    let evidence = &error.evidence;
    let vm = match (evidence.page(), evidence.interrupted) {
        (Some((_, owner)), _) => owner.vm(),
        (None, Interrupted::Guest { vm, .. }) => Some(vm),
        (None, _) => None,
    };
    let policy = vm.and_then(|vm| system::get()?.policies.get(vm.index()));
    let class = Class::of(error.decision.severity);
    policy
        .zip(class)
        .is_some_and(|(policy, class)| policy.reaction(class) == Reaction::Ignore)
}

/// Notes that the queue refused records: told at once, but in a storm of them at intervals.
pub(crate) fn overflow(task: &mut Task) {
    if task.local.reports.deadline.is_none() {
        tell(task);
    }
    tell_later(task);
}

fn tell_later(task: &mut Task) {
    if task.local.reports.deadline.is_none() {
        task.local.reports.deadline = Some(sysreg::cntpct_el0() + sysreg::cntfrq_el0());
        deadlines::rearm(task);
    }
}

/// Tells the accounts.
pub(crate) fn tell(task: &mut Task) {
    telling::flush(task);
    let reports = &mut task.local.reports;
    reports.deadline = None;
    let count = reports.budget.take_suppressed() + core::mem::take(&mut reports.ignored);
    let (reported, suppressed) = (reports.reported, reports.suppressed);
    if count != 0 {
        let what = "errors";
        console::emit(&task.ctx, &Event::Suppressed { what, count });
    }
    let counters = task.pe.queue.counters();
    let event = Event::Queue {
        pe: task.pe.id.0,
        published: counters.published,
        finished: counters.taken,
        pending: counters.pending,
        refused: counters.refused,
        reported,
        suppressed,
    };
    console::emit(&task.ctx, &event);
}
