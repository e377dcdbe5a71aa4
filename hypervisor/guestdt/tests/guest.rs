// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's devicetree, read back by an independent parser.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use firebreak_abi::{Ipa, guest_map};
use firebreak_guestdt::{GuestMachine, WriteError, write_guest_dt};
use proptest::prelude::*;

const LINUX: GuestMachine<'_> = GuestMachine {
    ram_ipa: guest_map::RAM,
    ram_len_bytes: 256 << 20,
    vcpus: 2,
    initrd: Some((Ipa::new(0x4f00_0000), 0x12_3456)),
    bootargs: "console=ttyAMA0 panic=1",
    console: true,
    watchdog: true,
    pvpanic: true,
    holes: &[Ipa::new(0x4800_0000), Ipa::new(0x4a00_1fff)],
};

fn written(machine: &GuestMachine<'_>) -> Vec<u8> {
    let mut buf = vec![0xaa; 16 * 1024];
    let len = write_guest_dt(&mut buf, machine).unwrap();
    buf.truncate(len);
    buf
}

fn node<'a>(tree: &Fdt<'a>, path: &str) -> FdtNode<'a> {
    tree.find_node(path)
        .unwrap_or_else(|| panic!("no node {path}"))
}

fn value(node: FdtNode<'_>, name: &str) -> Vec<u8> {
    let mut properties = node.properties();
    let property = properties.find(|property| property.name() == name);
    property
        .unwrap_or_else(|| panic!("no property {name}"))
        .value()
        .to_vec()
}

fn text(node: FdtNode<'_>, name: &str) -> Vec<String> {
    let text = String::from_utf8(value(node, name)).unwrap();
    text.strip_suffix('\0')
        .unwrap()
        .split('\0')
        .map(str::to_owned)
        .collect()
}

fn cells(node: FdtNode<'_>, name: &str) -> Vec<u32> {
    let value = value(node, name);
    let (words, rest) = value.as_chunks::<4>();
    assert!(rest.is_empty());
    words.iter().map(|word| u32::from_be_bytes(*word)).collect()
}

/// 64-bit numbers of two cells each.
fn numbers(node: FdtNode<'_>, name: &str) -> Vec<u64> {
    let cells = cells(node, name);
    cells
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 32 | u64::from(pair[1]))
        .collect()
}

#[test]
fn a_guest_finds_the_machine_of_the_guest_map() {
    let blob = written(&LINUX);
    let tree = Fdt::new(&blob).unwrap();
    assert_eq!(
        numbers(node(&tree, "/memory@40000000"), "reg"),
        [0x4000_0000, 256 << 20]
    );
    let gic = node(&tree, "/intc@8000000");
    assert_eq!(text(gic, "compatible"), ["arm,gic-v3"]);
    assert_eq!(
        numbers(gic, "reg"),
        [0x800_0000, 0x1_0000, 0x80a_0000, 0x4_0000]
    );
    assert_eq!(
        cells(tree.root(), "interrupt-parent"),
        cells(gic, "phandle")
    );
    let timer = cells(node(&tree, "/timer"), "interrupts");
    assert_eq!(timer, [1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
    let uart = node(&tree, "/pl011@9000000");
    assert_eq!(text(uart, "compatible"), ["arm,pl011", "arm,primecell"]);
    assert_eq!(
        (numbers(uart, "reg"), cells(uart, "interrupts")),
        (vec![0x900_0000, 0x1000], vec![0, 1, 4])
    );
    let clock = cells(node(&tree, "/apb-pclk"), "phandle");
    assert_eq!(cells(uart, "clocks"), [clock[0], clock[0]]);
    let rtc = node(&tree, "/pl031@9010000");
    assert_eq!(
        (numbers(rtc, "reg"), cells(rtc, "interrupts")),
        (vec![0x901_0000, 0x1000], vec![0, 2, 4])
    );
    let pvpanic = node(&tree, "/pvpanic@90f0000");
    assert_eq!(text(pvpanic, "compatible"), ["qemu,pvpanic-mmio"]);
    assert_eq!(numbers(pvpanic, "reg"), [0x90f_0000, 2]);
    let watchdog = node(&tree, "/watchdog@b010000");
    assert_eq!(text(watchdog, "compatible"), ["arm,sbsa-gwdt"]);
    assert_eq!(
        numbers(watchdog, "reg"),
        [0xb01_0000, 0x1000, 0xb00_0000, 0x1000]
    );
    assert_eq!(cells(watchdog, "interrupts"), [0, 16, 4]);
    let psci = node(&tree, "/psci");
    assert_eq!(text(psci, "compatible"), ["arm,psci-1.0", "arm,psci-0.2"]);
    assert_eq!(text(psci, "method"), ["hvc"]);
}

#[test]
fn what_differs_between_guests_is_in_the_tree() {
    let blob = written(&LINUX);
    let tree = Fdt::new(&blob).unwrap();
    let chosen = node(&tree, "/chosen");
    assert_eq!(text(chosen, "bootargs"), ["console=ttyAMA0 panic=1"]);
    assert_eq!(text(chosen, "stdout-path"), ["/pl011@9000000"]);
    assert_eq!(numbers(chosen, "linux,initrd-start"), [0x4f00_0000]);
    assert_eq!(numbers(chosen, "linux,initrd-end"), [0x4f12_3456]);
    let cpus: Vec<_> = node(&tree, "/cpus")
        .children()
        .map(|cpu| cells(cpu, "reg")[0])
        .collect();
    assert_eq!(cpus, [0, 1]);
    let hole = node(&tree, "/reserved-memory/retired@4a001000");
    assert_eq!(numbers(hole, "reg"), [0x4a00_1000, 0x1000]);
    assert!(
        hole.properties()
            .any(|property| property.name() == "no-map")
    );

    let bare = GuestMachine {
        vcpus: 1,
        initrd: None,
        bootargs: "",
        console: false,
        watchdog: false,
        pvpanic: false,
        holes: &[],
        ..LINUX
    };
    let blob = written(&bare);
    let tree = Fdt::new(&blob).unwrap();
    assert_eq!(node(&tree, "/chosen").properties().count(), 0);
    for absent in [
        "/pl011@9000000",
        "/watchdog@b010000",
        "/pvpanic@90f0000",
        "/reserved-memory",
        "/cpus/cpu@1",
    ] {
        assert!(tree.find_node(absent).is_none(), "{absent}");
    }
}

#[test]
fn the_largest_guest_fits_the_room_that_is_promised() {
    let holes: Vec<_> = (0..8)
        .map(|page| Ipa::new(0x4800_0000 + page * 0x1000))
        .collect();
    let bootargs = "x".repeat(2047);
    let machine = GuestMachine {
        vcpus: 8,
        bootargs: &bootargs,
        holes: &holes,
        ..LINUX
    };
    assert!(written(&machine).len() <= 4096 + bootargs.len());
}

#[test]
fn a_short_buffer_gets_no_tree_and_nothing_is_written_behind_it() {
    let whole = written(&LINUX).len();
    for len in 0..whole {
        let mut buf = vec![0xaa; whole + 8];
        let result = write_guest_dt(&mut buf[..len], &LINUX);
        assert_eq!(result, Err(WriteError::BufferFull), "{len}");
        assert!(buf[len..].iter().all(|byte| *byte == 0xaa), "{len}");
        assert_ne!(buf[..4], [0xd0, 0x0d, 0xfe, 0xed]);
    }
    let mut exact = vec![0; whole];
    assert_eq!(write_guest_dt(&mut exact, &LINUX), Ok(whole));
}

#[test]
fn a_command_line_with_a_nul_is_refused() {
    let machine = GuestMachine {
        bootargs: "quiet\0panic=1",
        ..LINUX
    };
    assert_eq!(
        write_guest_dt(&mut [0; 8192], &machine),
        Err(WriteError::Nul)
    );
}

proptest! {
    #[test]
    fn every_guest_gets_a_tree_that_another_parser_accepts(
        vcpus in 1..=8_u8,
        ram in 1..4096_u64,
        initrd in proptest::option::of((any::<u64>(), any::<u64>())),
        bootargs in "[ -~]{0,300}",
        console in any::<bool>(),
        watchdog in any::<bool>(),
        holes in proptest::collection::vec(any::<u64>(), 0..12),
    ) {
        let holes: Vec<_> = holes.into_iter().map(Ipa::new).collect();
        let machine = GuestMachine {
            ram_ipa: guest_map::RAM,
            ram_len_bytes: ram << 21,
            vcpus,
            initrd: initrd.map(|(start, len)| (Ipa::new(start), len)),
            bootargs: &bootargs,
            console,
            watchdog,
            pvpanic: !watchdog,
            holes: &holes,
        };
        let blob = written(&machine);
        let tree = Fdt::new(&blob).unwrap();
        prop_assert_eq!(node(&tree, "/cpus").children().count(), usize::from(vcpus));
        prop_assert_eq!(tree.find_node("/watchdog@b010000").is_some(), watchdog);
        prop_assert_eq!(tree.find_node("/pvpanic@90f0000").is_some(), !watchdog);
        if !bootargs.is_empty() {
            prop_assert_eq!(text(node(&tree, "/chosen"), "bootargs"), [bootargs.as_str()]);
        }
    }
}
