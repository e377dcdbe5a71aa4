// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another kernel for a partition, brought by commands.
//!
//! Its pieces go into a slot that nobody uses; the partition notices nothing until all of them have
//! come, and their sum and the kernel's header are right. Then it stops, and starts with the new
//! one.

use crate::control::{BUSY, UNUSABLE, find};
use crate::load;
use crate::memory;
use crate::partition::Partition;
use crate::pe::Task;
use crate::sync::Lock;
use crate::{deadlines, recovery, system};
use firebreak_abi::{Pa, PaRange, VmId};
use firebreak_vm::{KernelSource, StopCause};
use firebreak_wire::{Name, Piece, Transfer, TransferFault};

const NO_TRANSFER: &str = "no image is on its way: begin with `reload NAME bytes=... crc=...`";
const NO_ROOM: &str = "the partition has no room for another image: its file has no reload_room";
const BAD_ROOM: &str = "the room for another image is bad memory";
const NO_KERNEL: &str = "the image is no kernel that fits the partition's memory";

type Answer = Result<&'static str, &'static str>;

/// The kernel that is on its way, if there is one: to whom, and into which slot.
static ON_ITS_WAY: Lock<Option<(VmId, u8, Transfer)>> = Lock::new(None);

/// Begins with another kernel, or goes back to the one that was booted. What was on its way before
/// is forgotten.
pub(crate) fn begin(task: &Task, name: &Name, kernel: Option<(u64, u32)>) -> Answer {
    let partition = find(name)?;
    let Some((len_bytes, crc)) = kernel else {
        return propose(task, partition, KernelSource::Boot, 0);
    };
    let room_bytes = partition.slots.len_bytes / 2;
    if room_bytes == 0 {
        return Err(NO_ROOM);
    }
    let slot = {
        let kernels = partition.kernels.lock(&task.ctx);
        let spoiled = [0, 1].map(|slot| kernels.is_bad(KernelSource::Slot(slot)));
        let why = if spoiled == [false; 2] {
            BUSY
        } else {
            BAD_ROOM
        };
        kernels.free_slot().ok_or(why)?
    };
    let transfer = Transfer::begin(len_bytes, crc, room_bytes).map_err(TransferFault::as_str)?;
    *ON_ITS_WAY.lock(&task.ctx) = Some((partition.id, slot, transfer));
    Ok("")
}

/// Takes a piece.
pub(crate) fn data(task: &mut Task, piece: &Piece) -> Answer {
    let Some((vm, slot, mut transfer)) = *ON_ITS_WAY.lock(&task.ctx) else {
        return Err(NO_TRANSFER);
    };
    let partition = system::partition_of(vm).ok_or(NO_TRANSFER)?;
    if !transfer.judge(piece).map_err(TransferFault::as_str)? {
        return Ok("it has come before");
    }
    let start = partition.slot(slot).start.get();
    let from = Pa::new(piece.bytes().as_ptr().addr() as u64);
    let len_bytes = piece.bytes().len() as u64;
    // SAFETY: `judge` held the piece against the slot's length. No partition is loaded from this slot:
    // `free_slot` gave it away, and only `commit` changes that.
    let written = unsafe { memory::copy_to_guest(Pa::new(start + piece.at), from, len_bytes) };
    deadlines::rearm(task);
    if written.is_err() {
        recovery::drain(task);
        let mut kernels = partition.kernels.lock(&task.ctx);
        kernels.spoil(KernelSource::Slot(slot));
        *ON_ITS_WAY.lock(&task.ctx) = None;
        return Err(BAD_ROOM);
    }
    transfer.take(piece);
    *ON_ITS_WAY.lock(&task.ctx) = Some((vm, slot, transfer));
    Ok("")
}

/// Loads what has come, if it is whole. The pieces stay until that is done.
pub(crate) fn commit(task: &Task) -> Answer {
    let on_its_way = *ON_ITS_WAY.lock(&task.ctx);
    let (vm, slot, transfer) = on_its_way.ok_or(NO_TRANSFER)?;
    let partition = system::partition_of(vm).ok_or(NO_TRANSFER)?;
    let len_bytes = transfer.finish().map_err(TransferFault::as_str)?;
    let kernel = PaRange {
        len_bytes,
        ..partition.slot(slot)
    };
    if load::layout(partition, kernel).is_err() {
        return Err(NO_KERNEL);
    }
    let done = propose(task, partition, KernelSource::Slot(slot), len_bytes)?;
    *ON_ITS_WAY.lock(&task.ctx) = None;
    Ok(done)
}

/// Forgets what has come.
pub(crate) fn abort(task: &Task) -> Answer {
    let forgotten = ON_ITS_WAY.lock(&task.ctx).take();
    forgotten.map(|_| "").ok_or(NO_TRANSFER)
}

/// Returns where the next piece begins.
pub(crate) fn next(task: &Task) -> Option<u64> {
    let on_its_way = *ON_ITS_WAY.lock(&task.ctx);
    on_its_way.map(|(_, _, transfer)| transfer.next())
}

/// Has a partition start again with a kernel.
fn propose(
    task: &Task,
    partition: &'static Partition,
    source: KernelSource,
    len_bytes: u64,
) -> Answer {
    if partition.is_unusable() {
        return Err(UNUSABLE);
    }
    // First: whoever starts it takes it.
    partition.kernels.lock(&task.ctx).propose(source, len_bytes);
    if partition.try_stop(task, StopCause::AskedForRestart) || partition.request_start(task) {
        return Ok("");
    }
    // It is stopping or starting for somebody else, who may have taken it.
    if partition.kernels.lock(&task.ctx).withdraw() {
        Err(BUSY)
    } else {
        Ok("")
    }
}
