// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trace: the last exits of each PE, for whoever asks (`trace`) and for the crash page.
//!
//! The vectors call what the PE's block names. Without a trace that is `firebreak_sync` and
//! `firebreak_irq` themselves; with one it is the two functions here, which write down why the
//! guest was left, and go on there.

use crate::memory::POOL;
use crate::pe::PeBlock;
use crate::{exits, irq};
use core::sync::atomic::AtomicU64;
use firebreak_abi::PAGE_SIZE_BYTES;
use firebreak_arch::{TaskCtx, gic, sysreg};
use firebreak_blackbox::crash::{MAX_EXITS, Writer};
use firebreak_blackbox::trace::{Cause, Exit, Ring};
use firebreak_syndrome::Esr;
use firebreak_wire::ExitRow;

/// IABT and DABT from a lower exception level: ESR_EL2.EC.
const ABORTS: [u32; 2] = [0x20, 0x24];

/// Makes the ring of a PE, of pages of the pool; none of 0 bytes.
pub(crate) fn ring(ctx: &TaskCtx, len_bytes: u64) -> Option<Ring<'static>> {
    if len_bytes == 0 {
        return None;
    }
    let pages = len_bytes.div_ceil(PAGE_SIZE_BYTES) as usize;
    let Some(place) = POOL.lock(ctx).pages(pages) else {
        crate::boot::halt(format_args!(
            "the hypervisor's pool is too small for the trace; set a smaller one, or none"
        ));
    };
    let words = core::ptr::with_exposed_provenance_mut::<u64>(place.get() as usize);
    let count = (len_bytes / 8) as usize;
    // SAFETY: pages that the pool handed out for this, and never given back.
    unsafe { core::ptr::write_bytes(words, 0, count) };
    // SAFETY: as above, aligned to a page and zeroed; only these atomics refer to them.
    Ring::new(unsafe { core::slice::from_raw_parts(words.cast::<AtomicU64>(), count) })
}

/// Returns the addresses of what the vectors call: on a synchronous exit, and on an interrupt.
pub(crate) fn entries(traced: bool) -> [u64; 2] {
    type Entry = unsafe extern "C" fn(&'static PeBlock);
    let [sync, irq]: [Entry; 2] = if traced {
        [traced_sync, traced_irq]
    } else {
        [exits::firebreak_sync, irq::firebreak_irq]
    };
    [sync, irq].map(|entry| entry as usize as u64)
}

/// Writes down an exception of a guest, and hands it on.
///
/// # Safety
///
/// As for [`exits::firebreak_sync`].
unsafe extern "C" fn traced_sync(pe: &'static PeBlock) {
    // SAFETY: the vectors have just written the frame, and no `Task` is alive yet.
    let (esr, fault_ipa, x0) = unsafe {
        let frame = &*pe.head.guest.get();
        (frame.esr, frame.fault_ipa(), frame.x[0])
    };
    let about = if ABORTS.contains(&Esr::from_raw(esr).ec().bits().into()) {
        fault_ipa.get()
    } else {
        x0
    };
    note(pe, Cause::Exception(esr), about);
    // SAFETY: the caller's promise; nothing of the frame is borrowed any more.
    unsafe { exits::firebreak_sync(pe) };
}

/// Writes down an interrupt that came while a guest ran, and hands it on.
///
/// # Safety
///
/// As for [`irq::firebreak_irq`].
unsafe extern "C" fn traced_irq(pe: &'static PeBlock) {
    let intid = gic::acknowledge();
    note(pe, Cause::Interrupt(intid), 0);
    irq::take(pe, intid);
}

#[inline(never)]
fn note(pe: &PeBlock, cause: Cause, about: u64) {
    let Some(ring) = &pe.trace else { return };
    // SAFETY: as in `traced_sync`.
    let pc = unsafe { (*pe.head.guest.get()).elr };
    ring.push(&Exit {
        ticks: sysreg::cntpct_el0(),
        pc,
        cause,
        about,
    });
}

/// Returns the exits of a PE before number `before` with their numbers, newest first.
pub(crate) fn exits_before(pe: &PeBlock, before: u64) -> impl Iterator<Item = (u64, Exit)> {
    let ring = pe.trace.as_ref();
    let last = ring.map_or(0, Ring::last).min(before.saturating_sub(1));
    (1..=last)
        .rev()
        .map_while(move |number| Some((number, ring?.get(number)?)))
}

/// Says an exit as events do.
pub(crate) fn row(number: Option<u64>, exit: &Exit) -> ExitRow {
    let (esr, intid) = match exit.cause {
        Cause::Exception(esr) => (Some(esr), None),
        Cause::Interrupt(intid) => (None, Some(intid)),
    };
    ExitRow {
        number,
        at: exit.ticks,
        pc: exit.pc,
        esr,
        intid,
        about: exit.about,
    }
}

/// Copies the last exits of a PE into a crash page, oldest first. In any context.
pub(crate) fn add_exits(page: &Writer<'_>, pe: &PeBlock) {
    for (index, (_, exit)) in exits_before(pe, u64::MAX).take(MAX_EXITS).enumerate() {
        page.exit(MAX_EXITS - 1 - index, &exit);
    }
}
