// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak campaign merge`: one run of its shards.

use std::path::PathBuf;

use clap::Args;

use super::{read, summary, write};
use crate::Failure;

/// Makes one run of its shards, in whatever order they are named.
///
/// Refuses shards of different plans, builds or seeds, cases that end differently in two of them,
/// and a run of which a shard is missing.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak campaign merge shard-1.jsonl shard-2.jsonl -o all.jsonl
  firebreak campaign merge shard-*.jsonl -o all.jsonl && firebreak campaign report all.jsonl")]
pub(super) struct MergeArgs {
    /// The shards' results
    #[arg(required = true, value_name = "RESULTS")]
    shards: Vec<PathBuf>,
    /// Where the results of the whole run go
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Writes the summary as one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &MergeArgs) -> Result<String, Failure> {
    let mut parts = Vec::new();
    for path in &args.shards {
        parts.push((path.display().to_string(), read(path, args.json)?));
    }
    for warning in firebreak_report::warnings(&parts) {
        eprintln!("firebreak: {warning}");
    }
    let merged = firebreak_report::merge(parts);
    let merged = merged.map_err(|error| Failure::told(error.to_string(), args.json))?;
    let bytes = merged.to_bytes();
    let bytes = bytes.map_err(|error| Failure::text(format!("no JSON: {error}")))?;
    write(&args.output, &bytes)?;
    Ok(summary(&merged, args.json))
}
