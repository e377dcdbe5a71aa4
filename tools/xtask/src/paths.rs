// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

/// Returns the top of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Returns where cargo builds.
pub(crate) fn cargo_target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Returns where everything goes that is ours: images, kernel, initramfs, logs.
pub(crate) fn out() -> PathBuf {
    workspace().join("target/firebreak")
}

/// Returns where the Linux kernel and its modules are unpacked.
pub(crate) fn kernel() -> PathBuf {
    out().join("kernel")
}

/// Returns U-Boot for QEMU `virt`, as set-up leaves it.
pub(crate) fn uboot() -> PathBuf {
    out().join("u-boot.bin")
}
