// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak campaign PLAN.toml`: runs the cases of a plan.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use firebreak_campaign::plan::{self, Plan};
use firebreak_campaign::{Files, Options, Summary, choose, estimate, expected};
use firebreak_report::Shard;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::Failure;

/// How a plan is run.
#[derive(Args)]
pub(crate) struct PlanArgs {
    /// The plan (TOML, see docs/campaigns.md)
    #[arg(required = true)]
    plan: Option<PathBuf>,
    /// Where results go [default: the plan's name, .jsonl, in this directory]
    #[arg(short, long, value_name = "FILE.jsonl")]
    output: Option<PathBuf>,
    /// Only cases of this name; * stands for anything
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Only part I of N, such as 2/4
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<Shard>,
    /// How many machines run at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Goes on with the results that are there
    #[arg(long)]
    resume: bool,
    /// Begins no case after this long: 90s, 30m, 8h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    budget_time: Option<Duration>,
    /// Runs no more cases than these
    #[arg(long, value_name = "N")]
    budget_cases: Option<usize>,
    /// Says how many cases there are and how long they take, and runs none
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: also the name of each case, and what is expected of it
    #[arg(long, requires = "dry_run")]
    list: bool,
    /// Directory of images, RAM disks, hypervisor.bin and firmware.bin
    #[arg(long, value_name = "DIR", default_value = "target/firebreak")]
    payloads: PathBuf,
    /// The bare hypervisor [default: hypervisor.bin of --payloads]
    #[arg(long, value_name = "BIN", env = "FIREBREAK_HYPERVISOR")]
    hypervisor: Option<PathBuf>,
    /// The reference firmware [default: firmware.bin of --payloads]
    #[arg(long, value_name = "FW.bin")]
    firmware: Option<PathBuf>,
    /// Says nothing while it runs
    #[arg(short, long)]
    quiet: bool,
    /// Writes one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// So many cases of a sort are named at the end.
const MOST_LISTED: usize = 20;

fn shard(text: &str) -> Result<Shard, String> {
    let wrong = || format!("\"{text}\" is no part; write 1/4 for the first of four");
    let (index, count) = text.split_once('/').ok_or_else(wrong)?;
    let number = |word: &str| word.parse::<u32>().map_err(|_| wrong());
    let (index, count) = (number(index)?, number(count)?);
    if index == 0 || index > count {
        return Err(wrong());
    }
    Ok(Shard { index, count })
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or("");
    let seconds = match unit {
        "" | "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    let both = number
        .zip(seconds)
        .and_then(|(number, unit)| number.checked_mul(unit));
    let seconds = both.ok_or_else(|| format!("\"{text}\" is no time; write 90s, 30m or 8h"))?;
    Ok(Duration::from_secs(seconds))
}

/// Runs the command.
pub(crate) fn run(args: &PlanArgs) -> Result<String, Failure> {
    let path = args.plan.as_deref().unwrap_or(Path::new(""));
    let plan = plan::read(path).map_err(|problems| Failure::diagnostics(&problems, args.json))?;
    let chosen = choose(&plan, args.case.as_deref(), args.shard);
    if chosen.is_empty() {
        let why = "no case of the plan has such a name; --dry-run --list shows all".to_owned();
        return Err(Failure::told(why, args.json));
    }
    if args.dry_run {
        return Ok(dry_run(&plan, args));
    }
    let stop = Arc::new(AtomicBool::new(false));
    obey_signals(&stop)?;
    let options = options(&plan, path, args);
    let summary = firebreak_campaign::run(&plan, &options, &stop)
        .map_err(|error| Failure::told(error.to_string(), args.json))?;
    let text = match args.json {
        true => format!("{:#}\n", json(&summary)),
        false => told(&summary, &options.output),
    };
    let well = summary.unexpected.is_empty()
        && summary.inconclusive.is_empty()
        && summary.unsaved.is_none()
        && (summary.done == summary.chosen || summary.interrupted || summary.budget_hit.is_some());
    match well {
        true => Ok(text),
        false => Err(Failure {
            stdout: text,
            stderr: String::new(),
        }),
    }
}

/// The first signal ends the run after the cases under way; the second one ends the machines, and with them
/// these cases; the third one ends the program as it stands.
fn obey_signals(stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let told = |error: std::io::Error| Failure::text(format!("signals: {error}"));
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(told)?;
    let stop = Arc::clone(stop);
    let obey = move || {
        for (before, _) in signals.forever().enumerate() {
            match before {
                0 => {
                    stop.store(true, Ordering::Relaxed);
                    eprintln!("firebreak: ends with the cases under way; once more ends them too");
                }
                1 => firebreak_qemu::end_all(),
                _ => std::process::exit(1),
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(obey).map(drop).map_err(told)
}

fn options(plan: &Plan, path: &Path, args: &PlanArgs) -> Options {
    let mut files = Files::in_dir(&args.payloads);
    if let Some(hypervisor) = &args.hypervisor {
        files.hypervisor.clone_from(hypervisor);
    }
    if let Some(firmware) = &args.firmware {
        files.firmware.clone_from(firmware);
    }
    let output = args.output.clone();
    Options {
        files,
        jobs: args.jobs.clamp(1, 64),
        only: args.case.clone(),
        shard: args.shard,
        budget_time: args.budget_time,
        budget_cases: args.budget_cases,
        output: output.unwrap_or_else(|| PathBuf::from(format!("{}.jsonl", plan.name))),
        resume: args.resume,
        command: std::iter::once("firebreak".to_owned())
            .chain(std::env::args().skip(1))
            .collect::<Vec<_>>()
            .join(" "),
        base_command: format!("firebreak campaign {}", path.display()),
        commit: commit(Path::new(".")),
        quiet: args.quiet,
    }
}

/// Returns the commit that the working directory is at, if it is one of ours.
fn commit(dir: &Path) -> Option<String> {
    if !dir.join("hypervisor/kernel").is_dir() {
        return None;
    }
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git")
            .args(arguments)
            .output()
            .ok()?;
        output.status.success().then_some(output.stdout)
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    let commit = String::from_utf8(commit).ok()?.trim().to_owned();
    Some(if changed {
        format!("{commit}-changed")
    } else {
        commit
    })
}

fn dry_run(plan: &Plan, args: &PlanArgs) -> String {
    let cases = choose(plan, args.case.as_deref(), args.shard);
    let takes_s = estimate(plan, &cases, args.jobs).as_secs();
    if args.json {
        let cases: Vec<_> = cases
            .iter()
            .map(|case| serde_json::json!({"name": case.name, "expected": expected(plan, case)}))
            .collect();
        let object = serde_json::json!({"plan": plan.name, "takes_s": takes_s, "cases": cases});
        return format!("{object:#}\n");
    }
    let mut text = String::new();
    if args.list {
        for case in &cases {
            let classes = expected(plan, case).unwrap_or_default();
            let classes: Vec<&str> = classes.iter().map(|class| class.name()).collect();
            let _ = writeln!(text, "{}  {}", case.name, classes.join(" or "));
        }
    }
    let without = cases
        .iter()
        .filter(|case| expected(plan, case).is_none())
        .count();
    let _ = writeln!(
        text,
        "{}: {} ({}), some {} with {}; nothing is expected of {without}",
        plan.name,
        counted(cases.len(), "case"),
        dimensions(plan),
        time(takes_s),
        counted(args.jobs, "job"),
    );
    text
}

/// Says how much of what the plan puts together, as `2 guests, 19 errors, 3 moments`.
fn dimensions(plan: &Plan) -> String {
    let always = [
        (plan.guests.len(), "guest"),
        (plan.errors.len(), "error"),
        (plan.moments.len(), "moment"),
    ];
    let where_several = [
        (plan.policies.len(), "policy"),
        (plan.firmware.len(), "firmware mode"),
        (plan.repetitions as usize, "repetition"),
    ];
    let several = where_several.into_iter().filter(|(count, _)| *count > 1);
    let parts = always.into_iter().chain(several);
    let parts: Vec<String> = parts.map(|(count, what)| counted(count, what)).collect();
    parts.join(", ")
}

fn counted(count: usize, what: &str) -> String {
    match (count, what) {
        (1, what) => format!("1 {what}"),
        (count, "policy") => format!("{count} policies"),
        (count, what) => format!("{count} {what}s"),
    }
}

fn time(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

fn told(summary: &Summary, output: &Path) -> String {
    let mut text = String::new();
    for (what, list) in [
        ("not as expected", &summary.unexpected),
        ("inconclusive", &summary.inconclusive),
    ] {
        for (name, why) in list.iter().take(MOST_LISTED) {
            let _ = writeln!(text, "{what}: {name}: {why}");
        }
        if let Some(more) = list.len().checked_sub(MOST_LISTED + 1) {
            let _ = writeln!(text, "{what}: {} more, see the results", more + 1);
        }
    }
    let left_out = summary.chosen.saturating_sub(summary.done);
    if left_out > 0 && summary.budget_hit.is_none() && !summary.interrupted {
        let _ = writeln!(
            text,
            "{left_out} cases were left out: their machine does not boot"
        );
    }
    for (class, count) in &summary.classes {
        let _ = writeln!(text, "{count:8}  {}", class.title());
    }
    let rate = summary.ran as f64 / summary.wall.as_secs_f64().max(0.001);
    let _ = writeln!(
        text,
        "{} of {} cases are done; {} just now in {:.1} s, {rate:.1} a second; {} not as expected, \
         {} inconclusive",
        summary.done,
        summary.chosen,
        summary.ran,
        summary.wall.as_secs_f64(),
        summary.unexpected.len(),
        summary.inconclusive.len(),
    );
    if let Some(budget) = &summary.budget_hit {
        let _ = writeln!(
            text,
            "the budget of {budget} is used up; go on with --resume"
        );
    } else if summary.interrupted {
        let _ = writeln!(text, "it was interrupted; go on with --resume");
    }
    match &summary.unsaved {
        Some((cases, why)) => {
            let _ = writeln!(
                text,
                "{cases} results could not be written to {} and are lost: {why}; make room, and go \
                 on with --resume",
                output.display()
            );
        }
        None => {
            let _ = writeln!(text, "results: {}", output.display());
        }
    }
    text
}

fn json(summary: &Summary) -> serde_json::Value {
    let list = |list: &[(String, String)]| -> Vec<serde_json::Value> {
        list.iter()
            .map(|(name, why)| serde_json::json!({"name": name, "why": why}))
            .collect()
    };
    serde_json::json!({
        "chosen": summary.chosen,
        "done": summary.done,
        "ran": summary.ran,
        "classes": summary.classes,
        "unexpected": list(&summary.unexpected),
        "inconclusive": list(&summary.inconclusive),
        "interrupted": summary.interrupted,
        "budget_hit": summary.budget_hit,
        "wall_s": summary.wall.as_secs_f64(),
        "unsaved": summary.unsaved.as_ref().map(|(cases, _)| cases),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_times_are_read_or_refused_by_name() {
        assert_eq!(shard("2/4"), Ok(Shard { index: 2, count: 4 }));
        for wrong in ["0/4", "5/4", "2", "a/b", "1/0"] {
            assert!(shard(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("8h"), Ok(Duration::from_secs(28_800)));
        for wrong in ["h", "5d", "-1s", "99999999999999999999s"] {
            assert!(duration(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
