// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every test there is: one command for contributors and for CI.

mod groups;
mod tally;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::process::{self, Unusable, step};
use crate::{build, paths};
use groups::{Group, Work};
use tally::Tally;

/// How much of a failed group's output is shown; all of it is in its log.
const SHOWN_LINES: usize = 200;

/// Runs every test, on the host and in QEMU.
///
/// Sets up and builds what is missing first. Ends with the line `N passed, N failed`, and with
/// exit code 0 only if nothing failed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask test                     everything (under 25 minutes on 2 cores)
  cargo xtask test host layers         these groups only
  cargo xtask test qemu -- linux       QEMU tests whose name contains `linux`
  cargo xtask test --list              the groups
  cargo xtask test --json test.json    and write what passed and failed as JSON

A group's output is kept in target/firebreak/test-<group>.log. FIREBREAK_DEADLINE_SCALE=3
makes the QEMU tests more patient on a slow machine; QEMU= chooses another QEMU.")]
pub(crate) struct Args {
    /// Groups to run; all, when none is named.
    groups: Vec<String>,
    /// Lists the groups.
    #[arg(long)]
    list: bool,
    /// Writes {"passed","failed","failures":[...],"groups":[{"name","passed","failed","seconds"}]}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Arguments for the test programs themselves.
    #[arg(last = true)]
    forwarded: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let groups = groups::all();
    if args.list {
        for group in &groups {
            println!("{:8} {}", group.name, group.about);
        }
        return Ok(());
    }
    for name in &args.groups {
        if !groups.iter().any(|group| group.name == name) {
            let names: Vec<&str> = groups.iter().map(|group| group.name).collect();
            bail!(Unusable(format!(
                "there is no group `{name}`; there are {}",
                names.join(", ")
            )));
        }
    }
    let chosen = |group: &&Group| {
        args.groups.is_empty() || args.groups.iter().any(|name| name == group.name)
    };
    crate::setup::run(&crate::setup::Args::for_tests())?;
    fs::create_dir_all(paths::out())?;
    let mut total = Tally::default();
    let mut rows = Vec::new();
    for group in groups.iter().filter(chosen) {
        let start = Instant::now();
        let tally = run_group(group, &args.forwarded)?;
        rows.push(row(group.name, &tally, start.elapsed()));
        total.add(&tally);
    }
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", object(&total, &rows));
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    for failed in &total.failures {
        println!("failed: {failed}");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed != 0 {
        bail!(
            "{} of {} tests failed",
            total.failed,
            total.passed + total.failed
        );
    }
    Ok(())
}

/// A group in the JSON object.
fn row(name: &str, tally: &Tally, took: Duration) -> Value {
    json!({
        "name": name,
        "passed": tally.passed,
        "failed": tally.failed,
        "seconds": took.as_secs(),
    })
}

fn object(total: &Tally, rows: &[Value]) -> Value {
    json!({
        "passed": total.passed,
        "failed": total.failed,
        "failures": total.failures,
        "groups": rows,
    })
}

fn run_group(group: &Group, forwarded: &[String]) -> Result<Tally> {
    let log_path = paths::out().join(format!("test-{}.log", group.name));
    let mut log = File::create(&log_path).with_context(|| log_path.display().to_string())?;
    let progress = Progress::new(group);
    let mut tally = Tally::default();
    let result = match &group.work {
        Work::Call(call) => call(),
        Work::Commands(commands) => commands().and_then(|commands| {
            for (mut command, is_tests) in commands {
                if is_tests {
                    command.args(test_arguments(forwarded));
                }
                run_command(&mut command, is_tests, &mut tally, &mut log, &progress)?;
            }
            Ok(())
        }),
        Work::Qemu => build::all().and_then(|()| {
            let mut command = groups::qemu();
            command.args(test_arguments(forwarded));
            run_command(&mut command, true, &mut tally, &mut log, &progress)
        }),
    };
    drop(progress);
    match result {
        Ok(()) if tally.passed + tally.failed == 0 => tally.passed = 1,
        Ok(()) => {}
        // Tests that failed are counted already; anything else counts as one.
        Err(_) if tally.failed != 0 => {}
        Err(error) if error.is::<groups::Skipped>() => {
            step(format!("test: {}: skipped: {error}", group.name));
            return Ok(tally);
        }
        Err(error) => tally.fail(format!("{}: {error:#}", group.name)),
    }
    if tally.failed != 0 {
        show_end_of(&log_path)?;
    }
    step(format!(
        "test: {}: {} passed, {} failed",
        group.name, tally.passed, tally.failed
    ));
    Ok(tally)
}

fn test_arguments(forwarded: &[String]) -> Vec<String> {
    if forwarded.is_empty() {
        return Vec::new();
    }
    std::iter::once("--".to_owned())
        .chain(forwarded.iter().cloned())
        .collect()
}

/// Runs a command, and counts the tests that it tells of; one that tells of none counts as one.
fn run_command(
    command: &mut Command,
    is_tests: bool,
    tally: &mut Tally,
    log: &mut File,
    progress: &Progress,
) -> Result<()> {
    let text = process::shown(command);
    writeln!(log, "$ {text}")?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run `{text}`"))?;
    let before = (tally.passed, tally.failed);
    for line in lines_of(&mut child) {
        writeln!(log, "{line}")?;
        if is_tests {
            tally.read(&line);
        }
        progress.show(tally, &line);
    }
    let status = child.wait()?;
    let counted = (tally.passed, tally.failed) != before;
    match (status.success(), counted) {
        (true, true) => {}
        (true, false) => tally.passed += 1,
        (false, _) if tally.failed > before.1 => {}
        (false, _) => tally.fail(format!("`{text}` ended with {status}")),
    }
    Ok(())
}

/// Gives both streams of a child, line by line, as they come.
fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || forward(BufReader::new(stdout), &sender));
    }
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || forward(BufReader::new(stderr), &sender));
    }
    receiver
}

fn forward(mut reader: impl BufRead, sender: &mpsc::Sender<String>) {
    let mut line = Vec::new();
    while reader
        .read_until(b'\n', &mut line)
        .is_ok_and(|len| len != 0)
    {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if sender.send(text).is_err() {
            return;
        }
    }
}

fn show_end_of(log: &std::path::Path) -> Result<()> {
    let text = fs::read_to_string(log).with_context(|| log.display().to_string())?;
    let lines: Vec<&str> = text.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
        eprintln!("  {line}");
    }
    eprintln!("  (all of it is in {})", log.display());
    Ok(())
}

/// The progress line: redrawn on a terminal, and one line now and then in a pipe.
struct Progress {
    bar: ProgressBar,
    name: &'static str,
    told_s: std::cell::Cell<f64>,
}

impl Progress {
    /// How often a pipe hears of a group that takes long.
    const PIPE_PERIOD_S: f64 = 20.0;

    fn new(group: &Group) -> Self {
        let interactive = process::is_interactive();
        let bar = if interactive {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{spinner} [{elapsed}] {prefix}: {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(group.name);
        bar.enable_steady_tick(Duration::from_millis(100));
        step(format!("test: {}: {}", group.name, group.about));
        Self {
            bar,
            name: group.name,
            told_s: std::cell::Cell::new(process::elapsed_s()),
        }
    }

    fn show(&self, tally: &Tally, line: &str) {
        let (passed, failed) = (tally.passed, tally.failed);
        self.bar
            .set_message(format!("{passed} passed, {failed} failed; {}", line.trim()));
        if self.bar.is_hidden() && process::elapsed_s() - self.told_s.get() > Self::PIPE_PERIOD_S {
            self.told_s.set(process::elapsed_s());
            step(format!(
                "test: {}: {passed} passed, {failed} failed so far; {}",
                self.name,
                line.trim()
            ));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
