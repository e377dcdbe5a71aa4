// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a partition file to a system that is known to boot.
//!
//! What can be shown at a line of the file is checked here, with the file at hand. After that
//! the configuration is written and judged by the very code that the hypervisor runs
//! ([`firebreak_manifest::read_config`] and [`firebreak_manifest::validate`]), so nothing that
//! passes here is refused there.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use firebreak_abi::{Pa, PaRange};
use firebreak_manifest::{
    Board, GuestLayout, MemoryPlan, PartitionFault, SystemError, guest_layout, read_config,
    validate,
};

use crate::board::{self, BoardFile};
use crate::config::{self, Modules};
use crate::devices::{self, DeviceUse};
use crate::diagnostic::{Diagnostics, Dialect, Level, Problem, Source};
use crate::document::At;
use crate::dts;
use crate::layout::{Hypervisor, Layout, taken_bytes};
use crate::partition::{self, Partition, PartitionFile};
use crate::payload::{self, Kernel, Payload};
use crate::reserve::{self, Records};
use crate::surprises;

/// Where to find what the partition file names.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where images and RAM disks are; next to the partition file if not said.
    pub payloads: Option<PathBuf>,
    /// The bare hypervisor. A check does without.
    pub hypervisor: Option<PathBuf>,
}

/// One partition with its files.
#[derive(Clone, Debug)]
pub struct Guest {
    /// What the file says.
    pub partition: Partition,
    /// Its kernel.
    pub kernel: Kernel,
    /// Its initial RAM disk.
    pub ramdisk: Option<Payload>,
    /// Where things stand in its memory.
    pub layout: GuestLayout,
    pub(crate) modules: Modules,
}

/// A system that passed every check.
#[derive(Clone, Debug)]
pub struct System {
    /// The partition file.
    pub source: Source,
    /// The board.
    pub board: BoardFile,
    /// In the order of the file.
    pub guests: Vec<Guest>,
    /// What each partition gets on this board.
    pub plan: MemoryPlan,
    /// Devices that are passed through.
    pub devices: Vec<DeviceUse>,
    /// What it writes down of itself.
    pub records: Records,
    /// What will surprise.
    pub warnings: Diagnostics,
    /// The configuration as the hypervisor reads it.
    pub config: Vec<u8>,
    pub(crate) hypervisor: Hypervisor,
    pub(crate) image: Layout,
}

/// Reads and checks a partition file and everything that it names.
///
/// # Errors
///
/// Everything that is wrong, each with its place and the remedy.
pub fn check(file: &Path, options: &Options) -> Result<System, Diagnostics> {
    let source = read_source(file)?;
    let mut parsed = partition::read(&source)?;
    let dir = file.parent().unwrap_or(Path::new(""));
    let board = find_board(&parsed, &source, dir)?;
    let mut problems = Vec::new();
    if source.dialect() == Dialect::Dts {
        number_pes(&source, &mut parsed, &board)?;
    }
    check_pes(&source, &parsed, &board, &mut problems);
    check_ras(&source, &parsed, &board, &mut problems);
    problems.extend(reserve::check_log(
        &source,
        parsed.log.as_ref(),
        parsed.records,
        &board,
    ));
    devices::expand(&source, &mut parsed, &board, &mut problems);
    let payloads = options.payloads.as_deref().unwrap_or(dir);
    let mut guests = Vec::new();
    let mut warnings = Vec::new();
    for partition in &parsed.partitions {
        match load_guest(&source, partition, payloads) {
            Ok(guest) => guests.push(guest),
            Err(problem) => problems.push(problem),
        }
        warnings.extend(surprises::of(&source, partition));
    }
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        return Err(Diagnostics { problems });
    }
    let hypervisor = match &options.hypervisor {
        Some(path) => Hypervisor::load(path)?,
        None => Hypervisor::nominal(),
    };
    let switches = (parsed.control, parsed.records);
    let (config, image) = arrange(&source, &mut guests, &board, switches, &hypervisor)?;
    let (plan, devices) = judge(&source, &guests, &board, &config, &image)?;
    for (guest, placement) in guests.iter_mut().zip(&plan.placements) {
        guest.layout = guest.layout.with_ram_at(placement.ram_ipa);
    }
    warnings.extend(devices::surprises(&source, &guests, &devices));
    let warnings = Diagnostics { problems: warnings };
    Ok(System {
        source,
        board,
        guests,
        plan,
        devices,
        records: parsed.records,
        warnings,
        config,
        hypervisor,
        image,
    })
}

/// Finds the board: the one that is named, the one that a devicetree describes itself, or QEMU's.
fn find_board(
    parsed: &PartitionFile,
    source: &Source,
    dir: &Path,
) -> Result<BoardFile, Diagnostics> {
    if let Some(named) = &parsed.board {
        return board::load(named, source, dir);
    }
    if source.dialect() == Dialect::Dts
        && let Some(board) = dts::board_of(source)?
    {
        return Ok(board);
    }
    let usual = At {
        value: partition::DEFAULT_BOARD.to_owned(),
        span: 0..0,
    };
    board::load(&usual, source, dir)
}

/// A devicetree names PEs by their affinity, or leaves the choice to Firebreak: turns both into
/// the board's numbers, as the hypervisor would.
fn number_pes(
    source: &Source,
    parsed: &mut PartitionFile,
    board: &BoardFile,
) -> Result<(), Problem> {
    let known: Vec<u64> = board.board.cpus.iter().map(|pe| pe.get()).collect();
    for pe in parsed
        .partitions
        .iter_mut()
        .flat_map(|one| &mut one.pes.value)
    {
        let Some(number) = known.iter().position(|one| *one == pe.value) else {
            let message = format!(
                "the board {} has no PE of affinity {:#x}",
                board.name, pe.value
            );
            let all: Vec<_> = known.iter().map(|pe| format!("{pe:#x}")).collect();
            let remedy = format!("use one of {}", all.join(", "));
            let span = pe.span.clone();
            return Err(Problem::error(source, span, message, "no such PE", remedy));
        };
        pe.value = number as u64;
    }
    let mut free: Vec<u64> = (0..known.len() as u64).collect();
    let named = parsed.partitions.iter().flat_map(|one| &one.pes.value);
    named.for_each(|pe| free.retain(|one| *one != pe.value));
    let mut free = free.into_iter();
    for partition in &mut parsed.partitions {
        if !partition.pes.value.is_empty() {
            continue;
        }
        let span = partition.vcpus.span.clone();
        let wanted = usize::from(partition.vcpus.value);
        let chosen = free.by_ref().take(wanted);
        let chosen = chosen.map(|value| At {
            value,
            span: span.clone(),
        });
        partition.pes.value = chosen.collect();
        if partition.pes.value.len() < wanted {
            let message = format!("no PE is left for each of {wanted} vCPU(s)");
            let remedy = format!("the board has {}: use fewer vCPUs", known.len());
            return Err(Problem::error(source, span, message, "too many", remedy));
        }
    }
    Ok(())
}

fn read_source(file: &Path) -> Result<Source, Problem> {
    let refuse = |message: String, remedy: &str| Problem {
        level: Level::Error,
        message,
        label: String::new(),
        remedy: remedy.to_owned(),
        source: Source::new(file, ""),
        span: None,
    };
    let bytes = fs::read(file).map_err(|error| {
        let message = format!(
            "the partition file {} cannot be read: {error}",
            file.display()
        );
        refuse(message, "correct the path")
    })?;
    const FDT_MAGIC: [u8; 4] = [0xd0, 0x0d, 0xfe, 0xed];
    let is = |extension| file.extension().is_some_and(|one| one == extension);
    if bytes.starts_with(&FDT_MAGIC) || is("dtb") {
        let text = dts::print_blob(&bytes).map_err(|error| {
            let message = format!("{} is no devicetree blob: {error}", file.display());
            refuse(message, "compile it anew: dtc -I dts -O dtb")
        })?;
        return Ok(Source::new(file, text).as_dts());
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        let message = format!("the partition file {} is not UTF-8 text", file.display());
        refuse(message, "name a TOML or DTS file; save it as UTF-8")
    })?;
    let source = Source::new(file, text);
    Ok(if is("dts") { source.as_dts() } else { source })
}

fn check_pes(
    source: &Source,
    file: &PartitionFile,
    board: &BoardFile,
    problems: &mut Vec<Problem>,
) {
    let has = board.board.cpus.len();
    let mut owners: Vec<(u64, &Partition)> = Vec::new();
    for partition in &file.partitions {
        for pe in &partition.pes.value {
            let mut wrong = |message: String, label: &str, remedy: String| {
                problems.push(Problem::error(
                    source,
                    pe.span.clone(),
                    message,
                    label,
                    remedy,
                ));
            };
            if pe.value >= has as u64 {
                let message = format!("the board {} has no PE {}", board.name, pe.value);
                wrong(
                    message,
                    "no such PE",
                    format!("use PEs 0 to {}", has.saturating_sub(1)),
                );
            } else if let Some((_, owner)) = owners.iter().find(|(taken, _)| *taken == pe.value) {
                let message = format!(
                    "PE {} belongs to partition \"{}\"",
                    pe.value, owner.name.value
                );
                wrong(
                    message,
                    "used twice",
                    "give each PE to one partition".to_owned(),
                );
            } else {
                owners.push((pe.value, partition));
            }
        }
    }
}

/// A board without FEAT_RAS has no syndromes: a policy that chooses one cannot be kept.
fn check_ras(
    source: &Source,
    file: &PartitionFile,
    board: &BoardFile,
    problems: &mut Vec<Problem>,
) {
    if board.has_ras {
        return;
    }
    let mut wrong = |span: &Range<usize>, message: String, label: &str, remedy: String| {
        problems.push(Problem::error(source, span.clone(), message, label, remedy));
    };
    for partition in &file.partitions {
        for word in &partition.chosen_syndromes {
            let (reaction, _) = word.value.split_once(':').unwrap_or((&word.value, ""));
            let message = format!(
                "the PEs of {} have no FEAT_RAS: the syndrome of a virtual SError cannot be chosen",
                board.name
            );
            let remedy = format!("write \"{reaction}\": the guest takes an SError without one");
            wrong(&word.span, message, "needs FEAT_RAS", remedy);
        }
        if let Some(span) = &partition.ras_demanded {
            let message = format!("the PEs of {} have no FEAT_RAS to show", board.name);
            let remedy = source
                .say("leave ras_visible out", "leave firebreak,ras-visible out")
                .to_owned();
            wrong(span, message, "needs FEAT_RAS", remedy);
        }
    }
}

fn load_guest(source: &Source, partition: &Partition, dir: &Path) -> Result<Guest, Problem> {
    let kernel = match partition.loaded {
        Some(_) => Kernel::loaded(&partition.image),
        None => payload::kernel(source, partition, dir)?,
    };
    let ramdisk = match &partition.initramfs {
        Some(named) => Some(payload::ramdisk(source, named, dir)?),
        None => None,
    };
    let memory = &partition.memory_bytes;
    let (kernel_bytes, ramdisk_bytes) = match partition.loaded {
        Some(loaded) => (
            loaded.kernel.len_bytes,
            loaded.ramdisk.map(|range| range.len_bytes),
        ),
        None => (
            kernel.payload.bytes.len() as u64,
            ramdisk.as_ref().map(|ramdisk| ramdisk.bytes.len() as u64),
        ),
    };
    let layout = guest_layout(memory.value, kernel.kind, kernel_bytes, ramdisk_bytes);
    let layout = layout.map_err(|small| {
        let message = format!(
            "{} MiB are too little for partition \"{}\"",
            memory.value >> 20,
            partition.name.value
        );
        let remedy = small.to_string();
        Problem::error(
            source,
            memory.span.clone(),
            message,
            "too little memory",
            remedy,
        )
    })?;
    let partition = partition.clone();
    Ok(Guest {
        partition,
        kernel,
        ramdisk,
        layout,
        modules: Modules::default(),
    })
}

/// Gives every payload its place, and writes the configuration that says so.
fn arrange(
    source: &Source,
    guests: &mut [Guest],
    board: &BoardFile,
    switches: (bool, Records),
    hypervisor: &Hypervisor,
) -> Result<(Vec<u8>, Layout), Problem> {
    let partitions: Vec<_> = guests.iter().map(|guest| guest.partition.clone()).collect();
    let modules = |guests: &[Guest]| -> Vec<Modules> {
        guests
            .iter()
            .map(|guest| match guest.partition.loaded {
                Some(loaded) => Modules {
                    kernel: loaded.kernel.into(),
                    ramdisk: loaded.ramdisk.map(Into::into),
                },
                None => Modules {
                    ramdisk: guest
                        .ramdisk
                        .as_ref()
                        .map(|_| guest.modules.ramdisk.unwrap_or_default()),
                    ..guest.modules
                },
            })
            .collect()
    };
    let write = |guests: &[Guest]| {
        config::write(&partitions, &modules(guests), board, switches).map_err(|error| {
            let message = format!("the configuration cannot be written: {error}");
            Problem::error(
                source,
                0..0,
                message,
                "this file",
                "shorten the command lines",
            )
        })
    };
    // The length does not depend on where the payloads stand, so a first draft measures it.
    let mut image = Layout::new(hypervisor, write(guests)?.len());
    for guest in guests
        .iter_mut()
        .filter(|one| one.partition.loaded.is_none())
    {
        guest.modules.kernel = image.kernel(&guest.kernel.payload.bytes);
        guest.modules.ramdisk = guest
            .ramdisk
            .as_ref()
            .map(|disk| image.payload(&disk.bytes));
    }
    Ok((write(guests)?, image))
}

/// What the image takes on this board, with the hypervisor's memory behind it.
pub(crate) fn taken(board: &BoardFile, image: &Layout) -> PaRange {
    let bytes = taken_bytes(image.image_len(), board.board.cpus.len());
    PaRange::new(board.image_base, bytes)
}

/// Lets the hypervisor's own code judge.
fn judge(
    source: &Source,
    guests: &[Guest],
    board: &BoardFile,
    config: &[u8],
    image: &Layout,
) -> Result<(MemoryPlan, Vec<DeviceUse>), Problem> {
    let aligned = aligned_copy(config);
    let bytes = &aligned.as_bytes()[..config.len()];
    let image_range = taken(board, image);
    let parsed = read_config(bytes, Pa::new(board.image_base)).map_err(|error| {
        let message = format!("the hypervisor would refuse the configuration: {error}");
        Problem::error(
            source,
            0..0,
            message,
            "this file",
            "please report this: the check above should have found it",
        )
    })?;
    let plan = validate(&board.board, &parsed, image_range)
        .map_err(|error| locate(source, guests, &error, (board, image_range)))?;
    let tree = aligned_copy(board.devicetree.as_deref().unwrap_or_default());
    let bytes = board.devicetree.as_ref().map_or(0, Vec::len);
    let devices = devices::resolve(
        source,
        guests,
        &tree.as_bytes()[..bytes],
        (&board.board, &parsed, &plan),
    )?;
    Ok((plan, devices))
}

/// A devicetree has to stand on a multiple of 8.
pub(crate) fn aligned_copy(bytes: &[u8]) -> AlignedBytes {
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_ne_bytes(whole);
    }
    AlignedBytes(words)
}

pub(crate) struct AlignedBytes(Vec<u64>);

impl AlignedBytes {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        zerocopy::IntoBytes::as_bytes(self.0.as_slice())
    }
}

/// Finds the line that an error of the whole system speaks of.
fn locate(
    source: &Source,
    guests: &[Guest],
    error: &SystemError,
    (board, image): (&BoardFile, PaRange),
) -> Problem {
    let whole =
        |message: String| Problem::error(source, 0..0, message, "this file", "see the message");
    let SystemError::Partition { index, fault, .. } = error else {
        return whole(error.to_string());
    };
    let Some(guest) = guests.get(*index) else {
        return whole(error.to_string());
    };
    let partition = &guest.partition;
    let span = match fault {
        PartitionFault::PeAbsent { .. }
        | PartitionFault::PeTaken { .. }
        | PartitionFault::NoPeLeft { .. } => partition.pes.span.clone(),
        PartitionFault::MemoryGranule { .. } | PartitionFault::MemoryTooBig { .. } => {
            partition.memory_bytes.span.clone()
        }
        PartitionFault::SparePages { .. } | PartitionFault::ReloadRoom { .. } => {
            partition.memory_bytes.span.clone()
        }
        PartitionFault::BaseMisaligned { .. }
        | PartitionFault::PlaceTaken { .. }
        | PartitionFault::DirectOverlap { .. } => partition.memory_place.span(partition),
        PartitionFault::ModuleOutside { .. } | PartitionFault::ModuleTooLong { .. } => {
            partition.image.span.clone()
        }
    };
    let text = error.to_string();
    let (message, remedy) = text.rsplit_once("; ").unwrap_or((&text, "see the message"));
    let label = match fault {
        PartitionFault::PlaceTaken { range } => in_the_way(*range, guests, *index, board, image),
        _ => "here".to_owned(),
    };
    Problem::error(source, span, message, label, remedy)
}

/// Says what stands where a partition's memory is to be.
fn in_the_way(
    range: PaRange,
    guests: &[Guest],
    index: usize,
    board: &BoardFile,
    image: PaRange,
) -> String {
    let show = |what: &str, other: PaRange| {
        format!(
            "{what} {:#x} to {:#x}",
            other.start.get(),
            other.end().get()
        )
    };
    let Board {
        reserved, memory, ..
    } = &board.board;
    if let Some(other) = reserved.iter().find(|other| other.overlaps(range)) {
        return show("the firmware keeps", *other);
    }
    if image.overlaps(range) {
        return show("the image and the hypervisor's memory take", image);
    }
    let fixed = guests.iter().enumerate().find_map(|(other, guest)| {
        let place = guest.partition.memory_place.base.as_ref()?;
        let ram = PaRange::new(place.value, guest.partition.memory_bytes.value);
        (other != index && ram.overlaps(range)).then_some((guest, ram))
    });
    if let Some((guest, ram)) = fixed {
        return show(
            &format!("partition \"{}\" has", guest.partition.name.value),
            ram,
        );
    }
    match memory.iter().find(|ram| ram.overlaps(range)) {
        Some(ram) => show("the board's memory is", *ram),
        None => "the board has no memory there".to_owned(),
    }
}
