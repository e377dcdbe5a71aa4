// SPDX-License-Identifier: MIT OR Apache-2.0
//! Partition files in devicetree source, and blobs, mean what the TOML file means.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Bench, config_words, demo};
use firebreak_image::{FileKind, Level, build, check};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn demo_dts() -> PathBuf {
    root().join("guest-images/demo/firebreak.dts")
}

#[test]
fn toml_and_devicetree_source_of_one_system_build_the_same_bytes() {
    let bench = Bench::new();
    let toml = build(&demo(), &bench.options).unwrap();
    let dts = build(&demo_dts(), &bench.options).unwrap();
    assert!(toml.bytes == dts.bytes, "the images differ");
    assert_eq!(toml.report.sha256, dts.report.sha256);
    // The test would be blind if the configuration did not depend on the source.
    let text = fs::read_to_string(demo_dts()).unwrap();
    let other = bench.put("other.dts", text.replace("inject:0x811", "log").as_bytes());
    assert!(build(&other, &bench.options).unwrap().bytes != toml.bytes);
}

#[test]
fn a_blob_builds_the_same_bytes_and_its_mistakes_are_shown_in_its_source() {
    let bench = Bench::new();
    let dts = build(&demo_dts(), &bench.options).unwrap();
    let blob = bench.put(
        "demo.dtb",
        &blob_of(&fs::read_to_string(demo_dts()).unwrap()),
    );
    let dtb = build(&blob, &bench.options).unwrap();
    assert!(dtb.bytes == dts.bytes, "the images differ");

    let text = fs::read_to_string(demo_dts()).unwrap();
    let wrong = text.replace("firebreak,watchdog", "firebreak,watchdgo");
    let blob = bench.put("wrong.dtb", &blob_of(&wrong));
    let told = check(&blob, &bench.options).unwrap_err().to_string();
    assert!(
        told.contains("did you mean `firebreak,watchdog`?"),
        "{told}"
    );
    assert!(told.contains("wrong.dtb:"), "{told}");

    let cut = bench.put("cut.dtb", &fs::read(&blob).unwrap()[..100]);
    let told = check(&cut, &bench.options).unwrap_err().to_string();
    assert!(told.contains("cut.dtb is no devicetree blob"), "{told}");
}

/// Compiles the little that these tests need: strings and cells, by the writer of the hypervisor.
fn blob_of(text: &str) -> Vec<u8> {
    use firebreak_guestdt::FdtWriter;
    fn inside<'t>(writer: &mut FdtWriter<'_>, lines: &mut impl Iterator<Item = &'t str>) {
        while let Some(line) = lines.next() {
            let line = line.split("//").next().unwrap_or_default().trim();
            if let Some(name) = line.strip_suffix(" {") {
                let name = if name == "/" { "" } else { name };
                writer.begin_node(name);
                inside(writer, lines);
                writer.end_node();
            } else if line == "};" {
                return;
            } else if let Some((name, value)) = line.trim_end_matches(';').split_once(" = ") {
                let mut bytes = Vec::new();
                for piece in value.split(", ") {
                    if let Some(cells) = piece.strip_prefix('<') {
                        for cell in cells.trim_end_matches('>').split(' ') {
                            let cell = match cell.strip_prefix("0x") {
                                Some(digits) => u32::from_str_radix(digits, 16),
                                None => cell.parse(),
                            };
                            bytes.extend(cell.unwrap().to_be_bytes());
                        }
                    } else {
                        bytes.extend(piece.trim_matches('"').bytes());
                        bytes.push(0);
                    }
                }
                writer.prop_bytes(name, &bytes);
            } else if !line.is_empty() && !line.starts_with("/dts") {
                writer.prop_bytes(line.trim_end_matches(';'), &[]);
            }
        }
    }
    let mut blob = vec![0; 1 << 16];
    let mut writer = FdtWriter::new(&mut blob);
    inside(&mut writer, &mut text.lines());
    let len = writer.finish().unwrap();
    blob.truncate(len);
    blob
}

#[test]
fn a_xen_dom0less_chosen_is_understood_on_its_own_board() {
    let bench = Bench::new();
    let file = root().join("tests/corpus/manifest-good/dom0less.dts");
    let built = build(&file, &bench.options).unwrap();
    assert_eq!(built.system.board.name, "two PEs and 1 GiB");
    assert_eq!(built.system.board.image_base, 0x4020_0000);
    let [first, second] = built.system.guests.as_slice() else {
        panic!("{:?}", built.system.guests)
    };
    let pes = |at: usize| {
        let pes = &built.system.guests[at].partition.pes.value;
        pes.iter().map(|pe| pe.value).collect::<Vec<_>>()
    };
    assert_eq!(
        (pes(0), pes(1)),
        (vec![0], vec![1]),
        "chosen in the board's order"
    );
    assert!(first.partition.console && !second.partition.console);
    assert_eq!(first.kernel.file_kind, FileKind::Loaded);
    assert_eq!(first.partition.memory_bytes.value, 128 << 20);
    // Names of what is loaded by others reach the hypervisor as physical addresses.
    let words = config_words(&built);
    let bytes = zerocopy::IntoBytes::as_bytes(words.as_slice());
    let config =
        firebreak_manifest::read_config(bytes, firebreak_abi::Pa::new(0x4020_0000)).unwrap();
    let read = &config.partitions[0];
    assert_eq!(read.kernel.start.get(), 0x5200_0000);
    assert_eq!(read.ramdisk.unwrap().start.get(), 0x5400_0000);
    assert_eq!(read.bootargs, "console=ttyAMA0");
    assert_eq!(read.pes[0].get(), 0);
    assert_eq!(config.partitions[1].pes[0].get(), 0x100);
    // That nothing is known of the files is said.
    assert_eq!(built.system.warnings.problems.len(), 2);
    assert!(
        built
            .system
            .warnings
            .problems
            .iter()
            .all(|one| one.level == Level::Warning)
    );
    assert!(built.report.to_text().contains("by the bootloader"));
}

/// A system with devices, in both forms; in the second the device may be named by its label.
const WITH_DEVICES: &str = r#"
[system]
control = true
log = "64 KiB"
trace = "4 KiB"

[[partition]]
name = "a"
vcpus = 1
pes = [0]
memory = "16 MiB"
memory_base = 0x6000_0000
direct_map = true
image = "raw.bin"
devices = [
    { path = "/pl061@9030000" },
    { path = "/pl031@9010000", at = 0x0a00_0000 },
    { path = "/virtio_mmio@a003000", dma = "trusted" },
    { path = "/virtio_mmio@a003200", dma = "trusted" },
    { path = "/virtio_mmio@a003400", dma = "trusted" },
    { path = "/virtio_mmio@a003600", dma = "trusted" },
    { path = "/virtio_mmio@a003800", dma = "trusted" },
    { path = "/virtio_mmio@a003a00", dma = "trusted" },
    { path = "/virtio_mmio@a003c00", dma = "trusted" },
    { path = "/virtio_mmio@a003e00", dma = "trusted" },
]
"#;
const WITH_DEVICES_DTS: &str = r#"/dts-v1/;
/ {
    chosen {
        firebreak,control;
        firebreak,log = <0x0 64>;
        firebreak,trace = <0x0 4>;
        a {
            compatible = "firebreak,domain", "xen,domain";
            cpus = <1>;
            memory = <0x0 0x4000>;
            vpl011;
            firebreak,mpidr = <0x0 0x0>;
            firebreak,memory-base = <0x0 0x60000000>;
            direct-map;
            firebreak,devices = "/pl061@9030000", "/pl031@9010000", "/virtio_mmio@a003000",
                "/virtio_mmio@a003200", "/virtio_mmio@a003400", "/virtio_mmio@a003600",
                "/virtio_mmio@a003800", "/virtio_mmio@a003a00", "/virtio_mmio@a003c00",
                "/virtio_mmio@a003e00";
            firebreak,device-dma = <0 0 1 1 1 1 1 1 1 1>;
            firebreak,device-ipa = <0 0>, <0x0 0xa000000>, <0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0>;
            kernel {
                compatible = "multiboot,kernel", "multiboot,module";
                firebreak,file = "raw.bin";
            };
        };
    };
};
"#;

#[test]
fn devices_and_sizes_in_a_devicetree_build_the_same_bytes() {
    let bench = Bench::new();
    bench.put("raw.bin", &[0x5a; 64]);
    let options = firebreak_image::Options {
        payloads: None,
        ..bench.options.clone()
    };
    let toml = bench.put("devices.toml", WITH_DEVICES.as_bytes());
    let dts = bench.put("devices.dts", WITH_DEVICES_DTS.as_bytes());
    let toml = build(&toml, &options).unwrap();
    let dts = build(&dts, &options).unwrap();
    assert!(toml.bytes == dts.bytes, "the images differ");
    // Each of the lists has its say.
    for (from, to) in [
        ("log = <0x0 64>", "log = <0x0 32>"),
        ("trace = <0x0 4>", "trace = <0x0 8>"),
        ("\"/pl061@9030000\"", "\"/pl011@9040000\""),
        ("0xa000000>", "0xa800000>"),
        ("0x60000000", "0x62000000"),
    ] {
        let text = WITH_DEVICES_DTS.replace(from, to);
        let other = bench.put("other.dts", text.as_bytes());
        let Ok(other) = build(&other, &options) else {
            continue;
        };
        assert!(other.bytes != toml.bytes, "{from}");
    }
}

/// A tree that is its own board is where its devices are looked up, and a reference names one.
#[test]
fn a_tree_that_is_its_own_board_gives_its_devices_away_by_reference() {
    let bench = Bench::new();
    let text = fs::read_to_string(root().join("tests/corpus/manifest-good/dom0less.dts")).unwrap();
    let tree = text.replacen(
        "cpus = <",
        "firebreak,devices = &clock;\n            firebreak,device-ipa = <0 0xa000000>;\n            cpus = <",
        1,
    );
    let tree = tree.replacen(
        "    chosen {",
        "    clock: pl031@9010000 {\n        compatible = \"arm,pl031\";\n        \
         reg = <0x0 0x9010000 0x0 0x1000>;\n    };\n    chosen {",
        1,
    );
    let file = bench.put("own.dts", tree.as_bytes());
    let system = check(&file, &bench.options).unwrap();
    let paths: Vec<_> = system.devices.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["/pl031@9010000"], "{tree}");
}
