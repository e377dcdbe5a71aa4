// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the first Rust instruction to the first guest.
//!
//! Stage one runs with the MMU off: it reads the devicetree and the configuration, holds one
//! against the other, and builds EL2's own map. No atomics and no locks there: neither is defined
//! on memory that is not yet Normal. Stage two, with the MMU on, builds the partitions.

use crate::console::{self, CONSOLE};
use crate::early::{self, Found, linker_symbol};
use crate::memory::{POOL, Tables};
use crate::partition::Partition;
use crate::pe::{PeBlock, PeTable, Task};
use crate::record::ErrorSource;
use crate::system::{self, System};
use crate::{aftermath, crash, irq, lifecycle, owners, passthrough, trace, virq};
use core::fmt;
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering;
use firebreak_abi::{Ipa, MAX_PES, Mpidr, PAGE_SIZE_BYTES, Pa, PaRange, PeId, VmId};
use firebreak_arch::cpu::Features;
use firebreak_arch::frame::{BOOT_GUARD_BYTE, BOOT_GUARD_BYTES, LAST_LEVEL, LEVELS, SeiLevel};
use firebreak_arch::gic::{self, Gic};
use firebreak_arch::{TaskCtx, cpu, psci, sysreg};
use firebreak_manifest::Placement;
use firebreak_paging::{Attributes, Geometry, PagingError, Stage2};
use firebreak_wire::{Event, LineSpeed, Ram};
use heapless::Vec;

/// Stacks of EL2's code and of the SEI path, with a guard page below each, for one PE.
pub(crate) const EL2_STACK_BYTES: u64 = 0x4000;
pub(crate) const SEI_STACK_BYTES: u64 = 0x3000;
/// Stacks of the SEI path: one for a guest's SEI, one for each level that goes on.
const SEI_STACKS: u64 = LAST_LEVEL + 1;
/// Bytes of address space that the stacks of one PE take.
pub(crate) const STACKS_BYTES: u64 =
    EL2_STACK_BYTES + PAGE_SIZE_BYTES + SEI_STACKS * (SEI_STACK_BYTES + PAGE_SIZE_BYTES);
/// Physical address bits by ID_AA64MMFR0_EL1.PARange.
const PA_BITS: [u8; 7] = [32, 36, 40, 42, 44, 48, 52];

/// A word that is always 0: the pending word of a PE whose firmware has none.
static NOTHING_PENDING: u64 = 0;

/// Why the hypervisor cannot go on. The text says what is missing and what to do.
pub(crate) fn halt(text: fmt::Arguments<'_>) -> ! {
    let mut line = heapless::String::<256>::new();
    // Cut at 256 bytes: the beginning says it.
    let _ = fmt::write(&mut line, text);
    if let Some(mut console) = CONSOLE.try_lock() {
        let _ = firebreak_wire::write_event(
            &mut *console,
            sysreg::cntpct_el0(),
            &Event::Halt { text: &line },
        );
    }
    cpu::park()
}

/// Stage two: MMU on, one PE. Returns the block of the boot PE.
pub(crate) fn start(found: Found) -> &'static PeBlock {
    // SAFETY: boot code, and this PE takes no SEI before `firebreak_ready`.
    let ctx = unsafe { TaskCtx::new() };
    let line = found.board.uart.map(|uart| {
        // SAFETY: the devicetree's console, mapped as Device memory; no guest sees it.
        unsafe { CONSOLE.lock(&ctx).attach(&uart) }
    });
    let line = line.unwrap_or(LineSpeed::Emulated);
    // Before anything asks for its share.
    console::divide(line, found.config.partitions.len(), found.board.cpus.len());
    // SAFETY: `early` reserved the range for this and mapped it.
    unsafe { POOL.lock(&ctx).add(found.pool) };
    let features = Features::read();
    require(&features);

    passthrough::find(&found);
    let mut pes = PeTable::new();
    for (index, mpidr) in found.board.cpus.iter().enumerate() {
        let used = *mpidr == cpu::mpidr()
            || found
                .plan
                .placements
                .iter()
                .any(|placement| placement.pes.contains(mpidr));
        if used {
            let pe = pe_block(
                &ctx,
                index,
                *mpidr,
                found.stacks,
                (source_of(&found.board, *mpidr), features.ras),
                found.config.trace_bytes,
            );
            // As many as PEs, which fit.
            let _ = pes.push(pe);
        }
    }
    let owners = match owners::map(&ctx, &found, &pes) {
        Ok(owners) => owners,
        Err(error) => halt(format_args!(
            "the devicetree's memory ranges overlap or are too many at {:#x}",
            error.range().start
        )),
    };
    let Found {
        board,
        config,
        plan,
        gic,
        ..
    } = found;
    let mut partitions = Vec::new();
    let mut policies = Vec::new();
    let (control, log_bytes) = (config.control, config.log_bytes);
    for (index, config) in config.partitions.into_iter().enumerate() {
        let Some(placement) = plan.placements.get(index) else {
            break;
        };
        let vm = VmId(index as u8);
        let _ = policies.push(config.policy);
        let partition = build(&ctx, vm, config, placement, &features, &pes);
        let _ = partitions.push(partition);
    }
    let system = system::publish(System {
        features,
        midr: sysreg::midr_el1(),
        // SAFETY: the devicetree's distributor, mapped as Device memory.
        gic: unsafe { Gic::new(gic.gicd.start) },
        gicr: gic.gicr.clone(),
        maintenance_intid: gic.maintenance_intid,
        uart_intid: board.uart.map(|uart| uart.intid),
        sei: board.sei.clone(),
        pes,
        partitions,
        policies,
        owners,
        control,
        log_bytes,
    });
    POOL.lock(&ctx).settle();
    crash::prepare(system);
    configure_virtual_gics(system);
    if system.gic.start_distributor().is_err() {
        halt(format_args!("the GIC's distributor does not answer"));
    }
    // Behind the distributor, which starts with every SPI off.
    passthrough::configure(system);
    // Kicks to other PEs need the system registers of the interrupt controller.
    gic::start_cpu_interface();
    introduce(&ctx, system, (board.model.as_str(), line));
    check_boot_stack();
    set_off(&ctx, system)
}

/// Halts if the boot stack has overflowed, in stage one or since: what stands below it may be
/// anything now.
#[inline(never)]
fn check_boot_stack() {
    let start = linker_symbol!(__boot_stack_bottom) - BOOT_GUARD_BYTES as u64;
    let words = core::ptr::with_exposed_provenance(start as usize);
    // SAFETY: aligned, in the image's own data, where nothing of Rust stands; who else writes there
    // is what is looked for, and has done so.
    let words: &[u64] = unsafe { core::slice::from_raw_parts(words, BOOT_GUARD_BYTES / 8) };
    let pattern = u64::from_ne_bytes([BOOT_GUARD_BYTE; 8]);
    // Frames, and probes of the stack, begin at a multiple of 16.
    if words.iter().step_by(2).any(|word| *word != pattern) {
        halt(format_args!(
            "the boot stack overflowed, this image cannot be trusted: please report it"
        ));
    }
}

/// Says what the CPU lacks. FEAT_RAS is not required: severity then comes from records alone.
fn require(features: &Features) {
    if !features.gic_system_registers {
        halt(format_args!(
            "this CPU has no GICv3 system registers (ID_AA64PFR0_EL1.GIC is 0); Firebreak needs them"
        ));
    }
}

/// Finds the error source of a PE, if its words stand where they may.
fn source_of(board: &firebreak_manifest::Board, mpidr: Mpidr) -> Option<ErrorSource> {
    let sei = board.sei.as_ref()?;
    let words = *sei.sources.iter().find(|source| source.mpidr == mpidr)?;
    ErrorSource::new(words, sei.region)
}

fn pe_block(
    ctx: &TaskCtx,
    index: usize,
    mpidr: Mpidr,
    stacks: PaRange,
    (source, ras): (Option<ErrorSource>, bool),
    trace_bytes: u64,
) -> &'static PeBlock {
    // The levels of the SEI path lie below the block, at the end of a page.
    const _: () = assert!(LEVELS * size_of::<SeiLevel>() <= PAGE_SIZE_BYTES as usize);
    let pages = 1 + size_of::<PeBlock>().div_ceil(PAGE_SIZE_BYTES as usize);
    let Some(place) = POOL.lock(ctx).pages(pages) else {
        halt(format_args!(
            "the hypervisor's pool is too small for {pages} pages of PE state"
        ));
    };
    let trace = trace::ring(ctx, trace_bytes);
    let base = stacks.start.get() + index as u64 * STACKS_BYTES;
    let el2_sp = base + PAGE_SIZE_BYTES + EL2_STACK_BYTES;
    let sei_sp = el2_sp + PAGE_SIZE_BYTES + SEI_STACK_BYTES;
    let nothing = (&raw const NOTHING_PENDING).addr() as u64;
    let pending = source.map_or(nothing, |source| source.words.pending.get());
    let this = place.get() + PAGE_SIZE_BYTES;
    let block = core::ptr::with_exposed_provenance_mut(this as usize);
    // SAFETY: pages that the pool handed out for this, aligned to 4 KiB and never given back.
    let block: &'static mut MaybeUninit<PeBlock> = unsafe { &mut *block };
    let id = PeId(index as u8);
    // A reference, and a constructor out of line: so it is made in its place and not copied.
    block.write(PeBlock::new(
        id,
        mpidr,
        [el2_sp, sei_sp, pending, this],
        (source, ras),
        trace,
    ));
    for level in 1..=LEVELS as u64 {
        let at = this - level * size_of::<SeiLevel>() as u64;
        let slot = core::ptr::with_exposed_provenance_mut(at as usize);
        // SAFETY: below the block, in the page that was handed out with it.
        let slot: &'static mut MaybeUninit<SeiLevel> = unsafe { &mut *slot };
        // Those behind the last one that goes on share its stack: they only reset.
        let stack = level.min(LAST_LEVEL) * (SEI_STACK_BYTES + PAGE_SIZE_BYTES);
        slot.write(SeiLevel::new(level, sei_sp + stack, this));
    }
    // SAFETY: written above, and never moved or freed.
    unsafe { block.assume_init_ref() }
}

/// The stacks of a PE inside its share of the stack range: what is mapped, between guard pages.
pub(crate) fn stack_ranges(stacks: PaRange, index: u64) -> impl Iterator<Item = PaRange> {
    let base = stacks.start.get() + index * STACKS_BYTES + PAGE_SIZE_BYTES;
    let sei = base + EL2_STACK_BYTES + PAGE_SIZE_BYTES;
    let of_sei = (0..SEI_STACKS).map(move |number| {
        PaRange::new(
            sei + number * (SEI_STACK_BYTES + PAGE_SIZE_BYTES),
            SEI_STACK_BYTES,
        )
    });
    core::iter::once(PaRange::new(base, EL2_STACK_BYTES)).chain(of_sei)
}

fn build(
    ctx: &TaskCtx,
    vm: VmId,
    config: firebreak_manifest::PartitionConfig<'static>,
    placement: &Placement,
    features: &Features,
    pes: &PeTable,
) -> &'static Partition {
    let name = config.name.clone();
    let ram = (placement.ram, placement.ram_ipa);
    let mut pool = POOL.lock(ctx);
    let stage2 = build_tables(&mut pool.tables_of(vm), vm, ram, pa_bits(features));
    let stage2 = match stage2 {
        Ok(stage2) => stage2,
        Err(error) => halt(format_args!("partition {name}: {error}")),
    };
    let mut partition = Partition::new(vm, config, placement, stage2, features.pa_range);
    for mpidr in &placement.pes {
        if let Some(pe) = pes.iter().find(|pe| pe.mpidr == *mpidr) {
            let _ = partition.pes.push(pe);
        }
    }
    let pages = size_of::<Partition>().div_ceil(PAGE_SIZE_BYTES as usize);
    let Some(place) = pool.pages(pages) else {
        halt(format_args!(
            "the hypervisor's pool is too small for partition {name}"
        ));
    };
    let slot = core::ptr::with_exposed_provenance_mut(place.get() as usize);
    // SAFETY: pages that the pool handed out for this, aligned to 4 KiB and never given back.
    let slot: &'static mut MaybeUninit<Partition> = unsafe { &mut *slot };
    slot.write(partition)
}

/// Builds a partition's stage-2 tables: its whole RAM, in the largest blocks that fit, and its
/// devices.
pub(crate) fn build_tables(
    frames: &mut Tables<'_>,
    vm: VmId,
    (ram, ipa): (PaRange, Ipa),
    pa_bits: u8,
) -> Result<Stage2, PagingError> {
    let end = (ipa.get() + ram.len_bytes).max(passthrough::end(vm));
    let stage2 = Stage2::new(frames, Geometry::new(Ipa::new(end), pa_bits)?)?;
    let attributes = Attributes::NormalRwx;
    stage2.map(frames, ipa, ram.start, ram.len_bytes, attributes)?;
    passthrough::map(&stage2, frames, vm)?;
    Ok(stage2)
}

/// Returns the number of physical address bits.
pub(crate) fn pa_bits(features: &Features) -> u8 {
    PA_BITS
        .get(features.pa_range as usize)
        .copied()
        .unwrap_or(48)
}

fn configure_virtual_gics(system: &'static System) {
    for partition in system.partitions.iter().copied() {
        partition
            .distributor
            .configure(usize::from(partition.config.vcpus));
        virq::map_timers(&partition.distributor);
    }
}

/// Says who is there, and how the boot before this one ended.
fn introduce(ctx: &TaskCtx, system: &System, (board, line): (&str, LineSpeed)) {
    console::emit(
        ctx,
        &Event::Boot {
            version: env!("CARGO_PKG_VERSION"),
            board,
            pes: system.pes.len() as u64,
            ras: system.features.ras,
            firmware: system.sei.as_ref().map(|_| firebreak_abi::sei::COMPATIBLE),
            partitions: system.partitions.len() as u64,
            line: line.bits_per_second(),
        },
    );
    if system.sei.is_none() {
        console::say(
            ctx,
            format_args!("the devicetree names no firmware-first error source: no SEI will come"),
        );
    }
    if !system.features.ras {
        console::say(
            ctx,
            format_args!(
                "this CPU has no FEAT_RAS: virtual SError syndromes cannot be chosen, and severity comes from records alone"
            ),
        );
    }
    aftermath::tell(ctx, system);
    for partition in system.partitions.iter().copied() {
        let mut pes = Vec::<u8, { firebreak_abi::MAX_VCPUS_PER_PARTITION }>::new();
        pes.extend(partition.pes.iter().map(|pe| pe.id.0));
        let ram = [Ram {
            ipa: partition.ram_base.get(),
            pa: partition.ram.start.get(),
            len_bytes: partition.ram.len_bytes,
        }];
        let event = Event::Partition {
            vm: partition.id.0,
            name: partition.name(),
            vcpus: u64::from(partition.config.vcpus),
            pes: &pes,
            ram: &ram,
        };
        console::emit(ctx, &event);
    }
}

/// Starts the other PEs and asks for the partitions' first vCPUs.
fn set_off(ctx: &TaskCtx, system: &'static System) -> &'static PeBlock {
    let own = cpu::mpidr();
    let Some(boot) = system::pe(own) else {
        halt(format_args!(
            "the boot PE {:#x} is not in the devicetree's /cpus",
            own.get()
        ));
    };
    // SAFETY: boot code on this PE; the `Task` of `firebreak_ready` comes after this one's end.
    let mut task = unsafe { Task::enter(boot) };
    let mut dead = Vec::<PeId, MAX_PES>::new();
    for pe in &system.pes {
        if pe.mpidr != own && !start_pe(ctx, pe) {
            // As many as PEs, which fit.
            let _ = dead.push(pe.id);
        }
    }
    for partition in system.partitions.iter().copied() {
        let whole = partition.pes.len() == usize::from(partition.config.vcpus)
            && !partition.pes.iter().any(|pe| dead.contains(&pe.id));
        if whole && !partition.config.autostart {
            lifecycle::keep_down(&task, partition);
        } else if whole {
            lifecycle::start_first(&mut task, partition);
        } else {
            lifecycle::refuse(&task, partition, "a PE of it does not start");
        }
    }
    if let Some(intid) = system.uart_intid {
        console::CONSOLE
            .lock(ctx)
            .listen(system.partitions.len() as u8);
        system.gic.set_spi(intid, own, true);
        // What was typed while the partitions started raised no interrupt.
        irq::input(&mut task);
    }
    boot
}

/// Starts a PE; says whether the firmware took the order.
fn start_pe(ctx: &TaskCtx, pe: &'static PeBlock) -> bool {
    unsafe extern "C" {
        static firebreak_secondary_start: u8;
    }
    let entry = Pa::new((&raw const firebreak_secondary_start).addr() as u64);
    let context = core::ptr::from_ref(pe).expose_provenance() as u64;
    firebreak_arch::cache::clean_and_invalidate(context, size_of::<PeBlock>() as u64);
    // SAFETY: `boot.S` starts there, and takes the address of a PE block.
    let started = unsafe { psci::cpu_on(pe.mpidr, entry, context) };
    if let Err(error) = started {
        console::say(
            ctx,
            format_args!(
                "PE {} does not start (PSCI CPU_ON: {error}); its vCPUs will not run",
                pe.id.0
            ),
        );
    }
    started.is_ok()
}

/// First Rust function of a PE that PSCI started.
///
/// # Safety
///
/// Called by `boot.S` alone.
#[unsafe(no_mangle)]
unsafe extern "C" fn firebreak_secondary(pe: &'static PeBlock) {
    // All that is to be done here is done by `firebreak_ready`; this only says that Rust runs.
    pe.sei_count.store(0, Ordering::Relaxed);
}

/// First Rust function of the boot PE, MMU off.
///
/// # Safety
///
/// Called by `boot.S` alone, with what the boot protocol promises.
#[unsafe(no_mangle)]
unsafe extern "C" fn firebreak_boot(dtb: u64, image: u64, current_el: u64) -> &'static PeBlock {
    // SAFETY: the caller's promise.
    let found = unsafe { early::find(Pa::new(dtb), Pa::new(image), current_el >> 2 & 3) };
    start(found)
}
