// SPDX-License-Identifier: MIT OR Apache-2.0
//! Partition files, checks, and the one bootable image.
//!
//! [`check`] reads a TOML file and everything that it names, and finds what cannot work, with
//! the line and the remedy. [`build`] makes an arm64 `Image` of it that holds hypervisor,
//! configuration and payloads (`firebreak_abi::image`). The last word in both has the code that
//! runs in the hypervisor itself, `firebreak-manifest`. `docs/partitions.md` describes the file.

mod board;
mod config;
mod devices;
mod diagnostic;
pub mod document;
mod dts;
mod elf;
mod explain;
pub mod fields;
mod first;
mod layout;
mod partition;
mod payload;
mod report;
mod reserve;
mod schema;
mod surprises;
mod system;

use std::path::Path;

pub use board::BoardFile;
pub use devices::{DeviceEntry, DeviceUse, MemoryPlace};
pub use diagnostic::{Diagnostics, Dialect, Level, Problem, Source};
pub use document::At;
pub use explain::{ErrorUse, Explanation, InterruptUse, PeUse, Region};
pub use firebreak_boards::KNOWN as KNOWN_BOARDS;
pub use first::{board_file, partition_file};
pub use layout::NOMINAL_HYPERVISOR_BYTES;
pub use partition::{Loaded, Partition, PartitionFile};
pub use payload::{FileKind, Kernel, Payload};
pub use report::{PartitionReport, Piece, Report};
pub use schema::schema;
pub use system::{Guest, Options, System, check};

/// A bootable image.
#[derive(Clone, Debug)]
pub struct Built {
    /// The file's contents.
    pub bytes: Vec<u8>,
    /// What it was made of.
    pub system: System,
    /// The same, for telling.
    pub report: Report,
}

/// Checks a partition file and makes the image.
///
/// The same inputs give the same bytes.
///
/// # Errors
///
/// What [`check`] finds, and a hypervisor that is missing or is none.
pub fn build(file: &Path, options: &Options) -> Result<Built, Diagnostics> {
    if options.hypervisor.is_none() {
        return Err(Problem {
            level: Level::Error,
            message: "no hypervisor was named to build an image with".to_owned(),
            label: String::new(),
            remedy: "name the bare hypervisor with --hypervisor FILE or FIREBREAK_HYPERVISOR; \
                     `cargo xtask build` makes target/firebreak/hypervisor.bin"
                .to_owned(),
            source: Source::new(file, ""),
            span: None,
        }
        .into());
    }
    let system = check(file, options)?;
    let bytes = system.image.assemble(&system.hypervisor, &system.config);
    let report = Report::new(&system, Some(&bytes));
    Ok(Built {
        bytes,
        system,
        report,
    })
}
