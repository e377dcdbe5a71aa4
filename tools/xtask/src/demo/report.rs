// SPDX-License-Identifier: MIT OR Apache-2.0
//! The closing table, and the same for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::cases::Case;
use super::judge::{Control, Judgement};

/// Everything that the demo found.
pub(crate) struct Outcome {
    /// Each case and what came of it.
    pub(crate) cases: Vec<(Case, Judgement)>,
    /// What the control guest measured.
    pub(crate) control: Control,
}

impl Outcome {
    /// Says whether all is as told.
    pub(crate) fn is_ok(&self) -> bool {
        self.cases.len() == Case::ALL.len()
            && self.cases.iter().all(|(_, judgement)| judgement.is_ok())
            && self.control.missed == 0
            && self.control.is_whole
    }

    /// Returns the closing table.
    pub(crate) fn table(&self) -> String {
        let width = |column: fn(&(Case, Judgement)) -> usize, title: &str| {
            self.cases
                .iter()
                .map(column)
                .max()
                .unwrap_or(0)
                .max(title.len())
        };
        let error = width(|(case, _)| case.title().len(), "error");
        let verdict = width(|(_, judgement)| judgement.verdict.len(), "verdict");
        let name = width(|(case, _)| case.name().len(), "case");
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{:name$}  {:error$}  {:verdict$}  {:6}  guest's reaction",
            "case", "error", "verdict", ""
        );
        for (case, judgement) in &self.cases {
            let ok = if judgement.is_ok() { "ok" } else { "FAILED" };
            let reaction = if judgement.is_ok() {
                &judgement.reaction
            } else {
                "not as told:"
            };
            let _ = writeln!(
                text,
                "{:name$}  {:error$}  {:verdict$}  {ok:6}  {reaction}",
                case.name(),
                case.title(),
                judgement.verdict,
            );
            for missing in &judgement.missing {
                let _ = writeln!(text, "{:name$}    {missing}", "");
            }
        }
        let Control {
            ticks,
            missed,
            jitter_max_ns,
            is_whole,
        } = self.control;
        let _ = writeln!(
            text,
            "control: {missed} missed ticks (of {ticks} at 1 kHz, latest start {jitter_max_ns} ns late)"
        );
        if !is_whole {
            text.push_str("control: its reports are not whole, so the number proves nothing\n");
        }
        text
    }

    /// Returns the same as JSON.
    pub(crate) fn json(&self) -> Value {
        let cases: Vec<Value> = self
            .cases
            .iter()
            .map(|(case, judgement)| {
                json!({
                    "name": case.name(),
                    "verdict": judgement.verdict,
                    "reaction": judgement.reaction,
                    "ok": judgement.is_ok(),
                })
            })
            .collect();
        json!({ "cases": cases, "control_missed_ticks": self.control.missed })
    }
}
