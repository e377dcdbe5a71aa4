// SPDX-License-Identifier: MIT OR Apache-2.0
//! Raises an SEI at every instruction boundary of EL2's entries, exits and what lies between, and
//! checks that nothing is lost that need not be.
//!
//! Each path is a round of the sweep guest, the same in each period of CNTPCT. QEMU's trace of
//! one round is the list of boundaries; the firmware's `sweep` command raises an error at each
//! offset, one in each period; what firmware, hypervisor and guest then say is held against each
//! other. `docs/sweep.md` explains the table.

mod document;
mod expect;
mod fourth;
mod hit;
mod judge;
mod lives;
mod machine;
mod nested;
mod paths;
mod report;
mod resume;
mod run;
mod seeded;
mod select;
mod strike;
mod symbols;
mod tap;
mod targets;
#[cfg(test)]
mod tests;
mod trace;
mod transcript;
mod two_pes;
mod typed;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::build;
use lives::Life;
use machine::System;
use paths::{Kind, Mode, Path};

/// Where the image is loaded, and linked to 0.
const HYPERVISOR_BASE: u64 = 0x4020_0000;

/// Raises an SEI at every instruction boundary and checks what is lost.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask sweep                          every path, both modes
  cargo xtask sweep --resume                 goes on with one that was interrupted
  cargo xtask sweep --short                  what `cargo xtask test` runs
  cargo xtask sweep --path hvc,smc --mode barge-in
  cargo xtask sweep --json sweep.json        and write the table as JSON
  cargo xtask sweep --seeded                 check that it finds the faults that it is there for")]
pub(crate) struct Args {
    /// Sweeps a few paths with one class of error.
    #[arg(long)]
    short: bool,
    /// Sweeps these paths alone.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    path: Vec<String>,
    /// Sweeps with a firmware that behaves like this alone.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Strikes every boundary of the paths on which the partition of two PEs ends: a life each.
    #[arg(long, conflicts_with = "resume")]
    every: bool,
    /// Raises errors of this class alone.
    #[arg(long, value_enum)]
    error: Option<Kind>,
    /// Writes {"paths":[{"path","mode","boundaries","nothing_lost","vm_lost",...}]}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Goes on with a sweep that was interrupted; refused when something was built anew since.
    #[arg(long)]
    resume: bool,
    /// Runs so many machines at a time; without it, as many as there are processors, at most 4.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Builds the hypervisor with each of its seeded faults, and checks that the sweep finds it.
    #[arg(long)]
    seeded: bool,
}

/// The sweep that `cargo xtask test` runs, and the check that it finds what it is there for.
pub(crate) fn short() -> Result<()> {
    let args = |seeded| Args {
        short: true,
        seeded,
        ..Args::whole()
    };
    run(&args(false))?;
    run(&args(true))
}

impl Args {
    /// All of it, as without an argument.
    const fn whole() -> Self {
        Self {
            short: false,
            path: Vec::new(),
            mode: None,
            every: false,
            error: None,
            json: None,
            resume: false,
            jobs: None,
            seeded: false,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    crate::setup::run(&crate::setup::Args::unattended())?;
    build::hypervisor()?;
    build::firmware()?;
    build::guests()?;
    if args.seeded {
        return seeded::run();
    }
    let rows = run::sweep(args)?;
    print!("{}", report::table(&rows));
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", json!({ "paths": rows }));
        fs::write(path, text).with_context(|| path.display().to_string())?;
        if path.canonicalize().ok() == document::committed().canonicalize().ok() {
            document::renew()?;
        }
    }
    let failures: Vec<String> = rows
        .iter()
        .flat_map(|row| {
            row.failures
                .iter()
                .map(|failure| format!("{} {} {}: {failure}", row.path, row.mode, row.error))
        })
        .collect();
    if !failures.is_empty() {
        let shown = failures.iter().take(40).cloned().collect::<Vec<_>>();
        bail!(
            "{} things that must not be:\n  {}",
            failures.len(),
            shown.join("\n  ")
        );
    }
    Ok(())
}

/// One path with one firmware and one class of error.
type Job<'a> = (&'a Path, Mode, Kind);

/// What is at stake beside the interrupted partition has to be there.
fn system_of(path: &Path, kind: Kind) -> System {
    let loses_a_page = path.loses_a_page() || kind.page_of().is_some();
    match (path.stage.life, path.pe) {
        _ if path.device => System::Device,
        (Life::GoesOn, Some(_)) if loses_a_page => System::PairPages,
        (Life::GoesOn, Some(_)) => System::Pair,
        (_, Some(_)) => System::PairLives,
        (Life::GoesOn, None) => match (loses_a_page, kind.is_severe()) {
            (true, true) => System::PagesBeside,
            (true, false) => System::Pages,
            (false, true) => System::Beside,
            (false, false) => System::Alone,
        },
        (_, None) => System::Lives,
    }
}
