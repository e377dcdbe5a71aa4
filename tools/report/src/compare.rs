// SPDX-License-Identifier: MIT OR Apache-2.0
//! What changed from one run to another.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::{Case, Class, Results, Run, order};

/// What is compared of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// What became of the guest.
    pub class: Class,
    /// Whether it is as expected.
    pub ok: Option<bool>,
}

impl Outcome {
    const fn of(case: &Case) -> Self {
        Self {
            class: case.class,
            ok: case.ok,
        }
    }

    /// How bad it is, whatever the plan expects of the guest.
    const fn badness(self) -> u8 {
        match (self.ok, self.class) {
            (_, Class::HypervisorFault) => 4,
            (Some(false), _) => 3,
            (_, Class::Inconclusive) => 2,
            (None, Class::CorruptedSilently) => 1,
            _ => 0,
        }
    }

    fn words(self) -> String {
        let ok = match self.ok {
            Some(true) => " (as expected)",
            Some(false) => " (unexpected)",
            None => "",
        };
        format!("{}{ok}", self.class.title())
    }
}

/// How a case changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It is not there any more.
    Gone,
    /// It was not there before.
    New,
    /// The guest does something else.
    Class,
    /// The guest does the same, and it is judged in another way.
    Ok,
}

/// A case that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The case's name.
    pub name: String,
    /// How it changed.
    pub change: Kind,
    /// Whether that is worse than before.
    pub worse: bool,
    /// What it was.
    pub before: Option<Outcome>,
    /// What it is.
    pub after: Option<Outcome>,
}

/// What changed from one run to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Whether anything got worse.
    pub worse: bool,
    /// Number of cases that are as they were.
    pub same: u64,
    /// What the runs themselves differ in, apart from their results.
    pub run_differences: Vec<&'static str>,
    /// What changed, the worse first, then by name.
    pub changes: Vec<Change>,
}

/// Compares `after` with `before`.
///
/// Worse is: a case that is gone, one that became unexpected or inconclusive or a fault of
/// Firebreak's, or that corrupts silently where nothing is expected; and a new one that is any of
/// these.
#[must_use]
pub fn compare(before: &Results, after: &Results) -> Comparison {
    let outcomes = |results: &Results| -> BTreeMap<String, Outcome> {
        let one = |case: &Case| (case.name.clone(), Outcome::of(case));
        results.cases.iter().map(one).collect()
    };
    let (old, mut new) = (outcomes(before), outcomes(after));
    let mut same = 0;
    let mut changes = Vec::new();
    for (name, was) in old {
        let is = new.remove(&name);
        let change = match is {
            None => Kind::Gone,
            Some(is) if is.class != was.class => Kind::Class,
            Some(is) if is.ok != was.ok => Kind::Ok,
            Some(_) => {
                same += 1;
                continue;
            }
        };
        changes.push(Change {
            name,
            change,
            worse: is.is_none_or(|is| is.badness() > was.badness()),
            before: Some(was),
            after: is,
        });
    }
    changes.extend(new.into_iter().map(|(name, is)| Change {
        name,
        change: Kind::New,
        worse: is.badness() != 0,
        before: None,
        after: Some(is),
    }));
    changes.sort_by(|one, other| {
        let by_name = || order::natural(&one.name, &other.name);
        other.worse.cmp(&one.worse).then_with(by_name)
    });
    Comparison {
        worse: changes.iter().any(|change| change.worse),
        same,
        run_differences: differences(&before.run, &after.run),
        changes,
    }
}

fn differences(one: &Run, other: &Run) -> Vec<&'static str> {
    [
        (one.plan != other.plan, "plan"),
        (one.plan_sha256 != other.plan_sha256, "plan's contents"),
        (one.firebreak != other.firebreak, "version of Firebreak"),
        (one.commit != other.commit, "commit of Firebreak"),
        (one.qemu != other.qemu, "version of QEMU"),
        (one.cpu != other.cpu, "CPU"),
        (one.guests != other.guests, "guests"),
        (one.seed != other.seed, "seed"),
        (one.shard != other.shard, "shard"),
    ]
    .into_iter()
    .filter_map(|(differs, what)| differs.then_some(what))
    .collect()
}

impl Comparison {
    /// Returns it as text, the worse first.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let count = |kind| self.changes.iter().filter(|one| one.change == kind).count();
        let worse = self.changes.iter().filter(|one| one.worse).count();
        // Writing into a String does not fail.
        let _ = writeln!(
            text,
            "{} the same, {} of another class, {} judged otherwise, {} new, {} gone; {worse} worse",
            self.same,
            count(Kind::Class),
            count(Kind::Ok),
            count(Kind::New),
            count(Kind::Gone),
        );
        if !self.run_differences.is_empty() {
            let _ = writeln!(
                text,
                "the runs differ in: {}",
                self.run_differences.join(", ")
            );
        }
        for one in &self.changes {
            let words = |outcome: Option<Outcome>| outcome.map_or("-".to_owned(), Outcome::words);
            let mark = if one.worse { "worse" } else { "     " };
            let (before, after) = (words(one.before), words(one.after));
            let _ = writeln!(text, "{mark} {}: {before} -> {after}", one.name);
        }
        text
    }
}
