// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes what a machine says, record by record, and sorts it into an [`Observation`].

use std::collections::BTreeSet;

use firebreak_qemu::{Event, Record};
use firebreak_report as report;
use firebreak_report::Source;

use crate::glob;
use crate::observation::{Observation, Promise, Raised, Sign, Stage, Step};
use crate::plan::{Meaning, Pattern};
use crate::words::{latest_tick, missed_ticks, reported_esr, sentence};

/// A guest that prints more lines than this floods its console.
const FLOOD_LINES: usize = 20_000;
/// So many of the last lines of the console are kept.
const CONSOLE_LINES: usize = 60;
/// So many entries of the timeline, and of each sort of sign.
const MOST_ENTRIES: usize = 200;
/// What became of an error that the guest masked is looked at by the hypervisor every millisecond, and
/// told behind the guest's own words about it. For that it has this much of the machine's time.
const LOOKS_NS: u64 = 3_000_000;

/// What the observer knows of the machine beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The partition.
    pub(crate) partition: String,
    /// Its number.
    pub(crate) vm: u64,
    /// What its lines mean, the plan's patterns first.
    pub(crate) patterns: Vec<Pattern>,
    /// The partition that counts ticks, and how many it had missed at the start.
    pub(crate) bystander: Option<(String, u64)>,
    /// How long it may be silent, in nanoseconds of the machine's time.
    pub(crate) silence_ns: u64,
}

/// What becomes of one case.
pub(crate) struct Observer {
    setting: Setting,
    /// What was seen so far.
    pub(crate) seen: Observation,
    /// What the guest was given so far: the same once more is no news.
    given: BTreeSet<String>,
    /// Numbers of our errors, if they come by the firmware.
    pub(crate) errors: Vec<u64>,
    /// Syndrome of our one error, and where the firmware says that it handed it over: PE and ELR. By
    /// that a record is known whose number is not what was written.
    pub(crate) alone: Option<u64>,
    delivered: Option<(u64, u64)>,
    /// Errors with numbers that nobody gave.
    strangers: Vec<Event>,
    /// Machine's time at the start, and now.
    start_ns: Option<u64>,
    now_ns: u64,
    alive_ns: u64,
    lines: usize,
    /// What was typed behind the error: its echo means nothing, and a task that ends from now on
    /// may end by that.
    pub(crate) typed: Vec<String>,
    /// Reports of the bystander, and how many there were when the guest's fate was decided.
    reports: u32,
    decided: Option<u32>,
    /// The guest's fate is decided, as far as its own words go, and its error was last said to wait.
    /// When that was: the first time that was told behind those words.
    awaits_look: bool,
    awaits_since_ns: Option<u64>,
    pub(crate) console: Vec<String>,
    pub(crate) timeline: Vec<report::Event>,
    /// The `error` event of the hypervisor.
    pub(crate) record: Option<serde_json::Value>,
}

impl Observer {
    pub(crate) fn new(setting: Setting, promise: Promise, beats_wanted: u32) -> Self {
        Self {
            setting,
            seen: Observation::new(promise, beats_wanted),
            given: BTreeSet::new(),
            errors: Vec::new(),
            alone: None,
            delivered: None,
            strangers: Vec::new(),
            start_ns: None,
            now_ns: 0,
            alive_ns: 0,
            lines: 0,
            typed: Vec::new(),
            reports: 0,
            decided: None,
            awaits_look: false,
            awaits_since_ns: None,
            console: Vec::new(),
            timeline: Vec::new(),
            record: None,
        }
    }

    /// Machine's time since the case began.
    pub(crate) fn elapsed_ns(&self) -> u64 {
        self.now_ns
            .saturating_sub(self.start_ns.unwrap_or(self.now_ns))
    }

    /// Something was done to the guest: signs of life count anew.
    pub(crate) fn touched(&mut self, what: &str) {
        self.seen.beats = 0;
        self.decided = None;
        self.awaits_look = false;
        self.alive_ns = self.now_ns;
        self.tell(Source::Host, what.to_owned());
    }

    /// Says whether nothing that is still to come can change the class. A bystander tells afterwards
    /// what it missed: its next report is waited for; and so is the hypervisor's next look at an error
    /// that waits.
    pub(crate) fn is_over(&mut self) -> bool {
        let seen = &self.seen;
        if seen.host.is_some() || seen.flooded || !seen.faults.is_empty() {
            return true;
        }
        let ended = !seen.ends.is_empty() || seen.machine_reset.is_some();
        if !(ended || seen.alive() || seen.silent) {
            return false;
        }
        let waits = self.seen.life.last().map(|step| step.stage) == Some(Stage::Pending);
        if waits && !ended && !self.was_looked_at() {
            return false;
        }
        let decided = *self.decided.get_or_insert(self.reports);
        self.setting.bystander.is_none() || self.reports > decided
    }

    /// Says whether the hypervisor has had the time to look what became of the error.
    fn was_looked_at(&mut self) -> bool {
        if !self.awaits_look {
            (self.awaits_look, self.awaits_since_ns) = (true, None);
        }
        let since = self.awaits_since_ns;
        since.is_some_and(|since| self.now_ns.saturating_sub(since) >= LOOKS_NS)
    }

    /// Says whether the case waits for nothing but the time to go on.
    pub(crate) fn awaits_time(&self) -> bool {
        let is_over = |since| self.now_ns.saturating_sub(since) >= LOOKS_NS;
        self.awaits_look && !self.awaits_since_ns.is_some_and(is_over)
    }

    /// Takes one record.
    pub(crate) fn push(&mut self, record: &Record) {
        match record {
            Record::Event(event) => self.event(event),
            Record::Line { name, text } if *name == self.setting.partition => self.line(text),
            Record::Line { name, text } => self.neighbor(name, text),
            Record::Firmware(line) => self.firmware(line),
            Record::Plain(text) if text.starts_with("firebreak: ") => {
                self.tell(Source::Hypervisor, text.clone());
            }
            Record::Plain(_) | Record::SecurePlain(_) | Record::Qemu(_) => {}
        }
    }

    fn tell(&mut self, source: Source, text: String) {
        if self.timeline.len() < MOST_ENTRIES {
            let t_ns = self.elapsed_ns();
            self.timeline.push(report::Event { t_ns, source, text });
        }
    }

    fn line(&mut self, text: &str) {
        self.lines += 1;
        if self.console.len() >= CONSOLE_LINES {
            self.console.remove(0);
        }
        self.console.push(text.chars().take(400).collect());
        if self.lines > FLOOD_LINES {
            self.seen.flooded = true;
        }
        let known = self.setting.patterns.iter();
        let mut known = known.filter(|pattern| glob::matches(&pattern.line, text));
        let pattern = known.next().cloned();
        let means = pattern.as_ref().map(|pattern| pattern.means);
        if !matches!(means, Some(Meaning::Alive | Meaning::Usual)) {
            self.tell(Source::Guest, text.to_owned());
        }
        let sign = Sign {
            text: text.to_owned(),
            esr: pattern
                .as_ref()
                .and_then(|pattern| reported_esr(pattern, text)),
        };
        let seen = &mut self.seen;
        let list = match means {
            Some(Meaning::Usual) => return,
            Some(Meaning::TaskKilled) if !self.typed.is_empty() && is_kill(text) => return,
            Some(Meaning::Alive) => {
                self.alive_ns = self.now_ns;
                seen.beats += 1;
                return;
            }
            Some(Meaning::Corrupted) => {
                self.alive_ns = self.now_ns;
                &mut seen.corruptions
            }
            Some(Meaning::Reported) => &mut seen.reports,
            Some(Meaning::Panicked) => &mut seen.panics,
            Some(Meaning::TaskKilled) => &mut seen.task_kills,
            None if text.trim().is_empty() => return,
            None if self.typed.iter().any(|typed| typed.trim() == text.trim()) => return,
            None => &mut seen.unusual,
        };
        if list.len() < MOST_ENTRIES {
            list.push(sign);
        }
    }

    /// A partition that has nothing to do with the error.
    fn neighbor(&mut self, name: &str, text: &str) {
        let Some((bystander, before)) = &self.setting.bystander else {
            return;
        };
        if name != bystander {
            return;
        }
        let Some(missed) = missed_ticks(text) else {
            return;
        };
        let more = missed.saturating_sub(*before);
        self.reports += 1;
        self.seen.bystander_late_ns = self.seen.bystander_late_ns.max(latest_tick(text));
        if more > 0 {
            self.fault(format!("{name} missed {more} ticks"));
        }
    }

    fn fault(&mut self, what: String) {
        self.tell(Source::Hypervisor, what.clone());
        if self.seen.faults.len() < MOST_ENTRIES {
            self.seen.faults.push(what);
        }
    }

    fn event(&mut self, event: &Event) {
        self.now_ns = event.num("t").unwrap_or(self.now_ns);
        if self.start_ns.is_none() {
            self.start_ns = Some(self.now_ns);
            self.alive_ns = self.now_ns;
        }
        if self.awaits_look && self.awaits_since_ns.is_none() {
            self.awaits_since_ns = Some(self.now_ns);
        }
        let text = sentence(event);
        if event.name() != "answer" && event.name() != "log" {
            self.tell(Source::Hypervisor, text.clone());
        }
        let ours = event.num("vm") == Some(self.setting.vm);
        match event.name() {
            "vserror" | "vsea" | "abort" if ours => self.step(event, text),
            "error" if event.num("id").is_some_and(|id| self.errors.contains(&id)) => {
                self.seen.verdicts.push(text);
                self.record = Some(event.value().clone());
            }
            "error" if self.strangers.len() < MOST_ENTRIES => {
                self.strangers.push(event.clone());
                self.know_by_place();
            }
            "killed" | "restart" | "stopped" | "watchdog" => self.end(event, ours, text),
            "pvpanic" if ours => self
                .seen
                .panics
                .push(Sign::new(format!("by its device: {text}"))),
            "pvpanic" => self.end(event, ours, text),
            "panic" | "halt" => self.fault(text),
            "crash" if event.text("kind") != Some("error") => self.fault(text),
            "boot" => {
                let reset = self.seen.machine_reset.get_or_insert(text);
                reset.truncate(400);
            }
            _ => {}
        }
        self.look_at_silence();
    }

    /// An error that EL2 found where the firmware had left ours, on the same PE, before the same
    /// instruction and with the same syndrome, is ours, whatever number its record has.
    fn know_by_place(&mut self) {
        let (Some(iss), Some((pe, elr))) = (self.alone, self.delivered) else {
            return;
        };
        if !self.seen.verdicts.is_empty() {
            return;
        }
        let is_it = |event: &&Event| {
            let place = (event.num("pe"), event.hex("pc"), event.hex("iss"));
            place == (Some(pe), Some(elr), Some(iss))
        };
        let found: Vec<&Event> = self.strangers.iter().filter(is_it).collect();
        // Two of them would be one too many to know.
        if let [event] = found[..] {
            let text = format!("known by its place: {}", sentence(event));
            self.record = Some(event.value().clone());
            self.seen.verdicts.push(text);
        }
    }

    fn end(&mut self, event: &Event, ours: bool, text: String) {
        if ours {
            self.seen.ends.push(text);
        } else if event.name() != "watchdog" {
            let name = event.text("name").unwrap_or("another partition");
            self.fault(format!(
                "{name} ended, which has nothing to do with the error: {text}"
            ));
        }
    }

    fn step(&mut self, event: &Event, text: String) {
        let stage = match (event.name(), event.text("state")) {
            ("vserror", Some("pending")) => Stage::Pending,
            ("vserror", Some("deferred")) => Stage::Deferred,
            ("vserror", Some("gone")) => Stage::Gone,
            ("vserror", Some("merged")) => Stage::Merged,
            ("vserror", Some("cancelled")) => Stage::Cancelled,
            _ => Stage::Taken,
        };
        let esr = match event.name() {
            "vserror" => event.hex("syndrome").map(|iss| 0xbe00_0000 | iss),
            "vsea" => event.hex("esr"),
            _ => None,
        };
        let el = match event.text("el") {
            Some("el0") => Some(0),
            Some("el1") => Some(1),
            _ => None,
        };
        // A guest that meets the same aborts again and again does not live by that, nor is it touched.
        let is_known = self.given.contains(&text);
        if !is_known {
            if self.given.len() < MOST_ENTRIES {
                self.given.insert(text.clone());
                self.alive_ns = self.now_ns;
            }
            if stage != Stage::Pending {
                self.seen.beats = 0;
                self.awaits_look = false;
            }
        }
        let step = Step {
            t_ns: self.elapsed_ns(),
            stage,
            esr,
            exact: event.flag("exact") == Some(true) || event.name() != "vserror",
            el,
            pc: event.hex("elr"),
            text,
        };
        if self.seen.life.len() < MOST_ENTRIES {
            self.seen.life.push(step);
        }
    }

    fn firmware(&mut self, line: &firebreak_qemu::FirmwareLine) {
        let id = line.num("id");
        let ours = id.is_some_and(|id| self.errors.contains(&id));
        if line.verb != "pong" {
            self.tell(Source::Firmware, line.raw.clone());
        }
        match line.verb.as_str() {
            "raised" | "storm" if ours => {
                // What the guest said before that says nothing.
                self.seen.beats = 0;
                self.decided = None;
                self.awaits_look = false;
                self.seen.raised = Raised::Yes;
            }
            "delivered" if ours => {
                self.delivered = line.num("pe").zip(line.num("elr"));
                self.know_by_place();
            }
            "handled" | "dropped" if ours => self.seen.verdicts.push(line.raw.clone()),
            "reset" => self.seen.machine_reset = Some(line.raw.clone()),
            "error" => self.seen.raised = Raised::Refused(line.raw.clone()),
            "panic" => self.fault(line.raw.clone()),
            _ => {}
        }
    }

    /// The machine's time went on, and the guest said nothing.
    fn look_at_silence(&mut self) {
        let silent_ns = self.now_ns.saturating_sub(self.alive_ns);
        if silent_ns > self.setting.silence_ns {
            self.seen.silent = true;
        }
    }
}

/// Says whether a task ended by SIGKILL, as what is typed behind an error ends one; other signals are the
/// error's, however late they are told.
fn is_kill(line: &str) -> bool {
    !line.contains("signal=") || line.ends_with("signal=9")
}

#[cfg(test)]
mod tests;
