// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak campaign`: cases that come out as they must, and runs that are cut short.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use firebreak_campaign::{Files, Options, Summary, plan, run};
use firebreak_report::{Case, Class, Reset, read_file};
use libtest_mimic::{Failed, Trial};

use crate::harness::{Outcome, failed, field, out, trial, workspace};
use crate::run_command::program;

/// Long enough for any run here; a run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(10);

pub(crate) fn add(trials: &mut Vec<Trial>) {
    for reset in ["auto", "snapshot", "restart", "cold"] {
        trials.push(trial(format!("campaign::classes::{reset}"), move || {
            classes(reset)
        }));
    }
    trials.push(trial("campaign::chosen_instructions", chosen_instructions));
    trials.push(trial("campaign::an_error_of_the_firmware", by_firmware));
    trials.push(trial("campaign::what_is_not_expected_is_told", unexpected));
    trials.push(trial("campaign::interrupted_and_resumed", interrupted));
    trials.push(trial("campaign::a_killed_qemu_costs_one_case", killed));
    trials.push(trial(
        "campaign::regression_two_interrupts_leave_nothing_behind",
        interrupted_twice,
    ));
    trials.push(trial("campaign::a_full_disk_is_told", full_disk));
    trials.push(trial("campaign::a_missed_tick_is_seen", missed_tick));
    trials.push(trial(
        "campaign::a_guest_that_says_by_pvpanic_that_it_panics",
        pvpanic,
    ));
    trials.push(trial("campaign::turns_of_qemu_cost_no_tick", turns));
    trials.push(trial("campaign::a_machine_that_never_boots", never_boots));
}

/// A directory with a plan for the bare-metal guest, and where its results go.
struct Bench {
    dir: tempfile::TempDir,
    plan: PathBuf,
}

impl Bench {
    fn new(rest: &str) -> Result<Self, Failed> {
        Self::of("victim", rest)
    }

    fn of(system: &str, rest: &str) -> Result<Self, Failed> {
        let dir = tempfile::tempdir().map_err(failed)?;
        let plan = dir.path().join("plan.toml");
        let systems = workspace().join("tests/campaigns/systems");
        let head = format!(
            "[[guest]]\nname = \"victim\"\nsystem = \"{}/{system}.toml\"\nlike = \"victim\"\n",
            systems.display()
        );
        fs::write(&plan, head + rest).map_err(failed)?;
        Ok(Self { dir, plan })
    }

    fn results(&self) -> PathBuf {
        self.dir.path().join("results.jsonl")
    }

    fn options(&self) -> Options {
        options(self.results())
    }

    fn run(&self, options: &Options) -> Result<Summary, Failed> {
        let plan = plan::read(&self.plan).map_err(failed)?;
        run(&plan, options, &Arc::new(AtomicBool::new(false))).map_err(failed)
    }

    fn cases(&self) -> Result<Vec<Case>, Failed> {
        Ok(read_file(&self.results()).map_err(failed)?.cases)
    }
}

fn options(output: PathBuf) -> Options {
    Options {
        files: Files::in_dir(&out()),
        jobs: 1,
        only: None,
        shard: None,
        budget_time: None,
        budget_cases: None,
        output,
        resume: false,
        command: "firebreak campaign".to_owned(),
        base_command: "firebreak campaign plan.toml".to_owned(),
        commit: None,
        quiet: true,
    }
}

const MOMENTS: &str = "[[moment]]\nname = \"unmasked\"\nmasked = false\nat = \"unmasked\"\n\
    [[moment]]\nname = \"masked\"\nmasked = true\ntype = \"m\"\nuntil = \"victim: masked\"\n\
    [[moment]]\nname = \"unmasks\"\nmasked = true\ntype = \"m\"\nuntil = \"victim: masked\"\n\
    then_type = \"u\"\nthen_until = \"victim: unmasked\"\n\
    [[moment]]\nname = \"esb\"\nmasked = true\ntype = \"m\"\nuntil = \"victim: masked\"\n\
    then_type = \"e\"\nthen_until = \"victim: esb\"\n\
    [[moment]]\nname = \"never\"\nel = 0\n";

fn hold(holds: bool, what: &str, cases: &[Case]) -> Outcome {
    if holds {
        return Ok(());
    }
    let mut text = format!("expected {what}\n");
    for case in cases {
        text += &format!("  {}: {}: {}\n", case.name, case.class, case.reason);
        for evidence in &case.evidence {
            text += &format!("    {}\n", evidence.text);
        }
    }
    Err(failed(text))
}

/// The same cases come to the same result, however the machine is brought back.
fn classes(reset: &str) -> Outcome {
    let head = format!("[campaign]\nreset = \"{reset}\"\n");
    let errors = "[[error]]\nname = \"ueo\"\n[[error]]\nname = \"mine\"\niss = 0x1000abc\n";
    let bench = Bench::new(&(MOMENTS.to_owned() + errors + &head))?;
    let summary = bench.run(&bench.options())?;
    let cases = bench.cases()?;
    hold(
        cases.len() == 10 && summary.done == 10,
        "ten results",
        &cases,
    )?;
    for case in &cases {
        let class = match case.moment.as_str() {
            "masked" => Class::NotDelivered,
            "never" => Class::Inconclusive,
            _ => Class::RecoveredAndLogged,
        };
        hold(
            case.class == class,
            &format!("{}: {class}", case.name),
            &cases,
        )?;
        let given = match case.error.as_str() {
            "ueo" => "0xbe000811",
            _ => "0xbf000abc",
        };
        let told = case.syndrome.as_deref() == Some(given);
        hold(told, &format!("{}: {given}", case.name), &cases)?;
        let by = match reset {
            "cold" => case.reset == Reset::Cold,
            "restart" => case.reset == Reset::Restart,
            "snapshot" => case.reset == Reset::Snapshot,
            _ => case.reset != Reset::Cold,
        };
        hold(by, "each reset as the plan says", &cases)?;
    }
    Ok(())
}

/// The guest is hit at the very instruction, and so many behind it; as it and the hypervisor say.
///
/// The command that raises the error is typed while the machine stands, and QEMU gives it to the
/// serial line when its own loop comes by: on a host that has much else to do the machine may have
/// gone on by then. The results say so; a host that is late each time fails the test.
fn chosen_instructions() -> Outcome {
    const TRIES: usize = 5;
    (1..TRIES)
        .find_map(|_| chosen_instructions_once().ok())
        .map_or_else(chosen_instructions_once, Ok)
}

fn chosen_instructions_once() -> Outcome {
    let dir = tempfile::tempdir().map_err(failed)?;
    let results = dir.path().join("results.jsonl");
    let path = workspace().join("tests/campaigns/baremetal-moments.toml");
    let plan = plan::read(&path).map_err(failed)?;
    let mut options = options(results.clone());
    options.only = Some("uer/*".to_owned());
    let summary = run(&plan, &options, &Arc::new(AtomicBool::new(false))).map_err(failed)?;
    let cases = read_file(&results).map_err(failed)?.cases;
    hold(summary.unexpected.is_empty(), "each as expected", &cases)?;
    hold(cases.len() == 4, "four cases", &cases)?;
    for case in &cases {
        // "the guest stands at 0x..., 5 instructions behind 0x..."
        let stands = case.timeline.iter().find_map(|event| {
            let (_, behind) = event.text.split_once("the guest stands at ")?;
            Some(behind.split(',').next()?.to_owned())
        });
        let Some(stands) = stands else {
            hold(
                case.moment == "start",
                "a place for each but `start`",
                &cases,
            )?;
            continue;
        };
        let told = case
            .evidence
            .iter()
            .find_map(|evidence| field(&evidence.text, "elr"));
        let told = told.map(|elr| format!("{elr:#x}"));
        hold(
            told == Some(stands),
            &format!("{} at its place", case.name),
            &cases,
        )?;
    }
    Ok(())
}

/// An error in the guest's page, through the firmware: the page is lost, and the guest told.
fn by_firmware() -> Outcome {
    let bench = Bench::new(
        "firmware = true\n[[moment]]\nname = \"any\"\n\
         [[error]]\nname = \"uer\"\nkind = \"firmware\"\nsaid = \"page=\"\n\
         [[error]]\nname = \"ce\"\nkind = \"firmware\"\nsaid = \"page=\"\n\
         [[error]]\nname = \"uc\"\nkind = \"firmware\"\n",
    )?;
    bench.run(&bench.options())?;
    let cases = bench.cases()?;
    for (error, class, word) in [
        ("uer", Class::RecoveredAndLogged, "verdict=retire"),
        ("ce", Class::NotDelivered, "verdict="),
        ("uc", Class::Rebooted, "uncontainable"),
    ] {
        let case = cases.iter().find(|case| case.error == error);
        let fits = |case: &Case| {
            let said = |evidence: &firebreak_report::Evidence| evidence.text.contains(word);
            case.class == class && case.evidence.iter().any(said)
        };
        hold(
            case.is_some_and(fits),
            &format!("{error}: {class}, {word}"),
            &cases,
        )?;
    }
    let recorded = cases.iter().any(|case| case.record.is_some());
    hold(recorded, "the record of an error", &cases)
}

/// A plan that expects something else is not passed.
fn unexpected() -> Outcome {
    let bench = Bench::new(
        "[[moment]]\nname = \"any\"\n[[error]]\nname = \"uer\"\n[[error]]\nname = \"uc\"\n\
         [[expect]]\nerror = \"uer\"\nclass = \"panicked\"\n",
    )?;
    let summary = bench.run(&bench.options())?;
    let cases = bench.cases()?;
    let names: Vec<&str> = summary
        .unexpected
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    hold(
        names == ["uer/any/victim/0"],
        "one that is not expected",
        &cases,
    )?;
    let ok: Vec<Option<bool>> = cases.iter().map(|case| case.ok).collect();
    hold(
        ok == [Some(false), None],
        "no, and nothing expected",
        &cases,
    )
}

const MANY: &str =
    "[campaign]\nrepetitions = 30\n[[moment]]\nname = \"any\"\n[[error]]\nname = \"uer\"\n";

/// What is done is kept; what is left is run by another run, by two jobs; nothing twice.
fn interrupted() -> Outcome {
    let bench = Bench::new(MANY)?;
    let plan = plan::read(&bench.plan).map_err(failed)?;
    let stop = Arc::new(AtomicBool::new(false));
    let summary = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for_cases(&bench.results(), 2);
            stop.store(true, Ordering::Relaxed);
        });
        run(&plan, &bench.options(), &stop)
    })
    .map_err(failed)?;
    let first = bench.cases()?;
    let partly = (2..30).contains(&first.len());
    hold(partly && summary.interrupted, "some of 30 cases", &first)?;
    // As if it had been killed in the middle of a line.
    let mut text = fs::read_to_string(bench.results()).map_err(failed)?;
    text += "{\"kind\":\"case\",\"name\":\"cut o";
    fs::write(bench.results(), text).map_err(failed)?;
    let mut options = bench.options();
    (options.resume, options.budget_cases, options.jobs) = (true, Some(3), 2);
    let summary = bench.run(&options)?;
    let budget = summary.budget_hit.as_deref() == Some("cases") && summary.ran == 3;
    hold(budget, "three more cases", &bench.cases()?)?;
    options.budget_cases = None;
    let summary = bench.run(&options)?;
    let cases = bench.cases()?;
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let whole = names.len() == 30 && cases.len() == 30 && summary.done == 30;
    hold(whole, "all of 30 cases, once", &cases)
}

fn wait_for_cases(results: &Path, count: usize) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let text = fs::read_to_string(results).unwrap_or_default();
        if text.matches("\"kind\":\"case\"").count() >= count {
            return;
        }
        std::thread::sleep(LOOK);
    }
}

/// Somebody kills QEMU: the case that ran is inconclusive, the others have results.
fn killed() -> Outcome {
    // By its size the machine is told from those of other trials.
    let bench = Bench::new(&format!("memory = \"253 MiB\"\n{MANY}"))?;
    let plan = plan::read(&bench.plan).map_err(failed)?;
    let stop = Arc::new(AtomicBool::new(false));
    let summary = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for_cases(&bench.results(), 2);
            kill_machine("253");
        });
        run(&plan, &bench.options(), &stop)
    })
    .map_err(failed)?;
    let cases = bench.cases()?;
    let lost: Vec<&Case> = cases
        .iter()
        .filter(|case| case.class == Class::Inconclusive)
        .collect();
    let told = lost.iter().all(|case| case.reason.contains("host"));
    let one = lost.len() == 1 && told && summary.done == 30;
    hold(one, "one case to be lost, of 30", &cases)
}

/// Kills the QEMU of this process whose machine has that much memory.
fn kill_machine(mib: &str) {
    let ours = std::process::id().to_string();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let behind_name = stat.rsplit(')').next().unwrap_or("");
        let parent = behind_name.split_whitespace().nth(1);
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        let mut words = arguments.split(|byte| *byte == 0);
        let is_it = words.any(|word| word == b"-m") && words.next() == Some(mib.as_bytes());
        if parent == Some(ours.as_str()) && is_it {
            let process = entry.file_name();
            let _ = std::process::Command::new("kill")
                .arg("-9")
                .arg(process)
                .status();
        }
    }
}

/// The second signal ends the case under way too, which would go on for ever. A QEMU had stayed, and
/// files in the directory for temporary ones.
fn interrupted_twice() -> Outcome {
    let bench = Bench::new(
        "ready = \"victim: ready\"\nsilence_s = 3600\n[[moment]]\nname = \"any\"\n\
         [[error]]\nname = \"uer\"\n[[pattern]]\nline = \"*\"\nmeans = \"usual\"\n",
    )?;
    let temporary = tempfile::tempdir().map_err(failed)?;
    let path = temporary.path().to_string_lossy().into_owned();
    let mut child = Command::new(program()?)
        .env("TMPDIR", temporary.path())
        .arg("campaign")
        .arg(&bench.plan)
        .args(["--jobs", "1", "--payloads"])
        .arg(out())
        .arg("-o")
        .arg(bench.results())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut said = BufReader::new(child.stderr.take().ok_or("no error output")?);
    let mut hears = |part: &str| {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            if said.read_line(&mut line).map_err(failed)? == 0 {
                return Err(failed(format!("it ended without saying \"{part}\"")));
            }
        }
        Ok(())
    };
    hears("boot ")?;
    let process = child.id().to_string();
    let interrupt = || Command::new("kill").args(["-INT", &process]).status();
    interrupt().map_err(failed)?;
    hears("once more")?;
    if !machines_of(&path) {
        return Err(failed("expected the case under way to go on"));
    }
    interrupt().map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    let left = fs::read_dir(temporary.path()).map_err(failed)?.count();
    let cases = bench.cases()?;
    let text = fs::read_to_string(bench.results()).map_err(failed)?;
    hold(
        status.code().is_some() && cases.is_empty() && text.contains("\"interrupted\":true"),
        "an end that is told, and no result of a case that was cut off",
        &cases,
    )?;
    if left != 0 || machines_of(&path) {
        return Err(failed(format!("{left} files or a QEMU were left behind")));
    }
    Ok(())
}

/// Says whether a QEMU runs that has a file in that directory.
fn machines_of(dir: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| {
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("qemu") && line.contains(dir)
    })
}

/// Results that cannot be written are kept as long as there is hope, and told in the end.
fn full_disk() -> Outcome {
    let bench = Bench::new("[[moment]]\nname = \"any\"\n[[error]]\nname = \"uer\"\n")?;
    let mut options = bench.options();
    options.output = PathBuf::from("/dev/full");
    let summary = bench.run(&options)?;
    let told = summary.unsaved.as_ref().map(|(cases, _)| *cases);
    hold(
        told == Some(1) && summary.done == 1,
        "one result to be lost",
        &[],
    )
}

/// Two milliseconds that the firmware takes of the bystander's PE are a fault; of another's they are not.
fn missed_tick() -> Outcome {
    let bench = Bench::of(
        "victim-control",
        "firmware = true\nsmp = 4\nicount = true\nbystander = \"control\"\n\
         [[moment]]\nname = \"any\"\n\
         [[error]]\nname = \"its\"\nkind = \"firmware\"\nclass = \"ce\"\npe = 0\n\
         behavior = \"handled-in-firmware\"\n\
         [[error]]\nname = \"another\"\nkind = \"firmware\"\nclass = \"ce\"\n\
         behavior = \"handled-in-firmware\"\n",
    )?;
    bench.run(&bench.options())?;
    let cases = bench.cases()?;
    let class = |error: &str| {
        let case = cases.iter().find(|case| case.error == error);
        case.map(|case| case.class)
    };
    let seen = class("its") == Some(Class::HypervisorFault);
    hold(seen, "its tick to be missed, and seen", &cases)?;
    let not = class("another") == Some(Class::NotDelivered);
    hold(not, "no tick to be missed", &cases)
}

/// The console stays silent, and the device tells.
fn pvpanic() -> Outcome {
    let bench = Bench::of(
        "victim-pvpanic",
        "[[moment]]\nname = \"panics\"\nthen_type = \"p\"\n\
         [[moment]]\nname = \"goes-on\"\n[[error]]\nname = \"uer\"\n",
    )?;
    bench.run(&bench.options())?;
    let cases = bench.cases()?;
    let is = |moment: &str, class: Class, told: bool| {
        let case = cases.iter().find(|case| case.moment == moment);
        case.is_some_and(|case| {
            let mut told_by = case.evidence.iter();
            let by_device = told_by.any(|one| one.text.contains("pvpanic"));
            case.class == class && by_device == told
        })
    };
    let panics = is("panics", Class::Panicked, true);
    hold(panics, "a panic of which the device tells", &cases)?;
    let goes_on = is("goes-on", Class::RecoveredAndLogged, false);
    hold(goes_on, "no panic where nothing is typed", &cases)
}

/// QEMU ran Linux's PE on while `control`'s interrupt waited, where Linux panics and boots: a few ticks,
/// or hundreds, in two of three runs.
fn turns() -> Outcome {
    let dir = tempfile::tempdir().map_err(failed)?;
    let results = dir.path().join("results.jsonl");
    let plan = workspace().join("tests/campaigns/bystander.toml");
    let plan = plan::read(&plan).map_err(failed)?;
    let mut options = options(results.clone());
    options.only = Some("uc/idle/*".to_owned());
    let summary = run(&plan, &options, &Arc::new(AtomicBool::new(false))).map_err(failed)?;
    let cases = read_file(&results).map_err(failed)?.cases;
    let panicked = summary.classes.get(&Class::Panicked) == Some(&1);
    hold(panicked, "a panic, and no tick missed", &cases)
}

/// It is not tried for each of a thousand cases.
fn never_boots() -> Outcome {
    let bench = Bench::new(&format!("cpu = \"no-such-cpu\"\n{MANY}"))?;
    let summary = bench.run(&bench.options())?;
    let cases = bench.cases()?;
    hold(summary.inconclusive.len() == 3, "three attempts", &cases)?;
    hold(
        summary.done == 3 && summary.chosen == 30,
        "the others left out",
        &cases,
    )
}
