// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transcripts in which nothing is wrong, and in which one thing is: the judge has to tell.

use std::collections::{BTreeMap, BTreeSet};

use firebreak_qemu::Record;

use super::expect::Map;
use super::judge::{Loss, Point};
use super::paths::{Kind, Mode, PATHS, Path};
use super::symbols::Symbols;
use super::targets::Targets;
use super::{lives, report, transcript};

mod typed;

const PERIOD: u64 = 1 << 26;
/// Addresses of EL2: in the entry behind the registers' reading, before it, in the exit, at work.
const ENTRY: u64 = 0x4020_0010;
const ENTRY_EARLY: u64 = 0x4020_0000;
const EXIT: u64 = 0x4020_0300;
const WORK: u64 = 0x4020_0c00;

fn path(name: &str) -> &'static Path {
    PATHS.iter().find(|path| path.name == name).unwrap()
}

fn symbols() -> Symbols {
    let mut list = vec![
        ("work".to_owned(), WORK),
        ("vectors".to_owned(), ENTRY_EARLY),
    ];
    let windows = [
        "entry_sync",
        "entry_irq",
        "entry_serror",
        "sei_el2t",
        "sei_el2h",
        "sei",
        "exit",
        "idle",
    ];
    for (index, name) in windows.iter().enumerate() {
        let start = 0x4020_0000 + 0x80 * index as u64;
        for (label, offset) in [("start", 0), ("known", 0xc), ("end", 0x80)] {
            list.push((format!("firebreak_window_{name}_{label}"), start + offset));
        }
    }
    // Where the SEI path ends.
    list.push((
        "firebreak_window_sei_tail".to_owned(),
        0x4020_0000 + 0x80 * 5 + 0x7c,
    ));
    let list: Vec<(&str, u64)> = list.iter().map(|(name, at)| (name.as_str(), *at)).collect();
    Symbols::of(&list)
}

/// A period in which one error was raised, and what came of it.
struct Story {
    path: &'static Path,
    mode: Mode,
    kind: Kind,
    lines: Vec<String>,
}

impl Story {
    /// An error with the number 2 that struck at an address of EL2 with SError unmasked, in the third
    /// period.
    fn new(path_name: &str, kind: Kind, elr: u64) -> Self {
        let spsr = "0x2c8";
        let lines = vec![
            format!("fw: point id=2 pe=0 at=7 elr={elr:#x} spsr={spsr}"),
            format!("fw: raised id=2 pe=0 iss={:#x} sev=corrected", kind.iss()),
            format!("fw: delivered id=2 pe=0 from=el2 vector=0x380 elr={elr:#x}"),
            event(&format!(
                "\"ev\":\"error\",\"id\":2,\"name\":\"sweep\"{}",
                page(kind)
            )),
            "fw: acked id=2 pe=0".to_owned(),
        ];
        Self {
            path: path(path_name),
            mode: Mode::Conforming,
            kind,
            lines,
        }
    }

    fn and(mut self, lines: &[&str]) -> Self {
        self.lines
            .extend(lines.iter().map(|line| (*line).to_owned()));
        self
    }

    fn judged(lines: &[String], path: &Path) -> Vec<Point> {
        let records: Vec<Record> = lines.iter().map(|line| Record::parse(line)).collect();
        let mut points = transcript::points(&records, PERIOD);
        lives::settle(&mut points, &records, path);
        points
    }

    fn problems_of(&self, lines: &[String]) -> Vec<String> {
        let map = Map::new(&symbols(), false).unwrap();
        let job = (self.path, self.mode, self.kind);
        let mut problems = Vec::new();
        for point in Self::judged(lines, self.path) {
            problems.extend(point.problems.clone());
            problems.extend(point.verify(&map, job));
        }
        problems
    }

    fn problems(&self) -> Vec<String> {
        self.problems_of(&self.lines)
    }

    /// Nothing is wrong; and something is when one of the lines from `from` on is missing, comes
    /// twice, or has one word for another.
    fn holds(&self, from: usize, wrong: &[(&str, &str)]) {
        assert_eq!(self.problems(), Vec::<String>::new());
        for index in from..self.lines.len() {
            let mut lines = self.lines.clone();
            let line = lines.remove(index);
            assert_ne!(
                self.problems_of(&lines),
                Vec::<String>::new(),
                "without {line}"
            );
            let mut lines = self.lines.clone();
            lines.insert(index, line.clone());
            assert_ne!(
                self.problems_of(&lines),
                Vec::<String>::new(),
                "twice {line}"
            );
        }
        for (right, bad) in wrong {
            let index = self.lines.iter().rposition(|line| line.contains(right));
            let mut lines = self.lines.clone();
            let index = index.unwrap_or_else(|| panic!("no line has {right}"));
            lines[index] = lines[index].replace(right, bad);
            assert_ne!(
                self.problems_of(&lines),
                Vec::<String>::new(),
                "{right} as {bad}"
            );
        }
    }
}

/// An event of the third period.
fn event(inner: &str) -> String {
    format!("{{\"v\":1,\"t\":{},{inner}}}", 2 * PERIOD + 1_000)
}

fn page(kind: Kind) -> String {
    kind.page_of()
        .map_or_else(String::new, |vm| format!(",\"page_vm\":{vm}"))
}

fn vserror(vm: u64) -> String {
    event(&format!(
        "\"ev\":\"vserror\",\"vm\":{vm},\"state\":\"pending\",\"syndrome\":\"0xc11\""
    ))
}

fn retired(vm: u64) -> String {
    event(&format!(
        "\"ev\":\"retired\",\"vm\":{vm},\"ipa\":\"0x1\",\"pa\":\"0x2\""
    ))
}

fn life() -> Vec<String> {
    vec![
        event("\"ev\":\"restart\",\"vm\":0,\"name\":\"sweep\",\"count\":3"),
        event("\"ev\":\"started\",\"vm\":0,\"name\":\"sweep\""),
        "sweep| sweep: ready path=restart period=67108864 born=2".to_owned(),
    ]
}

fn strs(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

#[test]
fn a_point_of_which_all_is_told_once_has_no_problem() {
    let story = Story::new("hvc", Kind::Ueo, WORK);
    story.holds(1, &[]);
    let points = Story::judged(&story.lines, story.path);
    assert_eq!((points[0].at, points[0].elr), (7, WORK));
    assert_eq!(points[0].loss(), Loss::Nothing);
    assert!(points[0].blames_the_guest() && !points[0].is_masked());
}

#[test]
fn what_is_lost_twice_dropped_or_of_another_partition_is_a_problem() {
    for line in [
        "fw: dropped id=2 pe=0 reason=no-room".to_owned(),
        "fw: reset reason=fatal-call".to_owned(),
        event("\"ev\":\"killed\",\"vm\":0,\"name\":\"sweep\""),
        event("\"ev\":\"restart\",\"vm\":1,\"name\":\"bystander\""),
        event("\"ev\":\"panic\""),
        vserror(0),
        retired(0),
        "sweep| sweep: serror n=1 round=2".to_owned(),
        "sweep| sweep: bad round=2 x4=0x1 wanted=0x2".to_owned(),
        "bystander| sweep: bad round=2 x4=0x1 wanted=0x2".to_owned(),
        event("\"ev\":\"boot-error-record\",\"id\":2,\"source\":\"firmware\",\"iss\":\"0x811\""),
    ] {
        let story = Story::new("hvc", Kind::Ueo, WORK).and(&[&line]);
        assert_ne!(story.problems(), Vec::<String>::new(), "{line}");
    }
}

/// The guest's line may come before the event that tells of the same, or behind the report of the
/// next error: two reports of the path `retire` were counted a round late.
#[test]
fn a_word_of_the_guest_belongs_to_the_period_that_it_names() {
    let mut lines = Story::new("hvc", Kind::Uer, EXIT).lines;
    let next: Vec<String> = lines
        .iter()
        .map(|line| {
            let later = format!("\"t\":{}", 3 * PERIOD + 1_000);
            line.replace("id=2", "id=4")
                .replace("\"id\":2", "\"id\":4")
                .replace(&format!("\"t\":{}", 2 * PERIOD + 1_000), &later)
        })
        .collect();
    lines.push(vserror(0));
    lines.extend(next);
    lines.push(vserror(0));
    for (period, word) in [(2, "serror n=1"), (3, "serror n=2")] {
        lines.push(format!("sweep| sweep: {word} round={period}"));
    }
    let points = Story::judged(&lines, path("hvc"));
    assert_eq!(points.len(), 2);
    for point in points {
        assert_eq!((point.fate.told.len(), point.fate.heard.len()), (1, 1));
    }
    // And one that comes before the event.
    let mut lines = Story::new("hvc", Kind::Uer, EXIT).lines;
    lines.insert(3, "sweep| sweep: serror n=1 round=2".to_owned());
    assert_eq!(Story::judged(&lines, path("hvc"))[0].fate.heard, [0]);
}

#[test]
fn a_recoverable_error_is_told_to_the_one_and_the_page_taken_from_the_owner() {
    let told = |vm: u64, kind, name: &str| {
        let heard = format!("{name}| sweep: serror n=1 round=2");
        let lines = [vserror(vm), heard];
        Story::new("hvc", kind, EXIT).and(&strs(&lines))
    };
    let heard = ("serror n=1", "something else");
    let wrong = [heard, ("\"syndrome\":\"0xc11\"", "\"syndrome\":\"0x11\"")];
    told(0, Kind::Uer, "sweep").holds(5, &wrong);
    let own = told(0, Kind::UerOwn, "sweep").and(&[&retired(0)]);
    own.holds(
        5,
        &[
            heard,
            ("\"ev\":\"retired\",\"vm\":0", "\"ev\":\"retired\",\"vm\":1"),
        ],
    );
    let other = told(1, Kind::UerOther, "bystander").and(&[&retired(1)]);
    other.holds(
        5,
        &[
            ("bystander|", "sweep|"),
            ("\"ev\":\"retired\",\"vm\":1", "\"ev\":\"retired\",\"vm\":0"),
            ("\"ev\":\"vserror\",\"vm\":1", "\"ev\":\"vserror\",\"vm\":0"),
            ("\"page_vm\":1", "\"page_vm\":0"),
        ],
    );
}

#[test]
fn the_end_of_the_machine_leaves_one_record_with_its_own_facts() {
    let mut story = Story::new("hvc", Kind::Uer, WORK);
    story.lines.truncate(3);
    let record = event(&format!(
        "\"ev\":\"boot-error-record\",\"id\":2,\"source\":\"hypervisor\",\"iss\":\"0xc11\",\"pc\":\"{WORK:#x}\""
    ));
    assert_ne!(story.problems(), Vec::<String>::new(), "no reset");
    let story = story.and(&["fw: reset id=2 reason=fatal-call", &record]);
    story.holds(
        4,
        &[
            ("\"hypervisor\"", "\"firmware\""),
            ("0xc11\",\"pc\"", "0x411\",\"pc\""),
            ("\"pc\":\"0x40200c00\"", "\"pc\":\"0x40200c04\""),
            ("\"id\":2,\"source\"", "\"id\":null,\"source\""),
        ],
    );
    // Memory is not cleared at boot; all else of the first life is as ever.
    for (what, count) in [("dirty", 0), ("gic", 1), ("ttbr0_el1", 1)] {
        let word = format!("sweep| sweep: bad round=2 at-reset {what}=0x1 wanted=0x0");
        let mut lines = story.lines.clone();
        lines.push(word);
        assert_eq!(story.problems_of(&lines).len(), count, "{what}");
    }
}

#[test]
fn an_error_of_the_old_life_may_be_told_to_nobody_and_one_of_the_new_life_is_told() {
    let of_old = Story::new("restart", Kind::Uer, ENTRY).and(&strs(&life()));
    assert_eq!(of_old.problems(), Vec::<String>::new());
    let of_new = Story::new("first_entry", Kind::Uer, EXIT).and(&strs(&life()));
    assert_ne!(of_new.problems(), Vec::<String>::new());
    let told = [vserror(0), "sweep| sweep: serror n=1 round=2".to_owned()];
    let pending = "sweep| sweep: bad round=2 at-reset isr=0x100 wanted=0x0";
    let of_new = of_new.and(&strs(&told));
    of_new.holds(8, &[]);
    assert_eq!(of_new.and(&[pending]).problems(), Vec::<String>::new());
    let untold = Story::new("first_entry", Kind::Ueo, EXIT).and(&strs(&life()));
    assert_ne!(untold.and(&[pending]).problems(), Vec::<String>::new());
}

#[test]
fn what_barging_in_destroys_costs_the_partition_once() {
    let mut story = Story::new("hvc", Kind::Ueo, ENTRY_EARLY);
    story.mode = Mode::BargeIn;
    let killed = event("\"ev\":\"killed\",\"vm\":0,\"name\":\"sweep\"");
    let story = story.and(&[&killed]);
    story.holds(5, &[]);
    let mut elsewhere = Story::new("hvc", Kind::Ueo, ENTRY).and(&[&killed]);
    elsewhere.mode = Mode::BargeIn;
    assert_ne!(elsewhere.problems(), Vec::<String>::new());
}

#[test]
fn a_life_that_the_guest_asked_for_begins_once_and_like_the_first() {
    for name in ["restart", "first_entry"] {
        let story = Story::new(name, Kind::Ueo, WORK).and(&strs(&life()));
        let other_period = format!("\"t\":{}", 3 * PERIOD);
        let now = format!("\"t\":{}", 2 * PERIOD + 1_000);
        story.holds(5, &[("born=2", "born=3"), (&now, &other_period)]);
        for line in [
            event("\"ev\":\"killed\",\"vm\":0,\"name\":\"sweep\""),
            event("\"ev\":\"stopped\",\"vm\":0,\"name\":\"sweep\""),
            "sweep| sweep: bad round=2 at-reset dirty=0x1 wanted=0x0".to_owned(),
        ] {
            let bad = Story::new(name, Kind::Ueo, WORK).and(&strs(&life()));
            assert_ne!(bad.and(&[&line]).problems(), Vec::<String>::new(), "{line}");
        }
    }
}

#[test]
fn a_life_that_an_error_ends_is_killed_once() {
    let opening = [
        "fw: raised id=3 pe=0 iss=0x411 sev=recoverable".to_owned(),
        event("\"ev\":\"error\",\"id\":3,\"name\":\"sweep\""),
        "fw: acked id=3 pe=0".to_owned(),
        event("\"ev\":\"killed\",\"vm\":0,\"name\":\"sweep\""),
    ];
    let story = Story::new("kill", Kind::Ueo, WORK)
        .and(&strs(&opening))
        .and(&strs(&life()));
    story.holds(5, &[("\"ev\":\"killed\"", "\"ev\":\"stopped\"")]);
}

#[test]
fn the_error_that_takes_a_page_is_told_and_heard_and_takes_one() {
    for name in ["retire", "retire_next"] {
        let opening = [
            "fw: raised id=3 pe=0 iss=0xc11 sev=recoverable".to_owned(),
            event("\"ev\":\"error\",\"id\":3,\"name\":\"sweep\",\"page_vm\":0"),
            "fw: acked id=3 pe=0".to_owned(),
            vserror(0),
            retired(0),
            "sweep| sweep: serror n=1 round=2".to_owned(),
        ];
        let story = Story::new(name, Kind::Ueo, WORK).and(&strs(&opening));
        story.holds(5, &[("\"syndrome\":\"0xc11\"", "\"syndrome\":\"0x11\"")]);
    }
}

/// What an error that takes a page from a partition on two PEs sets off.
fn loss_of_a_page() -> Vec<String> {
    vec![
        "fw: raised id=3 pe=0 iss=0xc11 sev=recoverable".to_owned(),
        event("\"ev\":\"error\",\"id\":3,\"name\":\"sweep\",\"page_vm\":0"),
        "fw: acked id=3 pe=0".to_owned(),
        vserror(0),
        retired(0),
        "sweep| sweep: serror n=1 round=2".to_owned(),
        "sweep| sweep: gone page=3 round=2".to_owned(),
    ]
}

#[test]
fn a_page_that_two_pes_use_is_gone_for_both_and_told_once() {
    for name in ["pair_retire_struck", "pair_retire_other"] {
        let story = Story::new(name, Kind::Ueo, WORK).and(&strs(&loss_of_a_page()));
        story.holds(
            5,
            &[
                ("sweep: gone page=3", "sweep: bad"),
                ("\"syndrome\":\"0xc11\"", "\"syndrome\":\"0x11\""),
            ],
        );
    }
}

#[test]
fn a_context_that_is_lost_beside_the_loss_of_a_page_ends_one_life() {
    let killed = event("\"ev\":\"killed\",\"vm\":0,\"name\":\"sweep\"");
    let story = Story::new("pair_retire_other", Kind::Ueo, ENTRY_EARLY)
        .and(&strs(&loss_of_a_page()))
        .and(&[&killed])
        .and(&strs(&life()));
    let story = Story {
        mode: Mode::BargeIn,
        ..story
    };
    assert_eq!(story.problems(), Vec::<String>::new());
    for at in story.lines.len() - 4..story.lines.len() {
        let mut lines = story.lines.clone();
        lines.insert(at, story.lines[at].clone());
        assert_ne!(story.problems_of(&lines), Vec::<String>::new(), "twice");
        let mut lines = story.lines.clone();
        lines.remove(at);
        assert_ne!(story.problems_of(&lines), Vec::<String>::new(), "missing");
    }
}

#[test]
fn each_error_that_opens_a_drain_is_acknowledged_and_reported_once() {
    for (name, count) in [("drain", 1), ("drain_two", 2)] {
        let opening = [
            "fw: raised id=3 pe=0 iss=0x811 sev=corrected".to_owned(),
            event("\"ev\":\"error\",\"id\":3,\"name\":null"),
            "fw: acked id=3 pe=0".to_owned(),
        ];
        let mut story = Story::new(name, Kind::Ueo, WORK);
        for _ in 0..count {
            story = story.and(&strs(&opening));
        }
        story.holds(5, &[]);
    }
}

#[test]
fn an_sei_without_a_record_that_opens_a_period_is_reported_once() {
    for name in ["sei", "sei_nested", "sei_nested_wait"] {
        let opening = [
            "fw: raised id=3 pe=0 iss=0x811 sev=none".to_owned(),
            "fw: delivered id=3 pe=0 from=el1 vector=0x580 elr=0x40201000".to_owned(),
            event("\"ev\":\"unclaimed\",\"pe\":0,\"iss\":\"0x811\""),
        ];
        let story = Story::new(name, Kind::Ueo, WORK).and(&strs(&opening));
        assert_eq!(story.problems(), Vec::<String>::new());
        let mut lines = story.lines.clone();
        let report = lines.pop().unwrap();
        assert_ne!(story.problems_of(&lines), Vec::<String>::new(), "lost");
        lines.extend([report.clone(), report]);
        assert_ne!(story.problems_of(&lines), Vec::<String>::new(), "twice");
    }
}

#[test]
fn a_boundary_that_was_not_hit_and_another_partition_that_is_blamed_fail_the_row() {
    let story = Story::new("hvc", Kind::Ueo, EXIT);
    let wanted: BTreeMap<u64, u64> = [(EXIT, 7)].into();
    let targets = Targets {
        executed: wanted.clone(),
        offsets: BTreeSet::new(),
        in_guest: BTreeSet::new(),
    };
    let job = (story.path, story.mode, story.kind);
    let failures = |wanted: &BTreeMap<u64, u64>, lines: &[String]| {
        let points = Story::judged(lines, story.path);
        report::row(job, (&targets, wanted), &points, &symbols())
            .unwrap()
            .failures
    };
    assert_eq!(failures(&wanted, &story.lines), Vec::<String>::new());
    let more = [(EXIT, 7), (WORK, 8)].into();
    assert_eq!(failures(&more, &story.lines).len(), 1);
    let blamed: Vec<String> = story
        .lines
        .iter()
        .map(|line| line.replace("\"name\":\"sweep\"", "\"name\":\"bystander\""))
        .collect();
    assert_eq!(failures(&wanted, &blamed).len(), 1);
}
