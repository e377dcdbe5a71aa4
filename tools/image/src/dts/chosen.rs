// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/chosen`: what concerns the system, and the partitions below.

use super::domain;
use super::tree::{Node, Property};
use crate::diagnostic::{Problem, Source};
use crate::document::{At, Entry, Value, nearest};
use crate::fields::SYSTEM;

/// Turns `/chosen` into the tables of a partition file. Everything beside it is the board's.
pub(super) fn entries(root: &Node, source: &Source, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let Some(chosen) = root.child("chosen") else {
        problems.push(Problem::error(
            source,
            root.span.clone(),
            "there is no node /chosen, which describes the partitions",
            "in this tree",
            "add `chosen { ... };` with a node for each partition (docs/partitions.md)",
        ));
        return Vec::new();
    };
    let system = chosen
        .properties
        .iter()
        .filter_map(|property| system_entry(property, source, problems))
        .collect();
    let partitions = chosen
        .children
        .iter()
        .filter_map(|child| partition(child, source, problems))
        .collect();
    [
        ("system", Value::Table(system)),
        ("partition", Value::List(partitions)),
    ]
    .map(|(key, value)| Entry {
        key: At {
            value: key.to_owned(),
            span: chosen.span.clone(),
        },
        value: At {
            value,
            span: chosen.span.clone(),
        },
    })
    .into()
}

fn system_entry(
    property: &Property,
    source: &Source,
    problems: &mut Vec<Problem>,
) -> Option<Entry> {
    let name = property.name.as_str();
    if let Some(field) = SYSTEM.iter().find(|field| field.property == name) {
        return domain::entry(field, property, source, problems);
    }
    // The rest is a bootloader's notice board, but what speaks to a hypervisor speaks to us.
    let remedy = match name {
        "xen,xen-bootargs" => "remove it: Firebreak has no command line",
        "xen,dom0-bootargs" => "remove it: there is no dom0; make each guest a node of its own",
        _ if name.starts_with("xen,") => "remove it: Firebreak does not know what it asks for",
        _ if name.starts_with("firebreak,") => {
            let known: Vec<_> = SYSTEM.iter().map(|field| field.property).collect();
            problems.push(domain::unknown(property, "/chosen", &known, source));
            return None;
        }
        _ => return None,
    };
    problems.push(Problem::error(
        source,
        property.span.clone(),
        format!("`{name}` is not supported"),
        "not supported",
        remedy,
    ));
    None
}

fn partition(child: &Node, source: &Source, problems: &mut Vec<Problem>) -> Option<At<Value>> {
    let compatible = child.compatible();
    let is = |word: &str| compatible.iter().any(|one| one == word);
    if is("firebreak,domain") || is("xen,domain") {
        let before = problems.len();
        let value = domain::table(child, source, problems);
        let span = child.span.clone();
        // What lacks something because it is wrong would be told of twice.
        return (problems.len() == before).then_some(At { value, span });
    }
    let prefixes = ["xen,", "multiboot,", "firebreak,"];
    let speaks = compatible
        .iter()
        .find(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))?;
    let span = child
        .property("compatible")
        .map_or(child.span.clone(), |property| property.value_span.clone());
    if let Some(word) = domain::kept_for_later(speaks) {
        let at = At {
            value: speaks.clone(),
            span,
        };
        problems.push(crate::document::not_yet(source, &at, word));
        return None;
    }
    let remedy = match nearest(speaks, &["firebreak,domain", "xen,domain"]) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if speaks.starts_with("multiboot,") || speaks.ends_with("-zimage") => {
            "there is no dom0: put it into a node with compatible = \"xen,domain\"".to_owned()
        }
        None => "remove it, or make it a partition: compatible = \"xen,domain\"".to_owned(),
    };
    problems.push(Problem::error(
        source,
        span,
        format!("\"{speaks}\" is nothing that may stand in /chosen"),
        "not supported",
        remedy,
    ));
    None
}
