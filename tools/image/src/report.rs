// SPDX-License-Identifier: MIT OR Apache-2.0
//! Says what was built: for people as a table, for programs as JSON.

use std::fmt::Write as _;

use firebreak_manifest::Placement;
use firebreak_triage::Class;
use serde::Serialize;

use crate::config::Extent;
use crate::layout::sha256;
use crate::system::{Guest, System};

/// What was checked or built.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The partition file.
    pub file: String,
    /// The board.
    pub board: String,
    /// Where the image will be loaded, `0x..`.
    pub image_base: String,
    /// Length of the image in bytes.
    pub image_bytes: u64,
    /// SHA-256 of the image; none after a mere check.
    pub sha256: Option<String>,
    /// The pieces of the image, in order.
    pub pieces: Vec<Piece>,
    /// The partitions.
    pub partitions: Vec<PartitionReport>,
}

/// A piece of the image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Piece {
    /// Offset from the start of the image, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// What it is.
    pub what: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// A partition.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionReport {
    /// Its name.
    pub name: String,
    /// Its PEs.
    pub pes: Vec<u64>,
    /// Where its RAM is, `0x..`; on this board, unless its devicetree says otherwise.
    pub ram_pa: String,
    /// Where it sees its RAM, `0x..`.
    pub ram_ipa: String,
    /// Length of its RAM in bytes.
    pub ram_bytes: u64,
    /// Spare pages of 4 KiB, behind pages that are retired.
    pub spare_pages: u8,
    /// Where they are, `0x..`; none if there are none.
    pub spares_pa: Option<String>,
    /// Entry point, `0x..` (IPA).
    pub entry: String,
    /// `raw`, `arm64 Image`, `ELF` (each with `, gzip` if it was packed), or `by the bootloader`.
    pub kernel: String,
    /// Where its RAM disk goes, `0x..` (IPA).
    pub ramdisk: Option<String>,
    /// Reaction to each class of error.
    pub on_error: Vec<(String, String)>,
}

impl Report {
    /// Describes a system; `image` is what was built of it.
    pub fn new(system: &System, image: Option<&[u8]>) -> Self {
        let mut pieces = Vec::new();
        let mut add = |extent: Extent, what: String, bytes: &[u8]| {
            let piece = Piece {
                offset: extent.offset,
                bytes: extent.len_bytes,
                what,
                sha256: sha256(bytes),
            };
            pieces.push(piece);
        };
        if image.is_some() {
            let extent = Extent {
                offset: 0,
                len_bytes: system.hypervisor.len_bytes,
            };
            add(extent, "hypervisor".to_owned(), &system.hypervisor.bytes);
        }
        add(
            system.image.config,
            "configuration".to_owned(),
            &system.config,
        );
        for guest in &system.guests {
            let name = &guest.partition.name.value;
            if guest.partition.loaded.is_some() {
                continue;
            }
            add(
                guest.modules.kernel,
                format!("{name}: image"),
                &guest.kernel.payload.bytes,
            );
            if let (Some(extent), Some(disk)) = (guest.modules.ramdisk, &guest.ramdisk) {
                add(extent, format!("{name}: initramfs"), &disk.bytes);
            }
        }
        pieces.sort();
        let placements = system.plan.placements.iter();
        Self {
            file: system.source.name().to_owned(),
            board: system.board.name.clone(),
            image_base: format!("{:#x}", system.board.image_base),
            image_bytes: system.image.image_len(),
            sha256: image.map(sha256),
            pieces,
            partitions: system
                .guests
                .iter()
                .zip(placements)
                .map(|(guest, placement)| partition(guest, placement))
                .collect(),
        }
    }

    /// Returns the report for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} for board {}, loaded at {}",
            self.file, self.board, self.image_base
        );
        let _ = writeln!(text, "\n  offset      bytes       what");
        for piece in &self.pieces {
            let _ = writeln!(
                text,
                "  {:#010x}  {:>10}  {}",
                piece.offset, piece.bytes, piece.what
            );
        }
        let _ = writeln!(text, "  {:>22}  in all", self.image_bytes);
        let _ = writeln!(
            text,
            "\n  partition        PEs      RAM                      at (PA)     entry (IPA)"
        );
        for one in &self.partitions {
            let pes: Vec<_> = one.pes.iter().map(u64::to_string).collect();
            let _ = writeln!(
                text,
                "  {:<15}  {:<7}  {:>5} MiB at {}  {:<10}  {} ({})",
                one.name,
                pes.join(","),
                one.ram_bytes >> 20,
                one.ram_ipa,
                one.ram_pa,
                one.entry,
                one.kernel
            );
        }
        for one in &self.partitions {
            if let Some(at) = &one.spares_pa {
                let _ = writeln!(
                    text,
                    "\n  {}: {} spare pages at {at}",
                    one.name, one.spare_pages
                );
            }
            let words: Vec<_> = one
                .on_error
                .iter()
                .map(|(class, word)| format!("{class} {word}"))
                .collect();
            let _ = writeln!(text, "\n  {} on errors: {}", one.name, words.join(", "));
        }
        if let Some(digest) = &self.sha256 {
            let _ = writeln!(text, "\n  sha256 {digest}");
        }
        text
    }
}

fn partition(guest: &Guest, placement: &Placement) -> PartitionReport {
    let partition = &guest.partition;
    PartitionReport {
        name: partition.name.value.clone(),
        pes: partition.pes.value.iter().map(|pe| pe.value).collect(),
        ram_pa: format!("{:#x}", placement.ram.start.get()),
        ram_ipa: format!("{:#x}", placement.ram_ipa.get()),
        ram_bytes: partition.memory_bytes.value,
        spare_pages: partition.spare_pages,
        spares_pa: (placement.spares.len_bytes != 0)
            .then(|| format!("{:#x}", placement.spares.start)),
        entry: format!("{:#x}", guest.layout.kernel.get()),
        kernel: match (guest.kernel.file_kind, guest.kernel.was_packed) {
            (kind, false) => kind.name().to_owned(),
            (kind, true) => format!("{}, gzip", kind.name()),
        },
        ramdisk: guest.layout.ramdisk.map(|ipa| format!("{:#x}", ipa.get())),
        on_error: Class::ALL
            .iter()
            .map(|class| {
                (
                    class.to_string(),
                    partition.policy.reaction(*class).to_string(),
                )
            })
            .collect(),
    }
}
