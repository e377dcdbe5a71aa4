// SPDX-License-Identifier: MIT OR Apache-2.0
//! From what was seen to a class. A pure function; `docs/campaigns.md` has its rules in words.
//!
//! The rules are tried in this order, and the first that fits decides:
//! 1. the host failed, or the hypervisor did;
//! 2. the error was not raised, or what was seen contradicts itself: inconclusive;
//! 3. how the guest ended, if it ended;
//! 4. whether the error reached it, and what it made of it.

use firebreak_report::Class;

use crate::observation::{Observation, Raised, Sign, Stage};

/// A class, and the rule that decided, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// Why.
    pub reason: String,
}

fn verdict(class: Class, reason: impl Into<String>) -> Verdict {
    Verdict {
        class,
        reason: reason.into(),
    }
}

/// Judges what was seen.
pub fn classify(seen: &Observation) -> Verdict {
    if let Some(fault) = seen.faults.first() {
        return verdict(
            Class::HypervisorFault,
            format!("the hypervisor is at fault: {fault}"),
        );
    }
    if let Some(why) = &seen.host {
        return verdict(Class::Inconclusive, format!("the host failed: {why}"));
    }
    match &seen.raised {
        Raised::Yes => {}
        Raised::Unknown => {
            return verdict(Class::Inconclusive, "nobody said that the error was raised");
        }
        Raised::Refused(why) => {
            return verdict(
                Class::Inconclusive,
                format!("the error was not raised: {why}"),
            );
        }
    }
    if let Some(why) = contradiction(seen) {
        return verdict(Class::Inconclusive, why);
    }
    ended(seen).unwrap_or_else(|| went_on(seen))
}

/// Finds evidence that does not fit together.
fn contradiction(seen: &Observation) -> Option<String> {
    let delivered = seen.delivered();
    let spoke = seen.reports.first().or(seen.panics.first());
    if let (false, Some(sign)) = (delivered, spoke) {
        return Some(format!(
            "the guest speaks of an error (\"{}\"), and the hypervisor gave it none",
            sign.text
        ));
    }
    if let Some(why) = wrong_syndrome(seen) {
        return Some(why);
    }
    if let Some(why) = broken_promise(seen) {
        return Some(why);
    }
    if let (Some(panic), true, true) = (seen.panics.first(), seen.alive(), seen.ends.is_empty()) {
        return Some(format!(
            "the guest goes on after its last words (\"{}\")",
            panic.text
        ));
    }
    None
}

/// Each syndrome that the guest reports must be one that it was given.
fn wrong_syndrome(seen: &Observation) -> Option<String> {
    let given = seen
        .life
        .iter()
        .filter(|step| matches!(step.stage, Stage::Taken | Stage::Deferred | Stage::Gone));
    let given: Vec<Option<u64>> = given.map(|step| step.esr).collect();
    if given.contains(&None) {
        return None;
    }
    let told = |sign: &Sign| sign.esr;
    let mut reported = seen.reports.iter().chain(&seen.panics).filter_map(told);
    let wrong = reported.find(|esr| !given.contains(&Some(*esr)))?;
    let given: Vec<String> = given
        .iter()
        .flatten()
        .map(|esr| format!("{esr:#x}"))
        .collect();
    Some(format!(
        "the guest reports the syndrome {wrong:#x}, and was given {}",
        given.join(", ")
    ))
}

/// How far from the address of a moment the guest may be.
const NEAR_BYTES: u64 = 4096;

/// Says whether the guest was hit elsewhere than where the moment says.
pub(crate) fn misses_its_place(seen: &Observation) -> bool {
    matches!(seen.raised, Raised::Yes) && seen.host.is_none() && wrong_place(seen).is_some()
}

fn wrong_place(seen: &Observation) -> Option<String> {
    let taken = seen.life.iter().find(|step| step.stage == Stage::Taken)?;
    if let (Some(wanted), Some(el)) = (seen.promise.el, taken.el)
        && el != wanted
    {
        return Some(format!(
            "the moment is at EL{wanted}, and the guest was hit at EL{el}"
        ));
    }
    let (near, pc) = (seen.promise.near?, taken.pc?);
    (near.abs_diff(pc) > NEAR_BYTES).then(|| {
        format!("the moment is near {near:#x}, and the guest was hit at {pc:#x}: somebody else ran")
    })
}

/// The guest must have been where the moment says.
fn broken_promise(seen: &Observation) -> Option<String> {
    let first = seen.life.first()?;
    let waited = first.stage == Stage::Pending;
    // Nothing masks an external abort.
    let is_serror = first.esr.is_none_or(|esr| esr >> 26 == 0x2f);
    match seen.promise.masked.filter(|_| is_serror) {
        Some(true) if !waited => {
            return Some("the moment masks SError, and the error did not wait".to_owned());
        }
        Some(false) if waited => {
            return Some("the moment leaves SError unmasked, and the error waited".to_owned());
        }
        _ => {}
    }
    wrong_place(seen)
}

/// The guest ended.
fn ended(seen: &Observation) -> Option<Verdict> {
    if let Some(panic) = seen.panics.first() {
        let reason = format!("its last words are \"{}\"", panic.text);
        return Some(verdict(Class::Panicked, reason));
    }
    if let Some(why) = &seen.machine_reset {
        let reason = format!("the whole machine was reset: {why}");
        return Some(verdict(Class::Rebooted, reason));
    }
    if let Some(end) = seen.ends.first() {
        let reason = format!("its partition ended without a word of the guest: {end}");
        return Some(verdict(Class::Rebooted, reason));
    }
    if seen.flooded {
        let reason = "the guest prints more than can be read, so nobody knows whether it goes on";
        return Some(verdict(Class::Inconclusive, reason));
    }
    if !seen.alive() {
        return Some(if seen.silent {
            verdict(
                Class::Hung,
                "it neither ended nor gave a sign of life for as long as it may be silent",
            )
        } else {
            verdict(Class::Inconclusive, "nobody knows whether it goes on")
        });
    }
    None
}

/// The guest goes on.
fn went_on(seen: &Observation) -> Verdict {
    if !seen.delivered() {
        return undelivered(seen);
    }
    if let Some(kill) = seen.task_kills.first() {
        let reason = format!("a task ended (\"{}\"), and the guest goes on", kill.text);
        return verdict(Class::TaskKilled, reason);
    }
    if let Some(report) = seen.reports.first() {
        let reason = format!("it reports the error (\"{}\") and goes on", report.text);
        return verdict(Class::RecoveredAndLogged, reason);
    }
    if let Some(bad) = seen.corruptions.first() {
        let reason = format!("its data are not what they were (\"{}\")", bad.text);
        return verdict(Class::CorruptedSilently, reason);
    }
    if let Some(line) = seen.unusual.first() {
        let reason = format!("it goes on, and says \"{}\"", line.text);
        return verdict(Class::RecoveredAndLogged, reason);
    }
    verdict(
        Class::SurvivedSilently,
        "it took the error, goes on, and says nothing of it",
    )
}

/// The guest never got it.
fn undelivered(seen: &Observation) -> Verdict {
    if let Some(bad) = seen.corruptions.first() {
        let reason = format!(
            "it got no error, and its data are not what they were (\"{}\")",
            bad.text
        );
        return verdict(Class::CorruptedSilently, reason);
    }
    match seen.life.last().map(|step| step.stage) {
        Some(Stage::Pending | Stage::Merged) => verdict(
            Class::NotDelivered,
            "the error waits, and the guest goes on with SError masked",
        ),
        Some(Stage::Cancelled) => verdict(
            Class::Inconclusive,
            "the error was canceled, and the guest did not end",
        ),
        _ => match seen.verdicts.first() {
            Some(decided) => verdict(
                Class::NotDelivered,
                format!("the hypervisor keeps it from the guest: {decided}"),
            ),
            None => verdict(
                Class::Inconclusive,
                "the error was raised, and nobody tells what became of it",
            ),
        },
    }
}

#[cfg(test)]
mod tests;
