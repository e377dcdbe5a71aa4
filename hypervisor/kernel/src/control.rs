// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands from the UART: what each does, and its one answer.
//!
//! The PE that takes the UART's interrupt understands the line. What concerns a vCPU is left as
//! an [`Order`] with the vCPU's own PE, which answers when it has been done.

use crate::partition::{Partition, state};
use crate::pe::{Task, attention};
use crate::{console, deadlines, lifecycle, memory, reload, system, trace, vserror};
use core::fmt::Write as _;
use core::sync::atomic::Ordering;
use firebreak_abi::{MAX_PARTITIONS, MAX_PES};
use firebreak_arch::sysreg;
use firebreak_syndrome::Iss;
use firebreak_vm::{FrameUse, KernelSource, StopCause, VcpuPower};
use firebreak_wire::{
    Command, Detail, Event, ExitRow, Fault, Name, PartitionRow, PeRow, Place, Request, Stats,
    UsageRow, write_decimal,
};
use heapless::Vec;

/// Something that the PE of a vCPU does for a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// The caller's number.
    id: Option<u64>,
    /// What the vCPU is to take.
    fault: Fault,
    /// When it is turned on next; otherwise now.
    at_start: bool,
    /// Only where the guest is found there.
    place: Option<Place>,
    /// How often more it is looked for.
    looks: u32,
}

/// How often a guest's place is looked at, and how long after each other, in us.
const LOOKS: u32 = 20_000;
const LOOK_EVERY_US: u64 = 50;

const NOT_ALLOWED: &str =
    "this system takes no commands: its partition file does not say control = true";
const NO_PARTITION: &str = "no partition has that name: `ps` lists them";
const NO_VCPU: &str = "the partition has no such vCPU";
const STOPPED: &str = "the partition is stopped; `start` it first";
pub(crate) const BUSY: &str = "the partition is stopping or starting; ask again";
const NOT_STOPPED: &str = "the partition is not stopped";
pub(crate) const UNUSABLE: &str =
    "this machine cannot run the partition: a PE of it does not start";
const VCPU_OFF: &str = "the vCPU is off: its guest has not turned it on";
const ORDER_WAITS: &str = "another injection waits for that vCPU; ask again";
const NOT_AT_LEVEL: &str = "the guest was not found there; nothing was injected";
const NO_TRACE: &str =
    "this system keeps no trace: its partition file does not say trace = \"4 KiB\"";
const NOT_CHOSEN: &str = "this CPU has no FEAT_RAS: the syndrome is its own, not the one asked for";

/// Exits in an answer: the PE that gives it runs no guest meanwhile.
const EXITS_AT_ONCE: usize = 8;

/// VTTBR_EL2.VMID.
const VTTBR_VMID_SHIFT: u32 = 48;

/// The one answer of a command.
fn answer(task: &Task, id: Option<u64>, done: Result<&str, &str>, detail: Detail<'_>) {
    let (ok, text) = match done {
        Ok(text) => (true, text),
        Err(text) => (false, text),
    };
    let event = Event::Answer {
        id,
        ok,
        text,
        detail,
    };
    console::emit(&task.ctx, &event);
}

/// Carries out a command, or leaves it with the PE that can.
#[inline(never)]
pub(crate) fn take(task: &mut Task, command: &Command) {
    let id = command.id;
    let done = match command.request {
        Err(refused) => Err(refused.as_str()),
        Ok(_) if !system::get().is_some_and(|system| system.control) => Err(NOT_ALLOWED),
        Ok(Request::Ps) => return ps(task, id),
        Ok(Request::Stats) => return stats(task, id),
        Ok(Request::Log) => return log(task, id),
        Ok(Request::Trace { name, vcpu, before }) => match trace(task, id, &name, vcpu, before) {
            Ok(()) => return,
            Err(reason) => Err(reason),
        },
        Ok(Request::Stop(name)) => stop(task, &name, StopCause::Asked),
        Ok(Request::Restart(name)) => stop(task, &name, StopCause::AskedForRestart),
        Ok(Request::Start(name)) => find(&name).and_then(|partition| {
            let asked = partition.request_start(task);
            let why = if partition.is_unusable() {
                UNUSABLE
            } else {
                NOT_STOPPED
            };
            asked.then_some("").ok_or(why)
        }),
        Ok(Request::Reload { name, kernel }) => reload::begin(task, &name, kernel),
        Ok(Request::Data(piece)) => reload::data(task, &piece),
        Ok(Request::Commit) => reload::commit(task),
        Ok(Request::Abort) => reload::abort(task),
        Ok(Request::Inject {
            name,
            vcpu,
            fault,
            at_start,
            place,
        }) => {
            let what = Order {
                id,
                fault,
                at_start,
                place,
                looks: LOOKS,
            };
            match order(task, &name, vcpu, what) {
                // The PE of the vCPU answers.
                Ok(()) => return,
                Err(reason) => Err(reason),
            }
        }
    };
    let detail = match command.request {
        Ok(Request::Reload { .. } | Request::Data(_) | Request::Commit) => {
            reload::next(task).map_or(Detail::None, Detail::Next)
        }
        _ => Detail::None,
    };
    answer(task, id, done, detail);
}

pub(crate) fn find(name: &Name) -> Result<&'static Partition, &'static str> {
    system::get()
        .into_iter()
        .flat_map(|system| system.partitions.iter().copied())
        .find(|partition| partition.name() == name.as_str())
        .ok_or(NO_PARTITION)
}

fn stop(task: &Task, name: &Name, cause: StopCause) -> Result<&'static str, &'static str> {
    let partition = find(name)?;
    let cut = cause == StopCause::Asked && lifecycle::stop_waiting(task, partition);
    if cut || partition.try_stop(task, cause) {
        Ok("")
    } else if partition.state() == state::STOPPED {
        Err(STOPPED)
    } else {
        Err(BUSY)
    }
}

/// Leaves an order with the PE of a vCPU. A partition that is about to start takes it before its
/// first instruction.
fn order(task: &Task, name: &Name, vcpu: u8, order: Order) -> Result<(), &'static str> {
    let partition = find(name)?;
    if partition.is_unusable() {
        return Err(UNUSABLE);
    }
    let pe = partition.pes.get(usize::from(vcpu)).ok_or(NO_VCPU)?;
    match partition.state() {
        _ if order.at_start => {}
        state::STOPPED => return Err(STOPPED),
        state::STOPPING => return Err(BUSY),
        _ => {}
    }
    let mut waiting = pe.order.lock(&task.ctx);
    if waiting.is_some() {
        return Err(ORDER_WAITS);
    }
    *waiting = Some(order);
    drop(waiting);
    pe.request(task, attention::ORDER);
    Ok(())
}

/// Does what a command left with this PE, unless it is meant for the vCPU's start, or the vCPU is
/// about to start: then its start comes back here.
#[cold]
pub(crate) fn obey(task: &mut Task, started: bool) {
    let Some((partition, index)) = task.vcpu() else {
        return;
    };
    let power = partition
        .vcpus
        .get(usize::from(index))
        .map_or(VcpuPower::Off, |vcpu| {
            VcpuPower::from_raw(vcpu.power.load(Ordering::Acquire))
        });
    // The first vCPU alone starts with its partition; another one may never be turned on.
    let starts = index == 0 && partition.state() == state::STARTING;
    let starts = starts || power == VcpuPower::OnPending;
    if !task.local.running && starts {
        return;
    }
    let order = task
        .pe
        .order
        .lock(&task.ctx)
        .take_if(|order| started || !order.at_start);
    let Some(order) = order else {
        return;
    };
    let Order { id, fault, .. } = order;
    if !task.local.running {
        return answer(task, id, Err(VCPU_OFF), Detail::None);
    }
    let elsewhere = |place: Place| !place.holds(task.frame.spsr);
    if order.place.is_some_and(elsewhere) {
        return look_again(task, order);
    }
    let (inj, text) = match fault {
        Fault::Serror { iss } => {
            let chosen = system::get().is_some_and(|system| system.features.ras);
            let iss = Iss::new(iss).unwrap_or(Iss::IMPDEF);
            let text = if chosen { "" } else { NOT_CHOSEN };
            (vserror::raise(task, iss), text)
        }
        Fault::Sea { fetch, far, iss } => (vserror::external_abort(task, fetch, far, iss), ""),
    };
    let detail = inj.map_or(Detail::None, Detail::Injection);
    answer(task, id, Ok(text), detail);
}

/// Comes back soon for an order that wants the guest elsewhere, but not for ever.
fn look_again(task: &mut Task, mut order: Order) {
    order.looks = order.looks.saturating_sub(1);
    if order.looks == 0 {
        return answer(task, order.id, Err(NOT_AT_LEVEL), Detail::None);
    }
    let mut waiting = task.pe.order.lock(&task.ctx);
    if waiting.is_some() {
        // Another one was left meanwhile, and is on its way here: that one stays.
        drop(waiting);
        return answer(task, order.id, Err(ORDER_WAITS), Detail::None);
    }
    *waiting = Some(order);
    drop(waiting);
    let soon = sysreg::cntfrq_el0() * LOOK_EVERY_US / 1_000_000;
    task.local.order_deadline = Some(sysreg::cntpct_el0() + soon);
    deadlines::rearm(task);
}

/// Answers the orders of a partition that stays down, but those for its next start.
pub(crate) fn refuse_orders(task: &Task, partition: &Partition) {
    for pe in &partition.pes {
        let order = pe.order.lock(&task.ctx).take_if(|order| !order.at_start);
        if let Some(Order { id, .. }) = order {
            answer(task, id, Err(STOPPED), Detail::None);
        }
    }
}

fn ps(task: &Task, id: Option<u64>) {
    let mut rows = Vec::<PartitionRow<'_>, MAX_PARTITIONS>::new();
    let Some(system) = system::get() else { return };
    for partition in system.partitions.iter().copied() {
        let on = VcpuPower::On.to_raw();
        let vcpus_on = partition
            .vcpus
            .iter()
            .filter(|vcpu| vcpu.power.load(Ordering::Acquire) == on)
            .count();
        let (retired, spares) = {
            let backing = partition.backing.lock(&task.ctx);
            let retired = backing.retired().as_slice().len() as u64;
            (retired, backing.spares_left())
        };
        // As many as partitions, which fit.
        let _ = rows.push(PartitionRow {
            vm: partition.id.0,
            name: partition.name(),
            state: state::name(partition.state()),
            restarts: u64::from(partition.restarts.load(Ordering::Relaxed)),
            vcpus_on: vcpus_on as u64,
            retired,
            spares: spares as u64,
            kernel: match partition.kernels.lock(&task.ctx).current() {
                KernelSource::Boot => "boot",
                KernelSource::Slot(_) => "reloaded",
            },
        });
    }
    answer(task, id, Ok(""), Detail::Partitions(&rows));
}

fn stats(task: &Task, id: Option<u64>) {
    let mut pes = Vec::<PeRow, MAX_PES>::new();
    let mut partitions = Vec::<UsageRow, MAX_PARTITIONS>::new();
    let Some(system) = system::get() else { return };
    for pe in system.pes.iter().copied() {
        // As many as PEs, which fit.
        let _ = pes.push(PeRow {
            pe: pe.id.0,
            seis: pe.sei_count.load(Ordering::Relaxed),
            waiting: pe.queue.counters().pending,
            maintenance: pe.maintenance_count.load(Ordering::Relaxed),
        });
    }
    for partition in system.partitions.iter().copied() {
        let vm = partition.id;
        let (enabled, raised) = partition.distributor.counts();
        // As many as partitions, which fit.
        let _ = partitions.push(UsageRow {
            vm: vm.0,
            vmid: partition.vttbr.load(Ordering::Acquire) >> VTTBR_VMID_SHIFT,
            tables: memory::frames_that(
                |one| matches!(one, FrameUse::Table { vm: of, .. } if of == vm),
            ),
            irqs_enabled: u64::from(enabled),
            irqs_raised: u64::from(raised),
            irqs_forwarded: partition.forwarded.load(Ordering::Relaxed),
        });
    }
    let stats = Stats {
        pes: &pes,
        partitions: &partitions,
        pool_free: memory::frames_that(|one| one == FrameUse::Free),
        pool_retired: memory::frames_that(|one| one == FrameUse::Retired),
    };
    answer(task, id, Ok(""), Detail::Stats(&stats));
}

/// The last exits of a vCPU before one of them.
fn trace(
    task: &Task,
    id: Option<u64>,
    name: &Name,
    vcpu: u8,
    before: u64,
) -> Result<(), &'static str> {
    let pe = find(name)?.pes.get(usize::from(vcpu)).ok_or(NO_VCPU)?;
    if pe.trace.is_none() {
        return Err(NO_TRACE);
    }
    let exits = trace::exits_before(pe, before).take(EXITS_AT_ONCE);
    let rows: Vec<ExitRow, EXITS_AT_ONCE> = exits
        .map(|(number, exit)| trace::row(Some(number), &exit))
        .collect();
    answer(task, id, Ok(""), Detail::Exits(&rows));
    Ok(())
}

/// The names of the last events with their times, as a dying partition's dump has them.
fn log(task: &Task, id: Option<u64>) {
    let mut text = heapless::String::<256>::new();
    console::last_events(&task.ctx, |ticks, event| {
        // Cut at 256 bytes: the oldest come first.
        let _ = text.push_str(event);
        let _ = text.push('@');
        let _ = write_decimal(&mut text, ticks);
        let _ = text.write_char(' ');
    });
    answer(task, id, Ok(text.trim_end()), Detail::None);
}
