// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a transcript: which line of the firmware, which event, which word of a guest belongs to
//! which point.
//!
//! The firmware's lines and the hypervisor's events carry the number of their error, or follow one
//! that does. A guest knows no errors: its words carry the period that they are about.

use std::collections::{BTreeMap, BTreeSet};

use firebreak_qemu::{Event, FirmwareLine, Record};

use super::judge::{BootRecord, Point, Told};

/// Names of the partitions, by their numbers.
const PARTITIONS: [&str; 2] = ["sweep", "bystander"];

/// What a guest said of a period.
struct Said {
    vm: u64,
    period: u64,
    what: What,
    text: String,
}

/// What it is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// A virtual SError that it took.
    Serror,
    /// A page that is gone for both of its vCPUs.
    Gone,
    /// Something that was wrong.
    Wrong,
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    all: BTreeMap<u64, Point>,
    /// The point of which an event told last, and the one that the firmware raised last: the two
    /// lines race.
    last_reported: Option<u64>,
    last_raised: Option<u64>,
    said: Vec<Said>,
}

/// Reads the transcript of a sweep with periods of that length. Points stand in the order of their
/// numbers; an error with an odd number opened the period of the point before it.
pub(super) fn points(records: &[Record], period_ticks: u64) -> Vec<Point> {
    let mut reader = Reader::default();
    for record in records {
        match record {
            Record::Firmware(line) => reader.firmware(line),
            Record::Event(event) => reader.event(event, period_ticks),
            Record::Line { name, text } => reader.line(name, text),
            _ => {}
        }
    }
    reader.finish(records)
}

impl Reader {
    fn firmware(&mut self, line: &FirmwareLine) {
        if let Some(id) = line.num("id") {
            firmware(self.all.entry(id & !1).or_default(), id, line);
            if line.verb == "point" || line.verb == "raised" {
                self.last_raised = Some(id & !1);
            }
        } else if line.verb == "reset"
            && let Some(point) = self.last_raised.and_then(|id| self.all.get_mut(&id))
        {
            point.reset = true;
        }
    }

    fn event(&mut self, event: &Event, period_ticks: u64) {
        if let Some(id) = reported_id(event) {
            self.last_reported = Some(id & !1);
            let point = self.all.entry(id & !1).or_default();
            let period = event.num("t").map(|ticks| ticks / period_ticks);
            point.period = point.period.or(period);
        }
        if event.name() == "boot-error-record" {
            self.boot_record(event, period_ticks);
        }
        hypervisor(&mut self.all, self.last_reported, event);
    }

    /// Takes what is told after a reset: of which error it is, it says itself. What EL2 decided by a
    /// syndrome alone names none, and is that of the point before the reset.
    fn boot_record(&mut self, event: &Event, period_ticks: u64) {
        let id = match event.num("id") {
            Some(id) => Some(id).filter(|id| id & 1 == 0),
            None => self.last_raised,
        };
        let Some(id) = id else { return };
        let point = self.all.entry(id).or_default();
        // No report came before the reset.
        let period = event.num("t").map(|ticks| ticks / period_ticks);
        point.period = point.period.or(period);
        point.fate.boot_records.push(BootRecord {
            source: event.text("source").unwrap_or_default().to_owned(),
            iss: event.hex("iss"),
            pc: event.hex("pc"),
            is_named: event.num("id").is_some(),
        });
    }

    fn line(&mut self, name: &str, text: &str) {
        let vm = PARTITIONS.iter().position(|each| *each == name);
        let is_bad = text.contains("bad round") || text.contains("panic");
        let what = match () {
            () if text.contains("sweep: serror") => Some(What::Serror),
            () if text.contains("sweep: gone") => Some(What::Gone),
            () => is_bad.then_some(What::Wrong),
        };
        let period = text
            .split_once(" round=")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        match (vm, period, what) {
            (Some(vm), Some(period), Some(what)) => self.said.push(Said {
                vm: vm as u64,
                period,
                what,
                text: text.to_owned(),
            }),
            _ if is_bad => {
                if let Some(point) = self.last_reported.and_then(|id| self.all.get_mut(&id)) {
                    point.problems.push(text.to_owned());
                }
            }
            _ => {}
        }
    }

    /// Lays what the guests said at the door of the point that was reported in that period; where
    /// there is none, of the last one before.
    fn settle_words(&mut self) {
        let mut periods: BTreeMap<u64, u64> = BTreeMap::new();
        for (id, point) in &self.all {
            periods.extend(point.period.map(|period| (period, *id)));
        }
        for said in std::mem::take(&mut self.said) {
            let id = periods
                .range(..=said.period)
                .next_back()
                .or_else(|| periods.iter().next());
            if let Some(point) = id.and_then(|(_, id)| self.all.get_mut(id)) {
                // Memory is not cleared before a partition's first start; and a life that is told of an
                // error begins with that pending.
                let dirty = point.reset && said.text.contains("at-reset dirty");
                let told = !point.fate.told.is_empty() && said.text.contains("at-reset isr=0x100 ");
                let is_allowed = dirty || told;
                match said.what {
                    What::Serror => point.fate.heard.push(said.vm),
                    What::Gone => point.fate.gone += 1,
                    What::Wrong if is_allowed => {}
                    What::Wrong => point.problems.push(said.text),
                }
            }
        }
    }

    fn finish(mut self, records: &[Record]) -> Vec<Point> {
        self.settle_words();
        // An error that was asked for but never struck is no point.
        self.all
            .retain(|_, point| point.fate.raised > 0 || point.elr != 0);
        let mut points: Vec<Point> = self
            .all
            .into_iter()
            .map(|(id, point)| Point { id, ..point })
            .collect();
        points.iter_mut().for_each(Point::account);
        let openings = without_a_record(records);
        if let Some(last) = points.last_mut() {
            last.problems.extend(openings);
        }
        points
    }
}

/// Holds the errors without a record against each other: how many the firmware handed over, and
/// how many were reported. A reset may come before the report.
fn without_a_record(records: &[Record]) -> Option<String> {
    let (mut bare, mut handed, mut reported, mut resets) = (BTreeSet::new(), 0, 0, 0);
    for record in records {
        match record {
            Record::Firmware(line) => match (line.verb.as_str(), line.num("id")) {
                ("raised", Some(id)) if line.text("sev") == Some("none") => {
                    bare.insert(id);
                }
                ("delivered" | "taken", Some(id)) if bare.contains(&id) => handed += 1,
                ("reset", _) => resets += 1,
                _ => {}
            },
            Record::Event(event) if event.name() == "unclaimed" => reported += 1,
            _ => {}
        }
    }
    let is_whole = reported <= handed && reported + resets >= handed;
    (!is_whole).then(|| {
        format!("{reported} errors without a record were reported, and {handed} handed over")
    })
}

/// Returns the firmware's number of an error that is reported. One without a record has a number
/// that the hypervisor gave it.
fn reported_id(event: &Event) -> Option<u64> {
    let has_record = event.name() == "error" && event.text("cper") != Some("none");
    event.num("id").filter(|_| has_record)
}

/// Takes an event; `last`: the point of which the last report told.
fn hypervisor(all: &mut BTreeMap<u64, Point>, last: Option<u64>, event: &Event) {
    let Some(point) = last.map(|id| all.entry(id).or_default()) else {
        return;
    };
    let vm = event.num("vm").unwrap_or(0);
    match event.name() {
        "error" if reported_id(event).is_some_and(|id| id & 1 == 0) => {
            point.fate.reported += 1;
            point.fate.blamed = event.text("name").map(str::to_owned);
            point.fate.page_of = event.num("page_vm");
        }
        "error" if reported_id(event).is_some() => point.fate.openings.reported += 1,
        "killed" | "restart" | "stopped" | "abort" if vm != 0 => {
            point
                .problems
                .push(format!("another partition: {}", event.value()));
        }
        "killed" | "restart" | "stopped" => {
            point.stops += 1;
            point.killed += u32::from(event.name() == "killed");
        }
        "retired" => point.fate.retired.push(vm),
        "vserror" if event.text("state") == Some("pending") => {
            let syndrome = event.hex("syndrome").unwrap_or(u64::MAX);
            point.fate.told.push(Told { vm, syndrome });
        }
        "panic" | "halt" => {
            point.reset = true;
            point.problems.push(format!("{}", event.value()));
        }
        _ => {}
    }
}

fn firmware(point: &mut Point, id: u64, line: &FirmwareLine) {
    if line.verb == "reset" {
        point.reset = true;
    }
    let fate = &mut point.fate;
    if id & 1 == 1 {
        let openings = &mut fate.openings;
        match line.verb.as_str() {
            "raised" if line.text("sev") != Some("none") => openings.raised += 1,
            "dropped" => openings.dropped += 1,
            "acked" => openings.acked += 1,
            _ => {}
        }
        return;
    }
    match line.verb.as_str() {
        "point" => {
            point.at = line.num("at").unwrap_or_default();
            point.elr = line.num("elr").unwrap_or_default();
            point.spsr = line.num("spsr").unwrap_or_default();
        }
        "raised" => fate.raised += 1,
        "delivered" => {
            fate.delivered += 1;
            let in_el2 = line.text("from") == Some("el2");
            fate.handed_at = line.num("elr").map(|elr| (in_el2, elr));
        }
        "deferred" => point.held |= line.text("reason") == Some("busy"),
        "taken" => fate.taken += 1,
        "acked" => fate.acked += 1,
        "dropped" => fate.dropped += 1,
        _ => {}
    }
}
