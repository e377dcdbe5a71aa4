// SPDX-License-Identifier: MIT OR Apache-2.0
//! What kind of file a guest's kernel is, and where it and its neighbors go in guest memory.

use core::fmt;

use firebreak_abi::{Ipa, guest_map};

/// Bytes of a kernel that [`KernelImage::identify`] looks at.
pub const IMAGE_HEADER_LEN: usize = 64;
/// Room that is left for the devicetree at the top of guest memory, in bytes.
pub const GUEST_DT_BYTES: u64 = 0x1_0000;

const BLOCK_BYTES: u64 = 2 << 20;
const IMAGE_MAGIC: u32 = 0x644d_5241;

/// A kernel that can be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelImage {
    /// Bytes that are put at [`guest_map::KERNEL`] and entered at the first one.
    Raw,
    /// An arm64 `Image` (Linux, Documentation/arch/arm64/booting.rst).
    Arm64 {
        /// Distance of its first byte from a multiple of 2 MiB, in bytes.
        text_offset: u64,
        /// Memory that it needs from its first byte on, BSS included, in bytes.
        image_size: u64,
    },
}

/// Why a kernel cannot be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelError {
    /// It has no bytes.
    Empty,
    /// It is packed with gzip: only the host unpacks.
    Gzip,
    /// It is an ELF file.
    Elf,
    /// It is an EFI zboot image.
    Zboot,
    /// An arm64 `Image` for a big-endian kernel.
    BigEndian,
    /// An arm64 `Image` whose text offset is not below 2 MiB or not a multiple of 4 KiB.
    TextOffset(u64),
    /// An arm64 `Image` that says to be larger than memory can be, or of size 0.
    ImageSize(u64),
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the kernel is empty; give a file with contents"),
            Self::Gzip => f.write_str(
                "the kernel is packed with gzip; unpack it, or let `firebreak build` do so",
            ),
            Self::Elf => f.write_str(
                "the kernel is an ELF file; make a raw binary of it (objcopy -O binary)",
            ),
            Self::Zboot => f.write_str(
                "the kernel is an EFI zboot image; take the plain arm64 Image out of it",
            ),
            Self::BigEndian => f.write_str("the kernel is big endian; build a little-endian one"),
            Self::TextOffset(offset) => {
                write!(
                    f,
                    "the Image header has text_offset {offset:#x}; a multiple of 4 KiB below 2 MiB is needed"
                )
            }
            Self::ImageSize(size) => {
                write!(
                    f,
                    "the Image header has image_size {size:#x}; use a kernel of Linux 3.17 or newer"
                )
            }
        }
    }
}

impl core::error::Error for KernelError {}

fn word(header: &[u8], at: usize) -> Option<u64> {
    let bytes = header.get(at..at.checked_add(8)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    )
}

impl KernelImage {
    /// Looks at the first bytes of a kernel; [`IMAGE_HEADER_LEN`] of them are enough.
    ///
    /// # Errors
    ///
    /// A file that is known not to be a kernel that can be entered at its first byte.
    pub fn identify(header: &[u8]) -> Result<Self, KernelError> {
        match header {
            [] => return Err(KernelError::Empty),
            [0x1f, 0x8b, ..] => return Err(KernelError::Gzip),
            [0x7f, b'E', b'L', b'F', ..] => return Err(KernelError::Elf),
            [b'M', b'Z', _, _, b'z', b'i', b'm', b'g', ..] => return Err(KernelError::Zboot),
            _ => {}
        }
        let magic = word(header, 56).map(|word| word & 0xffff_ffff);
        if magic != Some(u64::from(IMAGE_MAGIC)) {
            return Ok(Self::Raw);
        }
        let field = |at| word(header, at).unwrap_or_default();
        let (text_offset, image_size, flags) = (field(8), field(16), field(24));
        if flags & 1 != 0 {
            return Err(KernelError::BigEndian);
        }
        if text_offset >= BLOCK_BYTES || text_offset % 4096 != 0 {
            return Err(KernelError::TextOffset(text_offset));
        }
        if image_size == 0 || image_size > 1 << 40 {
            return Err(KernelError::ImageSize(image_size));
        }
        Ok(Self::Arm64 {
            text_offset,
            image_size,
        })
    }

    /// Returns where the first byte goes, which is also the entry.
    pub const fn load_ipa(self) -> Ipa {
        match self {
            Self::Raw => guest_map::KERNEL,
            Self::Arm64 { text_offset, .. } => Ipa::new(guest_map::KERNEL.get() + text_offset),
        }
    }

    /// Returns the memory that the kernel needs from its first byte on, in bytes, for a file of
    /// `file_bytes`.
    pub fn footprint_bytes(self, file_bytes: u64) -> u64 {
        match self {
            Self::Raw => file_bytes,
            Self::Arm64 { image_size, .. } => file_bytes.max(image_size),
        }
    }
}

/// Where things stand in a guest's RAM before it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestLayout {
    /// Kernel and entry.
    pub kernel: Ipa,
    /// Initial RAM disk.
    pub ramdisk: Option<Ipa>,
    /// Devicetree, in the last [`GUEST_DT_BYTES`] of RAM; a copy goes to the start of RAM.
    pub devicetree: Ipa,
}

impl GuestLayout {
    /// Returns the same for a guest that sees its RAM at `ram` instead of [`guest_map::RAM`].
    #[must_use]
    pub fn with_ram_at(self, ram: Ipa) -> Self {
        let offset = ram.get().wrapping_sub(guest_map::RAM.get());
        let shift = |ipa: Ipa| Ipa::new(ipa.get().wrapping_add(offset));
        Self {
            kernel: shift(self.kernel),
            ramdisk: self.ramdisk.map(shift),
            devicetree: shift(self.devicetree),
        }
    }
}

/// The pieces do not fit; by how much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooSmall {
    /// The least RAM that holds everything, in bytes, a multiple of 2 MiB.
    pub needed_bytes: u64,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kernel, ramdisk and devicetree need {} MiB; give it at least that much memory",
            self.needed_bytes >> 20
        )
    }
}

impl core::error::Error for TooSmall {}

/// Lays out a guest's RAM: kernel 2 MiB into it, devicetree at the top, ramdisk below that.
///
/// # Errors
///
/// [`TooSmall`] when they would overlap.
pub fn guest_layout(
    memory_bytes: u64,
    kernel: KernelImage,
    kernel_bytes: u64,
    ramdisk_bytes: Option<u64>,
) -> Result<GuestLayout, TooSmall> {
    let kernel_offset = kernel.load_ipa().get() - guest_map::RAM.get();
    let kernel_end = kernel_offset
        .saturating_add(kernel.footprint_bytes(kernel_bytes))
        .checked_next_multiple_of(BLOCK_BYTES)
        .unwrap_or(u64::MAX);
    let top_bytes = ramdisk_bytes
        .unwrap_or(0)
        .checked_next_multiple_of(4096)
        .unwrap_or(u64::MAX)
        .saturating_add(GUEST_DT_BYTES);
    let needed = kernel_end.saturating_add(top_bytes);
    if needed > memory_bytes {
        let needed_bytes = needed
            .checked_next_multiple_of(BLOCK_BYTES)
            .unwrap_or(u64::MAX);
        return Err(TooSmall { needed_bytes });
    }
    let at = |offset| Ipa::new(guest_map::RAM.get().saturating_add(offset));
    Ok(GuestLayout {
        kernel: kernel.load_ipa(),
        ramdisk: ramdisk_bytes.map(|_| at(memory_bytes - top_bytes)),
        devicetree: at(memory_bytes - GUEST_DT_BYTES),
    })
}
