// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that went bad: taking it away, for good, from whoever has it.
//!
//! All of it runs in task context. A partition's list of retired pages is locked for a moment
//! only, never while memory is cleared or copied; tables are locked before the pool.

use crate::memory::{self, POOL};
use crate::partition::Partition;
use crate::pe::Task;
use crate::{blackbox, boot, console, recovery, system};
use core::sync::atomic::Ordering;
use firebreak_abi::{Ipa, PAGE_SIZE_BYTES, Pa, PaRange, VmId};
use firebreak_arch::mmu;
use firebreak_paging::{Attributes, PagingError};
use firebreak_triage::{Owner, Part};
use firebreak_vm::{FrameUse, KernelSource, StopCause};
use firebreak_wire::Event;

/// Takes a page away from its partition, now.
pub(crate) fn page(task: &Task, vm: VmId, pa: Pa) {
    let Some(partition) = system::partition_of(vm) else {
        return;
    };
    let page = pa.page();
    // Known already, perhaps, but only to be left out at the next start: it goes now.
    let (ipa, known) = {
        let mut backing = partition.backing.lock(&task.ctx);
        (backing.ipa_of(page), backing.retire(page))
    };
    let Some(ipa) = ipa else { return };
    if known.is_err() {
        partition.worn_out.store(true, Ordering::Release);
        console::say(
            &task.ctx,
            format_args!(
                "{}: too many retired pages; it is stopped",
                partition.name()
            ),
        );
        return partition.request_stop(task, StopCause::Killed);
    }
    if let Err(error) = cut_off(task, partition, ipa, page) {
        console::say(
            &task.ctx,
            format_args!(
                "{}: cannot retire a page: {error}; it is stopped",
                partition.name()
            ),
        );
        partition.request_stop(task, StopCause::Killed);
    }
}

/// Takes a retired page out of the partition's tables, if it is still in them.
fn cut_off(task: &Task, partition: &Partition, ipa: Ipa, page: Pa) -> Result<(), PagingError> {
    // Bad tables are not walked. Their partition stops, and its new ones come without the page.
    if partition.tables_lost.load(Ordering::Acquire) {
        return Ok(());
    }
    {
        let stage2 = partition.stage2.lock(&task.ctx);
        let mut pool = POOL.lock(&task.ctx);
        let tables = &mut pool.tables_of(partition.id);
        // Another page may stand there by now.
        let mapped = stage2.translate(tables, ipa);
        if mapped.is_none_or(|mapped| mapped.pa != page) {
            return Ok(());
        }
        match stage2.unmap_page(tables, ipa) {
            // SAFETY: made just now for this partition's tables, whose lock is held.
            Ok(plan) => unsafe { mmu::carry_out(&plan, partition.vttbr.load(Ordering::Acquire)) },
            Err(error) => return Err(error),
        }
    }
    if partition.backing.lock(&task.ctx).mark_cut_off(page) {
        let event = Event::Retired {
            vm: partition.id.0,
            ipa: ipa.get(),
            pa: page.get(),
        };
        console::emit(&task.ctx, &event);
    }
    Ok(())
}

/// Leaves a page out of its partition from the next start on.
pub(crate) fn page_at_next_start(task: &Task, vm: VmId, pa: Pa) {
    let Some(partition) = system::partition_of(vm) else {
        return;
    };
    // A full list only means that this page, still good, is used again.
    let _ = partition.backing.lock(&task.ctx).retire(pa);
}

/// Makes the hypervisor do without some memory; `lost` says that its content is gone.
pub(crate) fn give_up(task: &Task, owner: Owner, pa: Pa, lost: bool) {
    match owner {
        Owner::Stage2Tables(_) | Owner::Hypervisor(Part::Pool) => {
            // Bound to a name, so that the lock is free again before anybody is stopped.
            let before = POOL.lock(&task.ctx).retire(pa);
            match before {
                Some(FrameUse::Table { vm, .. }) if lost => lose_tables(task, vm, owner),
                // Known, and in the one case not taken away yet.
                Some(FrameUse::Retired | FrameUse::Table { worn: true, .. }) => return,
                _ => {}
            }
        }
        Owner::Payload(_) => lose_payload(task, pa),
        Owner::Hypervisor(Part::Log) => blackbox::abandon(),
        _ => return,
    }
    let event = Event::GivenUp {
        what: owner.name(),
        vm: owner.vm().map(|vm| vm.0),
        pa: pa.page().get(),
    };
    console::emit(&task.ctx, &event);
}

/// A partition cannot run on these tables any more. The verdict stops it, unless the frame was
/// nobody's when the error struck and became a table since.
fn lose_tables(task: &Task, vm: VmId, owner: Owner) {
    let Some(partition) = system::partition_of(vm) else {
        return;
    };
    partition.tables_lost.store(true, Ordering::Release);
    if owner != Owner::Stage2Tables(vm) {
        partition.request_stop(task, StopCause::Killed);
    }
}

/// Several partitions may be loaded from the same bytes.
fn lose_payload(task: &Task, pa: Pa) {
    let Some(system) = system::get() else { return };
    let page = pa.page();
    for partition in &system.partitions {
        let is_hit =
            |range: PaRange| range.start.get() < page.get() + PAGE_SIZE_BYTES && page < range.end();
        let mut kernels = partition.kernels.lock(&task.ctx);
        for (source, range) in [
            (KernelSource::Boot, partition.config.kernel),
            (KernelSource::Slot(0), partition.slot(0)),
            (KernelSource::Slot(1), partition.slot(1)),
        ] {
            if is_hit(range) {
                kernels.spoil(source);
            }
        }
        if partition.config.ramdisk.is_some_and(is_hit) {
            partition.payload_lost.store(true, Ordering::Release);
        }
    }
}

/// Prepares a partition's memory for its next life: new tables where the old ones went bad, and
/// without the pages that were retired since.
///
/// Called by the PE that carries the stop out, while no vCPU of the partition runs.
pub(crate) fn renew(task: &Task, partition: &Partition) -> Result<(), PagingError> {
    let vm = partition.id;
    {
        let mut stage2 = partition.stage2.lock(&task.ctx);
        let mut pool = POOL.lock(&task.ctx);
        let lost = partition.tables_lost.load(Ordering::Acquire);
        if lost || memory::has_worn_tables(vm) {
            // Until new ones stand: where there is no room for them, nobody may use what is left.
            partition.tables_lost.store(true, Ordering::Release);
            mmu::forget(partition.vttbr.load(Ordering::Acquire));
            // SAFETY: no vCPU of the partition runs, so no PE walks the tables, and what was
            // cached of them is gone.
            unsafe { pool.release_tables(vm) };
            let pa_bits = system::get().map_or(0, |system| boot::pa_bits(&system.features));
            let new = boot::build_tables(
                &mut pool.tables_of(vm),
                vm,
                (partition.ram, partition.ram_base),
                pa_bits,
            )?;
            partition.set_tables(&mut stage2, new);
        }
    }
    // Copied, because each of them takes locks of its own.
    let backing = partition.backing.lock(&task.ctx).clone();
    for page in backing.retired().as_slice() {
        cut_off(task, partition, page.ipa, page.pa)?;
    }
    for (ipa, pa) in backing.lent() {
        put_behind(task, partition, ipa, pa)?;
    }
    Ok(())
}

/// Puts a page behind one that the partition lost, if it is not there yet.
fn put_behind(task: &Task, partition: &Partition, ipa: Ipa, pa: Pa) -> Result<(), PagingError> {
    let stage2 = partition.stage2.lock(&task.ctx);
    let mut pool = POOL.lock(&task.ctx);
    let tables = &mut pool.tables_of(partition.id);
    match stage2.map_page(tables, ipa, pa, Attributes::NormalRwx) {
        Ok(plan) => {
            // SAFETY: made just now for this partition's tables, whose lock is held.
            unsafe { mmu::carry_out(&plan, partition.vttbr.load(Ordering::Acquire)) };
            Ok(())
        }
        Err(PagingError::Overlap { existing, .. }) if existing == pa => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lends the partition a spare page for each that it lost, cleared, as long as there are any. Says
/// how many it lent.
///
/// Called by the PE that carries the stop out, while no vCPU of the partition runs; what is
/// drained on the way retires a spare that turns out to be bad, and the next one is tried.
pub(crate) fn mend(task: &mut Task, partition: &Partition) -> Result<(), PagingError> {
    loop {
        let (lent, left) = {
            let mut backing = partition.backing.lock(&task.ctx);
            let lent = backing.lend();
            partition
                .spares_lent
                .store(backing.lent_mask(), Ordering::Release);
            (lent, backing.spares_left() as u64)
        };
        let Some((ipa, pa)) = lent else {
            return Ok(());
        };
        put_behind(task, partition, ipa, pa)?;
        // SAFETY: a spare page of the partition, which none of its vCPUs can use yet.
        if unsafe { memory::scrub(PaRange::new(pa.get(), PAGE_SIZE_BYTES)) }.is_err() {
            recovery::drain(task);
            // Whatever its record said, or did not say.
            page(task, partition.id, pa);
            continue;
        }
        let (vm, ipa, pa) = (partition.id.0, ipa.get(), pa.get());
        console::emit(&task.ctx, &Event::Spare { vm, ipa, pa, left });
    }
}

/// Strikes a page out that nobody uses: it may be a spare.
pub(crate) fn unused(task: &Task, pa: Pa) {
    let Some(system) = system::get() else { return };
    for partition in &system.partitions {
        if partition.spares.contains(pa) {
            // It may have been lent since the error was decided on.
            page(task, partition.id, pa);
        }
    }
}
