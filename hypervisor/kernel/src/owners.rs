// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose memory is whose, as boot left it: what an error's address is held against.
//!
//! What is known best goes in first; what surrounds it is filled in behind.

use crate::boot::stack_ranges;
use crate::early::{Found, linker_symbol};
use crate::memory;
use crate::passthrough;
use crate::pe::PeTable;
use crate::sync::{Guard, Lock};
use crate::system::{self, Owners};
use core::sync::atomic::Ordering;
use firebreak_abi::{PAGE_SIZE_BYTES, Pa, PaRange, VmId};
use firebreak_arch::TaskCtx;
use firebreak_manifest::Device;
use firebreak_vm::backing::spare_number;
use firebreak_vm::{FrameUse, Owner, OwnerMapError, Part};

/// Length of the PL011's registers.
const UART_BYTES: u64 = PAGE_SIZE_BYTES;

/// The map, where it stays: on its way through boot's stack it would leave four copies there. Whoever
/// builds it keeps the lock, so that nothing changes it afterwards.
static OWNERS: Lock<Owners> = Lock::new(Owners::new());

/// Builds the map; once.
pub(crate) fn map(
    ctx: &TaskCtx,
    found: &Found,
    pes: &PeTable,
) -> Result<&'static Owners, OwnerMapError> {
    let owners = Guard::leak(OWNERS.lock(ctx));
    partitions(owners, found)?;
    hypervisor(owners, found, pes)?;
    outside(owners, found)?;
    Ok(owners)
}

fn partitions(owners: &mut Owners, found: &Found) -> Result<(), OwnerMapError> {
    for (index, placement) in found.plan.placements.iter().enumerate() {
        let owner = Owner::Partition(VmId(index as u8));
        owners.insert(placement.ram, owner, Some(placement.ram_ipa))?;
        if placement.slots.len_bytes != 0 {
            owners.insert(placement.slots, Owner::Payload(VmId(index as u8)), None)?;
        }
        if placement.spares.len_bytes != 0 {
            owners.insert(placement.spares, owner, None)?;
        }
    }
    for (index, config) in found.config.partitions.iter().enumerate() {
        for payload in [Some(config.kernel), config.ramdisk].into_iter().flatten() {
            // Two partitions may be loaded from one image: the first of them stands for both.
            owners.fill(payload, Owner::Payload(VmId(index as u8)))?;
        }
    }
    Ok(())
}

fn hypervisor(owners: &mut Owners, found: &Found, pes: &PeTable) -> Result<(), OwnerMapError> {
    let part = Owner::Hypervisor;
    let between = |start: u64, end: u64| PaRange::new(start, end - start);
    let image = found.image;
    let stack = between(
        linker_symbol!(__boot_stack_bottom),
        linker_symbol!(__boot_stack_top),
    );
    let (text_end, rodata_end) = (linker_symbol!(__text_end), linker_symbol!(__rodata_end));
    owners.fill(between(image.start.get(), text_end), part(Part::Text))?;
    owners.fill(between(text_end, rodata_end), part(Part::ReadOnly))?;
    // Boot's own stack: nobody has run on it since.
    owners.fill(stack, Owner::Unused)?;
    owners.fill(between(rodata_end, linker_symbol!(__end)), part(Part::Data))?;
    // The configuration stands behind the hypervisor, between the payloads.
    owners.fill(image, part(Part::ReadOnly))?;
    owners.fill(found.tables, part(Part::Tables))?;
    for pe in pes {
        for stack in stack_ranges(found.stacks, pe.id.index() as u64) {
            owners.fill(stack, part(Part::Stack))?;
        }
    }
    owners.fill(found.pool, part(Part::Pool))?;
    // Tables that were not needed, guard pages, stacks of PEs that nobody uses.
    owners.fill(
        between(image.start.get(), found.pool.end().get()),
        Owner::Unused,
    )
}

fn outside(owners: &mut Owners, found: &Found) -> Result<(), OwnerMapError> {
    let board = &found.board;
    owners.fill(found.gic.gicd, Owner::Device)?;
    for region in &found.gic.gicr {
        owners.fill(*region, Owner::Device)?;
    }
    if let Some(uart) = board.uart {
        owners.fill(PaRange::new(uart.base.get(), UART_BYTES), Owner::Device)?;
    }
    for (_, pages) in passthrough::all().iter().flat_map(Device::pages) {
        owners.fill(pages, Owner::Device)?;
    }
    if let Some(sei) = &board.sei {
        if let Some(persistent) = sei.persistent {
            owners.fill(persistent, Owner::Hypervisor(Part::Log))?;
        }
        owners.fill(sei.region, Owner::Firmware)?;
    }
    let devicetree = if found.config_in_dtb || !passthrough::all().is_empty() {
        // Names, command lines and the nodes of passed-through devices are read from there
        // whenever a partition starts.
        Owner::Hypervisor(Part::ReadOnly)
    } else {
        Owner::Unused
    };
    owners.fill(found.dtb, devicetree)?;
    for reserved in &board.reserved {
        owners.fill(*reserved, Owner::Firmware)?;
    }
    for memory in &board.memory {
        owners.fill(*memory, Owner::Unused)?;
    }
    Ok(())
}

/// Says who owns the page of an address. From any context.
pub(crate) fn owner_of(owners: &Owners, pa: Pa) -> Owner {
    match owners.owner_of(pa).owner {
        Owner::Hypervisor(Part::Pool) => pool_frame(pa),
        Owner::Partition(vm) if is_idle_spare(vm, pa) => Owner::Unused,
        owner => owner,
    }
}

/// Whose spare page it is that an address lies in, if nobody uses it: none of the partition's
/// content is there. From any context.
fn is_idle_spare(vm: VmId, pa: Pa) -> bool {
    system::partition_of(vm).is_some_and(|partition| {
        let lent = partition.spares_lent.load(Ordering::Acquire);
        spare_number(partition.spares, pa).is_some_and(|spare| lent >> spare & 1 == 0)
    })
}

/// What the frame is used for changes while the machine runs.
fn pool_frame(pa: Pa) -> Owner {
    match memory::use_of(pa) {
        Some(FrameUse::Table { vm, .. }) => Owner::Stage2Tables(vm),
        Some(FrameUse::Free | FrameUse::Retired) => Owner::Hypervisor(Part::Pool),
        Some(FrameUse::Hypervisor) | None => Owner::Hypervisor(Part::Data),
    }
}

/// Returns the owner's word for events: a partition's own name for its memory.
pub(crate) fn name(owner: Owner) -> &'static str {
    match owner {
        Owner::Partition(vm) => {
            system::partition_of(vm).map_or(owner.name(), |partition| partition.name())
        }
        _ => owner.name(),
    }
}
