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
use firebreak_abi::VmId;
use firebreak_arch::{guest, sysreg};
use firebreak_syndrome::{Iss, Life, Look, takes_serror_at_once};
use firebreak_wire::{Event, Level, VserrorState};

/// How often a PE looks whether its guest has taken a virtual SError, at other exits besides.
const POLL_EVERY_US: u64 = 1000;

/// Injections are numbered over the whole machine.
static NEXT_INJECTION: AtomicU64 = AtomicU64::new(1);

/// Where a guest was interrupted, and whether that is known or a hint.
#[derive(Clone, Copy)]
struct Place {
    elr: u64,
    el: Level,
    exact: bool,
}

/// What became of a virtual SError: an event that is yet to be written.
pub(crate) struct Told {
    partition: VmId,
    vcpu: u8,
    state: VserrorState,
    iss: Iss,
    inj: u64,
    place: Option<Place>,
}

impl Told {
    /// Returns the event.
    pub(crate) fn event(&self) -> Event<'static> {
        // Without FEAT_RAS nobody knows what the guest reads: the syndrome is the hardware's own.
        let chosen = system::get().is_some_and(|system| system.features.ras);
        let place = self.place.as_ref();
        Event::Vserror {
            vm: self.partition.0,
            vcpu: self.vcpu,
            inj: self.inj,
            syndrome: chosen.then(|| u64::from(self.iss.get())),
            state: self.state,
            elr: place.map(|place| place.elr),
            el: place.map(|place| place.el),
            exact: place.is_some_and(|place| place.exact),
        }
    }
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
    place: Option<Place>,
) {
    let told = Told {
        partition: partition.id,
        vcpu,
        state,
        iss,
        inj,
        place,
    };
    telling::injection(task, told);
}

/// Raises a virtual SError in the vCPU of this PE. One that is still pending is merged with it
/// (Arm ARM D20.4.3, R_JBQSC). Returns the identity of what came out of it; [`settle`] has to
/// follow before the guest goes on.
pub(crate) fn raise(task: &mut Task, iss: Iss) -> Option<u64> {
    let (partition, vcpu) = task.vcpu()?;
    if !task.local.running {
        return Some(cancel_unraised(task, partition, vcpu, iss));
    }
    let iss = if task.local.injection.is_some() {
        merge(task, iss)
    } else {
        iss
    };
    let id = next_identity();
    task.local.injection = Some(Injection {
        id,
        iss,
        vdisr_before: guest::raise_virtual_serror(task.pe.ras, iss.get()),
        poll_deadline: None,
    });
    Some(id)
}

/// Ends the injection before this one. Returns the syndrome of both together, if it is pending.
#[cold]
fn merge(task: &mut Task, iss: Iss) -> Iss {
    look(task);
    let merged = match guest::pending_syndrome(task.pe.ras).and_then(Iss::new) {
        Some(earlier) => earlier.merge(iss),
        None => iss,
    };
    if let Some(Injection { id, iss, .. }) = task.local.injection {
        end(task, (id, iss), VserrorState::Merged, None);
    }
    merged
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
    let waits = |injection: &&Injection| injection.poll_deadline.is_none();
    if let Some(&Injection { id, iss, .. }) = task.local.injection.as_ref().filter(waits) {
        place(task, id, iss);
    }
}

#[cold]
fn place(task: &mut Task, id: u64, iss: Iss) {
    // Without FEAT_RAS the syndrome of the CPU itself is the only faithful one.
    if task.pe.ras && takes_serror_at_once(task.frame.spsr) {
        let interrupted = Place {
            elr: task.frame.elr,
            el: level(task.frame.spsr),
            exact: true,
        };
        guest::cancel_virtual_serror();
        inject::serror(task, iss);
        return end(task, (id, iss), VserrorState::Taken, Some(interrupted));
    }
    keep(task);
    deadlines::rearm(task);
    if let Some((partition, vcpu)) = task.vcpu() {
        tell(
            task,
            partition,
            vcpu,
            (id, iss),
            VserrorState::Pending,
            None,
        );
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
    let Some(injection) = task.local.injection else {
        return;
    };
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    let Injection {
        id,
        iss,
        vdisr_before,
        ..
    } = injection;
    let what = (id, iss);
    let (vse, vdisr) = guest::virtual_serror(task.pe.ras);
    let seen = Look {
        vse,
        iss: task.pe.ras.then_some(iss),
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
            keep(task);
        }
        Life::Pending => keep(task),
        Life::Deferred => end(task, what, VserrorState::Deferred, None),
        Life::Taken => end(task, what, VserrorState::Taken, Some(hint)),
        Life::Gone => end(task, what, VserrorState::Gone, None),
    }
}

fn keep(task: &mut Task) {
    if let Some(injection) = &mut task.local.injection {
        injection.poll_deadline = Some(next_poll());
    }
}

/// Takes a pending virtual SError back: the vCPU goes away.
pub(crate) fn cancel(task: &mut Task) {
    watch(task);
    if let Some(Injection { id, iss, .. }) = task.local.injection {
        guest::cancel_virtual_serror();
        end(task, (id, iss), VserrorState::Cancelled, None);
    }
}

#[inline]
fn end(task: &mut Task, what: (u64, Iss), state: VserrorState, place: Option<Place>) {
    task.local.injection = None;
    if let Some((partition, vcpu)) = task.vcpu() {
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
