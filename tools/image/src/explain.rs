// SPDX-License-Identifier: MIT OR Apache-2.0
//! What follows from a partition file: who has which memory, PE and interrupt, and for each class
//! of error in each region who dies and who is told.
//!
//! The last part is not a description of triage but triage itself, asked once for each cell.

use std::fmt::Write as _;

use firebreak_abi::{PAGE_SIZE_BYTES, PaRange, VmId, guest_map};
use firebreak_manifest::Placement;
use firebreak_triage::{
    Class, ContextVerdict, CperSeverity, Evidence, GuestEl, Interrupted, Iss, Owner, PageVerdict,
    Part, Policy, RecordSummary, triage,
};
use serde::Serialize;

use crate::devices::DeviceUse;
use crate::reserve::LOG_OFFSET;
use crate::system::{self, Guest, System};

/// An entry of the log (docs/aftermath.md), of which the first is the header.
const LOG_ENTRY_BYTES: u64 = 1024;
/// An exit in a trace.
const EXIT_BYTES: u64 = 32;

/// A system explained.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The board's memory, in order of address.
    pub memory: Vec<Region>,
    /// What the system writes down of itself.
    pub records: RecordsUse,
    /// Who runs on each PE.
    pub pes: Vec<PeUse>,
    /// Interrupts that the guests see.
    pub interrupts: Vec<InterruptUse>,
    /// Devices that are passed through.
    pub devices: Vec<DeviceUse>,
    /// What is done about errors.
    pub errors: Vec<ErrorUse>,
}

/// A range of memory.
#[derive(Clone, Debug, Serialize)]
pub struct Region {
    /// First address, `0x..`.
    pub start: String,
    /// Length in bytes.
    pub bytes: u64,
    /// What it is for.
    pub what: String,
}

/// The log that survives a reset, and the trace of each PE.
#[derive(Clone, Debug, Serialize)]
pub struct RecordsUse {
    /// First address of the log, `0x..`; none if the board's firmware keeps nothing, or none is wanted.
    pub log_start: Option<String>,
    /// Length of the log in bytes.
    pub log_bytes: u64,
    /// How many events it holds.
    pub log_events: u64,
    /// Length of the trace of each PE in bytes.
    pub trace_bytes: u64,
    /// How many exits it holds.
    pub trace_exits: u64,
    /// PEs that have one.
    pub trace_pes: usize,
    /// What the traces take of the hypervisor's pool, in bytes.
    pub trace_pool_bytes: u64,
}

/// A PE.
#[derive(Clone, Debug, Serialize)]
pub struct PeUse {
    /// Its number.
    pub pe: usize,
    /// Its affinity, `0x..`.
    pub mpidr: String,
    /// The vCPU that owns it, such as `linux vCPU 0`; none runs nothing.
    pub vcpu: Option<String>,
}

/// An interrupt of a guest.
#[derive(Clone, Debug, Serialize)]
pub struct InterruptUse {
    /// Its partition.
    pub partition: String,
    /// INTID in the guest.
    pub intid: u32,
    /// INTID of the physical interrupt that is forwarded, if one is.
    pub physical: Option<u32>,
    /// What raises it.
    pub what: String,
}

/// What is done about a class of error.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorUse {
    /// Where the error is.
    pub region: String,
    /// What it interrupts.
    pub interrupts: String,
    /// Its class.
    pub class: &'static str,
    /// Who dies: partitions, or `the machine`.
    pub dies: Vec<String>,
    /// Who is told by a virtual SError.
    pub told: Vec<String>,
    /// The whole verdict in words.
    pub verdict: String,
    /// Name of the rule that decided (docs/triage.md).
    pub rule: &'static str,
}

impl Explanation {
    /// Explains a system.
    pub fn new(system: &System) -> Self {
        Self {
            memory: memory(system),
            records: RecordsUse::new(system),
            pes: pes(system),
            interrupts: interrupts(system),
            devices: system.devices.clone(),
            errors: errors(system),
        }
    }

    /// Returns it for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\nmemory of the board");
        for region in &self.memory {
            let _ = writeln!(
                text,
                "  {:>12}  {:>9} KiB  {}",
                region.start,
                region.bytes >> 10,
                region.what
            );
        }
        let _ = write!(text, "\n{}", self.records.to_text());
        let _ = writeln!(text, "\nPEs");
        for pe in &self.pes {
            let runs = pe.vcpu.as_deref().unwrap_or("nothing: it stays off");
            let _ = writeln!(text, "  PE {} (MPIDR {})  {runs}", pe.pe, pe.mpidr);
        }
        let _ = writeln!(text, "\ninterrupts that guests see");
        for one in &self.interrupts {
            let physical = match one.physical {
                Some(intid) => format!(", forwarded from INTID {intid}"),
                None => String::new(),
            };
            let _ = writeln!(
                text,
                "  {:<15}  {:>3}  {}{physical}",
                one.partition, one.intid, one.what
            );
        }
        devices(&mut text, &self.devices);
        let mut heading = String::new();
        for error in &self.errors {
            let this = format!(
                "\nan error in {}, while {} runs",
                error.region, error.interrupts
            );
            if this != heading {
                let _ = writeln!(text, "{this}");
                heading = this;
            }
            let _ = writeln!(text, "  {:<13}  {}", error.class, error.verdict);
        }
        let _ = writeln!(
            text,
            "\nAn uncontainable error resets the machine wherever it is; all of it is in docs/triage.md."
        );
        text
    }
}

impl RecordsUse {
    fn new(system: &System) -> Self {
        let log_bytes = system.records.log_on(&system.board);
        let log = system.board.persistent.filter(|_| log_bytes != 0);
        let trace_bytes = system.records.trace_bytes;
        let trace_pes: usize = system.plan.placements.iter().map(|one| one.pes.len()).sum();
        let pages = trace_bytes.next_multiple_of(PAGE_SIZE_BYTES) * trace_pes as u64;
        Self {
            log_start: log.map(|range| format!("{:#x}", range.start.get() + LOG_OFFSET)),
            log_bytes,
            log_events: (log_bytes / LOG_ENTRY_BYTES).saturating_sub(1),
            trace_bytes,
            trace_exits: trace_bytes / EXIT_BYTES,
            trace_pes,
            trace_pool_bytes: pages,
        }
    }

    fn to_text(&self) -> String {
        let log = match &self.log_start {
            Some(start) => format!(
                "{} KiB at {start}, behind the crash page: {} events, if the firmware keeps that memory",
                self.log_bytes >> 10,
                self.log_events
            ),
            None => "none: no event survives a reset".to_owned(),
        };
        let trace = match self.trace_bytes {
            0 => "none: exits are not written down".to_owned(),
            bytes => format!(
                "{} KiB for each of {} PEs: {} exits, {} KiB of the hypervisor's pool",
                bytes >> 10,
                self.trace_pes,
                self.trace_exits,
                self.trace_pool_bytes >> 10
            ),
        };
        format!("what is written down\n  log    {log}\n  trace  {trace}\n")
    }
}

fn devices(text: &mut String, devices: &[DeviceUse]) {
    if devices.is_empty() {
        return;
    }
    let _ = writeln!(text, "\ndevices passed through");
    for one in devices {
        for (guest, machine, bytes) in &one.regs {
            let _ = writeln!(
                text,
                "  {:<15}  {:<28}  {bytes:#x} bytes at {machine}, seen at {guest}",
                one.partition, one.path
            );
        }
    }
    let mut trusted: Vec<&str> = devices
        .iter()
        .filter(|one| one.dma)
        .map(|one| one.partition.as_str())
        .collect();
    trusted.dedup();
    for partition in trusted {
        let _ = writeln!(
            text,
            "  No SMMU holds the DMA of {partition}'s devices: nothing isolates the others, or the \
             hypervisor, from {partition}."
        );
    }
    for one in devices.iter().filter(|one| one.dma && !one.quiesces) {
        let _ = writeln!(
            text,
            "  It is not known how to make {} quiet: {} runs once and is never restarted.",
            one.path, one.partition
        );
    }
}

fn memory(system: &System) -> Vec<Region> {
    let image = PaRange::new(system.board.image_base, system.image.image_len());
    let taken = system::taken(&system.board, &system.image);
    let behind = PaRange::new(image.end().get(), taken.len_bytes - image.len_bytes);
    let board = &system.board.board;
    let mut used: Vec<(PaRange, String)> = vec![
        (image, "image: hypervisor and payloads".to_owned()),
        (
            behind,
            "the hypervisor's tables, stacks and pool".to_owned(),
        ),
    ];
    for (guest, placement) in system.guests.iter().zip(&system.plan.placements) {
        used.push((placement.ram, ram_of(guest, placement)));
        let beside = [
            (placement.spares, "spare pages of"),
            (placement.slots, "room for other images of"),
        ];
        for (range, what) in beside.into_iter().filter(|(range, _)| range.len_bytes != 0) {
            used.push((range, format!("{what} {}", guest.partition.name.value)));
        }
    }
    for range in &board.reserved {
        let what = match system.board.persistent {
            Some(kept) if range.contains(kept.start) => {
                "reserved: devicetree or firmware, with what survives a reset"
            }
            _ => "reserved: devicetree or firmware",
        };
        used.push((*range, what.to_owned()));
    }
    used.sort_by_key(|(range, _)| range.start);
    let mut regions = Vec::new();
    for ram in &board.memory {
        let mut at = ram.start.get();
        for (range, what) in used.iter().filter(|(range, _)| ram.contains(range.start)) {
            push_free(&mut regions, at, range.start.get());
            regions.push(region(*range, what.clone()));
            at = at.max(range.end().get());
        }
        push_free(&mut regions, at, ram.end().get());
    }
    regions
}

fn ram_of(guest: &Guest, placement: &Placement) -> String {
    let name = &guest.partition.name.value;
    if placement.ram_ipa.get() == placement.ram.start.get() {
        format!("RAM of {name}, 1:1")
    } else {
        format!("RAM of {name}")
    }
}

fn push_free(regions: &mut Vec<Region>, from: u64, to: u64) {
    if from < to {
        let what = "free".to_owned();
        regions.push(region(PaRange::new(from, to - from), what));
    }
}

fn region(range: PaRange, what: String) -> Region {
    Region {
        start: format!("{:#x}", range.start.get()),
        bytes: range.len_bytes,
        what,
    }
}

fn pes(system: &System) -> Vec<PeUse> {
    let owner_of = |pe: usize| {
        system.guests.iter().find_map(|guest| {
            let pes = &guest.partition.pes.value;
            let vcpu = pes.iter().position(|one| one.value == pe as u64)?;
            Some(format!("{} vCPU {vcpu}", guest.partition.name.value))
        })
    };
    let cpus = system.board.board.cpus.iter().enumerate();
    cpus.map(|(pe, mpidr)| PeUse {
        pe,
        mpidr: format!("{:#x}", mpidr.get()),
        vcpu: owner_of(pe),
    })
    .collect()
}

fn interrupts(system: &System) -> Vec<InterruptUse> {
    let mut all = Vec::new();
    for guest in &system.guests {
        let partition = &guest.partition;
        let mut add = |intid, what: &str| {
            all.push(InterruptUse {
                partition: partition.name.value.clone(),
                intid,
                physical: None,
                what: what.to_owned(),
            });
        };
        add(guest_map::VTIMER_INTID, "virtual timer, of each vCPU");
        add(guest_map::PTIMER_INTID, "physical timer, of each vCPU");
        if partition.console {
            add(guest_map::UART_INTID, "PL011 (emulated)");
        }
        add(guest_map::RTC_INTID, "PL031 (emulated)");
        if partition.watchdog {
            add(guest_map::WDT_INTID, "watchdog's first signal (emulated)");
        }
        let own = system.devices.iter();
        for device in own.filter(|device| device.partition == partition.name.value) {
            all.extend(
                device
                    .interrupts
                    .iter()
                    .map(|(intid, physical)| InterruptUse {
                        partition: device.partition.clone(),
                        intid: *intid,
                        physical: Some(*physical),
                        what: device.path.clone(),
                    }),
            );
        }
    }
    all
}

/// The syndrome and the record's severity of an error of a class.
const fn sample(class: Class) -> (Iss, CperSeverity) {
    match class {
        Class::Corrected => (Iss::CE, CperSeverity::Corrected),
        Class::Ueo => (Iss::UEO, CperSeverity::Recoverable),
        Class::Uer => (Iss::UER, CperSeverity::Recoverable),
        Class::Ueu => (Iss::UEU, CperSeverity::Recoverable),
        Class::Impdef => (Iss::IMPDEF, CperSeverity::Recoverable),
        Class::Uncategorized => (Iss::UNCATEGORIZED, CperSeverity::Recoverable),
    }
}

fn errors(system: &System) -> Vec<ErrorUse> {
    let policies: Vec<Policy> = system.guests.iter().map(|g| g.partition.policy).collect();
    let names: Vec<&str> = system
        .guests
        .iter()
        .map(|guest| guest.partition.name.value.as_str())
        .collect();
    let mut all = Vec::new();
    let mut ask = |region: &str, owner: Option<Owner>, runs: &str, interrupted: Interrupted| {
        for class in Class::ALL {
            let (iss, severity) = sample(class);
            let evidence = Evidence {
                iss: Some(iss),
                sync: false,
                record: Some(RecordSummary {
                    severity,
                    pa: owner.map(|_| system.plan.placements[0].ram.start),
                }),
                interrupted,
                owner,
                corrected_on_page: 1,
            };
            all.push(answer(&evidence, &policies, &names, (region, runs, class)));
        }
    };
    for (index, name) in names.iter().enumerate() {
        let vm = VmId(index as u8);
        let guest = |vm| Interrupted::Guest {
            vm,
            el: GuestEl::El1,
        };
        let page = Some(Owner::Partition(vm));
        ask(&format!("{name}'s RAM"), page, name, guest(vm));
        let other = (0..names.len()).find(|other| *other != index);
        if let Some(other) = other {
            let running = guest(VmId(other as u8));
            ask(&format!("{name}'s RAM"), page, names[other], running);
        }
        ask("no known place", None, name, guest(vm));
    }
    let idle = Interrupted::Idle;
    for (region, owner) in [
        (
            "the hypervisor's code and data",
            Owner::Hypervisor(Part::Text),
        ),
        ("the hypervisor's free pool", Owner::Hypervisor(Part::Pool)),
        ("a device", Owner::Device),
    ] {
        ask(region, Some(owner), "no guest", idle);
    }
    all
}

fn answer(
    evidence: &Evidence,
    policies: &[Policy],
    names: &[&str],
    (region, runs, class): (&str, &str, Class),
) -> ErrorUse {
    let name = |vm: VmId| names.get(vm.index()).map_or("?", |name| *name).to_owned();
    let decision = triage(evidence, policies);
    let (mut dies, mut told, mut words) = (Vec::new(), Vec::new(), Vec::new());
    match decision.context {
        ContextVerdict::Resume => {}
        ContextVerdict::Inject { vm, iss } => {
            told.push(name(vm));
            words.push(format!("{} is told {iss:#x}", name(vm)));
        }
        ContextVerdict::Kill { vm } => {
            dies.push(name(vm));
            words.push(format!("{} is killed", name(vm)));
        }
        ContextVerdict::Restart { vm } => {
            dies.push(name(vm));
            words.push(format!("{} is restarted", name(vm)));
        }
        ContextVerdict::ResetMachine => {
            dies.push("the machine".to_owned());
            words.push("the machine is reset".to_owned());
        }
    }
    match decision.page {
        PageVerdict::Retire { vm, inject, .. } => {
            words.push(format!("{} loses the page", name(vm)));
            if let Some(iss) = inject {
                told.push(name(vm));
                words.push(format!("{} is told {iss:#x}", name(vm)));
            }
        }
        PageVerdict::Inject { vm, iss } => {
            told.push(name(vm));
            words.push(format!("{} is told {iss:#x}", name(vm)));
        }
        PageVerdict::Kill { vm, .. } => {
            dies.push(name(vm));
            words.push(format!("{} is killed", name(vm)));
        }
        PageVerdict::Restart { vm, .. } => {
            dies.push(name(vm));
            words.push(format!("{} is restarted without the page", name(vm)));
        }
        PageVerdict::GiveUp { .. } => words.push("the memory is not used any more".to_owned()),
        PageVerdict::None
        | PageVerdict::Log { .. }
        | PageVerdict::RetireEarly { .. }
        | PageVerdict::RetireShared { .. }
        | PageVerdict::StopOwner { .. } => {}
    }
    if words.is_empty() {
        words.push("it is logged".to_owned());
    }
    dies.dedup();
    told.dedup();
    ErrorUse {
        region: region.to_owned(),
        interrupts: runs.to_owned(),
        class: class.name(),
        dies,
        told,
        verdict: words.join(", "),
        rule: decision.rule.name(),
    }
}
