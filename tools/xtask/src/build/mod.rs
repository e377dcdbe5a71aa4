// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds everything that runs on the machine: hypervisor, firmware, guests, agent, initramfs.
//!
//! cargo knows what is up to date; what comes behind it (raw binaries, initramfs, images) takes
//! milliseconds and is made anew each time, but a file is only written when its bytes change.

mod cpio;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::process::{self, step};
use crate::setup::kernel;
use crate::targets::{self, Group};
use crate::{image, paths};

/// Builds hypervisor, firmware, guests and the demo's image into target/firebreak.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask build                           build everything
  cargo xtask build --json build.json         and write what was built as JSON
  qemu-system-aarch64 -M virt,virtualization=on,gic-version=3 -cpu neoverse-n1 -smp 4 -m 1024 \\
      -nic none -nographic -kernel target/firebreak/demo.img   boot it by hand, without firmware")]
pub(crate) struct Args {
    /// Writes {"files":[{"path","bytes"}]}: what can be loaded, booted or debugged.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    crate::setup::run(&crate::setup::Args::unattended())?;
    all()?;
    process::write_json(args.json.as_deref(), &object(&built())?)?;
    step(format!("build: done, see {}", paths::out().display()));
    Ok(())
}

/// Builds everything, the demo's image included.
pub(crate) fn all() -> Result<()> {
    hypervisor()?;
    firmware()?;
    guests()?;
    initramfs()?;
    image::build(&image::demo_manifest(), &demo_image())
}

/// Returns the files that a whole build makes.
fn built() -> Vec<PathBuf> {
    let out = paths::out();
    let mut files = vec![
        out.join("hypervisor.bin"),
        hypervisor_elf(),
        firmware_image(),
        out.join("firmware.elf"),
    ];
    for package in targets::GUESTS.packages {
        let name = package.trim_start_matches("firebreak-guest-");
        files.extend([out.join(format!("guests/{name}.bin")), guest_elf(name)]);
    }
    files.extend([
        out.join("guests/agent"),
        out.join("initramfs.cpio"),
        demo_image(),
    ]);
    files
}

/// Files as programs are told of them; each has to be there.
fn object(files: &[PathBuf]) -> Result<Value> {
    let mut rows = Vec::new();
    for path in files {
        let metadata =
            fs::metadata(path).with_context(|| format!("{} was not built", path.display()))?;
        rows.push(json!({ "path": path.display().to_string(), "bytes": metadata.len() }));
    }
    Ok(json!({ "files": rows }))
}

/// Returns the demo's image.
pub(crate) fn demo_image() -> PathBuf {
    paths::out().join("demo.img")
}

/// Returns the firmware's flash image.
pub(crate) fn firmware_image() -> PathBuf {
    paths::out().join("firmware.bin")
}

/// Returns the hypervisor as it was linked.
pub(crate) fn hypervisor_elf() -> PathBuf {
    paths::out().join("hypervisor.elf")
}

/// Returns a bare-metal guest as it was linked.
pub(crate) fn guest_elf(name: &str) -> PathBuf {
    paths::out().join(format!("guests/{name}.elf"))
}

/// Builds the hypervisor.
pub(crate) fn hypervisor() -> Result<()> {
    step("build: hypervisor");
    let elf = release(&targets::PRIVILEGED, "firebreak-hypervisor")?;
    raw(&elf, &paths::out().join("hypervisor.bin"))?;
    write_if_changed(&hypervisor_elf(), &read(&elf)?)
}

/// Builds the firmware.
pub(crate) fn firmware() -> Result<()> {
    step("build: firmware");
    let elf = release(&targets::PRIVILEGED, "firebreak-el3")?;
    raw(&elf, &firmware_image())?;
    write_if_changed(&paths::out().join("firmware.elf"), &read(&elf)?)
}

/// Builds the hypervisor with a feature that the shipped one does not have, as the raw binary `to`.
/// Returns the linked program.
pub(crate) fn featured_hypervisor(feature: &str, to: &Path) -> Result<PathBuf> {
    step(format!("build: hypervisor with {feature}"));
    let dir = paths::cargo_target().join("featured");
    let target = targets::PRIVILEGED.triple;
    process::run(
        process::cargo()
            .args(["build", "--release", "--locked", "--target", target])
            .args(["--package", "firebreak-hypervisor", "--features", feature])
            .arg("--target-dir")
            .arg(&dir),
    )?;
    let elf = dir.join(target).join("release/firebreak-hypervisor");
    raw(&elf, to)?;
    Ok(elf)
}

/// Builds the bare-metal guests, each as `guests/<last part of its name>`.
pub(crate) fn guests() -> Result<()> {
    step("build: bare-metal guests");
    for package in targets::GUESTS.packages {
        let elf = release(&targets::GUESTS, package)?;
        let name = package.trim_start_matches("firebreak-guest-");
        raw(&elf, &paths::out().join(format!("guests/{name}.bin")))?;
        write_if_changed(
            &paths::out().join(format!("guests/{name}.elf")),
            &read(&elf)?,
        )?;
    }
    Ok(())
}

/// Builds the agent, and the initramfs that holds it and the modules of the kernel that it loads.
pub(crate) fn initramfs() -> Result<()> {
    step("build: agent and initramfs");
    let elf = release(&targets::AGENT, "firebreak-agent")?;
    let stripped = paths::out().join("guests/agent");
    objcopy(&["--strip-all"], &elf, &stripped)?;
    let agent = read(&stripped)?;
    let mut modules = Vec::new();
    for name in kernel::modules() {
        let path = paths::kernel().join(name);
        // A kernel that was set up by hand may have these built in.
        if path.is_file() {
            modules.push((format!("lib/modules/{name}"), read(&path)?));
        }
    }
    let directory = |path| cpio::Entry {
        path,
        contents: None,
        executable: false,
    };
    let mut entries = vec![
        directory("lib"),
        directory("lib/modules"),
        cpio::Entry {
            path: "init",
            contents: Some(&agent),
            executable: true,
        },
    ];
    entries.extend(modules.iter().map(|(path, contents)| cpio::Entry {
        path,
        contents: Some(contents),
        executable: false,
    }));
    let archive = cpio::archive(&entries);
    write_if_changed(&paths::out().join("initramfs.cpio"), &archive)
}

/// Builds one binary, and returns where it is.
fn release(group: &Group, package: &str) -> Result<PathBuf> {
    let target = group.triple;
    let args = [
        "build",
        "--release",
        "--locked",
        "--target",
        target,
        "--package",
        package,
    ];
    process::run(process::cargo().args(args))?;
    Ok(paths::cargo_target()
        .join(target)
        .join("release")
        .join(package))
}

/// Cuts a linked program to the bytes that are loaded.
fn raw(elf: &Path, to: &Path) -> Result<()> {
    objcopy(&["--output-target=binary"], elf, to)
}

fn objcopy(options: &[&str], from: &Path, to: &Path) -> Result<()> {
    let draft = to.with_extension("draft");
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    process::run(
        process::command(llvm_objcopy()?)
            .args(options)
            .arg(from)
            .arg(&draft),
    )?;
    write_if_changed(to, &read(&draft)?)?;
    fs::remove_file(&draft).with_context(|| draft.display().to_string())
}

/// Finds the objcopy of rustup's component `llvm-tools`.
fn llvm_objcopy() -> Result<PathBuf> {
    let sysroot = process::output(process::command("rustc").args(["--print", "sysroot"]))?;
    let version = process::output(process::command("rustc").arg("-vV"))?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("`rustc -vV` does not name the host")?;
    Ok(Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(host)
        .join("bin/llvm-objcopy"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

/// Leaves a file alone that holds these bytes already.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    fs::write(path, bytes).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_of_files_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("hypervisor.bin");
        fs::write(&there, [0; 7]).unwrap();
        let told = object(std::slice::from_ref(&there)).unwrap();
        assert_eq!(told["files"][0]["bytes"], 7);
        assert_eq!(told["files"][0]["path"], there.display().to_string());
        let missing = object(&[there, dir.path().join("firmware.bin")]).unwrap_err();
        assert!(format!("{missing:#}").contains("firmware.bin was not built"));
    }
}
