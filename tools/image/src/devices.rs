// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices passed through, and where memory is to be: what the file says, and what it means on
//! the board.
//!
//! Names are looked up in the board's devicetree here, where a label, a page and a typing mistake
//! can be told from a path. Whether a device can be given away is then said by the hypervisor's
//! own code ([`firebreak_manifest::resolve_devices`]).

mod names;

use std::ops::Range;

use firebreak_manifest::{Board, DeviceFault, MemoryPlan, SystemConfig, resolve_devices};
use serde::Serialize;

use crate::board::BoardFile;
use crate::diagnostic::{Problem, Source};
use crate::document::{At, Table};
use crate::fields;
use crate::partition::{Partition, PartitionFile};
use crate::system::Guest;

pub(crate) use names::load_tree;

/// Where a partition's RAM is to be.
#[derive(Clone, Debug, Default)]
pub struct MemoryPlace {
    /// First physical address, if the file chooses.
    pub base: Option<At<u64>>,
    /// Whether the guest sees its RAM at its physical address.
    pub direct_map: bool,
}

impl MemoryPlace {
    /// Returns the place in the file that chose.
    pub(crate) fn span(&self, partition: &Partition) -> Range<usize> {
        let memory = &partition.memory_bytes.span;
        self.base.as_ref().map_or(memory, |base| &base.span).clone()
    }
}

/// A device as a partition asks for it.
#[derive(Clone, Debug)]
pub struct DeviceEntry {
    /// Its path; as it was written (a path, a label, a page) until the board is known.
    pub path: At<String>,
    /// A whole page instead of a path.
    page: Option<u64>,
    /// Whether it is trusted with DMA.
    pub dma_trusted: bool,
    /// Where the guest is to see its first register.
    pub ipa: Option<u64>,
}

/// A device that is passed through.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceUse {
    /// Its partition.
    pub partition: String,
    /// Its path.
    pub path: String,
    /// Its registers: what the guest sees, and where they are, both `0x..`; length in bytes.
    pub regs: Vec<(String, String, u64)>,
    /// Its interrupts: INTID in the guest, and at the machine.
    pub interrupts: Vec<(u32, u32)>,
    /// Whether it can write to all of memory.
    pub dma: bool,
    /// Whether it is known how to make it quiet.
    pub quiesces: bool,
}

/// Reads where the memory is to be.
pub(crate) fn read_place(table: &mut Table<'_, '_>) -> Result<MemoryPlace, Problem> {
    Ok(MemoryPlace {
        base: table.integer("memory_base")?,
        direct_map: table.boolean("direct_map")?.is_some_and(|flag| flag.value),
    })
}

/// Reads `devices`.
pub(crate) fn read(
    table: &mut Table<'_, '_>,
    problems: &mut Vec<Problem>,
) -> Result<Vec<DeviceEntry>, Problem> {
    let mut entries = Vec::new();
    for device in table.tables("devices", "a device")? {
        entries.push(read_device(device.of(&fields::DEVICE), problems)?);
    }
    Ok(entries)
}

fn read_device(
    mut table: Table<'_, '_>,
    problems: &mut Vec<Problem>,
) -> Result<DeviceEntry, Problem> {
    let path = table.string("path")?;
    let page = table.integer("page")?;
    let at = table.integer("at")?;
    let dma = table.string("dma")?;
    problems.extend(table.unknown_keys());
    let source = table.source;
    let wrong = |span: &Range<usize>, message: &str, label: &str, remedy: &str| {
        Problem::error(source, span.clone(), message, label, remedy)
    };
    if let Some(dma) = dma.as_ref().filter(|dma| dma.value != "trusted") {
        let message = format!("there is no DMA rule \"{}\"", dma.value);
        let remedy =
            "write dma = \"trusted\", or leave it out: there is no SMMU that could hold DMA";
        problems.push(wrong(&dma.span, &message, "unknown rule", remedy));
    }
    if let (Some(_), Some(at)) = (&page, &at) {
        let (message, remedy) = (
            "a whole page of devices cannot be moved",
            "name the devices of the page one by one, each with its `at`",
        );
        problems.push(wrong(&at.span, message, "only with `path`", remedy));
    }
    let (path, page) = match (path, page) {
        (Some(path), None) => (path, None),
        (None, Some(page)) => {
            let name = At {
                value: format!("{:#x}", page.value),
                span: page.span,
            };
            (name, Some(page.value))
        }
        (Some(_), Some(page)) => {
            let (message, remedy) = (
                "a device is named by its path or by its page",
                "leave one of the two out",
            );
            return Err(wrong(&page.span, message, "both", remedy));
        }
        (None, None) => {
            let (message, remedy) = (
                "a device without a name is no device of the board",
                "add path = \"/pl061@9030000\", or a page",
            );
            return Err(wrong(&table.span, message, "nameless", remedy));
        }
    };
    Ok(DeviceEntry {
        path,
        page,
        dma_trusted: dma.is_some(),
        ipa: at.map(|at| at.value),
    })
}

/// Turns labels and pages into paths.
pub(crate) fn expand(
    source: &Source,
    file: &mut PartitionFile,
    board: &BoardFile,
    problems: &mut Vec<Problem>,
) {
    let mut names = None;
    for partition in &mut file.partitions {
        let mut devices = Vec::new();
        for entry in std::mem::take(&mut partition.devices) {
            let Some(tree) = &board.devicetree else {
                let message = format!(
                    "the devices of the board {} are not known: its board file names no devicetree",
                    board.name
                );
                let remedy = "add devicetree = \"board.dtb\" to the board file";
                let span = entry.path.span;
                problems.push(Problem::error(
                    source,
                    span,
                    message,
                    "cannot be found",
                    remedy,
                ));
                continue;
            };
            let names = names.get_or_insert_with(|| names::Names::read(tree));
            match names.find(source, &entry.path, entry.page) {
                Ok(paths) => devices.extend(paths.into_iter().map(|path| DeviceEntry {
                    path: At {
                        value: path,
                        span: entry.path.span.clone(),
                    },
                    page: None,
                    ..entry.clone()
                })),
                Err(problem) => problems.push(*problem),
            }
        }
        partition.devices = devices;
    }
}

/// Lets the hypervisor's own code judge.
pub(crate) fn resolve(
    source: &Source,
    guests: &[Guest],
    tree: &[u8],
    (board, config, plan): (&Board, &SystemConfig<'_>, &MemoryPlan),
) -> Result<Vec<DeviceUse>, Problem> {
    let devices = resolve_devices(tree, board, config, plan).map_err(|error| {
        let text = error.to_string();
        let (message, remedy) = text.rsplit_once("; ").unwrap_or((&text, "see the message"));
        // Given twice: the later of the two is the one that is wrong.
        let entries = guests
            .get(error.partition)
            .map_or(&[][..], |guest| &guest.partition.devices);
        let mut named = entries
            .iter()
            .filter(|entry| entry.path.value == error.path);
        let entry = if matches!(error.fault, DeviceFault::Twice(_)) {
            named.next_back()
        } else {
            named.next()
        };
        let span = entry.map_or(0..0, |entry| entry.path.span.clone());
        Problem::error(source, span, message, "this device", remedy)
    })?;
    let name = |index: usize| {
        let guest: Option<&Guest> = guests.get(index);
        guest.map_or_else(String::new, |guest| guest.partition.name.value.clone())
    };
    let uses = devices.iter().map(|device| DeviceUse {
        partition: name(device.partition),
        path: device.path.to_owned(),
        regs: device
            .regs
            .iter()
            .map(|reg| {
                let guest = format!("{:#x}", device.ipa_of(*reg).get());
                (guest, format!("{:#x}", reg.start.get()), reg.len_bytes)
            })
            .collect(),
        interrupts: device
            .interrupts
            .iter()
            .map(|one| (one.vintid, one.pintid))
            .collect(),
        dma: device.has_dma(),
        quiesces: device.quiesce().is_some(),
    });
    Ok(uses.collect())
}

/// Warns of devices that work and will surprise.
pub(crate) fn surprises(source: &Source, guests: &[Guest], devices: &[DeviceUse]) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for guest in guests {
        let partition = &guest.partition;
        let name = &partition.name.value;
        let own = || devices.iter().filter(|device| device.partition == *name);
        let span = |path: &str| {
            let entry = partition.devices.iter().find(|one| one.path.value == path);
            entry.map_or(0..0, |entry| entry.path.span.clone())
        };
        let mut warn = |path: &str, message: String, label: &str, remedy: &str| {
            let problem = Problem::error(source, span(path), message, label, remedy);
            warnings.push(problem.warning());
        };
        if let Some(device) = own().find(|device| device.dma) {
            let message =
                format!("partition \"{name}\" can reach all of memory by the DMA of its devices");
            let remedy = "trust this partition as you trust the hypervisor: nothing isolates the others from it";
            warn(&device.path, message, "trusted with DMA", remedy);
        }
        if let Some(device) = own().find(|device| device.dma && !device.quiesces) {
            let message = format!(
                "partition \"{name}\" can run once only: it is not known how to stop {}",
                device.path
            );
            let remedy = "once stopped it stays down until the machine is reset";
            warn(&device.path, message, "cannot be made quiet", remedy);
        }
    }
    warnings
}
