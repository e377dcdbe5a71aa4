// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loads kernels and RAM disks, and unpacks and identifies kernels.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebreak_manifest::{KernelError, KernelImage};
use flate2::read::GzDecoder;

use crate::diagnostic::{Problem, Source};
use crate::document::At;
use crate::elf;
use crate::partition::Partition;

/// The largest payload, in bytes: more than any board of today gives to one guest's kernel.
const MAX_PAYLOAD_BYTES: u64 = 2 << 30;

/// A file that goes into the image.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Where it was.
    pub path: PathBuf,
    /// Its contents, unpacked.
    pub bytes: Arc<Vec<u8>>,
}

/// The file that a kernel was in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// Bytes that are entered at the first one.
    Raw,
    /// An arm64 `Image`.
    Arm64,
    /// An ELF file, whose segments were laid out as they are in memory.
    Elf,
    /// None: a bootloader puts it into memory, and it is looked at when the machine boots.
    Loaded,
}

impl FileKind {
    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Arm64 => "arm64 Image",
            Self::Elf => "ELF",
            Self::Loaded => "by the bootloader",
        }
    }
}

/// A kernel and what it is.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The file; without bytes if a bootloader loads it.
    pub payload: Payload,
    /// How the hypervisor starts it.
    pub kind: KernelImage,
    /// What it was.
    pub file_kind: FileKind,
    /// Whether it was packed with gzip.
    pub was_packed: bool,
}

impl Kernel {
    /// Stands for a kernel that a bootloader puts somewhere.
    pub(crate) fn loaded(named: &At<String>) -> Self {
        Self {
            payload: Payload {
                path: PathBuf::from(&named.value),
                bytes: Arc::default(),
            },
            kind: KernelImage::Raw,
            file_kind: FileKind::Loaded,
            was_packed: false,
        }
    }
}

fn problem(
    source: &Source,
    named: &At<String>,
    message: String,
    label: &str,
    remedy: &str,
) -> Problem {
    Problem::error(source, named.span.clone(), message, label, remedy)
}

fn load(source: &Source, named: &At<String>, dir: &Path, what: &str) -> Result<Payload, Problem> {
    let path = dir.join(&named.value);
    let remedy =
        "correct the path (relative to --payloads, or else to this file), or build the file first";
    let metadata = fs::metadata(&path).map_err(|error| {
        let message = format!("the {what} {} cannot be read: {error}", path.display());
        problem(source, named, message, "named here", remedy)
    })?;
    if !metadata.is_file() || metadata.len() > MAX_PAYLOAD_BYTES {
        let message = format!(
            "the {what} {} is not a file of at most 2 GiB",
            path.display()
        );
        return Err(problem(
            source,
            named,
            message,
            "named here",
            "name the file itself",
        ));
    }
    let bytes = fs::read(&path).map_err(|error| {
        let message = format!("the {what} {} cannot be read: {error}", path.display());
        problem(source, named, message, "named here", remedy)
    })?;
    if bytes.is_empty() {
        let message = format!("the {what} {} is empty", path.display());
        return Err(problem(
            source,
            named,
            message,
            "named here",
            "build the file again",
        ));
    }
    Ok(Payload {
        path,
        bytes: Arc::new(bytes),
    })
}

/// Loads an initial RAM disk.
pub(crate) fn ramdisk(source: &Source, named: &At<String>, dir: &Path) -> Result<Payload, Problem> {
    let payload = load(source, named, dir, "initramfs")?;
    if payload.bytes.starts_with(&UIMAGE) {
        let message = format!(
            "the initramfs {} is wrapped for U-Boot",
            payload.path.display()
        );
        let remedy = "name the file that mkimage was given, or cut off the first 64 bytes";
        return Err(problem(source, named, message, "a uImage", remedy));
    }
    Ok(payload)
}

/// First bytes of what `mkimage` makes.
const UIMAGE: [u8; 4] = [0x27, 0x05, 0x19, 0x56];

/// Says what an image is that no PE can enter at its first byte, and what to do about it.
///
/// Whatever is not known to be something else is a raw binary, so what people have lying about
/// beside their kernels is known here.
fn foreign(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const IMAGE: &str = "name the kernel's arch/arm64/boot/Image, or that packed with gzip";
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..offset + magic.len()) == Some(magic);
    Some(match bytes {
        _ if at(0, &UIMAGE) => (
            "a uImage of U-Boot",
            "name the file that mkimage was given, or cut off the first 64 bytes",
        ),
        _ if at(0, &[0xd0, 0x0d, 0xfe, 0xed]) => (
            "a devicetree, or a FIT image of U-Boot",
            "name the kernel itself; dumpimage takes it out of a FIT image",
        ),
        _ if at(0, b"ANDROID!") => ("an Android boot image", IMAGE),
        _ if at(0, b"\xfd7zXZ\0") => ("packed with xz", "unpack it, or pack it with gzip"),
        _ if at(0, &[0x28, 0xb5, 0x2f, 0xfd]) => {
            ("packed with zstd", "unpack it, or pack it with gzip")
        }
        _ if at(0, &[0x04, 0x22, 0x4d, 0x18]) || at(0, &[0x02, 0x21, 0x4c, 0x18]) => {
            ("packed with LZ4", "unpack it, or pack it with gzip")
        }
        _ if at(0, b"070701") => (
            "an archive of cpio",
            "name it as initramfs, and a kernel as image",
        ),
        _ if at(0x24, &[0x18, 0x28, 0x6f, 0x01]) => {
            ("a zImage for 32-bit Arm", "build the guest for aarch64")
        }
        _ if at(0x202, b"HdrS") => ("a kernel for x86", "build the guest for aarch64"),
        _ if at(0, b"#!") => ("a script", IMAGE),
        _ => return None,
    })
}

/// Loads, unpacks, lays out and identifies a kernel.
pub(crate) fn kernel(
    source: &Source,
    partition: &Partition,
    dir: &Path,
) -> Result<Kernel, Problem> {
    let named = &partition.image;
    let mut payload = load(source, named, dir, "image")?;
    let was_packed = payload.bytes.starts_with(&[0x1f, 0x8b]);
    if was_packed {
        payload.bytes = Arc::new(unpack(source, named, &payload)?);
    }
    if let Some((what, remedy)) = foreign(&payload.bytes) {
        let message = format!("the image {} cannot be started", payload.path.display());
        return Err(problem(source, named, message, what, remedy));
    }
    let is_elf = elf::is_elf(&payload.bytes);
    if is_elf {
        let laid_out = elf::lay_out(&payload.bytes, partition.memory_bytes.value);
        payload.bytes = Arc::new(laid_out.map_err(|error| {
            let message = format!("the image {} cannot be started", payload.path.display());
            problem(source, named, message, &error.to_string(), &error.remedy())
        })?);
    }
    let kind = KernelImage::identify(&payload.bytes).map_err(|error| {
        let message = format!("the image {} cannot be started", payload.path.display());
        let label = match error {
            KernelError::Gzip => "packed twice",
            _ => "this image",
        };
        problem(source, named, message, label, &error.to_string())
    })?;
    check_whole(source, named, &payload, kind)?;
    let file_kind = match kind {
        _ if is_elf => FileKind::Elf,
        KernelImage::Raw => FileKind::Raw,
        KernelImage::Arm64 { .. } => FileKind::Arm64,
    };
    Ok(Kernel {
        payload,
        kind,
        file_kind,
        was_packed,
    })
}

fn unpack(source: &Source, named: &At<String>, payload: &Payload) -> Result<Vec<u8>, Problem> {
    let mut unpacked = Vec::new();
    let result = GzDecoder::new(payload.bytes.as_slice())
        .take(MAX_PAYLOAD_BYTES)
        .read_to_end(&mut unpacked);
    match result {
        Ok(_) if !unpacked.is_empty() => Ok(unpacked),
        _ => {
            let message = format!(
                "the image {} is packed with gzip, but damaged",
                payload.path.display()
            );
            Err(problem(
                source,
                named,
                message,
                "truncated or damaged",
                "copy or pack the file again",
            ))
        }
    }
}

/// An `Image` goes on in memory with BSS and page tables that are not in the file: a small part
/// of a real kernel (2 to 5 %), up to some pages of a tiny one. A file that lacks more than half
/// of what its header speaks of was cut.
const TINY_BSS_BYTES: u64 = 1 << 20;

fn check_whole(
    source: &Source,
    named: &At<String>,
    payload: &Payload,
    kind: KernelImage,
) -> Result<(), Problem> {
    let KernelImage::Arm64 { image_size, .. } = kind else {
        return Ok(());
    };
    let file = payload.bytes.len() as u64;
    if image_size <= file.saturating_mul(2).saturating_add(TINY_BSS_BYTES) {
        return Ok(());
    }
    let message = format!(
        "the image {} has {file} bytes, its header speaks of {image_size}",
        payload.path.display()
    );
    Err(problem(
        source,
        named,
        message,
        "truncated",
        "copy or build the file again",
    ))
}
