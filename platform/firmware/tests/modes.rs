// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of `docs/sei-contract.md` 11 has a row for each mode, and each row a test that is there.

use std::path::Path;

use firebreak_el3::behavior::{Mode, Modes};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Cells of the table's rows, the word in the first one without its quotes.
fn rows() -> Vec<(String, Vec<String>)> {
    let text = read("docs/sei-contract.md");
    let (_, table) = text
        .split_once("| mode | what the firmware does wrong |")
        .expect("the table of modes");
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
        let first = cells.next().unwrap_or_default();
        let name = first.split('`').nth(1).unwrap_or_default().to_owned();
        (name, cells.map(str::to_owned).collect())
    })
    .collect()
}

#[test]
fn every_mode_stands_in_the_contract() {
    let rows = rows();
    let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    for (_, name) in Mode::NAMES {
        assert!(names.contains(name), "`{name}` has no row");
    }
    for (name, cells) in &rows {
        assert!(
            name == "storm" || Modes::parse(name).is_some(),
            "`{name}` is no mode"
        );
        assert!(
            cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()),
            "{name}"
        );
    }
}

#[test]
fn every_test_that_a_row_names_exists() {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/qemu/suite");
    for (name, cells) in rows() {
        let shown_by = cells.last().expect("the last cell");
        for test in shown_by.split('`').filter(|word| word.contains("::")) {
            let mut parts = test.split("::");
            let module = parts.next().unwrap_or_default();
            let case = parts.next().unwrap_or_default();
            // The group `error` is the one whose file has a longer name.
            let file = if module == "error" { "errors" } else { module };
            let path = suite.join(format!("{file}.rs"));
            let source = std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{name}: {}: {error}", path.display()));
            assert!(source.contains(case), "{name}: no `{test}` in {file}.rs");
        }
    }
}
