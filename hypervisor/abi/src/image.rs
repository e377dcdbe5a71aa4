// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one bootable file: an arm64 `Image` that holds hypervisor, configuration and payloads.
//!
//! The first 64 bytes are the header of Linux's arm64 boot protocol. The 64 bytes behind it are
//! an [`ImageInfo`] that `firebreak build` fills in; the hypervisor reads it relative to where
//! it was loaded. All numbers are little endian.

/// Offset of the [`ImageInfo`] from the start of the image, in bytes.
pub const IMAGE_INFO_OFFSET: usize = 64;
/// Size of the [`ImageInfo`], in bytes.
pub const IMAGE_INFO_LEN: usize = 64;
/// First eight bytes of the [`ImageInfo`]: `FBIMAGE1`.
pub const IMAGE_INFO_MAGIC: u64 = u64::from_le_bytes(*b"FBIMAGE1");

/// Where the parts of the image stand.
///
/// A bare hypervisor (as linked, before `firebreak build`) has `config_len` 0: it then looks for
/// partitions in the devicetree's own `/chosen`, where a bootloader may have put them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ImageInfo {
    /// Bytes of the hypervisor itself, BSS included; payloads start behind it.
    pub hypervisor_len: u64,
    /// Offset of the configuration devicetree from the start of the image.
    pub config_offset: u64,
    /// Its length, 0 when there is none.
    pub config_len: u64,
    /// Length of the whole file.
    pub image_len: u64,
}

impl ImageInfo {
    /// Encodes as it stands in the image.
    pub fn to_bytes(self) -> [u8; IMAGE_INFO_LEN] {
        let mut bytes = [0; IMAGE_INFO_LEN];
        let fields = [
            IMAGE_INFO_MAGIC,
            self.hypervisor_len,
            self.config_offset,
            self.config_len,
            self.image_len,
        ];
        for (chunk, field) in bytes.chunks_exact_mut(8).zip(fields) {
            chunk.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Decodes, or `None` when the magic or the lengths do not fit together.
    pub fn from_bytes(bytes: &[u8; IMAGE_INFO_LEN]) -> Option<Self> {
        let mut words = bytes.chunks_exact(8).map(|chunk| {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        if words.next()? != IMAGE_INFO_MAGIC {
            return None;
        }
        let info = Self {
            hypervisor_len: words.next()?,
            config_offset: words.next()?,
            config_len: words.next()?,
            image_len: words.next()?,
        };
        let config_end = info.config_offset.checked_add(info.config_len)?;
        (info.config_len == 0
            || (info.config_offset >= info.hypervisor_len && config_end <= info.image_len))
            .then_some(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_survives_a_round_trip_and_refuses_nonsense() {
        let info = ImageInfo {
            hypervisor_len: 0x2_0000,
            config_offset: 0x2_0000,
            config_len: 0x800,
            image_len: 0x10_0000,
        };
        assert_eq!(ImageInfo::from_bytes(&info.to_bytes()), Some(info));
        let outside = ImageInfo {
            config_offset: 0x10_0000,
            ..info
        };
        assert_eq!(ImageInfo::from_bytes(&outside.to_bytes()), None);
        let inside_hypervisor = ImageInfo {
            config_offset: 0x1_0000,
            ..info
        };
        assert_eq!(ImageInfo::from_bytes(&inside_hypervisor.to_bytes()), None);
        assert_eq!(ImageInfo::from_bytes(&[0; IMAGE_INFO_LEN]), None);
    }
}
