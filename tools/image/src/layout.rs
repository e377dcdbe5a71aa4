// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts hypervisor, configuration and payloads into one file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use firebreak_abi::image::{IMAGE_INFO_LEN, IMAGE_INFO_OFFSET, ImageInfo};
use sha2::{Digest, Sha256};

use crate::config::Extent;
use crate::diagnostic::{Level, Problem, Source};

/// Kernels start on such a boundary, so that copying one reads whole pages of any granule.
const KERNEL_ALIGN: u64 = 64 * 1024;
/// Everything else starts on such a boundary.
const PAGE_ALIGN: u64 = 4096;
/// Offset of `image_size` in the header of an arm64 `Image`.
const IMAGE_SIZE_OFFSET: usize = 16;
/// What a hypervisor is taken to need when none was given to the check, in bytes: this version's, in
/// whole 64 KiB (`board::` of the QEMU suite compares).
pub const NOMINAL_HYPERVISOR_BYTES: u64 = 0x6_0000;

/// What EL2 takes behind the image: its tables, the stacks of each PE, and its private pool. These are
/// the kernel's `TABLE_BYTES`, `STACKS_BYTES` and `POOL_BYTES`; `board::` of the QEMU suite compares
/// what comes of them.
const TABLES_BYTES: u64 = 0x2_0000;
const STACKS_BYTES: u64 = 0x1_9000;
const POOL_BYTES: u64 = 0x10_0000;

/// Returns how much memory an image of so many bytes takes on a board with so many PEs: itself, and
/// behind it what EL2 needs. Partitions are put behind that end.
pub(crate) fn taken_bytes(image_len: u64, pes: usize) -> u64 {
    image_len.next_multiple_of(PAGE_ALIGN) + TABLES_BYTES + STACKS_BYTES * pes as u64 + POOL_BYTES
}

/// A hypervisor without configuration, as linked.
#[derive(Clone, Debug)]
pub(crate) struct Hypervisor {
    /// The file; empty for a check without one.
    pub(crate) bytes: Vec<u8>,
    /// Memory that it takes, BSS included.
    pub(crate) len_bytes: u64,
}

impl Hypervisor {
    /// Stands for a hypervisor in a check that builds nothing.
    pub(crate) fn nominal() -> Self {
        Self {
            bytes: Vec::new(),
            len_bytes: NOMINAL_HYPERVISOR_BYTES,
        }
    }

    /// Loads and recognizes a hypervisor.
    pub(crate) fn load(path: &Path) -> Result<Self, Problem> {
        let refuse = |message: String, remedy: &str| Problem {
            level: Level::Error,
            message,
            label: String::new(),
            remedy: remedy.to_owned(),
            source: Source::new(path, ""),
            span: None,
        };
        let bytes = fs::read(path).map_err(|error| {
            let message = format!("the hypervisor {} cannot be read: {error}", path.display());
            refuse(
                message,
                "build it with `cargo xtask build`, or name another with --hypervisor",
            )
        })?;
        let not_one = || {
            let message = format!("{} is not a bare Firebreak hypervisor", path.display());
            refuse(
                message,
                "name the raw binary hypervisor.bin, without configuration",
            )
        };
        let info = bytes
            .get(IMAGE_INFO_OFFSET..IMAGE_INFO_OFFSET + IMAGE_INFO_LEN)
            .and_then(|info| info.try_into().ok())
            .and_then(ImageInfo::from_bytes)
            .ok_or_else(not_one)?;
        let is_image = bytes.get(56..60) == Some(b"ARM\x64");
        if !is_image || info.config_len != 0 || info.hypervisor_len < bytes.len() as u64 {
            return Err(not_one());
        }
        Ok(Self {
            bytes,
            len_bytes: info.hypervisor_len,
        })
    }
}

/// A payload that has its place.
#[derive(Clone, Debug)]
struct Placed {
    extent: Extent,
    bytes: Arc<Vec<u8>>,
}

/// Where everything goes.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) config: Extent,
    placed: Vec<Placed>,
    by_digest: BTreeMap<[u8; 32], Extent>,
    end: u64,
}

impl Layout {
    /// Starts behind the hypervisor and a configuration of this length.
    pub(crate) fn new(hypervisor: &Hypervisor, config_len: usize) -> Self {
        let offset = hypervisor.len_bytes.next_multiple_of(PAGE_ALIGN);
        let config = Extent {
            offset,
            len_bytes: config_len as u64,
        };
        let end = offset + config.len_bytes;
        Self {
            config,
            placed: Vec::new(),
            by_digest: BTreeMap::new(),
            end,
        }
    }

    /// Gives a kernel its place.
    pub(crate) fn kernel(&mut self, bytes: &Arc<Vec<u8>>) -> Extent {
        self.place(bytes, KERNEL_ALIGN)
    }

    /// Gives any other payload its place.
    pub(crate) fn payload(&mut self, bytes: &Arc<Vec<u8>>) -> Extent {
        self.place(bytes, PAGE_ALIGN)
    }

    /// The same bytes at the same alignment are stored once.
    fn place(&mut self, bytes: &Arc<Vec<u8>>, align: u64) -> Extent {
        let digest = Sha256::digest(bytes.as_slice()).into();
        if let Some(extent) = self.by_digest.get(&digest)
            && extent.offset.is_multiple_of(align)
        {
            return *extent;
        }
        let extent = Extent {
            offset: self.end.next_multiple_of(align),
            len_bytes: bytes.len() as u64,
        };
        self.end = extent.offset + extent.len_bytes;
        self.by_digest.insert(digest, extent);
        self.placed.push(Placed {
            extent,
            bytes: Arc::clone(bytes),
        });
        extent
    }

    /// Length of the whole file: whole pages.
    pub(crate) fn image_len(&self) -> u64 {
        self.end.next_multiple_of(PAGE_ALIGN)
    }

    /// Makes the file.
    pub(crate) fn assemble(&self, hypervisor: &Hypervisor, config: &[u8]) -> Vec<u8> {
        let len = usize::try_from(self.image_len()).unwrap_or(usize::MAX);
        let mut image = vec![0; len];
        let mut put = |offset: u64, bytes: &[u8]| {
            let offset = offset as usize;
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &hypervisor.bytes);
        put(self.config.offset, config);
        for placed in &self.placed {
            put(placed.extent.offset, &placed.bytes);
        }
        let info = ImageInfo {
            hypervisor_len: hypervisor.len_bytes,
            config_offset: self.config.offset,
            config_len: self.config.len_bytes,
            image_len: self.image_len(),
        };
        put(IMAGE_INFO_OFFSET as u64, &info.to_bytes());
        put(IMAGE_SIZE_OFFSET as u64, &self.image_len().to_le_bytes());
        image
    }
}

/// Returns a digest in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
