// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end: errors that nobody survives, and Firebreak's own bugs.
//!
//! The order of what happens, each step without a lock and bounded:
//!
//! 1. One PE claims the end. Any other that fails later stops where it is.
//! 2. The crash page is begun: who, where, the registers. It is readable from here on.
//! 3. The other PEs are asked to stop, and waited for a moment: what they were printing is whole
//!    then, and their queues stand still.
//! 4. The waiting records go into the page, not out of their queues, and the page is finished.
//! 5. The console is told, its lock taken by force if need be; the log gets the event too.
//! 6. A boot error record goes to the firmware, which resets the machine. Where no firmware keeps
//!    one, the machine stays down with what it said.
//!
//! A failure on the way goes straight to step 6, one there to a plain reset, one more stops the PE.

use crate::boot::{EL2_STACK_BYTES, SEI_STACK_BYTES};
use crate::console::{self, CONSOLE};
use crate::memory::POOL;
use crate::pe::{PeBlock, attention};
use crate::recovery::PendingError;
use crate::system::{self, System};
use crate::{aftermath, blackbox, trace};
use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use firebreak_abi::{Pa, PeId, VmId};
use firebreak_arch::{Frame, NmiCtx, cache, cpu, gic, psci, sysreg};
use firebreak_blackbox::crash::{Field, Kind, MAX_CALLS, Page, State, Waiting, Who, Writer};
use firebreak_cper::{
    FirebreakInfo, MAX_BLOCK_LEN_BYTES, Record, Severity, Source, append_record, write_record,
};
use firebreak_ring::Peeked;
use firebreak_syndrome::Iss;
use firebreak_triage::Interrupted;
use firebreak_wire::Event;

/// Bytes of a record that a dying hypervisor writes.
const RECORD_BYTES: usize = 512;
/// How long the other PEs may take to stop, in milliseconds.
const STOP_MS: u64 = 20;
/// Words of the stack that are searched for return addresses.
const SEARCHED_WORDS: u64 = 512;
/// SPSR_EL2.M of EL2 on SP_EL0, bit 0: 0.
const SPSR_SP: u64 = 1;

/// Value of [`FAILING`] while nobody fails.
const NOBODY: u64 = u64::MAX;
/// Affinity of the PE that claimed the end.
static FAILING: AtomicU64 = AtomicU64::new(NOBODY);
/// How often that PE failed again.
static AGAIN: AtomicU32 = AtomicU32::new(0);
/// PEs that have stopped, a bit each.
static STOPPED: AtomicU64 = AtomicU64::new(0);
/// Whether a `firebreak,sei-1` firmware is there to be called.
static HAS_FIRMWARE: AtomicBool = AtomicBool::new(false);

/// Remembers what a crash needs, so that it need not look.
pub(crate) fn prepare(system: &System) {
    HAS_FIRMWARE.store(system.sei.is_some(), Ordering::Release);
    blackbox::prepare(system);
}

/// Stops this PE if another one has failed. On the way to a guest, and from the wait.
pub(crate) fn stop_if_failing(pe: &PeBlock) {
    if FAILING.load(Ordering::Acquire) != NOBODY {
        stop(pe.id);
    }
}

fn stop(pe: PeId) -> ! {
    STOPPED.fetch_or(1 << (pe.0 & 63), Ordering::AcqRel);
    cpu::park()
}

/// Claims the end for this PE. Returns `false` if it failed before; does not return if another PE
/// has claimed it.
fn claim() -> bool {
    let own = cpu::mpidr().get();
    match FAILING.compare_exchange(NOBODY, own, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => true,
        Err(failing) if failing == own => false,
        Err(_) => stop(this_pe()),
    }
}

/// Goes on after a failure on the way down.
fn fail_again() -> ! {
    firebreak_blackbox::crash::note_failure(blackbox::crash_page());
    blackbox::keep(blackbox::crash_page());
    match AGAIN.fetch_add(1, Ordering::AcqRel) {
        0 => go_down(),
        1 if HAS_FIRMWARE.load(Ordering::Acquire) => psci::system_reset(),
        _ => {}
    }
    cpu::park()
}

/// An error after which the machine must not go on: leaves a record and resets.
pub(crate) fn fatal_error(
    _: &NmiCtx,
    system: &System,
    pe: &'static PeBlock,
    error: &PendingError,
) -> ! {
    let partition = match error.evidence.interrupted {
        Interrupted::Guest { vm, .. } => Some(vm),
        Interrupted::Hypervisor | Interrupted::Idle => None,
    };
    if claim() {
        let mut page = begin_page(Some(pe), Kind::Error, 0, Some(error.pc), None);
        page.text(error.decision.rule.name());
        let now = sysreg::cntpct_el0();
        page.record(&waiting(pe.id, State::Fatal, now, error));
        add_records(&mut page, system, pe.id);
        page.finish();
        blackbox::keep(blackbox::crash_page());
    }
    let info = FirebreakInfo {
        source: Source::Hypervisor,
        id: error.id,
        pe: Some(pe.id),
        partition,
        vcpu: error.vcpu.map(|vcpu| vcpu.index),
        pc: Some(error.pc),
        el: Some(if partition.is_some() { 1 } else { 2 }),
        ticks: Some(sysreg::cntpct_el0()),
    };
    reset_with(&Record {
        pa: error.evidence.record.and_then(|record| record.pa),
        mpidr: Some(pe.mpidr),
        iss: error.evidence.iss.map_or(0, Iss::get),
        info: Some(info),
        ..Record::new(Severity::Fatal)
    })
}

/// An SEI while nothing stands yet: nobody can say what it hit.
pub(crate) fn reset_from_nmi(_: &NmiCtx, iss: u32, pe: PeId) -> ! {
    let info = FirebreakInfo {
        source: Source::Hypervisor,
        pe: Some(pe),
        el: Some(2),
        ticks: Some(sysreg::cntpct_el0()),
        ..FirebreakInfo::default()
    };
    reset_with(&Record {
        iss,
        info: Some(info),
        ..Record::new(Severity::Fatal)
    })
}

/// An exception that EL2 took from itself: a bug, or memory of its own that went bad.
///
/// # Safety
///
/// Called by `vectors.S` alone, on the SEI stack, with what failed in `frame`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn firebreak_el2_fault(
    pe: &'static PeBlock,
    slot: u64,
    frame: &Frame,
) -> ! {
    if !claim() {
        fail_again();
    }
    let Frame { esr, elr, far, .. } = *frame;
    let page = begin_page(Some(pe), Kind::Exception, slot, Some(elr), Some(frame));
    let mut text = heapless::String::<256>::new();
    let _ = write!(
        text,
        "unexpected exception at EL2, vector {slot}: esr {esr:#x} elr {elr:#x} far {far:#x}"
    );
    tell(pe.id, page, &text)
}

/// A check of Firebreak's own failed.
pub(crate) fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    if !claim() {
        fail_again();
    }
    let pe = system::pe(cpu::mpidr());
    let page = begin_page(pe, Kind::Panic, 0, None, None);
    let mut text = heapless::String::<256>::new();
    let place = info
        .location()
        .map_or(("?", 0), |location| (location.file(), location.line()));
    // Cut at 256 bytes: place first.
    let _ = write!(text, "{}:{}: {}", place.0, place.1, info.message());
    tell(this_pe(), page, &text)
}

/// Begins the crash page: who and where, and all registers that say why.
fn begin_page(
    pe: Option<&'static PeBlock>,
    kind: Kind,
    slot: u64,
    pc: Option<u64>,
    frame: Option<&Frame>,
) -> Writer<'static> {
    let who = Who {
        pe: pe.map_or(0, |pe| pe.id.0),
        kind,
        vector: slot as u8,
        pc,
        vcpu: pe
            .and_then(PeBlock::resident)
            .map(|vcpu| (vcpu.vm.0, vcpu.index)),
    };
    let page = Writer::begin(blackbox::crash_page(), &who);
    let locks = u64::from(CONSOLE.is_locked())
        | u64::from(POOL.is_locked()) << 1
        | u64::from(console::is_history_locked()) << 2;
    let sp = match frame {
        Some(frame) if frame.spsr & SPSR_SP == 0 => frame.sp_el0,
        Some(_) => 0,
        None => cpu::stack_pointer(),
    };
    for (field, value) in [
        (Field::Boot, blackbox::log().map_or(0, |log| log.boot())),
        (Field::Ticks, sysreg::cntpct_el0()),
        (Field::Mpidr, sysreg::mpidr_el1()),
        (
            Field::Esr,
            frame.map_or_else(sysreg::esr_el2, |frame| frame.esr),
        ),
        (
            Field::Far,
            frame.map_or_else(sysreg::far_el2, |frame| frame.far),
        ),
        (Field::Spsr, frame.map_or(0, |frame| frame.spsr)),
        (Field::Hpfar, sysreg::hpfar_el2()),
        (Field::Sp, sp),
        (Field::Hcr, sysreg::hcr_el2()),
        (Field::Vttbr, sysreg::vttbr_el2()),
        (Field::Sctlr, sysreg::sctlr_el2()),
        (Field::Vbar, sysreg::vbar_el2()),
        (Field::Locks, locks),
        (Field::Image, image().0),
    ] {
        page.set(field, value);
    }
    if let Some(frame) = frame {
        page.gprs(&frame.x);
    }
    if let Some(pe) = pe {
        add_calls(&page, pe, sp);
        trace::add_exits(&page, pe);
    }
    page
}

/// Where the image begins, and where its code ends.
fn image() -> (u64, u64) {
    unsafe extern "C" {
        static __start: u8;
        static __text_end: u8;
    }
    (
        (&raw const __start).addr() as u64,
        (&raw const __text_end).addr() as u64,
    )
}

/// Searches the stack for return addresses: words that point behind a call in EL2's code.
///
/// There are no frame pointers to follow. A frame that has not overwritten all of its memory may
/// show an older call.
fn add_calls(page: &Writer<'_>, pe: &PeBlock, sp: u64) {
    // Never the guard page below: a read there would be the next failure.
    let stacks = [
        (pe.head.el2_sp, EL2_STACK_BYTES),
        (pe.head.sei_sp, SEI_STACK_BYTES),
    ];
    let inside = |(top, len): &(u64, u64)| sp.is_multiple_of(8) && sp < *top && *top - sp <= *len;
    let Some((top, _)) = stacks.into_iter().find(inside) else {
        return;
    };
    let (start, end) = image();
    let mut found = 0;
    for index in 0..SEARCHED_WORDS.min((top - sp) / 8) {
        // SAFETY: aligned, between this PE's own stack pointer and the top of that stack.
        let value = unsafe {
            core::ptr::with_exposed_provenance::<u64>((sp + 8 * index) as usize).read_volatile()
        };
        if value > start && value < end && value.is_multiple_of(4) && is_call(value - 4) {
            page.call(found, value);
            found += 1;
            if found == MAX_CALLS {
                return;
            }
        }
    }
}

/// Says whether a call, BL or BLR, stands at an address of EL2's code.
fn is_call(address: u64) -> bool {
    // SAFETY: aligned, and inside the code of this image: the caller checked.
    let word =
        unsafe { core::ptr::with_exposed_provenance::<u32>(address as usize).read_volatile() };
    word & 0xfc00_0000 == 0x9400_0000 || word & 0xffff_fc1f == 0xd63f_0000
}

fn waiting(pe: PeId, state: State, ticks: u64, error: &PendingError) -> Waiting {
    let record = error.evidence.record;
    Waiting {
        cper: record.map(|record| record.severity.to_raw() as u8),
        iss: error.evidence.iss.map(Iss::get),
        pc: Some(error.pc),
        pa: record.and_then(|record| record.pa).map(Pa::get),
        id: error.id,
        vcpu: error.vcpu.map(|vcpu| (vcpu.vm.0, vcpu.index)),
        verdict: Waiting::verdict_of(error.decision.verdict_name()),
        ..Waiting::unknown(pe.0, state, ticks)
    }
}

/// Copies the records that wait in the queues, and leaves them there.
fn add_records(page: &mut Writer<'_>, system: &System, own: PeId) {
    for pe in &system.pes {
        pe.queue.peek_all(own, |record| {
            let record = match record {
                Peeked::Ready(entry) => {
                    waiting(pe.id, State::Waiting, entry.stamp_ticks, &entry.value)
                }
                Peeked::InHands {
                    stamp_ticks,
                    holder,
                    ..
                } => Waiting {
                    holder: holder.0,
                    ..Waiting::unknown(pe.id.0, State::InHands, stamp_ticks)
                },
                Peeked::Unpublished { .. } => Waiting::unknown(pe.id.0, State::Unpublished, 0),
            };
            page.record(&record);
        });
    }
}

/// Asks the other PEs to stop, and waits a moment for them. Returns those that did.
fn stop_others(system: &System, own: PeId) -> u64 {
    let mut asked = 0;
    for pe in &system.pes {
        if pe.id != own {
            pe.head
                .attention
                .fetch_or(attention::STATE, Ordering::Release);
            gic::kick(pe.mpidr);
            asked |= 1 << (pe.id.0 & 63);
        }
    }
    let start = sysreg::cntpct_el0();
    let patience = sysreg::cntfrq_el0() * STOP_MS / 1000;
    loop {
        let stopped = STOPPED.load(Ordering::Acquire);
        if stopped & asked == asked || sysreg::cntpct_el0().wrapping_sub(start) > patience {
            return stopped;
        }
        core::hint::spin_loop();
    }
}

/// Finishes the page, tells the host, and goes down.
fn tell(pe: PeId, mut page: Writer<'static>, text: &str) -> ! {
    page.text(text);
    if let Some(system) = system::get() {
        page.set(Field::Stopped, stop_others(system, pe));
        add_records(&mut page, system, pe);
    }
    page.finish();
    let words = blackbox::crash_page();
    blackbox::keep(words);
    // SAFETY: this PE never gives control back, and the others have stopped or hang.
    let mut console = unsafe { CONSOLE.force() };
    // The UART does not fail. Half a line of somebody else ends here.
    let _ = console.write_str("\n");
    console::write_logged(&mut console, &Event::Panic { pe: pe.0, text });
    aftermath::show_page(&mut console, words, false);
    drop(console);
    go_down()
}

/// Leaves a boot error record of what the crash page says, and resets; without firmware, says that
/// this is the end.
fn go_down() -> ! {
    let words = blackbox::crash_page();
    if HAS_FIRMWARE.load(Ordering::Acquire) {
        let mut record = Record::new(Severity::Fatal);
        if let Some(page) = Page::read(words) {
            let who = page.who();
            record.info = Some(FirebreakInfo {
                source: Source::Hypervisor,
                id: None,
                pe: Some(PeId(who.pe)),
                partition: who.vcpu.map(|(vm, _)| VmId(vm)),
                vcpu: who.vcpu.map(|(_, vcpu)| vcpu),
                pc: who.pc,
                el: Some(2),
                ticks: Some(page.get(Field::Ticks)),
            });
        }
        record.mpidr = Some(cpu::mpidr());
        reset_with(&record);
    }
    // SAFETY: as in `tell`.
    let mut console = unsafe { CONSOLE.force() };
    let text = "the hypervisor failed, and no firmware keeps a record of it over a reset: reset the machine by hand";
    console::write_logged(&mut console, &Event::Halt { text });
    cpu::park()
}

/// Leaves a record and resets: by the firmware, which keeps it over the reset that it makes; or,
/// if that refuses, by hand.
fn reset_with(record: &Record) -> ! {
    if HAS_FIRMWARE.load(Ordering::Acquire) {
        let mut buffer = [0u8; RECORD_BYTES];
        if let Ok(len) = write_record(&mut buffer, record) {
            call_firmware(&buffer, len as u64);
        }
        write_directly(record);
    }
    psci::system_reset();
    cpu::park()
}

#[inline(never)]
fn call_firmware(block: &[u8], len_bytes: u64) {
    let address = block.as_ptr().expose_provenance() as u64;
    cache::clean_and_invalidate(address, len_bytes);
    // SAFETY: the firmware described itself in the devicetree.
    unsafe { psci::fatal(Pa::new(address), len_bytes) };
}

/// Appends a record to the boot error record region.
fn write_directly(record: &Record) {
    let sei = system::get().and_then(|system| system.sei.as_ref());
    let Some(bert) = sei.and_then(|sei| sei.bert) else {
        return;
    };
    let len = bert.len_bytes.min(MAX_BLOCK_LEN_BYTES as u64);
    let pointer = core::ptr::with_exposed_provenance_mut::<u8>(bert.start.get() as usize);
    // SAFETY: the region that the devicetree names, mapped at boot. The firmware has refused the
    // record, so it is not writing one; other PEs of EL2 do not touch it after boot.
    let region = unsafe { core::slice::from_raw_parts_mut(pointer, len as usize) };
    // A full region keeps its older records, the nearer ones to the cause.
    let _ = append_record(region, record);
    cache::clean_and_invalidate(bert.start.get(), len);
}

/// Returns this PE's number as far as it can be found out.
fn this_pe() -> PeId {
    system::pe(cpu::mpidr()).map_or(PeId(0), |pe| pe.id)
}
