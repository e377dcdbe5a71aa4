// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds out what is missing on this machine, says what will be done about it, and does it.
//!
//! Three things are needed: rustup's targets and components (named in `rust-toolchain.toml`),
//! QEMU 10 or newer, and Debian's arm64 kernel. The system's own package manager gets the last
//! two from wherever this machine gets its packages already.

mod apt;
pub(crate) mod kernel;
mod sources;
mod uboot;

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::process::{self, Unusable, step};

/// The oldest QEMU that the demo and the tests are made for.
const QEMU_MAJOR: u32 = 10;

/// The browser that the tests of the campaigns' reports drive: a program, and Debian's package.
const CHROMIUM: &str = "chromium";

/// The toolchain that runs miri, which stable ones do not have.
pub(crate) const MIRI_TOOLCHAIN: &str = "nightly";
const MIRI_INSTALL: [&str; 9] = [
    "toolchain",
    "install",
    MIRI_TOOLCHAIN,
    "--profile",
    "minimal",
    "--component",
    "miri,rust-src",
    "--allow-downgrade",
    "--no-self-update",
];

/// Says whether miri can be run.
pub(crate) fn has_miri() -> bool {
    let listed = process::output(process::command("rustup").args([
        "component",
        "list",
        "--installed",
        "--toolchain",
        MIRI_TOOLCHAIN,
    ]));
    listed.is_ok_and(|list| lists(&list, "miri") && lists(&list, "rust-src"))
}

/// Finds what is missing (rustup targets, QEMU 10, an arm64 kernel), and installs it.
///
/// Says first what it is about to do. On a system that it does not know it prints what to
/// install, and stops with exit code 2.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask setup              say what is missing, ask, install
  cargo xtask setup --yes        do not ask (for scripts)
  cargo xtask setup --dry-run    only say what would be done
  cargo xtask setup --dry-run --json setup.json    and write it as JSON
  QEMU=/opt/qemu/bin/qemu-system-aarch64 cargo xtask setup    use another QEMU")]
pub(crate) struct Args {
    /// Does not ask before it installs.
    #[arg(long)]
    yes: bool,
    /// Says what it would do, and does nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also gets what only the tests use: a nightly toolchain with miri, U-Boot, and Chromium.
    #[arg(long)]
    tests: bool,
    /// Writes {"actions":[...],"done"}: what was missing, in words, and whether all of it is there now.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Acts as if nothing were there yet (to see the plan of a fresh machine).
    #[arg(long, hide = true)]
    pretend_missing: bool,
    /// Reads another file than /etc/os-release.
    #[arg(long, hide = true, default_value = "/etc/os-release")]
    os_release: PathBuf,
    /// Reads another directory than /etc/apt.
    #[arg(long, hide = true, default_value = "/etc/apt")]
    apt_dir: PathBuf,
}

impl Args {
    /// The arguments of a set-up that another command calls.
    pub(crate) fn unattended() -> Self {
        Self {
            yes: true,
            dry_run: false,
            tests: false,
            json: None,
            pretend_missing: false,
            os_release: "/etc/os-release".into(),
            apt_dir: "/etc/apt".into(),
        }
    }
}

impl Args {
    /// The arguments of the set-up that the tests call.
    pub(crate) fn for_tests() -> Self {
        Self {
            tests: true,
            ..Self::unattended()
        }
    }
}

/// One thing that set-up does.
enum Action {
    /// Runs rustup.
    Rustup(Vec<String>),
    /// Gets miri, which is not there for every nightly; the tests can do without.
    Miri,
    /// Writes a file of the system.
    WriteSystemFile { path: PathBuf, contents: String },
    /// Runs apt-get as root.
    AptGet(Vec<String>),
    /// Downloads and unpacks the kernel, without touching the system.
    Kernel(apt::PrivateApt),
    /// Downloads and unpacks U-Boot, without touching the system.
    Uboot(apt::PrivateApt),
}

impl Action {
    fn describe(&self) -> String {
        match self {
            Self::Rustup(args) => format!("run: rustup {}", args.join(" ")),
            Self::Miri => format!("run, if it works: rustup {}", MIRI_INSTALL.join(" ")),
            Self::WriteSystemFile { path, contents } => {
                let mut text = format!("write {}:", path.display());
                for line in contents.lines().filter(|line| !line.is_empty()) {
                    text.push_str("\n       ");
                    text.push_str(line);
                }
                text
            }
            Self::AptGet(args) => format!("run as root: apt-get {}", args.join(" ")),
            Self::Kernel(_) => format!(
                "download Debian's arm64 kernel package with apt-get (not installed on this \
                 machine), unpack it into {}",
                paths::kernel().display()
            ),
            Self::Uboot(_) => format!(
                "download Debian's U-Boot for QEMU with apt-get (not installed on this machine), \
                 keep {}",
                paths::uboot().display()
            ),
        }
    }

    fn perform(&self) -> Result<()> {
        match self {
            Self::Rustup(args) => process::run(process::command("rustup").args(args)),
            Self::Miri => {
                if let Err(error) = process::run(process::command("rustup").args(MIRI_INSTALL)) {
                    step(format!(
                        "set-up: no miri, so its tests will be left out: {error:#}"
                    ));
                }
                Ok(())
            }
            Self::WriteSystemFile { path, contents } => write_system_file(path, contents),
            Self::AptGet(args) => process::run(as_root("apt-get")?.args(args)),
            Self::Kernel(apt) => kernel::fetch(apt),
            Self::Uboot(apt) => uboot::fetch(apt),
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let actions = plan(args)?;
    let words: Vec<String> = actions.iter().map(Action::describe).collect();
    let result = carry_out(args, &actions);
    let done = actions.is_empty() || (result.is_ok() && !args.dry_run);
    process::write_json(
        args.json.as_deref(),
        &serde_json::json!({ "actions": words, "done": done }),
    )?;
    result
}

/// Says what is to be done, asks, and does it.
fn carry_out(args: &Args, actions: &[Action]) -> Result<()> {
    if actions.is_empty() {
        step("set-up: nothing is missing");
        return Ok(());
    }
    step("set-up: something is missing; this will be done:");
    for (number, action) in actions.iter().enumerate() {
        eprintln!("  {}. {}", number + 1, action.describe());
    }
    if args.dry_run {
        return Ok(());
    }
    if !args.yes && !confirmed()? {
        bail!(Unusable(
            "nothing was changed; `cargo xtask setup --yes` does not ask".to_owned()
        ));
    }
    for action in actions {
        step(format!(
            "set-up: {}",
            action.describe().lines().next().unwrap_or("")
        ));
        action.perform()?;
    }
    verify()
}

fn plan(args: &Args) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    plan_rustup(args, &mut actions)?;
    if args.tests && (args.pretend_missing || !has_miri()) {
        actions.push(Action::Miri);
    }
    let need_qemu = args.pretend_missing || !has_qemu();
    let need_kernel = args.pretend_missing || !kernel::is_present();
    let need_uboot = args.tests && (args.pretend_missing || !uboot::is_present());
    let need_chromium = args.tests && (args.pretend_missing || !process::is_installed(CHROMIUM));
    if need_qemu || need_kernel || need_uboot || need_chromium {
        let system = apt::System::read(&args.os_release, &args.apt_dir)?;
        if need_qemu {
            plan_qemu(&system, &mut actions)?;
        }
        if need_chromium {
            plan_chromium(&mut actions);
        }
        if need_kernel {
            actions.push(Action::Kernel(system.private_apt()?));
        }
        if need_uboot {
            actions.push(Action::Uboot(system.private_apt()?));
        }
    }
    Ok(actions)
}

/// Compares what `rust-toolchain.toml` names with what rustup has.
fn plan_rustup(args: &Args, actions: &mut Vec<Action>) -> Result<()> {
    let path = paths::workspace().join("rust-toolchain.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let file: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    if !process::is_installed("rustup") {
        bail!(Unusable(
            "rustup is missing: it gets the compiler and the targets that rust-toolchain.toml \
             names. Install rustup first, then try again"
                .to_owned()
        ));
    }
    let installed =
        |what| process::output(process::command("rustup").args([what, "list", "--installed"]));
    for (what, key) in [("target", "targets"), ("component", "components")] {
        let have = if args.pretend_missing {
            String::new()
        } else {
            installed(what)?
        };
        let wanted = file
            .get("toolchain")
            .and_then(|toolchain| toolchain.get(key));
        let missing: Vec<String> = wanted
            .and_then(toml::Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(toml::Value::as_str)
            .filter(|name| !lists(&have, name))
            .map(str::to_owned)
            .collect();
        if !missing.is_empty() {
            let words = [what.to_owned(), "add".to_owned()];
            actions.push(Action::Rustup(words.into_iter().chain(missing).collect()));
        }
    }
    Ok(())
}

/// Says whether rustup's list names it; components carry the host's triple behind a dash.
fn lists(installed: &str, name: &str) -> bool {
    installed.lines().map(str::trim).any(|line| {
        line == name
            || line
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('-'))
    })
}

fn has_qemu() -> bool {
    let chosen = std::env::var_os("QEMU").is_some();
    match firebreak_qemu::qemu_version(&firebreak_qemu::qemu_binary()) {
        Some((major, ..)) => chosen || major >= QEMU_MAJOR,
        None => false,
    }
}

fn plan_qemu(system: &apt::System, actions: &mut Vec<Action>) -> Result<()> {
    if let Some(binary) = std::env::var_os("QEMU") {
        bail!(Unusable(format!(
            "QEMU={} does not run: name a QEMU for aarch64, or unset QEMU to have one installed",
            binary.to_string_lossy()
        )));
    }
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let mut install: Vec<String> = words(&["install", "-y", "-q", "--no-install-recommends"]);
    if system.needs_backports() {
        let (path, contents) = system.backports_file()?;
        if fs::read_to_string(&path).ok().as_ref() != Some(&contents) {
            actions.push(Action::WriteSystemFile { path, contents });
        }
        install.push("-t".to_owned());
        install.push(format!("{}-backports", system.codename()));
    }
    actions.push(Action::AptGet(words(&["update", "-q"])));
    install.push("qemu-system-arm".to_owned());
    actions.push(Action::AptGet(install));
    Ok(())
}

/// The browser comes from the release itself, whatever QEMU comes from.
fn plan_chromium(actions: &mut Vec<Action>) {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let is_apt = |action: &Action| matches!(action, Action::AptGet(_));
    if !actions.iter().any(is_apt) {
        actions.push(Action::AptGet(words(&["update", "-q"])));
    }
    let install = ["install", "-y", "-q", "--no-install-recommends", CHROMIUM];
    actions.push(Action::AptGet(words(&install)));
}

fn verify() -> Result<()> {
    if !has_qemu() {
        let binary = firebreak_qemu::qemu_binary();
        bail!(Unusable(format!(
            "{} is still not QEMU {QEMU_MAJOR} or newer: install one, or name one with QEMU=",
            binary.to_string_lossy()
        )));
    }
    if !kernel::is_present() {
        bail!("{} still holds no kernel", paths::kernel().display());
    }
    step("set-up: done");
    Ok(())
}

fn confirmed() -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("Go on? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn is_root() -> bool {
    process::output(process::command("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Makes a command that runs as root, without questions of the package manager.
fn as_root(program: &str) -> Result<Command> {
    let environment = ["DEBIAN_FRONTEND=noninteractive", program];
    if is_root() {
        let mut command = process::command("env");
        command.args(environment);
        return Ok(command);
    }
    if process::is_installed("sudo") {
        let mut command = process::command("sudo");
        command.arg("env").args(environment);
        return Ok(command);
    }
    bail!(Unusable(format!(
        "`{program}` must run as root, and there is no sudo: do what is listed above as root, \
         then try again"
    )))
}

/// Writes a file of root's through a temporary one of ours.
fn write_system_file(path: &PathBuf, contents: &str) -> Result<()> {
    let draft = paths::out().join("system-file");
    fs::create_dir_all(paths::out())?;
    fs::write(&draft, contents).with_context(|| draft.display().to_string())?;
    process::run(
        as_root("install")?
            .args(["-m", "644"])
            .arg(&draft)
            .arg(path),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_listed_with_its_host_and_a_target_without() {
        let list =
            "clippy-x86_64-unknown-linux-gnu\nrustfmt-x86_64-unknown-linux-gnu (installed)\n";
        assert!(lists(list, "clippy") && lists(list, "rustfmt"));
        assert!(!lists(list, "llvm-tools") && !lists(list, "clip"));
    }
}
