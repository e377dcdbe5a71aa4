// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a board's devicetree says, and what is said about one that lies.

mod support;

use firebreak_abi::{Ipa, Mpidr, Pa, PaRange};
use firebreak_guestdt::{FdtWriter, GuestMachine, write_guest_dt};
use firebreak_manifest::{Conduit, read_board};
use support::Blob;

/// Devicetree that QEMU 10.0.2 makes for `virt` with 4 Neoverse N1 and 1 GiB.
const VIRT: &[u8] = include_bytes!("../../../tests/corpus/dtb/qemu-virt.dtb");
/// The same with `secure=on`.
const SECURE: &[u8] = include_bytes!("../../../tests/corpus/dtb/qemu-virt-secure.dtb");

#[test]
fn qemu_virt_is_what_its_devicetree_says() {
    let blob = Blob::new(VIRT);
    let board = read_board(blob.bytes()).unwrap();
    assert_eq!(board.model, "linux,dummy-virt");
    assert_eq!(board.memory, [PaRange::new(0x4000_0000, 0x4000_0000)]);
    assert_eq!(board.cpus, [0, 1, 2, 3].map(Mpidr::from_raw));
    assert_eq!(
        (board.cpus_beyond_limit, board.psci_conduit),
        (0, Some(Conduit::Smc))
    );
    let gic = board.gicv3.unwrap();
    assert_eq!(gic.gicd, PaRange::new(0x800_0000, 0x1_0000));
    assert_eq!(gic.gicr, [PaRange::new(0x80a_0000, 0xf6_0000)]);
    assert_eq!(gic.maintenance_intid, 25);
    let uart = board.uart.unwrap();
    assert_eq!((uart.base, uart.intid), (Pa::new(0x900_0000), 33));
    assert_eq!(
        (uart.current_speed, uart.clock_hz),
        (None, Some(24_000_000))
    );
    let timer = board.timer.unwrap();
    assert_eq!((timer.physical_intid, timer.virtual_intid), (30, 27));
    assert_eq!(timer.hypervisor_intid, 26);
    assert!(board.reserved.is_empty());
    assert_eq!((board.sei, board.has_domains), (None, false));
}

#[test]
fn secure_memory_and_the_secure_uart_are_not_for_us() {
    let blob = Blob::new(SECURE);
    let board = read_board(blob.bytes()).unwrap();
    assert_eq!(board.memory, [PaRange::new(0x4000_0000, 0x4000_0000)]);
    assert_eq!(board.uart.unwrap().base, Pa::new(0x900_0000));
    assert_eq!(board.psci_conduit, None);
}

#[test]
fn a_guest_of_ours_would_find_its_own_machine() {
    let machine = GuestMachine {
        ram_ipa: Ipa::new(0x4000_0000),
        ram_len_bytes: 0x1000_0000,
        vcpus: 2,
        initrd: None,
        bootargs: "quiet",
        console: true,
        watchdog: true,
        pvpanic: false,
        holes: &[Ipa::new(0x4800_0000)],
    };
    let mut buf = vec![0; 8192];
    let len = write_guest_dt(&mut buf, &machine).unwrap();
    let blob = Blob::new(&buf[..len]);
    let board = read_board(blob.bytes()).unwrap();
    assert_eq!(board.cpus, [0, 1].map(Mpidr::from_raw));
    assert_eq!(board.memory, [PaRange::new(0x4000_0000, 0x1000_0000)]);
    assert_eq!(board.reserved, [PaRange::new(0x4800_0000, 0x1000)]);
    assert_eq!(board.psci_conduit, Some(Conduit::Hvc));
    assert_eq!(
        board.gicv3.unwrap().gicr,
        [PaRange::new(0x80a_0000, 0x4_0000)]
    );
    assert_eq!(board.uart.unwrap().intid, 33);
    assert_eq!(board.timer.unwrap().virtual_intid, 27);
}

fn cells(root: &mut FdtWriter<'_>) {
    root.prop_u32("#address-cells", 2);
    root.prop_u32("#size-cells", 2);
}

/// The firmware's node, with what the test wants to change.
fn sei(root: &mut FdtWriter<'_>, change: impl Fn(&mut FdtWriter<'_>, &str) -> bool) {
    cells(root);
    root.node("cpus", |cpus| {
        cpus.prop_u32("#address-cells", 1);
        cpus.prop_u32("#size-cells", 0);
        for (affinity, phandle) in [(0, 7), (0x100, 8)] {
            cpus.node_at("cpu", u64::from(affinity), |cpu| {
                cpu.prop_str("device_type", "cpu");
                cpu.prop_u32("reg", affinity);
                cpu.prop_u32("phandle", phandle);
            });
        }
    });
    root.node("firebreak-sei@40100000", |node| {
        node.prop_str("compatible", "firebreak,sei-1");
        cells(node);
        node.prop_u64_list("reg", &[0x4010_0000, 0x10_0000]);
        let mut range = |name: &str, range: [u64; 2]| {
            if !change(node, name) {
                node.prop_u64_list(name, &range);
            }
        };
        range("firebreak,boot-error-record", [0x4018_0000, 0x1000]);
        range("firebreak,persistent", [0x4019_0000, 0x7_0000]);
        for (index, page) in [(0_u64, 0x4010_0000), (1, 0x4010_1000)] {
            node.node_at("source", index, |source| {
                if !change(source, "cpu") {
                    if index == 0 {
                        source.prop_u64("reg", 0);
                    } else {
                        source.prop_u32("cpu", 8);
                    }
                }
                if !change(source, "firebreak,error-status-length") {
                    source.prop_u32("firebreak,error-status-length", 0x700);
                }
                for (name, offset) in [
                    ("firebreak,error-status-address", 0),
                    ("firebreak,read-ack", 8),
                    ("firebreak,pending", 16),
                    ("firebreak,syndrome", 24),
                ] {
                    if !change(source, name) {
                        source.prop_u64(name, page + offset);
                    }
                }
            });
        }
    });
}

#[test]
fn error_sources_are_found_by_affinity_and_by_phandle() {
    let blob = Blob::tree(|root| sei(root, |_, _| false));
    let board = read_board(blob.bytes()).unwrap();
    assert_eq!(board.reserved, [PaRange::new(0x4010_0000, 0x10_0000)]);
    let sei = board.sei.unwrap();
    assert_eq!(sei.region, PaRange::new(0x4010_0000, 0x10_0000));
    assert_eq!(sei.bert, Some(PaRange::new(0x4018_0000, 0x1000)));
    assert_eq!(sei.persistent, Some(PaRange::new(0x4019_0000, 0x7_0000)));
    assert_eq!(sei.sources.len(), 2);
    assert_eq!(sei.sources[0].mpidr, Mpidr::from_raw(0));
    assert_eq!(sei.sources[1].mpidr, Mpidr::from_raw(0x100));
    assert_eq!(sei.sources[1].error_status_address, Pa::new(0x4010_1000));
    assert_eq!(sei.sources[1].read_ack, Pa::new(0x4010_1008));
    assert_eq!(sei.sources[1].pending, Pa::new(0x4010_1010));
    assert_eq!(sei.sources[1].syndrome, Pa::new(0x4010_1018));
    assert_eq!(sei.sources[1].error_status_length, 0x700);
}

#[test]
fn a_lie_about_error_sources_is_told_with_node_and_property() {
    let source = "/firebreak-sei@40100000/source@0";
    for (name, value, words) in [
        (
            "cpu",
            Some(9_u64),
            "cpu: is not the phandle of a PE; name one of /cpus",
        ),
        (
            "cpu",
            None,
            "reg: is missing; give the affinity of MPIDR_EL1",
        ),
        (
            "firebreak,read-ack",
            None,
            "firebreak,read-ack: is missing; each source needs it",
        ),
        (
            "firebreak,pending",
            Some(0x4000_0000),
            "firebreak,pending: lies outside of the shared region; put it inside",
        ),
        (
            "firebreak,syndrome",
            Some(0x401f_fffc),
            "firebreak,syndrome: is not 8-byte aligned; align it",
        ),
        (
            "firebreak,error-status-address",
            Some(u64::MAX - 7),
            "firebreak,error-status-address: lies outside of the shared region; put it inside",
        ),
        (
            "firebreak,error-status-length",
            Some(0x10_0001),
            "firebreak,error-status-length: has the wrong form; \
             give one cell: bytes, at most the shared region's",
        ),
    ] {
        let blob = Blob::tree(|root| {
            sei(root, |node, at| {
                if at == name {
                    match value {
                        Some(value) if name == "cpu" || name.ends_with("length") => {
                            node.prop_u32(name, u32::try_from(value).unwrap());
                        }
                        Some(value) => node.prop_u64(name, value),
                        None => {}
                    }
                }
                at == name
            });
        });
        let error = read_board(blob.bytes()).unwrap_err().to_string();
        assert_eq!(error, format!("{source}: {words}"));
    }
}

#[test]
fn a_lie_about_the_board_is_told_with_node_and_property() {
    type Lie = fn(&mut FdtWriter<'_>);
    let lies: [(&str, Lie); 19] = [
        (
            "/memory@0: reg: has the wrong form; give whole cells",
            |root| {
                cells(root);
                root.node_at("memory", 0, |node| {
                    node.prop_str("device_type", "memory");
                    node.prop_bytes("reg", &[0; 15]);
                });
            },
        ),
        ("/memory@0: reg: is missing; say where it is", |root| {
            root.node_at("memory", 0, |node| node.prop_str("device_type", "memory"));
        }),
        (
            "/memory@0: reg: ends behind the address space; correct the length",
            |root| {
                cells(root);
                memory(root, &[u64::MAX, 2]);
            },
        ),
        (
            "/memory@0: reg: overlaps memory that was named before; make it disjoint",
            |root| {
                cells(root);
                memory(root, &[0, 0x2000, 0x1000, 0x2000]);
            },
        ),
        (
            "/memory@0: too many pieces of memory; at most 8 are supported",
            |root| {
                cells(root);
                let nine: Vec<u64> = (0..9).flat_map(|piece| [piece * 0x2000, 0x1000]).collect();
                memory(root, &nine);
            },
        ),
        (
            "/memory@0: reg: has the wrong form; \
             give addresses of one or two cells and lengths of one or two cells",
            |root| {
                root.prop_u32("#address-cells", 0);
                root.prop_u32("#size-cells", 0);
                memory(root, &[0, 0x2000]);
            },
        ),
        (
            "/memory@0: reg: has the wrong form; \
             give addresses of one or two cells and lengths of one or two cells",
            |root| {
                root.prop_u32("#address-cells", 3);
                root.prop_u32("#size-cells", 1);
                memory(root, &[0, 0x2000]);
            },
        ),
        (
            "/: #address-cells: has the wrong form; give one cell",
            |root| {
                root.prop_u64("#address-cells", 2);
            },
        ),
        (
            "/cpus/cpu@0: reg: has the wrong form; give one or two cells: the affinity of MPIDR_EL1",
            |root| root.node("cpus", |cpus| cpu(cpus, 0, &[0, 0, 0])),
        ),
        (
            "/cpus/cpu@1: reg: has bits outside of MPIDR_EL1's affinity; clear them",
            |root| root.node("cpus", |cpus| cpu(cpus, 1, &[0x8000_0001])),
        ),
        (
            "/cpus/cpu@1: reg: is the affinity of another PE; give each its own",
            |root| {
                root.node("cpus", |cpus| {
                    cpu(cpus, 0, &[1]);
                    cpu(cpus, 1, &[1]);
                });
            },
        ),
        (
            "/psci: method: has the wrong form; give \"smc\" or \"hvc\"",
            |root| {
                root.node("psci", |node| {
                    node.prop_str("compatible", "arm,psci-0.2");
                    node.prop_str("method", "svc");
                });
            },
        ),
        (
            "/psci: method: is missing; say \"smc\" or \"hvc\"",
            |root| {
                root.node("psci", |node| node.prop_str("compatible", "arm,psci"));
            },
        ),
        (
            "/intc@0: reg: is too short or not 64 KiB aligned; \
             give GICD (64 KiB) and GICR (128 KiB for each PE)",
            |root| {
                cells(root);
                gic(root, &[0x800_0000, 0x1_0000, 0x80a_0000, 0x1_0000]);
            },
        ),
        (
            "/intc@0: reg: has the wrong form; \
             give addresses of one or two cells and lengths of one or two cells",
            |root| {
                cells(root);
                gic(root, &[0x800_0000, 0x1_0000]);
            },
        ),
        (
            "/intc@0: compatible: a second GICv3 is described; keep one",
            |root| {
                cells(root);
                gic(root, &[0x800_0000, 0x1_0000, 0x80a_0000, 0x2_0000]);
                gic(root, &[0x800_0000, 0x1_0000, 0x80a_0000, 0x2_0000]);
            },
        ),
        (
            "/uart: interrupts: is missing; give the UART's interrupt",
            |root| {
                cells(root);
                root.node("uart", |node| {
                    node.prop_str("compatible", "arm,pl011");
                    node.prop_u64_list("reg", &[0x900_0000, 0x1000]);
                });
            },
        ),
        (
            "/uart: interrupts: has the wrong form; \
             give three cells for each interrupt: 0 (SPI) or 1 (PPI), number, trigger",
            |root| {
                cells(root);
                root.node("uart", |node| {
                    node.prop_str("compatible", "arm,pl011");
                    node.prop_u64_list("reg", &[0x900_0000, 0x1000]);
                    node.prop_cells("interrupts", &[1, 16, 4]);
                });
            },
        ),
        (
            "/reserved-memory/fw@0: too many reserved ranges; at most 16 are supported",
            |root| {
                root.node("reserved-memory", |node| {
                    cells(node);
                    node.node_at("fw", 0, |fw| {
                        let many: Vec<u64> = (0..17).flat_map(|at| [at * 0x1000, 0x1000]).collect();
                        fw.prop_u64_list("reg", &many);
                    });
                });
            },
        ),
    ];
    for (words, lie) in lies {
        let blob = Blob::tree(lie);
        let error = read_board(blob.bytes()).unwrap_err().to_string();
        assert_eq!(error, words);
    }
}

fn memory(root: &mut FdtWriter<'_>, reg: &[u64]) {
    root.node_at("memory", 0, |node| {
        node.prop_str("device_type", "memory");
        node.prop_u64_list("reg", reg);
    });
}

fn cpu(cpus: &mut FdtWriter<'_>, unit: u64, reg: &[u32]) {
    cpus.node_at("cpu", unit, |node| {
        node.prop_str("device_type", "cpu");
        node.prop_cells("reg", reg);
    });
}

fn gic(root: &mut FdtWriter<'_>, reg: &[u64]) {
    root.node_at("intc", 0, |node| {
        node.prop_str("compatible", "arm,gic-v3");
        node.prop_u64_list("reg", reg);
    });
}

fn uart(parent: &mut FdtWriter<'_>, base: u64) {
    parent.node_at("uart", base, |node| {
        node.prop_str("compatible", "arm,pl011");
        node.prop_u64_list("reg", &[base, 0x1000]);
        node.prop_cells("interrupts", &[0, 1, 4]);
    });
}

#[test]
fn the_console_is_the_one_that_is_named_and_else_the_first() {
    for (stdout, alias, base) in [
        (None, None, 0x1000),
        (Some("/uart@2000"), None, 0x2000),
        (Some("/uart@2000:115200n8"), None, 0x2000),
        (Some("serial9:115200n8"), Some("/uart@2000"), 0x2000),
        (Some("serial9"), None, 0x1000),
        (Some("/uart@9000"), None, 0x1000),
    ] {
        let blob = Blob::tree(|root| {
            cells(root);
            uart(root, 0x1000);
            uart(root, 0x2000);
            root.node("aliases", |node| {
                if let Some(alias) = alias {
                    node.prop_str("serial9", alias);
                }
            });
            root.node("chosen", |node| {
                if let Some(stdout) = stdout {
                    node.prop_str("stdout-path", stdout);
                }
            });
        });
        let board = read_board(blob.bytes()).unwrap();
        assert_eq!(
            board.uart.unwrap().base,
            Pa::new(base),
            "{stdout:?} {alias:?}"
        );
    }
}

#[test]
fn the_speed_of_the_console_and_the_rate_of_its_clock_are_read_wherever_the_clock_stands() {
    let clock = |root: &mut FdtWriter<'_>, phandle, compatible, hz| {
        root.node(compatible, |node| {
            node.prop_str("compatible", compatible);
            node.prop_u32("phandle", phandle);
            node.prop_u32("clock-frequency", hz);
        });
    };
    for (clocks, speed, expected) in [
        (&[7, 8][..], Some(9600), (Some(9600), Some(24_000_000))),
        (&[8, 7], Some(0), (None, Some(48_000_000))),
        // A clock that is not fixed, one that is not there, none at all.
        (&[9], None, (None, None)),
        (&[10], None, (None, None)),
        (&[], None, (None, None)),
    ] {
        let blob = Blob::tree(|root| {
            cells(root);
            clock(root, 8, "fixed-clock", 48_000_000);
            root.node_at("uart", 0x1000, |node| {
                node.prop_str("compatible", "arm,pl011");
                node.prop_u64_list("reg", &[0x1000, 0x1000]);
                node.prop_cells("interrupts", &[0, 1, 4]);
                node.prop_cells("clocks", clocks);
                if let Some(speed) = speed {
                    node.prop_u32("current-speed", speed);
                }
            });
            root.node("behind", |node| clock(node, 7, "fixed-clock", 24_000_000));
            clock(root, 9, "vendor,clock", 1);
        });
        let uart = read_board(blob.bytes()).unwrap().uart.unwrap();
        assert_eq!((uart.current_speed, uart.clock_hz), expected, "{clocks:?}");
    }
}

#[test]
fn what_stands_behind_a_translation_or_in_a_disabled_node_is_not_used() {
    let blob = Blob::tree(|root| {
        cells(root);
        root.node("bus", |bus| {
            cells(bus);
            bus.prop_u64_list("ranges", &[0, 0x4000_0000, 0x1000_0000]);
            uart(bus, 0x1000);
        });
        root.node("off", |off| {
            off.prop_str("status", "disabled");
            uart(off, 0x2000);
        });
        root.node("soc", |soc| {
            cells(soc);
            soc.prop_empty("ranges");
            uart(soc, 0x3000);
        });
    });
    assert_eq!(
        read_board(blob.bytes()).unwrap().uart.unwrap().base,
        Pa::new(0x3000)
    );
}

#[test]
fn more_pes_than_this_build_drives_are_counted_and_left_off() {
    let blob = Blob::tree(|root| {
        root.node("cpus", |cpus| {
            cpus.prop_u32("#address-cells", 1);
            cpus.prop_u32("#size-cells", 0);
            (0..10).for_each(|affinity| cpu(cpus, u64::from(affinity), &[affinity]));
        });
    });
    let board = read_board(blob.bytes()).unwrap();
    assert_eq!((board.cpus.len(), board.cpus_beyond_limit), (8, 2));
}

#[test]
fn partitions_in_the_boards_own_tree_are_noticed() {
    let blob = Blob::tree(|root| {
        root.node("chosen", |chosen| {
            chosen.node("domU1", |node| node.prop_str("compatible", "xen,domain"));
        });
    });
    assert!(read_board(blob.bytes()).unwrap().has_domains);
}
