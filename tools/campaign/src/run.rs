// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the cases of a plan, several at a time, for hours if need be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use firebreak_report::{Case as Line, Class, End, Run, Shard, Writer};

use crate::matrix::{self, Case};
use crate::output::Output;
use crate::plan::{Like, Plan};
use crate::prepare::{Error, Files, Prepared, hex_sha256, prepare};
use crate::progress::Progress;
use crate::rig::Rig;
use crate::{glob, result};

/// A machine that does not boot so often in a row never will.
const MOST_BOOT_FAILURES: u32 = 3;

/// How a plan is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is booted.
    pub files: Files,
    /// How many machines run at a time.
    pub jobs: usize,
    /// Only cases whose name fits this pattern.
    pub only: Option<String>,
    /// Only this part of them.
    pub shard: Option<Shard>,
    /// No case is begun after this long.
    pub budget_time: Option<Duration>,
    /// No more cases than these.
    pub budget_cases: Option<usize>,
    /// Where results go.
    pub output: PathBuf,
    /// Goes on with the results that are there.
    pub resume: bool,
    /// The command that started it, for the results.
    pub command: String,
    /// The command without what chooses cases.
    pub base_command: String,
    /// Commit that Firebreak was built from.
    pub commit: Option<String>,
    /// Says nothing while it runs.
    pub quiet: bool,
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Cases of the plan, as far as they were chosen.
    pub chosen: usize,
    /// Those that have a result, those of a run before this one included.
    pub done: usize,
    /// How many of each class.
    pub classes: BTreeMap<Class, usize>,
    /// Cases that are not as expected: name and what was seen.
    pub unexpected: Vec<(String, String)>,
    /// Cases without a result that means something.
    pub inconclusive: Vec<(String, String)>,
    /// Somebody stopped it.
    pub interrupted: bool,
    /// Which budget ended it: `time` or `cases`.
    pub budget_hit: Option<String>,
    /// How long it took.
    pub wall: Duration,
    /// Cases that were run just now.
    pub ran: usize,
    /// Results that could not be written, and why.
    pub unsaved: Option<(usize, String)>,
}

/// Returns the cases that are chosen, in the order in which they run.
pub fn choose(plan: &Plan, only: Option<&str>, part: Option<Shard>) -> Vec<Case> {
    let cases = matrix::expand(plan);
    let fits = |case: &Case| only.is_none_or(|only| glob::matches(only, &case.name));
    let cases: Vec<Case> = cases.into_iter().filter(fits).collect();
    match part {
        Some(part) => matrix::shard(cases, part),
        None => cases,
    }
}

/// Returns how long cases will take, by what was measured on a machine of two slow cores.
pub fn estimate(plan: &Plan, cases: &[Case], jobs: usize) -> Duration {
    const VICTIM: Duration = Duration::from_millis(60);
    const OTHERS: Duration = Duration::from_millis(1200);
    // Panic, restart and boot, an instruction each nanosecond.
    const COUNTED: Duration = Duration::from_secs(8);
    const BOOT: Duration = Duration::from_secs(3);
    // A second of a guest that spins, where each nanosecond is an instruction.
    const COUNTED_SECONDS: u64 = 5;
    let of = |case: &Case| {
        let Some(guest) = plan.guests.get(case.guest) else {
            return OTHERS;
        };
        let usual = match guest.like {
            Like::Victim => VICTIM,
            _ if guest.icount => COUNTED,
            _ => OTHERS,
        };
        match matrix::expected(plan, case).as_deref() {
            // Its end is a time without a word.
            Some([Class::Hung]) if guest.icount => {
                Duration::from_secs(guest.silence_s * COUNTED_SECONDS)
            }
            Some([Class::Hung]) => Duration::from_secs(guest.silence_s),
            _ => usual,
        }
    };
    let all: Duration = cases.iter().map(of).sum();
    let machines: BTreeSet<_> = cases.iter().map(|case| (case.guest, case.policy)).collect();
    let machines = u32::try_from(machines.len()).unwrap_or(u32::MAX);
    all / u32::try_from(jobs.clamp(1, 64)).unwrap_or(1) + BOOT * machines
}

/// Runs a plan.
///
/// `stop` ends it after the cases that are under way.
///
/// # Errors
///
/// When it cannot begin; what goes wrong later is told in the results.
pub fn run(plan: &Plan, options: &Options, stop: &Arc<AtomicBool>) -> Result<Summary, Error> {
    let started = Instant::now();
    let scratch = tempfile::Builder::new().prefix("fb-campaign-").tempdir();
    let scratch = scratch.map_err(|source| Error::Io {
        what: "making a directory for images".to_owned(),
        source,
    })?;
    let prepared = Arc::new(prepare(plan, &options.files, scratch.path())?);
    let head = head(plan, options, &prepared);
    let (mut output, before) = open(options, &head)?;
    let cases = choose(plan, options.only.as_deref(), options.shard);
    let mut summary = Summary {
        chosen: cases.len(),
        ..Summary::default()
    };
    for line in &before {
        summary.count(line);
    }
    let done: BTreeSet<&str> = before.iter().map(|line| line.name.as_str()).collect();
    let left: Vec<Case> = cases
        .into_iter()
        .filter(|case| !done.contains(case.name.as_str()))
        .collect();
    let progress = Arc::new(Progress::new(left.len(), options.quiet));
    let queue = Arc::new(Queue::new(left, options, started, Arc::clone(stop)));
    let plan = Arc::new(plan.clone());
    let (sender, receiver) = mpsc::channel::<Line>();
    std::thread::scope(|scope| {
        for job in 0..options.jobs.max(1) {
            let (queue, sender) = (Arc::clone(&queue), sender.clone());
            let say = Arc::clone(&progress);
            let say = Box::new(move |text: String| say.say(&text));
            let states = scratch.path().join(format!("states{job}.qcow2"));
            let mut rig = Rig::new(
                Arc::clone(&plan),
                Arc::clone(&prepared),
                options.files.clone(),
                states,
                say,
            );
            let (plan, prepared) = (Arc::clone(&plan), Arc::clone(&prepared));
            let base = options.base_command.clone();
            scope.spawn(move || work(&plan, &prepared, &queue, &mut rig, &base, &sender));
        }
        drop(sender);
        for line in receiver {
            summary.ran += 1;
            summary.count(&line);
            progress.case(&line);
            if let Some(trouble) = output.case(&line) {
                progress.say(&format!(
                    "{}: {trouble}; results are kept in memory until there is room again",
                    options.output.display()
                ));
            }
        }
    });
    progress.end();
    summary.interrupted = stop.load(Ordering::Relaxed);
    summary.budget_hit = queue.budget_hit();
    summary.wall = started.elapsed();
    output.end(&End {
        done: summary.done as u64,
        interrupted: summary.interrupted,
        wall_s: summary.wall.as_secs_f64(),
        budget_hit: summary.budget_hit.clone(),
    });
    summary.unsaved = output.unsaved();
    Ok(summary)
}

/// One job: takes cases until there are none.
fn work(
    plan: &Plan,
    prepared: &Prepared,
    queue: &Queue,
    rig: &mut Rig,
    base: &str,
    sender: &mpsc::Sender<Line>,
) {
    let mut last = None;
    let mut failures = 0;
    while let Some(case) = queue.take(last) {
        let machine = (case.guest, case.policy);
        if last != Some(machine) {
            failures = 0;
        }
        last = Some(machine);
        let Some(watched) = rig.run(&case) else {
            continue;
        };
        failures = match watched.observer.seen.host.is_some() && !rig.has_booted() {
            true => failures + 1,
            false => 0,
        };
        if failures >= MOST_BOOT_FAILURES {
            queue.give_up(machine);
        }
        // Ctrl-C reaches QEMU too: what it cut off is run again by --resume.
        if queue.is_stopped() && watched.observer.seen.host.is_some() {
            return;
        }
        let visible = prepared.ras_visible.get(case.guest).copied();
        let command = format!("{base} --case '{}'", case.name);
        let line = result::line(plan, &case, visible.unwrap_or(true), watched, &command);
        if sender.send(line).is_err() {
            return;
        }
    }
}

impl Summary {
    fn count(&mut self, line: &Line) {
        self.done += 1;
        *self.classes.entry(line.class).or_default() += 1;
        if line.class == Class::Inconclusive {
            self.inconclusive
                .push((line.name.clone(), line.reason.clone()));
        } else if line.ok == Some(false) {
            let seen = format!("{}: {}", line.class, line.reason);
            self.unexpected.push((line.name.clone(), seen));
        }
    }
}

/// What a machine is booted for: guest and policy.
type Booted = (usize, Option<usize>);

/// Cases that nobody has begun, and the reasons to begin no more.
struct Queue {
    /// By the machine that they need.
    left: Mutex<BTreeMap<Booted, VecDeque<Case>>>,
    taken: Mutex<(usize, Option<String>)>,
    most: usize,
    until: Option<Instant>,
    stop: Arc<AtomicBool>,
}

impl Queue {
    fn new(cases: Vec<Case>, options: &Options, started: Instant, stop: Arc<AtomicBool>) -> Self {
        let mut left: BTreeMap<_, VecDeque<Case>> = BTreeMap::new();
        for case in cases {
            let machine = (case.guest, case.policy);
            left.entry(machine).or_default().push_back(case);
        }
        Self {
            left: Mutex::new(left),
            taken: Mutex::new((0, None)),
            most: options.budget_cases.unwrap_or(usize::MAX),
            until: options.budget_time.map(|budget| started + budget),
            stop,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn budget_hit(&self) -> Option<String> {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .clone()
    }

    /// Leaves out all cases of a machine.
    fn give_up(&self, machine: Booted) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.remove(&machine);
    }

    /// Takes a case: of the machine that runs already, or else of that with the most left.
    fn take(&self, last: Option<Booted>) -> Option<Case> {
        if self.is_stopped() {
            return None;
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|_, cases| !cases.is_empty());
        let most = left.iter().max_by_key(|(_, cases)| cases.len());
        let most = most.map(|(machine, _)| *machine)?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let hit = match self.until {
            _ if taken.0 >= self.most => Some("cases"),
            Some(until) if Instant::now() >= until => Some("time"),
            _ => None,
        };
        if let Some(hit) = hit {
            taken.1 = Some(hit.to_owned());
            return None;
        }
        taken.0 += 1;
        let machine = last.filter(|last| left.contains_key(last)).unwrap_or(most);
        left.get_mut(&machine)?.pop_front()
    }
}

fn open(options: &Options, head: &Run) -> Result<(Output, Vec<Line>), Error> {
    let path = &options.output;
    let refuse = |why: String| Error::Io {
        what: path.display().to_string(),
        source: std::io::Error::other(why),
    };
    if options.resume && path.is_file() {
        let (writer, results) = Writer::resume(path).map_err(|error| refuse(error.to_string()))?;
        if let Some(what) = results.run.other_than(head) {
            return Err(refuse(format!(
                "these results are of another {what}; run without --resume into another file"
            )));
        }
        let output = Output::new(Box::new(writer.into_inner()));
        return Ok((output, results.cases));
    }
    let mut output = Output::create(path).map_err(|source| {
        let source = match source.kind() {
            std::io::ErrorKind::AlreadyExists => std::io::Error::other(
                "there are results already; go on with --resume, or name another file with -o",
            ),
            _ => source,
        };
        Error::Io {
            what: path.display().to_string(),
            source,
        }
    })?;
    output.run(head);
    Ok((output, Vec::new()))
}

fn head(plan: &Plan, options: &Options, prepared: &Prepared) -> Run {
    let chosen = choose(plan, options.only.as_deref(), options.shard);
    let cpus: BTreeSet<&str> = plan.guests.iter().map(|guest| guest.cpu.as_str()).collect();
    let version = firebreak_qemu::qemu_version(&firebreak_qemu::qemu_binary());
    let version = version.map_or_else(
        || "unknown".to_owned(),
        |(major, minor, micro)| format!("{major}.{minor}.{micro}"),
    );
    Run {
        v: firebreak_report::VERSION,
        plan: plan.name.clone(),
        plan_sha256: hex_sha256(plan.source.text().as_bytes()),
        firebreak: env!("CARGO_PKG_VERSION").to_owned(),
        commit: options.commit.clone(),
        qemu: version,
        cpu: cpus.into_iter().collect::<Vec<_>>().join(", "),
        guests: prepared.guests.clone(),
        seed: plan.seed,
        shard: options.shard,
        cases: chosen.len() as u64,
        started: rfc3339(SystemTime::now()),
        command: options.command.clone(),
    }
}

/// Writes a time as RFC 3339 has it, in UTC.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to civil date, with years that begin in March: the leap day is the last one.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was said to take ten seconds, of which a single case takes more.
    #[test]
    fn a_case_that_is_to_hang_takes_its_silence() {
        let plans = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/campaigns");
        let plan = crate::plan::read(&PathBuf::from(plans).join("linux-memory.toml")).unwrap();
        let of = |only: &str| {
            let cases = choose(&plan, Some(only), None);
            estimate(&plan, &cases, 1)
        };
        let silence = plan.guests.first().unwrap().silence_s;
        let more = of("*/text-vectors/*|*/text-schedule/*").saturating_sub(of("*/text-vectors/*"));
        assert_eq!(more, Duration::from_secs(silence));
        assert!(of("*/text-unused/*") < of("*/text-vectors/*"));
    }

    #[test]
    fn times_are_written_as_in_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
