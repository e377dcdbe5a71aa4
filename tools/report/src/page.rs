// SPDX-License-Identifier: MIT OR Apache-2.0
//! One page that shows a run, or two, with everything in it: no network, no other file.
//!
//! What guests said goes in as JSON in which no `<` is left, so nothing of it can end the element
//! that it is in; the page's policy allows no script but its own, by its hash, and no request.

use std::collections::HashMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::compare::{Comparison, Kind, compare};
use crate::{Case, Class, End, Guest, Results, Shard, order, summary};

const PAGE: &str = include_str!("../assets/page.html");
const STYLES: [&str; 3] = [
    include_str!("../assets/base.css"),
    include_str!("../assets/matrix.css"),
    include_str!("../assets/case.css"),
];
const SCRIPTS: [&str; 5] = [
    include_str!("../assets/data.js"),
    include_str!("../assets/state.js"),
    include_str!("../assets/matrix.js"),
    include_str!("../assets/case.js"),
    include_str!("../assets/main.js"),
];

/// Errors by severity where their names say it; all others follow by name.
const SEVERITIES: [&str; 5] = ["ce", "ueo", "uer", "ueu", "uc"];

/// Returns a page that shows `results`.
///
/// # Errors
///
/// Fails as the writer of JSON does.
pub fn html(results: &Results) -> serde_json::Result<String> {
    let plan = &results.run.plan;
    page(
        &format!("{plan} - Firebreak campaign"),
        &summary::text(results),
        &[results],
        None,
    )
}

/// Returns a page that shows two runs side by side, with what changed.
///
/// # Errors
///
/// Fails as the writer of JSON does.
pub fn html_compare(before: &Results, after: &Results) -> serde_json::Result<String> {
    let comparison = compare(before, after);
    let plan = &after.run.plan;
    page(
        &format!("{plan}, compared - Firebreak campaign"),
        &comparison.text(),
        &[before, after],
        Some(&comparison),
    )
}

fn page(
    title: &str,
    text: &str,
    runs: &[&Results],
    comparison: Option<&Comparison>,
) -> serde_json::Result<String> {
    let mut lines = Vec::new();
    let index = Index::new(runs, comparison, &mut lines)?;
    let script = format!("\"use strict\";\n(() => {{\n{}}})();\n", SCRIPTS.concat());
    let index = in_script(&serde_json::to_string(&index)?);
    let parts = [
        ("script-hash", base64(&Sha256::digest(script.as_bytes()))),
        ("title", in_markup(title)),
        ("style", STYLES.concat()),
        ("text", in_markup(text)),
        ("index", index),
        ("lines", lines.concat()),
        ("script", script),
    ];
    let size: usize = parts.iter().map(|(_, value)| value.len()).sum();
    let mut page = String::with_capacity(PAGE.len() + size);
    // One pass over the template, so that nothing is looked for in what was put in.
    for piece in PAGE.split("{{") {
        match piece.split_once("}}") {
            None => page.push_str(piece),
            Some((name, rest)) => {
                let found = parts.iter().find(|(known, _)| *known == name);
                page.push_str(found.map_or("", |(_, value)| value));
                page.push_str(rest);
            }
        }
    }
    Ok(page)
}

/// Makes JSON fit for a script element: outside strings it has none of these characters.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn in_markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, place| {
            bits << 8 | u32::from(chunk.get(place).copied().unwrap_or(0))
        });
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place) & 0x3f) as usize;
            let letter = DIGITS.get(digit).copied().unwrap_or(b'=');
            text.push(if place <= chunk.len() {
                letter as char
            } else {
                '='
            });
        }
    }
    text
}

/// What the page reads at once.
#[derive(Serialize)]
struct Index<'a> {
    classes: Vec<ClassWords>,
    runs: Vec<RunWords<'a>>,
    differences: &'a [&'static str],
    values: Values<'a>,
    rows: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct ClassWords {
    name: &'static str,
    title: &'static str,
    letter: char,
    definition: &'static str,
}

#[derive(Serialize)]
struct RunWords<'a> {
    plan: &'a str,
    plan_sha256: &'a str,
    firebreak: &'a str,
    commit: Option<&'a str>,
    qemu: &'a str,
    cpu: &'a str,
    guests: &'a [Guest],
    /// As text: the page's numbers end at 2^53.
    seed: String,
    shard: Option<Shard>,
    cases: u64,
    done: usize,
    started: &'a str,
    command: &'a str,
    end: Option<&'a End>,
    notes: Vec<String>,
}

/// The values of each dimension, in the order in which they are shown.
#[derive(Serialize)]
struct Values<'a> {
    guest: Vec<&'a str>,
    error: Vec<&'a str>,
    moment: Vec<&'a str>,
    policy: Vec<&'a str>,
    firmware: Vec<&'a str>,
    ras: Vec<&'static str>,
}

/// Class, verdict (0 unexpected, 1 expected, 2 neither), and number of the line.
type Outcome = (usize, u8, usize);

/// Name; places of guest, error, moment, policy, firmware, RAS; repetition; what it is, what it
/// was; how it changed, and whether that is worse.
type Row<'a> = (
    &'a str,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    u32,
    Option<Outcome>,
    Option<Outcome>,
    &'static str,
    u8,
);

impl<'a> Index<'a> {
    fn new(
        runs: &[&'a Results],
        comparison: Option<&'a Comparison>,
        lines: &mut Vec<String>,
    ) -> serde_json::Result<Self> {
        let (before, after) = match runs {
            [before, after] => (Some(*before), *after),
            [only, ..] => (None, *only),
            [] => return Err(serde::de::Error::custom("no run")),
        };
        let mut cases: HashMap<&str, [Option<&'a Case>; 2]> = HashMap::new();
        for (place, results) in [(0, before), (1, Some(after))] {
            for case in results.into_iter().flat_map(|results| &results.cases) {
                let pair = cases.entry(&case.name).or_default();
                if let Some(slot) = pair.get_mut(place) {
                    *slot = Some(case);
                }
            }
        }
        let all: Vec<&Case> = runs.iter().flat_map(|results| &results.cases).collect();
        let values = Values::of(&all);
        let changes: HashMap<&str, (&'static str, bool)> = comparison
            .into_iter()
            .flat_map(|comparison| &comparison.changes)
            .map(|one| (one.name.as_str(), (kind_name(one.change), one.worse)))
            .collect();
        let places = Places {
            guest: places(&values.guest),
            error: places(&values.error),
            moment: places(&values.moment),
            policy: places(&values.policy),
            firmware: places(&values.firmware),
            ras: places(&values.ras),
        };
        let mut names: Vec<&str> = cases.keys().copied().collect();
        names.sort_by(|one, other| order::natural(one, other));
        let mut rows = Vec::with_capacity(names.len());
        for name in names {
            let [was, is] = cases.get(name).copied().unwrap_or_default();
            let Some(case) = is.or(was) else { continue };
            let (change, worse) = changes.get(name).copied().unwrap_or(("", false));
            rows.push((
                name,
                place(&places.guest, &case.guest),
                place(&places.error, &case.error),
                place(&places.moment, &case.moment),
                place(&places.policy, &case.policy),
                place(&places.firmware, &case.firmware),
                place(&places.ras, ras_name(case.ras_visible)),
                case.repetition,
                outcome(is, lines)?,
                outcome(was, lines)?,
                change,
                u8::from(worse),
            ));
        }
        Ok(Self {
            classes: Class::ALL.map(class_words).into(),
            runs: runs.iter().map(|results| run_words(results)).collect(),
            differences: comparison.map_or(&[], |comparison| &comparison.run_differences),
            values,
            rows,
        })
    }
}

/// Where each value is in [`Values`].
struct Places<'a> {
    guest: HashMap<&'a str, usize>,
    error: HashMap<&'a str, usize>,
    moment: HashMap<&'a str, usize>,
    policy: HashMap<&'a str, usize>,
    firmware: HashMap<&'a str, usize>,
    ras: HashMap<&'a str, usize>,
}

const fn ras_name(visible: bool) -> &'static str {
    if visible { "visible" } else { "hidden" }
}

fn places<'a>(values: &[&'a str]) -> HashMap<&'a str, usize> {
    (0..)
        .zip(values)
        .map(|(place, value)| (*value, place))
        .collect()
}

fn place(places: &HashMap<&str, usize>, value: &str) -> usize {
    places.get(value).copied().unwrap_or_default()
}

fn outcome(case: Option<&Case>, lines: &mut Vec<String>) -> serde_json::Result<Option<Outcome>> {
    let Some(case) = case else { return Ok(None) };
    let class = Class::ALL.iter().position(|class| *class == case.class);
    let verdict = case.ok.map_or(2, u8::from);
    let line = lines.len();
    lines.push(in_script(&serde_json::to_string(case)?) + "\n");
    Ok(Some((class.unwrap_or_default(), verdict, line)))
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Gone => "gone",
        Kind::New => "new",
        Kind::Class => "class",
        Kind::Ok => "ok",
    }
}

const fn class_words(class: Class) -> ClassWords {
    ClassWords {
        name: class.name(),
        title: class.title(),
        letter: class.letter(),
        definition: class.definition(),
    }
}

fn run_words(results: &Results) -> RunWords<'_> {
    let run = &results.run;
    RunWords {
        plan: &run.plan,
        plan_sha256: &run.plan_sha256,
        firebreak: &run.firebreak,
        commit: run.commit.as_deref(),
        qemu: &run.qemu,
        cpu: &run.cpu,
        guests: &run.guests,
        seed: run.seed.to_string(),
        shard: run.shard,
        cases: run.cases,
        done: results.cases.len(),
        started: &run.started,
        command: &run.command,
        end: results.end.as_ref(),
        notes: summary::notes(results),
    }
}

impl<'a> Values<'a> {
    fn of(cases: &[&'a Case]) -> Self {
        let values = |get: fn(&Case) -> &str| {
            let mut values: Vec<&str> = cases.iter().map(|case| get(case)).collect();
            values.sort_by(|one, other| order::natural(one, other));
            values.dedup();
            values
        };
        let mut error = values(|case| &case.error);
        // Stable: within a severity they stay in the order of their names.
        error.sort_by_key(|name| {
            let word = name.split(['-', '_', ' ']).next();
            let rank = SEVERITIES.iter().position(|known| Some(*known) == word);
            rank.unwrap_or(SEVERITIES.len())
        });
        Self {
            guest: values(|case| &case.guest),
            error,
            moment: values(|case| &case.moment),
            policy: values(|case| &case.policy),
            firmware: values(|case| &case.firmware),
            ras: [false, true]
                .into_iter()
                .filter(|visible| cases.iter().any(|case| case.ras_visible == *visible))
                .map(ras_name)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let known = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in known {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xef]), "/+8=");
    }
}
