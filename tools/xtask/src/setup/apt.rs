// SPDX-License-Identifier: MIT OR Apache-2.0
//! What kind of Debian this is, and an APT of our own for packages of another architecture.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::sources::{self, Source};
use crate::paths;
use crate::process::{self, Unusable};

/// The release whose own QEMU is too old, and whose backports have a new one.
const RELEASE_WITH_OLD_QEMU: u32 = 12;

/// A Debian.
pub(super) struct System {
    codename: String,
    version: Option<u32>,
    sources: Vec<Source>,
    apt_dir: PathBuf,
}

impl System {
    /// Reads what the system says of itself.
    pub(super) fn read(os_release: &Path, apt_dir: &Path) -> Result<Self> {
        let text = fs::read_to_string(os_release).unwrap_or_default();
        let field = |key: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            Some(value.trim_matches('"').to_owned())
        };
        let id = field("ID").unwrap_or_default();
        let version = field("VERSION_ID").and_then(|version| version.parse().ok());
        let codename = field("VERSION_CODENAME").unwrap_or_default();
        let too_old = version.is_some_and(|version| version < RELEASE_WITH_OLD_QEMU);
        if id != "debian" || codename.is_empty() || too_old || !process::is_installed("apt-get") {
            bail!(Unusable(what_to_install(
                &field("PRETTY_NAME").unwrap_or(id)
            )));
        }
        Ok(Self {
            codename,
            version,
            sources: read_sources(apt_dir)?,
            apt_dir: apt_dir.to_path_buf(),
        })
    }

    pub(super) fn codename(&self) -> &str {
        &self.codename
    }

    /// Says whether QEMU has to come from the backports.
    pub(super) fn needs_backports(&self) -> bool {
        self.version == Some(RELEASE_WITH_OLD_QEMU)
    }

    /// Returns the file that adds the backports, and what it holds.
    pub(super) fn backports_file(&self) -> Result<(PathBuf, String)> {
        let path = self
            .apt_dir
            .join("sources.list.d/firebreak-backports.sources");
        let stanza = sources::backports(&self.sources, &self.codename);
        Ok((path, stanza.with_context(|| self.no_source())?))
    }

    /// Makes an APT that knows arm64 packages, and leaves the machine's own alone.
    pub(super) fn private_apt(&self) -> Result<PrivateApt> {
        let stanzas = sources::release_and_security(&self.sources, &self.codename);
        let stanzas = stanzas.with_context(|| self.no_source())?;
        Ok(PrivateApt {
            dir: paths::out().join("apt"),
            stanzas,
        })
    }

    fn no_source(&self) -> String {
        format!(
            "no entry of {}/sources.list or sources.list.d names the suite `{}` with the component \
             `main`: add the line that your mirror documents, then try again",
            self.apt_dir.display(),
            self.codename
        )
    }
}

fn what_to_install(system: &str) -> String {
    let system = if system.is_empty() {
        "this system"
    } else {
        system
    };
    format!(
        "{system} is not a Debian 12 or newer, so nothing is installed here. Needed are:
  * QEMU 10 or newer with qemu-system-aarch64, in PATH or named by QEMU=
  * a Linux kernel for arm64, best Debian's package linux-image-<release>-cloud-arm64-unsigned:
    from its files put boot/vmlinuz-<release> to {kernel}/Image, and beside it from
    lib/modules/<release>/kernel/drivers: watchdog/watchdog.ko, watchdog/sbsa_gwdt.ko,
    virtio/virtio.ko, virtio/virtio_ring.ko, virtio/virtio_mmio.ko, block/virtio_blk.ko
  * for the tests, Chromium as `chromium` in PATH
then try again",
        kernel = paths::kernel().display()
    )
}

fn read_sources(apt_dir: &Path) -> Result<Vec<Source>> {
    let mut files = vec![apt_dir.join("sources.list")];
    if let Ok(entries) = fs::read_dir(apt_dir.join("sources.list.d")) {
        let mut more: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let read = || fs::read_to_string(file).with_context(|| file.display().to_string());
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => found.extend(sources::parse_deb822(&read()?)),
            Some("list") => found.extend(sources::parse_one_line(&read()?)),
            _ => {}
        }
    }
    Ok(found)
}

/// APT with a state of its own, for architecture arm64.
pub(super) struct PrivateApt {
    dir: PathBuf,
    stanzas: String,
}

impl PrivateApt {
    /// Makes its directories, and gets the lists of packages.
    pub(super) fn update(&self) -> Result<()> {
        for dir in ["lists/partial", "cache/archives/partial"] {
            let dir = self.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        let list = self.dir.join("debian.sources");
        fs::write(&list, &self.stanzas).with_context(|| list.display().to_string())?;
        process::run(self.command("apt-get").args(["update", "-q"]))
    }

    /// Returns the names of all packages that start with `prefix`.
    pub(super) fn package_names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = process::output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads a package into `dir`, and returns the file.
    pub(super) fn download(&self, package: &str, dir: &Path) -> Result<PathBuf> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        process::run(
            self.command("apt-get")
                .args(["download", "-q", package])
                .current_dir(dir),
        )?;
        let is_it = |path: &PathBuf| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or("");
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        };
        let mut files = fs::read_dir(dir)?.flatten().map(|entry| entry.path());
        files
            .find(is_it)
            .with_context(|| format!("apt-get left no {package}_*.deb"))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = process::command(program);
        let dir = self.dir.display();
        for option in [
            "APT::Architecture=arm64".to_owned(),
            "APT::Architectures::=arm64".to_owned(),
            // The directories are ours, which APT's own user need not be able to reach.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            format!("Dir::Etc::sourcelist={dir}/debian.sources"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(os_release: &str) -> Result<System> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("os"), os_release).unwrap();
        fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        let list =
            "deb http://m.example/debian bookworm main\ndeb http://m.example/debian trixie main\n";
        fs::write(dir.path().join("sources.list.d/a.list"), list).unwrap();
        fs::write(
            dir.path().join("sources.list.d/b.list.disabled"),
            "nonsense",
        )
        .unwrap();
        System::read(&dir.path().join("os"), dir.path())
    }

    #[test]
    fn only_debian_12_takes_qemu_from_the_backports() {
        let twelve = "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";
        assert!(system(twelve).unwrap().needs_backports());
        let (path, text) = system(twelve).unwrap().backports_file().unwrap();
        assert!(path.ends_with("sources.list.d/firebreak-backports.sources"));
        assert!(text.contains("Suites: bookworm-backports"));
        let thirteen = "ID=debian\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\n";
        assert!(!system(thirteen).unwrap().needs_backports());
    }

    #[test]
    fn an_unknown_system_is_told_what_to_install_and_gets_exit_code_2() {
        for text in [
            "ID=fedora\nVERSION_ID=43\nPRETTY_NAME=\"Fedora Linux 43\"\n",
            "ID=debian\nVERSION_ID=\"11\"\nVERSION_CODENAME=bullseye\n",
            "",
        ] {
            let error = system(text).err().unwrap();
            assert!(error.is::<Unusable>(), "{text}");
            assert!(error.to_string().contains("QEMU 10 or newer"), "{text}");
        }
    }
}
