// SPDX-License-Identifier: MIT OR Apache-2.0
//! A system of small files that can be built.

use std::fs;
use std::path::{Path, PathBuf};

use firebreak_abi::image::{IMAGE_INFO_LEN, IMAGE_INFO_OFFSET, ImageInfo};
use firebreak_image::{Built, Options};
use tempfile::TempDir;

/// File, partition file and hypervisor of a system that can be built.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) options: Options,
}

pub(crate) const HYPERVISOR_BYTES: u64 = 0x2_0000;

/// A hypervisor as far as the builder looks at it; its last page is BSS.
pub(crate) fn hypervisor() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..HYPERVISOR_BYTES - 0x1000).map(|at| at as u8).collect();
    bytes[16..24].copy_from_slice(&HYPERVISOR_BYTES.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    let info = ImageInfo {
        hypervisor_len: HYPERVISOR_BYTES,
        image_len: HYPERVISOR_BYTES,
        ..ImageInfo::default()
    };
    bytes[IMAGE_INFO_OFFSET..IMAGE_INFO_OFFSET + IMAGE_INFO_LEN].copy_from_slice(&info.to_bytes());
    bytes
}

/// An arm64 `Image` of this many bytes.
pub(crate) fn linux(len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
    bytes[..32].fill(0);
    bytes[16..24].copy_from_slice(&(len as u64 + 0x1_0000).to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    bytes
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Self {
            options: Options {
                payloads: Some(dir.path().to_owned()),
                hypervisor: Some(dir.path().join("hypervisor.bin")),
            },
            dir,
        };
        bench.put("hypervisor.bin", &hypervisor());
        bench.put("kernel/Image", &linux(300_000));
        bench.put("initramfs.cpio", &[0x30; 10_000]);
        bench.put("guests/control.bin", &[1; 5000]);
        bench.put("guests/victim.bin", &[2; 5000]);
        bench
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

pub(crate) fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-images/demo/firebreak.toml")
}

/// The configuration of a built image as the hypervisor finds it in memory: aligned to words.
pub(crate) fn config_words(built: &Built) -> Vec<u64> {
    let word = |chunk: &[u8]| {
        let mut whole = [0; 8];
        whole[..chunk.len()].copy_from_slice(chunk);
        u64::from_ne_bytes(whole)
    };
    built.system.config.chunks(8).map(word).collect()
}
