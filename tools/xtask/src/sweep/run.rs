// SPDX-License-Identifier: MIT OR Apache-2.0
//! The jobs of a sweep, and the machines that do them: several at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::hit::{strike_all, strike_chosen};
use super::lives::Life;
use super::machine::{Swept, System};
use super::paths::{Kind, Mode, PATHS, Path};
use super::report::Row;
use super::resume::State;
use super::select::Extent;
use super::symbols::Symbols;
use super::targets::Targets;
use super::{Args, HYPERVISOR_BASE, Job, fourth, machine, nested, system_of, two_pes};
use crate::process::{self, step};
use crate::{build, paths as places};

/// Points of a path in the short sweep, where each costs a life of the partition.
const SAMPLE: usize = 40;
/// As many machines run at a time as there are processors, but no more than this.
const MOST_JOBS: usize = 4;

/// Returns what is to be done, in the order of the report.
pub(super) fn jobs(args: &Args) -> Result<Vec<Job<'static>>> {
    let mut jobs = Vec::new();
    let kinds: &[Kind] = if args.short {
        &[Kind::Ueo, Kind::Uer, Kind::Ueu]
    } else {
        &Kind::ALL
    };
    for mode in [Mode::Conforming, Mode::BargeIn] {
        for path in PATHS {
            let named = match args.path.as_slice() {
                [] => !args.short || path.short,
                names => names.iter().any(|name| name == path.name),
            };
            let never_there = path.barge_in_only && mode == Mode::Conforming;
            if !named || never_there || args.mode.is_some_and(|wanted| wanted != mode) {
                continue;
            }
            let kinds = kinds
                .iter()
                .filter(|kind| path.takes(**kind))
                .filter(|kind| !args.short || !kind.is_severe() || path.is_plain())
                .filter(|kind| args.error.is_some() || !is_left_out(path, **kind))
                .filter(|kind| args.error.is_none_or(|wanted| wanted == **kind));
            jobs.extend(kinds.map(|kind| (path, mode, *kind)));
        }
    }
    let is_path = |name: &String| PATHS.iter().any(|path| path.name == name);
    if jobs.is_empty() || !args.path.iter().all(is_path) {
        let names: Vec<&str> = PATHS.iter().map(|path| path.name).collect();
        let why = "there is no such path, or it is not swept like that; there are";
        return Err(process::Unusable(format!("{why} {}", names.join(", "))).into());
    }
    Ok(jobs)
}

/// Says whether an error does not strike a path unless it is asked for: each point takes long there, and of
/// the errors that cost nothing one is enough.
fn is_left_out(path: &Path, kind: Kind) -> bool {
    (fourth::is_one(path) && kind != Kind::Ueo) || (!path.typed.is_empty() && kind == Kind::Ce)
}

/// Returns the jobs, those that take longest first: none of them is left for the end.
fn longest_first(jobs: &[Job<'static>]) -> VecDeque<Job<'static>> {
    let mut sorted = jobs.to_vec();
    sorted.sort_by_key(|(path, _, kind)| {
        let turns = match (path.stage.life, path.loses_a_page()) {
            (Life::GoesOn, false) => 0,
            (Life::GoesOn, true) => 1,
            _ => 2,
        };
        (turns, kind.is_severe())
    });
    sorted.into_iter().rev().collect()
}

/// What a path executes: it depends on neither firmware nor error.
type Traced = Arc<Mutex<Option<(Path, Arc<Targets>)>>>;

/// What all threads have in common.
struct Common<'a> {
    symbols: &'a Symbols,
    guest: &'a Symbols,
    short: bool,
    every: bool,
    traced: Mutex<BTreeMap<(&'static str, System), Traced>>,
    queue: Mutex<VecDeque<Job<'static>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Common<'_> {
    fn next(&self) -> Option<Job<'static>> {
        locked(&self.queue).pop_front()
    }

    /// Does one job.
    fn work(&self, job: Job<'static>) -> Result<Row> {
        let (path, mode, kind) = job;
        let start = Instant::now();
        if fourth::is_one(path) {
            let row = fourth::sweep(job, self.symbols)?;
            return Ok(Row {
                seconds: start.elapsed().as_secs(),
                ..row
            });
        }
        let (path, targets) = self.targets(path, system_of(path, kind))?;
        let job = (&path, mode, kind);
        let row = if path.pe.is_some() {
            two_pes::strike(job, self.every, &targets, self.symbols)
        } else if kind.is_severe() {
            let extent = if self.short {
                Extent::Labels
            } else {
                Extent::Functions
            };
            strike_chosen(job, extent, None, &targets, self.symbols)
        } else if self.short && path.stage.is_partial() {
            strike_all(job, None, &targets.sample(SAMPLE), self.symbols)
        } else {
            strike_all(job, None, &targets, self.symbols)
        };
        Ok(Row {
            seconds: start.elapsed().as_secs(),
            ..row?
        })
    }

    /// Returns what is to be swept of a path; traces it the first time.
    fn targets(&self, path: &'static Path, system: System) -> Result<(Path, Arc<Targets>)> {
        let slot = Arc::clone(locked(&self.traced).entry((path.name, system)).or_default());
        let mut slot = locked(&slot);
        if let Some((path, targets)) = &*slot {
            return Ok((*path, Arc::clone(targets)));
        }
        let trace = || traced_path(path, system, self.guest, self.symbols);
        // On a slow host all lives of a partition may be over before the trace begins.
        let (opened, mut targets) = trace().or_else(|_| trace())?;
        if self.short && nested::is_sei_path(path) {
            // The SEI path itself, without what task context does about it.
            targets.end_at(self.symbols.address("guest_entry")?);
        }
        let targets = Arc::new(targets);
        *slot = Some((opened, Arc::clone(&targets)));
        Ok((opened, targets))
    }
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

/// Does all that is asked for. A job that cannot be done fails the sweep when the others are done.
pub(super) fn sweep(args: &Args) -> Result<Vec<Row>> {
    let symbols = Symbols::read(&build::hypervisor_elf(), HYPERVISOR_BASE)?;
    let guest = Symbols::read(&places::out().join("guests/sweep.elf"), 0)?;
    let jobs = jobs(args)?;
    let mut state = machine::state(args.short, args.resume)?;
    let is_done = |state: &State, (path, mode, kind): &Job<'_>| {
        state.find(path.name, mode.name(), kind.name()).cloned()
    };
    let mut todo = longest_first(&jobs);
    todo.retain(|job| is_done(&state, job).is_none());
    let bar = progress_bar(jobs.len() as u64);
    bar.inc((jobs.len() - todo.len()) as u64);
    let common = Common {
        symbols: &symbols,
        guest: &guest,
        short: args.short,
        every: args.every,
        traced: Mutex::default(),
        queue: Mutex::new(todo),
    };
    let mut undone = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let (sender, results) = mpsc::channel();
        for _ in 0..args.jobs.unwrap_or_else(default_jobs).max(1) {
            let (sender, common, bar) = (sender.clone(), &common, &bar);
            scope.spawn(move || {
                while let Some(job) = common.next() {
                    bar.set_message(named(job));
                    if sender.send((job, common.work(job))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (job, result) in results {
            match result {
                Ok(row) => {
                    tell(&row);
                    state.add(row)?;
                }
                Err(error) => undone.push(format!("path {}: {error:#}", named(job))),
            }
            bar.inc(1);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    if !undone.is_empty() {
        bail!("{}\n--resume goes on with the rest", undone.join("\n"));
    }
    jobs.iter()
        .map(|job| is_done(&state, job).with_context(|| format!("{} is missing", named(*job))))
        .collect()
}

fn default_jobs() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().min(MOST_JOBS))
}

fn named((path, mode, kind): Job<'_>) -> String {
    format!("{} {} {}", path.name, mode.name(), kind.name())
}

fn tell(row: &Row) {
    if !process::is_interactive() {
        step(format!(
            "sweep: {} {} {}: {} boundaries, {} failures, {} s",
            row.path,
            row.mode,
            row.error,
            row.boundaries,
            row.failures.len(),
            row.seconds
        ));
    }
}

fn progress_bar(len: u64) -> ProgressBar {
    if !process::is_interactive() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longest_comes_first_and_nothing_is_lost() {
        let args = Args::whole();
        let jobs = jobs(&args).unwrap();
        let sorted = longest_first(&jobs);
        assert_eq!(sorted.len(), jobs.len());
        let first = sorted.front().unwrap().0;
        assert_ne!(first.stage.life, Life::GoesOn);
        let last = sorted.back().unwrap();
        assert!(last.0.stage.life == Life::GoesOn && !last.2.is_severe());
    }
}
