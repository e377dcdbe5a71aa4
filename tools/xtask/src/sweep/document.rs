// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables of `docs/sweep.md`, from the committed result of a whole sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::fourth;
use super::paths::{Kind, PATHS};
use super::report::Row;
use crate::generated::with_part;
use crate::paths;

/// The columns of errors.
const KINDS: [Kind; 6] = [
    Kind::Ce,
    Kind::Ueo,
    Kind::Uer,
    Kind::UerOwn,
    Kind::UerOther,
    Kind::Ueu,
];

/// What `--json` writes.
#[derive(Deserialize)]
struct Whole {
    paths: Vec<Row>,
}

/// The committed result.
pub(super) fn committed() -> PathBuf {
    paths::workspace().join("docs/results/sweep.json")
}

fn document() -> PathBuf {
    paths::workspace().join("docs/sweep.md")
}

/// Writes the tables of the document anew.
pub(super) fn renew() -> Result<()> {
    let read =
        |path: PathBuf| fs::read_to_string(&path).with_context(|| path.display().to_string());
    let text = with_tables(&read(document())?, &read(committed())?)?;
    fs::write(document(), text).context("docs/sweep.md")
}

fn with_tables(text: &str, result: &str) -> Result<String> {
    let whole: Whole = serde_json::from_str(result).context("docs/results/sweep.json")?;
    let tables = format!("{}\n{}", table(&whole.paths), lost(&whole.paths));
    with_part(text, "sweep", &tables).context("docs/sweep.md")
}

/// One row for a path and mode, with a cell for each error: nothing lost / VM lost / machine lost.
fn table(rows: &[Row]) -> String {
    // Modes, and in each of them paths in the order in which they come first.
    let mut order: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        let key = (row.mode.as_str(), row.path.as_str());
        if !order.contains(&key) {
            order.push(key);
        }
    }
    order.sort_by_key(|(mode, _)| *mode != "conforming");
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
    let mut text = format!(
        "| path | mode | of | {} | longest masked |\n| --- | --- | ---: |{} ---: |\n",
        names.join(" | "),
        " ---: |".repeat(KINDS.len())
    );
    for (mode, path) in order {
        let of_it = |row: &&Row| row.path == path && row.mode == mode;
        let own: Vec<&Row> = rows.iter().filter(of_it).collect();
        let cells: Vec<String> = names
            .iter()
            .map(|name| {
                let row = own.iter().find(|row| row.error == *name);
                row.map_or_else(|| "-".to_owned(), |row| cell(row))
            })
            .collect();
        let of = own.iter().map(|row| row.of).max().unwrap_or(0);
        let masked = own.iter().filter_map(|row| row.longest_masked).max();
        let masked = masked.map_or_else(|| "-".to_owned(), |longest| longest.to_string());
        text += &format!(
            "| `{path}` | {mode} | {of} | {} | {masked} |\n",
            cells.join(" | ")
        );
    }
    text
}

fn cell(row: &Row) -> String {
    format!(
        "{} / {} / {}",
        row.nothing_lost, row.vm_lost, row.machine_lost
    )
}

/// The boundaries at which a CE or a UEO cost anything, but for the fourth level of SEIs.
fn lost(rows: &[Row]) -> String {
    let mut found: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for row in rows {
        let counts = [Kind::Ce, Kind::Ueo]
            .map(Kind::name)
            .contains(&row.error.as_str());
        if !counts || is_fourth(&row.path) {
            continue;
        }
        for lost in &row.lost {
            let paths = found.entry((&lost.loss, &lost.boundary)).or_default();
            paths.insert(&row.path);
        }
    }
    let mut text = "| boundary | costs | on paths |\n| --- | --- | --- |\n".to_owned();
    for ((loss, boundary), paths) in found {
        let paths = match paths.len() {
            0..=3 => paths
                .iter()
                .map(|path| format!("`{path}`"))
                .collect::<Vec<_>>()
                .join(", "),
            many => many.to_string(),
        };
        text += &format!("| `{boundary}` | {loss} | {paths} |\n");
    }
    text
}

fn is_fourth(name: &str) -> bool {
    let path = PATHS.iter().find(|path| path.name == name);
    path.is_some_and(fourth::is_one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::{Args, run};

    /// `cargo xtask sweep --json docs/results/sweep.json` writes both.
    #[test]
    fn the_tables_of_the_document_are_the_committed_result() {
        if std::env::var_os("FIREBREAK_BLESS").is_some_and(|value| value == "1") {
            return renew().unwrap();
        }
        let text = fs::read_to_string(document()).unwrap();
        let expected = with_tables(&text, &fs::read_to_string(committed()).unwrap()).unwrap();
        assert!(
            text == expected,
            "the tables of docs/sweep.md are not docs/results/sweep.json: run this test with \
             FIREBREAK_BLESS=1"
        );
    }

    /// Each path is there, in each of its modes, by each error that strikes it; nothing failed.
    #[test]
    fn the_committed_result_is_whole() {
        let whole: Whole = serde_json::from_str(&fs::read_to_string(committed()).unwrap()).unwrap();
        for (path, mode, kind) in run::jobs(&Args::whole()).unwrap() {
            let row = whole.paths.iter().find(|row| {
                (row.path.as_str(), row.mode.as_str(), row.error.as_str())
                    == (path.name, mode.name(), kind.name())
            });
            let what = format!("{} {} {}", path.name, mode.name(), kind.name());
            let row = row.unwrap_or_else(|| panic!("docs/results/sweep.json has no {what}"));
            assert!(row.failures.is_empty(), "{what}: {:?}", row.failures);
        }
    }
}
