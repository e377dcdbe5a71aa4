// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest whose syndrome or context an SEI destroyed, because firmware barged in.

use crate::exits;
use crate::partition::{Partition, state};
use crate::pe::{PeBlock, Task, attention};
use crate::system;
use core::sync::atomic::Ordering;
use firebreak_abi::Pa;
use firebreak_arch::guest;
use firebreak_syndrome::{Repeat, repeat};
use firebreak_triage::Policy;
use firebreak_vm::StopCause;

/// Stops the partition of this PE: one of its vCPUs cannot go on. A verdict that did so already,
/// or a stop for another reason, stands.
#[cold]
pub(crate) fn stop(task: &mut Task) {
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    if partition.state() != state::RUNNING {
        return;
    }
    let policies = system::get().map(|system| system.policies.as_slice());
    let policy = policies
        .and_then(|policies| policies.get(partition.id.index()))
        .copied()
        .unwrap_or(Policy::DEFAULT);
    let cause = if policy.restarts_lost_context() {
        StopCause::KilledForRestart
    } else {
        StopCause::Killed
    };
    partition.request_stop(task, cause);
}

/// Goes on after an exit of which nobody knows the reason. The guest does its instruction again
/// and exits again; only a call is behind it already, and is answered where that can be told.
#[cold]
#[inline(never)]
pub(crate) fn exit(pe: &'static PeBlock) {
    // SAFETY: the tail of `firebreak_sync`, which made no `Task`.
    let mut task = unsafe { Task::enter(pe) };
    if pe.head.attention.load(Ordering::Acquire) & attention::CONTEXT_LOST != 0 {
        // The frame holds nothing of the guest, and the partition is about to be stopped.
        return;
    }
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    let at = task.frame.elr;
    let behind = fetch(&task, partition, at.wrapping_sub(4));
    match repeat(behind, fetch(&task, partition, at)) {
        Repeat::Instruction => {}
        Repeat::Call => exits::call(pe),
        Repeat::Unknown => stop(&mut task),
    }
}

/// Reads an instruction of the guest; `None` where it cannot be read by its own translation.
fn fetch(task: &Task, partition: &Partition, va: u64) -> Option<u32> {
    let el0 = !crate::inject::from_el1(task.frame.spsr);
    let pa = Pa::new(guest::translate(va, el0)?);
    {
        let backing = partition.backing.lock(&task.ctx);
        backing.ipa_of(pa)?;
        // Memory that is known to be bad would bring EL2 itself an SEA.
        if backing.retired().contains_pa(pa) {
            return None;
        }
    }
    // SAFETY: RAM of the partition, which is mapped at EL2; the partition may change it meanwhile,
    // and gets what it deserves then.
    Some(unsafe { core::ptr::with_exposed_provenance::<u32>(pa.get() as usize).read_volatile() })
}
