// SPDX-License-Identifier: MIT OR Apache-2.0
//! Raises an SEI at every instruction boundary of EL2's entries, exits and what lies between, and
//! checks that nothing is lost that need not be.
//!
//! Each path is a round of the sweep guest, the same in each period of CNTPCT. QEMU's trace of
//! one round is the list of boundaries; the firmware's `sweep` command raises an error at each
//! offset, one in each period; what firmware, hypervisor and guest then say is held against each
//! other. `docs/sweep.md` explains the table.

mod expect;
mod judge;
mod lives;
mod machine;
mod nested;
mod paths;
mod report;
mod resume;
mod seeded;
mod select;
mod strike;
mod symbols;
mod trace;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::process::{self, step};
use crate::{build, paths as places};
use lives::Life;
use machine::{Swept, System, Targets};
use paths::{Kind, Mode, PATHS, Path};
use report::Row;
use resume::State;
use select::Extent;
use strike::Striker;
use symbols::Symbols;

/// Where the image is loaded, and linked to 0.
const HYPERVISOR_BASE: u64 = 0x4020_0000;

/// Points of a path in the short sweep, where each costs a life of the partition.
const SAMPLE: usize = 40;

/// How long before an instruction is reached its probe is put there.
const PROBE_LEAD_TICKS: u64 = 100;

/// Raises an SEI at every instruction boundary and checks what is lost.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask sweep                          every path, both modes: some minutes
  cargo xtask sweep --resume                 goes on with one that was interrupted
  cargo xtask sweep --short                  what `cargo xtask test` runs
  cargo xtask sweep --path hvc --mode barge-in
  cargo xtask sweep --json sweep.json        and write the table as JSON
  cargo xtask sweep --seeded                 check that it finds the faults that it is there for")]
pub(crate) struct Args {
    /// Sweeps a few paths with one class of error.
    #[arg(long)]
    short: bool,
    /// Sweeps this path alone.
    #[arg(long, value_name = "NAME")]
    path: Option<String>,
    /// Sweeps with a firmware that behaves like this alone.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Raises errors of this class alone.
    #[arg(long, value_enum)]
    error: Option<Kind>,
    /// Writes {\"paths\":[{\"path\",\"mode\",\"boundaries\",\"nothing_lost\",\"vm_lost\",...}]}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Goes on with a sweep that was interrupted; refused when something was built anew since.
    #[arg(long)]
    resume: bool,
    /// Builds the hypervisor with each of its seeded faults, and checks that the sweep finds it.
    #[arg(long)]
    seeded: bool,
}

/// The sweep that `cargo xtask test` runs, and the check that it finds what it is there for.
pub(crate) fn short() -> Result<()> {
    let args = |seeded| Args {
        short: true,
        path: None,
        mode: None,
        error: None,
        json: None,
        resume: false,
        seeded,
    };
    run(&args(false))?;
    run(&args(true))
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
    let rows = sweep(args)?;
    print!("{}", report::table(&rows));
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", json!({ "paths": rows }));
        fs::write(path, text).with_context(|| path.display().to_string())?;
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

fn jobs(args: &Args) -> Result<Vec<Job<'static>>> {
    let mut jobs = Vec::new();
    let kinds: &[Kind] = if args.short {
        &[Kind::Ueo, Kind::Uer, Kind::Ueu]
    } else {
        &[Kind::Ce, Kind::Ueo, Kind::Uer, Kind::Ueu]
    };
    for mode in [Mode::Conforming, Mode::BargeIn] {
        for path in PATHS {
            let named = args
                .path
                .as_deref()
                .map_or(!args.short || path.short, |name| name == path.name);
            if !named || args.mode.is_some_and(|wanted| wanted != mode) {
                continue;
            }
            let kinds = kinds
                .iter()
                .filter(|kind| !kind.is_severe() || path.severe)
                .filter(|kind| args.error.is_none_or(|wanted| wanted == **kind));
            jobs.extend(kinds.map(|kind| (path, mode, *kind)));
        }
    }
    if jobs.is_empty() {
        let names: Vec<&str> = PATHS.iter().map(|path| path.name).collect();
        return Err(process::Unusable(format!(
            "there is no such path; there are {}",
            names.join(", ")
        ))
        .into());
    }
    Ok(jobs)
}

fn sweep(args: &Args) -> Result<Vec<Row>> {
    let symbols = Symbols::read(&build::hypervisor_elf(), HYPERVISOR_BASE)?;
    let guest = Symbols::read(&places::out().join("guests/sweep.elf"), 0)?;
    let jobs = jobs(args)?;
    let bar = progress_bar(jobs.len() as u64);
    let built = [build::hypervisor_elf(), build::firmware_image()]
        .into_iter()
        .chain([places::out().join("guests/sweep.bin")])
        .collect::<Vec<_>>();
    fs::create_dir_all(machine::dir())?;
    let file = machine::dir().join("state.json");
    let mut state = State::open(file, &built, args.short, args.resume)?;
    let mut rows = Vec::new();
    let extent = if args.short {
        Extent::Labels
    } else {
        Extent::Functions
    };
    // What a path executes depends on neither firmware nor error.
    let mut traced: BTreeMap<(&str, System), (Path, Targets)> = BTreeMap::new();
    for (path, mode, kind) in jobs {
        bar.set_message(format!("{} {} {}", path.name, mode.name(), kind.name()));
        if let Some(row) = state.find(path.name, mode.name(), kind.name()) {
            rows.push(row.clone());
            bar.inc(1);
            continue;
        }
        let what = || format!("path {} {} {}", path.name, mode.name(), kind.name());
        let system = system_of(path, kind);
        let (path, targets) = match traced.entry((path.name, system)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let trace = || traced_path(path, system, &guest, &symbols);
                // On a slow host all lives of a partition may be over before the trace begins.
                let again = |_| trace().with_context(what);
                let mut traced = trace().or_else(again)?;
                if args.short && nested::is_sei_path(path) {
                    // The SEI path itself, without what task context does about it.
                    traced.1.end_at(symbols.address("guest_entry")?);
                }
                entry.insert(traced)
            }
        };
        let job = (&*path, mode, kind);
        let row = if kind.is_severe() {
            strike_chosen(job, extent, None, targets, &symbols)
        } else if args.short && path.stage.is_partial() {
            strike_all(job, None, &targets.sample(SAMPLE), &symbols)
        } else {
            strike_all(job, None, targets, &symbols)
        };
        let row = row.with_context(what)?;
        if !process::is_interactive() {
            step(format!(
                "sweep: {} {} {}: {} boundaries, {} failures",
                row.path,
                row.mode,
                row.error,
                row.boundaries,
                row.failures.len()
            ));
        }
        state.add(row.clone())?;
        rows.push(row);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// Traces a path, once it is known when its opening error comes.
fn traced_path(
    path: &Path,
    system: System,
    guest: &Symbols,
    symbols: &Symbols,
) -> Result<(Path, Targets)> {
    let path = nested::opened(path, system, guest, symbols)?;
    let targets = Swept::boot(&path, system, None)?.trace(guest, symbols)?;
    Ok((path, targets))
}

fn progress_bar(len: u64) -> ProgressBar {
    if !process::is_interactive() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style)
}

/// What is at stake beside the interrupted partition has to be there.
fn system_of(path: &Path, kind: Kind) -> System {
    if path.stage.life != Life::GoesOn {
        System::Lives
    } else if path.loses_a_page() {
        System::Pages
    } else if kind.is_severe() {
        System::Beside
    } else {
        System::Alone
    }
}

/// Sweeps some boundaries of a path with errors that cost something each.
fn strike_chosen(
    job: Job<'_>,
    extent: Extent,
    hypervisor: Option<&std::path::Path>,
    targets: &Targets,
    symbols: &Symbols,
) -> Result<Row> {
    let chosen = select::choose(targets, symbols, job.2, extent);
    let mut striker = Striker::new(job, hypervisor);
    for at in targets.in_guest.iter().chain(chosen.values()) {
        striker.strike(*at, None)?;
    }
    for (_, at) in missing(&chosen, &striker.points()) {
        striker.strike(at, None)?;
    }
    for (address, _) in missing(&chosen, &striker.points()) {
        striker.strike(0, Some(address))?;
    }
    report::row(job, (targets, &chosen), &striker.finish(), symbols)
}

/// Sweeps the boundaries of a path, with the hypervisor that `build` made or another one.
fn strike_all(
    job: Job<'_>,
    hypervisor: Option<&std::path::Path>,
    targets: &Targets,
    symbols: &Symbols,
) -> Result<Row> {
    let mut striker = Striker::new(job, hypervisor);
    striker.sweep(&targets.offsets)?;
    // A point behind one that cost the guest its life found no round to strike.
    for _ in 0..2 {
        for (_, at) in missing(&targets.executed, &striker.points()) {
            striker.strike(at, None)?;
        }
    }
    // No tick falls on the first instruction of a vector behind an abort or an interrupt.
    // Behind an opening error the probe must not stand where the handler of that comes by.
    let is_opened = job.0.opening.is_some();
    for (address, at) in missing(&targets.executed, &striker.points()) {
        let from = if is_opened {
            at.saturating_sub(PROBE_LEAD_TICKS)
        } else {
            0
        };
        striker.strike(from, Some(address))?;
    }
    report::row(
        job,
        (targets, &targets.executed),
        &striker.finish(),
        symbols,
    )
}

/// Addresses of these that were not hit yet, with their offsets.
fn missing(wanted: &BTreeMap<u64, u64>, points: &[judge::Point]) -> Vec<(u64, u64)> {
    let hit: BTreeSet<u64> = points
        .iter()
        .filter(|point| point.in_el2())
        .map(|point| point.elr)
        .collect();
    wanted
        .iter()
        .filter(|(address, _)| !hit.contains(address))
        .map(|(address, at)| (*address, *at))
        .collect()
}
