// SPDX-License-Identifier: MIT OR Apache-2.0
//! Formatting, lints and layers: what can be said without running anything.

use std::process::Command;

use anyhow::Result;

use crate::process::{self, step};
use crate::{layers, licenses, map, targets};

/// Checks formatting, lints (host and target crates), the direction of dependencies, and licenses.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask check     run it before you commit; it stops at the first thing that is wrong")]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: &Args) -> Result<()> {
    for (name, mut command) in commands() {
        step(format!("check: {name}"));
        process::run(&mut command)?;
    }
    rules()?;
    step("check: all well");
    Ok(())
}

/// Checks what a look at the tree and at cargo's metadata can tell.
pub(crate) fn rules() -> Result<()> {
    step("check: layers");
    layers::check()?;
    step("check: map of the code");
    map::check()?;
    step("check: licenses and sources of what others wrote");
    licenses::check()
}

/// Returns the commands, each with a name.
pub(crate) fn commands() -> Vec<(&'static str, Command)> {
    let cargo = |args: &[&str]| {
        let mut command = process::cargo();
        command.args(args);
        command
    };
    let mut commands = vec![
        ("format", cargo(&["fmt", "--all", "--check"])),
        (
            "clippy: host",
            cargo(&[
                "clippy",
                "--locked",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ]),
        ),
        // `test = false` keeps it out of `--all-targets`.
        (
            "clippy: the QEMU suite",
            cargo(&[
                "clippy",
                "--locked",
                "--package",
                "firebreak-tests-qemu",
                "--test",
                "qemu",
                "--",
                "-D",
                "warnings",
            ]),
        ),
    ];
    for group in targets::ALL {
        let mut command = process::cargo();
        command.args(["clippy", "--locked", "--target", group.triple]);
        for package in group.packages {
            command.args(["--package", package]);
        }
        command.args(["--", "-D", "warnings"]);
        commands.push((group.lint_name, command));
    }
    commands
}
