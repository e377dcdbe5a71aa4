// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak campaign report`: results for people, and for what shows test results.

use std::path::PathBuf;

use clap::Args;

use super::{read, summary, write};
use crate::Failure;

/// Shows the results of a campaign, whole or not: as text, as one page that needs
/// nothing else, and as JUnit XML.
///
/// Exit status 0 whatever the results are.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak campaign report linux-serror.jsonl
  firebreak campaign report linux-serror.jsonl -o linux-serror.html
  firebreak campaign report linux-serror.jsonl --junit linux-serror.xml
  firebreak campaign report linux-serror.jsonl --json | jq .classes")]
pub(super) struct ReportArgs {
    /// The results (JSON Lines, as `firebreak campaign` writes them)
    results: PathBuf,
    /// Writes the page (HTML)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Writes JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Writes the summary as one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReportArgs) -> Result<String, Failure> {
    let results = read(&args.results, args.json)?;
    if let Some(path) = &args.output {
        let page = firebreak_report::html(&results);
        let page = page.map_err(|error| Failure::text(format!("no page: {error}")))?;
        write(path, page.as_bytes())?;
    }
    if let Some(path) = &args.junit {
        let xml = firebreak_report::junit(&results);
        let xml = xml.map_err(|error| Failure::text(format!("no JUnit XML: {error}")))?;
        write(path, xml.as_bytes())?;
    }
    Ok(summary(&results, args.json))
}
