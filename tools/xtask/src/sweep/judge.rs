// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of each point: by the firmware's lines, the hypervisor's events, the guest's words.

use std::collections::BTreeMap;

use firebreak_qemu::{FirmwareLine, Record};

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
}

/// A point of the sweep.
#[derive(Clone, Debug, Default)]
pub(super) struct Point {
    /// Offset in the period.
    pub(super) at: u64,
    /// Interrupted instruction.
    pub(super) elr: u64,
    /// Interrupted PSTATE.
    pub(super) spsr: u64,
    /// The error.
    pub(super) fate: Fate,
    /// Stops of the guest's partition that followed.
    pub(super) stops: u32,
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
        self.spsr >> 2 & 3 == EL2
    }

    /// Says whether EL2 was interrupted with SError masked.
    pub(super) fn is_masked(&self) -> bool {
        self.in_el2() && self.spsr & SPSR_A != 0
    }

    /// Says whether the guest's partition was blamed, as far as anybody was.
    pub(super) fn blames_the_guest(&self) -> bool {
        self.fate.reported == 0 || self.fate.blamed.as_deref() == Some(PARTITION)
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
            Record::Event(event) => match event.name() {
                "error" => {
                    let Some(id) = event.num("id") else { continue };
                    let point = all.entry(id & !1).or_default();
                    last_reported = Some(id & !1);
                    if id & 1 == 0 {
                        point.fate.reported += 1;
                        point.fate.blamed = event.text("name").map(str::to_owned);
                    }
                }
                "killed" | "restart" | "stopped" => {
                    if let Some(point) = last_reported.and_then(|id| all.get_mut(&id)) {
                        point.stops += 1;
                    }
                }
                "panic" | "halt" => {
                    if let Some(point) = last_reported.and_then(|id| all.get_mut(&id)) {
                        point.reset = true;
                        point.problems.push(format!("{}", event.value()));
                    }
                }
                _ => {}
            },
            Record::Line { text, .. } if text.contains("bad round") || text.contains("panic") => {
                if let Some(point) = last_reported.and_then(|id| all.get_mut(&id)) {
                    point.problems.push(text.clone());
                }
            }
            _ => {}
        }
    }
    // An error that was asked for but never struck is no point.
    all.retain(|_, point| point.fate.raised > 0 || point.elr != 0);
    let mut points: Vec<Point> = all.into_values().collect();
    points.iter_mut().for_each(account);
    points
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
        "delivered" => fate.delivered += 1,
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
