// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak campaign compare`: what changed from one run to another.

use std::path::PathBuf;

use clap::Args;

use super::read;
use crate::Failure;

/// Says what changed from one run to another: cases that are new or gone, that end otherwise, or
/// that are judged otherwise.
///
/// Exit status 1 when something got worse.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak campaign compare before.jsonl after.jsonl
  firebreak campaign compare before.jsonl after.jsonl --json | jq '.changes[] | select(.worse)'")]
pub(super) struct CompareArgs {
    /// The results that one has known
    before: PathBuf,
    /// The results of now
    after: PathBuf,
    /// Writes one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CompareArgs) -> Result<String, Failure> {
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let comparison = firebreak_report::compare(&before, &after);
    let text = if args.json {
        format!("{:#}\n", serde_json::json!(comparison))
    } else {
        comparison.text()
    };
    if comparison.worse {
        return Err(Failure {
            stdout: text,
            stderr: String::new(),
        });
    }
    Ok(text)
}
