// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the fuzz targets of `tests/fuzz`, and keeps what they reach.
//!
//! Inputs that reach something new collect in `target/fuzz/`, from one run to the next. With
//! `--keep`, a few that together cover as much go into `tests/corpus/`, which ordinary tests replay on
//! the stable compiler.

mod keep;
mod log;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::paths;
use crate::process::{self, Unusable, step};
use log::Status;

/// The compiler that libFuzzer's instrumentation needs; the same for everybody, so that a corpus
/// covers the same code for everybody.
const TOOLCHAIN: &str = "nightly-2026-05-20";
/// The version of cargo-fuzz.
const CARGO_FUZZ: &str = "0.13.1";
/// How often a pipe hears of a target.
const PIPE_PERIOD_S: f64 = 30.0;

/// A target, and where its inputs are kept.
struct Target {
    name: &'static str,
    corpus: &'static str,
    /// More inputs to start with.
    seeds: Option<&'static str>,
    /// The longest input: longer ones are slower and find nothing else.
    max_len_bytes: usize,
    about: &'static str,
}

const fn target(name: &'static str, corpus: &'static str, about: &'static str) -> Target {
    Target {
        name,
        corpus,
        seeds: None,
        max_len_bytes: 4096,
        about,
    }
}

const TARGETS: [Target; 6] = [
    target(
        "status_block",
        "cper",
        "status blocks, boot error regions, CPER records",
    ),
    Target {
        seeds: Some("dtb"),
        // What QEMU makes for `virt` is to fit in.
        max_len_bytes: 10_240,
        ..target(
            "devicetree",
            "devicetree",
            "devicetrees of boards and of configurations",
        )
    },
    target("hypercall", "hypercall", "PSCI and SMCCC calls"),
    target("gic", "gic", "accesses of guests to their GIC"),
    target(
        "uart",
        "uart",
        "accesses of a guest to its UART, and what is typed and printed",
    ),
    target(
        "console",
        "console",
        "bytes typed on the shared line, and commands among them",
    ),
];

/// Fuzzes what reads bytes of others: ten minutes each, or as long as you say.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask fuzz                       every target, ten minutes each
  cargo xtask fuzz gic --minutes 60      one target, longer
  cargo xtask fuzz --keep                and renew tests/corpus from what was reached
  cargo xtask fuzz --list                the targets

Gets cargo-fuzz and a nightly compiler when they are missing. A finding stops its target; it is
left in tests/fuzz/artifacts/, and the log in target/firebreak/fuzz-<target>.log.")]
pub(crate) struct Args {
    /// Targets to run; all, when none is named.
    targets: Vec<String>,
    /// How long each target runs; 0 with `--keep` only chooses.
    #[arg(long, default_value_t = 10, value_name = "N")]
    minutes: u64,
    /// Lists the targets.
    #[arg(long)]
    list: bool,
    /// Puts few and short inputs that cover what all of them cover into tests/corpus.
    #[arg(long)]
    keep: bool,
    /// Writes {"targets":[{"name","executions","coverage_edges","inputs","finding"}]}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        for target in &TARGETS {
            println!("{:12} {}", target.name, target.about);
        }
        return Ok(());
    }
    if let Some(name) = args.targets.iter().find(|name| !is_target(name)) {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        bail!(Unusable(format!(
            "there is no fuzz target `{name}`; there are {}",
            names.join(", ")
        )));
    }
    let chosen: Vec<&Target> = TARGETS
        .iter()
        .filter(|target| args.targets.is_empty() || args.targets.iter().any(|n| n == target.name))
        .collect();
    set_up()?;
    fs::create_dir_all(paths::out())?;
    let mut rows = vec![];
    for target in chosen {
        build(target)?;
        // To libFuzzer, no time at all means without end.
        if args.minutes != 0 {
            rows.push((target, fuzz(target, args.minutes * 60)?));
        }
        if args.keep {
            keep(target)?;
        }
    }
    report(&rows, args.json.as_deref())
}

fn is_target(name: &str) -> bool {
    TARGETS.iter().any(|target| target.name == name)
}

/// Gets the compiler and cargo-fuzz: only this command needs them.
fn set_up() -> Result<()> {
    let rustc = ["run", TOOLCHAIN, "rustc", "--version"];
    if process::output(process::command("rustup").args(rustc)).is_err() {
        step(format!("fuzz: set-up: the compiler {TOOLCHAIN}"));
        let install = [
            "toolchain",
            "install",
            TOOLCHAIN,
            "--profile",
            "minimal",
            "--no-self-update",
        ];
        process::run(process::command("rustup").args(install))?;
    }
    let version = process::output(cargo().args(["fuzz", "--version"]));
    if !version.is_ok_and(|version| version.contains(CARGO_FUZZ)) {
        step(format!("fuzz: set-up: cargo-fuzz {CARGO_FUZZ}"));
        let install = [
            "install",
            "cargo-fuzz",
            "--version",
            CARGO_FUZZ,
            "--locked",
            "--force",
        ];
        process::run(process::cargo().args(install))?;
    }
    Ok(())
}

/// Makes a `cargo` command of the nightly compiler.
fn cargo() -> Command {
    let mut command = process::command("rustup");
    command.args(["run", TOOLCHAIN, "cargo"]);
    // What this program was started with is of another toolchain, and builds elsewhere.
    for variable in [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
        "CARGO_TARGET_DIR",
    ] {
        command.env_remove(variable);
    }
    command
}

fn cargo_fuzz(words: &[&str]) -> Command {
    let mut command = cargo();
    command.arg("fuzz").args(words);
    command.args(["--fuzz-dir", "tests/fuzz"]);
    command
}

fn build(target: &Target) -> Result<()> {
    step(format!("fuzz: {}: building", target.name));
    process::run(&mut cargo_fuzz(&["build", target.name]))
}

/// Where a target's inputs collect.
fn found(target: &Target) -> PathBuf {
    paths::workspace().join("target/fuzz").join(target.name)
}

fn corpus(name: &str) -> PathBuf {
    paths::workspace().join("tests/corpus").join(name)
}

fn directories(target: &Target) -> Vec<PathBuf> {
    let seeds = target.seeds.map(corpus);
    [found(target), corpus(target.corpus)]
        .into_iter()
        .chain(seeds)
        .collect()
}

/// Runs a target for a time, and says how far it came.
fn fuzz(target: &Target, seconds: u64) -> Result<Status> {
    let log_path = paths::out().join(format!("fuzz-{}.log", target.name));
    let mut log = File::create(&log_path).with_context(|| log_path.display().to_string())?;
    step(format!(
        "fuzz: {}: {} ({seconds} s)",
        target.name, target.about
    ));
    for directory in directories(target) {
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    }
    let mut command = cargo_fuzz(&["run", target.name]);
    command.args(directories(target)).arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={}", target.max_len_bytes),
        "-print_final_stats=1".to_owned(),
    ]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", process::shown(&command)))?;
    let bar = progress(target, seconds);
    let mut status = Status::default();
    let (started_s, mut told_s) = (process::elapsed_s(), process::elapsed_s());
    let lines = BufReader::new(child.stderr.take().context("no stderr")?);
    for line in lines.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(log, "{line}")?;
        status.read(&line);
        bar.set_position((process::elapsed_s() - started_s) as u64);
        bar.set_message(status.to_string());
        if bar.is_hidden() && process::elapsed_s() - told_s > PIPE_PERIOD_S {
            told_s = process::elapsed_s();
            step(format!("fuzz: {}: {status}", target.name));
        }
    }
    bar.finish_and_clear();
    let ended = child.wait()?;
    if !ended.success() && status.finding.is_none() {
        bail!(
            "{} ended with {ended}: see {}",
            target.name,
            log_path.display()
        );
    }
    step(format!("fuzz: {}: {status}", target.name));
    Ok(status)
}

fn progress(target: &Target, seconds: u64) -> ProgressBar {
    if !process::is_interactive() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(seconds);
    let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} s {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(target.name);
    bar
}

/// Renews a target's corpus. What is there and covers nothing of its own stays: seeds and findings
/// have names, and are kept for what they are.
fn keep(target: &Target) -> Result<()> {
    let control = paths::out().join(format!("fuzz-{}.merge", target.name));
    let merged = paths::out().join(format!("fuzz-{}-merged", target.name));
    for old in [&control, &merged] {
        let _ = fs::remove_file(old);
        let _ = fs::remove_dir_all(old);
    }
    fs::create_dir_all(&merged)?;
    let mut command = cargo_fuzz(&["run", target.name]);
    command.arg(&merged).args(directories(target)).arg("--");
    command.args([
        "-set_cover_merge=1".to_owned(),
        format!("-max_len={}", target.max_len_bytes),
        format!("-merge_control_file={}", control.display()),
    ]);
    process::output(&mut command)?;
    let kept = keep::small_cover(&fs::read_to_string(&control)?);
    let into = corpus(target.corpus);
    keep::renew(&into, &kept)?;
    step(format!(
        "fuzz: {}: {} inputs kept in {}",
        target.name,
        kept.len(),
        into.display()
    ));
    Ok(())
}

fn report(rows: &[(&Target, Status)], json: Option<&Path>) -> Result<()> {
    println!(
        "{:12} {:>12} {:>8} {:>8}  finding",
        "target", "executions", "edges", "inputs"
    );
    for (target, status) in rows {
        println!(
            "{:12} {:>12} {:>8} {:>8}  {}",
            target.name,
            status.executions,
            status.edges,
            status.inputs,
            status.finding.as_deref().unwrap_or("none")
        );
    }
    if let Some(path) = json {
        let targets: Vec<_> = rows
            .iter()
            .map(|(target, status)| {
                json!({
                    "name": target.name,
                    "executions": status.executions,
                    "coverage_edges": status.edges,
                    "inputs": status.inputs,
                    "finding": status.finding,
                })
            })
            .collect();
        let text = format!("{:#}\n", json!({ "targets": targets }));
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    for (target, status) in rows {
        if let Some(path) = &status.finding {
            bail!(
                "{} fails on {path}: copy it to tests/corpus/{}/ under a name that says what it is, \
                 and `cargo xtask test host` repeats it",
                target.name,
                target.corpus
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_in_the_fuzz_crate_and_has_a_corpus() {
        let manifest = paths::workspace().join("tests/fuzz/Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
        let mut names: Vec<&str> = manifest["bin"]
            .as_array()
            .unwrap()
            .iter()
            .map(|bin| bin["name"].as_str().unwrap())
            .collect();
        names.sort_unstable();
        let mut ours: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        ours.sort_unstable();
        assert_eq!(names, ours);
        for target in &TARGETS {
            let files = fs::read_dir(corpus(target.corpus)).unwrap().count();
            assert!(files >= 5, "{}: {files} files", target.name);
        }
    }

    #[test]
    fn the_corpora_are_small() {
        for target in &TARGETS {
            let sizes: Vec<u64> = fs::read_dir(corpus(target.corpus))
                .unwrap()
                .map(|file| file.unwrap().metadata().unwrap().len())
                .collect();
            assert!(sizes.len() <= 150, "{}: {} files", target.name, sizes.len());
            let sum: u64 = sizes.iter().sum();
            assert!(sum <= 128 * 1024, "{}: {sum} bytes", target.name);
        }
    }
}
