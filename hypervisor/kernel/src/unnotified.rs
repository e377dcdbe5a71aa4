// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records of which no SEI told: the firmware routed it elsewhere, or forgot it.
//!
//! Only where HCR_EL2.TEA is 0 while a guest runs can an SEI that TEA routes pass EL2 by; there a
//! deadline looks. Elsewhere it is enough to look whenever this PE is on its slow way to a guest.

use crate::pe::Task;
use crate::record::{self, ErrorSource};
use crate::{console, sei};
use firebreak_arch::sysreg;
use firebreak_wire::Event;

/// How often a PE looks at its source, where an SEI can pass EL2 by.
const LOOK_EVERY_MS: u64 = 10;

/// Takes a record that stands unacknowledged for no reason, as if it had been notified now. Not for
/// the fast way back to a guest.
pub(crate) fn take(task: &mut Task) {
    let source = task.pe.source.as_ref();
    if let Some(source) = source.filter(|source| !record::is_acknowledged(source)) {
        take_standing(task, source);
    }
}

#[cold]
#[inline(never)]
fn take_standing(task: &mut Task, source: &ErrorSource) {
    // A record that waits for its SEI has the pending word set; one that the queue refused comes
    // back by itself. The last look is for an SEI that came in between and took the record.
    let stands = !sei::is_pending(task.pe)
        && !task.pe.put_off.is_waiting()
        && !record::is_acknowledged(source);
    if !stands {
        return;
    }
    if let Some(iss) = record::recorded_syndrome(source) {
        let event = Event::Unnotified { pe: task.pe.id.0 };
        console::emit(&task.ctx, &event);
        // There is no ESR_EL2; what the record does not say, nobody does.
        sei::take_in_task(
            task,
            iss.and_then(|iss| sei::syndrome(task.pe, u64::from(iss))),
        );
    }
}

/// Returns when to look next at the source of a PE whose guest is about to start.
pub(crate) fn first_look(task: &Task, direct_aborts: bool) -> Option<u64> {
    ((direct_aborts || !task.pe.ras) && task.pe.source.is_some()).then(next_look)
}

/// Looks, if it is time.
pub(crate) fn look(task: &mut Task, now_ticks: u64) {
    if task.local.record_deadline.is_some_and(|at| at <= now_ticks) {
        task.local.record_deadline = Some(next_look());
        take(task);
    }
}

fn next_look() -> u64 {
    sysreg::cntpct_el0() + sysreg::cntfrq_el0() / 1000 * LOOK_EVERY_MS
}
