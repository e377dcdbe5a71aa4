// SPDX-License-Identifier: MIT OR Apache-2.0
//! The partition file: what people write, with the place of every value.

use std::ops::Range;

use firebreak_abi::{MAX_PARTITIONS, MAX_VCPUS_PER_PARTITION};
use firebreak_manifest::config::{
    MAX_BOOTARGS_LEN, MAX_RESTART_LIMIT, default_policy, is_valid_name,
};
use firebreak_manifest::{Policy, RestartPolicy};
use firebreak_triage::{Class, Reaction};

use crate::diagnostic::{Diagnostics, Problem, Source};
use crate::document::{self, At, Table};
use crate::reserve;

/// A whole partition file.
#[derive(Clone, Debug)]
pub struct PartitionFile {
    /// Which board it is for.
    pub board: At<String>,
    /// Whether the running system takes commands on its UART.
    pub control: bool,
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
    /// Spare pages, behind pages that are retired.
    pub spare_pages: u8,
    /// Path of the kernel.
    pub image: At<String>,
    /// Path of the initial RAM disk.
    pub initramfs: Option<At<String>>,
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

/// What a partition may have.
const KEYS: [&str; 15] = [
    "name",
    "vcpus",
    "pes",
    "memory",
    "spare_pages",
    "image",
    "initramfs",
    "cmdline",
    "console",
    "ras_visible",
    "external_aborts",
    "watchdog",
    "autostart",
    "restart",
    "on_error",
];

/// The board that is meant when none is named.
const DEFAULT_BOARD: &str = "qemu-virt";

/// Reads a partition file as far as it can be judged without the board and the images.
///
/// # Errors
///
/// All problems that were found; one for each partition at least.
pub(crate) fn read(source: &Source) -> Result<PartitionFile, Diagnostics> {
    let document = document::parse(source)?;
    let mut root = Table::new(source, document.get_ref(), 0..0, "a partition file");
    let mut problems = Vec::new();
    let mut board = At {
        value: DEFAULT_BOARD.to_owned(),
        span: 0..0,
    };
    let mut control = false;
    if let Some(mut system) = root.table("system", "the system")? {
        if let Some(named) = system.string("board")? {
            board = named;
        }
        control = system.boolean("control")?.is_some_and(|flag| flag.value);
        problems.extend(system.unknown_keys());
    }
    let tables = root.tables("partition", "a partition")?;
    problems.extend(root.unknown_keys());
    if tables.is_empty() && problems.is_empty() {
        let message = "there is no partition in this file";
        let remedy = "add a section [[partition]] with name, vcpus, pes, memory and image";
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
        match read_partition(table.knowing(&KEYS), control, &mut problems) {
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
    mut table: Table<'_, '_>,
    control: bool,
    problems: &mut Vec<Problem>,
) -> Result<Partition, Problem> {
    problems.extend(table.unknown_keys());
    let name = read_name(&mut table)?;
    let vcpus = read_vcpus(&mut table)?;
    let pes = read_pes(&mut table, &vcpus)?;
    let memory_bytes = read_memory(&mut table)?;
    let spare_pages = reserve::spare_pages(&mut table)?;
    let image = table.string("image")?;
    let image = image.ok_or_else(|| table.missing("image", "image = \"guests/control.bin\""))?;
    let initramfs = table.string("initramfs")?;
    let cmdline = table.string("cmdline")?;
    if let Some(cmdline) = &cmdline {
        check_cmdline(&table, cmdline)?;
    }
    let console = read_console(&mut table)?;
    let shown = table.boolean("ras_visible")?;
    let ras_visible = shown.as_ref().is_none_or(|flag| flag.value);
    let direct_aborts = read_external_aborts(&mut table)?;
    let watchdog = table.boolean("watchdog")?;
    let autostart = read_autostart(&mut table, control, problems)?;
    let restart = read_restart(&mut table, watchdog.as_ref(), problems)?;
    let mut chosen_syndromes = Vec::new();
    let policy = read_policy(&mut table, ras_visible, &mut chosen_syndromes, problems)?;
    Ok(Partition {
        span: table.span.clone(),
        name,
        vcpus,
        pes,
        memory_bytes,
        spare_pages,
        image,
        initramfs,
        cmdline,
        console,
        ras_visible,
        direct_aborts,
        watchdog: watchdog.is_none_or(|flag| flag.value),
        autostart,
        restart,
        policy,
        chosen_syndromes,
        ras_demanded: shown.filter(|flag| flag.value).map(|flag| flag.span),
    })
}

fn read_name(table: &mut Table<'_, '_>) -> Result<At<String>, Problem> {
    let name = table
        .string("name")?
        .ok_or_else(|| table.missing("name", "name = \"control\""))?;
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
        .ok_or_else(|| table.missing("vcpus", "vcpus = 1"))?;
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
    let pes = table
        .integers("pes")?
        .ok_or_else(|| table.missing("pes", "pes = [0]"))?;
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
        .ok_or_else(|| table.missing("memory", "memory = \"16 MiB\""))?;
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
        return wrong(message, "misaligned", format!("round it to \"{up} MiB\""));
    }
    Ok(At {
        value: bytes,
        span: text.span.clone(),
    })
}

fn check_cmdline(table: &Table<'_, '_>, cmdline: &At<String>) -> Result<(), Problem> {
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
            "add control = true under [system], so that `start` is taken",
        ));
    }
    Ok(flag.value)
}

fn read_restart(
    table: &mut Table<'_, '_>,
    watchdog: Option<&At<bool>>,
    problems: &mut Vec<Problem>,
) -> Result<RestartPolicy, Problem> {
    let mut policy = RestartPolicy::default();
    let Some(mut restart) = table.table("restart", "`restart`")? else {
        return Ok(policy);
    };
    if let Some(flag) = restart.boolean("on_reset")? {
        policy.on_reset = flag.value;
    }
    if let Some(flag) = restart.boolean("on_silence")? {
        policy.on_silence = flag.value;
        if flag.value && watchdog.is_some_and(|watchdog| !watchdog.value) {
            let message = "silence cannot be noticed without a watchdog";
            let remedy = "set watchdog = true, or on_silence = false";
            problems.push(Problem::error(
                table.source,
                flag.span,
                message,
                "never happens",
                remedy,
            ));
        }
    }
    if let Some(flag) = restart.boolean("on_kill")? {
        policy.on_kill = flag.value;
    }
    let mut number = |key, what: &str, most: u32, into: &mut u32| {
        let Some(wanted) = restart.integer(key)? else {
            return Ok(());
        };
        match u32::try_from(wanted.value) {
            Ok(value) if value <= most => *into = value,
            _ => {
                let message = format!("a restart {what} of {} is too high", wanted.value);
                let remedy = format!("use 0 to {most}");
                let label = "too high";
                let problem = Problem::error(table.source, wanted.span, message, label, remedy);
                problems.push(problem);
            }
        }
        Ok(())
    };
    number("limit", "limit", MAX_RESTART_LIMIT, &mut policy.limit)?;
    let most_ms = RestartPolicy::MAX_BACKOFF_MS;
    number("backoff_ms", "back-off", most_ms, &mut policy.backoff_ms)?;
    problems.extend(restart.unknown_keys());
    Ok(policy)
}

fn read_policy(
    table: &mut Table<'_, '_>,
    ras_visible: bool,
    chosen_syndromes: &mut Vec<At<String>>,
    problems: &mut Vec<Problem>,
) -> Result<Policy, Problem> {
    let mut policy = default_policy(ras_visible);
    let Some(mut on_error) = table.table("on_error", "`on_error`")? else {
        return Ok(policy);
    };
    for class in Class::ALL {
        let Some(word) = on_error.string(class.name())? else {
            continue;
        };
        let reaction = Reaction::parse(&word.value)
            .and_then(|reaction| reaction.check(class).map(|()| reaction));
        match reaction {
            Ok(reaction) => {
                if word.value.contains(':') {
                    chosen_syndromes.push(word.clone());
                }
                problems.extend(check_visible(
                    table.source,
                    class,
                    &word,
                    reaction,
                    ras_visible,
                ));
                policy.set(class, reaction);
            }
            Err(error) => {
                let message = format!("\"{}\" cannot be done about {class}", word.value);
                problems.push(Problem::error(
                    table.source,
                    word.span,
                    message,
                    "this reaction",
                    error.to_string(),
                ));
            }
        }
    }
    read_corrected(&mut on_error, &mut policy, problems)?;
    problems.extend(on_error.unknown_keys());
    Ok(policy)
}

/// When corrected errors on one page are too many.
fn read_corrected(
    on_error: &mut Table<'_, '_>,
    policy: &mut Policy,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let source = on_error.source;
    if let Some(limit) = on_error.integer("corrected_limit")? {
        match u16::try_from(limit.value) {
            Ok(value) => policy.corrected_limit = value,
            Err(_) => {
                let message = format!("a limit of {} corrected errors is too high", limit.value);
                let remedy = "use 1 to 65535, or 0 for never";
                problems.push(Problem::error(
                    source, limit.span, message, "too high", remedy,
                ));
            }
        }
    }
    if let Some(window) = on_error.integer("corrected_window_s")? {
        const MOST: u32 = Policy::MAX_CORRECTED_WINDOW_S;
        match u32::try_from(window.value) {
            Ok(value @ 1..=MOST) => policy.corrected_window_s = value,
            _ => {
                let message = format!("corrected errors cannot be counted for {} s", window.value);
                let remedy = format!("use 1 to {MOST} (a year)");
                problems.push(Problem::error(
                    source,
                    window.span,
                    message,
                    "this window of time",
                    remedy,
                ));
            }
        }
    }
    Ok(())
}

/// A guest that does not see FEAT_RAS takes every SError for an implementation-defined one: a
/// syndrome that says otherwise would be a lie.
fn check_visible(
    source: &Source,
    class: Class,
    word: &At<String>,
    reaction: Reaction,
    ras_visible: bool,
) -> Option<Problem> {
    let syndrome = match reaction {
        Reaction::Inject(chosen) | Reaction::Retire(chosen) => {
            chosen.unwrap_or(class.default_syndrome())
        }
        _ => return None,
    };
    const IDS: u32 = 1 << 24;
    if ras_visible || syndrome.get() & IDS != 0 {
        return None;
    }
    let message = format!(
        "syndrome {:#x} means nothing to a guest that does not see the RAS extension",
        syndrome.get()
    );
    let name = if matches!(reaction, Reaction::Inject(_)) {
        "inject"
    } else {
        "retire"
    };
    let remedy =
        format!("set ras_visible = true, or write \"{name}:0x1000000\" (implementation defined)");
    Some(Problem::error(
        source,
        word.span.clone(),
        message,
        "contradicts ras_visible = false",
        remedy,
    ))
}
