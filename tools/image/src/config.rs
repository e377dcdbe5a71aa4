// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns partitions into the configuration devicetree that the hypervisor reads.

use firebreak_abi::PaRange;
use firebreak_guestdt::{FdtWriter, WriteError};
use firebreak_manifest::config::property;
use firebreak_triage::Class;

use crate::board::BoardFile;
use crate::partition::Partition;
use crate::reserve::Records;

/// Where a payload stands: from the start of the image, or in memory if a bootloader loads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) len_bytes: u64,
}

impl From<PaRange> for Extent {
    fn from(range: PaRange) -> Self {
        Self {
            offset: range.start.get(),
            len_bytes: range.len_bytes,
        }
    }
}

/// Where the payloads of one partition stand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Modules {
    pub(crate) kernel: Extent,
    pub(crate) ramdisk: Option<Extent>,
}

/// Writes the devicetree. Its length does not depend on the values in `modules`.
pub(crate) fn write(
    partitions: &[Partition],
    modules: &[Modules],
    board: &BoardFile,
    (control, records): (bool, Records),
) -> Result<Vec<u8>, WriteError> {
    // Room for the text and, in each partition, for everything else.
    let text: usize = partitions
        .iter()
        .filter_map(|one| one.cmdline.as_ref())
        .map(|line| line.value.len())
        .sum();
    let paths: usize = partitions
        .iter()
        .flat_map(|one| &one.devices)
        .map(|device| device.path.value.len() + 32)
        .sum();
    let mut buf = vec![0; 4096 + text + paths + partitions.len() * 2048];
    let mut tree = FdtWriter::new(&mut buf);
    tree.node("", |root| {
        root.prop_u32("#address-cells", 2);
        root.prop_u32("#size-cells", 2);
        root.prop_str("compatible", "firebreak,config-1");
        root.node("chosen", |chosen| {
            if control {
                chosen.prop_empty(property::CONTROL);
            }
            if let Some(bytes) = records.log_bytes {
                chosen.prop_u64(property::LOG, bytes >> 10);
            }
            if records.trace_bytes != 0 {
                chosen.prop_u64(property::TRACE, records.trace_bytes >> 10);
            }
            for (partition, modules) in partitions.iter().zip(modules) {
                write_partition(chosen, partition, modules, board);
            }
        });
    });
    let len = tree.finish()?;
    buf.truncate(len);
    Ok(buf)
}

fn write_partition(
    chosen: &mut FdtWriter<'_>,
    partition: &Partition,
    modules: &Modules,
    board: &BoardFile,
) {
    chosen.node(&partition.name.value, |node| {
        node.prop_str_list("compatible", &["firebreak,domain", "xen,domain"]);
        node.prop_u32("#address-cells", 2);
        node.prop_u32("#size-cells", 2);
        node.prop_u32(property::CPUS, u32::from(partition.vcpus.value));
        node.prop_u64(property::MEMORY, partition.memory_bytes.value / 1024);
        node.prop_u32(property::SPARE_PAGES, u32::from(partition.spare_pages));
        if partition.reload_room_bytes != 0 {
            node.prop_u64(property::RELOAD_ROOM, partition.reload_room_bytes >> 10);
        }
        write_place(node, partition);
        if partition.console {
            node.prop_empty(property::VPL011);
        }
        let affinities: Vec<u64> = partition
            .pes
            .value
            .iter()
            .filter_map(|pe| board.board.cpus.get(usize::try_from(pe.value).ok()?))
            .map(|mpidr| mpidr.get())
            .collect();
        node.prop_u64_list(property::MPIDR, &affinities);
        if partition.loaded.is_none() {
            node.prop_empty(property::IMAGE_RELATIVE);
        }
        node.prop_u32(property::RAS_VISIBLE, u32::from(partition.ras_visible));
        node.prop_u32(property::DIRECT_ABORTS, u32::from(partition.direct_aborts));
        node.prop_u32(property::WATCHDOG, u32::from(partition.watchdog));
        if partition.pvpanic {
            node.prop_u32(property::PVPANIC, 1);
        }
        node.prop_u32(
            property::RESTART_ON_RESET,
            u32::from(partition.restart.on_reset),
        );
        node.prop_u32(
            property::RESTART_ON_SILENCE,
            u32::from(partition.restart.on_silence),
        );
        node.prop_u32(
            property::RESTART_ON_KILL,
            u32::from(partition.restart.on_kill),
        );
        node.prop_u32(property::RESTART_LIMIT, partition.restart.limit);
        node.prop_u32(property::RESTART_BACKOFF, partition.restart.backoff_ms);
        node.prop_u32(property::AUTOSTART, u32::from(partition.autostart));
        node.prop_u32(
            property::CORRECTED_LIMIT,
            u32::from(partition.policy.corrected_limit),
        );
        node.prop_u32(
            property::CORRECTED_WINDOW,
            partition.policy.corrected_window_s,
        );
        for class in Class::ALL {
            let name = format!("{}{class}", property::ON_PREFIX);
            node.prop_str(&name, &partition.policy.reaction(class).to_string());
        }
        write_modules(node, partition, modules);
    });
}

/// Where the memory is to be, and the devices.
fn write_place(node: &mut FdtWriter<'_>, partition: &Partition) {
    if let Some(base) = &partition.memory_place.base {
        node.prop_u64(property::MEMORY_BASE, base.value);
    }
    if partition.memory_place.direct_map {
        node.prop_empty(property::DIRECT_MAP);
    }
    let devices = &partition.devices;
    if devices.is_empty() {
        return;
    }
    let paths: Vec<&str> = devices.iter().map(|one| one.path.value.as_str()).collect();
    let dma: Vec<u32> = devices
        .iter()
        .map(|one| u32::from(one.dma_trusted))
        .collect();
    let ipas: Vec<u64> = devices.iter().map(|one| one.ipa.unwrap_or(0)).collect();
    node.prop_str_list(property::DEVICES, &paths);
    node.prop_cells(property::DEVICE_DMA, &dma);
    node.prop_u64_list(property::DEVICE_IPA, &ipas);
}

fn write_modules(node: &mut FdtWriter<'_>, partition: &Partition, modules: &Modules) {
    let kernel = modules.kernel;
    // The unit is the name's, not the offset, so that the length does not depend on it.
    node.node("kernel", |module| {
        module.prop_str_list("compatible", &["multiboot,kernel", "multiboot,module"]);
        module.prop_u64_list("reg", &[kernel.offset, kernel.len_bytes]);
        if let Some(cmdline) = &partition.cmdline {
            module.prop_str("bootargs", &cmdline.value);
        }
    });
    if let Some(ramdisk) = modules.ramdisk {
        node.node("ramdisk", |module| {
            module.prop_str_list("compatible", &["multiboot,ramdisk", "multiboot,module"]);
            module.prop_u64_list("reg", &[ramdisk.offset, ramdisk.len_bytes]);
        });
    }
}
