// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of each point: by the firmware's lines, the hypervisor's events, the guest's words.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use firebreak_qemu::{Event, FirmwareLine, Record};

use super::expect::{Expected, Map, Place, expected};
use super::paths::{Kind, Mode};

/// SPSR.M\[3:2\] of EL2.
const EL2: u64 = 2;
/// The partition that is swept.
const PARTITION: &str = "sweep";
/// SPSR.A.
const SPSR_A: u64 = 1 << 8;

/// What one error went through.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// Times that the firmware raised it, handed it over, saw EL2 take it, saw it acknowledged.
    raised: u32,
    delivered: u32,
    taken: u32,
    acked: u32,
    dropped: u32,
    /// Times that the hypervisor reported it.
    reported: u32,
    /// Partition that the report blames.
    blamed: Option<String>,
    /// Where the PE was when the firmware handed it over: whether that was EL2, and ELR.
    handed_at: Option<(bool, u64)>,
    /// Boot error records that tell of it.
    boot_records: Vec<BootRecord>,
    /// Syndromes of the virtual SErrors that its report was followed by.
    told: Vec<u64>,
    /// Virtual SErrors that the guest says it took.
    heard: u32,
}

/// What a boot error record says, when it is read after the reset.
#[derive(Clone, PartialEq, Eq, Debug)]
struct BootRecord {
    source: String,
    iss: Option<u64>,
    pc: Option<u64>,
}

/// A point of the sweep.
#[derive(Clone, Debug, Default)]
pub(super) struct Point {
    /// The firmware's number of the error.
    pub(super) id: u64,
    /// Offset in the period.
    pub(super) at: u64,
    /// Interrupted instruction.
    pub(super) elr: u64,
    /// Interrupted PSTATE.
    pub(super) spsr: u64,
    /// The error.
    pub(super) fate: Fate,
    /// Stops of the guest's partition that followed, and how many of them because it was killed.
    pub(super) stops: u32,
    pub(super) killed: u32,
    /// Whether the firmware held it back because the record before was not acknowledged yet: nothing
    /// was interrupted where it was raised.
    pub(super) held: bool,
    /// Whether the machine was reset.
    pub(super) reset: bool,
    /// What was wrong.
    pub(super) problems: Vec<String>,
}

/// What a boundary cost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Loss {
    /// Nothing.
    Nothing,
    /// The interrupted partition.
    Vm,
    /// The machine.
    Machine,
}

impl Point {
    /// Says whether EL2 was interrupted.
    pub(super) fn in_el2(&self) -> bool {
        !self.held && self.spsr >> 2 & 3 == EL2
    }

    /// Says whether EL2 was interrupted with SError masked.
    pub(super) fn is_masked(&self) -> bool {
        self.in_el2() && self.spsr & SPSR_A != 0
    }

    /// Says whether the guest's partition was blamed, as far as anybody was.
    pub(super) fn blames_the_guest(&self) -> bool {
        self.held || self.fate.reported == 0 || self.fate.blamed.as_deref() == Some(PARTITION)
    }

    /// Leaves out of the account what the guest was told of the error that opened the period; that
    /// it was not told is a problem.
    pub(super) fn expect_told(&mut self, opening: Kind) {
        let syndrome = u64::from(opening.iss());
        let told = self.fate.told.iter().position(|told| *told == syndrome);
        match (told, self.fate.heard.checked_sub(1)) {
            (Some(index), Some(heard)) => {
                self.fate.told.remove(index);
                self.fate.heard = heard;
            }
            _ => self
                .problems
                .push("the guest was not told of the opening error".to_owned()),
        }
    }

    /// Holds what happened against what must happen.
    pub(super) fn verify(&self, map: &Map, (kind, mode): (Kind, Mode)) -> Vec<String> {
        if self.held {
            return Vec::new();
        }
        let place = |in_el2, elr| if in_el2 { map.place(elr) } else { Place::Guest };
        let later = self.fate.handed_at.map(|(in_el2, elr)| place(in_el2, elr));
        let here = place(self.in_el2(), self.elr);
        let wanted = expected((kind, mode), (here, self.is_masked()), later);
        let mut problems = Vec::new();
        let loss = match wanted {
            Expected::Nothing | Expected::Told => Loss::Nothing,
            Expected::Vm => Loss::Vm,
            Expected::Machine(_) => Loss::Machine,
        };
        if self.loss() != loss {
            problems.push(format!(
                "{:?} lost instead of {loss:?} ({here:?})",
                self.loss()
            ));
        }
        if loss == Loss::Vm && self.killed != 1 {
            problems.push(format!("killed {} times instead of once", self.killed));
        }
        let told = if wanted == Expected::Told {
            vec![u64::from(kind.iss())]
        } else {
            Vec::new()
        };
        if self.fate.told != told || usize::try_from(self.fate.heard) != Ok(told.len()) {
            problems.push(format!(
                "the guest was told {:x?} instead of {told:x?}, and heard {}",
                self.fate.told, self.fate.heard
            ));
        }
        let records = match wanted {
            Expected::Machine(by) => vec![BootRecord {
                source: by.name().to_owned(),
                iss: Some(u64::from(kind.iss())),
                pc: Some(self.fate.handed_at.map_or(self.elr, |(_, elr)| elr)),
            }],
            _ => Vec::new(),
        };
        if self.fate.boot_records != records {
            problems.push(format!(
                "boot error records {:x?} instead of {records:x?}",
                self.fate.boot_records
            ));
        }
        problems
    }

    /// Returns what it cost.
    pub(super) fn loss(&self) -> Loss {
        if self.reset {
            Loss::Machine
        } else if self.stops > 0 {
            Loss::Vm
        } else {
            Loss::Nothing
        }
    }
}

/// Reads the transcript of a sweep. Points stand in the order of their numbers; an error with an
/// odd number opened the period of the point before it.
pub(super) fn points(records: &[Record]) -> Vec<Point> {
    let mut all: BTreeMap<u64, Point> = BTreeMap::new();
    // The two lines race: each has a place of its own.
    let mut last_reported = None;
    let mut last_raised = None;
    // Points whose virtual SError the guest has not taken yet, and those taken but not told yet.
    let mut untold: VecDeque<u64> = VecDeque::new();
    let mut unclaimed = 0;
    for record in records {
        match record {
            Record::Firmware(line) => {
                if let Some(id) = line.num("id") {
                    firmware(all.entry(id & !1).or_default(), id, line);
                    if line.verb == "point" || line.verb == "raised" {
                        last_raised = Some(id & !1);
                    }
                } else if line.verb == "reset"
                    && let Some(point) = last_raised.and_then(|id| all.get_mut(&id))
                {
                    point.reset = true;
                }
            }
            Record::Event(event) => {
                if let Some(id) = reported_id(event) {
                    last_reported = Some(id & !1);
                }
                hypervisor(&mut all, last_reported, event);
                match (event.name(), last_reported) {
                    ("vserror", Some(id)) if event.text("state") == Some("pending") => {
                        // The guest may have been faster than the report.
                        if unclaimed == 0 {
                            untold.push_back(id);
                        } else {
                            unclaimed -= 1;
                            all.entry(id).or_default().fate.heard += 1;
                        }
                    }
                    // What was not taken by then never will be.
                    ("boot" | "restart", _) => {
                        untold.clear();
                        unclaimed = 0;
                    }
                    _ => {}
                }
            }
            Record::Line { text, .. } if text.contains("bad round") || text.contains("panic") => {
                if let Some(point) = last_reported.and_then(|id| all.get_mut(&id)) {
                    point.problems.push(text.clone());
                }
            }
            Record::Line { name, text } if name == PARTITION && text.contains("sweep: serror") => {
                match untold.pop_front().and_then(|id| all.get_mut(&id)) {
                    Some(point) => point.fate.heard += 1,
                    None => unclaimed += 1,
                }
            }
            _ => {}
        }
    }
    if let Some(point) = last_reported.and_then(|id| all.get_mut(&id)) {
        point.fate.heard += unclaimed;
    }
    // An error that was asked for but never struck is no point.
    all.retain(|_, point| point.fate.raised > 0 || point.elr != 0);
    let mut points: Vec<Point> = all
        .into_iter()
        .map(|(id, point)| Point { id, ..point })
        .collect();
    points.iter_mut().for_each(account);
    let openings = without_a_record(records);
    if let Some(last) = points.last_mut() {
        last.problems.extend(openings);
    }
    points
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
    if event.name() == "boot-error-record" {
        // After the reset: it says itself which error it is about.
        let Some(id) = event.num("id").filter(|id| id & 1 == 0) else {
            return;
        };
        let record = BootRecord {
            source: event.text("source").unwrap_or_default().to_owned(),
            iss: event.hex("iss"),
            pc: event.hex("pc"),
        };
        all.entry(id).or_default().fate.boot_records.push(record);
        return;
    }
    let Some(point) = last.map(|id| all.entry(id).or_default()) else {
        return;
    };
    let another = event.num("vm").is_some_and(|vm| vm != 0);
    match event.name() {
        "error" if reported_id(event).is_some_and(|id| id & 1 == 0) => {
            point.fate.reported += 1;
            point.fate.blamed = event.text("name").map(str::to_owned);
        }
        "killed" | "restart" | "stopped" | "vserror" | "retired" | "abort" if another => {
            point
                .problems
                .push(format!("another partition: {}", event.value()));
        }
        "killed" | "restart" | "stopped" => {
            point.stops += 1;
            point.killed += u32::from(event.name() == "killed");
        }
        "vserror" if event.text("state") == Some("pending") => {
            let syndrome = event.hex("syndrome").unwrap_or(u64::MAX);
            point.fate.told.push(syndrome);
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
    if id & 1 == 1 {
        return;
    }
    let fate = &mut point.fate;
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

/// Holds the three counts against each other: nothing lost, nothing twice.
fn account(point: &mut Point) {
    let fate = &point.fate;
    let handed = fate.delivered + fate.taken;
    let mut problems = Vec::new();
    let mut check = |what: &str, found: u32, wanted: u32| {
        if found != wanted {
            problems.push(format!("{what} {found} times instead of {wanted}"));
        }
    };
    check("raised", fate.raised, 1);
    check("dropped by the firmware", fate.dropped, 0);
    if !point.reset {
        check("handed over", handed, 1);
        check("acknowledged", fate.acked, 1);
        check("reported", fate.reported, 1);
    }
    point.problems.extend(problems);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Vec<Point> {
        let records: Vec<Record> = lines.iter().map(|line| Record::parse(line)).collect();
        points(&records)
    }

    const GOOD: [&str; 5] = [
        "fw: point id=2 pe=0 at=7 elr=0x40200c00 spsr=0x3c9",
        "fw: raised id=2 pe=0 iss=0x811 sev=corrected",
        "fw: delivered id=2 pe=0 from=el2 vector=0x380 elr=0x40200c00",
        "{\"v\":1,\"t\":1,\"ev\":\"error\",\"id\":2,\"name\":\"sweep\",\"verdict\":\"log\"}",
        "fw: acked id=2 pe=0",
    ];

    #[test]
    fn a_point_of_which_all_is_told_once_has_no_problem() {
        let points = read(&GOOD);
        assert_eq!(points.len(), 1);
        assert_eq!(points[0].problems, Vec::<String>::new());
        assert_eq!((points[0].at, points[0].elr), (7, 0x4020_0c00));
        assert!(points[0].is_masked());
        assert_eq!(points[0].loss(), Loss::Nothing);
        assert!(points[0].blames_the_guest());
        let other = GOOD[3].replace("sweep", "other");
        assert!(!read(&[GOOD[0], GOOD[1], GOOD[2], &other, GOOD[4]])[0].blames_the_guest());
    }

    #[test]
    fn each_line_that_is_missing_or_comes_twice_is_a_problem() {
        for (index, line) in GOOD.iter().enumerate().skip(1) {
            let mut lines = GOOD.to_vec();
            lines.remove(index);
            assert_eq!(read(&lines)[0].problems.len(), 1, "without {line}");
            let mut lines = GOOD.to_vec();
            lines.insert(index, line);
            assert_eq!(read(&lines)[0].problems.len(), 1, "twice {line}");
        }
    }

    #[test]
    fn what_follows_a_report_is_laid_at_its_door() {
        let mut lines = GOOD.to_vec();
        lines.push("{\"v\":1,\"t\":1,\"ev\":\"restart\",\"vm\":0,\"name\":\"sweep\",\"reason\":\"killed\",\"count\":1}");
        let points = read(&lines);
        assert_eq!(points[0].loss(), Loss::Vm);
        let mut lines = GOOD.to_vec();
        lines.push("sweep| sweep: bad round=3 x4=0x1 wanted=0x2");
        assert_eq!(read(&lines)[0].problems.len(), 1);
        let mut lines = GOOD.to_vec();
        lines.push("fw: reset reason=fatal-call");
        assert_eq!(read(&lines)[0].loss(), Loss::Machine);
    }
}
