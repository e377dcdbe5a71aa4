// SPDX-License-Identifier: MIT OR Apache-2.0
//! What there is to be tested, in the order in which a mistake is found soonest.

use std::fmt;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;
use crate::{check, paths};

/// A part of all tests.
pub(super) struct Group {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// What it is, in a few words.
    pub(super) about: &'static str,
    /// What it does.
    pub(super) work: Work,
}

/// Commands, and of each whether it prints tests as libtest does.
type Commands = Vec<(Command, bool)>;

/// How a group is run.
pub(super) enum Work {
    /// A function of ours, which counts as one test.
    Call(fn() -> Result<()>),
    /// Commands.
    Commands(fn() -> Result<Commands>),
    /// The QEMU suite, with all that it boots.
    Qemu,
}

/// A group that cannot be run here, and need not be.
#[derive(Debug)]
pub(super) struct Skipped(&'static str);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Skipped {}

/// Returns all groups.
pub(super) fn all() -> [Group; 8] {
    let group = |name, about, work| Group { name, about, work };
    [
        group(
            "layers",
            "direction of dependencies, map of the code, licenses of others",
            Work::Call(check::rules),
        ),
        group(
            "lints",
            "format and clippy, for the host and for each target",
            Work::Commands(lints),
        ),
        group(
            "host",
            "unit, property and golden-file tests on this machine",
            Work::Commands(host),
        ),
        group(
            "docs",
            "API documentation without warnings",
            Work::Commands(docs),
        ),
        group(
            "loom",
            "every interleaving of the recovery queue",
            Work::Commands(loom),
        ),
        group(
            "miri",
            "memory model of the recovery queue",
            Work::Commands(miri),
        ),
        group("qemu", "the whole system, booted in QEMU", Work::Qemu),
        group(
            "sweep",
            "an SEI at each instruction boundary of two paths, and faults that it has to find",
            Work::Call(crate::sweep::short),
        ),
    ]
}

fn lints() -> Result<Commands> {
    Ok(check::commands()
        .into_iter()
        .map(|(_, command)| (command, false))
        .collect())
}

/// Host tests: the default members, and the host side of crates that are built for the machine.
fn host() -> Result<Commands> {
    let mut members = process::cargo();
    members.args(["test", "--locked", "--no-fail-fast"]);
    let mut others = process::cargo();
    others.args([
        "test",
        "--locked",
        "--no-fail-fast",
        "-p",
        "firebreak-el3",
        "--lib",
    ]);
    let mut agent = process::cargo();
    agent.args([
        "test",
        "--locked",
        "--no-fail-fast",
        "-p",
        "firebreak-agent",
    ]);
    Ok(vec![(members, true), (others, true), (agent, true)])
}

fn docs() -> Result<Commands> {
    let mut command = process::cargo();
    command.args(["doc", "--locked", "--no-deps", "--document-private-items"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    Ok(vec![(command, false)])
}

fn loom() -> Result<Commands> {
    let mut command = process::cargo();
    command.args([
        "test",
        "--locked",
        "--release",
        "-p",
        "firebreak-ring",
        "--test",
        "loom",
    ]);
    command.env("RUSTFLAGS", "--cfg loom");
    // Apart, because another flag makes everything else be built anew.
    command.env("CARGO_TARGET_DIR", paths::cargo_target().join("loom"));
    Ok(vec![(command, true)])
}

fn miri() -> Result<Commands> {
    if !crate::setup::has_miri() {
        bail!(Skipped(
            "rustup has no nightly toolchain with miri and rust-src"
        ));
    }
    let miri = |arguments: &[&str]| {
        let mut command = process::command("rustup");
        command.args([
            "run",
            crate::setup::MIRI_TOOLCHAIN,
            "cargo",
            "miri",
            "test",
            "--locked",
        ]);
        command.args(["-p", "firebreak-ring"]).args(arguments);
        // What this program was started with is of another toolchain.
        for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
            command.env_remove(variable);
        }
        command.env("CARGO_TARGET_DIR", paths::cargo_target().join("miri"));
        command
    };
    // Each seed is another schedule of the threads, and other choices of what a load may see.
    let mut threads = miri(&["--test", "threads"]);
    threads.env("MIRIFLAGS", "-Zmiri-many-seeds=0..4");
    Ok(vec![(miri(&["--lib"]), true), (threads, true)])
}

/// Returns the command that runs the QEMU suite.
pub(super) fn qemu() -> Command {
    let mut command = process::cargo();
    command.args([
        "test",
        "--locked",
        "-p",
        "firebreak-tests-qemu",
        "--test",
        "qemu",
    ]);
    if let Ok(program) = std::env::current_exe() {
        command.env("FIREBREAK_XTASK", program);
    }
    command
}
