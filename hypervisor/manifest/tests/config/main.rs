// SPDX-License-Identifier: MIT OR Apache-2.0
//! Partitions as a devicetree describes them, and as none may describe them.

mod mistakes;
#[path = "../support/mod.rs"]
mod support;

use firebreak_abi::{Mpidr, Pa, PaRange};
use firebreak_guestdt::FdtWriter;
use firebreak_manifest::config::DEFAULT_SPARE_PAGES;
use firebreak_manifest::{Policy, RestartPolicy, read_config};
use firebreak_triage::{Iss, Reaction};
use support::Blob;

const BASE: Pa = Pa::new(0x4020_0000);

/// A partition with everything that must be there. `add` may add to it.
fn partition(chosen: &mut FdtWriter<'_>, name: &str, add: impl FnOnce(&mut FdtWriter<'_>)) {
    chosen.node(name, |node| {
        node.prop_str("compatible", "firebreak,domain");
        node.prop_u32("#address-cells", 2);
        node.prop_u32("#size-cells", 2);
        node.prop_u32("cpus", 1);
        node.prop_u64("memory", 0x4000);
        add(node);
        module(node, "kernel", &[0x1_0000, 0x1000]);
    });
}

fn module(node: &mut FdtWriter<'_>, kind: &str, reg: &[u64]) {
    node.node(kind, |module| {
        let what = format!("multiboot,{kind}");
        module.prop_str_list("compatible", &[&what, "multiboot,module"]);
        module.prop_u64_list("reg", reg);
    });
}

fn config(inside: impl FnOnce(&mut FdtWriter<'_>)) -> Blob {
    Blob::tree(|root| root.node("chosen", inside))
}

#[test]
fn a_system_takes_commands_only_if_its_configuration_says_so() {
    let says = |inside: &dyn Fn(&mut FdtWriter<'_>)| {
        let blob = config(|chosen| {
            chosen.prop_str("bootargs", "the board's own");
            inside(chosen);
            partition(chosen, "a", |_| {});
        });
        let read = read_config(blob.bytes(), BASE);
        read.map(|config| config.control)
            .map_err(|error| error.to_string())
    };
    assert_eq!(says(&|_| {}), Ok(false));
    assert_eq!(
        says(&|chosen| chosen.prop_empty("firebreak,control")),
        Ok(true)
    );
    let form = says(&|chosen| chosen.prop_u32("firebreak,control", 0)).unwrap_err();
    assert!(
        form.contains("firebreak,control") && form.contains("no value"),
        "{form}"
    );
    let unknown = says(&|chosen| chosen.prop_empty("firebreak,controll")).unwrap_err();
    assert!(unknown.contains("firebreak,controll"), "{unknown}");
}

/// The sizes of log and trace stand beside it, in KiB of two cells.
#[test]
fn the_system_chooses_log_and_trace() {
    let says = |name: &str, kib: u64| {
        let blob = config(|chosen| {
            chosen.prop_u64(name, kib);
            partition(chosen, "a", |_| {});
        });
        let read = read_config(blob.bytes(), BASE);
        read.map(|config| (config.log_bytes, config.trace_bytes))
            .map_err(|error| error.to_string())
    };
    for kib in [0, 2, 3, 256] {
        assert_eq!(says("firebreak,log", kib), Ok((Some(kib << 10), 0)));
    }
    for kib in [0, 1, 32] {
        assert_eq!(says("firebreak,trace", kib), Ok((None, kib << 10)));
    }
    for (name, kib) in [
        ("firebreak,log", 1),
        ("firebreak,log", 257),
        ("firebreak,log", u64::MAX),
        ("firebreak,trace", 33),
        ("firebreak,trace", 1 << 54),
    ] {
        let why = says(name, kib).unwrap_err();
        assert!(why.contains(name) && why.contains("KiB"), "{kib}: {why}");
    }
    let blob = config(|chosen| {
        chosen.prop_u32("firebreak,trace", 4);
        partition(chosen, "a", |_| {});
    });
    assert!(read_config(blob.bytes(), BASE).is_err());
}

#[test]
fn every_property_finds_its_field() {
    let blob = config(|chosen| {
        chosen.node("linux", |node| {
            node.prop_str_list("compatible", &["firebreak,domain", "xen,domain"]);
            node.prop_u32("#address-cells", 2);
            node.prop_u32("#size-cells", 2);
            node.prop_u32("cpus", 2);
            node.prop_u64("memory", 0x4_0000);
            node.prop_empty("vpl011");
            node.prop_u64_list("firebreak,mpidr", &[1, 0x100]);
            node.prop_empty("firebreak,image-relative");
            node.prop_u32("firebreak,ras-visible", 0);
            node.prop_u32("firebreak,watchdog", 0);
            node.prop_u32("firebreak,direct-aborts", 1);
            node.prop_u32("firebreak,restart-on-reset", 0);
            node.prop_u32("firebreak,restart-on-silence", 0);
            node.prop_u32("firebreak,restart-on-kill", 1);
            node.prop_u32("firebreak,restart-limit", 7);
            node.prop_u32("firebreak,restart-backoff", 60_000);
            node.prop_u32("firebreak,autostart", 0);
            node.prop_u32("firebreak,spare-pages", 64);
            node.prop_u64("firebreak,reload-room", 12);
            node.prop_u32("firebreak,corrected-limit", 3);
            node.prop_u32("firebreak,corrected-window", 60);
            node.prop_str("firebreak,on-corrected", "inject:0x1811");
            node.prop_str("firebreak,on-ueo", "inject:0x811");
            node.prop_str("firebreak,on-uer", "retire:0xc11");
            node.prop_str("firebreak,on-ueu", "restart");
            node.prop_str("firebreak,on-impdef", "inject:0x1000000");
            node.prop_str("firebreak,on-uncategorized", "log");
            node.node("kernel", |module| {
                module.prop_str_list("compatible", &["multiboot,kernel", "multiboot,module"]);
                module.prop_u64_list("reg", &[0x1_0000, 0x2000]);
                module.prop_str("bootargs", "console=ttyAMA0 panic=1");
            });
            module(node, "ramdisk", &[0x2_0000, 0x3000]);
        });
    });
    let config = read_config(blob.bytes(), BASE).unwrap();
    let [linux] = config.partitions.as_slice() else {
        panic!("{config:?}")
    };
    assert_eq!((linux.name.as_str(), linux.vcpus), ("linux", 2));
    assert_eq!(linux.pes, [1, 0x100].map(Mpidr::from_raw));
    assert_eq!((linux.memory_bytes, linux.spare_pages), (256 << 20, 64));
    assert_eq!(linux.reload_room_bytes, 12 << 10);
    assert_eq!(linux.kernel, PaRange::new(0x4021_0000, 0x2000));
    assert_eq!(linux.ramdisk, Some(PaRange::new(0x4022_0000, 0x3000)));
    assert_eq!(linux.bootargs, "console=ttyAMA0 panic=1");
    assert_eq!(
        (linux.console, linux.ras_visible, linux.watchdog),
        (true, false, false)
    );
    let restart = RestartPolicy {
        limit: 7,
        backoff_ms: 60_000,
        on_reset: false,
        on_silence: false,
        on_kill: true,
    };
    assert_eq!(linux.restart, restart);
    let policy = Policy {
        corrected: Reaction::Inject(Some(Iss::CE)),
        ueo: Reaction::Inject(Some(Iss::UEO)),
        uer: Reaction::Retire(Some(Iss::UER)),
        ueu: Reaction::Restart,
        impdef: Reaction::Inject(Some(Iss::IMPDEF)),
        uncategorized: Reaction::Log,
        corrected_limit: 3,
        corrected_window_s: 60,
    };
    assert_eq!(linux.policy, policy);
    assert!(linux.direct_aborts && !linux.autostart);
}

#[test]
fn a_plain_dom0less_domain_gets_the_defaults_and_absolute_addresses() {
    let blob = config(|chosen| {
        chosen.prop_str("stdout-path", "/uart");
        chosen.prop_str("bootargs", "of the board");
        chosen.node("framebuffer@0", |node| {
            node.prop_str("compatible", "simple-framebuffer")
        });
        chosen.node("domU1", |_| ());
        chosen.node("dom-u1", |node| {
            node.prop_str("compatible", "xen,domain");
            node.prop_u32("#address-cells", 1);
            node.prop_u32("#size-cells", 1);
            node.prop_u64("memory", 0x2_0000);
            node.prop_u32("cpus", 1);
            node.node("module@48000000", |module| {
                module.prop_str_list("compatible", &["multiboot,kernel", "multiboot,module"]);
                module.prop_cells("reg", &[0x4800_0000, 0x10_0000]);
            });
        });
    });
    let config = read_config(blob.bytes(), BASE).unwrap();
    let [domain] = config.partitions.as_slice() else {
        panic!("{config:?}")
    };
    assert_eq!(domain.kernel, PaRange::new(0x4800_0000, 0x10_0000));
    assert_eq!(
        (domain.spare_pages, domain.reload_room_bytes),
        (DEFAULT_SPARE_PAGES, 0)
    );
    assert_eq!(
        (domain.console, domain.ras_visible, domain.watchdog),
        (false, true, true)
    );
    assert!(!domain.direct_aborts && domain.autostart);
    assert_eq!(
        (domain.restart, domain.policy),
        (RestartPolicy::default(), Policy::default())
    );
    assert!(domain.pes.is_empty() && domain.ramdisk.is_none() && domain.bootargs.is_empty());
}

#[test]
fn a_guest_that_does_not_see_ras_is_told_of_a_lost_page_as_it_can_understand() {
    let blob = config(|chosen| {
        partition(chosen, "a", |node| {
            node.prop_u32("firebreak,ras-visible", 0)
        });
    });
    let config = read_config(blob.bytes(), BASE).unwrap();
    assert_eq!(
        config.partitions[0].policy.uer,
        Reaction::Retire(Some(Iss::IMPDEF))
    );
}

#[test]
fn a_tree_without_partitions_is_no_error() {
    assert!(
        read_config(Blob::tree(|_| ()).bytes(), BASE)
            .unwrap()
            .partitions
            .is_empty()
    );
}

#[test]
fn names_are_checked_and_must_differ() {
    const NAME: &str = "is no name for a partition; use up to 15 of a-z, 0-9 and -, a letter first";
    for name in ["Linux", "9p", "a_b", "averylongname-xx", "-a", "a|b"] {
        let blob = config(|chosen| partition(chosen, name, |_| ()));
        let error = read_config(blob.bytes(), BASE).unwrap_err().to_string();
        assert_eq!(error, format!("/chosen/{name}: {NAME}"));
    }
    let blob = config(|chosen| {
        partition(chosen, "a@0", |_| ());
        partition(chosen, "a@1", |_| ());
    });
    let error = read_config(blob.bytes(), BASE).unwrap_err().to_string();
    assert_eq!(
        error,
        "/chosen/a@1: has the name of another partition; rename one"
    );
}

#[test]
fn what_speaks_of_partitions_without_being_one_is_not_ignored() {
    let blob = config(|chosen| {
        chosen.node("module@0", |node| {
            node.prop_str_list("compatible", &["multiboot,kernel", "multiboot,module"]);
        });
    });
    let error = read_config(blob.bytes(), BASE).unwrap_err().to_string();
    assert_eq!(
        error,
        "/chosen/module@0: compatible: \"multiboot,kernel\" is not known; \
         use \"firebreak,domain\" or \"xen,domain\" below /chosen"
    );
}

#[test]
fn more_partitions_than_this_build_runs_are_refused() {
    let blob = config(|chosen| {
        (0..9).for_each(|index| partition(chosen, &format!("p{index}"), |_| ()));
    });
    let error = read_config(blob.bytes(), BASE).unwrap_err().to_string();
    assert_eq!(
        error,
        "/chosen/p8: too many partitions; at most 8 are supported"
    );
}
