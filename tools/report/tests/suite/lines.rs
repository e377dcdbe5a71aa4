// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written is read again, however the file was cut.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{self, Write};
use std::rc::Rc;

use firebreak_report::{
    Case, Class, End, Event, Evidence, Guest, ReadError, Reset, Run, Shard, Source, Writer, read,
};

/// The lines as docs/reports.md shows them.
const RUN: &str = r#"{"kind":"run","v":1,"plan":"linux-serror","plan_sha256":"00ff","firebreak":"0.1.0","commit":null,"qemu":"10.0.2","cpu":"neoverse-n1","guests":[{"name":"linux","what":"Linux 6.12.48","sha256":"ab12"}],"seed":1,"shard":{"index":1,"count":4},"cases":384,"started":"2026-11-23T00:00:00Z","command":"firebreak campaign plans/linux-serror.toml"}"#;
const CASE: &str = r#"{"kind":"case","name":"ueo/el1-masked/visible/0","guest":"linux","error":"ueo","moment":"el1-masked","policy":"inject","firmware":"conforming","ras_visible":true,"repetition":0,"class":"survived-silently","expected":["survived-silently"],"ok":true,"reason":"it went on","evidence":[{"source":"guest","t_ns":null,"text":"tick"}],"timeline":[{"t_ns":123,"source":"hypervisor","text":"injected"}],"console":["a","b"],"syndrome":"0xbe000411","syndrome_words":["SError","AET: UEO"],"record":{"severity":"recoverable"},"command":"firebreak campaign plans/linux-serror.toml --case ueo/el1-masked/visible/0","reset":"snapshot","wall_ms":812}"#;
const END: &str =
    r#"{"kind":"end","done":1,"interrupted":true,"wall_s":412.5,"budget_hit":"time"}"#;

fn run() -> Run {
    Run {
        v: 1,
        plan: "linux-serror".to_owned(),
        plan_sha256: "00ff".to_owned(),
        firebreak: "0.1.0".to_owned(),
        commit: None,
        qemu: "10.0.2".to_owned(),
        cpu: "neoverse-n1".to_owned(),
        guests: vec![Guest {
            name: "linux".to_owned(),
            what: "Linux 6.12.48".to_owned(),
            sha256: "ab12".to_owned(),
        }],
        seed: 1,
        shard: Some(Shard { index: 1, count: 4 }),
        cases: 384,
        started: "2026-11-23T00:00:00Z".to_owned(),
        command: "firebreak campaign plans/linux-serror.toml".to_owned(),
    }
}

fn case() -> Case {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    Case {
        name: "ueo/el1-masked/visible/0".to_owned(),
        guest: "linux".to_owned(),
        error: "ueo".to_owned(),
        moment: "el1-masked".to_owned(),
        policy: "inject".to_owned(),
        firmware: "conforming".to_owned(),
        ras_visible: true,
        repetition: 0,
        class: Class::SurvivedSilently,
        expected: Some(vec![Class::SurvivedSilently]),
        ok: Some(true),
        reason: "it went on".to_owned(),
        evidence: vec![Evidence {
            source: Source::Guest,
            t_ns: None,
            text: "tick".to_owned(),
        }],
        timeline: vec![Event {
            t_ns: 123,
            source: Source::Hypervisor,
            text: "injected".to_owned(),
        }],
        console: words(&["a", "b"]),
        syndrome: Some("0xbe000411".to_owned()),
        syndrome_words: words(&["SError", "AET: UEO"]),
        record: serde_json::json!({ "severity": "recoverable" })
            .as_object()
            .cloned(),
        command: "firebreak campaign plans/linux-serror.toml --case ueo/el1-masked/visible/0"
            .to_owned(),
        reset: Reset::Snapshot,
        wall_ms: 812,
    }
}

fn end() -> End {
    End {
        done: 1,
        interrupted: true,
        wall_s: 412.5,
        budget_hit: Some("time".to_owned()),
    }
}

fn whole() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.run(&run()).unwrap();
    writer.case(&case()).unwrap();
    writer.end(&end()).unwrap();
    writer.into_inner()
}

#[test]
fn lines_are_exactly_those_of_the_format() {
    let text = String::from_utf8(whole()).unwrap();
    assert_eq!(text, format!("{RUN}\n{CASE}\n{END}\n"));
    let results = read("r", text.as_bytes()).unwrap();
    assert_eq!(results.run, run());
    assert_eq!(results.cases, [case()]);
    assert_eq!(results.end, Some(end()));
    assert!(results.left_out.is_nothing());
}

#[test]
fn a_file_cut_anywhere_is_read_up_to_there() {
    let bytes = whole();
    let ends: Vec<usize> = (1..)
        .zip(&bytes)
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(end, _)| end)
        .collect();
    for cut in 0..=bytes.len() {
        let whole_lines = ends.iter().filter(|end| **end <= cut).count();
        let tail = cut - ends.iter().rfind(|end| **end <= cut).unwrap_or(&0);
        match read("r", &bytes[..cut]) {
            Err(ReadError::NoRun { line: 1, .. }) => assert_eq!(whole_lines, 0),
            Err(error) => panic!("cut at {cut}: {error}"),
            Ok(results) => {
                assert_eq!(results.cases.len(), usize::from(whole_lines >= 2));
                assert_eq!(results.end.is_some(), whole_lines == 3);
                assert_eq!(results.left_out.bytes, tail as u64, "cut at {cut}");
                assert_eq!(results.left_out.tail_bytes, tail as u64);
                assert_eq!(results.left_out.lines, u64::from(tail != 0));
            }
        }
    }
}

#[test]
fn a_broken_line_in_the_middle_is_counted_and_named() {
    let text = format!(
        "{RUN}\n{}\n{CASE}\n{{\"kind\":\"tea\"}}\n{END}\n",
        &CASE[..40]
    );
    let results = read("r", text.as_bytes()).unwrap();
    assert_eq!(results.cases.len(), 1);
    assert!(results.end.is_some());
    let said = results.left_out.to_string();
    assert!(
        said.starts_with("2 lines were left out (56 bytes), first line 2: EOF"),
        "{said}"
    );
}

#[test]
fn an_end_counts_only_at_the_end() {
    let text = format!("{RUN}\n{END}\n{CASE}\n");
    assert_eq!(read("r", text.as_bytes()).unwrap().end, None);
    let text = format!("{RUN}\n{CASE}\n{END}\n{RUN}\n");
    assert_eq!(read("r", text.as_bytes()).unwrap().end, None);
}

#[test]
fn what_is_no_single_run_is_refused_by_line() {
    let refused = |text: &str| read("r.jsonl", text.as_bytes()).unwrap_err().to_string();
    assert!(refused("").starts_with("r.jsonl, line 1: the file is empty; "));
    assert!(refused(&format!("{CASE}\n")).contains("line 1: case ueo/el1-masked/visible/0 comes"));
    let other = RUN.replace("\"v\":1", "\"v\":2");
    assert!(refused(&format!("{other}\n")).contains("results of version 2"));
    let other = RUN.replace("\"seed\":1", "\"seed\":2");
    let said = refused(&format!("{RUN}\n{CASE}\n{other}\n"));
    assert!(
        said.contains("line 3: another run begins, with another seed"),
        "{said}"
    );
    let other = CASE.replace("survived-silently", "hung");
    let said = refused(&format!("{RUN}\n{CASE}\n{other}\n"));
    assert!(said.contains("(lines 2 and 3)"), "{said}");
}

#[test]
fn the_same_case_twice_counts_once_if_it_ends_the_same() {
    let again = CASE.replace("812", "99");
    let text = format!("{RUN}\n{CASE}\n{again}\n");
    assert_eq!(read("r", text.as_bytes()).unwrap().cases, [case()]);
}

#[test]
fn a_resumed_file_loses_its_cut_line_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.jsonl");
    fs::write(&path, format!("{RUN}\n{CASE}\n{}", &CASE[..99])).unwrap();
    let (mut writer, results) = Writer::resume(&path).unwrap();
    assert_eq!((results.cases.len(), results.left_out.bytes), (1, 99));
    let mut second = case();
    second.name = "ueo/el1-masked/visible/1".to_owned();
    writer.case(&second).unwrap();
    writer.end(&end()).unwrap();
    let results = firebreak_report::read_file(&path).unwrap();
    assert_eq!(results.cases, [case(), second]);
    assert!(results.left_out.is_nothing() && results.end.is_some());
    assert!(Writer::create(&path).is_err());
}

/// A disk that is full after some bytes, and has room again later.
#[derive(Clone, Default)]
struct Disk {
    written: Rc<RefCell<Vec<u8>>>,
    room: Rc<Cell<usize>>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room.get());
        if count == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room.set(self.room.get() - count);
        self.written.borrow_mut().extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_costs_the_line_that_met_it_and_no_other() {
    let disk = Disk::default();
    let mut writer = Writer::new(disk.clone());
    disk.room.set(RUN.len() + 50);
    writer.run(&run()).unwrap();
    let error = writer.case(&case()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let held = || read("r", &disk.written.borrow()).unwrap();
    assert_eq!(held().left_out.tail_bytes, 49);
    disk.room.set(1 << 20);
    writer.case(&case()).unwrap();
    writer.end(&end()).unwrap();
    assert_eq!(held().cases, [case()]);
    assert_eq!(held().end, Some(end()));
    assert_eq!((held().left_out.lines, held().left_out.bytes), (1, 50));
}
