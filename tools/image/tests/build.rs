// SPDX-License-Identifier: MIT OR Apache-2.0
//! The image that is built, taken apart again.

mod common;

use std::io::Write;

use common::{Bench, HYPERVISOR_BYTES, config_words, demo, hypervisor, linux};
use firebreak_abi::image::{IMAGE_INFO_LEN, IMAGE_INFO_OFFSET, ImageInfo};
use firebreak_image::{Explanation, Level, Options, build, check};

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn the_demo_is_one_image_with_everything_where_its_header_says() {
    let bench = Bench::new();
    let built = build(&demo(), &bench.options).unwrap();
    let image = &built.bytes;
    assert_eq!(
        word(image, 16),
        image.len() as u64,
        "image_size of the arm64 header"
    );
    let info = image[IMAGE_INFO_OFFSET..][..IMAGE_INFO_LEN]
        .try_into()
        .unwrap();
    let info = ImageInfo::from_bytes(&info).unwrap();
    assert_eq!(
        (info.hypervisor_len, info.image_len),
        (HYPERVISOR_BYTES, image.len() as u64)
    );
    assert_eq!(info.config_offset, HYPERVISOR_BYTES);

    let bare = hypervisor();
    assert_eq!(
        image[128..bare.len()],
        bare[128..],
        "the hypervisor's own bytes"
    );
    assert!(
        image[bare.len()..HYPERVISOR_BYTES as usize]
            .iter()
            .all(|byte| *byte == 0),
        "its BSS"
    );

    let config = &image[info.config_offset as usize..][..info.config_len as usize];
    assert_eq!(config, built.system.config);
    let piece = |what: &str| {
        let piece = built
            .report
            .pieces
            .iter()
            .find(|piece| piece.what == what)
            .unwrap();
        &image[piece.offset as usize..][..piece.bytes as usize]
    };
    assert_eq!(piece("linux: image"), linux(300_000));
    assert_eq!(piece("linux: initramfs"), [0x30; 10_000]);
    assert_eq!(piece("control: image"), [1; 5000]);
    assert_eq!(piece("victim: image"), [2; 5000]);
    for piece in &built.report.pieces {
        let align = if piece.what.ends_with(": image") {
            0x1_0000
        } else {
            0x1000
        };
        assert_eq!(piece.offset % align, 0, "{}", piece.what);
    }
}

#[test]
fn the_hypervisor_reads_of_the_demo_what_the_file_says() {
    let bench = Bench::new();
    let built = build(&demo(), &bench.options).unwrap();
    let words = config_words(&built);
    let base = firebreak_abi::Pa::new(0x4020_0000);
    let config =
        firebreak_manifest::read_config(zerocopy::IntoBytes::as_bytes(words.as_slice()), base)
            .unwrap();
    let [linux, control, victim] = config.partitions.as_slice() else {
        panic!("{config:?}")
    };
    assert_eq!(
        (linux.name.as_str(), linux.vcpus, linux.memory_bytes),
        ("linux", 2, 256 << 20)
    );
    for (read, written) in config.partitions.iter().zip(&built.system.guests) {
        // On this board, the number of a PE is its affinity.
        let read: Vec<u64> = read.pes.iter().map(|pe| pe.get()).collect();
        let written: Vec<u64> = written
            .partition
            .pes
            .value
            .iter()
            .map(|pe| pe.value)
            .collect();
        assert_eq!(read, written);
    }
    assert!(
        linux.bootargs.contains("console=ttyAMA0") && linux.ramdisk.is_some() && linux.watchdog
    );
    assert_eq!(linux.policy.ueo.to_string(), "inject:0x811");
    assert_eq!(linux.policy.impdef.to_string(), "inject:0x1000000");
    assert_eq!(control.name, "control");
    assert_eq!(victim.policy.uer.to_string(), "retire:0xc11");
    assert_eq!(victim.policy.ueu.to_string(), "kill");
    let kernel = built
        .report
        .pieces
        .iter()
        .find(|piece| piece.what == "victim: image")
        .unwrap();
    assert_eq!(victim.kernel.start.get(), 0x4020_0000 + kernel.offset);
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let (one, other) = (Bench::new(), Bench::new());
    let first = build(&demo(), &one.options).unwrap();
    let second = build(&demo(), &other.options).unwrap();
    assert!(first.bytes == second.bytes);
    assert_eq!(first.report.sha256, second.report.sha256);
}

#[test]
fn a_packed_kernel_is_unpacked() {
    let bench = Bench::new();
    let plain = build(&demo(), &bench.options).unwrap();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&linux(300_000)).unwrap();
    bench.put("kernel/Image", &packer.finish().unwrap());
    let packed = build(&demo(), &bench.options).unwrap();
    assert!(packed.system.guests[0].kernel.was_packed);
    assert!(plain.bytes == packed.bytes);
}

/// An ELF file of one segment, at the place where raw kernels go.
fn elf(contents: &[u8]) -> Vec<u8> {
    const START: u64 = 0x4020_0000;
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend([2, 0, 183, 0, 1, 0, 0, 0]); // ET_EXEC, EM_AARCH64
    bytes.extend([START, 64, 0].map(u64::to_le_bytes).concat());
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    bytes.extend([1, 0, 0, 0, 5, 0, 0, 0]); // PT_LOAD, R-X
    let len = contents.len() as u64;
    bytes.extend(
        [120, START, START, len, len, 4096]
            .map(u64::to_le_bytes)
            .concat(),
    );
    bytes.extend_from_slice(contents);
    bytes
}

#[test]
fn an_elf_file_is_laid_out_packed_or_not() {
    let bench = Bench::new();
    let raw = build(&demo(), &bench.options).unwrap();
    bench.put("guests/control.bin", &elf(&[1; 5000]));
    let plain = build(&demo(), &bench.options).unwrap();
    assert!(raw.bytes == plain.bytes);
    assert_eq!(plain.report.partitions[1].kernel, "ELF");
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&elf(&[1; 5000])).unwrap();
    bench.put("guests/control.bin", &packer.finish().unwrap());
    let packed = build(&demo(), &bench.options).unwrap();
    assert!(raw.bytes == packed.bytes);
    assert_eq!(packed.report.partitions[1].kernel, "ELF, gzip");
}

#[test]
fn the_same_kernel_is_stored_once() {
    let bench = Bench::new();
    let different = build(&demo(), &bench.options).unwrap();
    bench.put("guests/victim.bin", &[1; 5000]);
    let same = build(&demo(), &bench.options).unwrap();
    assert_eq!(different.bytes.len() - same.bytes.len(), 0x1_0000);
}

#[test]
fn what_is_no_bare_hypervisor_is_refused() {
    let bench = Bench::new();
    let refused = |bytes: &[u8]| {
        bench.put("hypervisor.bin", bytes);
        build(&demo(), &bench.options).unwrap_err().to_string()
    };
    let image = build(&demo(), &bench.options).unwrap().bytes;
    let mut longer = hypervisor();
    longer.resize(HYPERVISOR_BYTES as usize + 1, 0);
    for (what, bytes) in [
        ("empty", &[][..]),
        ("short", &[0; 100]),
        ("an image that is built already", &image),
        ("longer than it says", &longer),
        ("a kernel", &linux(4096)),
    ] {
        let words = refused(bytes);
        assert!(
            words.contains("is not a bare Firebreak hypervisor"),
            "{what}: {words}"
        );
        assert!(
            words.contains("name the raw binary hypervisor.bin"),
            "{what}: {words}"
        );
    }
    let options = Options {
        hypervisor: Some("/nowhere/hypervisor.bin".into()),
        ..bench.options.clone()
    };
    let words = build(&demo(), &options).unwrap_err().to_string();
    assert!(
        words.contains("/nowhere/hypervisor.bin cannot be read"),
        "{words}"
    );
    let none = Options {
        hypervisor: None,
        ..bench.options.clone()
    };
    assert!(
        build(&demo(), &none)
            .unwrap_err()
            .to_string()
            .contains("--hypervisor")
    );
    assert!(check(&demo(), &none).is_ok(), "a check does without");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let bench = Bench::new();
    let missing = check(&bench.dir.path().join("none.toml"), &bench.options).unwrap_err();
    assert!(
        missing.to_string().contains("none.toml cannot be read"),
        "{missing}"
    );
    let binary = bench.put("binary.toml", &[0xff, 0xfe, 0]);
    let binary = check(&binary, &bench.options).unwrap_err();
    assert!(
        binary.to_string().contains("binary.toml is not UTF-8 text"),
        "{binary}"
    );
}

#[test]
fn a_console_that_nobody_sees_is_warned_of() {
    let bench = Bench::new();
    let file = bench.put(
        "quiet.toml",
        b"[[partition]]\nname = \"a\"\nvcpus = 1\npes = [0]\nmemory = \"16 MiB\"\n\
          image = \"guests/control.bin\"\nconsole = \"none\"\ncmdline = \"console=ttyAMA0\"\n",
    );
    let system = check(&file, &bench.options).unwrap();
    let [warning] = system.warnings.problems.as_slice() else {
        panic!("{:?}", system.warnings)
    };
    assert_eq!(warning.level, Level::Warning);
    assert!(!system.warnings.has_errors());
}

#[test]
fn a_console_of_other_hardware_is_warned_of() {
    let bench = Bench::new();
    for (cmdline, warnings) in [
        ("console=ttyS0", 1),
        ("quiet console=hvc0 console=ttyS0,115200", 1),
        ("console=ttyS0 console=ttyAMA0", 0),
        ("console=tty0", 0),
        ("quiet", 0),
    ] {
        let text = format!(
            "[[partition]]\nname = \"a\"\nvcpus = 1\npes = [0]\nmemory = \"16 MiB\"\n\
             image = \"guests/control.bin\"\ncmdline = \"{cmdline}\"\n"
        );
        let file = bench.put("other.toml", text.as_bytes());
        let system = check(&file, &bench.options).unwrap();
        assert_eq!(system.warnings.problems.len(), warnings, "{cmdline}");
    }
}

#[test]
fn explain_tells_the_sizes_of_log_and_trace_and_where_they_lie() {
    let bench = Bench::new();
    let explained = |system: &str| {
        let text = format!(
            "[system]\n{system}\n\n[[partition]]\nname = \"a\"\nvcpus = 2\npes = [0, 1]\n\
             memory = \"16 MiB\"\nimage = \"guests/control.bin\"\n"
        );
        let file = bench.put("records.toml", text.as_bytes());
        Explanation::new(&check(&file, &bench.options).unwrap())
    };
    let both = explained("log = \"64 KiB\"\ntrace = \"5 KiB\"").records;
    assert_eq!(both.log_start.as_deref(), Some("0x40191000"));
    assert_eq!((both.log_bytes, both.log_events), (64 << 10, 63));
    // A trace takes whole pages of the pool.
    assert_eq!((both.trace_bytes, both.trace_exits), (5 << 10, 160));
    assert_eq!((both.trace_pes, both.trace_pool_bytes), (2, 16 << 10));
    let usual = explained("").records;
    assert_eq!((usual.log_bytes, usual.trace_bytes), (256 << 10, 0));
    let text = explained("board = \"xlnx-versal-virt\"").to_text();
    assert!(
        text.contains("log    none: no event survives a reset"),
        "{text}"
    );
}
