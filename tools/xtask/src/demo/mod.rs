// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots the whole system, raises six hardware errors, and shows what each did.

mod cases;
mod interactive;
mod judge;
mod pace;
mod report;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use firebreak_qemu::{Machine, Mark, Record, Running, Tap, deadline};
use indicatif::{ProgressBar, ProgressStyle};

use crate::process::{self, Unusable, step};
use crate::{build, image, paths};
use cases::{Case, Layout};
use judge::{Judgement, judge};
use report::Outcome;

/// How many seconds of the machine's own time (reports of the control guest) a case may take.
const PATIENCE_REPORTS: usize = 60;
/// A busy host may need longer to answer than the machine's time, which runs ahead of the host's.
const PATIENCE_HOST: Duration = Duration::from_secs(15);

/// With `-icount` QEMU runs one PE at a time, each until the next timer of the machine is due, so
/// an interrupt can wait for the turns of all other PEs. A timer that nobody in the machine sees
/// (of a network filter without a network) keeps these turns below 100 us.
const SHORT_TURNS: [&str; 4] = [
    "-netdev",
    "hubport,id=turns,hubid=0",
    "-object",
    "filter-buffer,id=turns-timer,netdev=turns,queue=rx,interval=100",
];

/// Boots three partitions, breaks the hardware under them six times, and tells how it went.
///
/// Sets up and builds what is missing first. The exit code is 0 only if every error was dealt
/// with as told and the control guest missed no tick.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask demo                      show it
  cargo xtask demo --json demo.json     and write the closing table as JSON
  cargo xtask demo --interactive        and stay, with consoles and a prompt to raise errors

The transcript of the run is left in target/firebreak/demo.log.")]
pub(crate) struct Args {
    /// Writes the closing table as JSON: {"cases":[{"name","verdict","reaction","ok"}],
    /// "control_missed_ticks"}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leaves the machine running afterwards: a console per guest, and a prompt to raise errors.
    #[arg(long)]
    interactive: bool,
    /// Does not raise the errors of these cases (`all`: of none), which makes them fail.
    #[arg(long, hide = true, value_delimiter = ',', env = "FIREBREAK_DEMO_SKIP")]
    skip_raise: Vec<String>,
    /// Runs these cases only.
    #[arg(long, hide = true, value_delimiter = ',')]
    only: Vec<String>,
    /// Does not set up and build first.
    #[arg(long, hide = true)]
    no_build: bool,
}

impl Args {
    fn skips(&self, case: Case) -> bool {
        self.skip_raise
            .iter()
            .any(|name| name == "all" || name == case.name())
    }

    fn runs(&self, case: Case) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == case.name())
    }

    fn check(&self) -> Result<()> {
        for name in self.skip_raise.iter().chain(&self.only) {
            if name != "all" && !Case::ALL.iter().any(|case| case.name() == name) {
                let names: Vec<&str> = Case::ALL.iter().map(|case| case.name()).collect();
                bail!(Unusable(format!(
                    "there is no case `{name}`; there are {}",
                    names.join(", ")
                )));
            }
        }
        Ok(())
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.check()?;
    if !args.no_build {
        crate::setup::run(&crate::setup::Args::unattended())?;
        build::all()?;
    }
    let (tap, pace) = interactive::tap();
    let mut machine = boot(args.interactive.then_some(tap))?;
    let outcome = run_cases(args, &mut machine);
    save_transcript(&machine)?;
    let outcome = outcome?;
    print!("\n{}", outcome.table());
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", outcome.json());
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    if args.interactive {
        interactive::run(&mut machine, pace)?;
        save_transcript(&machine)?;
    }
    if !outcome.is_ok() {
        bail!(
            "the demo did not go as told; its transcript is in {}",
            transcript().display()
        );
    }
    Ok(())
}

fn transcript() -> PathBuf {
    paths::out().join("demo.log")
}

fn save_transcript(machine: &Running) -> Result<()> {
    let mut text = String::new();
    for record in machine.since(Mark::START) {
        text.push_str(&format!("{record}\n"));
    }
    fs::write(transcript(), text).with_context(|| transcript().display().to_string())
}

/// Starts the machine and waits until all three partitions live.
fn boot(tap: Option<Tap>) -> Result<Running> {
    step("demo: booting firmware, hypervisor and three partitions");
    let mut machine = Machine::new(build::demo_image())
        .firmware(build::firmware_image())
        .icount(true)
        .args(SHORT_TURNS);
    if let Some(tap) = tap {
        machine = machine.tap(tap);
    }
    let machine = machine.start()?;
    let progress = Progress::new("waiting for all partitions");
    machine.wait_until(
        "all partitions to live",
        Mark::START,
        deadline(300),
        |records| {
            let said = |name: &str, text: &str| {
                let mut lines = records.iter().filter_map(|record| record.line(name));
                lines.any(|line| line.starts_with(text))
            };
            let last = records.iter().rev().find_map(|record| match record {
                Record::Line { name, text } => Some(format!("{name}| {text}")),
                _ => None,
            });
            progress.show(last.unwrap_or_default());
            (said("linux", "agent: beat n=1")
                && said("control", "control: ticks=")
                && said("victim", "victim: alive"))
            .then_some(())
        },
    )?;
    drop(progress);
    step("demo: linux, control and victim are alive");
    Ok(machine)
}

fn run_cases(args: &Args, machine: &mut Running) -> Result<Outcome> {
    let chosen_iss = image::uer_syndrome(&image::demo_manifest(), "victim")?;
    let mut cases = Vec::new();
    for case in Case::ALL.into_iter().filter(|case| args.runs(*case)) {
        let judgement = run_case(machine, case, chosen_iss, args.skips(case))?;
        match judgement.missing.first() {
            None => step(format!(
                "demo: {}: {}; {}",
                case.name(),
                judgement.verdict,
                judgement.reaction
            )),
            Some(missing) => step(format!("demo: {}: FAILED: {missing}", case.name())),
        }
        cases.push((case, judgement));
    }
    let control = judge::control(&machine.since(Mark::START));
    Ok(Outcome { cases, control })
}

fn run_case(
    machine: &mut Running,
    case: Case,
    chosen_iss: Option<u64>,
    skip: bool,
) -> Result<Judgement> {
    let layout = Layout::read(&machine.since(Mark::START));
    let mark = machine.mark();
    let raise = case.raise(&layout).with_context(|| {
        machine
            .explain(
                "the partitions' memory and the victim's page",
                "nobody reported them",
            )
            .to_string()
    })?;
    step(format!(
        "demo: {}: raising on PE {}: {}",
        case.name(),
        raise.pe,
        case.title()
    ));
    if !skip {
        machine.send_raise(&raise)?;
    }
    let progress = Progress::new(case.title());
    let start = Instant::now();
    let judgement = machine.wait_until(case.title(), mark, deadline(240), |records| {
        let judgement = judge(case, &layout, chosen_iss, records);
        progress.show(
            judgement
                .missing
                .first()
                .map_or("", |missing| missing)
                .to_owned(),
        );
        let reports = records.iter().filter_map(|record| record.line("control"));
        let patience = reports.count() < PATIENCE_REPORTS || start.elapsed() < PATIENCE_HOST;
        (judgement.is_ok() || !patience).then_some(judgement)
    });
    drop(progress);
    match judgement {
        Ok(judgement) => Ok(judgement),
        Err(failure) => {
            eprintln!("{failure}");
            Ok(judge(case, &layout, chosen_iss, &machine.since(mark)))
        }
    }
}

/// A line at the bottom of a terminal that says what is being waited for; nothing in a pipe.
struct Progress(ProgressBar);

impl Progress {
    fn new(what: &str) -> Self {
        let bar = if process::is_interactive() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{spinner} [{elapsed}] {prefix}: {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    fn show(&self, text: String) {
        self.0.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
