// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian's U-Boot for QEMU `virt`, taken out of its package: the tests boot images with it.

use std::fs;

use anyhow::{Context, Result};

use super::apt::PrivateApt;
use crate::paths;
use crate::process::{self, step};

const PACKAGE: &str = "u-boot-qemu";
const KEPT: &str = "usr/lib/u-boot/qemu_arm64/u-boot.bin";

/// Says whether it stands where the tests look for it.
pub(super) fn is_present() -> bool {
    paths::uboot().is_file()
}

/// Downloads the package, and keeps what is needed of it.
pub(super) fn fetch(apt: &PrivateApt) -> Result<()> {
    apt.update()?;
    let dir = paths::out().join("uboot-package");
    let _ = fs::remove_dir_all(&dir);
    step(format!("set-up: downloading {PACKAGE}"));
    let deb = apt.download(PACKAGE, &dir)?;
    let tree = dir.join("tree");
    process::run(process::command("dpkg-deb").arg("-x").arg(&deb).arg(&tree))?;
    let from = tree.join(KEPT);
    fs::copy(&from, paths::uboot()).with_context(|| from.display().to_string())?;
    fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())
}
