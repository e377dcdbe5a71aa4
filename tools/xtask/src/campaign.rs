// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a campaign from nothing: sets up, builds, and calls `firebreak campaign`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{self, Unusable};
use crate::{build, paths};

/// Runs a plan of a campaign: sets up and builds what it needs first.
///
/// A plan that ships is named without its folder and `.toml`. Everything behind `--` goes to
/// `firebreak campaign`. Exit codes are those of `firebreak campaign`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask campaign --list
  cargo xtask campaign u-boot
  cargo xtask campaign linux-serror -- --jobs 2 -o serror.jsonl
  cargo xtask campaign my-plan.toml -- --dry-run")]
pub(crate) struct Args {
    /// A plan that ships, or the path of another one.
    #[arg(required_unless_present = "list")]
    plan: Option<String>,
    /// Lists the plans that ship.
    #[arg(long)]
    list: bool,
    /// Arguments for `firebreak campaign`.
    #[arg(last = true)]
    forwarded: Vec<String>,
}

/// Where `firebreak campaign` looks for what it boots, unless it is told otherwise.
const DEFAULT_PAYLOADS: &str = "target/firebreak";

/// Where the plans that ship are.
fn shipped() -> PathBuf {
    paths::workspace().join("tests/campaigns")
}

/// Returns the names of the plans that ship.
fn names() -> Result<Vec<String>> {
    let dir = shipped();
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "toml")
            && let Some(name) = path.file_stem()
        {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Returns the file of a plan.
fn file_of(plan: &str) -> Result<PathBuf> {
    let ours = shipped().join(format!("{plan}.toml"));
    let path = Path::new(plan);
    if ours.is_file() {
        Ok(ours)
    } else if path.is_file() {
        Ok(std::path::absolute(path)?)
    } else {
        let names = names()?.join(", ");
        Err(Unusable(format!(
            "there is no plan `{plan}`: name a file, or one of {names}"
        ))
        .into())
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Some(plan) = args.plan.as_deref().filter(|_| !args.list) else {
        names()?.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    let file = file_of(plan)?;
    // Some plans have guests that only the tests need otherwise.
    crate::setup::run(&crate::setup::Args::for_tests())?;
    build::all()?;
    let mut command = process::cargo();
    command.args(["run", "--locked", "--quiet", "--profile", "tool"]);
    command.args(["--package", "firebreak-cli", "--", "campaign"]);
    // The results say how they were made: so that it holds in another clone too.
    command.arg(file.strip_prefix(paths::workspace()).unwrap_or(&file));
    if paths::out() != paths::workspace().join(DEFAULT_PAYLOADS) {
        command.arg("--payloads").arg(paths::out());
    }
    command.args(&args.forwarded);
    let status = command.status().context("cannot run cargo")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(2) => {
            Err(Unusable("firebreak campaign could not be used as it was called".into()).into())
        }
        _ => bail!("the campaign ended with {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_found_by_its_name_and_a_wrong_one_is_told_the_others() {
        assert!(
            file_of("u-boot")
                .unwrap()
                .ends_with("tests/campaigns/u-boot.toml")
        );
        let error = file_of("u-boat").unwrap_err();
        assert!(error.is::<Unusable>());
        assert!(error.to_string().contains("u-boot"), "{error}");
    }
}
