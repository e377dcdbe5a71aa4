// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong between the parts of a plan.

use std::collections::BTreeSet;

use firebreak_image::Problem;

use super::{Address, Place, Plan, What};
use crate::matrix;

/// Finds what cannot work, once each part can be read.
pub(super) fn check(plan: &Plan) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |message: String, remedy: &str| {
        let span = plan
            .source
            .text()
            .find(message.split('"').nth(1).unwrap_or("\0"));
        let span = span.map_or(0..0, |at| at..at + 1);
        problems.push(Problem::error(&plan.source, span, message, "here", remedy));
    };
    for (what, empty) in [
        ("[[guest]]", plan.guests.is_empty()),
        ("[[error]]", plan.errors.is_empty()),
        ("[[moment]]", plan.moments.is_empty()),
    ] {
        if empty {
            wrong(
                format!("the plan has no {what}"),
                "add one; docs/campaigns.md has examples",
            );
        }
    }
    let guests: BTreeSet<&str> = plan.guests.iter().map(|one| one.name.as_str()).collect();
    for (what, names) in [
        (
            "guest",
            plan.guests.iter().map(|one| &one.name).collect::<Vec<_>>(),
        ),
        ("error", plan.errors.iter().map(|one| &one.name).collect()),
        ("moment", plan.moments.iter().map(|one| &one.name).collect()),
        (
            "policy",
            plan.policies.iter().map(|one| &one.name).collect(),
        ),
    ] {
        let mut seen = BTreeSet::new();
        for name in names {
            if name.is_empty() || name.contains(['/', '*', '|', ' ']) {
                wrong(
                    format!(
                        "the {what} \"{name}\" has a name that cannot be part of a case's name"
                    ),
                    "use letters, digits and hyphens",
                );
            }
            if !seen.insert(name) {
                wrong(
                    format!("there are two of the {what} \"{name}\""),
                    "give each its own name",
                );
            }
        }
    }
    let restricted = plan.errors.iter().flat_map(|one| &one.guests);
    let restricted = restricted.chain(plan.moments.iter().flat_map(|one| &one.guests));
    for name in restricted.chain(plan.patterns.iter().flat_map(|one| &one.guests)) {
        if !guests.contains(name.as_str()) {
            wrong(
                format!("there is no guest \"{name}\""),
                "name one of the plan's guests",
            );
        }
    }
    check_needs(plan, &mut wrong);
    if problems.is_empty() {
        problems = check_expectations(plan);
    }
    problems
}

/// What needs the firmware, or an ELF file.
fn check_needs(plan: &Plan, wrong: &mut impl FnMut(String, &str)) {
    let all_firmware = plan.guests.iter().all(|guest| guest.firmware);
    if !all_firmware && plan.firmware.iter().any(|mode| mode != "conforming") {
        wrong(
            "the firmware is to misbehave, but not every guest has firmware".to_owned(),
            "write firmware = true at each guest",
        );
    }
    for guest in &plan.guests {
        let for_it = |names: &[String]| names.is_empty() || names.contains(&guest.name);
        for error in plan.errors.iter().filter(|error| for_it(&error.guests)) {
            let What::Firmware(firmware) = &error.what else {
                continue;
            };
            if !guest.firmware {
                wrong(
                    format!("the error \"{}\" needs firmware", error.name),
                    "write firmware = true at the guest, or guests = [...] at the error",
                );
            }
            if matches!(firmware.place, Place::Symbol(..)) && guest.symbols.is_none() {
                wrong(
                    format!("the error \"{}\" names a symbol", error.name),
                    "write symbols = \"guest.elf\" at the guest",
                );
            }
        }
        for moment in plan.moments.iter().filter(|moment| for_it(&moment.guests)) {
            if matches!(moment.at, Some(Address::Symbol(_))) && guest.symbols.is_none() {
                wrong(
                    format!("the moment \"{}\" names a symbol", moment.name),
                    "write symbols = \"guest.elf\" at the guest",
                );
            }
        }
    }
}

/// An expectation that is about no case is a typing mistake.
fn check_expectations(plan: &Plan) -> Vec<Problem> {
    let cases = matrix::expand(plan);
    let dead = plan.expectations.iter().filter(|expectation| {
        !cases
            .iter()
            .any(|case| matrix::is_about(plan, expectation, case))
    });
    dead.map(|expectation| {
        Problem::error(
            &plan.source,
            expectation.span.clone(),
            "this expectation is about no case of the plan",
            "matches nothing",
            "correct the names; `firebreak campaign PLAN --dry-run --list` shows all cases",
        )
    })
    .collect()
}
