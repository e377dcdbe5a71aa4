// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak campaign`: what guests do with errors, case by case, and what one makes of it.

mod compare;
mod merge;
mod plan;
mod report;

use std::path::Path;

use clap::{Args, Subcommand};
use firebreak_report::Results;

use crate::Failure;

/// Hits guests by errors, as a plan says, and tells what became of them.
///
/// Each case starts from the same point, and has a name by which it can be run alone. Results are
/// JSON Lines; Ctrl-C keeps what is done, and --resume goes on. The commands show, compare and merge
/// results.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  firebreak campaign tests/campaigns/baremetal-all-syndromes.toml --dry-run
  firebreak campaign tests/campaigns/linux-serror.toml -o linux.jsonl --jobs 2
  firebreak campaign tests/campaigns/linux-serror.toml -o linux.jsonl --resume
  firebreak campaign tests/campaigns/linux-serror.toml -o one.jsonl --case ueo/kernel/visible/0
  firebreak campaign report linux.jsonl -o linux.html
  firebreak campaign compare before.jsonl after.jsonl
  firebreak campaign merge shard-1.jsonl shard-2.jsonl -o all.jsonl

Exit status: 0 each case is as expected, 1 one is not, or has no result, or it could not run, 2 wrong
command line.")]
pub(crate) struct CampaignArgs {
    #[command(flatten)]
    plan: plan::PlanArgs,
    #[command(subcommand)]
    command: Option<CampaignCommand>,
}

#[derive(Subcommand)]
enum CampaignCommand {
    Report(report::ReportArgs),
    Compare(compare::CompareArgs),
    Merge(merge::MergeArgs),
}

pub(crate) fn run(args: &CampaignArgs) -> Result<String, Failure> {
    match &args.command {
        None => plan::run(&args.plan),
        Some(CampaignCommand::Report(args)) => report::run(args),
        Some(CampaignCommand::Compare(args)) => compare::run(args),
        Some(CampaignCommand::Merge(args)) => merge::run(args),
    }
}

/// Reads results, and says on standard error what of them cannot be read.
fn read(path: &Path, json: bool) -> Result<Results, Failure> {
    let results = firebreak_report::read_file(path);
    let results = results.map_err(|error| Failure::told(error.to_string(), json))?;
    if !results.left_out.is_nothing() {
        eprintln!("firebreak: {}: {}", path.display(), results.left_out);
    }
    Ok(results)
}

/// Says how many cases came to what.
fn summary(results: &Results, json: bool) -> String {
    if json {
        return format!("{:#}\n", firebreak_report::summary_json(results));
    }
    firebreak_report::text(results)
}

fn write(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, contents).map_err(|error| {
        let path = path.display();
        Failure::text(format!("{path} cannot be written: {error}; choose another"))
    })
}
