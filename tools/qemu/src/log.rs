// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that a machine said, in the order in which it arrived.
//!
//! The order holds for each line of its own. Records of two different lines (shared serial,
//! secure serial, QMP) race on their way, so nothing may be concluded from their order.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Event, FirmwareLine, Item};

/// How many records of each line a failure shows.
const SHOWN: usize = 40;
/// How many of QEMU's own lines a failure shows.
const SHOWN_STDERR: usize = 20;

/// Something that the machine said.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// The hypervisor's event.
    Event(Event),
    /// A whole line of a guest.
    Line {
        /// Name of the partition.
        name: String,
        /// The line; bytes that are not UTF-8 are replaced.
        text: String,
    },
    /// A line of the hypervisor, or noise.
    Plain(String),
    /// A line of the firmware.
    Firmware(FirmwareLine),
    /// Anything else on the secure serial line.
    SecurePlain(String),
    /// An event of QEMU itself: `RESET`, `SHUTDOWN`, ...
    Qemu(String),
}

impl Record {
    /// Returns the event of that name.
    pub fn event(&self, name: &str) -> Option<&Event> {
        match self {
            Self::Event(event) if event.name() == name => Some(event),
            _ => None,
        }
    }

    /// Returns what the partition of that name said.
    pub fn line(&self, partition: &str) -> Option<&str> {
        match self {
            Self::Line { name, text } if name == partition => Some(text),
            _ => None,
        }
    }

    /// Returns the firmware's line with that verb.
    pub fn firmware(&self, verb: &str) -> Option<&FirmwareLine> {
        match self {
            Self::Firmware(line) if line.verb == verb => Some(line),
            _ => None,
        }
    }

    /// Reads a record as [`Display`](fmt::Display) writes it: a line of a saved transcript.
    pub fn parse(line: &str) -> Self {
        if let Some(event) = serde_json::from_str(line).ok().and_then(Event::new) {
            return Self::Event(event);
        }
        if let Some(firmware) = FirmwareLine::parse(line) {
            return Self::Firmware(firmware);
        }
        if let Some(event) = line.strip_prefix("[qemu] ") {
            return Self::Qemu(event.to_owned());
        }
        match line.split_once("| ") {
            Some((name, text)) if firebreak_wire::is_console_name(name) => Self::Line {
                name: name.to_owned(),
                text: text.to_owned(),
            },
            _ => Self::Plain(line.to_owned()),
        }
    }

    fn is_guest(&self) -> bool {
        matches!(self, Self::Line { .. })
    }

    fn is_secure(&self) -> bool {
        matches!(self, Self::Firmware(_) | Self::SecurePlain(_))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(event) => write!(f, "{}", event.value()),
            Self::Line { name, text } => write!(f, "{name}| {text}"),
            Self::Plain(text) | Self::SecurePlain(text) => write!(f, "{text}"),
            Self::Firmware(line) => write!(f, "{}", line.raw),
            Self::Qemu(event) => write!(f, "[qemu] {event}"),
        }
    }
}

/// A place in the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Mark(pub(crate) usize);

impl Mark {
    /// The start of the log.
    pub const START: Self = Self(0);
}

/// Why a wait ended without what was waited for.
#[derive(Debug)]
pub struct Failure {
    text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

#[derive(Default)]
struct State {
    records: Vec<Record>,
    partial: BTreeMap<String, Vec<u8>>,
    open_lines: usize,
    stderr: Vec<String>,
}

/// The log, filled by reader threads.
#[derive(Default)]
pub(crate) struct Log {
    state: Mutex<State>,
    grown: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that one more line of the machine is being read.
    pub(crate) fn opened(&self) {
        self.lock().open_lines += 1;
    }

    /// Says that a line of the machine ended.
    pub(crate) fn closed(&self) {
        self.lock().open_lines -= 1;
        self.grown.notify_all();
    }

    /// Adds a record.
    pub(crate) fn push(&self, record: Record) {
        self.lock().records.push(record);
        self.grown.notify_all();
    }

    /// Adds a line of QEMU's own.
    pub(crate) fn push_stderr(&self, line: String) {
        self.lock().stderr.push(line);
    }

    /// Adds an item of the shared line; pieces of a guest's line are put together.
    pub(crate) fn push_item(&self, item: &Item) {
        let mut state = self.lock();
        let record = match item {
            Item::Event(event) => {
                forget_torn_lines(&mut state.partial, event);
                Record::Event(event.clone())
            }
            Item::Console {
                name,
                bytes,
                newline,
            } => {
                let line = state.partial.entry(name.clone()).or_default();
                line.extend_from_slice(bytes);
                if !newline {
                    return;
                }
                let text = String::from_utf8_lossy(&std::mem::take(line)).into_owned();
                Record::Line {
                    name: name.clone(),
                    text,
                }
            }
            Item::Plain(text) => Record::Plain(text.clone()),
        };
        state.records.push(record);
        drop(state);
        self.grown.notify_all();
    }

    /// Forgets what guests had printed of a line: the machine is another one from now on.
    pub(crate) fn forget_unfinished(&self) {
        self.lock().partial.clear();
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.lock().records.len())
    }

    pub(crate) fn since(&self, mark: Mark) -> Vec<Record> {
        self.lock().records.get(mark.0..).unwrap_or(&[]).to_vec()
    }

    /// Waits until `look` finds what it wants in the records since `mark`.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        mark: Mark,
        deadline: Duration,
        mut look: impl FnMut(&[Record]) -> Option<T>,
    ) -> Result<T, Failure> {
        let end = Instant::now() + deadline;
        let mut state = self.lock();
        let mut seen = None;
        loop {
            if seen != Some(state.records.len()) {
                seen = Some(state.records.len());
                if let Some(found) = look(state.records.get(mark.0..).unwrap_or(&[])) {
                    return Ok(found);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.open_lines == 0 || left.is_zero() {
                let why = if state.open_lines == 0 {
                    "the machine ended"
                } else {
                    "time ran out"
                };
                return Err(Failure {
                    text: explain(&state, what, why, deadline),
                });
            }
            let (next, _) = self
                .grown
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }

    /// Waits for records behind `mark`, moves it behind them, and says whether the machine ended.
    pub(crate) fn fresh(&self, mark: &mut Mark, deadline: Duration) -> (Vec<Record>, bool) {
        let end = Instant::now() + deadline;
        let mut state = self.lock();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let ended = state.open_lines == 0;
            if state.records.len() > mark.0 || ended || left.is_zero() {
                let fresh = state.records.get(mark.0..).unwrap_or(&[]).to_vec();
                *mark = Mark(state.records.len());
                return (fresh, ended);
            }
            let (next, _) = self
                .grown
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }

    /// Waits until every line of the machine ended.
    pub(crate) fn wait_end(&self, deadline: Duration) -> Result<(), Failure> {
        let end = Instant::now() + deadline;
        let mut state = self.lock();
        while state.open_lines != 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = explain(&state, "the end of the machine", "time ran out", deadline);
                return Err(Failure { text });
            }
            let (next, _) = self
                .grown
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
        Ok(())
    }

    /// Says what was there instead of what was expected.
    pub(crate) fn explain(&self, what: &str, why: &str) -> Failure {
        Failure {
            text: explain(&self.lock(), what, why, Duration::ZERO),
        }
    }
}

/// A line that its guest never ended must not swallow the first line of the next boot.
fn forget_torn_lines(partial: &mut BTreeMap<String, Vec<u8>>, event: &Event) {
    match event.name() {
        "boot" => partial.clear(),
        "started" => {
            if let Some(name) = event.text("name") {
                partial.remove(name);
            }
        }
        _ => {}
    }
}

fn explain(state: &State, what: &str, why: &str, deadline: Duration) -> String {
    let mut text = format!("expected {what}, but {why}");
    if !deadline.is_zero() {
        let _ = write!(text, " (waited at most {} s)", deadline.as_secs());
    }
    text.push('\n');
    let is_hypervisor = |record: &Record| !record.is_secure() && !record.is_guest();
    tail(
        &mut text,
        "hypervisor, on the shared serial line",
        &state.records,
        is_hypervisor,
    );
    tail(
        &mut text,
        "guests, on the shared serial line",
        &state.records,
        Record::is_guest,
    );
    tail(
        &mut text,
        "secure serial line",
        &state.records,
        Record::is_secure,
    );
    for (name, bytes) in &state.partial {
        if !bytes.is_empty() {
            let _ = writeln!(
                text,
                "  unfinished: {name}> {}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
    if !state.stderr.is_empty() {
        text.push_str("-- QEMU says:\n");
        let skipped = state.stderr.len().saturating_sub(SHOWN_STDERR);
        for line in state.stderr.iter().skip(skipped) {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

fn tail(text: &mut String, title: &str, records: &[Record], keep: impl Fn(&Record) -> bool) {
    let kept: Vec<&Record> = records.iter().filter(|record| keep(record)).collect();
    let skipped = kept.len().saturating_sub(SHOWN);
    let _ = writeln!(
        text,
        "-- {title}: {} records, last {}:",
        kept.len(),
        kept.len() - skipped
    );
    for record in kept.into_iter().skip(skipped) {
        let _ = writeln!(text, "  {record}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(name: &str, text: &str, newline: bool) -> Item {
        Item::Console {
            name: name.to_owned(),
            bytes: text.as_bytes().to_vec(),
            newline,
        }
    }

    #[test]
    fn pieces_of_a_line_are_put_together_across_other_records() {
        let log = Log::default();
        log.push_item(&console("linux", "agent: be", false));
        log.push_item(&console("control", "control: ready", true));
        log.push_item(&console("linux", "at n=1", true));
        let lines: Vec<String> = log
            .since(Mark::START)
            .iter()
            .map(Record::to_string)
            .collect();
        assert_eq!(lines, ["control| control: ready", "linux| agent: beat n=1"]);
    }

    #[test]
    fn a_transcript_can_be_read_again() {
        for line in [
            r#"{"ev":"halt","t":1,"v":1}"#,
            "linux| agent: beat n=1 pattern=ok",
            "linux| ",
            "fw: ready pes=4",
            "[qemu] RESET",
            "firebreak: hello | world",
        ] {
            let record = Record::parse(line);
            assert_eq!(record.to_string(), line);
            assert_eq!(
                matches!(record, Record::Plain(_)),
                line.starts_with("firebreak")
            );
        }
    }

    #[test]
    fn a_torn_line_ends_with_the_boot() {
        let log = Log::default();
        log.push_item(&console("linux", "half", false));
        let boot = serde_json::json!({"v":1,"t":0,"ev":"boot"});
        log.push_item(&Item::Event(Event::new(boot).unwrap()));
        log.push_item(&console("linux", "whole", true));
        assert_eq!(log.since(Mark(1))[0].line("linux"), Some("whole"));
    }

    #[test]
    fn a_failed_wait_shows_both_lines() {
        let log = Log::default();
        log.push(Record::Plain("firebreak: hi".to_owned()));
        log.push(Record::SecurePlain("noise".to_owned()));
        log.push_stderr("qemu: no".to_owned());
        let failure = log.wait("a boot event", Mark::START, Duration::from_secs(1), |_| {
            None::<()>
        });
        let text = failure.unwrap_err().to_string();
        for part in [
            "a boot event",
            "the machine ended",
            "firebreak: hi",
            "noise",
            "qemu: no",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
