// SPDX-License-Identifier: MIT OR Apache-2.0
//! The partitions that a path runs in, and the image that has them.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use super::super::paths::Path;
use super::dir;
use crate::{build, image};

/// The partitions that a path runs in, by the name of their file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in super::super) enum System {
    /// The sweep guest alone.
    Alone,
    /// The sweep guest, and another one on a PE of its own that must not notice anything.
    Beside,
    /// The same with as little memory as there can be, for a partition that ends in each round.
    Lives,
    /// The sweep guest alone, with memory of which a page can be lost again and again.
    Pages,
    /// The sweep guest with two vCPUs, and a bystander.
    Pair,
    /// The same with as little memory as there can be.
    PairLives,
    /// The same with memory of which a page can be lost again and again.
    PairPages,
    /// The sweep guest alone, with a device.
    Device,
    /// The same beside another one that has such memory, too.
    PagesBeside,
}

impl System {
    pub(super) const fn file(self) -> &'static str {
        match self {
            Self::Alone => "sweep",
            Self::Beside => "sweep-beside",
            Self::Lives => "sweep-lives",
            Self::Pages => "sweep-pages",
            Self::Device => "sweep-device",
            Self::Pair => "sweep-pair",
            Self::PairLives => "sweep-pair-lives",
            Self::PairPages => "sweep-pair-pages",
            Self::PagesBeside => "sweep-pages-beside",
        }
    }

    pub(super) const fn pes(self) -> u32 {
        match self {
            Self::Alone | Self::Pages | Self::Device => 1,
            Self::Beside | Self::Lives | Self::PagesBeside => 2,
            Self::Pair | Self::PairLives | Self::PairPages => 3,
        }
    }
}

/// Makes the image for a path.
pub(super) fn make_image(
    path: &Path,
    system: System,
    hypervisor: Option<&std::path::Path>,
) -> Result<PathBuf> {
    let template = image::test_manifest(system.file());
    let text = fs::read_to_string(&template).with_context(|| template.display().to_string())?;
    let arguments = format!("sweep={} period={}", path.round, path.period_ticks);
    let mut text = text.replace("sweep=hvc period=1048576", &arguments);
    if path.traced {
        text = text.replacen("[system]\n", "[system]\ntrace = \"4 KiB\"\n", 1);
    }
    if !path.typed.is_empty() && !text.contains("control = true") {
        text = text.replacen("[system]\n", "[system]\ncontrol = true\n", 1);
    }
    let built = hypervisor.and_then(|file| Some(format!("-{}", file.file_name()?.display())));
    let name = format!(
        "{}-{}{}",
        system.file(),
        path.name,
        built.unwrap_or_default()
    );
    // Machines of the same path may start at the same time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let manifest = dir().join(format!("{name}.toml"));
    build::write_if_changed(&manifest, text.as_bytes())?;
    let to = dir().join(format!("{name}.img"));
    image::build_with(&manifest, &to, hypervisor)?;
    Ok(to)
}
