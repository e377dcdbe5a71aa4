// SPDX-License-Identifier: MIT OR Apache-2.0
//! The granule protection table: how pages are made bad on a PE with FEAT_RME.
//!
//! Everything is open to everybody but the pages that the host poisoned. A PE without FEAT_RME
//! has none of these registers, and nothing here touches them there.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use firebreak_abi::{Pa, PaRange, sei::qemu_virt};
use firebreak_el3::poison::{
    Answer, BLOCK_SHIFT, LEVEL_1_ENTRIES, OPEN_BLOCK, OPEN_GRANULES, Pages, TABLE, Trap,
    entry_index, set_granule,
};
use spin::Mutex;

use super::frame::Frame;
use super::{lock, log, panic, ras, sysreg};

/// Level 0 entries for 40 bits of physical address.
const LEVEL_0_ENTRIES: usize = 1 << (40 - BLOCK_SHIFT);
/// RAM that can be poisoned: level 1 tables behind this one's first GiB.
const RAM: PaRange = PaRange::new(1 << BLOCK_SHIFT, (LEVEL_1_TABLES as u64) << BLOCK_SHIFT);
const LEVEL_1_TABLES: usize = 4;

/// GPCCR_EL3: PPS 40 bits, walks inner shareable and write-back, 4 KiB granules, GPC on.
const GPCCR: u64 = 0b010 | 0b01 << 8 | 0b01 << 10 | 0b11 << 12 | 1 << 16;

type Level0 = [AtomicU64; LEVEL_0_ENTRIES];
type Level1 = [AtomicU64; LEVEL_1_ENTRIES];

/// The tables, each aligned to its size. Not zeroed at boot: what a PE has no use for costs nothing.
#[repr(C, align(0x20000))]
struct Tables {
    level_1: UnsafeCell<[Level1; LEVEL_1_TABLES]>,
    level_0: UnsafeCell<Level0>,
}

// SAFETY: nothing but atomics, in memory for which every value is valid.
unsafe impl Sync for Tables {}

#[unsafe(link_section = ".gpt")]
static TABLES: Tables = Tables {
    level_1: UnsafeCell::new(
        [const { [const { AtomicU64::new(0) }; LEVEL_1_ENTRIES] }; LEVEL_1_TABLES],
    ),
    level_0: UnsafeCell::new([const { AtomicU64::new(0) }; LEVEL_0_ENTRIES]),
};

/// Pages that are bad.
static PAGES: Mutex<Pages> = Mutex::new(Pages::new());
/// Numbers of the errors that accesses to them raise; the host numbers its own, from 1.
static NEXT_ID: AtomicU64 = AtomicU64::new(3_000_000);

fn level_0() -> &'static Level0 {
    // SAFETY: shared references to atomics only, ever.
    unsafe { &*TABLES.level_0.get() }
}

fn level_1() -> &'static [Level1; LEVEL_1_TABLES] {
    // SAFETY: as in `level_0`.
    unsafe { &*TABLES.level_1.get() }
}

/// Says whether this PE has FEAT_RME.
fn has_rme() -> bool {
    sysreg::id_aa64pfr0_el1() >> 52 & 0xf != 0
}

/// Opens everything to everybody. Once, before any PE turns the checks on.
pub(super) fn fill() {
    if !has_rme() {
        return;
    }
    for entry in level_0() {
        entry.store(OPEN_BLOCK, Ordering::Relaxed);
    }
    for (index, table) in level_1().iter().enumerate() {
        for entry in table {
            entry.store(OPEN_GRANULES, Ordering::Relaxed);
        }
        let address = table.as_ptr().expose_provenance() as u64;
        let first = (RAM.start.get() >> BLOCK_SHIFT) as usize;
        if let Some(entry) = level_0().get(first + index) {
            entry.store(address | TABLE, Ordering::Relaxed);
        }
    }
}

/// Turns the checks on, on this PE.
pub(super) fn enable() {
    if !has_rme() {
        return;
    }
    let base = level_0().as_ptr().expose_provenance() as u64;
    sysreg::dsb_sy();
    sysreg::write_gptbr_el3(base >> 12);
    sysreg::write_gpccr_el3(GPCCR);
    sysreg::isb();
    sysreg::forget_granules();
}

/// Makes a page bad.
///
/// # Errors
///
/// A word for the log.
pub(super) fn poison(pa: Pa, answer: Answer) -> Result<(), &'static str> {
    if !has_rme() {
        return Err("no-rme");
    }
    let shared = PaRange::new(qemu_virt::REGION, qemu_virt::REGION_LEN);
    if !RAM.contains(pa) || shared.contains(pa) {
        return Err("pa-not-poisonable");
    }
    if !lock::with(&PAGES, |pages| pages.insert(pa, answer)) {
        return Err("too-many-bad-pages");
    }
    set(pa, false);
    Ok(())
}

/// Returns the first stage-2 table of this PE.
pub(super) fn stage2_table() -> Pa {
    // VTTBR_EL2.BADDR [47:1], behind the VMID.
    Pa::new(sysreg::vttbr_el2() & 0xffff_ffff_fffe).page()
}

/// Makes a page good again.
///
/// # Errors
///
/// A word for the log.
pub(super) fn heal(pa: Pa) -> Result<(), &'static str> {
    if !lock::with(&PAGES, |pages| pages.remove(pa)) {
        return Err("pa-not-poisoned");
    }
    set(pa, true);
    Ok(())
}

fn set(pa: Pa, open: bool) {
    let table = (pa.get() - RAM.start.get()) >> BLOCK_SHIFT;
    let entry = level_1()
        .get(table as usize)
        .and_then(|table| table.get(entry_index(pa)));
    if let Some(entry) = entry {
        let _ = entry.fetch_update(Ordering::AcqRel, Ordering::Acquire, |value| {
            Some(set_granule(value, pa, open))
        });
    }
    sysreg::dsb_sy();
    sysreg::forget_granules();
}

/// Handles a granule protection check exception from below.
pub(super) fn trapped(pe: usize, frame: &mut Frame) {
    let trap = Trap {
        esr: sysreg::esr_el3(),
        far: sysreg::far_el3(),
        mfar: sysreg::mfar_el3(),
    };
    if !trap.is_granule_fault() {
        panic::unexpected(0x400);
    }
    match lock::with(&PAGES, |pages| pages.answer(trap.pa())) {
        Some(answer) => {
            let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
            ras::strike(pe, frame, trap.error(id, answer));
        }
        // Healed meanwhile, by another PE: the access is tried again.
        None => sysreg::forget_granules(),
    }
}

/// Says what became of a command.
pub(super) fn tell(verb: &str, pa: Pa, result: Result<(), &'static str>) {
    let pa = pa.get();
    match result {
        Ok(()) => log::line(format_args!("{verb} pa={pa:#x}")),
        Err(text) => log::line(format_args!("error text={text} pa={pa:#x}")),
    }
}
