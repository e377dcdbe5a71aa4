// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the file to the plan.

use std::fs;
use std::path::Path;

use firebreak_image::document::{self, At, Table};
use firebreak_image::{Diagnostics, Level, Problem, Source};
use firebreak_report::Class;

use super::{Expectation, Meaning, Pattern, Plan, Policy, ResetChoice, errors, guests, moments};

const TOP: [&str; 7] = [
    "campaign", "guest", "error", "moment", "policy", "pattern", "expect",
];
const CAMPAIGN: [&str; 6] = ["name", "about", "seed", "repetitions", "reset", "firmware"];
const RESETS: [&str; 4] = ["auto", "snapshot", "restart", "cold"];
const MEANINGS: [(&str, Meaning); 6] = [
    ("alive", Meaning::Alive),
    ("corrupted", Meaning::Corrupted),
    ("reported", Meaning::Reported),
    ("panicked", Meaning::Panicked),
    ("task-killed", Meaning::TaskKilled),
    ("usual", Meaning::Usual),
];
/// How the reference firmware can be told to behave (docs/sei-contract.md, section 11).
pub(super) const MODES: [&str; 14] = [
    "conforming",
    "barge-in",
    "stale-ec",
    "routes-by-tea",
    "notifies-uncontainable",
    "handled-in-firmware",
    "no-record",
    "early-overwrite",
    "cross-pe",
    "slow-retry",
    "lying-record",
    "lying-lengths",
    "lying-severities",
    "lying-addresses",
];
const POLICY: [&str; 7] = [
    "name",
    "corrected",
    "ueo",
    "uer",
    "ueu",
    "impdef",
    "uncategorized",
];

/// Reads a plan.
///
/// # Errors
///
/// Everything that is wrong with it, each with its place and the remedy.
pub fn read(path: &Path) -> Result<Plan, Diagnostics> {
    let text = fs::read_to_string(path).map_err(|error| Problem {
        level: Level::Error,
        message: format!("the plan {} cannot be read: {error}", path.display()),
        label: String::new(),
        remedy: "name a TOML file; docs/campaigns.md says what stands in it".to_owned(),
        source: Source::new(path, ""),
        span: None,
    })?;
    parse(path, &Source::new(path, text))
}

/// Reads a plan's text.
pub(crate) fn parse(path: &Path, source: &Source) -> Result<Plan, Diagnostics> {
    let parsed = document::parse(source)?;
    let span = 0..source.text().len();
    let top = Table::new(source, parsed.get_ref(), span, "a plan");
    let mut top = top.knowing(&TOP);
    let mut problems = top.unknown_keys();
    let mut plan = head(&mut top, path, source)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    for table in top.tables("guest", "a guest")? {
        keep(&mut problems, &mut plan.guests, guests::read(table, dir));
    }
    for table in top.tables("error", "an error")? {
        match errors::read(table) {
            Ok(errors) => plan.errors.extend(errors),
            Err(problem) => problems.push(problem),
        }
    }
    for table in top.tables("moment", "a moment")? {
        keep(&mut problems, &mut plan.moments, moments::read(table));
    }
    for table in top.tables("policy", "a policy")? {
        keep(&mut problems, &mut plan.policies, policy(table));
    }
    for table in top.tables("pattern", "a pattern")? {
        keep(&mut problems, &mut plan.patterns, pattern(table));
    }
    for table in top.tables("expect", "an expectation")? {
        keep(&mut problems, &mut plan.expectations, expectation(table));
    }
    if problems.is_empty() {
        problems = super::check::check(&plan);
    }
    if problems.is_empty() {
        return Ok(plan);
    }
    problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
    Err(Diagnostics { problems })
}

fn keep<T>(problems: &mut Vec<Problem>, list: &mut Vec<T>, one: Result<T, Problem>) {
    match one {
        Ok(one) => list.push(one),
        Err(problem) => problems.push(problem),
    }
}

fn head(top: &mut Table<'_, '_>, path: &Path, source: &Source) -> Result<Plan, Problem> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut plan = Plan {
        name: stem.into_owned(),
        about: String::new(),
        path: path.to_owned(),
        source: source.clone(),
        seed: 1,
        repetitions: 1,
        reset: ResetChoice::Auto,
        guests: Vec::new(),
        errors: Vec::new(),
        moments: Vec::new(),
        firmware: vec!["conforming".to_owned()],
        policies: Vec::new(),
        patterns: Vec::new(),
        expectations: Vec::new(),
    };
    let Some(table) = top.table("campaign", "the campaign")? else {
        return Ok(plan);
    };
    let mut table = table.knowing(&CAMPAIGN);
    if let Some(name) = table.string("name")? {
        plan.name = name.value;
    }
    plan.about = table
        .string("about")?
        .map_or_else(String::new, |at| at.value);
    plan.seed = table.integer("seed")?.map_or(1, |seed| seed.value);
    if let Some(count) = table.integer("repetitions")? {
        plan.repetitions = u32::try_from(count.value.max(1)).unwrap_or(u32::MAX);
    }
    if let Some(word) = table.string("reset")? {
        plan.reset = match word.value.as_str() {
            "auto" => ResetChoice::Auto,
            "snapshot" => ResetChoice::Snapshot,
            "restart" => ResetChoice::Restart,
            "cold" => ResetChoice::Cold,
            _ => {
                return Err(errors::unknown(
                    &table,
                    Some(&word),
                    "way to reset",
                    &RESETS,
                ));
            }
        };
    }
    if let Some(modes) = table.strings("firmware")? {
        for mode in &modes {
            if let Some(wrong) = mode.value.split('+').find(|one| !MODES.contains(one)) {
                let wrong = At {
                    value: wrong.to_owned(),
                    span: mode.span.clone(),
                };
                return Err(errors::unknown(
                    &table,
                    Some(&wrong),
                    "behavior of the firmware",
                    &MODES,
                ));
            }
        }
        plan.firmware = modes.into_iter().map(|mode| mode.value).collect();
    }
    nothing_unknown(&table)?;
    Ok(plan)
}

/// Takes a list of names.
pub(super) fn names(table: &mut Table<'_, '_>, key: &'static str) -> Result<Vec<String>, Problem> {
    let names = table.strings(key)?.unwrap_or_default();
    Ok(names.into_iter().map(|name| name.value).collect())
}

/// Refuses the first key that nobody knows.
pub(super) fn nothing_unknown(table: &Table<'_, '_>) -> Result<(), Problem> {
    match table.unknown_keys().into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(()),
    }
}

fn policy(table: Table<'_, '_>) -> Result<Policy, Problem> {
    let mut table = table.knowing(&POLICY);
    let name = table
        .string("name")?
        .ok_or_else(|| table.missing("name", "name = \"kill\""))?;
    let mut on_error = Vec::new();
    for class in POLICY.into_iter().skip(1) {
        if let Some(word) = table.string(class)? {
            on_error.push((class.to_owned(), word.value));
        }
    }
    nothing_unknown(&table)?;
    Ok(Policy {
        name: name.value,
        on_error,
    })
}

fn pattern(table: Table<'_, '_>) -> Result<Pattern, Problem> {
    let mut table = table.knowing(&["guests", "line", "means", "esr_after", "disr_after"]);
    let guests = names(&mut table, "guests")?;
    let line = table
        .string("line")?
        .ok_or_else(|| table.missing("line", "line = \"*Kernel panic*\""))?;
    let word = table
        .string("means")?
        .ok_or_else(|| table.missing("means", "means = \"panicked\""))?;
    let means = MEANINGS.iter().find(|(name, _)| *name == word.value);
    let Some((_, means)) = means else {
        let known = MEANINGS.map(|(name, _)| name);
        return Err(errors::unknown(
            &table,
            Some(&word),
            "meaning of a line",
            &known,
        ));
    };
    let esr_after = table.string("esr_after")?.map(|text| text.value);
    let disr_after = table.string("disr_after")?.map(|text| text.value);
    nothing_unknown(&table)?;
    Ok(Pattern {
        guests,
        line: line.value,
        means: *means,
        esr_after,
        disr_after,
    })
}

fn expectation(table: Table<'_, '_>) -> Result<Expectation, Problem> {
    let mut table = table.knowing(&["error", "moment", "guest", "policy", "firmware", "class"]);
    let mut glob = |key: &'static str| -> Result<String, Problem> {
        let words = names(&mut table, key)?;
        Ok(if words.is_empty() {
            "*".to_owned()
        } else {
            words.join("|")
        })
    };
    let (error, moment, guest) = (glob("error")?, glob("moment")?, glob("guest")?);
    let (policy, firmware) = (glob("policy")?, glob("firmware")?);
    let words = table
        .strings("class")?
        .ok_or_else(|| table.missing("class", "class = \"panicked\""))?;
    let mut classes = Vec::new();
    for word in &words {
        let class = Class::ALL
            .into_iter()
            .find(|class| class.name() == word.value);
        let known = Class::ALL.map(Class::name);
        classes.push(class.ok_or_else(|| errors::unknown(&table, Some(word), "class", &known))?);
    }
    nothing_unknown(&table)?;
    let span = table.span.clone();
    Ok(Expectation {
        error,
        moment,
        guest,
        policy,
        firmware,
        classes,
        span,
    })
}
