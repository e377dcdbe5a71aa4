// SPDX-License-Identifier: MIT OR Apache-2.0
//! The peers' figures of `tests/bench/peers.json`, and the README's table of ours beside them.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::generated::with_part;
use crate::paths;

/// The name of the README's table.
const TABLE: &str = "figures";

/// The operations that the README names, and what it calls them.
const SHOWN: [(&str, &str); 10] = [
    ("hvc_psci_version", "hypercall (PSCI_VERSION)"),
    ("gicd_typer_read", "GICD_TYPER read"),
    ("gicr_isenabler0_write", "GICR_ISENABLER0 write"),
    ("uart_status_read", "emulated UART, status read"),
    ("sgi_self", "SGI to oneself, to its handler"),
    ("vtimer", "virtual timer, to its handler"),
    ("sei_to_verdict", "error notified, to its verdict"),
    (
        "sei_to_guest_vector",
        "error notified, to the guest's SError handler",
    ),
    ("boot_to_guest", "boot, to the guest's first instruction"),
    ("image_bytes", "code and constants, in bytes"),
];

/// The peers, and what each takes for each operation.
#[derive(Deserialize)]
pub(super) struct Peers {
    peers: Vec<Peer>,
    operations: BTreeMap<String, Vec<Option<u64>>>,
}

#[derive(Deserialize)]
struct Peer {
    name: String,
}

impl Peers {
    /// Reads the committed ones.
    pub(super) fn read() -> Result<Self> {
        let path = paths::workspace().join("tests/bench/peers.json");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Returns their names, as the head of [`Self::words`].
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.peers.iter().map(|peer| peer.name.as_str()).collect();
        names.join(" / ")
    }

    /// Returns what each takes for an operation, as `53 / 189 / 572 / 1354`.
    pub(super) fn words(&self, operation: &str) -> String {
        let words: Vec<String> = self.values(operation).into_iter().map(words).collect();
        words.join(" / ")
    }

    fn values(&self, operation: &str) -> Vec<Option<u64>> {
        let known = self.operations.get(operation).cloned();
        known.unwrap_or_else(|| vec![None; self.peers.len()])
    }
}

fn words(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), grouped)
}

/// Writes a number with a comma between each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the README's table: our medians beside the peers' figures.
fn readme_table(ours: &BTreeMap<String, u64>, peers: &Peers) -> Result<String> {
    let names: Vec<&str> = peers.peers.iter().map(|peer| peer.name.as_str()).collect();
    let mut text = format!("| instructions | Firebreak | {} |\n", names.join(" | "));
    text += &format!("| --- |{}\n", " ---: |".repeat(names.len() + 1));
    for (operation, title) in SHOWN {
        let own = ours
            .get(operation)
            .with_context(|| format!("tests/bench/latest.json has no {operation}"))?;
        let others: Vec<String> = peers.values(operation).into_iter().map(words).collect();
        let (own, others) = (grouped(*own), others.join(" | "));
        text += &format!("| {title} | **{own}** | {others} |\n");
    }
    Ok(text)
}

/// Returns a README with its table as the committed figures are.
fn with_table(readme: &str, latest: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Figure {
        operation: String,
        median: u64,
    }
    #[derive(Deserialize)]
    struct Latest {
        results: Vec<Figure>,
    }
    let latest: Latest = serde_json::from_str(latest).context("tests/bench/latest.json")?;
    let ours = latest.results.into_iter();
    let ours = ours
        .map(|figure| (figure.operation, figure.median))
        .collect();
    let table = readme_table(&ours, &Peers::read()?)?;
    with_part(readme, TABLE, &table).context("README.md")
}

/// Writes the README's table anew, from the committed figures.
pub(super) fn renew_readme() -> Result<()> {
    let root = paths::workspace();
    let latest = fs::read_to_string(root.join("tests/bench/latest.json"))?;
    let path = root.join("README.md");
    let readme = with_table(&fs::read_to_string(&path)?, &latest)?;
    fs::write(&path, readme).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cargo xtask bench --json tests/bench/latest.json` writes both.
    #[test]
    fn the_table_of_the_readme_is_the_committed_figures() {
        if std::env::var_os("FIREBREAK_BLESS").is_some_and(|value| value == "1") {
            return renew_readme().unwrap();
        }
        let root = paths::workspace();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        let readme = read("README.md");
        let expected = with_table(&readme, &read("tests/bench/latest.json")).unwrap();
        assert!(
            readme == expected,
            "the table of README.md is not tests/bench/latest.json: run this test with \
             FIREBREAK_BLESS=1"
        );
    }

    #[test]
    fn another_figure_is_another_table() {
        let root = paths::workspace();
        let latest = fs::read_to_string(root.join("tests/bench/latest.json")).unwrap();
        let readme = format!("a\n<!-- generated:{TABLE} -->\n<!-- end:{TABLE} -->\nb\n");
        let table = with_table(&readme, &latest).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&latest).unwrap();
        let results = value["results"].as_array_mut().unwrap();
        let call = results
            .iter_mut()
            .find(|result| result["operation"] == "hvc_psci_version")
            .unwrap();
        call["median"] = 1_234_567.into();
        let other = with_table(&readme, &value.to_string()).unwrap();
        assert!(other.contains("**1,234,567**"), "{other}");
        assert_ne!(table, other);
        assert!(table.starts_with("a\n") && table.ends_with("\nb\n"));
        // What is there is replaced, not added to.
        assert_eq!(with_table(&table, &latest).unwrap(), table);
        results_without(&mut value, "sgi_self");
        assert!(with_table(&readme, &value.to_string()).is_err());
    }

    fn results_without(value: &mut serde_json::Value, operation: &str) {
        let results = value["results"].as_array_mut().unwrap();
        results.retain(|result| result["operation"] != operation);
    }

    #[test]
    fn each_operation_has_a_figure_or_a_gap_for_each_peer() {
        let peers = Peers::read().unwrap();
        for (operation, values) in &peers.operations {
            assert_eq!(values.len(), peers.peers.len(), "{operation}");
        }
        assert_eq!(peers.words("hvc_psci_version"), "53 / 189 / 572 / 1,354");
        assert_eq!(peers.words("unknown"), "- / - / - / -");
        assert_eq!(
            [0, 999, 1000, 17_156_325].map(grouped),
            ["0", "999", "1,000", "17,156,325"]
        );
    }
}
