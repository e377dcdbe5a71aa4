// SPDX-License-Identifier: MIT OR Apache-2.0
//! Synchronous exits of a guest: what it did, and who answers.
//!
//! Nothing that a guest does ends here in a panic: what Firebreak does not know becomes the
//! exception that hardware without the thing would raise.

use crate::pe::{PeBlock, Task, attention};
use crate::virq::Lrs;
use crate::{inject, lost, mmio, sea, system_registers};
use core::sync::atomic::Ordering;
use firebreak_abi::Ipa;
use firebreak_arch::frame::{LOST_ADDRESS, LOST_SYNDROME};
use firebreak_syndrome::{DataAbort, Ec, Esr};
use firebreak_vm::psci::{Machine, Outcome, SUCCESS, VERSION_1_1, function, handle};
use firebreak_vm::{StopCause, VcpuPower};
use firebreak_wire::Event;

/// A64 instructions have four bytes.
const INSTRUCTION_BYTES: u64 = 4;

/// First Rust function of a synchronous exit.
///
/// # Safety
///
/// Called by `vectors.S` alone, once for each exit, by way of [`PeHead::on_sync`] and, where there is
/// a trace, of `trace.rs`.
///
/// [`PeHead::on_sync`]: firebreak_arch::PeHead
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn firebreak_sync(pe: &'static PeBlock) {
    // SAFETY: the vectors have just written the frame, and no `Task` is alive yet.
    let esr = unsafe { (*pe.head.guest.get()).esr };
    // One call in tail position for each kind, so that each pays for its own registers alone.
    match Esr::from_raw(esr).ec().bits() {
        0x16 => call(pe),
        0x24 if DataAbort::new(esr).is_write() => mmio::data_write(pe),
        0x24 => mmio::data_read(pe),
        0x18 => system_registers::trapped(pe),
        0x17 => secure_call(pe),
        _ => rare(pe),
    }
}

#[cold]
#[inline(never)]
fn rare(pe: &'static PeBlock) {
    // SAFETY: as in `firebreak_sync`, whose tail this is.
    match unsafe { (*pe.head.guest.get()).esr } {
        LOST_SYNDROME => return lost::exit(pe),
        // Known to be no call: the guest does its instruction again.
        LOST_ADDRESS => return,
        _ => {}
    }
    // SAFETY: the tail of `firebreak_sync`, which made no `Task`.
    let mut task = unsafe { Task::enter(pe) };
    if Esr::from_raw(task.frame.esr).ec() == Ec::IABT_LOWER {
        mmio::instruction_abort(&mut task);
    } else if sea::is_external_abort(task.frame.esr) {
        // The class of EL2's own abort by the vector of a guest: the vector is right.
        sea::external_abort(&mut task);
    } else {
        unknown(&mut task);
    }
}

/// Answers a trap that nobody handles: the guest gets an UNDEF, and the console one line.
#[cold]
pub(crate) fn unknown(task: &mut Task) {
    let (pc, esr) = (task.frame.elr, task.frame.esr);
    if let Some(vcpu) = &task.local.vcpu {
        let (partition, index) = (vcpu.partition, vcpu.index);
        let event = Event::Undef {
            vm: partition.id.0,
            vcpu: index,
            pc,
            esr,
        };
        partition.report(&task.ctx, &event);
    }
    inject::undefined(task);
}

/// Answers PSCI and SMCCC calls by HVC; ELR is behind the instruction (Arm ARM D1.4.1.4).
#[inline(never)]
pub(crate) fn call(pe: &'static PeBlock) {
    // SAFETY: the tail of `firebreak_sync`, which made no `Task`.
    let task = unsafe { Task::enter(pe) };
    if task.frame.x[0] as u32 == function::PSCI_VERSION {
        task.frame.x[0] = VERSION_1_1.cast_unsigned();
    } else {
        answer(pe);
    }
}

/// Answers the same calls by SMC, which leaves ELR at itself.
#[inline(never)]
fn secure_call(pe: &'static PeBlock) {
    // SAFETY: the tail of `firebreak_sync`, which made no `Task`.
    let task = unsafe { Task::enter(pe) };
    task.frame.elr = task.frame.elr.wrapping_add(INSTRUCTION_BYTES);
    call(pe);
}

#[inline(never)]
fn answer(pe: &'static PeBlock) {
    // SAFETY: the tail of `call`, which uses its own `Task` no more.
    let mut task = unsafe { Task::enter(pe) };
    let [function_id, x1, x2, x3, ..] = task.frame.x;
    match handle(function_id, [x1, x2, x3], &Caller(&task)) {
        Outcome::Return(value) => task.frame.x[0] = value.cast_unsigned(),
        outcome => act(&mut task, outcome),
    }
}

#[inline(never)]
fn act(task: &mut Task, outcome: Outcome) {
    let Some((partition, own)) = task.vcpu() else {
        return;
    };
    match outcome {
        Outcome::Return(value) => task.frame.x[0] = value.cast_unsigned(),
        Outcome::Suspend => {
            // A virtual interrupt that stands in a list register wakes the guest, not EL2's WFI.
            let waiting = task
                .local
                .vcpu
                .as_ref()
                .map_or(0, |vcpu| vcpu.vgic.pending_count(&Lrs));
            if waiting == 0 {
                firebreak_arch::cpu::idle(&task.pe.head);
            }
            task.frame.x[0] = SUCCESS.cast_unsigned();
        }
        Outcome::CpuOff => {
            if let Some(shared) = partition.vcpus.get(usize::from(own)) {
                shared
                    .power
                    .store(VcpuPower::Off.to_raw(), Ordering::Release);
            }
            task.pe.request(task, attention::STATE);
        }
        Outcome::CpuOn {
            index,
            entry_ipa,
            context,
        } => {
            let result = cpu_on(task, index, entry_ipa, context);
            task.frame.x[0] = result.cast_unsigned();
        }
        Outcome::SystemOff => partition.request_stop(task, StopCause::Off),
        Outcome::SystemReset => partition.request_stop(task, StopCause::Reset),
    }
}

fn cpu_on(task: &Task, index: u8, entry: Ipa, context: u64) -> i64 {
    let Some((partition, _)) = task.vcpu() else {
        return SUCCESS;
    };
    let number = usize::from(index);
    let (Some(shared), Some(pe)) = (partition.vcpus.get(number), partition.pes.get(number)) else {
        return firebreak_vm::psci::error::INVALID_PARAMETERS;
    };
    let off = VcpuPower::Off.to_raw();
    let pending = VcpuPower::OnPending.to_raw();
    match shared
        .power
        .compare_exchange(off, pending, Ordering::AcqRel, Ordering::Acquire)
    {
        Ok(_) => {
            // The entry is stored last: the vCPU's PE starts nothing before it stands.
            shared.context.store(context, Ordering::Relaxed);
            shared.entry.store(entry.get(), Ordering::Release);
            pe.request(task, attention::STATE);
            SUCCESS
        }
        Err(raw) => VcpuPower::from_raw(raw).claim().err().unwrap_or(SUCCESS),
    }
}

/// The calling partition, as PSCI wants to know it.
struct Caller<'a>(&'a Task);

impl Machine for Caller<'_> {
    fn vcpu_count(&self) -> u8 {
        self.0
            .vcpu()
            .map_or(0, |(partition, _)| partition.config.vcpus)
    }

    fn power(&self, index: u8) -> VcpuPower {
        self.0
            .vcpu()
            .and_then(|(partition, _)| partition.vcpus.get(usize::from(index)))
            .map_or(VcpuPower::Off, |vcpu| {
                VcpuPower::from_raw(vcpu.power.load(Ordering::Acquire))
            })
    }

    fn is_entry(&self, ipa: Ipa) -> bool {
        ipa.is_aligned(INSTRUCTION_BYTES)
            && self
                .0
                .vcpu()
                .is_some_and(|(partition, _)| partition.is_ram(ipa))
    }
}
