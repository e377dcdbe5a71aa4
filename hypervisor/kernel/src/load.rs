// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fills a partition's memory: kernel, RAM disk, devicetree.

use crate::memory::{self, BadPage};
use crate::partition::{MAX_RETIRED, Partition};
use crate::passthrough;
use crate::pe::Task;
use crate::{recovery, retire};
use core::sync::atomic::Ordering;
use firebreak_abi::{Ipa, PAGE_SIZE_BYTES, Pa, PaRange, guest_map};
use firebreak_arch::{TaskCtx, cache};
use firebreak_guestdt::{FdtWriter, GuestMachine, write_guest_dt_with};
use firebreak_manifest::{GuestLayout, IMAGE_HEADER_LEN, KernelImage, guest_layout};
use firebreak_vm::Backing;

/// Room for a guest's devicetree, in bytes.
const DT_BYTES: u64 = firebreak_manifest::GUEST_DT_BYTES;
/// Room for the copy of the devicetree at the start of RAM, up to the kernel.
const DT_COPY_BYTES: u64 = guest_map::KERNEL.get() - guest_map::RAM.get();

/// Why a partition cannot be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LoadError {
    /// The images that it is loaded from have an uncorrected error.
    PayloadLost,
    /// The kernel is none, or its pieces do not fit. Boot checked that: the payload changed.
    Payload,
    /// A page that was retired lies where the kernel, the RAM disk or the devicetree must go.
    RetiredPageInTheWay,
    /// The devicetree does not fit its place.
    Devicetree,
    /// Pages of its memory turn out to be bad, more than can be left out.
    BadPage,
}

impl LoadError {
    /// Words for the event that says why the partition stays down.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::PayloadLost => "the image that it is loaded from has an uncorrected error",
            Self::Payload => "its kernel cannot be loaded again: the payload in memory changed",
            Self::RetiredPageInTheWay => {
                "a retired page lies where its kernel, RAM disk or devicetree must go"
            }
            Self::BadPage => "too many pages of its memory are bad",
            Self::Devicetree => "its devicetree does not fit in 64 KiB",
        }
    }
}

impl From<BadPage> for LoadError {
    fn from(BadPage: BadPage) -> Self {
        Self::BadPage
    }
}

/// Where a loaded partition starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Start {
    /// First instruction.
    pub(crate) entry: Ipa,
    /// Devicetree, for x0.
    pub(crate) devicetree: Ipa,
}

/// Fills a partition's memory while none of its vCPUs runs.
///
/// A page that turns out to be bad is retired; the second attempt finds a spare behind it, or it in
/// the way.
pub(crate) fn load(task: &mut Task, partition: &Partition) -> Result<Start, LoadError> {
    // Here and nowhere else: what is proposed while this goes on is for the next start.
    let _ = partition.kernels.lock(&task.ctx).take();
    let first = try_load(&task.ctx, partition);
    if first != Err(LoadError::BadPage) {
        return first;
    }
    recovery::drain(task);
    retire::mend(task, partition).map_err(|_| LoadError::BadPage)?;
    try_load(&task.ctx, partition)
}

fn try_load(ctx: &TaskCtx, partition: &Partition) -> Result<Start, LoadError> {
    if partition.payload_lost.load(Ordering::Acquire) {
        return Err(LoadError::PayloadLost);
    }
    let config = &partition.config;
    let (kernel, is_bad) = {
        let kernels = partition.kernels.lock(ctx);
        let source = kernels.current();
        (partition.kernel(&kernels, source), kernels.is_bad(source))
    };
    if is_bad {
        return Err(LoadError::PayloadLost);
    }
    let layout = layout(partition, kernel)?;
    // A copy: nobody who has to retire a page waits until everything is in its place.
    let backing = partition.backing.lock(ctx).clone();
    // First, because it may be written in another place than it goes to.
    write_devicetree(partition, &backing, &layout)?;
    put(&backing, layout.kernel, kernel)?;
    if let (Some(ipa), Some(range)) = (layout.ramdisk, config.ramdisk) {
        put(&backing, ipa, range)?;
    }
    Ok(Start {
        entry: layout.kernel,
        devicetree: layout.devicetree,
    })
}

/// Says where things go in a partition's memory with a kernel.
pub(crate) fn layout(partition: &Partition, kernel: PaRange) -> Result<GuestLayout, LoadError> {
    let kind = KernelImage::identify(header(kernel)).map_err(|_| LoadError::Payload)?;
    let ramdisk_len = partition.config.ramdisk.map(|range| range.len_bytes);
    let memory_len = partition.ram.len_bytes;
    guest_layout(memory_len, kind, kernel.len_bytes, ramdisk_len)
        .map(|layout| layout.with_ram_at(partition.ram_base))
        .map_err(|_| LoadError::Payload)
}

fn header(kernel: PaRange) -> &'static [u8] {
    let len = kernel.len_bytes.min(IMAGE_HEADER_LEN as u64) as usize;
    let start = core::ptr::with_exposed_provenance::<u8>(kernel.start.get() as usize);
    // SAFETY: a payload of the image, mapped read-only at boot, or a slot that no command writes to:
    // it is in use, or its transfer is over.
    unsafe { core::slice::from_raw_parts(start, len) }
}

type Memory = Backing<MAX_RETIRED>;

/// Copies bytes to where the partition sees them, over as many pages as stand there one by one.
fn put(backing: &Memory, to: Ipa, from: PaRange) -> Result<(), LoadError> {
    let mut done = 0;
    while done < from.len_bytes {
        let ipa = Ipa::new(to.get() + done);
        let run = backing.run_at(ipa, from.len_bytes - done);
        let run = run.ok_or(if backing.is_hole(ipa) {
            LoadError::RetiredPageInTheWay
        } else {
            LoadError::Payload
        })?;
        let source = Pa::new(from.start.get() + done);
        // SAFETY: pages of the partition, in which no vCPU runs, without those that were retired;
        // neither the image nor what `write_devicetree` wrote there overlaps them.
        unsafe { memory::copy_to_guest(run.start, source, run.len_bytes) }?;
        done += run.len_bytes;
    }
    Ok(())
}

/// Finds room for a devicetree in one piece: where it goes, or else any that is whole, from the top
/// of the RAM down. What is to be loaded comes later.
fn room_for_devicetree(partition: &Partition, backing: &Memory, at: Ipa) -> Option<Pa> {
    let blocks = partition.ram.len_bytes / DT_BYTES;
    // The first one has a copy, where it can.
    let places = (1..blocks).map(|block| Ipa::new(partition.ram_base.get() + block * DT_BYTES));
    core::iter::once(at).chain(places.rev()).find_map(|place| {
        let run = backing.run_at(place, DT_BYTES)?;
        (run.len_bytes == DT_BYTES).then_some(run.start)
    })
}

fn write_devicetree(
    partition: &Partition,
    backing: &Memory,
    layout: &GuestLayout,
) -> Result<(), LoadError> {
    let mut holes = heapless::Vec::<Ipa, MAX_RETIRED>::new();
    holes.extend(backing.holes());
    let ramdisk_len = partition.config.ramdisk.map_or(0, |range| range.len_bytes);
    let machine = GuestMachine {
        ram_ipa: partition.ram_base,
        ram_len_bytes: partition.ram.len_bytes,
        vcpus: partition.config.vcpus,
        initrd: layout.ramdisk.map(|ipa| (ipa, ramdisk_len)),
        bootargs: partition.config.bootargs,
        console: partition.config.console,
        watchdog: partition.config.watchdog,
        pvpanic: partition.config.pvpanic,
        holes: &holes,
    };
    let room = room_for_devicetree(partition, backing, layout.devicetree);
    let room = room.ok_or(LoadError::RetiredPageInTheWay)?;
    let whole = PaRange {
        start: room,
        len_bytes: DT_BYTES,
    };
    // SAFETY: as below. What is bad there is found now, where that costs no more than the partition.
    unsafe { memory::scrub(whole) }?;
    let start = core::ptr::with_exposed_provenance_mut::<u8>(room.get() as usize);
    // SAFETY: 64 KiB of the partition's RAM in one piece, without retired pages; no vCPU runs in it.
    let buffer = unsafe { core::slice::from_raw_parts_mut(start, DT_BYTES as usize) };
    let mut devices = |root: &mut FdtWriter<'_>| passthrough::describe(partition.id, root);
    let len = write_guest_dt_with(buffer, &machine, &mut devices);
    let len = len.map_err(|_| LoadError::Devicetree)? as u64;
    cache::publish_guest_memory(room.get(), len);
    let written = PaRange {
        start: room,
        len_bytes: len,
    };
    // QEMU's own boards leave a devicetree at the start of RAM too, and some guests look there.
    if len <= DT_COPY_BYTES {
        match put(backing, partition.ram_base, written) {
            // Few guests look there, and those with a page in the way do without.
            Err(LoadError::RetiredPageInTheWay) => {}
            other => other?,
        }
    }
    if backing.pa_of(layout.devicetree) == Some(room) {
        return Ok(());
    }
    put(backing, layout.devicetree, whole)?;
    // SAFETY: as above: a guest finds memory cleared that nothing was loaded into.
    unsafe { memory::scrub(whole) }?;
    Ok(())
}

/// Bytes that are cleared between two looks at what was retired.
const SCRUB_BYTES: u64 = 1 << 20;

/// Clears a partition's memory, but never touches a page that was retired. A page that turns out
/// to be bad is retired on the way.
pub(crate) fn scrub(task: &mut Task, partition: &Partition) -> Result<(), LoadError> {
    // Each turn but the last retires a page, and no partition can lose more.
    for _ in 0..=MAX_RETIRED {
        if try_scrub(&task.ctx, partition).is_ok() {
            return Ok(());
        }
        recovery::drain(task);
    }
    Err(LoadError::BadPage)
}

/// The layout is looked at again and again, and locked for a moment only: pages that were retired a
/// moment ago count.
fn try_scrub(ctx: &TaskCtx, partition: &Partition) -> Result<(), BadPage> {
    let mut ipa = partition.ram_base.get();
    let end = ipa + partition.ram.len_bytes;
    while ipa < end {
        let run = partition
            .backing
            .lock(ctx)
            .run_at(Ipa::new(ipa), SCRUB_BYTES);
        let Some(range) = run else {
            ipa += PAGE_SIZE_BYTES;
            continue;
        };
        // SAFETY: pages of a partition whose vCPUs are all parked, without those that were retired.
        unsafe { memory::scrub(range) }?;
        ipa += range.len_bytes;
    }
    Ok(())
}
