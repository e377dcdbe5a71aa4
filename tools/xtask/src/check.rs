// SPDX-License-Identifier: MIT OR Apache-2.0
//! Formatting, lints and layers: what can be said without running anything.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::process::{self, step};
use crate::{layers, licenses, map, targets};

/// Checks formatting, lints (host and target crates), the direction of dependencies, and licenses.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask check                     run it before you commit; it stops at the first thing that is wrong
  cargo xtask check --json check.json   and write what was checked as JSON")]
pub(crate) struct Args {
    /// Writes {"ok","checks":[{"name","ok","seconds"}],"error"}; the check that failed is the last one.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut checks = Vec::new();
    let result = all(|name, check| {
        let start = Instant::now();
        let result = check();
        let seconds = start.elapsed().as_secs_f64();
        checks.push(json!({ "name": name, "ok": result.is_ok(), "seconds": seconds }));
        result
    });
    process::write_json(args.json.as_deref(), &object(&checks, &result))?;
    result?;
    step("check: all well");
    Ok(())
}

/// Runs each check by way of `run`, up to the first that fails.
fn all(mut run: impl FnMut(&str, &mut dyn FnMut() -> Result<()>) -> Result<()>) -> Result<()> {
    for (name, mut command) in commands() {
        step(format!("check: {name}"));
        run(name, &mut || process::run(&mut command))?;
    }
    run("layers, map, licenses", &mut rules)
}

fn object(checks: &[Value], result: &Result<()>) -> Value {
    let error = result.as_ref().err().map(|error| format!("{error:#}"));
    json!({ "ok": result.is_ok(), "checks": checks, "error": error })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_what_failed_and_why() {
        let checks = [json!({ "name": "format", "ok": false, "seconds": 0.1 })];
        let failed = object(&checks, &Err(anyhow::anyhow!("it ended with 1")));
        assert_eq!(failed["ok"], false);
        assert_eq!(failed["error"], "it ended with 1");
        assert_eq!(failed["checks"][0]["name"], "format");
        let well = object(&[], &Ok(()));
        assert_eq!((&well["ok"], &well["error"]), (&json!(true), &Value::Null));
    }
}
