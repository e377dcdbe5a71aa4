// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes bootable images out of partition files, by the code of `firebreak build`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use firebreak_image::Options;

use crate::build::write_if_changed;
use crate::paths;

/// Returns the demo's partition file.
pub(crate) fn demo_manifest() -> PathBuf {
    paths::workspace().join("guest-images/demo/firebreak.toml")
}

/// Returns the partition file of that name among the tests'.
pub(crate) fn test_manifest(name: &str) -> PathBuf {
    paths::workspace()
        .join("tests/qemu/systems")
        .join(format!("{name}.toml"))
}

/// Builds an image from a partition file, with what `build` left in our output directory.
pub(crate) fn build(manifest: &Path, image: &Path) -> Result<()> {
    build_with(manifest, image, None)
}

/// The same, with another hypervisor than the one that `build` left there.
pub(crate) fn build_with(manifest: &Path, image: &Path, hypervisor: Option<&Path>) -> Result<()> {
    let own = || paths::out().join("hypervisor.bin");
    let options = Options {
        payloads: Some(paths::out()),
        hypervisor: Some(hypervisor.map_or_else(own, Path::to_path_buf)),
    };
    let built = firebreak_image::build(manifest, &options).map_err(|error| anyhow!("{error:?}"))?;
    write_if_changed(image, &built.bytes)
}

/// Returns the syndrome that a partition's policy names for recoverable errors, if it names one.
pub(crate) fn uer_syndrome(manifest: &Path, partition: &str) -> Result<Option<u64>> {
    let text = fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
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
