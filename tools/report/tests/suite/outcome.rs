// SPDX-License-Identifier: MIT OR Apache-2.0
//! Merged, compared, and as JUnit XML.

use firebreak_report::{
    Class, Kind, MergeError, Named, Results, compare, junit, merge, text, warnings,
};

use crate::sample;

fn shards(whole: &Results, count: u32) -> Vec<Named> {
    let one = |index| (format!("{index}.jsonl"), sample::shard(whole, index, count));
    (1..=count).map(one).collect()
}

/// Makes of merged results what a run on one machine would have said, wall times apart.
fn as_of_one_machine(merged: &Results, whole: &Results) -> Vec<u8> {
    let mut merged = merged.clone();
    merged.run.started.clone_from(&whole.run.started);
    merged.end.as_mut().unwrap().wall_s = whole.end.as_ref().unwrap().wall_s;
    merged.to_bytes().unwrap()
}

#[test]
fn shards_in_any_order_make_the_run_of_one_machine() {
    let mut whole = sample::linux(1);
    whole
        .cases
        .sort_by(|a, b| firebreak_report::natural(&a.name, &b.name));
    let expected = whole.to_bytes().unwrap();
    let mut parts = shards(&whole, 3);
    for _ in 0..3 {
        parts.rotate_left(1);
        for reversed in [false, true] {
            let mut parts = parts.clone();
            if reversed {
                parts.reverse();
            }
            let merged = merge(parts).unwrap();
            assert_eq!(merged.run.started, "2026-11-23T00:01:00Z");
            assert_eq!(
                merged.end.as_ref().unwrap().wall_s.to_bits(),
                3_f64.to_bits()
            );
            assert!(as_of_one_machine(&merged, &whole) == expected);
        }
    }
    // Of a whole run it makes the same run.
    assert!(
        merge(vec![("w".to_owned(), whole)])
            .unwrap()
            .to_bytes()
            .unwrap()
            == expected
    );
}

#[test]
fn what_is_no_one_run_is_not_merged() {
    let whole = sample::linux(1);
    assert_eq!(merge(Vec::new()), Err(MergeError::Nothing));
    let said = |parts| merge(parts).unwrap_err().to_string();
    let good = shards(&whole, 4);
    let some = |keep: &[usize]| -> Vec<Named> { keep.iter().map(|&i| good[i].clone()).collect() };
    assert_eq!(
        said(some(&[2, 0])),
        "shards 2, 4 of 4 are missing: run `firebreak campaign plans/linux-serror.toml \
         --shard 2/4` for each of them, and merge again"
    );
    assert!(said(some(&[0, 1, 2])).starts_with("shard 4 of 4 is missing: run"));
    let mut other_seed = good.clone();
    other_seed[3].1.run.seed = 2;
    assert!(
        said(other_seed)
            .starts_with("1.jsonl and 4.jsonl are of different runs: they have another seed")
    );
    let mut other_plan = good.clone();
    other_plan[0].1.run.plan_sha256.push('0');
    assert!(said(other_plan).contains("another plan's contents"));
    let mut other_build = good.clone();
    other_build[2].1.run.commit = None;
    assert!(said(other_build).contains("another commit of Firebreak"));
    let mut more = some(&[0, 1]);
    more.extend(shards(&whole, 2));
    assert!(
        said(more).contains("is shard 1 of 4, and 1.jsonl is shard 1 of 2")
            || said(shards(&whole, 2).into_iter().chain(some(&[0])).collect()).contains(" of 4")
    );
    let mut twice = good.clone();
    let mut again = good[1].1.clone();
    twice.push(("again.jsonl".to_owned(), again.clone()));
    assert_eq!(merge(twice).unwrap(), merge(good.clone()).unwrap());
    again.cases[0].class = Class::Hung;
    let mut twice = good.clone();
    twice.push(("again.jsonl".to_owned(), again));
    let words = said(twice);
    assert!(
        words.contains(" ends differently: ") && words.contains("hung in again.jsonl"),
        "{words}"
    );
}

#[test]
fn an_unfinished_shard_makes_an_unfinished_run() {
    let mut parts = shards(&sample::linux(1), 2);
    let part = &mut parts[0].1;
    part.end = None;
    part.cases.pop();
    let said = warnings(&parts);
    assert_eq!(said, ["1.jsonl: 95 of 96 cases have a result"]);
    let merged = merge(parts).unwrap();
    assert_eq!((merged.run.cases, merged.cases.len()), (192, 191));
    assert!(merged.end.is_none());
    let words = text(&merged);
    assert!(
        words.starts_with("linux-serror: 191 of 192 cases ran\n"),
        "{words}"
    );
    assert!(words.contains("note: the run did not end"), "{words}");
    assert!(
        words.contains("note: 1 cases of the plan have no result"),
        "{words}"
    );
}

#[test]
fn the_same_run_has_not_changed() {
    let run = sample::linux(1);
    let same = compare(&run, &run);
    assert_eq!((same.worse, same.same, same.changes.len()), (false, 192, 0));
}

#[test]
fn changes_are_found_and_the_worse_come_first() {
    let before = sample::baremetal(8);
    let mut after = before.clone();
    after.run.qemu = "11.0.0".to_owned();
    let set = |results: &mut Results, place: usize, class, ok| {
        results.cases[place].class = class;
        results.cases[place].ok = ok;
    };
    set(&mut after, 3, Class::Hung, Some(false));
    set(&mut after, 4, Class::Inconclusive, None);
    after.cases[5].ok = None;
    let mut before_two = before.clone();
    set(&mut before_two, 6, Class::Hung, Some(false));
    let gone = after.cases.remove(0);
    let mut new = gone.clone();
    new.name = "new/one".to_owned();
    after.cases.push(new);
    let found = compare(&before_two, &after);
    let words: Vec<(String, Kind, bool)> = found
        .changes
        .iter()
        .map(|one| (one.name.clone(), one.change, one.worse))
        .collect();
    let name = |place: usize| before.cases[place].name.clone();
    assert_eq!(
        words,
        [
            (name(0), Kind::Gone, true),
            (name(3), Kind::Class, true),
            (name(4), Kind::Class, true),
            (name(5), Kind::Ok, false),
            (name(6), Kind::Class, false),
            ("new/one".to_owned(), Kind::New, false),
        ]
    );
    assert!(found.worse);
    let text = found.text();
    assert!(
        text.starts_with(
            "27 the same, 3 of another class, 1 judged otherwise, 1 new, 1 gone; 3 worse\n\
             the runs differ in: version of QEMU\nworse 0x0/masked/inject/0: "
        ),
        "{text}"
    );
}

#[test]
fn junit_passes_what_is_expected_and_nothing_that_has_no_result() {
    let results = sample::linux(1);
    let xml = junit(&results).unwrap();
    let document = roxmltree::Document::parse(&xml).unwrap();
    let suite = document
        .descendants()
        .find(|node| node.has_tag_name("testsuite"))
        .unwrap();
    let number = |name| suite.attribute(name).unwrap().parse::<usize>().unwrap();
    let count = |ok: fn(&firebreak_report::Case) -> bool| {
        results.cases.iter().filter(|case| ok(case)).count()
    };
    let failures = count(|case| case.ok == Some(false));
    let errors = count(|case| case.class == Class::Inconclusive);
    assert!(failures > 0 && errors > 0);
    assert_eq!(
        (number("tests"), number("failures"), number("errors")),
        (192, failures, errors)
    );
    let tests: Vec<_> = suite
        .children()
        .filter(|node| node.has_tag_name("testcase"))
        .collect();
    assert_eq!(tests.len(), 192);
    for test in tests {
        let name = test.attribute("name").unwrap();
        let case = results.cases.iter().find(|case| case.name == name).unwrap();
        let child = |tag: &str| test.children().find(|node| node.has_tag_name(tag));
        assert_eq!(child("failure").is_some(), case.ok == Some(false), "{name}");
        assert_eq!(
            child("error").is_some(),
            case.class == Class::Inconclusive,
            "{name}"
        );
        assert!(child("skipped").is_none());
        let out = child("system-out")
            .and_then(|node| node.text())
            .unwrap_or_default();
        assert_eq!(
            out.contains("window.owned"),
            case.name == results.cases[0].name
        );
    }
}

#[test]
fn the_documents_define_each_class_as_the_report_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reports.md");
    let text = std::fs::read_to_string(path).unwrap();
    for class in Class::ALL {
        let (letter, definition) = (class.letter(), class.definition());
        let line = format!("| {letter} | `{class}` | {definition} |");
        assert!(
            text.lines().any(|one| one == line),
            "docs/reports.md lacks: {line}"
        );
    }
}
