// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds a configuration against a board, and gives each partition its PEs and its memory.
//!
//! The same function runs in `firebreak check` and at EL2, so what the checker accepts boots on
//! the board that it was told of, and what it refuses would have been refused there with the
//! same words.

use core::fmt;

use firebreak_abi::{
    Ipa, MAX_PARTITIONS, MAX_VCPUS_PER_PARTITION, Mpidr, PAGE_SIZE_BYTES, PaRange, guest_map,
};
use firebreak_vm::memory::{BLOCK_BYTES, MAX_FREE_RANGES};
use firebreak_vm::{PlanError, Request, plan_memory};
use heapless::{String, Vec};

use crate::board::Board;
use crate::config::{MAX_NAME_LEN, PartitionConfig, SystemConfig};

/// What each partition gets.
#[derive(Clone, Debug, Default)]
pub struct MemoryPlan {
    /// In the order of the configuration.
    pub placements: Vec<Placement, MAX_PARTITIONS>,
    /// Memory that nobody has, in no order.
    pub free: Vec<PaRange, MAX_FREE_RANGES>,
}

/// What one partition gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Its RAM, 2 MiB aligned.
    pub ram: PaRange,
    /// Where the guest sees it.
    pub ram_ipa: Ipa,
    /// Its spare pages, in one piece; empty if it has none.
    pub spares: PaRange,
    /// Room for two other kernels, one behind the other; empty if it has none.
    pub slots: PaRange,
    /// The PE of each of its vCPUs.
    pub pes: Vec<Mpidr, MAX_VCPUS_PER_PARTITION>,
}

/// Which part of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModuleKind {
    /// Its kernel.
    Kernel,
    /// Its initial RAM disk.
    Ramdisk,
}

impl fmt::Display for ModuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Ramdisk => "ramdisk",
        })
    }
}

/// Why a configuration cannot run on a board.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SystemError {
    /// There is no partition.
    NoPartitions,
    /// The board has no memory.
    NoMemory,
    /// The board's memory and reservations are in too many pieces.
    Fragmented,
    /// The image stands outside of memory, or in a reserved range.
    ImageMisplaced(PaRange),
    /// One partition cannot be had.
    Partition {
        /// Its place in the configuration.
        index: usize,
        /// Its name.
        name: String<MAX_NAME_LEN>,
        /// What is wrong with it.
        fault: PartitionFault,
    },
}

/// What is wrong with a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartitionFault {
    /// The board has not this PE.
    PeAbsent {
        /// The PE that was asked for.
        mpidr: Mpidr,
        /// How many the board has.
        pes: usize,
    },
    /// Another partition owns this PE.
    PeTaken {
        /// The PE.
        mpidr: Mpidr,
        /// Its owner.
        owner: String<MAX_NAME_LEN>,
    },
    /// Not as many PEs are left as it has vCPUs.
    NoPeLeft {
        /// vCPUs.
        wanted: usize,
        /// PEs that no partition owns.
        left: usize,
    },
    /// Memory is not a positive multiple of 2 MiB.
    MemoryGranule {
        /// What was asked for, in bytes.
        bytes: u64,
    },
    /// No such piece of memory is left.
    MemoryTooBig {
        /// What was asked for, in bytes.
        bytes: u64,
        /// The largest piece that is left, in bytes.
        longest_bytes: u64,
    },
    /// No room is left for its spare pages.
    SparePages {
        /// How many.
        pages: u8,
    },
    /// No room is left for other kernels.
    ReloadRoom {
        /// How much is needed, twice what was asked for, in bytes.
        bytes: u64,
    },
    /// The place that was chosen for its memory does not begin on a multiple of 2 MiB.
    BaseMisaligned {
        /// The place.
        base: u64,
    },
    /// The place that was chosen for its memory is not free.
    PlaceTaken {
        /// The place.
        range: PaRange,
    },
    /// Where its memory is 1:1, the guest has an emulated device.
    DirectOverlap {
        /// Its memory.
        ram: PaRange,
        /// The emulated device.
        device: Ipa,
    },
    /// A module stands where neither the image nor free RAM is.
    ModuleOutside {
        /// Which module.
        module: ModuleKind,
        /// Where it stands.
        range: PaRange,
    },
    /// A module is longer than the partition's memory.
    ModuleTooLong {
        /// Which module.
        module: ModuleKind,
        /// Its length.
        bytes: u64,
        /// The partition's memory.
        memory_bytes: u64,
    },
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPartitions => f.write_str("there is no partition; describe at least one"),
            Self::NoMemory => f.write_str("the board has no memory; check its devicetree"),
            Self::Fragmented => {
                f.write_str("the board's memory is in too many pieces; merge reservations")
            }
            Self::ImageMisplaced(range) => write!(
                f,
                "the image at {:#x}, {:#x} bytes, is not in one piece of free memory; load it elsewhere",
                range.start, range.len_bytes
            ),
            Self::Partition { name, fault, .. } => write!(f, "partition {name}: {fault}"),
        }
    }
}

impl fmt::Display for PartitionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeAbsent { mpidr, pes } => {
                write!(
                    f,
                    "PE {:#x} is not on this board, which has {pes}; choose another",
                    mpidr.get()
                )
            }
            Self::PeTaken { mpidr, owner } => {
                write!(
                    f,
                    "PE {:#x} belongs to partition {owner}; each PE has one owner",
                    mpidr.get()
                )
            }
            Self::NoPeLeft { wanted, left } => {
                write!(
                    f,
                    "{wanted} vCPU(s) need as many PEs, {left} are left; use fewer vCPUs"
                )
            }
            Self::MemoryGranule { bytes } => {
                write!(
                    f,
                    "{bytes:#x} bytes of memory are not a positive multiple of 2 MiB; round it"
                )
            }
            Self::MemoryTooBig {
                bytes,
                longest_bytes,
            } => write!(
                f,
                "{} MiB of memory in one piece are not left, {} MiB are; ask for less",
                bytes >> 20,
                longest_bytes >> 20
            ),
            Self::SparePages { pages } => write!(
                f,
                "{pages} spare pages of 4 KiB in one piece are not left; ask for fewer"
            ),
            Self::ReloadRoom { bytes } => write!(
                f,
                "{} KiB, twice the reload_room, are not left in one piece; ask for less",
                bytes >> 10
            ),
            Self::BaseMisaligned { base } => write!(
                f,
                "memory at {base:#x} does not begin on a multiple of 2 MiB; choose another base"
            ),
            Self::PlaceTaken { range } => write!(
                f,
                "memory from {:#x} to {:#x} is not all free RAM; choose another base, or leave it out",
                range.start,
                range.end()
            ),
            Self::DirectOverlap { ram, device } => write!(
                f,
                "1:1 memory from {:#x} to {:#x} hides the guest's emulated device at {device:#x}; choose another base",
                ram.start,
                ram.end()
            ),
            Self::ModuleOutside { module, range } => write!(
                f,
                "the {module} at {:#x}, {:#x} bytes, is neither in the image nor in free RAM; load it elsewhere",
                range.start, range.len_bytes
            ),
            Self::ModuleTooLong {
                module,
                bytes,
                memory_bytes,
            } => write!(
                f,
                "the {module} has {bytes:#x} bytes, its memory {memory_bytes:#x}; give it more memory"
            ),
        }
    }
}

impl core::error::Error for SystemError {}

/// Checks everything that needs the whole system, and places the partitions.
///
/// `hypervisor` is the image in memory: the hypervisor with its BSS and all payloads behind it.
/// What else must stay untouched is in `board.reserved`.
///
/// # Errors
///
/// The first partition that cannot be had, and why.
pub fn validate(
    board: &Board,
    config: &SystemConfig<'_>,
    hypervisor: PaRange,
) -> Result<MemoryPlan, SystemError> {
    if config.partitions.is_empty() {
        return Err(SystemError::NoPartitions);
    }
    if board.memory.is_empty() {
        return Err(SystemError::NoMemory);
    }
    let in_memory = board.memory.iter().any(|ram| contains(*ram, hypervisor));
    if !in_memory
        || board
            .reserved
            .iter()
            .any(|reserved| reserved.overlaps(hypervisor))
    {
        return Err(SystemError::ImageMisplaced(hypervisor));
    }
    let pes = assign_pes(board, config)?;
    for (index, partition) in config.partitions.iter().enumerate() {
        let checked =
            check_memory(partition).and_then(|()| check_modules(board, partition, hypervisor));
        checked.map_err(|fault| refuse(index, partition, fault))?;
    }
    let mut free = free_memory(board, config, hypervisor)?;
    take_fixed(config, &mut free)?;
    let mut ram = place(config, &free)?.into_iter();
    let mut placements = Vec::new();
    let mut rams: Vec<PaRange, MAX_PARTITIONS> = Vec::new();
    for partition in &config.partitions {
        let fixed = partition
            .memory_base
            .map(|base| PaRange::new(base.get(), partition.memory_bytes));
        let Some(ram) = fixed.or_else(|| ram.next()) else {
            return Err(SystemError::Fragmented);
        };
        take(&mut free, ram)?;
        // As many as partitions, which fit.
        let _ = rams.push(ram);
    }
    let requests = config.partitions.iter().enumerate();
    for ((ram, pes), (index, partition)) in rams.into_iter().zip(pes).zip(requests) {
        let ram_ipa = view(partition, ram).map_err(|fault| refuse(index, partition, fault))?;
        // A spare page would break what 1:1 promises to devices.
        let pages = if partition.direct_map {
            0
        } else {
            partition.spare_pages
        };
        let spares = place_high(&free, u64::from(pages) * PAGE_SIZE_BYTES)
            .ok_or_else(|| refuse(index, partition, PartitionFault::SparePages { pages }))?;
        take(&mut free, spares)?;
        let bytes = partition.reload_room_bytes.saturating_mul(2);
        let slots = place_high(&free, bytes)
            .ok_or_else(|| refuse(index, partition, PartitionFault::ReloadRoom { bytes }))?;
        take(&mut free, slots)?;
        let placement = Placement {
            ram,
            ram_ipa,
            spares,
            slots,
            pes,
        };
        // As many as partitions, which fit.
        let _ = placements.push(placement);
    }
    Ok(MemoryPlan { placements, free })
}

fn refuse(index: usize, partition: &PartitionConfig<'_>, fault: PartitionFault) -> SystemError {
    SystemError::Partition {
        index,
        name: partition.name.clone(),
        fault,
    }
}

type Pes = Vec<Mpidr, MAX_VCPUS_PER_PARTITION>;

/// Gives explicit wishes first, then what is left, in the order of the board.
fn assign_pes(
    board: &Board,
    config: &SystemConfig<'_>,
) -> Result<Vec<Pes, MAX_PARTITIONS>, SystemError> {
    let mut owners: Vec<(Mpidr, usize), { firebreak_abi::MAX_PES }> = Vec::new();
    for (index, partition) in config.partitions.iter().enumerate() {
        for mpidr in &partition.pes {
            let taken = owners.iter().find(|(taken, _)| taken == mpidr).copied();
            let fault = match taken {
                Some((_, owner)) => PartitionFault::PeTaken {
                    mpidr: *mpidr,
                    owner: config
                        .partitions
                        .get(owner)
                        .map(|one| one.name.clone())
                        .unwrap_or_default(),
                },
                None if board.has_pe(*mpidr) && owners.push((*mpidr, index)).is_ok() => continue,
                None => PartitionFault::PeAbsent {
                    mpidr: *mpidr,
                    pes: board.cpus.len(),
                },
            };
            return Err(refuse(index, partition, fault));
        }
    }
    let mut all = Vec::new();
    for (index, partition) in config.partitions.iter().enumerate() {
        let mut pes = partition.pes.clone();
        if pes.is_empty() {
            let left = board.cpus.len().saturating_sub(owners.len());
            let wanted = usize::from(partition.vcpus);
            if wanted > left {
                return Err(refuse(
                    index,
                    partition,
                    PartitionFault::NoPeLeft { wanted, left },
                ));
            }
            for mpidr in &board.cpus {
                if pes.len() < wanted && !owners.iter().any(|(taken, _)| taken == mpidr) {
                    let _ = owners.push((*mpidr, index));
                    let _ = pes.push(*mpidr);
                }
            }
        }
        let _ = all.push(pes);
    }
    Ok(all)
}

fn check_memory(partition: &PartitionConfig<'_>) -> Result<(), PartitionFault> {
    let bytes = partition.memory_bytes;
    if bytes == 0 || bytes & (BLOCK_BYTES - 1) != 0 {
        return Err(PartitionFault::MemoryGranule { bytes });
    }
    Ok(())
}

fn modules(partition: &PartitionConfig<'_>) -> impl Iterator<Item = (ModuleKind, PaRange)> {
    let ramdisk = partition.ramdisk.map(|range| (ModuleKind::Ramdisk, range));
    core::iter::once((ModuleKind::Kernel, partition.kernel)).chain(ramdisk)
}

fn contains(outer: PaRange, inner: PaRange) -> bool {
    inner.start >= outer.start && inner.end() <= outer.end()
}

fn check_modules(
    board: &Board,
    partition: &PartitionConfig<'_>,
    image: PaRange,
) -> Result<(), PartitionFault> {
    for (module, range) in modules(partition) {
        let in_ram = board.memory.iter().any(|ram| contains(*ram, range))
            && !range.overlaps(image)
            && !board
                .reserved
                .iter()
                .any(|reserved| reserved.overlaps(range));
        if !contains(image, range) && !in_ram {
            return Err(PartitionFault::ModuleOutside { module, range });
        }
        let (bytes, memory_bytes) = (range.len_bytes, partition.memory_bytes);
        if bytes > memory_bytes {
            return Err(PartitionFault::ModuleTooLong {
                module,
                bytes,
                memory_bytes,
            });
        }
    }
    Ok(())
}

type Free = Vec<PaRange, MAX_FREE_RANGES>;

fn free_memory(
    board: &Board,
    config: &SystemConfig<'_>,
    image: PaRange,
) -> Result<Free, SystemError> {
    let mut free = Free::new();
    free.extend_from_slice(&board.memory)
        .map_err(|_| SystemError::Fragmented)?;
    take(&mut free, image)?;
    for reserved in &board.reserved {
        take(&mut free, *reserved)?;
    }
    for (_, module) in config.partitions.iter().flat_map(modules) {
        take(&mut free, module)?;
    }
    Ok(free)
}

/// Takes what the configuration chose itself, before anybody is given what is left.
fn take_fixed(config: &SystemConfig<'_>, free: &mut Free) -> Result<(), SystemError> {
    for (index, partition) in config.partitions.iter().enumerate() {
        let Some(base) = partition.memory_base else {
            continue;
        };
        let range = PaRange::new(base.get(), partition.memory_bytes);
        let whole = base.checked_add(range.len_bytes).is_some();
        let fault = if !base.is_aligned(BLOCK_BYTES) {
            PartitionFault::BaseMisaligned { base: base.get() }
        } else if !whole || !free.iter().any(|piece| contains(*piece, range)) {
            PartitionFault::PlaceTaken { range }
        } else {
            take(free, range)?;
            continue;
        };
        return Err(refuse(index, partition, fault));
    }
    Ok(())
}

/// Says where the guest sees its RAM.
fn view(partition: &PartitionConfig<'_>, ram: PaRange) -> Result<Ipa, PartitionFault> {
    if !partition.direct_map {
        return Ok(guest_map::RAM);
    }
    let emulated = guest_map::emulated(partition.vcpus);
    let hidden = emulated
        .iter()
        .find(|(start, len)| PaRange::new(start.get(), *len).overlaps(ram));
    match hidden {
        Some((device, _)) => Err(PartitionFault::DirectOverlap {
            ram,
            device: *device,
        }),
        None => Ok(Ipa::new(ram.start.get())),
    }
}

fn place(
    config: &SystemConfig<'_>,
    free: &[PaRange],
) -> Result<Vec<PaRange, MAX_PARTITIONS>, SystemError> {
    let mut requests: Vec<Request, MAX_PARTITIONS> = Vec::new();
    let mut asking: Vec<usize, MAX_PARTITIONS> = Vec::new();
    for (index, partition) in config.partitions.iter().enumerate() {
        if partition.memory_base.is_some() {
            continue;
        }
        let len_bytes = partition.memory_bytes;
        let _ = asking.push(index);
        let _ = requests.push(Request {
            len_bytes,
            align_bytes: BLOCK_BYTES,
        });
    }
    plan_memory(free, &requests).map_err(|error| match error {
        PlanError::DoesNotFit {
            index,
            len_bytes: bytes,
            longest_bytes,
        } => match asking
            .get(index)
            .and_then(|at| Some((*at, config.partitions.get(*at)?)))
        {
            Some((index, partition)) => {
                let fault = PartitionFault::MemoryTooBig {
                    bytes,
                    longest_bytes,
                };
                refuse(index, partition, fault)
            }
            None => SystemError::Fragmented,
        },
        _ => SystemError::Fragmented,
    })
}

/// Finds a place for whole pages: as high as possible, far from where the image's length decides
/// about places.
fn place_high(free: &[PaRange], len_bytes: u64) -> Option<PaRange> {
    if len_bytes == 0 {
        return Some(PaRange::default());
    }
    let starts = free.iter().filter_map(|piece| {
        let end = piece.end().get() & !(PAGE_SIZE_BYTES - 1);
        let start = end.checked_sub(len_bytes)?;
        (start >= piece.start.get()).then_some(start)
    });
    starts.max().map(|start| PaRange::new(start, len_bytes))
}

/// Cuts a range out of the free ones.
fn take(free: &mut Free, taken: PaRange) -> Result<(), SystemError> {
    let mut index = 0;
    while let Some(piece) = free.get(index).copied() {
        if !piece.overlaps(taken) {
            index += 1;
            continue;
        }
        free.swap_remove(index);
        let between = |from: u64, to: u64| PaRange::new(from, to.saturating_sub(from));
        let rests = [
            between(piece.start.get(), taken.start.get().max(piece.start.get())),
            between(taken.end().get().min(piece.end().get()), piece.end().get()),
        ];
        for rest in rests.into_iter().filter(|rest| rest.len_bytes != 0) {
            free.push(rest).map_err(|_| SystemError::Fragmented)?;
        }
        // What was swapped in, or a rest, stands here now; neither can overlap for ever, since
        // rests never overlap `taken`.
    }
    Ok(())
}
