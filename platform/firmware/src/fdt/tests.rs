// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trees like QEMU's, extended here and read back with another crate's parser.

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property};
use proptest::prelude::*;

use super::*;

const REGION: u64 = 0x4010_0000;

fn sources() -> Vec<Source, 4> {
    (0..4)
        .map(|pe| Source {
            affinity: pe,
            page: REGION + pe * 0x1000,
        })
        .collect()
}

fn additions(sources: &[Source]) -> Additions<'_> {
    Additions {
        region: PaRange::new(REGION, 0x10_0000),
        boot_error_record: PaRange::new(REGION + 0x8_0000, 0x1000),
        persistent: PaRange::new(REGION + 0x9_0000, 0x7_0000),
        sources,
    }
}

fn node(name: &str, properties: &[(&str, &str)], children: &[DeviceTreeNode]) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    for (name, value) in properties {
        node.add_property(DeviceTreeProperty::new(*name, *value).unwrap());
    }
    for child in children {
        node.add_child(child.clone());
    }
    node
}

/// A tree as QEMU `virt` with `secure=on` makes it, in small.
fn like_qemu() -> DeviceTree {
    let secure = [("secure-status", "okay"), ("status", "disabled")];
    let mut tree = DeviceTree::new();
    tree.root
        .add_property(DeviceTreeProperty::new("model", "linux,dummy-virt").unwrap());
    for child in [
        node("memory@40000000", &[("device_type", "memory")], &[]),
        node(
            "gpio-restart",
            &secure,
            &[node("below", &[("status", "okay")], &[])],
        ),
        node(
            "pl011@9040000",
            &[("status", "disabled"), ("secure-status", "okay")],
            &[],
        ),
        node("pl011@9000000", &[("compatible", "arm,pl011")], &[]),
        node("off@1000", &[("status", "disabled")], &[]),
        node(
            "cpus",
            &[],
            &[
                node("cpu-map", &[], &[]),
                node("cpu@0", &[("device_type", "cpu")], &[]),
                node("cpu@1", &[("enable-method", "spin-table")], &[]),
            ],
        ),
        node(
            "aliases",
            &[
                ("serial0", "/pl011@9000000"),
                ("serial1", "/pl011@9040000"),
                ("deep", "/gpio-restart/below"),
            ],
            &[],
        ),
        node("secure-chosen", &[("stdout-path", "/pl011@9040000")], &[]),
        node("chosen", &[("stdout-path", "/pl011@9000000")], &[]),
    ] {
        tree.root.add_child(child);
    }
    tree
}

fn extended(tree: &DeviceTree) -> std::vec::Vec<u8> {
    let mut out = vec![0; 0x1_0000];
    let length = extend(&tree.to_dtb(), &mut out, &additions(&sources())).unwrap();
    out.truncate(length);
    out
}

fn string(fdt: &Fdt<'_>, path: &str, name: &str) -> String {
    let node = fdt
        .find_node(path)
        .unwrap_or_else(|| panic!("no node {path}"));
    let property = node
        .property(name)
        .unwrap_or_else(|| panic!("no {name} in {path}"));
    property.value_as::<&str>().unwrap().to_owned()
}

type String = std::string::String;

fn bytes(fdt: &Fdt<'_>, path: &str, name: &str) -> std::vec::Vec<u8> {
    fdt.find_node(path)
        .unwrap()
        .property(name)
        .unwrap()
        .value()
        .to_vec()
}

#[test]
fn psci_and_enable_methods_are_there() {
    let out = extended(&like_qemu());
    let fdt = Fdt::new(&out).unwrap();
    assert_eq!(
        bytes(&fdt, "/psci", "compatible"),
        b"arm,psci-1.0\0arm,psci-0.2\0"
    );
    assert_eq!(string(&fdt, "/psci", "method"), "smc");
    for cpu in ["/cpus/cpu@0", "/cpus/cpu@1"] {
        assert_eq!(string(&fdt, cpu, "enable-method"), "psci");
        let count = fdt
            .find_node(cpu)
            .unwrap()
            .properties()
            .filter(|p| p.name() == "enable-method");
        assert_eq!(count.count(), 1);
    }
    assert!(
        fdt.find_node("/cpus/cpu-map")
            .unwrap()
            .property("enable-method")
            .is_none()
    );
}

#[test]
fn the_region_and_its_sources_are_described() {
    let out = extended(&like_qemu());
    let fdt = Fdt::new(&out).unwrap();
    let be = |words: &[u64]| {
        words
            .iter()
            .flat_map(|w| w.to_be_bytes())
            .collect::<std::vec::Vec<_>>()
    };
    let region = "/firebreak-sei@40100000";
    assert_eq!(string(&fdt, region, "compatible"), "firebreak,sei-1");
    assert_eq!(bytes(&fdt, region, "reg"), be(&[REGION, 0x10_0000]));
    assert_eq!(
        bytes(&fdt, region, sei::PROP_BERT),
        be(&[REGION + 0x8_0000, 0x1000])
    );
    assert_eq!(
        bytes(&fdt, region, sei::PROP_PERSISTENT),
        be(&[REGION + 0x9_0000, 0x7_0000])
    );
    assert_eq!(fdt.find_node(region).unwrap().children().count(), 4);
    let source = "/firebreak-sei@40100000/source@3";
    assert_eq!(bytes(&fdt, source, "reg"), be(&[3]));
    assert_eq!(
        bytes(&fdt, source, sei::PROP_ERROR_STATUS_ADDRESS),
        be(&[REGION + 0x3000])
    );
    assert_eq!(
        bytes(&fdt, source, sei::PROP_ERROR_STATUS_LENGTH),
        0x700_u32.to_be_bytes()
    );
    assert_eq!(
        bytes(&fdt, source, sei::PROP_READ_ACK),
        be(&[REGION + 0x3008])
    );
    assert_eq!(
        bytes(&fdt, source, sei::PROP_PENDING),
        be(&[REGION + 0x3010])
    );
    assert_eq!(
        bytes(&fdt, source, sei::PROP_SYNDROME),
        be(&[REGION + 0x3018])
    );
    let reserved = "/reserved-memory/firebreak-sei@40100000";
    assert_eq!(bytes(&fdt, reserved, "reg"), be(&[REGION, 0x10_0000]));
    assert!(
        fdt.find_node(reserved)
            .unwrap()
            .property("no-map")
            .is_some()
    );
}

#[test]
fn what_only_the_secure_world_can_use_is_gone_and_the_rest_stays() {
    let out = extended(&like_qemu());
    let fdt = Fdt::new(&out).unwrap();
    for path in [
        "/gpio-restart",
        "/gpio-restart/below",
        "/pl011@9040000",
        "/secure-chosen",
    ] {
        assert!(fdt.find_node(path).is_none(), "{path}");
    }
    for path in [
        "/memory@40000000",
        "/pl011@9000000",
        "/off@1000",
        "/chosen",
        "/cpus/cpu-map",
    ] {
        assert!(fdt.find_node(path).is_some(), "{path}");
    }
    assert_eq!(string(&fdt, "/", "model"), "linux,dummy-virt");
    let aliases = fdt.find_node("/aliases").unwrap();
    let names: std::vec::Vec<_> = aliases.properties().map(|p| p.name().to_owned()).collect();
    assert_eq!(names, ["serial0"]);
}

#[test]
fn a_reserved_memory_node_that_is_there_is_used() {
    let mut tree = like_qemu();
    tree.root
        .add_child(node("reserved-memory", &[], &[node("other@1", &[], &[])]));
    let out = extended(&tree);
    let fdt = Fdt::new(&out).unwrap();
    let reserved = fdt.find_node("/reserved-memory").unwrap();
    assert_eq!(reserved.children().count(), 2);
    assert_eq!(
        fdt.root()
            .children()
            .filter(|n| n.name() == "reserved-memory")
            .count(),
        1
    );
}

#[test]
fn extending_a_tree_that_a_warm_reset_left_in_place_changes_nothing() {
    let once = extended(&like_qemu());
    let twice = extended(&DeviceTree::from_fdt(&Fdt::new(&once).unwrap()));
    let (once, twice) = (Fdt::new(&once).unwrap(), Fdt::new(&twice).unwrap());
    for path in ["/", "/reserved-memory", "/firebreak-sei@40100000", "/cpus"] {
        let children = |fdt: &Fdt<'_>| fdt.find_node(path).unwrap().children().count();
        assert_eq!(children(&once), children(&twice), "{path}");
    }
}

#[test]
fn a_buffer_that_is_too_small_is_an_error() {
    let tree = like_qemu().to_dtb();
    let whole = extended(&like_qemu()).len();
    for length in [0, 40, 100, whole - 1] {
        let result = extend(&tree, &mut vec![0; length], &additions(&sources()));
        assert_eq!(result, Err(Error::NoSpace), "{length}");
    }
}

#[test]
fn every_truncation_is_an_error_and_never_a_panic() {
    let tree = like_qemu().to_dtb();
    let mut out = vec![0; 0x1_0000];
    for length in 0..tree.len() {
        assert!(
            extend(&tree[..length], &mut out, &additions(&[])).is_err(),
            "{length}"
        );
    }
}

proptest! {
    #[test]
    fn a_tree_with_wrong_bytes_is_refused_or_copied_but_never_a_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut tree = like_qemu().to_dtb();
        for (index, byte) in damage {
            let at = index.index(tree.len());
            tree[at] = byte;
        }
        let mut out = vec![0; 0x1_0000];
        let _ = extend(&tree, &mut out, &additions(&sources()));
    }
}
