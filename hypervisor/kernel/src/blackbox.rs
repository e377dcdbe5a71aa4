// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory that survives a warm reset: the crash page, and the log behind it.
//!
//! The devicetree of the firmware names it (`firebreak,persistent`). Without it there is no log,
//! and the crash page is ordinary memory: good for what is told at once.

use crate::system::System;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use firebreak_arch::{cache, cpu};
use firebreak_blackbox::log::{Earlier, EntryWriter, Log, MAX_ENTRIES, SLOT_BYTES};
use firebreak_blackbox::{CRASH_PAGE_BYTES, CRASH_PAGE_WORDS, Sum};
use firebreak_manifest::config::{MAX_LOG_BYTES, MIN_LOG_BYTES};
use spin::Once;

// A configuration can ask for all entries that there can be, and for one.
const _: () = assert!(MAX_LOG_BYTES == ((MAX_ENTRIES + 1) * SLOT_BYTES) as u64);
const _: () = assert!(MIN_LOG_BYTES == (2 * SLOT_BYTES) as u64);

/// The crash page of a machine whose firmware keeps nothing.
static SPARE_PAGE: [AtomicU64; CRASH_PAGE_WORDS] = [const { AtomicU64::new(0) }; CRASH_PAGE_WORDS];

/// What the memory was found to hold.
struct Kept {
    page: &'static [AtomicU64],
    log: Option<Log<'static>>,
    earlier: Option<Earlier>,
}

static KEPT: Once<Kept> = Once::new();
/// Set when that memory went bad.
static ABANDONED: AtomicBool = AtomicBool::new(false);

/// Stops using the memory: it went bad. A crash from now on is told, but not kept.
pub(crate) fn abandon() {
    ABANDONED.store(true, Ordering::Release);
}

fn kept() -> Option<&'static Kept> {
    KEPT.get().filter(|_| !ABANDONED.load(Ordering::Acquire))
}

/// Finds the memory, and goes on with the log of the boot before this one.
pub(crate) fn prepare(system: &System) {
    let persistent = system.sei.as_ref().and_then(|sei| sei.persistent);
    let Some(range) = persistent.filter(|range| range.start.is_aligned(8)) else {
        return;
    };
    let wanted = system.log_bytes.unwrap_or(MAX_LOG_BYTES);
    let used_bytes = range.len_bytes.min(CRASH_PAGE_BYTES as u64 + wanted);
    let words = (used_bytes / 8) as usize;
    let pointer = core::ptr::with_exposed_provenance::<AtomicU64>(range.start.get() as usize);
    // SAFETY: RAM that the devicetree gives to EL2 for this, mapped at boot, inside the firmware's
    // region as `read_board` checked; nothing but these atomics refers to it.
    let words = unsafe { core::slice::from_raw_parts(pointer, words) };
    let Some((page, rest)) = words.split_at_checked(CRASH_PAGE_WORDS) else {
        return;
    };
    let (log, earlier) = match Log::adopt(rest, configuration(system)) {
        Some((log, earlier)) => {
            // Its header; all of it, if it was begun anew.
            let changed = earlier.map_or(rest.len(), |_| SLOT_BYTES / 8);
            keep(rest.get(..changed).unwrap_or(rest));
            (Some(log), earlier)
        }
        None => (None, None),
    };
    KEPT.call_once(|| Kept { page, log, earlier });
}

/// What the numbers of partitions and PEs mean: a sum over their names and places.
fn configuration(system: &System) -> u64 {
    let sum = system.partitions.iter().fold(Sum::START, |sum, partition| {
        let sum = sum.add_text(partition.name());
        partition.pes.iter().fold(sum, |sum, pe| {
            sum.add(pe.mpidr.get()).add(u64::from(pe.id.0))
        })
    });
    sum.value()
}

/// Returns the crash page.
pub(crate) fn crash_page() -> &'static [AtomicU64] {
    kept().map_or(&SPARE_PAGE, |kept| kept.page)
}

/// Returns the log.
pub(crate) fn log() -> Option<&'static Log<'static>> {
    kept()?.log.as_ref()
}

/// Returns what the boot before this one left in the log.
pub(crate) fn earlier() -> Option<Earlier> {
    kept()?.earlier
}

/// Begins an entry of the log. In any context.
pub(crate) fn entry(ticks: u64) -> Option<EntryWriter<'static>> {
    let pe = crate::system::pe(cpu::mpidr()).map_or(0, |pe| pe.id.0);
    Some(log()?.entry(pe, ticks))
}

/// Pushes words out to memory: a reset does not write caches back.
pub(crate) fn keep(words: &[AtomicU64]) {
    cache::clean_and_invalidate(words.as_ptr().addr() as u64, size_of_val(words) as u64);
}
