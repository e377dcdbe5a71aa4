// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole systems: what fits a board, what does not, and what each partition gets.

use firebreak_abi::{Mpidr, PaRange};
use firebreak_manifest::config::default_policy;
use firebreak_manifest::{
    Board, KernelError, KernelImage, PartitionConfig, RestartPolicy, SystemConfig, guest_layout,
    validate,
};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
/// Where the image stands.
const IMAGE: PaRange = PaRange::new(0x4020_0000, 0x10_0000);

/// QEMU `virt` with 1 GiB and 4 PEs, devicetree and firmware region reserved.
fn board() -> Board {
    let mut board = Board::default();
    board
        .memory
        .push(PaRange::new(0x4000_0000, 1024 * MIB))
        .unwrap();
    board.cpus.extend((0..4).map(Mpidr::from_raw));
    board.reserve(PaRange::new(0x4000_0000, 2 * MIB)).unwrap();
    board
}

fn partition(name: &str, pes: &[u64], memory_bytes: u64) -> PartitionConfig<'static> {
    PartitionConfig {
        name: name.try_into().unwrap(),
        vcpus: u8::try_from(pes.len().max(1)).unwrap(),
        pes: pes.iter().map(|pe| Mpidr::from_raw(*pe)).collect(),
        memory_bytes,
        spare_pages: 8,
        reload_room_bytes: 0,
        memory_base: None,
        direct_map: false,
        devices: Default::default(),
        kernel: PaRange::new(0x4021_0000, 0x1000),
        ramdisk: None,
        bootargs: "",
        console: true,
        ras_visible: true,
        direct_aborts: false,
        watchdog: true,
        pvpanic: false,
        autostart: true,
        restart: RestartPolicy::default(),
        policy: default_policy(true),
    }
}

fn system(partitions: &[PartitionConfig<'static>]) -> SystemConfig<'static> {
    let mut config = SystemConfig::default();
    config.partitions.extend_from_slice(partitions).unwrap();
    config
}

fn refused(board: &Board, partitions: &[PartitionConfig<'static>]) -> String {
    validate(board, &system(partitions), IMAGE)
        .unwrap_err()
        .to_string()
}

#[test]
fn the_demo_fits_behind_the_image_and_what_is_left_is_told() {
    let partitions = [
        partition("linux", &[0, 1], 256 * MIB),
        partition("control", &[2], 16 * MIB),
        partition("victim", &[3], 16 * MIB),
    ];
    let plan = validate(&board(), &system(&partitions), IMAGE).unwrap();
    let ram: Vec<_> = plan.placements.iter().map(|one| one.ram).collect();
    assert_eq!(
        ram,
        [
            PaRange::new(0x4040_0000, 256 * MIB),
            PaRange::new(0x5040_0000, 16 * MIB),
            PaRange::new(0x5140_0000, 16 * MIB),
        ]
    );
    let left: u64 = plan.free.iter().map(|range| range.len_bytes).sum();
    // From the end of memory down.
    let spares = [1, 2, 3].map(|index| PaRange::new(0x8000_0000 - index * 0x8000, 0x8000));
    assert!(plan.placements.iter().map(|one| one.spares).eq(spares));
    assert_eq!(left, (1024 - 2 - 288) * MIB - IMAGE.len_bytes - 3 * 0x8000);
}

#[test]
fn partitions_without_a_wish_get_the_pes_that_nobody_wished() {
    let partitions = [
        partition("any", &[], 2 * MIB),
        partition("first", &[0], 2 * MIB),
        partition("other", &[], 2 * MIB),
    ];
    let plan = validate(&board(), &system(&partitions), IMAGE).unwrap();
    let pes: Vec<_> = plan.placements.iter().map(|one| one.pes[0].get()).collect();
    assert_eq!(pes, [1, 0, 2]);
}

#[test]
fn what_does_not_fit_the_board_is_refused_by_name() {
    let ok = || partition("ok", &[0], 16 * MIB);
    let board = board();
    // 2 MiB for a partition, and 256 KiB.
    let mut small = board.clone();
    small.memory[0].len_bytes = 6 * MIB + 0x4_0000;
    small.reserve(PaRange::new(0x4030_0000, MIB)).unwrap();
    let with = |change: fn(&mut PartitionConfig<'static>)| {
        let mut bad = partition("bad", &[1], 16 * MIB);
        change(&mut bad);
        refused(&board, &[ok(), bad])
    };
    assert_eq!(
        refused(&board, &[]),
        "there is no partition; describe at least one"
    );
    assert_eq!(
        with(|bad| bad.pes[0] = Mpidr::from_raw(4)),
        "partition bad: PE 0x4 is not on this board, which has 4; choose another"
    );
    assert_eq!(
        with(|bad| bad.pes[0] = Mpidr::from_raw(0)),
        "partition bad: PE 0x0 belongs to partition ok; each PE has one owner"
    );
    assert_eq!(
        with(|bad| {
            bad.pes.clear();
            bad.vcpus = 4;
        }),
        "partition bad: 4 vCPU(s) need as many PEs, 3 are left; use fewer vCPUs"
    );
    assert_eq!(
        refused(
            &small,
            &[PartitionConfig {
                spare_pages: 65,
                ..partition("bad", &[1], 2 * MIB)
            }]
        ),
        "partition bad: 65 spare pages of 4 KiB in one piece are not left; ask for fewer"
    );
    assert_eq!(
        refused(
            &small,
            &[PartitionConfig {
                reload_room_bytes: 0x2_0000,
                ..partition("bad", &[1], 2 * MIB)
            }]
        ),
        "partition bad: 256 KiB, twice the reload_room, are not left in one piece; ask for less"
    );
    assert_eq!(
        with(|bad| bad.memory_bytes = 3 * MIB),
        "partition bad: 0x300000 bytes of memory are not a positive multiple of 2 MiB; round it"
    );
    assert_eq!(
        with(|bad| bad.memory_bytes = 1008 * MIB),
        "partition bad: 1008 MiB of memory in one piece are not left, 1004 MiB are; ask for less"
    );
    assert_eq!(
        with(|bad| bad.kernel = PaRange::new(0x4000_0000, 0x1000)),
        "partition bad: the kernel at 0x40000000, 0x1000 bytes, is neither in the image nor in \
         free RAM; load it elsewhere"
    );
    assert_eq!(
        with(|bad| bad.ramdisk = Some(PaRange::new(0x402f_f000, 0x2000))),
        "partition bad: the ramdisk at 0x402ff000, 0x2000 bytes, is neither in the image nor in \
         free RAM; load it elsewhere"
    );
    assert_eq!(
        with(|bad| bad.ramdisk = Some(PaRange::new(0x6000_0000, 17 * MIB))),
        "partition bad: the ramdisk has 0x1100000 bytes, its memory 0x1000000; give it more memory"
    );
}

#[test]
fn an_image_outside_of_memory_or_on_reserved_memory_is_refused() {
    let config = system(&[partition("a", &[0], 2 * MIB)]);
    for image in [
        PaRange::new(0x4010_0000, 2 * MIB),
        PaRange::new(0x7ff0_0000, 2 * MIB),
        PaRange::new(0x1000, 0x1000),
    ] {
        let words = validate(&board(), &config, image).unwrap_err().to_string();
        assert!(
            words.contains("is not in one piece of free memory; load it elsewhere"),
            "{words}"
        );
    }
    let nowhere = validate(&Board::default(), &config, IMAGE)
        .unwrap_err()
        .to_string();
    assert_eq!(nowhere, "the board has no memory; check its devicetree");
}

#[test]
fn modules_in_ram_are_not_given_away_before_they_were_copied() {
    let mut first = partition("a", &[0], 512 * MIB);
    first.kernel = PaRange::new(0x4040_0000, 0x1000);
    let plan = validate(&board(), &system(&[first]), IMAGE).unwrap();
    assert_eq!(plan.placements[0].ram.start.get(), 0x4060_0000);
}

fn image_header(text_offset: u64, image_size: u64, flags: u64) -> [u8; 64] {
    let mut header = [0; 64];
    header[8..16].copy_from_slice(&text_offset.to_le_bytes());
    header[16..24].copy_from_slice(&image_size.to_le_bytes());
    header[24..32].copy_from_slice(&flags.to_le_bytes());
    header[56..60].copy_from_slice(b"ARM\x64");
    header
}

#[test]
fn kernels_are_known_by_their_first_bytes() {
    let identify = KernelImage::identify;
    assert_eq!(identify(&[0x7f, 0x20, 0x03, 0xd5]), Ok(KernelImage::Raw));
    assert_eq!(identify(&[0; 4096]), Ok(KernelImage::Raw));
    let linux = KernelImage::Arm64 {
        text_offset: 0x8_0000,
        image_size: 0x200_0000,
    };
    assert_eq!(
        identify(&image_header(0x8_0000, 0x200_0000, 0xa)),
        Ok(linux)
    );
    assert_eq!(
        (linux.load_ipa().get(), KernelImage::Raw.load_ipa().get()),
        (0x4028_0000, 0x4020_0000)
    );
    for (bytes, error) in [
        (&[][..], KernelError::Empty),
        (&[0x1f, 0x8b, 8], KernelError::Gzip),
        (b"\x7fELF\x02", KernelError::Elf),
        (b"MZ\0\0zimg", KernelError::Zboot),
        (&image_header(0, 1, 1), KernelError::BigEndian),
        (
            &image_header(0x20_0000, 1, 0),
            KernelError::TextOffset(0x20_0000),
        ),
        (&image_header(0, 0, 0), KernelError::ImageSize(0)),
        (
            &image_header(0, u64::MAX, 0),
            KernelError::ImageSize(u64::MAX),
        ),
    ] {
        assert_eq!(identify(bytes), Err(error));
    }
}

proptest! {
    #[test]
    fn nothing_in_a_plan_overlaps_anything(
        wishes in proptest::collection::vec((1..200_u64, 0..900_u64), 1..5),
        reserved in proptest::collection::vec((0..1024_u64, 1..64_u64), 0..8),
    ) {
        let mut board = board();
        for (start, len) in reserved {
            let _ = board.reserve(PaRange::new(0x4000_0000 + start * MIB, len * MIB));
        }
        let partitions: Vec<_> = wishes
            .iter()
            .enumerate()
            .map(|(index, (blocks, ramdisk))| {
                let mut one = partition(&format!("p{index}"), &[index as u64], blocks * 2 * MIB);
                one.reload_room_bytes = ramdisk % 5 * 0x3000;
                one.ramdisk = Some(PaRange::new(0x4100_0000 + ramdisk * MIB, 0x1000));
                one
            })
            .collect();
        let Ok(plan) = validate(&board, &system(&partitions), IMAGE) else { return Ok(()) };
        let mut taken: Vec<PaRange> = board.reserved.to_vec();
        taken.push(IMAGE);
        taken.extend(partitions.iter().filter_map(|one| one.ramdisk));
        for (placement, partition) in plan.placements.iter().zip(&partitions) {
            let ram = placement.ram;
            prop_assert_eq!(ram.len_bytes, partition.memory_bytes);
            prop_assert!(ram.start.is_aligned(2 * MIB));
            prop_assert!(ram.start >= board.memory[0].start && ram.end() <= board.memory[0].end());
            prop_assert!(!taken.iter().any(|other| other.overlaps(ram)), "{:?} {:?}", ram, taken);
            taken.push(ram);
            let spares = placement.spares;
            prop_assert_eq!(spares.len_bytes, 8 * 0x1000);
            prop_assert!(spares.start.is_aligned(0x1000));
            prop_assert!(board.memory[0].contains(spares.start));
            prop_assert!(spares.end() <= board.memory[0].end());
            let slots = placement.slots;
            prop_assert_eq!(slots.len_bytes, 2 * partition.reload_room_bytes);
            for range in [spares, slots] {
                prop_assert!(!taken.iter().any(|other| other.overlaps(range)));
                taken.push(range);
            }
        }
        for free in &plan.free {
            prop_assert!(!taken.iter().any(|other| other.overlaps(*free)));
        }
    }

    #[test]
    fn nothing_in_a_guests_memory_overlaps_anything(
        memory in 1..64_u64,
        file in 1..40 * MIB,
        bss in 0..8 * MIB,
        text_offset in 0..512_u64,
        ramdisk in proptest::option::of(0..40 * MIB),
    ) {
        let kernel = KernelImage::Arm64 { text_offset: text_offset * 4096, image_size: file + bss };
        let memory_bytes = memory * 2 * MIB;
        match guest_layout(memory_bytes, kernel, file, ramdisk) {
            Ok(layout) => {
                let ram = 0x4000_0000;
                let kernel_end = layout.kernel.get() + file + bss;
                let disk = layout.ramdisk.map_or(layout.devicetree, |disk| disk);
                prop_assert!(layout.kernel.get() >= ram + 2 * MIB);
                prop_assert!(kernel_end <= disk.get());
                prop_assert!(disk.get() + ramdisk.unwrap_or(0) <= layout.devicetree.get());
                prop_assert_eq!(layout.devicetree.get() + 0x1_0000, ram + memory_bytes);
                prop_assert!(disk.is_aligned(4096));
            }
            Err(small) => {
                prop_assert!(small.needed_bytes > memory_bytes);
                prop_assert!(guest_layout(small.needed_bytes, kernel, file, ramdisk).is_ok());
            }
        }
    }
}
