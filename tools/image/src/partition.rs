// SPDX-License-Identifier: MIT OR Apache-2.0
//! The partition file: what people write, with the place of every value.

mod policy;

use std::ops::Range;

use firebreak_abi::{MAX_PARTITIONS, MAX_VCPUS_PER_PARTITION, PaRange};
use firebreak_manifest::config::{MAX_BOOTARGS_LEN, is_valid_name};
use firebreak_manifest::{Policy, RestartPolicy};

use crate::devices::{self, DeviceEntry, MemoryPlace};
use crate::diagnostic::{Diagnostics, Dialect, Problem, Source};
use crate::document::{self, At, Entry, Table};
use crate::reserve::{self, Records};
use crate::{dts, fields};

/// A whole partition file.
#[derive(Clone, Debug)]
pub struct PartitionFile {
    /// Which board it is for, if the file says so.
    pub board: Option<At<String>>,
    /// Whether the running system takes commands on its UART.
    pub control: bool,
    /// What it writes down of itself.
    pub records: Records,
    /// Where the size of the log stands.
    pub log: Option<Range<usize>>,
    /// In the order of the file.
    pub partitions: Vec<Partition>,
}

/// One partition as it was written.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Where it begins in the file.
    pub span: Range<usize>,
    /// Its name.
    pub name: At<String>,
    /// Number of vCPUs.
    pub vcpus: At<u8>,
    /// Numbers of PEs on the board, one for each vCPU.
    pub pes: At<Vec<At<u64>>>,
    /// RAM in bytes.
    pub memory_bytes: At<u64>,
    /// Where its RAM is to be in the machine, and whether it sees it there.
    pub memory_place: MemoryPlace,
    /// Devices that are passed through to it.
    pub devices: Vec<DeviceEntry>,
    /// Spare pages, behind pages that are retired.
    pub spare_pages: u8,
    /// Room for another image, in bytes.
    pub reload_room_bytes: u64,
    /// Path of the kernel, or its address if a bootloader loads it.
    pub image: At<String>,
    /// Path of the initial RAM disk.
    pub initramfs: Option<At<String>>,
    /// Where a bootloader puts kernel and RAM disk, if they are not to go into the image.
    pub loaded: Option<Loaded>,
    /// Kernel command line.
    pub cmdline: Option<At<String>>,
    /// Whether there is a PL011.
    pub console: bool,
    /// Whether FEAT_RAS is shown.
    pub ras_visible: bool,
    /// Whether its external aborts are its own (HCR_EL2.TEA = 0).
    pub direct_aborts: bool,
    /// Whether there is a watchdog.
    pub watchdog: bool,
    /// Whether there is a pvpanic device.
    pub pvpanic: bool,
    /// Whether it is started at boot.
    pub autostart: bool,
    /// When it comes back.
    pub restart: RestartPolicy,
    /// What is done about errors.
    pub policy: Policy,
    /// Words of the policy that choose a syndrome.
    pub chosen_syndromes: Vec<At<String>>,
    /// `ras_visible = true`, if the file says so.
    pub ras_demanded: Option<Range<usize>>,
}

/// Where a bootloader puts a partition's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Its kernel.
    pub kernel: PaRange,
    /// Its initial RAM disk.
    pub ramdisk: Option<PaRange>,
}

/// The board that is meant when none is named.
pub(crate) const DEFAULT_BOARD: &str = "qemu-virt";

/// Reads a partition file as far as it can be judged without the board and the images.
///
/// # Errors
///
/// All problems that were found; one for each partition at least.
pub(crate) fn read(source: &Source) -> Result<PartitionFile, Diagnostics> {
    let mut problems = Vec::new();
    let entries = match source.dialect() {
        Dialect::Toml => document::parse(source)?.into(),
        Dialect::Dts => dts::entries(source, &mut problems)?,
    };
    read_entries(source, &entries, problems)
}

fn read_entries(
    source: &Source,
    entries: &[Entry],
    mut problems: Vec<Problem>,
) -> Result<PartitionFile, Diagnostics> {
    let mut root = Table::new(source, entries, 0..0, "a partition file").of(&fields::ROOT);
    let mut board = None;
    let mut control = false;
    let mut records = Records::default();
    let mut log = None;
    if let Some(system) = root.table("system", "the system")? {
        let mut system = system.of(&fields::SYSTEM);
        board = system.string("board")?;
        control = system.boolean("control")?.is_some_and(|flag| flag.value);
        (records, log) = reserve::records(&mut system, &mut problems)?;
        problems.extend(system.unknown_keys());
    }
    let tables = root.tables("partition", "a partition")?;
    problems.extend(root.unknown_keys());
    if tables.is_empty() && problems.is_empty() {
        let message = "there is no partition in this file";
        let remedy = source.say(
            "add a section [[partition]] with name, vcpus, pes, memory and image",
            "add a node with compatible = \"xen,domain\" to /chosen",
        );
        problems.push(Problem::error(
            source,
            0..0,
            message,
            "nothing to run",
            remedy,
        ));
    }
    let mut partitions: Vec<Partition> = Vec::new();
    for table in tables {
        match read_partition(&mut table.of(&fields::PARTITION), control, &mut problems) {
            Ok(partition) => partitions.push(partition),
            Err(problem) => problems.push(problem),
        }
    }
    check_together(source, &partitions, &mut problems);
    problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
    if problems.is_empty() {
        Ok(PartitionFile {
            board,
            control,
            records,
            log,
            partitions,
        })
    } else {
        Err(Diagnostics { problems })
    }
}

fn check_together(source: &Source, partitions: &[Partition], problems: &mut Vec<Problem>) {
    for (index, partition) in partitions.iter().enumerate() {
        let earlier = &partitions[..index];
        if let Some(other) = earlier
            .iter()
            .find(|other| other.name.value == partition.name.value)
        {
            let (line, _) = source.position(other.name.span.start);
            let message = format!(
                "the name \"{}\" is taken by the partition of line {line}",
                partition.name.value
            );
            let remedy = "give each partition a name of its own";
            problems.push(Problem::error(
                source,
                partition.name.span.clone(),
                message,
                "same name",
                remedy,
            ));
        }
    }
    if let Some(beyond) = partitions.get(MAX_PARTITIONS) {
        let message = format!("{} partitions are too many", partitions.len());
        let remedy = format!("use at most {MAX_PARTITIONS}");
        problems.push(Problem::error(
            source,
            beyond.name.span.clone(),
            message,
            "one too many",
            remedy,
        ));
    }
}

fn read_partition(
    table: &mut Table<'_, '_>,
    control: bool,
    problems: &mut Vec<Problem>,
) -> Result<Partition, Problem> {
    problems.extend(table.unknown_keys());
    let name = read_name(table)?;
    let vcpus = read_vcpus(table)?;
    let pes = read_pes(table, &vcpus)?;
    let memory_bytes = read_memory(table)?;
    let memory_place = devices::read_place(table)?;
    let devices = devices::read(table, problems)?;
    let spare_pages = reserve::spare_pages(table)?;
    let reload_room_bytes = reserve::reload_room(table, control)?;
    let (image, initramfs, loaded) = read_modules(table)?;
    let cmdline = table.string("cmdline")?;
    if let Some(cmdline) = &cmdline {
        check_cmdline(table, cmdline)?;
    }
    let console = read_console(table)?;
    let shown = table.boolean("ras_visible")?;
    let ras_visible = shown.as_ref().is_none_or(|flag| flag.value);
    let direct_aborts = read_external_aborts(table)?;
    let watchdog = table.boolean("watchdog")?;
    let pvpanic = table.boolean("pvpanic")?;
    let autostart = read_autostart(table, control, problems)?;
    let restart = policy::read_restart(table, watchdog.as_ref(), problems)?;
    let mut chosen_syndromes = Vec::new();
    let policy = policy::read_policy(table, ras_visible, &mut chosen_syndromes, problems)?;
    Ok(Partition {
        span: table.span.clone(),
        name,
        vcpus,
        pes,
        memory_bytes,
        spare_pages,
        reload_room_bytes,
        memory_place,
        devices,
        image,
        initramfs,
        loaded,
        cmdline,
        console,
        ras_visible,
        direct_aborts,
        watchdog: watchdog.is_none_or(|flag| flag.value),
        pvpanic: pvpanic.is_some_and(|flag| flag.value),
        autostart,
        restart,
        policy,
        chosen_syndromes,
        ras_demanded: shown.filter(|flag| flag.value).map(|flag| flag.span),
    })
}

fn read_name(table: &mut Table<'_, '_>) -> Result<At<String>, Problem> {
    let name = table.string("name")?.ok_or_else(|| table.lacks("name"))?;
    if is_valid_name(&name.value) {
        return Ok(name);
    }
    let message = format!("\"{}\" is no name for a partition", name.value);
    let remedy = "use 1 to 15 of a-z, 0-9 and -, a letter first: it heads console lines";
    Err(Problem::error(
        table.source,
        name.span,
        message,
        "not a name",
        remedy,
    ))
}

fn read_vcpus(table: &mut Table<'_, '_>) -> Result<At<u8>, Problem> {
    let vcpus = table
        .integer("vcpus")?
        .ok_or_else(|| table.lacks("vcpus"))?;
    match u8::try_from(vcpus.value) {
        Ok(count @ 1..) if usize::from(count) <= MAX_VCPUS_PER_PARTITION => Ok(At {
            value: count,
            span: vcpus.span,
        }),
        _ => {
            let message = format!("a partition cannot have {} vCPUs", vcpus.value);
            let remedy = format!("use 1 to {MAX_VCPUS_PER_PARTITION} vCPUs");
            Err(Problem::error(
                table.source,
                vcpus.span,
                message,
                "out of bounds",
                remedy,
            ))
        }
    }
}

fn read_pes(table: &mut Table<'_, '_>, vcpus: &At<u8>) -> Result<At<Vec<At<u64>>>, Problem> {
    let Some(pes) = table.integers("pes")? else {
        return match table.source.dialect() {
            Dialect::Toml => Err(table.lacks("pes")),
            // Whoever names no PE in a devicetree leaves the choice to Firebreak.
            Dialect::Dts => Ok(At {
                value: Vec::new(),
                span: vcpus.span.clone(),
            }),
        };
    };
    if pes.value.len() != usize::from(vcpus.value) {
        let message = format!("{} vCPU(s), but {} PE(s)", vcpus.value, pes.value.len());
        let remedy = "name one PE for each vCPU: each vCPU owns its PE";
        return Err(Problem::error(
            table.source,
            pes.span,
            message,
            "not as many as vcpus",
            remedy,
        ));
    }
    for (index, pe) in pes.value.iter().enumerate() {
        if pes.value[..index]
            .iter()
            .any(|other| other.value == pe.value)
        {
            let message = format!("PE {} is named twice in one partition", pe.value);
            let remedy = "name one PE for each vCPU: each vCPU owns its PE";
            return Err(Problem::error(
                table.source,
                pe.span.clone(),
                message,
                "again",
                remedy,
            ));
        }
    }
    Ok(pes)
}

fn read_memory(table: &mut Table<'_, '_>) -> Result<At<u64>, Problem> {
    const BLOCK_BYTES: u64 = 2 << 20;
    let text = table
        .string("memory")?
        .ok_or_else(|| table.lacks("memory"))?;
    let wrong = |message: String, label: &str, remedy: String| {
        Err(Problem::error(
            table.source,
            text.span.clone(),
            message,
            label,
            remedy,
        ))
    };
    let Some(bytes) = document::parse_size(&text.value) else {
        let message = format!("\"{}\" is not a size", text.value);
        let remedy = "write a whole number and KiB, MiB or GiB, such as \"256 MiB\"";
        return wrong(message, "not a size", remedy.to_owned());
    };
    if bytes == 0 || bytes % BLOCK_BYTES != 0 {
        let message = format!("memory of \"{}\" is not a multiple of 2 MiB", text.value);
        let up = bytes.max(1).next_multiple_of(BLOCK_BYTES) >> 20;
        let remedy = match table.source.dialect() {
            Dialect::Toml => format!("round it to \"{up} MiB\""),
            Dialect::Dts => format!("round it to <0x0 {:#x}>, in KiB", up << 10),
        };
        return wrong(message, "misaligned", remedy);
    }
    Ok(At {
        value: bytes,
        span: text.span.clone(),
    })
}

fn check_cmdline(table: &mut Table<'_, '_>, cmdline: &At<String>) -> Result<(), Problem> {
    // A caret as long as the line would hide what it points at.
    const MOST_SHOWN: usize = 60;
    let span = cmdline.span.start..cmdline.span.end.min(cmdline.span.start + MOST_SHOWN);
    let wrong = |message: String, remedy: &str| {
        Err(Problem::error(
            table.source,
            span.clone(),
            message,
            "this command line",
            remedy,
        ))
    };
    if cmdline.value.len() > MAX_BOOTARGS_LEN {
        let message = format!(
            "a command line of {} bytes is too long",
            cmdline.value.len()
        );
        return wrong(message, "use at most 2047 bytes");
    }
    if cmdline.value.contains('\0') {
        return wrong("the command line holds a NUL".to_owned(), "remove it");
    }
    Ok(())
}

fn read_external_aborts(table: &mut Table<'_, '_>) -> Result<bool, Problem> {
    let Some(to) = table.string("external_aborts")? else {
        return Ok(false);
    };
    match to.value.as_str() {
        "hypervisor" => Ok(false),
        "guest" => Ok(true),
        other => {
            let message = format!("external aborts cannot go to \"{other}\"");
            let remedy = "use \"hypervisor\" or \"guest\"";
            Err(Problem::error(
                table.source,
                to.span,
                message,
                "unknown target",
                remedy,
            ))
        }
    }
}

fn read_console(table: &mut Table<'_, '_>) -> Result<bool, Problem> {
    let Some(console) = table.string("console")? else {
        return Ok(true);
    };
    match console.value.as_str() {
        "pl011" => Ok(true),
        "none" => Ok(false),
        other => {
            let message = format!("there is no console \"{other}\"");
            let remedy = "use \"pl011\" or \"none\"";
            Err(Problem::error(
                table.source,
                console.span,
                message,
                "unknown console",
                remedy,
            ))
        }
    }
}

fn read_autostart(
    table: &mut Table<'_, '_>,
    control: bool,
    problems: &mut Vec<Problem>,
) -> Result<bool, Problem> {
    let Some(flag) = table.boolean("autostart")? else {
        return Ok(true);
    };
    if !flag.value && !control {
        problems.push(Problem::error(
            table.source,
            flag.span,
            "a partition that is not started at boot can never be started",
            "never starts",
            table.source.say(
                "add control = true under [system], so that `start` is taken",
                "add firebreak,control; to /chosen, so that `start` is taken",
            ),
        ));
    }
    Ok(flag.value)
}

/// Path or address of the kernel, path of the RAM disk, and where a bootloader puts both.
type Modules = (At<String>, Option<At<String>>, Option<Loaded>);

/// Reads where kernel and RAM disk come from: both from files, or both from a bootloader.
fn read_modules(table: &mut Table<'_, '_>) -> Result<Modules, Problem> {
    let Some(kernel) = table.loaded("image") else {
        let image = table.string("image")?;
        let image = image.ok_or_else(|| match table.source.dialect() {
            Dialect::Toml => table.lacks("image"),
            Dialect::Dts => no_kernel(table),
        })?;
        if let Some(ramdisk) = table.loaded("initramfs") {
            return Err(mixed(table, ramdisk.span));
        }
        return Ok((image, table.string("initramfs")?, None));
    };
    let ramdisk = table.loaded("initramfs");
    if ramdisk.is_none()
        && let Some(file) = table.string("initramfs")?
    {
        return Err(mixed(table, file.span));
    }
    let image = At {
        value: format!("{:#x}", kernel.value.start.get()),
        span: kernel.span,
    };
    let loaded = Loaded {
        kernel: kernel.value,
        ramdisk: ramdisk.map(|at| at.value),
    };
    Ok((image, None, Some(loaded)))
}

fn no_kernel(table: &mut Table<'_, '_>) -> Problem {
    Problem::error(
        table.source,
        table.span.clone(),
        "a partition has no kernel",
        "in this node",
        "add a node with compatible = \"multiboot,kernel\" and `firebreak,file` or `reg`",
    )
}

fn mixed(table: &mut Table<'_, '_>, span: Range<usize>) -> Problem {
    Problem::error(
        table.source,
        span,
        "kernel and RAM disk do not come the same way",
        "not as the kernel",
        "give both a `firebreak,file`, or both a `reg` at which a bootloader puts them",
    )
}
