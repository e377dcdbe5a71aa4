// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another image for a partition of a running system, as commands.

use std::path::Path;

use firebreak_manifest::{IMAGE_HEADER_LEN, KernelImage};
use firebreak_wire::{Crc32, PIECE_BYTES, encode_piece};

/// Reads an image that can be started.
///
/// # Errors
///
/// It cannot be read, or is none; with what to do.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = std::fs::read(path)
        .map_err(|error| format!("the image {} cannot be read: {error}", path.display()))?;
    let header = bytes.get(..IMAGE_HEADER_LEN).unwrap_or(&bytes);
    match KernelImage::identify(header) {
        Ok(_) => Ok(bytes),
        Err(why) => Err(format!("{}: {why}", path.display())),
    }
}

/// Returns the commands that bring an image, each with what has gone before it, in bytes.
pub(crate) fn lines<'a>(
    name: &str,
    image: &'a [u8],
) -> impl Iterator<Item = (usize, String)> + use<'a> {
    let crc = Crc32::START.with(image).value();
    let first = format!("reload {name} bytes={} crc={crc:#x}", image.len());
    let pieces = image.chunks(PIECE_BYTES).enumerate().map(|(index, bytes)| {
        let at = index * PIECE_BYTES;
        let (crc, text) = encode_piece(at as u64, bytes);
        let text: String = text.collect();
        (at, format!("data at={at:#x} crc={crc:#x} {text}"))
    });
    let last = (image.len(), "commit".to_owned());
    std::iter::once((0, first)).chain(pieces).chain([last])
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebreak_wire::{Command, Request, Transfer};

    #[test]
    fn what_is_sent_is_what_the_hypervisor_puts_together() {
        let image: Vec<u8> = (0..5000_u32).map(|index| (index * 7 % 251) as u8).collect();
        let (mut transfer, mut received, mut is_whole) = (None, Vec::new(), false);
        for (_, line) in lines("victim", &image) {
            assert!(line.len() <= 103, "{line}");
            match Command::parse(line.as_bytes()).request.unwrap() {
                Request::Reload { name, kernel } => {
                    assert_eq!(name.as_str(), "victim");
                    let (bytes, crc) = kernel.unwrap();
                    transfer = Some(Transfer::begin(bytes, crc, 5000).unwrap());
                }
                Request::Data(piece) => {
                    let transfer = transfer.as_mut().unwrap();
                    assert_eq!(transfer.judge(&piece), Ok(true));
                    transfer.take(&piece);
                    received.extend_from_slice(piece.bytes());
                }
                Request::Commit => is_whole = transfer.unwrap().finish() == Ok(5000),
                other => panic!("{other:?}"),
            }
        }
        assert!(is_whole);
        assert_eq!(received, image);
    }

    #[test]
    fn what_is_no_image_is_not_sent() {
        let elf = std::env::current_exe().unwrap();
        assert!(read(&elf).unwrap_err().contains("is an ELF file"));
        let missing = read(Path::new("no-such-file")).unwrap_err();
        assert!(missing.contains("cannot be read"), "{missing}");
    }
}
