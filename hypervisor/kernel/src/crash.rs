// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end: errors that nobody survives, and Firebreak's own bugs.
//!
//! A crash page of fixed layout is written before anything is printed: it is there even when the
//! UART is not. Then comes the console, without waiting for its lock, and a boot error record.

use crate::console::{CONSOLE, Console};
use crate::pe::PeBlock;
use crate::recovery::PendingError;
use crate::system::{self, System};
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use firebreak_abi::{Pa, PeId};
use firebreak_arch::{NmiCtx, cache, cpu, psci, sysreg};
use firebreak_cper::{FirebreakInfo, Record, Severity, Source, write_record};
use firebreak_ring::Peeked;
use firebreak_syndrome::Iss;
use firebreak_triage::Interrupted;
use firebreak_wire::{Event, write_event};

/// First word of the crash page: `FBCRASH1`.
const CRASH_MAGIC: u64 = u64::from_le_bytes(*b"FBCRASH1");
/// Bytes of a record that a dying hypervisor writes.
const RECORD_BYTES: usize = 512;

/// Only the first failure is told; one while telling it only stops the PE.
static FAILING: AtomicBool = AtomicBool::new(false);
/// Where the crash page is; 0 until boot knows.
static CRASH_PAGE: AtomicU64 = AtomicU64::new(0);
/// Whether a `firebreak,sei-1` firmware is there to be called.
static HAS_FIRMWARE: AtomicBool = AtomicBool::new(false);

/// Remembers what a crash needs, so that it need not look.
pub(crate) fn prepare(system: &System) {
    if let Some(sei) = &system.sei {
        HAS_FIRMWARE.store(true, Ordering::Release);
        if let Some(persistent) = sei.persistent {
            CRASH_PAGE.store(persistent.start.get(), Ordering::Release);
        }
    }
}

/// Stops using the crash page: its memory went bad.
pub(crate) fn abandon_log() {
    CRASH_PAGE.store(0, Ordering::Release);
}

/// Writes the crash page: magic, PE, ESR, ELR, FAR, count, eight bytes each, little endian.
fn write_crash_page(pe: PeId, esr: u64, elr: u64, far: u64) {
    let page = CRASH_PAGE.load(Ordering::Acquire);
    if page == 0 {
        return;
    }
    let words = [0, u64::from(pe.0), esr, elr, far, sysreg::cntpct_el0()];
    for (index, word) in words.into_iter().enumerate() {
        write_persistent(page + 8 * index as u64, word);
    }
    // The magic last: the page is whole when it is there.
    sysreg::dsb_sy();
    write_persistent(page, CRASH_MAGIC);
    sysreg::dsb_sy();
}

fn write_persistent(address: u64, value: u64) {
    // SAFETY: inside the persistent memory that the devicetree gave to EL2, mapped at boot.
    unsafe {
        core::ptr::with_exposed_provenance_mut::<u64>(address as usize).write_volatile(value);
    }
}

/// An error after which the machine must not go on: leaves a record and resets.
pub(crate) fn fatal_error(
    ctx: &NmiCtx,
    system: &System,
    pe: &'static PeBlock,
    error: &PendingError,
) {
    let _ = system;
    let partition = match error.evidence.interrupted {
        Interrupted::Guest { vm, .. } => Some(vm),
        Interrupted::Hypervisor | Interrupted::Idle => None,
    };
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
    let record = Record {
        pa: error.evidence.record.and_then(|record| record.pa),
        mpidr: Some(pe.mpidr),
        iss: error.evidence.iss.map_or(0, Iss::get),
        info: Some(info),
        ..Record::new(Severity::Fatal)
    };
    reset_with(ctx, &record);
}

/// An SEI while nothing stands yet: nobody can say what it hit.
pub(crate) fn reset_from_nmi(ctx: &NmiCtx, iss: u32, pe: PeId) {
    let info = FirebreakInfo {
        source: Source::Hypervisor,
        id: None,
        pe: Some(pe),
        partition: None,
        vcpu: None,
        pc: None,
        el: Some(2),
        ticks: Some(sysreg::cntpct_el0()),
    };
    reset_with(
        ctx,
        &Record {
            iss,
            info: Some(info),
            ..Record::new(Severity::Fatal)
        },
    );
}

fn reset_with(_: &NmiCtx, record: &Record) -> ! {
    leave_record(record);
    psci::system_reset();
    cpu::park()
}

/// Hands a record to the firmware, which keeps it over the reset that it makes.
fn leave_record(record: &Record) {
    let mut buffer = [0u8; RECORD_BYTES];
    if !HAS_FIRMWARE.load(Ordering::Acquire) {
        return;
    }
    if let Ok(len) = write_record(&mut buffer, record) {
        let address = (&raw const buffer).expose_provenance() as u64;
        cache::clean_and_invalidate(address, len as u64);
        // SAFETY: the firmware described itself in the devicetree.
        unsafe { psci::fatal(Pa::new(address), len as u64) };
    }
}

/// An exception that EL2 took from itself: a bug, or memory of its own that went bad.
///
/// # Safety
///
/// Called by `vectors.S` alone, on the SEI stack.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn firebreak_el2_fault(pe: &'static PeBlock, slot: u64) -> ! {
    let (esr, elr, far) = (sysreg::esr_el2(), sysreg::elr_el2(), sysreg::far_el2());
    write_crash_page(pe.id, esr, elr, far);
    let mut text = heapless::String::<256>::new();
    let _ = write!(
        text,
        "unexpected exception at EL2, vector {slot}: esr {esr:#x} elr {elr:#x} far {far:#x}"
    );
    die(pe.id, &text, elr)
}

/// Reports a failure of the hypervisor on the console and in a boot error record, and resets.
pub(crate) fn die(pe: PeId, text: &str, pc: u64) -> ! {
    if FAILING.swap(true, Ordering::AcqRel) {
        cpu::park();
    }
    write_crash_page(pe, sysreg::esr_el2(), pc, sysreg::far_el2());
    // Whoever holds the lock will not give it back: then the crash page has to do.
    if let Some(mut console) = CONSOLE.try_lock() {
        let event = Event::Panic { pe: pe.0, text };
        // The UART does not fail.
        let _ = console.write_str("\n");
        let _ = write_event(&mut *console, sysreg::cntpct_el0(), &event);
        let _ = print_registers(&mut console, pe);
        let _ = print_records(&mut console, pe);
    }
    let info = FirebreakInfo {
        source: Source::Hypervisor,
        id: None,
        pe: Some(pe),
        partition: None,
        vcpu: None,
        pc: Some(pc),
        el: Some(2),
        ticks: Some(sysreg::cntpct_el0()),
    };
    let record = Record {
        info: Some(info),
        ..Record::new(Severity::Fatal)
    };
    leave_record(&record);
    // Without firmware that keeps records: the other PEs must not go on beside a dead one.
    psci::system_reset();
    cpu::park()
}

fn print_registers(console: &mut Console, pe: PeId) -> fmt::Result {
    writeln!(
        console,
        "firebreak: pe{} esr_el2 {:#x} elr_el2 {:#x} far_el2 {:#x} hcr_el2 {:#x} vttbr_el2 {:#x}",
        pe.0,
        sysreg::esr_el2(),
        sysreg::elr_el2(),
        sysreg::far_el2(),
        sysreg::hcr_el2(),
        sysreg::vttbr_el2()
    )
}

/// Prints the error records that wait in the queues, and leaves them there.
fn print_records(console: &mut Console, own: PeId) -> fmt::Result {
    let Some(system) = system::get() else {
        return Ok(());
    };
    for pe in &system.pes {
        let mut result = Ok(());
        pe.queue.peek_all(own, |record| {
            let written = match record {
                Peeked::Ready(entry) => writeln!(
                    console,
                    "firebreak: pe{} waiting record at {}: {} by rule {}, pc {:#x}",
                    pe.id.0,
                    entry.stamp_ticks,
                    entry.value.decision.severity.name(),
                    entry.value.decision.rule.name(),
                    entry.value.pc
                ),
                Peeked::InHands {
                    stamp_ticks,
                    holder,
                    ..
                } => writeln!(
                    console,
                    "firebreak: pe{} record at {stamp_ticks} is in the hands of pe{}",
                    pe.id.0, holder.0
                ),
                Peeked::Unpublished { nesting, .. } => writeln!(
                    console,
                    "firebreak: pe{} a record was being written, nesting {nesting}",
                    pe.id.0
                ),
            };
            result = result.and(written);
        });
        result?;
    }
    Ok(())
}

/// Returns this PE's number as far as it can be found out.
pub(crate) fn this_pe() -> PeId {
    system::pe(cpu::mpidr()).map_or(PeId(0), |pe| pe.id)
}
