// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs one case on a machine: brings it to the moment, raises the error, and watches.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use firebreak_qemu::{Raise, Record, deadline};
use firebreak_report::Reset;

use crate::classify::misses_its_place;
use crate::live::Live;
use crate::matrix::{self, Case};
use crate::observation::{Promise, Raised};
use crate::observer::{Observer, Setting};
use crate::plan::{FirmwareError, Guest, Moment, Place, Plan, What};
use crate::prepare::{Files, Prepared};
use crate::words::{hex_after, shipped};
use crate::{symbols, walk};

/// How long the machine's time may stand still, in seconds of an idle host: the end of a case is decided
/// by that time, and this only by a host that does not get on.
const PATIENCE_S: u64 = 120;
/// What a case may take altogether, in the same: where each nanosecond is an instruction time goes slowly.
const MOST_S: u64 = 600;
/// How often the hypervisor is asked for the time while nothing is said.
const LOOK: Duration = Duration::from_millis(100);
/// How long QEMU may take to put bytes into a UART of a machine that stands. It does not say so;
/// if it takes longer, the error comes some instructions later, and its place is told exactly.
const BYTES_ARRIVE: Duration = Duration::from_millis(5);
/// So often a case is tried again that found the guest elsewhere.
const MOST_MISSES: u32 = 3;
/// So often a table is looked for.
const MOST_WALKS: u32 = 20;
/// So many looks are taken for words that are late.
const LATE_WORDS: u32 = 10;
/// Machine's time after which what is typed behind an error is typed, if nothing is told of it.
const THEN_NS: u64 = 1_000_000_000;

/// A case that was watched to its end.
pub(crate) struct Watched {
    pub(crate) observer: Observer,
    pub(crate) reset: Reset,
    pub(crate) wall: Duration,
}

/// A machine for some cases, booted when it is needed.
pub(crate) struct Rig {
    plan: Arc<Plan>,
    prepared: Arc<Prepared>,
    files: Files,
    states: PathBuf,
    live: Option<Live>,
    /// Guest and policy of the machine that runs.
    runs: Option<(usize, Option<usize>)>,
    booted: bool,
    /// Says what is worth saying, once.
    say: Box<dyn Fn(String) + Send>,
}

impl Rig {
    pub(crate) fn new(
        plan: Arc<Plan>,
        prepared: Arc<Prepared>,
        files: Files,
        states: PathBuf,
        say: Box<dyn Fn(String) + Send>,
    ) -> Self {
        Self {
            plan,
            prepared,
            files,
            states,
            live: None,
            runs: None,
            booted: false,
            say,
        }
    }

    /// Says whether a machine was booted for the last case, or before.
    pub(crate) fn has_booted(&self) -> bool {
        self.booted
    }

    /// Runs a case, and again if it finds the guest elsewhere than where its moment is.
    pub(crate) fn run(&mut self, case: &Case) -> Option<Watched> {
        let started = Instant::now();
        let mut missed = 0;
        loop {
            let mut watched = self.run_once(case)?;
            if missed < MOST_MISSES && misses_its_place(&watched.observer.seen) {
                missed += 1;
                // The state that was kept may be one in which somebody else runs.
                if let Some(live) = &mut self.live {
                    live.forget(case.moment);
                }
                continue;
            }
            watched.observer.seen.missed = missed;
            watched.wall = started.elapsed();
            return Some(watched);
        }
    }

    /// Runs a case once. What goes wrong on the host is part of what was observed.
    fn run_once(&mut self, case: &Case) -> Option<Watched> {
        let started = Instant::now();
        let plan = Arc::clone(&self.plan);
        let guest = plan.guests.get(case.guest)?;
        let moment = plan.moments.get(case.moment)?;
        let promise = Promise {
            masked: moment.masked,
            el: moment.el,
            near: None,
        };
        let reset = self.at_start(case, guest, moment);
        let mut setting = Setting {
            partition: guest.partition.clone(),
            vm: 0,
            patterns: patterns(&plan, guest),
            bystander: None,
            silence_ns: guest.silence_s * 1_000_000_000,
        };
        let (reset, live) = match (reset, &mut self.live) {
            (Ok(reset), Some(live)) => (reset, live),
            (reset, _) => {
                self.live = None;
                let why = reset.err().unwrap_or_default();
                let mut observer = Observer::new(setting, promise, guest.beats);
                observer.seen.host = Some(why);
                return Some(Watched {
                    observer,
                    reset: Reset::Cold,
                    wall: started.elapsed(),
                });
            }
        };
        setting.vm = live.partition.vm;
        setting.bystander = guest
            .bystander
            .clone()
            .map(|name| (name, live.missed_before));
        let mut attempt = Attempt {
            plan: &plan,
            case,
            guest,
            moment,
            live,
            observer: Observer::new(setting, promise, guest.beats),
        };
        if let Err(why) = attempt.raise().and_then(|()| attempt.watch()) {
            attempt.observer.seen.host = Some(why);
        }
        let observer = attempt.observer;
        let seen = &observer.seen;
        if seen.host.is_some() {
            self.live = None;
        } else if seen.machine_reset.is_some() || !seen.faults.is_empty() || !seen.ends.is_empty() {
            live.spoil();
        }
        Some(Watched {
            observer,
            reset,
            wall: started.elapsed(),
        })
    }

    /// Has the right machine at the case's starting point.
    fn at_start(&mut self, case: &Case, guest: &Guest, moment: &Moment) -> Result<Reset, String> {
        let wanted = (case.guest, case.policy);
        let worn = self.live.as_ref().is_some_and(Live::is_worn);
        if worn || self.runs != Some(wanted) {
            self.live = None;
        }
        if self.live.is_none() {
            self.booted = false;
            let mut images = self.prepared.images.iter();
            let image = images.find(|image| (image.guest, image.policy) == wanted);
            let image = image.ok_or("no image was built for it")?;
            let firmware = guest.firmware.then_some(self.files.firmware.as_path());
            let live = Live::boot(&image.path, firmware, guest, self.plan.reset, &self.states)?;
            if self.runs != Some(wanted) {
                (self.say)(format!("{}: {}", guest.name, live.measured));
            }
            self.runs = Some(wanted);
            self.booted = true;
            self.live = Some(live);
        }
        let live = self.live.as_mut().ok_or("no machine")?;
        live.return_to(case.moment, moment)
    }
}

/// Returns what the guest's lines mean: the plan's patterns come first.
fn patterns(plan: &Plan, guest: &Guest) -> Vec<crate::plan::Pattern> {
    let for_it = |names: &[String]| names.is_empty() || names.contains(&guest.name);
    let own = plan.patterns.iter().filter(|one| for_it(&one.guests));
    own.cloned().chain(shipped(guest.like)).collect()
}

/// One case under way.
struct Attempt<'a> {
    plan: &'a Plan,
    case: &'a Case,
    guest: &'a Guest,
    moment: &'a Moment,
    live: &'a mut Live,
    observer: Observer,
}

impl Attempt<'_> {
    /// Raises the error, at the moment.
    fn raise(&mut self) -> Result<(), String> {
        if let Some(before) = &self.moment.near {
            self.observer.seen.promise.near = Some(self.said(before)?);
        }
        let error = self
            .plan
            .errors
            .get(self.case.error)
            .ok_or("no such error")?;
        match &error.what {
            What::Serror { iss } => self.command(&format!("serror iss={iss:#x}")),
            What::Sea { met_by, far, iss } => {
                let far = far.map_or_else(String::new, |far| format!(" far={far:#x}"));
                self.command(&format!("sea={met_by}{far} iss={iss:#x}"))
            }
            What::Firmware(error) => self.by_firmware(error),
        }
    }

    /// Has the hypervisor inject something.
    fn command(&mut self, what: &str) -> Result<(), String> {
        let partition = &self.guest.partition;
        let wait = match (&self.moment.spot, self.moment.el) {
            _ if self.moment.at_start => " at=start".to_owned(),
            // The debugger has brought it there.
            _ if self.moment.at.is_some() => String::new(),
            (Some(spot), _) => format!(" at={spot}"),
            (None, Some(el)) => format!(" el={el}"),
            (None, None) => String::new(),
        };
        let command = format!("inject {partition} vcpu=0{wait} {what}");
        let id = self.live.number();
        let line = format!(
            "{}{}{command} id={id}",
            char::from(firebreak_wire::ESCAPE),
            char::from(firebreak_wire::COMMAND)
        );
        self.observer.touched(&command);
        self.send_at_moment(&line, false)?;
        if self.moment.at_start {
            self.live.send(&format!("restart {partition}"))?;
        }
        self.answer(id)
    }

    /// Waits for the answer to our command; everything else is observed as it comes.
    fn answer(&mut self, id: u64) -> Result<(), String> {
        let end = Instant::now() + deadline(PATIENCE_S);
        while self.observer.seen.raised == Raised::Unknown {
            if Instant::now() >= end {
                return Err("the hypervisor does not answer".to_owned());
            }
            for record in self.fresh()? {
                let answer = record.event("answer");
                if let Some(answer) = answer.filter(|answer| answer.num("id") == Some(id)) {
                    let why = answer.text("text").unwrap_or("").to_owned();
                    self.observer.seen.raised = match answer.flag("ok") {
                        Some(true) => Raised::Yes,
                        _ => Raised::Refused(why),
                    };
                }
                // A restart that we asked for is no end of the guest.
                if !(self.moment.at_start && is_restart(&record)) {
                    self.observer.push(&record);
                }
            }
        }
        Ok(())
    }

    fn by_firmware(&mut self, error: &FirmwareError) -> Result<(), String> {
        let own = self.live.partition.pes.get(error.vcpu).copied();
        let pe = error.pe.or(own).ok_or("the partition has no such vCPU")?;
        let pa = self.address(&error.place)?;
        let id = 1_000_000 + self.live.number() * 1000;
        let mode = match &error.behavior {
            Some(own) => own,
            None => matrix::firmware(self.plan, self.case),
        };
        let mode = (mode != "conforming").then(|| mode.to_owned());
        self.observer.errors = (id..id + u64::from(error.count)).collect();
        self.observer.alone = (error.count == 1).then_some(u64::from(error.iss));
        let line = if error.count > 1 {
            storm(id, pe, error, pa, mode.as_deref())
        } else {
            let mut raise = Raise::new(id, pe, error.iss, &error.severity);
            raise.pa = pa;
            raise.in_guest = error.in_guest && self.moment.at.is_none();
            raise.sync = error.sync.clone().map(|met_by| (met_by, None));
            raise.modes = mode;
            raise.with = (raise.modes.as_deref() == Some("cross-pe")).then_some(pe ^ 1);
            raise.to_string()
        };
        self.observer.touched(&line);
        self.send_at_moment(&line, true)
    }

    /// Returns the physical address that an error is about.
    fn address(&self, place: &Place) -> Result<Option<u64>, String> {
        let ours = |ipa: u64| {
            let pa = self.live.partition.pa_of(ipa);
            pa.ok_or_else(|| format!("the guest has no memory at {ipa:#x}"))
                .map(Some)
        };
        match place {
            Place::Nowhere => Ok(None),
            Place::Pa(pa) => Ok(Some(*pa)),
            Place::Ipa(ipa) => ours(*ipa),
            Place::Said(before) => ours(self.said(before)?),
            Place::TableOf(before) => ours(self.table_of(self.said(before)?)?),
            Place::Symbol(symbol, offset) => {
                let address = symbols::address(self.guest, symbol)?;
                ours(address + offset)
            }
        }
    }

    /// Returns the last number that the guest printed behind a text.
    fn said(&self, before: &str) -> Result<u64, String> {
        let records = self.live.running.since(firebreak_qemu::Mark::START);
        let mut lines = records.iter().rev();
        let said = lines.find_map(|record| hex_after(record.line(&self.guest.partition)?, before));
        said.ok_or_else(|| format!("the guest has not said \"{before}\""))
    }

    /// Walks the tables of the guest as its PE would: of what runs there, which is looked at again if
    /// it does not map the address.
    fn table_of(&self, address: u64) -> Result<u64, String> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.walk(address) {
                Ok(entry) => return Ok(entry.ipa),
                Err(why) if tries >= MOST_WALKS => return Err(why),
                Err(_) => std::thread::sleep(BYTES_ARRIVE),
            }
        }
    }

    fn walk(&self, address: u64) -> Result<walk::Entry, String> {
        let gdb = |error: std::io::Error| format!("QEMU's gdb server: {error}");
        let partition = &self.live.partition;
        let pe = *partition.pes.first().ok_or("the partition has no PE")?;
        let debugger = self.live.running.debugger();
        let mut debugger = debugger.map_err(|error| error.to_string())?;
        let mut register = |name: &str| debugger.system_register(pe, name).map_err(gdb);
        let regime = walk::Regime {
            tcr: register("TCR_EL1")?,
            ttbr0: register("TTBR0_EL1")?,
            ttbr1: register("TTBR1_EL1")?,
        };
        regime.walk(address, |ipa| {
            let pa = partition.pa_of(ipa);
            let pa = pa.ok_or_else(|| format!("the guest has no memory at {ipa:#x}"))?;
            let bytes = debugger.read(pa, 8).map_err(gdb)?;
            Ok(bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)))
        })
    }

    /// Sends a line to the hypervisor or the firmware so that its end, which makes it be carried
    /// out, comes when the guest is where the moment says.
    fn send_at_moment(&mut self, line: &str, to_firmware: bool) -> Result<(), String> {
        let told = |error: firebreak_qemu::Error| error.to_string();
        let Some(at) = &self.moment.at else {
            let running = &mut self.live.running;
            return match to_firmware {
                true => running.send_firmware(line).map_err(told),
                false => running
                    .type_raw(format!("{line}\n").as_bytes())
                    .map_err(told),
            };
        };
        let address = symbols::resolve(self.guest, at)?;
        let steps = matrix::steps(self.plan, self.case);
        let running = &mut self.live.running;
        match to_firmware {
            true => running.send_firmware_raw(line.as_bytes()).map_err(told)?,
            false => running.type_raw(line.as_bytes()).map_err(told)?,
        }
        let gdb = |error: std::io::Error| format!("QEMU's gdb server: {error}");
        let mut debugger = running.debugger().map_err(told)?;
        debugger
            .run_to(address, deadline(PATIENCE_S))
            .map_err(gdb)?;
        for _ in 0..steps {
            debugger.step().map_err(gdb)?;
        }
        let pc = debugger.program_counter().map_err(gdb)?;
        self.observer.touched(&format!(
            "the guest stands at {pc:#x}, {steps} instructions behind {address:#x}"
        ));
        let running = &mut self.live.running;
        match to_firmware {
            true => running.send_firmware_raw(b"\n").map_err(told)?,
            false => running.type_raw(b"\n").map_err(told)?,
        }
        std::thread::sleep(BYTES_ARRIVE);
        drop(debugger);
        Ok(())
    }

    fn fresh(&mut self) -> Result<Vec<Record>, String> {
        let fresh = self.live.running.fresh(&mut self.live.mark, LOOK);
        fresh.map_err(|failure| {
            let text = failure.to_string();
            format!("QEMU ended: {}", text.lines().last().unwrap_or("").trim())
        })
    }

    /// Watches until nothing more can change the result.
    fn watch(&mut self) -> Result<(), String> {
        let last = Instant::now() + deadline(MOST_S);
        let mut end = Instant::now() + deadline(PATIENCE_S);
        let mut elapsed_ns = 0;
        let mut then = self.moment.then.iter();
        let mut waiting = None;
        let mut late_words = LATE_WORDS;
        loop {
            let records = self.fresh()?;
            for record in &records {
                self.observer.push(record);
                if let Some(until) = waiting {
                    let line = record.line(&self.guest.partition);
                    if line.is_some_and(|line| line.starts_with(until)) {
                        waiting = None;
                        self.observer
                            .touched(&format!("the guest has said \"{until}\""));
                    }
                }
            }
            if matches!(self.observer.seen.raised, Raised::Refused(_)) {
                return Ok(());
            }
            let mut over = self.observer.is_over();
            if over && self.observer.seen.raised == Raised::Unknown && late_words > 0 {
                // The firmware's own line may be behind the one on which the end was told.
                late_words -= 1;
                over = false;
            }
            let left = then.len();
            let dead = over && !self.observer.seen.alive();
            if dead || over && left == 0 && waiting.is_none() {
                return Ok(());
            }
            if left > 0 && waiting.is_none() && self.is_time_for_then() {
                if let Some(step) = then.next() {
                    self.observer.typed.push(step.text.clone());
                    self.observer.touched(&format!("typed {:?}", step.text));
                    self.live.type_text(&step.text)?;
                    waiting = (!step.until.is_empty()).then_some(step.until.as_str());
                }
            } else if records.is_empty() || self.observer.awaits_time() {
                // The answer says what time it is.
                self.live.send("ps")?;
            }
            if self.observer.elapsed_ns() > elapsed_ns {
                elapsed_ns = self.observer.elapsed_ns();
                end = Instant::now() + deadline(PATIENCE_S);
            }
            if Instant::now() >= end {
                return Err("the machine's time does not get on".to_owned());
            }
            if Instant::now() >= last {
                return Err(format!(
                    "the machine's time goes on, and what becomes of the guest is not known after {} s of the host's",
                    deadline(MOST_S).as_secs()
                ));
            }
        }
    }

    /// What is typed behind the error is typed once something is told of it.
    fn is_time_for_then(&self) -> bool {
        let seen = &self.observer.seen;
        seen.raised == Raised::Yes
            && self.observer.elapsed_ns() >= self.moment.then_after_ns
            && (!seen.life.is_empty() || seen.beats > 0 || self.observer.elapsed_ns() > THEN_NS)
    }
}

fn is_restart(record: &Record) -> bool {
    record.event("restart").is_some()
}

fn storm(id: u64, pe: u8, error: &FirmwareError, pa: Option<u64>, mode: Option<&str>) -> String {
    let FirmwareError {
        iss,
        severity,
        count,
        in_guest,
        ..
    } = error;
    let mut line = format!("storm id={id} count={count} pe={pe} iss={iss:#x} sev={severity}");
    if let Some(pa) = pa {
        line += &format!(" pa={pa:#x}");
    }
    if *in_guest {
        line += " in=guest";
    }
    if let Some(mode) = mode {
        line += &format!(" as={mode}");
    }
    line
}
