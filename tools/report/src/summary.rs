// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results in a few lines of text.

use std::fmt::Write as _;

use crate::{Case, Class, Results, order};

/// How many cases are listed by name.
const LISTED: usize = 20;

/// How many cases of a run came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// As expected.
    pub expected: u64,
    /// Not as expected.
    pub unexpected: u64,
    /// Nothing was expected, and there is a result.
    pub observed: u64,
    /// No result.
    pub inconclusive: u64,
}

impl Counts {
    /// Counts the cases.
    #[must_use]
    pub fn of(cases: &[Case]) -> Self {
        let mut counts = Self::default();
        for case in cases {
            *match (case.class, case.ok) {
                (Class::Inconclusive, _) => &mut counts.inconclusive,
                (_, Some(true)) => &mut counts.expected,
                (_, Some(false)) => &mut counts.unexpected,
                (_, None) => &mut counts.observed,
            } += 1;
        }
        counts
    }

    /// Returns it in words, as in `380 as expected, 3 unexpected, 1 inconclusive`.
    #[must_use]
    pub fn words(&self) -> String {
        let parts = [
            (self.expected, "as expected"),
            (self.unexpected, "unexpected"),
            (self.observed, "without expectation"),
            (self.inconclusive, "inconclusive"),
        ];
        let some = parts.iter().filter(|(count, _)| *count != 0);
        let words: Vec<String> = some
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if words.is_empty() {
            "no results".to_owned()
        } else {
            words.join(", ")
        }
    }
}

/// Returns the classes that were expected, in words.
#[must_use]
pub(crate) fn expectation(case: &Case) -> String {
    match &case.expected {
        None => "nothing".to_owned(),
        Some(classes) => {
            let titles: Vec<&str> = classes.iter().map(|class| class.title()).collect();
            titles.join(" or ")
        }
    }
}

/// Returns results as text: what came of it, and first the cases that one has to look at.
#[must_use]
pub fn text(results: &Results) -> String {
    let run = &results.run;
    let mut text = String::new();
    let part = run.shard.map_or_else(String::new, |shard| {
        format!(", shard {} of {}", shard.index, shard.count)
    });
    let done = results.cases.len();
    let of = run.cases;
    // Writing into a String does not fail.
    let _ = writeln!(text, "{}{part}: {done} of {of} cases ran", run.plan);
    let _ = writeln!(text, "{}", Counts::of(&results.cases).words());
    for class in Class::ALL {
        let count = results
            .cases
            .iter()
            .filter(|case| case.class == class)
            .count();
        if count != 0 {
            let _ = writeln!(text, "  {} {:<21}{count:>7}", class.letter(), class.title());
        }
    }
    let mut worth: Vec<&Case> = results
        .cases
        .iter()
        .filter(|case| {
            case.ok == Some(false)
                || matches!(case.class, Class::HypervisorFault | Class::Inconclusive)
        })
        .collect();
    worth.sort_by(|one, other| {
        let rank = |case: &Case| (case.ok != Some(false), case.class == Class::Inconclusive);
        rank(one)
            .cmp(&rank(other))
            .then_with(|| order::natural(&one.name, &other.name))
    });
    for case in worth.iter().take(LISTED) {
        let (name, class, wanted) = (&case.name, case.class.title(), expectation(case));
        let _ = writeln!(text, "{name}: {class}, expected: {wanted}: {}", case.reason);
    }
    if worth.len() > LISTED {
        let _ = writeln!(text, "and {} more", worth.len() - LISTED);
    }
    for note in notes(results) {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// Returns the same as data: the counts, the classes, and what a reader must know.
#[must_use]
pub fn json(results: &Results) -> serde_json::Value {
    let Counts {
        expected,
        unexpected,
        observed,
        inconclusive,
    } = Counts::of(&results.cases);
    let classes: serde_json::Map<String, serde_json::Value> = Class::ALL
        .into_iter()
        .map(|class| {
            let count = results.cases.iter().filter(|case| case.class == class);
            (class.name().to_owned(), count.count().into())
        })
        .collect();
    serde_json::json!({
        "plan": results.run.plan,
        "cases_of_the_plan": results.run.cases,
        "cases": results.cases.len(),
        "as_expected": expected,
        "unexpected": unexpected,
        "without_expectation": observed,
        "inconclusive": inconclusive,
        "classes": classes,
        "notes": notes(results),
    })
}

/// Returns what a reader must know of how whole the results are.
#[must_use]
pub(crate) fn notes(results: &Results) -> Vec<String> {
    let mut notes = Vec::new();
    if !results.left_out.is_nothing() {
        notes.push(results.left_out.to_string());
    }
    match &results.end {
        None => notes.push("the run did not end: it was killed, or it is still running".to_owned()),
        Some(end) => {
            if end.interrupted {
                notes.push("the run was interrupted".to_owned());
            }
            if let Some(budget) = &end.budget_hit {
                notes.push(format!(
                    "the run stopped when its budget of {budget} was used up"
                ));
            }
        }
    }
    let missing = results.run.cases.saturating_sub(results.cases.len() as u64);
    if missing != 0 {
        notes.push(format!("{missing} cases of the plan have no result"));
    }
    notes
}
