// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual SErrors and virtual external aborts: raised, followed, taken back.
//!
//! A guest that has SError unmasked takes the exception here, in software, as its hardware would
//! before its next instruction: program counter and exception level of that are exact. For a
//! guest that masks it, HCR_EL2.VSE is set, and hardware delivers it without telling anybody;
//! what became of it is read off the registers at later exits, and every millisecond.

use crate::partition::Partition;
use crate::pe::{Injection, Task, attention};
use crate::{console, deadlines, inject, system, telling};
use core::sync::atomic::{AtomicU64, Ordering};
use firebreak_arch::{guest, sysreg};
use firebreak_syndrome::{Iss, Life, Look, takes_serror_at_once};
use firebreak_wire::{Event, Level, VserrorState};

/// How often a PE looks whether its guest has taken a virtual SError, at other exits besides.
const POLL_EVERY_US: u64 = 1000;

/// Injections are numbered over the whole machine.
static NEXT_INJECTION: AtomicU64 = AtomicU64::new(1);

/// Where a guest was interrupted, and whether that is known or a hint.
struct Place {
    elr: u64,
    el: Level,
    exact: bool,
}

fn level(pstate: u64) -> Level {
    if inject::from_el1(pstate) {
        Level::El1
    } else {
        Level::El0
    }
}

/// Reports an injection that nobody can take, because its vCPU does not run. Returns its identity.
pub(crate) fn cancel_unraised(task: &mut Task, partition: &Partition, vcpu: u8, iss: Iss) -> u64 {
    let id = next_identity();
    tell(
        task,
        partition,
        vcpu,
        (id, iss),
        VserrorState::Cancelled,
        None,
    );
    id
}

fn next_identity() -> u64 {
    NEXT_INJECTION.fetch_add(1, Ordering::Relaxed)
}

fn tell(
    task: &mut Task,
    partition: &Partition,
    vcpu: u8,
    (inj, iss): (u64, Iss),
    state: VserrorState,
    place: Option<&Place>,
) {
    // Without FEAT_RAS nobody knows what the guest reads: the syndrome is the hardware's own.
    let chosen = system::get().is_some_and(|system| system.features.ras);
    let event = Event::Vserror {
        vm: partition.id.0,
        vcpu,
        inj,
        syndrome: chosen.then(|| u64::from(iss.get())),
        state,
        elr: place.map(|place| place.elr),
        el: place.map(|place| place.el),
        exact: place.is_some_and(|place| place.exact),
    };
    telling::injection(task, event);
}

/// Raises a virtual SError in the vCPU of this PE. One that is still pending is merged with it
/// (Arm ARM D20.4.3, R_JBQSC). Returns the identity of what came out of it; [`settle`] has to
/// follow before the guest goes on.
pub(crate) fn raise(task: &mut Task, iss: Iss) -> Option<u64> {
    let (Some(system), Some((partition, vcpu))) = (system::get(), task.vcpu()) else {
        return None;
    };
    if !task.local.running {
        return Some(cancel_unraised(task, partition, vcpu, iss));
    }
    watch(task);
    let merged = match guest::pending_syndrome(&system.features).and_then(Iss::new) {
        Some(earlier) => earlier.merge(iss),
        None => iss,
    };
    if let Some(earlier) = task.local.injection {
        end(task, earlier, VserrorState::Merged, None);
    }
    let id = next_identity();
    task.local.injection = Some(Injection {
        id,
        iss: merged,
        vdisr_before: guest::raise_virtual_serror(&system.features, merged.get()),
        poll_deadline: None,
    });
    Some(id)
}

/// Lets [`settle`] be the last thing before the guest goes on, on the paths that do not end in it.
pub(crate) fn settle_later(task: &Task) {
    if task.local.injection.is_some() {
        task.pe.request(task, attention::VSERROR);
    }
}

/// Decides how the guest takes what was raised, when nothing else changes where it stands: at
/// once, in its hardware's place, or whenever it unmasks SError.
pub(crate) fn settle(task: &mut Task) {
    match task.local.injection {
        Some(injection) if injection.poll_deadline.is_none() => place(task, injection),
        _ => {}
    }
}

#[cold]
fn place(task: &mut Task, injection: Injection) {
    // Without FEAT_RAS the syndrome of the CPU itself is the only faithful one.
    let ras = system::get().is_some_and(|system| system.features.ras);
    if ras && takes_serror_at_once(task.frame.spsr) {
        let interrupted = Place {
            elr: task.frame.elr,
            el: level(task.frame.spsr),
            exact: true,
        };
        guest::cancel_virtual_serror();
        inject::serror(task, injection.iss);
        return end(task, injection, VserrorState::Taken, Some(&interrupted));
    }
    keep(task, injection);
    deadlines::rearm(task);
    if let Some((partition, vcpu)) = task.vcpu() {
        let what = (injection.id, injection.iss);
        tell(task, partition, vcpu, what, VserrorState::Pending, None);
    }
}

fn next_poll() -> u64 {
    sysreg::cntpct_el0() + sysreg::cntfrq_el0() * POLL_EVERY_US / 1_000_000
}

/// Looks what became of the virtual SError that was left to the hardware.
pub(crate) fn watch(task: &mut Task) {
    if task.local.injection.is_some() {
        look(task);
    }
}

#[cold]
fn look(task: &mut Task) {
    let (Some(system), Some(injection)) = (system::get(), task.local.injection) else {
        return;
    };
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    let Injection {
        iss, vdisr_before, ..
    } = injection;
    let (vse, vdisr) = guest::virtual_serror(&system.features);
    let seen = Look {
        vse,
        iss: system.features.ras.then_some(iss),
        vdisr_before,
        vdisr,
        esr_el1: sysreg::esr_el1(),
    };
    // The guest may have taken another exception since.
    let hint = Place {
        elr: sysreg::elr_el1(),
        el: level(sysreg::spsr_el1()),
        exact: false,
    };
    match seen.life() {
        Life::Deferred if !partition.config.ras_visible => {
            // To a guest that does not see FEAT_RAS, ESB is a NOP and DISR_EL1 is not there: it
            // would never learn of the error.
            guest::undo_deferral(vdisr_before);
            keep(task, injection);
        }
        Life::Pending => keep(task, injection),
        Life::Deferred => end(task, injection, VserrorState::Deferred, None),
        Life::Taken => end(task, injection, VserrorState::Taken, Some(&hint)),
        Life::Gone => end(task, injection, VserrorState::Gone, None),
    }
}

fn keep(task: &mut Task, injection: Injection) {
    task.local.injection = Some(Injection {
        poll_deadline: Some(next_poll()),
        ..injection
    });
}

/// Takes a pending virtual SError back: the vCPU goes away.
pub(crate) fn cancel(task: &mut Task) {
    watch(task);
    if let Some(injection) = task.local.injection {
        guest::cancel_virtual_serror();
        end(task, injection, VserrorState::Cancelled, None);
    }
}

fn end(task: &mut Task, injection: Injection, state: VserrorState, place: Option<&Place>) {
    task.local.injection = None;
    if let Some((partition, vcpu)) = task.vcpu() {
        let what = (injection.id, injection.iss);
        tell(task, partition, vcpu, what, state, place);
    }
}

/// Makes the vCPU of this PE take a synchronous external abort where it stands; PSTATE masks
/// none. Returns its identity, or `None` when the vCPU does not run.
pub(crate) fn external_abort(
    task: &mut Task,
    fetch: bool,
    far: Option<u64>,
    iss: u32,
) -> Option<u64> {
    let (partition, vcpu) = task.vcpu()?;
    if !task.local.running {
        return None;
    }
    let (elr, el) = (task.frame.elr, level(task.frame.spsr));
    let esr = inject::external_abort(task, fetch, far, iss);
    let inj = next_identity();
    let event = Event::Vsea {
        vm: partition.id.0,
        vcpu,
        inj,
        esr,
        far,
        elr,
        el,
    };
    console::emit(&task.ctx, &event);
    Some(inj)
}
