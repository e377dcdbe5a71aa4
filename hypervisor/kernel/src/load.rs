// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fills a partition's memory: kernel, RAM disk, devicetree.

use crate::memory::{self, BadPage};
use crate::partition::{MAX_RETIRED, Partition};
use crate::pe::Task;
use crate::recovery;
use core::sync::atomic::Ordering;
use firebreak_abi::{Ipa, PAGE_SIZE_BYTES, PaRange, guest_map};
use firebreak_arch::{TaskCtx, cache};
use firebreak_guestdt::{GuestMachine, write_guest_dt};
use firebreak_manifest::{GuestLayout, IMAGE_HEADER_LEN, KernelImage, guest_layout};
use firebreak_vm::RetiredPages;

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
/// A page that turns out to be bad is retired; the second attempt then finds it in the way.
pub(crate) fn load(task: &mut Task, partition: &Partition) -> Result<Start, LoadError> {
    let first = try_load(&task.ctx, partition);
    if first != Err(LoadError::BadPage) {
        return first;
    }
    recovery::drain(task);
    try_load(&task.ctx, partition)
}

fn try_load(ctx: &TaskCtx, partition: &Partition) -> Result<Start, LoadError> {
    if partition.payload_lost.load(Ordering::Acquire) {
        return Err(LoadError::PayloadLost);
    }
    let config = &partition.config;
    let kind = KernelImage::identify(header(config.kernel)).map_err(|_| LoadError::Payload)?;
    let ramdisk_len = config.ramdisk.map(|range| range.len_bytes);
    let layout = guest_layout(
        partition.ram.len_bytes,
        kind,
        config.kernel.len_bytes,
        ramdisk_len,
    )
    .map_err(|_| LoadError::Payload)?;
    // A copy: nobody who has to retire a page waits until everything is in its place.
    let retired = partition.retired.lock(ctx).clone();
    put(partition, &retired, layout.kernel, config.kernel)?;
    if let (Some(ipa), Some(range)) = (layout.ramdisk, config.ramdisk) {
        put(partition, &retired, ipa, range)?;
    }
    write_devicetree(partition, &retired, &layout)?;
    Ok(Start {
        entry: layout.kernel,
        devicetree: layout.devicetree,
    })
}

fn header(kernel: PaRange) -> &'static [u8] {
    let len = kernel.len_bytes.min(IMAGE_HEADER_LEN as u64) as usize;
    let start = core::ptr::with_exposed_provenance::<u8>(kernel.start.get() as usize);
    // SAFETY: a payload of the image, mapped read-only at boot and never written.
    unsafe { core::slice::from_raw_parts(start, len) }
}

fn put(
    partition: &Partition,
    retired: &RetiredPages<MAX_RETIRED>,
    ipa: Ipa,
    from: PaRange,
) -> Result<(), LoadError> {
    refuse_retired(retired, ipa, from.len_bytes)?;
    let to = partition.ram_pa(ipa).ok_or(LoadError::Payload)?;
    if ipa.get() + from.len_bytes > guest_map::RAM.get() + partition.ram.len_bytes {
        return Err(LoadError::Payload);
    }
    // SAFETY: inside the partition's RAM, which no vCPU runs in; the payload lies in the image,
    // which no partition's RAM overlaps (`firebreak_manifest::validate`).
    unsafe { memory::copy_to_guest(to, from.start, from.len_bytes) }?;
    Ok(())
}

fn refuse_retired(
    retired: &RetiredPages<MAX_RETIRED>,
    ipa: Ipa,
    len_bytes: u64,
) -> Result<(), LoadError> {
    let end = ipa.get() + len_bytes;
    let hit = retired
        .as_slice()
        .iter()
        .any(|page| page.ipa.get() < end && page.ipa.get() + PAGE_SIZE_BYTES > ipa.get());
    if hit {
        Err(LoadError::RetiredPageInTheWay)
    } else {
        Ok(())
    }
}

fn write_devicetree(
    partition: &Partition,
    retired: &RetiredPages<MAX_RETIRED>,
    layout: &GuestLayout,
) -> Result<(), LoadError> {
    refuse_retired(retired, layout.devicetree, DT_BYTES)?;
    let mut holes = heapless::Vec::<Ipa, MAX_RETIRED>::new();
    holes.extend(retired.as_slice().iter().map(|page| page.ipa));
    let ramdisk_len = partition.config.ramdisk.map_or(0, |range| range.len_bytes);
    let machine = GuestMachine {
        ram_ipa: guest_map::RAM,
        ram_len_bytes: partition.ram.len_bytes,
        vcpus: partition.config.vcpus,
        initrd: layout.ramdisk.map(|ipa| (ipa, ramdisk_len)),
        bootargs: partition.config.bootargs,
        console: partition.config.console,
        watchdog: partition.config.watchdog,
        holes: &holes,
    };
    let to = partition
        .ram_pa(layout.devicetree)
        .ok_or(LoadError::Devicetree)?;
    // SAFETY: as below. What is bad there is found now, where that costs no more than the partition.
    unsafe {
        memory::scrub(PaRange {
            start: to,
            len_bytes: DT_BYTES,
        })
    }?;
    let start = core::ptr::with_exposed_provenance_mut::<u8>(to.get() as usize);
    // SAFETY: the last 64 KiB of the partition's RAM, which no vCPU runs in.
    let buffer = unsafe { core::slice::from_raw_parts_mut(start, DT_BYTES as usize) };
    let len = write_guest_dt(buffer, &machine).map_err(|_| LoadError::Devicetree)? as u64;
    cache::publish_guest_memory(to.get(), len);
    // QEMU's own boards leave a devicetree at the start of RAM too, and some guests look there.
    if len <= DT_COPY_BYTES && refuse_retired(retired, guest_map::RAM, len).is_ok() {
        // SAFETY: the 2 MiB below the kernel, in the same RAM; the two copies do not overlap.
        unsafe { memory::copy_to_guest(partition.ram.start, to, len) }?;
    }
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

/// The list is looked at again and again, and locked for a moment only: pages that were retired a
/// moment ago count.
fn try_scrub(ctx: &TaskCtx, partition: &Partition) -> Result<(), BadPage> {
    let mut start = partition.ram.start.get();
    let end = partition.ram.end().get();
    while start < end {
        let stop = end.min(start + SCRUB_BYTES);
        let next_bad = partition
            .retired
            .lock(ctx)
            .as_slice()
            .iter()
            .map(|page| page.pa.get())
            .filter(|pa| *pa >= start && *pa < stop)
            .min();
        let range = PaRange::new(start, next_bad.unwrap_or(stop) - start);
        // SAFETY: RAM of a partition whose vCPUs are all parked, between retired pages.
        unsafe { memory::scrub(range) }?;
        start = next_bad.map_or(stop, |page| page + PAGE_SIZE_BYTES);
    }
    Ok(())
}
