// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian's arm64 kernel and the modules that its guests need (watchdog, virtio disk), taken out
//! of the package.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::apt::PrivateApt;
use crate::paths;
use crate::process::{self, step};

/// The modules, by their folder below `kernel/drivers`.
const MODULES: [(&str, &str); 6] = [
    ("watchdog", "watchdog.ko"),
    ("watchdog", "sbsa_gwdt.ko"),
    ("virtio", "virtio.ko"),
    ("virtio", "virtio_ring.ko"),
    ("virtio", "virtio_mmio.ko"),
    ("block", "virtio_blk.ko"),
];
/// The kernel that the project is tested with; any other of Debian's will do.
const PREFERRED: &str = "linux-image-6.1.0-";

/// Returns the file names of the modules, in the order in which they are loaded.
pub(crate) fn modules() -> impl Iterator<Item = &'static str> {
    MODULES.into_iter().map(|(_, module)| module)
}

/// Says whether the kernel stands where the demo looks for it.
pub(super) fn is_present() -> bool {
    let mut kept = std::iter::once("Image").chain(modules());
    kept.all(|name| paths::kernel().join(name).is_file())
}

/// Downloads the newest package, and keeps what is needed of it.
pub(super) fn fetch(apt: &PrivateApt) -> Result<()> {
    apt.update()?;
    let names = apt.package_names("linux-image-")?;
    let package = choose(&names).context("the mirror has no linux-image-*-cloud-arm64-unsigned")?;
    let dir = paths::out().join("kernel-package");
    let _ = fs::remove_dir_all(&dir);
    step(format!("set-up: downloading {package}"));
    let deb = apt.download(package, &dir)?;
    let tree = dir.join("tree");
    process::run(process::command("dpkg-deb").arg("-x").arg(&deb).arg(&tree))?;
    keep(&tree, &paths::kernel())?;
    fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())
}

/// Chooses the newest package of the preferred series, or the newest of all.
fn choose(names: &[String]) -> Option<&str> {
    let newest = |prefix: &str| {
        let fits = |name: &&str| {
            name.starts_with(prefix)
                && name.ends_with("-cloud-arm64-unsigned")
                && name
                    .as_bytes()
                    .get("linux-image-".len())
                    .is_some_and(u8::is_ascii_digit)
        };
        names
            .iter()
            .map(String::as_str)
            .filter(fits)
            .max_by(|a, b| by_number(a, b))
    };
    newest(PREFERRED).or_else(|| newest("linux-image-"))
}

/// Orders names by the numbers in them: 6.1.0-9 before 6.1.0-10.
fn by_number(a: &str, b: &str) -> Ordering {
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

/// Puts the kernel and its modules to their places.
fn keep(tree: &Path, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let boot = tree.join("boot");
    let mut files = fs::read_dir(&boot)
        .with_context(|| boot.display().to_string())?
        .flatten();
    let image = files
        .find(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"))
        .context("the package holds no boot/vmlinuz-*")?;
    let name = image.file_name().to_string_lossy().into_owned();
    let release = name.strip_prefix("vmlinuz-").unwrap_or(&name).to_owned();
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|lib| tree.join(lib).join(&release).join("kernel/drivers"))
        .into_iter()
        .find(|dir| dir.is_dir())
        .with_context(|| format!("the package holds no drivers for {release}"))?;
    for (folder, module) in MODULES {
        keep_module(&modules.join(folder), module, dir)?;
    }
    fs::write(dir.join("RELEASE"), format!("{release}\n"))?;
    // Last, so that an interrupted set-up is seen as such.
    fs::copy(image.path(), dir.join("Image"))?;
    Ok(())
}

/// Copies a module; newer kernels have theirs packed by xz.
fn keep_module(modules: &Path, name: &str, dir: &Path) -> Result<()> {
    let plain = modules.join(name);
    if plain.is_file() {
        fs::copy(&plain, dir.join(name))?;
        return Ok(());
    }
    let packed = modules.join(format!("{name}.xz"));
    if !packed.is_file() {
        bail!("the package holds no {name}");
    }
    let unpacked = process::command("xz").arg("-dc").arg(&packed).output();
    let unpacked = unpacked.context("cannot run xz, which unpacks the kernel's modules")?;
    if !unpacked.status.success() {
        bail!("xz cannot unpack {}", packed.display());
    }
    fs::write(dir.join(name), unpacked.stdout)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Option<String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        choose(&names).map(str::to_owned)
    }

    #[test]
    fn the_newest_cloud_kernel_of_the_tested_series_wins() {
        let names = [
            "linux-image-6.1.0-9-cloud-arm64-unsigned",
            "linux-image-6.1.0-56-cloud-arm64-unsigned",
            "linux-image-6.1.0-57-arm64-unsigned",
            "linux-image-6.1.0-58-cloud-arm64-dbg",
            "linux-image-6.12.94+deb12-cloud-arm64-unsigned",
            "linux-image-cloud-arm64-unsigned",
        ];
        assert_eq!(
            chosen(&names).unwrap(),
            "linux-image-6.1.0-56-cloud-arm64-unsigned"
        );
        assert_eq!(
            chosen(&names[4..]).unwrap(),
            "linux-image-6.12.94+deb12-cloud-arm64-unsigned"
        );
        assert_eq!(chosen(&names[5..]), None);
    }
}
