// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes one run of its shards.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::{Case, End, LeftOut, Results, Run, Shard, order};

/// Results, and what messages call them.
pub type Named = (String, Results);

/// Why results cannot be made one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// There are none.
    #[error("there is nothing to merge: name at least one file of results")]
    Nothing,
    /// Parts of different runs.
    #[error(
        "{one} and {other} are of different runs: they have another {what}; merge shards of one \
         plan, one build and one seed"
    )]
    OtherRun {
        /// A file.
        one: String,
        /// Another one.
        other: String,
        /// What differs.
        what: &'static str,
    },
    /// One says that there are more shards than another.
    #[error(
        "{one} is {is}, and {other} is {other_is}: merge shards of one `--shard INDEX/COUNT` with \
         the same COUNT"
    )]
    OtherShards {
        /// A file.
        one: String,
        /// What part it is.
        is: String,
        /// Another one.
        other: String,
        /// What part that is.
        other_is: String,
    },
    /// Shards that nobody named.
    #[error("{missing} missing: run `{command}` for {each}, and merge again")]
    Missing {
        /// The shards, in words.
        missing: String,
        /// What would run one of them.
        command: String,
        /// `it` or `each of them`.
        each: &'static str,
    },
    /// A case that ends differently in two files.
    #[error(
        "case {case} ends differently: {class} in {one}, {other_class} in {other}; find out why \
         (run the case alone), and merge without one of the files"
    )]
    Disagree {
        /// The case.
        case: String,
        /// A file.
        one: String,
        /// What it says.
        class: String,
        /// Another one.
        other: String,
        /// What that says.
        other_class: String,
    },
}

/// Makes one run of `parts`, whatever their order: the results of a run on one machine.
///
/// Cases are in the order of their names. It began when the first part began and took as long as
/// the longest; the command is what the parts' commands have in common, without `--shard`. It has
/// an end only if each part has one.
///
/// # Errors
///
/// Refuses parts of different runs, missing parts, and cases that end differently.
pub fn merge(parts: Vec<Named>) -> Result<Results, MergeError> {
    let parts = in_order(parts);
    let run = one_run(&parts)?;
    let ends: Vec<Option<End>> = parts.iter().map(|(_, part)| part.end.clone()).collect();
    let cases = one_list(parts)?;
    Ok(Results {
        end: one_end(&ends, cases.len()),
        run,
        cases,
        left_out: LeftOut::default(),
    })
}

/// Says what of `parts` is not in the merged results: lines that cannot be read, cases that did
/// not run.
#[must_use]
pub fn warnings(parts: &[Named]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, part) in parts {
        if !part.left_out.is_nothing() {
            warnings.push(format!("{name}: {}", part.left_out));
        }
        let done = part.cases.len() as u64;
        if done < part.run.cases {
            let planned = part.run.cases;
            warnings.push(format!("{name}: {done} of {planned} cases have a result"));
        }
    }
    warnings
}

/// Orders by shard and then by contents, so that the order of naming says nothing.
fn in_order(mut parts: Vec<Named>) -> Vec<Named> {
    parts.sort_by_cached_key(|(_, part)| {
        let names: Vec<&str> = part.cases.iter().map(|case| case.name.as_str()).collect();
        (part.run.shard, part.run.started.clone(), names.join("\n"))
    });
    parts
}

fn part_words(shard: Option<Shard>) -> String {
    match shard {
        Some(Shard { index, count }) => format!("shard {index} of {count}"),
        None => "a whole run".to_owned(),
    }
}

fn one_run(parts: &[Named]) -> Result<Run, MergeError> {
    let Some((first_name, first)) = parts.first() else {
        return Err(MergeError::Nothing);
    };
    let count = first.run.shard.map(|shard| shard.count);
    for (name, part) in parts {
        if let Some(what) = first.run.other_than(&part.run) {
            return Err(MergeError::OtherRun {
                one: first_name.clone(),
                other: name.clone(),
                what,
            });
        }
        if part.run.shard.map(|shard| shard.count) != count {
            return Err(MergeError::OtherShards {
                one: first_name.clone(),
                is: part_words(first.run.shard),
                other: name.clone(),
                other_is: part_words(part.run.shard),
            });
        }
    }
    let mut planned = BTreeMap::new();
    for (_, part) in parts {
        planned.insert(
            part.run.shard.map_or(1, |shard| shard.index),
            part.run.cases,
        );
    }
    none_missing(parts, &planned, count.unwrap_or(1))?;
    let started = parts.iter().map(|(_, part)| part.run.started.as_str());
    Ok(Run {
        shard: None,
        cases: planned.values().sum(),
        started: started.min().unwrap_or_default().to_owned(),
        command: one_command(parts),
        ..first.run.clone()
    })
}

fn none_missing(
    parts: &[Named],
    planned: &BTreeMap<u32, u64>,
    count: u32,
) -> Result<(), MergeError> {
    let missing: Vec<String> = (1..=count)
        .filter(|index| !planned.contains_key(index))
        .map(|index| index.to_string())
        .collect();
    let (missing_words, each) = match missing.as_slice() {
        [] => return Ok(()),
        [one] => (format!("shard {one} of {count} is"), "it"),
        many => (
            format!("shards {} of {count} are", many.join(", ")),
            "each of them",
        ),
    };
    let first = missing.first().map_or("1", String::as_str);
    Err(MergeError::Missing {
        missing: missing_words,
        command: format!("{} --shard {first}/{count}", one_command(parts)),
        each,
    })
}

/// Splits a command into its words, an option's value with the option.
fn units(command: &str) -> Vec<String> {
    let mut units: Vec<String> = Vec::new();
    for word in command.split_whitespace() {
        match units.last_mut() {
            Some(option)
                if option.starts_with('-')
                    && !option.contains([' ', '='])
                    && !word.starts_with('-') =>
            {
                option.push(' ');
                option.push_str(word);
            }
            _ => units.push(word.to_owned()),
        }
    }
    units
}

fn one_command(parts: &[Named]) -> String {
    let all: Vec<Vec<String>> = parts
        .iter()
        .map(|(_, part)| units(&part.run.command))
        .collect();
    let common = all.first().into_iter().flatten().filter(|unit| {
        let shard = unit.starts_with("--shard ") || unit.starts_with("--shard=");
        !shard && all.iter().all(|units| units.contains(unit))
    });
    common.map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn one_list(parts: Vec<Named>) -> Result<Vec<Case>, MergeError> {
    let mut found: BTreeMap<String, (String, Case)> = BTreeMap::new();
    for (file, part) in parts {
        for case in part.cases {
            match found.entry(case.name.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert((file.clone(), case));
                }
                Entry::Occupied(entry) => {
                    let (other_file, other) = entry.get();
                    if !other.agrees(&case) {
                        return Err(MergeError::Disagree {
                            case: case.name,
                            one: other_file.clone(),
                            class: other.class.to_string(),
                            other: file,
                            other_class: case.class.to_string(),
                        });
                    }
                }
            }
        }
    }
    let mut cases: Vec<Case> = found.into_values().map(|(_, case)| case).collect();
    cases.sort_by(|one, other| order::natural(&one.name, &other.name));
    Ok(cases)
}

fn one_end(ends: &[Option<End>], done: usize) -> Option<End> {
    let ends: Vec<&End> = ends.iter().map(Option::as_ref).collect::<Option<_>>()?;
    Some(End {
        done: done as u64,
        interrupted: ends.iter().any(|end| end.interrupted),
        wall_s: ends.iter().map(|end| end.wall_s).fold(0.0, f64::max),
        budget_hit: ends.iter().find_map(|end| end.budget_hit.clone()),
    })
}
