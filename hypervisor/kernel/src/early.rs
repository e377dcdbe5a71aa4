// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stage one of boot, MMU off: what is there, what is wanted, and EL2's own map.
//!
//! Memory is Device memory here, so nothing may use an atomic: no lock, no `Once`. Messages go
//! straight to the UART that the devicetree names.

use crate::boot::{STACKS_BYTES, stack_ranges};
use crate::console::write_char;
use crate::memory::{EarlyFrames, POOL_BYTES};
use core::fmt::{self, Write};
use firebreak_abi::image::{IMAGE_INFO_LEN, IMAGE_INFO_OFFSET, ImageInfo};
use firebreak_abi::{PAGE_SIZE_BYTES, Pa, PaRange, Va};
use firebreak_arch::cpu::{self, Features};
use firebreak_arch::{cache, hcr, mmu, sysreg};
use firebreak_drivers::pl011::Pl011;
use firebreak_manifest::{
    Board, Gicv3, HEADER_LEN, MAX_ALL_DEVICES, MemoryPlan, SystemConfig, blob_len, read_board,
    read_config, resolve_devices, used_len, validate,
};
use firebreak_paging::{El2Attr, PagingError, Stage1, VaSize};
use heapless::Vec;

/// EL2's tables, built before there is a pool.
const TABLE_BYTES: u64 = 0x2_0000;
/// Frames of a GIC are at least this long.
const GICD_BYTES: u64 = 0x1_0000;

/// What stage one found out.
pub(crate) struct Found {
    /// The machine.
    pub(crate) board: Board,
    /// The partitions.
    pub(crate) config: SystemConfig<'static>,
    /// Where they go.
    pub(crate) plan: MemoryPlan,
    /// The image, payloads included.
    pub(crate) image: PaRange,
    /// The devicetree.
    pub(crate) dtb: PaRange,
    /// Its bytes.
    pub(crate) dtb_bytes: &'static [u8],
    /// EL2's own tables.
    pub(crate) tables: PaRange,
    /// Whether the partitions stand in the devicetree, and not in the image.
    pub(crate) config_in_dtb: bool,
    /// The private pool.
    pub(crate) pool: PaRange,
    /// Stacks of all PEs.
    pub(crate) stacks: PaRange,
    /// The interrupt controller.
    pub(crate) gic: Gicv3,
    /// Pages of passed-through devices that EL2 itself needs, to make the devices quiet.
    pub(crate) device_pages: Vec<Pa, MAX_ALL_DEVICES>,
}

macro_rules! linker_symbol {
    ($name:ident) => {{
        unsafe extern "C" {
            static $name: u8;
        }
        (&raw const $name).addr() as u64
    }};
}
pub(crate) use linker_symbol;

/// Finds out what there is, and turns the MMU on.
///
/// # Safety
///
/// As the boot protocol promises: `dtb` is a devicetree or nothing, `image` is where the image
/// stands, caches and MMU are off, no other PE runs.
pub(crate) unsafe fn find(dtb: Pa, image: Pa, current_el: u64) -> Found {
    // SAFETY: the boot protocol's x0; the header says how long the blob is.
    let dtb_bytes = unsafe { devicetree(dtb) };
    let board = match read_board(dtb_bytes) {
        Ok(board) => board,
        Err(error) => halt(None, format_args!("devicetree at {dtb:#x}: {error}")),
    };
    let uart = board.uart.map(|uart| uart.base);
    if current_el != 2 {
        halt(
            uart,
            format_args!(
                "started at EL{current_el}; Firebreak needs EL2 (QEMU: -M virt,virtualization=on)"
            ),
        );
    }
    if sysreg::hcr_el2() & hcr::E2H != 0 {
        halt(
            uart,
            format_args!(
                "HCR_EL2.E2H stays 1 on this CPU (ID_AA64MMFR4_EL1.E2H0); Firebreak needs one that can clear it"
            ),
        );
    }
    let Some(gic) = board.gicv3.clone() else {
        halt(
            uart,
            format_args!(
                "the devicetree has no arm,gic-v3; Firebreak needs a GICv3 (QEMU: gic-version=3)"
            ),
        );
    };
    // SAFETY: the image's own bytes behind its header.
    let info = unsafe {
        bytes(
            image.get() + IMAGE_INFO_OFFSET as u64,
            IMAGE_INFO_LEN as u64,
        )
    };
    let info = info.first_chunk().and_then(ImageInfo::from_bytes);
    let Some(info) = info else {
        halt(
            uart,
            format_args!("the image's own header is damaged; build it again"),
        );
    };
    let config = read_partitions(uart, &board, dtb_bytes, image, &info);
    let image_range = PaRange::new(image.get(), info.image_len);
    let tables_at = image_range.end().get().next_multiple_of(PAGE_SIZE_BYTES);
    let stacks_at = tables_at + TABLE_BYTES;
    let stacks_len = STACKS_BYTES * board.cpus.len() as u64;
    let pool_at = stacks_at + stacks_len;
    let hypervisor = PaRange::new(image.get(), pool_at + POOL_BYTES - image.get());
    let mut board = board;
    if board
        .reserve(PaRange::new(dtb.get(), dtb_bytes.len() as u64))
        .is_err()
    {
        halt(
            uart,
            format_args!("the devicetree has too many reserved ranges; remove some"),
        );
    }
    let plan = match validate(&board, &config, hypervisor) {
        Ok(plan) => plan,
        Err(error) => halt(uart, format_args!("{error}")),
    };
    let device_pages = device_pages(uart, dtb_bytes, (&board, &config, &plan));
    let mut found = Found {
        config,
        tables: PaRange::default(),
        config_in_dtb: info.config_len == 0,
        plan,
        image: image_range,
        dtb: PaRange::new(dtb.get(), dtb_bytes.len() as u64),
        dtb_bytes,
        pool: PaRange::new(pool_at, POOL_BYTES),
        stacks: PaRange::new(stacks_at, stacks_len),
        gic,
        device_pages,
        board,
    };
    // SAFETY: behind the image, inside the range that `validate` kept free.
    let mut frames = unsafe { EarlyFrames::new(PaRange::new(tables_at, TABLE_BYTES)) };
    let size = VaSize::for_end(highest(&found));
    let tables = Stage1::new(&mut frames, size);
    let tables = tables.and_then(|tables| map_all(&tables, &mut frames, &found).map(|()| tables));
    let tables = match tables {
        Ok(tables) => tables,
        Err(error) => halt(uart, format_args!("the hypervisor's own map: {error}")),
    };
    uncover(frames.used());
    found.tables = frames.used();
    // SAFETY: `map_all` mapped everything at its own address; what was written is uncovered.
    unsafe { mmu::enable(&Features::read(), &tables, size) };
    found
}

fn read_partitions(
    uart: Option<Pa>,
    board: &Board,
    dtb: &'static [u8],
    image: Pa,
    info: &ImageInfo,
) -> SystemConfig<'static> {
    let from_image = info.config_len != 0;
    let blob = if from_image {
        // SAFETY: inside the image, as `ImageInfo::from_bytes` checked.
        unsafe { bytes(image.get() + info.config_offset, info.config_len) }
    } else {
        dtb
    };
    if !from_image && !board.has_domains {
        halt(
            uart,
            format_args!(
                "there are no partitions: neither in the image (`firebreak build`) nor in the devicetree's /chosen"
            ),
        );
    }
    match read_config(blob, image) {
        Ok(config) => config,
        Err(error) => halt(uart, format_args!("configuration: {error}")),
    }
}

/// # Safety
///
/// `dtb` is where the bootloader put a devicetree, if it put one anywhere.
unsafe fn devicetree(dtb: Pa) -> &'static [u8] {
    if dtb.get() == 0 || !dtb.is_aligned(8) {
        halt(
            None,
            format_args!("x0 is {dtb:#x}, not the address of a devicetree"),
        );
    }
    // The boot protocol has the image cleaned, and says nothing of the devicetree, which may still
    // stand in a cache alone.
    cache::clean_and_invalidate(dtb.get(), HEADER_LEN as u64);
    // SAFETY: the caller's promise; a header is as long as this.
    let header = unsafe { bytes(dtb.get(), HEADER_LEN as u64) };
    let header = header.first_chunk::<HEADER_LEN>();
    match header.map(|header| (blob_len(header), header)) {
        Some((Ok(len), header)) => {
            cache::clean_and_invalidate(dtb.get(), used_len(header, len) as u64);
            // SAFETY: as long as its own header says, within the limits of `blob_len`.
            unsafe { bytes(dtb.get(), len as u64) }
        }
        _ => halt(None, format_args!("there is no devicetree at {dtb:#x}")),
    }
}

/// # Safety
///
/// The bytes must be there, and nobody may change them any more.
unsafe fn bytes(start: u64, len_bytes: u64) -> &'static [u8] {
    let pointer = core::ptr::with_exposed_provenance(start as usize);
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(pointer, len_bytes as usize) }
}

/// The first address behind everything that EL2 maps.
fn highest(found: &Found) -> Va {
    let memory = found.board.memory.iter().map(|range| range.end().get());
    let gicr = found.gic.gicr.iter().map(|range| range.end().get());
    let uart = found
        .board
        .uart
        .map(|uart| uart.base.get() + PAGE_SIZE_BYTES);
    let sei = found.board.sei.as_ref().map(|sei| sei.region.end().get());
    let devices = found.device_pages.iter();
    let devices = devices.map(|page| page.get() + PAGE_SIZE_BYTES);
    let last = memory
        .chain(gicr)
        .chain(uart)
        .chain(sei)
        .chain(devices)
        .max();
    Va::new(last.unwrap_or(0).max(found.gic.gicd.end().get()))
}

/// Finds the passed-through devices, and returns the pages that EL2 needs of them.
///
/// Boot has little stack: what was found is found again, in a function of its own, when there is
/// a place for it ([`crate::passthrough::find`]).
#[inline(never)]
fn device_pages(
    uart: Option<Pa>,
    dtb: &'static [u8],
    (board, config, plan): (&Board, &SystemConfig<'static>, &MemoryPlan),
) -> Vec<Pa, MAX_ALL_DEVICES> {
    let devices = match resolve_devices(dtb, board, config, plan) {
        Ok(devices) => devices,
        Err(error) => {
            let name = config.partitions.get(error.partition);
            let name = name.map_or("?", |partition| partition.name.as_str());
            halt(uart, format_args!("partition {name}: {error}"))
        }
    };
    let known = devices.iter().filter(|device| device.quiesce().is_some());
    let first = known.filter_map(|device| device.regs.first());
    let mut pages = Vec::new();
    for page in first.map(|reg| reg.start.page()) {
        // Several devices may share a page.
        if !pages.contains(&page) {
            // As many as devices, which fit.
            let _ = pages.push(page);
        }
    }
    pages
}

fn map_all(tables: &Stage1, frames: &mut EarlyFrames, found: &Found) -> Result<(), PagingError> {
    for page in &found.device_pages {
        let va = Va::new(page.get());
        tables.map(frames, va, *page, PAGE_SIZE_BYTES, El2Attr::Device)?;
    }
    let mut map = |start: u64, end: u64, attr: El2Attr| {
        let start = start & !(PAGE_SIZE_BYTES - 1);
        let len = end.next_multiple_of(PAGE_SIZE_BYTES) - start;
        if len == 0 {
            return Ok(());
        }
        tables.map(frames, Va::new(start), Pa::new(start), len, attr)
    };
    let image = found.image.start.get();
    let (text_end, rodata_end) = (linker_symbol!(__text_end), linker_symbol!(__rodata_end));
    let data_end = linker_symbol!(__end);
    map(image, text_end, El2Attr::Text)?;
    map(text_end, rodata_end, El2Attr::RoData)?;
    map(rodata_end, data_end, El2Attr::Data)?;
    map(data_end, found.image.end().get(), El2Attr::RoData)?;
    map(
        found.image.end().get().next_multiple_of(PAGE_SIZE_BYTES),
        found.stacks.start.get(),
        El2Attr::Data,
    )?;
    for index in 0..found.board.cpus.len() as u64 {
        for stack in stack_ranges(found.stacks, index) {
            map(stack.start.get(), stack.end().get(), El2Attr::Data)?;
        }
    }
    map(
        found.pool.start.get(),
        found.pool.end().get(),
        El2Attr::Data,
    )?;
    for placement in &found.plan.placements {
        for range in [placement.ram, placement.spares, placement.slots] {
            map(range.start.get(), range.end().get(), El2Attr::Data)?;
        }
    }
    // Partitions that a bootloader put into /chosen: their words and modules stand elsewhere.
    let dtb = found.dtb;
    map(dtb.start.get(), dtb.end().get(), El2Attr::RoData)?;
    for partition in &found.config.partitions {
        for module in [Some(partition.kernel), partition.ramdisk]
            .into_iter()
            .flatten()
        {
            if !found.image.contains(module.start) {
                map(module.start.get(), module.end().get(), El2Attr::RoData)?;
            }
        }
    }
    if let Some(uart) = found.board.uart {
        map(
            uart.base.get(),
            uart.base.get() + PAGE_SIZE_BYTES,
            El2Attr::Device,
        )?;
    }
    let gicd = found.gic.gicd.start.get();
    map(gicd, gicd + GICD_BYTES, El2Attr::Device)?;
    for region in &found.gic.gicr {
        map(region.start.get(), region.end().get(), El2Attr::Device)?;
    }
    if let Some(sei) = &found.board.sei {
        // Normal write-back on both sides (docs/sei-contract.md): the two must agree.
        let region = sei.region;
        map(region.start.get(), region.end().get(), El2Attr::Data)?;
    }
    Ok(())
}

/// Lets nothing in the caches shadow what was written with them off: relocated data, boot stack,
/// tables. Where those stand a bootloader may have left dirty lines, which must not be written back.
fn uncover(tables: PaRange) {
    let data = linker_symbol!(__rodata_end);
    // SAFETY: the boot protocol's promise for the image, and from then on the caches were off.
    unsafe { cache::forget(data, linker_symbol!(__end) - data) };
    // SAFETY: nobody has used that memory but this boot, with the caches off.
    unsafe { cache::forget(tables.start.get(), tables.len_bytes) };
}

/// Says what is missing, on the UART that the devicetree names, and stops.
fn halt(uart: Option<Pa>, text: fmt::Arguments<'_>) -> ! {
    if let Some(base) = uart {
        // SAFETY: the devicetree's PL011; the MMU is off and nobody else runs.
        let mut uart = unsafe { Pl011::new(base.get() as usize) };
        uart.enable();
        let mut line = heapless::String::<256>::new();
        // Cut at 256 bytes: the beginning says it.
        let _ = line.write_fmt(text);
        let event = firebreak_wire::Event::Halt { text: &line };
        let now = firebreak_arch::sysreg::cntpct_el0();
        let _ = firebreak_wire::write_event(&mut Polled(uart), now, &event);
    }
    cpu::park()
}

/// A UART as a sink of text.
struct Polled(Pl011);

impl Write for Polled {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_bytes(text.as_bytes());
        Ok(())
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        write_char(self, c)
    }
}
