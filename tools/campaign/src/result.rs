// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a case that was watched to the line of results.

use firebreak_report::{Case as Line, Class, Evidence, Source};
use firebreak_syndrome::{Esr, Iss};

use crate::classify::classify;
use crate::matrix::{self, Case};
use crate::observation::{Observation, Stage};
use crate::plan::{Plan, What};
use crate::rig::Watched;

/// So many of one sort of evidence say enough.
const MOST_OF_A_SORT: usize = 8;

/// Judges a case, and writes down how one knows.
pub(crate) fn line(
    plan: &Plan,
    case: &Case,
    ras_visible: bool,
    watched: Watched,
    command: &str,
) -> Line {
    let Watched {
        observer,
        reset,
        wall,
    } = watched;
    let verdict = classify(&observer.seen);
    let expected = matrix::expected(plan, case);
    let ok = match (&expected, verdict.class) {
        (Some(_), Class::Inconclusive) | (None, _) => None,
        (Some(classes), class) => Some(classes.contains(&class)),
    };
    let esr = syndrome(plan, case, &observer.seen);
    let name = |list: Option<&String>| list.cloned().unwrap_or_default();
    Line {
        name: case.name.clone(),
        guest: name(plan.guests.get(case.guest).map(|one| &one.name)),
        error: name(plan.errors.get(case.error).map(|one| &one.name)),
        moment: name(plan.moments.get(case.moment).map(|one| &one.name)),
        policy: matrix::policy(plan, case).to_owned(),
        firmware: matrix::firmware(plan, case).to_owned(),
        ras_visible,
        repetition: case.repetition,
        class: verdict.class,
        expected,
        ok,
        reason: verdict.reason,
        evidence: evidence(&observer.seen),
        timeline: observer.timeline,
        console: observer.console,
        syndrome: esr.map(|esr| format!("{esr:#x}")),
        syndrome_words: esr.map_or_else(Vec::new, words),
        record: observer.record.and_then(|value| value.as_object().cloned()),
        command: command.to_owned(),
        reset,
        wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
    }
}

/// The syndrome that the guest was given; if it was given none, the one that was asked for.
fn syndrome(plan: &Plan, case: &Case, seen: &Observation) -> Option<u64> {
    let given = seen.life.iter().rev().find_map(|step| step.esr);
    let asked = || match plan.errors.get(case.error).map(|error| &error.what) {
        Some(What::Serror { iss }) => Some(0xbe00_0000 | u64::from(*iss)),
        Some(What::Firmware(error)) if error.sync.is_none() => {
            Some(0xbe00_0000 | u64::from(error.iss))
        }
        _ => None,
    };
    given.or_else(asked)
}

fn words(esr: u64) -> Vec<String> {
    let esr = Esr::from_raw(esr);
    if esr.ec() != firebreak_syndrome::Ec::SERROR {
        return vec![esr.to_string()];
    }
    let iss: Iss = esr.iss();
    vec![
        "SError".to_owned(),
        iss.severity().name().to_owned(),
        iss.decode().to_string(),
    ]
}

fn evidence(seen: &Observation) -> Vec<Evidence> {
    let mut all = Vec::new();
    let mut add = |source: Source, t_ns: Option<u64>, text: String| {
        all.push(Evidence { source, t_ns, text });
    };
    if seen.missed > 0 {
        let missed = seen.missed;
        let text = format!("tried again, as the guest was hit elsewhere ({missed} times)");
        add(Source::Host, None, text);
    }
    if let Some(why) = &seen.host {
        add(Source::Host, None, why.clone());
    }
    for fault in seen.faults.iter().take(MOST_OF_A_SORT) {
        add(Source::Hypervisor, None, fault.clone());
    }
    for step in seen.life.iter().take(MOST_OF_A_SORT) {
        let exact = match (step.stage, step.exact) {
            (Stage::Taken, true) => " (its place is exact)",
            (Stage::Taken, false) => " (its place is a hint)",
            _ => "",
        };
        add(
            Source::Hypervisor,
            Some(step.t_ns),
            format!("{}{exact}", step.text),
        );
    }
    for decided in seen.verdicts.iter().take(MOST_OF_A_SORT) {
        add(Source::Hypervisor, None, decided.clone());
    }
    for list in [
        &seen.reports,
        &seen.panics,
        &seen.task_kills,
        &seen.corruptions,
        &seen.unusual,
    ] {
        for sign in list.iter().take(MOST_OF_A_SORT) {
            add(Source::Guest, None, sign.text.clone());
        }
    }
    for end in seen.machine_reset.iter().chain(&seen.ends) {
        add(Source::Hypervisor, None, end.clone());
    }
    let beats = match (seen.beats, seen.silent) {
        (0, true) => "no sign of life for as long as it may be silent".to_owned(),
        (0, false) => "no sign of life was waited for".to_owned(),
        (beats, _) => format!("{beats} signs of life since the last thing that was done to it"),
    };
    add(Source::Guest, None, beats);
    if let Some(late_ns) = seen.bystander_late_ns {
        let text = format!("the bystander's latest tick came {late_ns} ns late");
        add(Source::Guest, None, text);
    }
    all
}
