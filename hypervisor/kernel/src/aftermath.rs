// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the boot before this one left: boot error records, a crash page, the end of its log.

use crate::console::{self, Console};
use crate::system::{self, System};
use crate::{blackbox, record, trace};
use core::sync::atomic::AtomicU64;
use firebreak_abi::{Pa, PaRange, PeId, VmId};
use firebreak_arch::{TaskCtx, sysreg};
use firebreak_blackbox::crash::{self, Field, Page};
use firebreak_blackbox::log;
use firebreak_cper::{self as cper, Source, Summary};
use firebreak_syndrome::{CperSeverity, Iss, Severity};
use firebreak_wire::{
    BootErrorRecord, Crash, CrashRecord, Event, ExitRow, LogEntry, RecordSource, write_event,
};
use heapless::Vec;

/// Boot error records that are read at most.
const MAX_RECORDS: usize = 16;
/// Bytes of a record that are looked at.
const RECORD_BYTES: usize = 1024;
/// Entries of the log that are shown: the rest can be read on the host.
const SHOWN_ENTRIES: u64 = 32;
/// Exception levels as events name them.
const LEVELS: [&str; 4] = ["el0", "el1", "el2", "el3"];

/// Tells everything, once.
pub(crate) fn tell(ctx: &TaskCtx, system: &System) {
    if let Some(bert) = system.sei.as_ref().and_then(|sei| sei.bert) {
        tell_boot_error_records(ctx, system, bert);
    }
    let page = blackbox::crash_page();
    show_page(&mut console::CONSOLE.lock(ctx), page, true);
    crash::clear(page);
    blackbox::keep(page);
    tell_log(ctx);
}

/// Whether numbers of partitions and PEs mean what they meant in the boot before this one.
fn same_configuration() -> bool {
    blackbox::earlier().is_some_and(|earlier| earlier.same_configuration)
}

fn name_of(vm: Option<VmId>, known: bool) -> Option<&'static str> {
    vm.filter(|_| known)
        .and_then(system::partition_of)
        .map(|partition| partition.name())
}

/// Reads the records one by one into private memory, and clears the region.
fn tell_boot_error_records(ctx: &TaskCtx, system: &System, bert: PaRange) {
    let mut offset = 0;
    for number in 1..=MAX_RECORDS {
        let left = (bert.len_bytes.saturating_sub(offset) as usize).min(cper::MAX_BLOCK_LEN_BYTES);
        let mut bytes = [0; RECORD_BYTES];
        if left < cper::HEADER_LEN_BYTES {
            break;
        }
        let start = Pa::new(bert.start.get() + offset);
        record::copy_bytes(start, &mut bytes[..left.min(RECORD_BYTES)]);
        let Some(header) = bytes.first_chunk() else {
            break;
        };
        // A length that lies ends the chain: what follows cannot be found.
        let Ok(len) = cper::header_len(header, left) else {
            break;
        };
        let summary = cper::summary(&bytes[..len.min(RECORD_BYTES)]);
        if summary.severity.is_some() {
            tell_boot_error_record(ctx, system, number as u64, &summary);
        }
        offset += len as u64;
    }
    record::clear_block(bert.start);
}

fn tell_boot_error_record(ctx: &TaskCtx, system: &System, number: u64, summary: &Summary) {
    let iss = summary.iss.and_then(Iss::new);
    let cper = summary
        .severity
        .map(|severity| CperSeverity::from_raw(severity.raw()));
    let info = summary.info.unwrap_or_default();
    let known = same_configuration();
    let mut vcpu = info.partition.map(|vm| (vm, info.vcpu));
    if vcpu.is_none() && known && info.el.is_some_and(|el| el < 2) {
        // The firmware knows no partitions; the vCPU of a PE is the same in each boot.
        vcpu = info.pe.and_then(|pe| vcpu_of(system, pe));
    }
    let event = Event::BootErrorRecord(BootErrorRecord {
        number,
        severity: Severity::of(iss, cper).name(),
        cper: cper.map_or("none", CperSeverity::name),
        iss: summary.iss.map(u64::from),
        pe: info.pe.map(|pe| pe.0),
        vm: vcpu.map(|(vm, _)| vm.0),
        name: name_of(vcpu.map(|(vm, _)| vm), known),
        vcpu: vcpu.and_then(|(_, vcpu)| vcpu),
        from: info.el.and_then(|el| LEVELS.get(usize::from(el)).copied()),
        pc: info.pc,
        pa: summary.pa.map(Pa::get),
        id: info.id,
        at: info.ticks,
        simulated: summary.simulated,
        source: match info.source {
            Source::Hypervisor => RecordSource::Hypervisor,
            Source::Firmware => RecordSource::Firmware,
        },
    });
    console::emit(ctx, &event);
}

/// Returns the vCPU that lives on a PE.
fn vcpu_of(system: &System, pe: PeId) -> Option<(VmId, Option<u8>)> {
    system.partitions.iter().find_map(|partition| {
        let index = partition.pes.iter().position(|each| each.id == pe)?;
        Some((partition.id, Some(index as u8)))
    })
}

/// Shows a crash page, if there is one, and the records in it.
pub(crate) fn show_page(console: &mut Console, words: &[AtomicU64], replayed: bool) {
    let Some(page) = Page::read(words) else {
        return;
    };
    let who = page.who();
    let known = !replayed || same_configuration();
    let calls = page.calls();
    let found = calls.iter().take_while(|address| **address != 0).count();
    let gprs = page.gprs();
    let mut text = [0; crash::TEXT_BYTES];
    let exits: Vec<ExitRow, { crash::MAX_EXITS }> =
        page.exits().map(|exit| trace::row(None, &exit)).collect();
    let event = Event::Crash(Crash {
        replayed,
        whole: page.is_whole(),
        failures: page.failures(),
        boot: page.get(Field::Boot),
        at: page.get(Field::Ticks),
        pe: who.pe,
        kind: who.kind.name(),
        vector: u64::from(who.vector),
        vm: who.vcpu.map(|(vm, _)| vm),
        name: name_of(who.vcpu.map(|(vm, _)| VmId(vm)), known),
        vcpu: who.vcpu.map(|(_, vcpu)| vcpu),
        pc: who.pc,
        words: &crash::SHOWN.map(|(name, field)| (name, page.get(field))),
        calls: &calls[..found],
        x: gprs.as_ref().map_or(&[], |x| x.as_slice()),
        exits: &exits,
        text: page.text(&mut text),
        left_out: page.left_out(),
    });
    show(console, &event);
    for record in page.records() {
        let event = Event::CrashRecord(CrashRecord {
            replayed,
            pe: record.pe,
            state: record.state.name(),
            at: record.ticks,
            cper: record.cper,
            iss: record.iss.map(u64::from),
            pc: record.pc,
            pa: record.pa,
            id: record.id,
            vm: record.vcpu.map(|(vm, _)| vm),
            vcpu: record.vcpu.map(|(_, vcpu)| vcpu),
            verdict: record.verdict_name(),
        });
        show(console, &event);
    }
}

/// Writes an event that the log has already, or has no room for.
fn show(console: &mut Console, event: &Event<'_>) {
    // The UART does not fail.
    let _ = write_event(console, sysreg::cntpct_el0(), event);
}

/// Shows the last entries of the boot before this one.
fn tell_log(ctx: &TaskCtx) {
    let (Some(log), Some(earlier)) = (blackbox::log(), blackbox::earlier()) else {
        return;
    };
    let view = log.view();
    let first = earlier.last.saturating_sub(SHOWN_ENTRIES - 1).max(1);
    for number in first..=earlier.last {
        let Some(entry) = view.entry(number) else {
            continue;
        };
        if u64::from(entry.boot) != earlier.boot {
            continue;
        }
        let mut text = [0; log::TEXT_BYTES];
        let event = Event::Log(LogEntry {
            number,
            boot: earlier.boot,
            at: entry.ticks,
            pe: entry.pe,
            cut: entry.cut,
            text: view.text(&entry, &mut text),
        });
        show(&mut console::CONSOLE.lock(ctx), &event);
    }
}
