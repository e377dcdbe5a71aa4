// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak campaign compare`: what changed from one run to another.

use std::path::PathBuf;

use clap::Args;

use super::{read, write};
use crate::Failure;

/// Says what changed from one run to another: cases that are new or gone, that end otherwise, or
/// that are judged otherwise.
///
/// Exit status 1 when something got worse.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak campaign compare before.jsonl after.jsonl -o changes.html
  firebreak campaign compare before.jsonl after.jsonl --json | jq '.changes[] | select(.worse)'")]
pub(super) struct CompareArgs {
    /// The results that one has known
    before: PathBuf,
    /// The results of now
    after: PathBuf,
    /// Writes a page (HTML) that shows both side by side
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Writes one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CompareArgs) -> Result<String, Failure> {
    let (before, after) = (
        read(&args.before, args.json)?,
        read(&args.after, args.json)?,
    );
    let comparison = firebreak_report::compare(&before, &after);
    if let Some(path) = &args.output {
        let page = firebreak_report::html_compare(&before, &after);
        let page = page.map_err(|error| Failure::text(format!("no page: {error}")))?;
        write(path, page.as_bytes())?;
    }
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
