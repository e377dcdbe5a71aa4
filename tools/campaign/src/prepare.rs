// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that is built before the first case: images, with each policy, and who the guests are.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use firebreak_image::{Diagnostics, Options, System};
use sha2::{Digest as _, Sha256};

use crate::plan::{Guest, Plan, Policy};

/// Where a campaign finds what it boots.
#[derive(Clone, Debug)]
pub struct Files {
    /// Directory of images and RAM disks.
    pub payloads: PathBuf,
    /// The bare hypervisor.
    pub hypervisor: PathBuf,
    /// The reference firmware.
    pub firmware: PathBuf,
}

impl Files {
    /// Everything where `cargo xtask build` puts it.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            payloads: dir.to_owned(),
            hypervisor: dir.join("hypervisor.bin"),
            firmware: dir.join("firmware.bin"),
        }
    }
}

/// Why a campaign cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A partition file, or what it names.
    #[error("the guest \"{guest}\": {problems}")]
    System {
        /// Name of the guest.
        guest: String,
        /// What is wrong.
        problems: Diagnostics,
    },
    /// Something else of a guest.
    #[error("the guest \"{guest}\": {why}")]
    Guest {
        /// Name of the guest.
        guest: String,
        /// What is wrong, and the remedy.
        why: String,
    },
    /// Files.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A guest with a policy, ready to be booted.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) guest: usize,
    pub(crate) policy: Option<usize>,
    pub(crate) path: PathBuf,
}

/// Everything that was built.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) images: Vec<Image>,
    /// For each guest of the plan, what it is.
    pub(crate) guests: Vec<firebreak_report::Guest>,
    /// For each guest, whether it sees FEAT_RAS.
    pub(crate) ras_visible: Vec<bool>,
}

/// Builds everything that a plan needs into `dir`.
pub(crate) fn prepare(plan: &Plan, files: &Files, dir: &Path) -> Result<Prepared, Error> {
    let mut prepared = Prepared {
        images: Vec::new(),
        guests: Vec::new(),
        ras_visible: Vec::new(),
    };
    let policies: Vec<Option<usize>> = match plan.policies.len() {
        0 => vec![None],
        count => (0..count).map(Some).collect(),
    };
    for (index, guest) in plan.guests.iter().enumerate() {
        for policy in &policies {
            let chosen = policy.and_then(|policy| plan.policies.get(policy));
            let system = with_policy(guest, chosen, dir)?;
            let options = Options {
                payloads: Some(files.payloads.clone()),
                hypervisor: Some(files.hypervisor.clone()),
            };
            let built =
                firebreak_image::build(&system, &options).map_err(|problems| Error::System {
                    guest: guest.name.clone(),
                    problems,
                })?;
            let path = dir.join(format!("{index}-{}.img", policy.map_or(0, |one| one + 1)));
            write(&path, &built.bytes)?;
            if prepared.guests.len() == index {
                let (who, visible) = identify(guest, &built.system)?;
                prepared.guests.push(who);
                prepared.ras_visible.push(visible);
            }
            prepared.images.push(Image {
                guest: index,
                policy: *policy,
                path,
            });
        }
    }
    Ok(prepared)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|source| Error::Io {
        what: format!("writing {}", path.display()),
        source,
    })
}

/// Says what a guest is.
fn identify(guest: &Guest, system: &System) -> Result<(firebreak_report::Guest, bool), Error> {
    let refuse = |why: String| Error::Guest {
        guest: guest.name.clone(),
        why,
    };
    let find = |name: &str| {
        let mut guests = system.guests.iter();
        guests.find(|one| one.partition.name.value == *name)
    };
    let ours = find(&guest.partition).ok_or_else(|| {
        let names: Vec<&str> = system
            .guests
            .iter()
            .map(|one| one.partition.name.value.as_str())
            .collect();
        refuse(format!(
            "{} has no partition \"{}\"; name one of: {}",
            guest.system.display(),
            guest.partition,
            names.join(", ")
        ))
    })?;
    if let Some(bystander) = guest.bystander.as_ref().filter(|name| find(name).is_none()) {
        return Err(refuse(format!(
            "there is no partition \"{bystander}\" to look on"
        )));
    }
    let bytes = &ours.kernel.payload.bytes;
    let what = match guest.what.is_empty() {
        true => banner(bytes).unwrap_or_else(|| ours.partition.image.value.clone()),
        false => guest.what.clone(),
    };
    let who = firebreak_report::Guest {
        name: guest.name.clone(),
        what,
        sha256: hex_sha256(bytes),
    };
    Ok((who, ours.partition.ras_visible))
}

/// Returns the SHA-256 of some bytes, in hex.
pub(crate) fn hex_sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What a kernel says of itself: `Linux 6.1.0-50-arm64`.
fn banner(bytes: &[u8]) -> Option<String> {
    const START: &[u8] = b"Linux version ";
    let mut windows = bytes.windows(START.len()).enumerate();
    loop {
        let (at, _) = windows.find(|(_, window)| *window == START)?;
        let rest = bytes.get(at + START.len()..)?;
        let word: String = rest
            .iter()
            .take(64)
            .take_while(|byte| byte.is_ascii_graphic())
            .map(|byte| char::from(*byte))
            .collect();
        // There is also a format string for it.
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(format!("Linux {word}"));
        }
    }
}

/// Returns the partition file to build, which is a changed one if there is a policy.
fn with_policy(guest: &Guest, policy: Option<&Policy>, dir: &Path) -> Result<PathBuf, Error> {
    let Some(policy) = policy.filter(|policy| !policy.on_error.is_empty()) else {
        return Ok(guest.system.clone());
    };
    let refuse = |why: String| Error::Guest {
        guest: guest.name.clone(),
        why,
    };
    let text = fs::read_to_string(&guest.system).map_err(|source| Error::Io {
        what: format!("reading {}", guest.system.display()),
        source,
    })?;
    let mut document: toml::Table = text
        .parse()
        .map_err(|error| refuse(format!("{}: {error}", guest.system.display())))?;
    let parent = guest.system.parent().unwrap_or(Path::new(""));
    absolute_board(&mut document, parent);
    let partitions = document
        .get_mut("partition")
        .and_then(|list| list.as_array_mut());
    let ours = partitions
        .into_iter()
        .flatten()
        .find(|one| one.get("name").and_then(|name| name.as_str()) == Some(&guest.partition));
    let ours = ours
        .and_then(|one| one.as_table_mut())
        .ok_or_else(|| refuse(format!("{} has no such partition", guest.system.display())))?;
    let on_error = ours
        .entry("on_error")
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let Some(on_error) = on_error.as_table_mut() {
        for (class, reaction) in &policy.on_error {
            on_error.insert(class.clone(), toml::Value::String(reaction.clone()));
        }
    }
    let path = dir.join(format!("{}-{}.toml", guest.name, policy.name));
    write(&path, document.to_string().as_bytes())?;
    Ok(path)
}

/// A board that is a file stands relative to the partition file, which moves.
fn absolute_board(document: &mut toml::Table, parent: &Path) {
    let system = document
        .get_mut("system")
        .and_then(|system| system.as_table_mut());
    let Some(board) = system.and_then(|system| system.get_mut("board")) else {
        return;
    };
    let path = board.as_str().map(|name| parent.join(name));
    if let Some(path) = path.filter(|path| path.is_file()) {
        let path = fs::canonicalize(&path).unwrap_or(path);
        *board = toml::Value::String(path.display().to_string());
    }
}
