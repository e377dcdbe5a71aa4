// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any bytes that are read as a devicetree: no panic, bounded loops, and what
//! the readers accept is what the kernel relies on without looking again.
//!
//! Bytes that start like a blob are read as one, and once more with the header mended, so that
//! its checks do not hide the rest. All others are a program that builds a tree of the names that the
//! readers know.

use super::bytes::Bytes;
use firebreak_abi::{MAX_VCPUS_PER_PARTITION, Pa, PaRange};
use firebreak_manifest::config::{MAX_BOOTARGS_LEN, is_valid_name};
use firebreak_manifest::tree::{Event, Tree};
use firebreak_manifest::{
    Board, HEADER_LEN, MAX_DEPTH, MAX_NODES, SystemConfig, TreeFault, blob_len, read_board,
    read_config, validate,
};
use zerocopy::IntoBytes;

/// Where the image stands: in the RAM of QEMU's `virt`.
const IMAGE: PaRange = PaRange::new(0x4020_0000, 0x20_0000);
const BLOCK_BYTES: u64 = 2 << 20;

/// Names of nodes and of properties, and words that stand in values.
const WORDS: [&str; 80] = [
    "",
    "chosen",
    "cpus",
    "cpu@0",
    "cpu@1",
    "memory@40000000",
    "aliases",
    "reserved-memory",
    "soc",
    "psci",
    "timer",
    "intc",
    "serial@9000000",
    "sei",
    "source@0",
    "control",
    "linux",
    "victim",
    "kernel",
    "ramdisk",
    "compatible",
    "reg",
    "#address-cells",
    "#size-cells",
    "status",
    "okay",
    "disabled",
    "device_type",
    "cpu",
    "memory",
    "method",
    "smc",
    "hvc",
    "arm,pl011",
    "arm,gic-v3",
    "arm,armv8-timer",
    "arm,psci-1.0",
    "firebreak,sei-1",
    "firebreak,domain",
    "xen,domain",
    "multiboot,kernel",
    "multiboot,ramdisk",
    "multiboot,module",
    "bootargs",
    "vpl011",
    "firebreak,mpidr",
    "firebreak,image-relative",
    "firebreak,ras-visible",
    "firebreak,watchdog",
    "firebreak,restart-on-reset",
    "firebreak,restart-on-silence",
    "firebreak,restart-on-kill",
    "firebreak,restart-limit",
    "firebreak,corrected-limit",
    "firebreak,on-uer",
    "firebreak,on-ueu",
    "firebreak,on-corrected",
    "firebreak,on-impdef",
    "log",
    "inject",
    "inject:0xc11",
    "retire",
    "retire:0x1ffffff",
    "kill",
    "restart",
    "interrupts",
    "interrupt-parent",
    "phandle",
    "ranges",
    "model",
    "stdout-path",
    "serial0",
    "#redistributor-regions",
    "read-ack",
    "error-status-address",
    "error-status-length",
    "pending",
    "syndrome",
    "bert",
    "persistent",
];

/// Numbers that a value is made of, besides the input's own.
const NUMBERS: [u32; 16] = [
    0,
    1,
    2,
    3,
    4,
    8,
    0x1000,
    0x10_0000,
    0x2000_0000,
    0x4000_0000,
    0x4020_0000,
    0x0800_0000,
    0x0900_0000,
    0x4000,
    0x8000_0000,
    u32::MAX,
];

/// A blob on a multiple of 8.
struct Blob(Vec<u64>, usize);

impl Blob {
    fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0_u64; bytes.len().div_ceil(8)];
        words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        Self(words, bytes.len())
    }

    fn bytes(&self) -> &[u8] {
        &self.0.as_bytes()[..self.1]
    }
}

/// Reads an input in every way.
pub(crate) fn check_devicetree(input: &[u8]) {
    if input.first() == Some(&0xd0) {
        check_blob(Blob::new(input).bytes());
        if input.len() >= HEADER_LEN {
            check_blob(mended(input).bytes());
        }
    } else {
        check_blob(assembled(input).bytes());
    }
}

/// The same blob with magic, length and version as they should be.
fn mended(input: &[u8]) -> Blob {
    let mut bytes = input.to_vec();
    let mut set = |index: usize, word: u32| {
        bytes[4 * index..4 * index + 4].copy_from_slice(&word.to_be_bytes());
    };
    set(0, 0xd00d_feed);
    set(1, input.len() as u32);
    set(5, 17);
    set(6, 16);
    Blob::new(&bytes)
}

/// Builds the tree that a program describes. It need not be well-formed.
fn assembled(input: &[u8]) -> Blob {
    const BEGIN: u32 = 1;
    const END_NODE: u32 = 2;
    const PROP: u32 = 3;
    const NOP: u32 = 4;
    const END: u32 = 9;
    let mut program = Bytes(input);
    let mut structs: Vec<u8> = [BEGIN, 0].map(u32::to_be_bytes).concat();
    let mut offsets = vec![];
    let mut strings: Vec<u8> = vec![];
    for word in WORDS {
        offsets.push(strings.len() as u32);
        strings.extend(word.bytes().chain([0]));
    }
    let mut depth = 1_u32;
    while !program.is_empty() {
        match program.below(8) {
            0 => {
                let name = WORDS[program.below(WORDS.len())].as_bytes();
                structs.extend(BEGIN.to_be_bytes());
                structs.extend(name.iter().chain(&[0]));
                structs.resize(structs.len().next_multiple_of(4), 0);
                depth += 1;
            }
            1 if depth > 1 => {
                structs.extend(END_NODE.to_be_bytes());
                depth -= 1;
            }
            1 => structs.extend(NOP.to_be_bytes()),
            2 => structs.extend(program.u32().to_be_bytes()),
            _ => {
                let name = offsets[program.below(offsets.len())];
                let value = value(&mut program);
                structs.extend(
                    [PROP, value.len() as u32, name]
                        .map(u32::to_be_bytes)
                        .concat(),
                );
                structs.extend(value);
                structs.resize(structs.len().next_multiple_of(4), 0);
            }
        }
    }
    (0..depth).for_each(|_| structs.extend(END_NODE.to_be_bytes()));
    structs.extend(END.to_be_bytes());
    let reserved = [0_u8; 16];
    let structs_at = HEADER_LEN + reserved.len();
    let strings_at = structs_at + structs.len();
    let header = [
        0xd00d_feed,
        strings_at + strings.len(),
        structs_at,
        strings_at,
        HEADER_LEN,
        17,
        16,
        0,
        strings.len(),
        structs.len(),
    ];
    let mut bytes: Vec<u8> = header.map(|word| (word as u32).to_be_bytes()).concat();
    bytes.extend(reserved.iter().chain(&structs).chain(&strings));
    Blob::new(&bytes)
}

/// A value: cells, words, or bytes.
fn value(program: &mut Bytes<'_>) -> Vec<u8> {
    let kind = program.u8();
    let count = usize::from(kind >> 4);
    match kind & 3 {
        0 => (0..count)
            .flat_map(|_| NUMBERS[program.below(NUMBERS.len())].to_be_bytes())
            .collect(),
        1 => (0..count.min(4))
            .flat_map(|_| WORDS[program.below(WORDS.len())].bytes().chain([0]))
            .collect(),
        2 => (0..count)
            .flat_map(|_| program.u32().to_be_bytes())
            .collect(),
        _ => (0..count).map(|_| program.u8()).collect(),
    }
}

fn check_blob(bytes: &[u8]) {
    if let Some(header) = bytes.first_chunk::<HEADER_LEN>() {
        let len = blob_len(header);
        if let (Ok(len), Ok(_)) = (len, Tree::open(bytes)) {
            assert!(len <= bytes.len());
        }
    }
    let walked = walk(bytes);
    // Errors must be printable, whatever they quote.
    let board = read_board(bytes).map_err(|error| drop(error.to_string()));
    let config = read_config(bytes, IMAGE.start).map_err(|error| drop(error.to_string()));
    if walked.is_err() {
        assert!(board.is_err(), "a board was read from a damaged blob");
    }
    if let Ok(board) = &board {
        check_board(board);
    }
    if let Ok(config) = &config {
        check_config(config);
    }
    if let (Ok(board), Ok(config)) = (&board, &config) {
        check_plan(board, config);
        let mut with_memory = board.clone();
        with_memory.memory.clear();
        let _ = with_memory.memory.push(PaRange::new(0x4000_0000, 1 << 30));
        check_plan(&with_memory, config);
    }
}

/// Walks the whole tree, in both ways that there are.
fn walk(bytes: &[u8]) -> Result<(), TreeFault> {
    let tree = Tree::open(bytes)?;
    assert!(tree.reservations().count() <= bytes.len() / 16);
    let (mut walk, mut nodes, mut events) = (tree.walk(), 0, 0);
    while let Some(event) = walk.next_event()? {
        events += 1;
        if let Event::Begin(name) = event {
            assert!(!name.contains(&0));
            nodes += 1;
            while let Some((name, value)) = walk.next_property()? {
                let _ = name.bytes().map(|name| assert!(!name.contains(&0)));
                let _ = (value.u32(), value.number(), value.text());
                events += 1;
            }
        }
        assert!(walk.depth() <= MAX_DEPTH && nodes <= MAX_NODES);
        assert!(events <= bytes.len() / 4, "more events than tokens");
    }
    assert_eq!(walk.depth(), 0);
    Ok(())
}

fn disjoint(ranges: &[PaRange]) -> bool {
    ranges.iter().enumerate().all(|(index, one)| {
        ranges
            .iter()
            .skip(index + 1)
            .all(|other| !one.overlaps(*other))
    })
}

fn ends(range: PaRange) -> bool {
    range.start.checked_add(range.len_bytes).is_some()
}

fn holds(outer: PaRange, start: Pa, len_bytes: u64) -> bool {
    let end = start.get().checked_add(len_bytes);
    start >= outer.start && end.is_some_and(|end| end <= outer.end().get())
}

fn check_board(board: &Board) {
    assert!(
        board
            .memory
            .iter()
            .chain(&board.reserved)
            .all(|range| ends(*range))
    );
    assert!(
        disjoint(&board.memory),
        "memory overlaps: {:x?}",
        board.memory
    );
    for (index, pe) in board.cpus.iter().enumerate() {
        assert!(!board.cpus[index + 1..].contains(pe), "a PE twice");
    }
    if let Some(gic) = &board.gicv3 {
        assert!(!gic.gicr.is_empty());
        assert!(gic.gicr.iter().chain([&gic.gicd]).all(|range| ends(*range)));
    }
    let Some(sei) = &board.sei else { return };
    assert!(ends(sei.region));
    for range in [sei.bert, sei.persistent].into_iter().flatten() {
        assert!(holds(sei.region, range.start, range.len_bytes));
    }
    for source in &sei.sources {
        let words = [
            source.error_status_address,
            source.read_ack,
            source.pending,
            source.syndrome,
        ];
        for word in words {
            assert!(
                word.is_aligned(8) && holds(sei.region, word, 8),
                "{word:x?}"
            );
        }
        assert!(u64::from(source.error_status_length) <= sei.region.len_bytes);
    }
}

fn check_config(config: &SystemConfig<'_>) {
    for (index, partition) in config.partitions.iter().enumerate() {
        assert!(is_valid_name(&partition.name));
        assert!(
            config.partitions[..index]
                .iter()
                .all(|other| other.name != partition.name)
        );
        assert!((1..=MAX_VCPUS_PER_PARTITION).contains(&usize::from(partition.vcpus)));
        assert!(partition.pes.is_empty() || partition.pes.len() == usize::from(partition.vcpus));
        assert!(partition.bootargs.len() <= MAX_BOOTARGS_LEN);
        assert!(!partition.bootargs.contains('\0'));
        let modules = [Some(partition.kernel), partition.ramdisk];
        assert!(modules.into_iter().flatten().all(ends));
    }
}

fn check_plan(board: &Board, config: &SystemConfig<'_>) {
    let plan = match validate(board, config, IMAGE) {
        Ok(plan) => plan,
        Err(error) => return drop(error.to_string()),
    };
    assert_eq!(plan.placements.len(), config.partitions.len());
    let mut all: Vec<PaRange> = plan.placements.iter().map(|one| one.ram).collect();
    let beside = plan
        .placements
        .iter()
        .flat_map(|one| [one.spares, one.slots]);
    all.extend(beside.filter(|range| range.len_bytes != 0));
    for (placement, partition) in plan.placements.iter().zip(&config.partitions) {
        let spares = u64::from(partition.spare_pages) * 0x1000;
        assert_eq!(placement.spares.len_bytes, spares);
        assert_eq!(placement.slots.len_bytes, 2 * partition.reload_room_bytes);
        assert_eq!(placement.ram.len_bytes, partition.memory_bytes);
        assert!(placement.ram.start.is_aligned(BLOCK_BYTES));
        assert_eq!(placement.pes.len(), usize::from(partition.vcpus));
        assert!(placement.pes.iter().all(|pe| board.has_pe(*pe)));
    }
    let mut pes: Vec<_> = plan
        .placements
        .iter()
        .flat_map(|one| one.pes.clone())
        .collect();
    let count = pes.len();
    pes.sort_unstable();
    pes.dedup();
    assert_eq!(pes.len(), count, "a PE has two owners");
    all.extend(&plan.free);
    all.push(IMAGE);
    assert!(disjoint(&all), "{all:x?}");
    for range in &all {
        let in_ram = |ram: &PaRange| holds(*ram, range.start, range.len_bytes);
        assert!(board.memory.iter().any(in_ram), "{range:x?} is no RAM");
    }
    for range in plan.placements.iter().map(|one| one.ram).chain(plan.free) {
        assert!(
            board
                .reserved
                .iter()
                .all(|reserved| !reserved.overlaps(range))
        );
    }
}
