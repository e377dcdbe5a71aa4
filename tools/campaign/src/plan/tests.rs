// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plans that are read, and plans that are refused, each with the words that help.

use std::path::Path;

use firebreak_image::Source;
use firebreak_report::{Class, Shard};
use proptest::prelude::*;

use super::read::parse;
use super::*;
use crate::matrix;

const PLAN: &str = r#"
[campaign]
seed = 7
repetitions = 2
[[guest]]
name = "linux"
system = "linux.toml"
like = "linux"
[[guest]]
name = "other"
system = "other.toml"
ready = "up"
firmware = true
[[error]]
name = "ueo"
[[error]]
iss_range = [0x11, 0x1c11, 0x400]
guests = ["linux"]
[[error]]
name = "page"
kind = "firmware"
class = "uer"
said = "page="
guests = ["other"]
[[moment]]
name = "any"
[[moment]]
name = "later"
address = 0x40201000
random_steps = [10, 20]
guests = ["linux"]
[[expect]]
error = ["ueo", "page"]
guest = "other"
class = ["panicked", "hung"]
"#;

fn read(text: &str) -> Result<Plan, String> {
    let path = Path::new("dir/plan.toml");
    parse(path, &Source::new(path, text)).map_err(|problems| problems.to_string())
}

#[test]
fn a_plan_becomes_cases_with_names() {
    let plan = read(PLAN).unwrap();
    assert_eq!(plan.name, "plan");
    assert_eq!(plan.guests[0].system, Path::new("dir/linux.toml"));
    assert_eq!(
        (plan.guests[0].ready.as_str(), plan.guests[0].silence_s),
        ("agent: ready", 12)
    );
    let cases = matrix::expand(&plan);
    // (1 + 8) errors at 2 moments on one guest, 2 errors at 1 moment on the other; twice.
    assert_eq!(cases.len(), 2 * (9 * 2 + 2));
    let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    for name in [
        "ueo/any/linux/0",
        "0x1411/later/linux/1",
        "page/any/other/0",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    for case in &cases {
        let expected = matrix::expected(&plan, case);
        let other = case.name.contains("/other/");
        assert_eq!(expected, other.then(|| vec![Class::Panicked, Class::Hung]));
    }
}

#[test]
fn every_value_of_each_field_comes_once() {
    let plan = PLAN.replace(
        "iss_range = [0x11, 0x1c11, 0x400]",
        "fields = [\"aet\", \"ids\", \"dfsc\"]",
    );
    let plan = read(&plan).unwrap();
    let mut values: Vec<u32> = plan
        .errors
        .iter()
        .filter_map(|error| match error.what {
            What::Serror { iss } if error.name.starts_with("0x") => Some(iss),
            _ => None,
        })
        .collect();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), 1024);
    assert!(values.iter().all(|iss| iss & !0x100_1c3f == 0));
}

#[test]
fn random_steps_are_the_same_for_the_same_seed_and_name() {
    let plan = read(PLAN).unwrap();
    let cases = matrix::expand(&plan);
    let drawn = |plan: &Plan| -> Vec<u32> {
        let later = cases.iter().filter(|case| case.moment == 1);
        later.map(|case| matrix::steps(plan, case)).collect()
    };
    let steps = drawn(&plan);
    assert!(steps.iter().all(|steps| (10..=20).contains(steps)));
    assert!(steps.iter().any(|one| *one != steps[0]));
    assert_eq!(steps, drawn(&plan));
    let other = Plan { seed: 8, ..plan };
    assert_ne!(steps, drawn(&other));
}

#[test]
fn what_is_wrong_is_told_with_the_line_and_the_remedy() {
    for (from, to, words) in [
        (
            "like = \"linux\"",
            "like = \"linus\"",
            vec!["linus", "did you mean \"linux\"?"],
        ),
        (
            "seed = 7",
            "sead = 7",
            vec!["no key `sead`", "did you mean `seed`?"],
        ),
        (
            "name = \"ueo\"",
            "name = \"uoe\"",
            vec!["\"uoe\" is no class", "did you mean \"ueo\"?"],
        ),
        (
            "name = \"ueo\"",
            "iss = 0x2000000",
            vec!["25 bits", "0x1ffffff"],
        ),
        ("ready = \"up\"", "", vec!["no `ready`", "add a line"]),
        ("firmware = true", "", vec!["\"page\" needs firmware"]),
        ("[10, 20]", "[20, 10]", vec!["least and the greatest"]),
        ("[10, 20]", "[0, 100000000]", vec!["too many to step over"]),
        ("0x400]", "0]", vec!["empty or endless"]),
        (
            "guests = [\"other\"]",
            "guests = [\"nobody\"]",
            vec!["no guest \"nobody\""],
        ),
        (
            "guest = \"other\"",
            "guest = \"nobody\"",
            vec!["about no case"],
        ),
        ("\"hung\"", "\"hanged\"", vec!["\"hanged\" is no class"]),
        (
            "name = \"any\"",
            "name = \"a/b\"",
            vec!["\"a/b\"", "case's name"],
        ),
        (
            "name = \"any\"",
            "name = \"later\"",
            vec!["two of the moment \"later\""],
        ),
        (
            "name = \"any\"",
            "name = \"any\"\nel = 2",
            vec!["never runs at EL2"],
        ),
        ("seed = 7", "seed = ", vec!["not TOML"]),
        (
            "seed = 7",
            "firmware = \"barge-on\"",
            vec!["did you mean \"barge-in\"?"],
        ),
        (
            "seed = 7",
            "firmware = \"barge-in\"",
            vec!["not every guest has firmware"],
        ),
        (
            "name = \"any\"",
            "name = \"any\"\nuntil = \"x\"",
            vec!["more lines than `type`"],
        ),
        (
            "address = 0x40201000",
            "symbol = \"main\"",
            vec!["symbols = \"guest.elf\""],
        ),
    ] {
        assert!(PLAN.contains(from), "{from}");
        let said = read(&PLAN.replacen(from, to, 1)).unwrap_err();
        let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(&word), "\"{word}\" for \"{to}\" in:\n{said}");
        }
        assert!(said.contains("plan.toml"), "{said}");
    }
}

#[test]
fn the_plans_that_ship_can_be_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/campaigns");
    let mut read = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let plan = super::read(&path).unwrap();
            assert!(!matrix::expand(&plan).is_empty(), "{}", path.display());
            for guest in &plan.guests {
                assert!(guest.system.is_file(), "{}", guest.system.display());
            }
            read += 1;
        }
    }
    assert!(read >= 2);
}

proptest! {
    #[test]
    fn shards_are_all_cases_and_none_twice(count in 1..9_u32) {
        let cases = matrix::expand(&read(PLAN).unwrap());
        let mut all: Vec<String> = (1..=count)
            .flat_map(|index| matrix::shard(cases.clone(), Shard { index, count }))
            .map(|case| case.name)
            .collect();
        all.sort();
        let mut whole: Vec<String> = cases.into_iter().map(|case| case.name).collect();
        whole.sort();
        prop_assert_eq!(all, whole);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]a-z\"=0-9x, \n]{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn a_plan_with_a_hole_is_refused_or_read(at in 0..600_usize, len in 1..30_usize) {
        let mut text = PLAN.to_owned();
        let at = at.min(text.len());
        text.replace_range(at..(at + len).min(text.len()), "");
        let _ = read(&text);
    }
}
