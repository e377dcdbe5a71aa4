// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes what a machine says, record by record, and sorts it into an [`Observation`].

use firebreak_qemu::{Event, Record};
use firebreak_report as report;
use firebreak_report::Source;

use crate::glob;
use crate::observation::{Observation, Promise, Raised, Sign, Stage, Step};
use crate::plan::{Like, Meaning, Pattern};

/// A guest that prints more lines than this floods its console.
const FLOOD_LINES: usize = 20_000;
/// So many of the last lines of the console are kept.
const CONSOLE_LINES: usize = 60;
/// So many entries of the timeline, and of each sort of sign.
const MOST_ENTRIES: usize = 200;

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
        self.alive_ns = self.now_ns;
        self.tell(Source::Host, what.to_owned());
    }

    /// Says whether nothing that is still to come can change the class. A bystander tells afterwards
    /// what it missed: its next report is waited for.
    pub(crate) fn is_over(&mut self) -> bool {
        let seen = &self.seen;
        if seen.host.is_some() || seen.flooded || !seen.faults.is_empty() {
            return true;
        }
        let ended = !seen.ends.is_empty() || seen.machine_reset.is_some();
        if !(ended || seen.alive() || seen.silent) {
            return false;
        }
        let decided = *self.decided.get_or_insert(self.reports);
        self.setting.bystander.is_none() || self.reports > decided
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
            Some(Meaning::TaskKilled) if !self.typed.is_empty() => return,
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
        if stage != Stage::Pending {
            self.seen.beats = 0;
        }
        // A guest that meets the same abort again and again does not live.
        if self.seen.life.last().is_none_or(|last| last.text != text) {
            self.alive_ns = self.now_ns;
        }
        let step = Step {
            t_ns: self.elapsed_ns(),
            stage,
            esr,
            exact: event.flag("exact") == Some(true) || event.name() == "vsea",
            el,
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

/// An event in few words: its name and members.
pub(crate) fn sentence(event: &Event) -> String {
    let members = event.value().as_object().into_iter().flatten();
    let members = members.filter(|(key, value)| {
        !matches!(key.as_str(), "v" | "t" | "ev" | "vm") && !value.is_null()
    });
    let mut text = event.name().to_owned();
    for (key, value) in members {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        text += &format!(" {key}={value}");
    }
    text
}

/// Returns how many ticks a line of `guest-images/control` says were missed.
pub(crate) fn missed_ticks(line: &str) -> Option<u64> {
    let (_, behind) = line
        .strip_prefix("control: ticks=")?
        .split_once("missed=")?;
    behind.split(' ').next()?.parse().ok()
}

/// Returns how late the latest tick was since the report before, in nanoseconds.
fn latest_tick(line: &str) -> Option<u64> {
    let (_, behind) = line.split_once("late_max_ns=")?;
    behind.split(' ').next()?.parse().ok()
}

/// Returns the ESR that a line tells: as it is, or put together from DISR_EL1.
fn reported_esr(pattern: &Pattern, line: &str) -> Option<u64> {
    if let Some(before) = &pattern.esr_after {
        return hex_after(line, before);
    }
    let disr = hex_after(line, pattern.disr_after.as_ref()?)?;
    Some(0xbe00_0000 | disr & 0x1ff_ffff)
}

/// Returns the hexadecimal number behind a text.
pub(crate) fn hex_after(line: &str, before: &str) -> Option<u64> {
    let (_, behind) = line.split_once(before)?;
    let digits = behind.trim_start().strip_prefix("0x").unwrap_or(behind);
    let end = digits
        .find(|c: char| !c.is_ascii_hexdigit())
        .unwrap_or(digits.len());
    u64::from_str_radix(digits.get(..end)?, 16).ok()
}

/// Returns what is known of the lines of a kind of guest.
pub(crate) fn shipped(like: Like) -> Vec<Pattern> {
    let pattern = |line: &str, means: Meaning, esr_after: Option<&str>| Pattern {
        guests: Vec::new(),
        line: line.to_owned(),
        means,
        esr_after: esr_after.map(str::to_owned),
        disr_after: None,
    };
    match like {
        Like::Victim => vec![
            pattern("victim: alive *", Meaning::Alive, None),
            pattern("victim: serror *", Meaning::Reported, Some("esr=")),
            pattern("victim: abort *", Meaning::Reported, Some("esr=")),
            pattern("victim: page content lost *", Meaning::Corrupted, None),
            pattern("victim: esb disr=0x0", Meaning::Usual, None),
            Pattern {
                disr_after: Some("disr=".to_owned()),
                ..pattern("victim: esb disr=*", Meaning::Reported, None)
            },
            pattern(
                "victim: masked|victim: unmasked|victim: ready *",
                Meaning::Usual,
                None,
            ),
        ],
        Like::Linux => vec![
            pattern("agent: beat * pattern=ok", Meaning::Alive, None),
            pattern("agent: beat * pattern=bad", Meaning::Corrupted, None),
            pattern("agent: child ended signal=*", Meaning::TaskKilled, None),
            pattern("agent: *", Meaning::Usual, None),
            pattern(
                "*SError Interrupt on CPU*",
                Meaning::Reported,
                Some("code "),
            ),
            pattern("*Kernel panic - not syncing*", Meaning::Panicked, None),
            pattern(
                "*Internal error: *|*Hardware Error*",
                Meaning::Reported,
                None,
            ),
            pattern("*Memory failure: *", Meaning::Reported, None),
        ],
        Like::UBoot => vec![
            pattern("\"Error\" handler, esr *", Meaning::Reported, Some("esr ")),
            pattern(
                "\"Synchronous Abort\" handler, esr *",
                Meaning::Reported,
                Some("esr "),
            ),
            pattern("*### ERROR ### Please RESET*", Meaning::Panicked, None),
        ],
        Like::Other => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observer() -> Observer {
        let setting = Setting {
            partition: "linux".to_owned(),
            vm: 0,
            patterns: shipped(Like::Linux),
            bystander: Some(("control".to_owned(), 3)),
            silence_ns: 1000,
        };
        Observer::new(setting, Promise::default(), 2)
    }

    fn fed(lines: &[&str]) -> Observer {
        let mut observer = observer();
        observer.errors.push(9);
        for line in lines {
            observer.push(&Record::parse(line));
        }
        observer
    }

    #[test]
    fn the_words_of_linux_are_sorted() {
        let seen = fed(&[
            r#"{"v":1,"t":10,"ev":"vserror","vm":0,"vcpu":0,"inj":7,"syndrome":"0x811","state":"taken","elr":"0x1","el":"el0","exact":true}"#,
            "linux| [    1.0] SError Interrupt on CPU0, code 0x00000000be000811 -- SError",
            "linux| [    1.1] Kernel panic - not syncing: Asynchronous SError Interrupt",
            "linux| agent: beat n=1 pattern=ok",
            "linux| agent: beat n=2 pattern=bad",
            "linux| agent: rests",
            "linux| hello",
        ])
        .seen;
        assert_eq!(seen.reports[0].esr, Some(0xbe00_0811));
        assert_eq!(seen.life[0].esr, Some(0xbe00_0811));
        assert_eq!((seen.panics.len(), seen.beats), (1, 1));
        assert_eq!((seen.corruptions.len(), seen.unusual.len()), (1, 1));
    }

    #[test]
    fn a_task_that_ends_by_what_was_typed_counts_for_nothing() {
        let mut observer = observer();
        let ended = Record::parse("linux| agent: child ended signal=9");
        observer.typed.push("rest\n".to_owned());
        observer.push(&ended);
        observer.push(&Record::parse("linux| rest"));
        let seen = &observer.seen;
        assert!(seen.task_kills.is_empty() && seen.unusual.is_empty());
        observer.typed.clear();
        observer.push(&ended);
        assert_eq!(observer.seen.task_kills.len(), 1);
    }

    #[test]
    fn what_concerns_others_is_a_fault() {
        let tick = "control| control: ticks=2000 missed=3 jitter_max_ns=5";
        assert!(fed(&[tick]).seen.faults.is_empty());
        let late = "control| control: ticks=2000 missed=4 jitter_max_ns=5";
        assert_eq!(fed(&[late]).seen.faults.len(), 1);
        let slow = "control| control: ticks=2000 missed=3 jitter_max_ns=900 late_max_ns=500";
        let slow = fed(&[slow, tick]).seen;
        assert_eq!((slow.faults.len(), slow.bystander_late_ns), (0, Some(500)));
        let killed = r#"{"v":1,"t":10,"ev":"killed","vm":1,"name":"control","reason":"x"}"#;
        assert_eq!(fed(&[killed]).seen.faults.len(), 1);
        let ours = r#"{"v":1,"t":10,"ev":"killed","vm":0,"name":"linux","reason":"x"}"#;
        assert_eq!(fed(&[ours]).seen.ends.len(), 1);
        let panics = r#"{"v":1,"t":10,"ev":"pvpanic","vm":0,"name":"linux","events":1}"#;
        let seen = fed(&[panics]).seen;
        assert_eq!((seen.panics.len(), seen.faults.len()), (1, 0));
        for failed in [
            r#"{"v":1,"t":10,"ev":"pvpanic","vm":1,"name":"control","events":1}"#,
            r#"{"v":1,"t":10,"ev":"panic","pe":0,"text":"x"}"#,
            r#"{"v":1,"t":10,"ev":"crash","kind":"panic"}"#,
        ] {
            assert_eq!(fed(&[failed]).seen.faults.len(), 1, "{failed}");
        }
        let decided = r#"{"v":1,"t":10,"ev":"crash","kind":"error"}"#;
        assert!(fed(&[decided]).seen.faults.is_empty());
    }

    #[test]
    fn silence_is_counted_in_the_machines_time_and_ends_with_a_sign_of_life() {
        let at = |t: u64| format!(r#"{{"v":1,"t":{t},"ev":"answer","id":1,"ok":true}}"#);
        assert!(!fed(&[&at(0), &at(1000)]).seen.silent);
        assert!(fed(&[&at(0), &at(1001)]).seen.silent);
        let beat = "linux| agent: beat n=1 pattern=ok";
        assert!(!fed(&[&at(0), &at(900), beat, &at(1800)]).seen.silent);
        // Words are no sign of life.
        assert!(
            fed(&[&at(0), &at(900), "linux| hello", &at(1800)])
                .seen
                .silent
        );
    }

    /// A kernel without the table of its own text met it for ever, and each time counted as life.
    #[test]
    fn the_same_abort_again_and_again_is_silence() {
        let abort = |t: u64, pc: &str| {
            format!(r#"{{"v":1,"t":{t},"ev":"abort","vm":0,"vcpu":0,"pc":"{pc}","retired":true}}"#)
        };
        let same = [abort(0, "0x8"), abort(600, "0x8"), abort(1200, "0x8")];
        assert!(fed(&same.each_ref().map(String::as_str)).seen.silent);
        let others = [abort(0, "0x8"), abort(600, "0xc"), abort(1200, "0x8")];
        assert!(!fed(&others.each_ref().map(String::as_str)).seen.silent);
    }

    #[test]
    fn a_flood_is_noticed_and_takes_no_memory() {
        let mut observer = observer();
        let line = Record::parse("linux| spam");
        for _ in 0..3 * FLOOD_LINES {
            observer.push(&line);
        }
        assert!(observer.seen.flooded && observer.is_over());
        assert!(observer.console.len() <= CONSOLE_LINES);
        assert!(observer.timeline.len() <= MOST_ENTRIES);
        assert!(observer.seen.unusual.len() <= MOST_ENTRIES);
    }

    /// A record whose section with the number was broken was nobody's, and its case inconclusive.
    #[test]
    fn an_error_is_known_by_its_place_where_its_number_is_a_lie() {
        let delivered = "fw: delivered id=9 pe=2 from=el1 vector=0x580 elr=0x402015d4";
        let event = |pe: u8, pc: &str, iss: &str| {
            format!(
                r#"{{"v":1,"t":10,"ev":"error","id":1,"pe":{pe},"pc":"{pc}","iss":"{iss}","verdict":"log"}}"#
            )
        };
        let known = |lines: &[&str]| {
            let mut observer = observer();
            observer.errors.push(9);
            observer.alone = Some(0x811);
            for line in lines {
                observer.push(&Record::parse(line));
            }
            observer.seen.verdicts.len() == 1 && observer.record.is_some()
        };
        let ours = event(2, "0x402015d4", "0x811");
        // The two lines come in either order.
        assert!(known(&[delivered, &ours]) && known(&[&ours, delivered]));
        assert!(!known(&[&ours]));
        for other in [
            event(3, "0x402015d4", "0x811"),
            event(2, "0x402015d8", "0x811"),
            event(2, "0x402015d4", "0x1811"),
        ] {
            assert!(!known(&[delivered, &other]), "{other}");
        }
        // Two that fit, and nobody knows which.
        assert!(!known(&[&ours, &ours, delivered]));
    }

    #[test]
    fn the_bystander_has_the_last_word() {
        let raised = "fw: raised id=9 pe=1";
        let beat = "linux| agent: beat n=1 pattern=ok";
        let tick = "control| control: ticks=2000 missed=3 jitter_max_ns=5";
        let over = |lines: &[&str]| fed(lines).is_over();
        // Whatever was said before the error was there counts for nothing.
        assert!(!over(&[beat, beat, raised, tick]));
        let mut observer = fed(&[raised, tick, beat, beat]);
        assert!(!observer.is_over());
        observer.push(&Record::parse(tick));
        assert!(observer.is_over());
        let late = "control| control: ticks=2000 missed=4 jitter_max_ns=5";
        assert!(over(&[late]));
    }

    #[test]
    fn numbers_in_lines_are_found() {
        assert_eq!(hex_after("code 0x00be, x", "code "), Some(0xbe));
        assert_eq!(hex_after("esr=be", "esr="), Some(0xbe));
        assert_eq!(hex_after("esr=", "esr="), None);
        assert_eq!(
            missed_ticks("control: ticks=1000 missed=7 jitter_max_ns=1"),
            Some(7)
        );
        assert_eq!(missed_ticks("control: ready"), None);
    }
}
