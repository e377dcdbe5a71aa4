// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mistakes in a partition, and how each is told.

use super::*;

/// Adds something wrong to an otherwise complete partition `a`.
type Mistake = fn(&mut FdtWriter<'_>);

#[test]
fn a_mistake_in_a_partitions_properties_is_told_with_node_and_property() {
    let mistakes: [(&str, Mistake); 29] = [
        (
            "firebreak,reload-room: has the wrong form; give KiB as two cells, a multiple of 4 up to 65536",
            |node| node.prop_u64("firebreak,reload-room", 6),
        ),
        (
            "firebreak,reload-room: has the wrong form; give KiB as two cells, a multiple of 4 up to 65536",
            |node| node.prop_u64("firebreak,reload-room", 65_540),
        ),
        (
            "firebreak,spare-pages: has the wrong form; give one cell, 0 to 64",
            |node| node.prop_u32("firebreak,spare-pages", 65),
        ),
        (
            "nr_spis: is not understood; remove it, nothing is ignored in a partition",
            |node| {
                node.prop_u32("nr_spis", 8);
            },
        ),
        (
            "firebreak,on-uoe: is not understood; remove it, nothing is ignored in a partition",
            |node| {
                node.prop_str("firebreak,on-uoe", "log");
            },
        ),
        (
            "firebreak,on-: is not understood; remove it, nothing is ignored in a partition",
            |node| {
                node.prop_str("firebreak,on-", "log");
            },
        ),
        ("cpus: is there twice; remove one", |node| {
            node.prop_u32("cpus", 1)
        }),
        ("memory: is there twice; remove one", |node| {
            node.prop_u64("memory", 1)
        }),
        (
            "firebreak,mpidr: has the wrong form; give two cells for each vCPU: the PE's affinity",
            |node| {
                node.prop_cells("firebreak,mpidr", &[0, 1, 2]);
            },
        ),
        (
            "firebreak,mpidr: has the wrong form; give two cells for each vCPU: the PE's affinity",
            |node| {
                node.prop_bytes("firebreak,mpidr", &[0; 7]);
            },
        ),
        (
            "firebreak,mpidr: has bits outside of MPIDR_EL1's affinity; clear them",
            |node| {
                node.prop_u64("firebreak,mpidr", 0x8000_0000);
            },
        ),
        (
            "firebreak,mpidr: names a PE twice; each vCPU needs one of its own",
            |node| {
                node.prop_u64_list("firebreak,mpidr", &[1, 1]);
            },
        ),
        (
            "firebreak,mpidr: too many PEs; at most 8 are supported",
            |node| {
                node.prop_u64_list("firebreak,mpidr", &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
            },
        ),
        (
            "firebreak,mpidr: names not as many PEs as there are vCPUs; \
             each vCPU needs one of its own",
            |node| node.prop_u64_list("firebreak,mpidr", &[1, 2]),
        ),
        (
            "firebreak,mpidr: names not as many PEs as there are vCPUs; \
             each vCPU needs one of its own",
            |node| node.prop_empty("firebreak,mpidr"),
        ),
        (
            "firebreak,ras-visible: has the wrong form; give one cell, 0 or 1",
            |node| {
                node.prop_u32("firebreak,ras-visible", 2);
            },
        ),
        (
            "firebreak,watchdog: has the wrong form; give one cell, 0 or 1",
            |node| {
                node.prop_empty("firebreak,watchdog");
            },
        ),
        (
            "firebreak,restart-limit: has the wrong form; give one cell, 0 to 1000",
            |node| {
                node.prop_u32("firebreak,restart-limit", 1001);
            },
        ),
        (
            "firebreak,corrected-limit: has the wrong form; give one cell, 0 to 65535",
            |node| {
                node.prop_u32("firebreak,corrected-limit", 65_536);
            },
        ),
        (
            "firebreak,corrected-window: has the wrong form; give seconds as one cell, 1 to 31536000",
            |node| {
                node.prop_u32("firebreak,corrected-window", 0);
            },
        ),
        (
            "firebreak,corrected-window: has the wrong form; give seconds as one cell, 1 to 31536000",
            |node| {
                node.prop_u32("firebreak,corrected-window", 31_536_001);
            },
        ),
        (
            "firebreak,on-uer: has the wrong form; give a policy word",
            |node| {
                node.prop_bytes("firebreak,on-uer", b"log");
            },
        ),
        (
            "firebreak,on-uer: has the wrong form; give a policy word",
            |node| {
                node.prop_str_list("firebreak,on-uer", &["kill", "kill"]);
            },
        ),
        (
            "firebreak,on-uer: unknown reaction: write ignore, log, inject, inject:0x<syndrome>, retire, \
             retire:0x<syndrome>, kill or restart",
            |node| node.prop_str("firebreak,on-uer", "panic"),
        ),
        (
            "firebreak,on-ueo: a syndrome has 25 bits: write at most 0x1ffffff",
            |node| node.prop_str("firebreak,on-ueo", "inject:0x2000000"),
        ),
        (
            "firebreak,on-ueu: this error destroys what the guest was doing: \
             write kill or restart instead",
            |node| node.prop_str("firebreak,on-ueu", "log"),
        ),
        (
            "#size-cells: has the wrong form; give one cell, 1 or 2",
            |node| {
                node.prop_u32("#size-cells", 0);
            },
        ),
        (
            "passthrough: is not understood; remove it, nothing is ignored in a partition",
            |node| {
                node.prop_empty("passthrough");
            },
        ),
        (
            "xen,static-mem: is not understood; remove it, nothing is ignored in a partition",
            |node| {
                node.prop_u64_list("xen,static-mem", &[0x3000_0000, 0x1000]);
            },
        ),
    ];
    for (words, mistake) in mistakes {
        let blob = config(|chosen| partition(chosen, "a", mistake));
        let error = read_config(blob.bytes(), BASE).unwrap_err().to_string();
        assert_eq!(error, format!("/chosen/a: {words}"));
    }
}

#[test]
fn a_mistake_in_the_shape_of_a_partition_is_told_with_its_node() {
    let whole = |chosen: &mut FdtWriter<'_>, leave_out: &str, add: Mistake| {
        chosen.node("a", |node| {
            node.prop_str("compatible", "firebreak,domain");
            node.prop_u32("#address-cells", 2);
            node.prop_u32("#size-cells", 2);
            if leave_out != "cpus" {
                node.prop_u32("cpus", 1);
            }
            if leave_out != "memory" {
                node.prop_u64("memory", 0x4000);
            }
            add(node);
            if leave_out != "kernel" {
                module(node, "kernel", &[0x1_0000, 0x1000]);
            }
        });
    };
    let mistakes: [(&str, &str, Mistake); 18] = [
        (
            "/chosen/a: cpus: is missing; say how many vCPUs",
            "cpus",
            |_| (),
        ),
        (
            "/chosen/a: cpus: has the wrong form; give one cell, 1 to 8 vCPUs",
            "cpus",
            |node| {
                node.prop_u32("cpus", 9);
            },
        ),
        (
            "/chosen/a: cpus: has the wrong form; give one cell, 1 to 8 vCPUs",
            "cpus",
            |node| {
                node.prop_u32("cpus", 0x101);
            },
        ),
        (
            "/chosen/a: memory: is missing; say how many KiB of RAM",
            "memory",
            |_| (),
        ),
        (
            "/chosen/a: memory: has the wrong form; give KiB as two cells",
            "memory",
            |node| {
                node.prop_u32("memory", 0x4000);
            },
        ),
        (
            "/chosen/a: memory: has the wrong form; \
             give a number of KiB that is neither 0 nor beyond 64 bits",
            "memory",
            |node| node.prop_u64("memory", u64::MAX),
        ),
        (
            "/chosen/a: has no kernel; add a module \"multiboot,kernel\"",
            "kernel",
            |_| (),
        ),
        (
            "/chosen/a/kernel: is a second kernel; remove one",
            "",
            |node| {
                module(node, "kernel", &[0, 1]);
            },
        ),
        (
            "/chosen/a/ramdisk: is a second ramdisk; remove one",
            "",
            |node| {
                module(node, "ramdisk", &[0, 1]);
                module(node, "ramdisk", &[0, 1]);
            },
        ),
        (
            "/chosen/a/device-tree: compatible: is no module that is supported; \
             use \"multiboot,kernel\" or \"multiboot,ramdisk\"",
            "",
            |node| module(node, "device-tree", &[0, 1]),
        ),
        (
            "/chosen/a/x: compatible: is missing; \
             say \"multiboot,kernel\" or \"multiboot,ramdisk\"",
            "",
            |node| node.node("x", |_| ()),
        ),
        (
            "/chosen/a/kernel: reg: is missing; say where the module stands",
            "kernel",
            |node| {
                node.node("kernel", |module| {
                    module.prop_str("compatible", "multiboot,kernel")
                });
            },
        ),
        (
            "/chosen/a/kernel: reg: has the wrong form; \
             give one address and length, by the partition's cell counts",
            "kernel",
            |node| module(node, "kernel", &[0, 1, 2, 3]),
        ),
        (
            "/chosen/a/kernel: reg: has length 0; give the module's length",
            "kernel",
            |node| {
                module(node, "kernel", &[0x1000, 0]);
            },
        ),
        (
            "/chosen/a/kernel: reg: ends behind the address space; correct it",
            "kernel",
            |node| {
                module(node, "kernel", &[u64::MAX, 2]);
            },
        ),
        (
            "/chosen/a/kernel: entry: is not understood; \
             remove it, nothing is ignored in a partition",
            "kernel",
            |node| node.node("kernel", |module| module.prop_u32("entry", 0)),
        ),
        (
            "/chosen/a/ramdisk: bootargs: belongs to the kernel's module; move it there",
            "",
            |node| {
                node.node("ramdisk", |module| {
                    module.prop_str("compatible", "multiboot,ramdisk");
                    module.prop_u64_list("reg", &[0, 1]);
                    module.prop_str("bootargs", "quiet");
                });
            },
        ),
        (
            "/.../a/kernel/x: is not understood; remove it, nothing is ignored in a partition",
            "kernel",
            |node| {
                node.node("kernel", |module| {
                    module.prop_str("compatible", "multiboot,kernel");
                    module.node("x", |_| ());
                });
            },
        ),
    ];
    for (words, leave_out, add) in mistakes {
        let blob = config(|chosen| whole(chosen, leave_out, add));
        assert_eq!(
            read_config(blob.bytes(), BASE).unwrap_err().to_string(),
            words
        );
    }
}
