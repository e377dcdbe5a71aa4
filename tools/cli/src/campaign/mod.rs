// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak campaign`: what guests do with errors, case by case, and what one makes of it.

mod compare;
mod merge;
mod report;

use std::path::Path;

use clap::{Args, Subcommand};
use firebreak_report::Results;

use crate::Failure;

/// Shows, compares and merges the results of campaigns.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct CampaignArgs {
    #[command(subcommand)]
    command: CampaignCommand,
}

#[derive(Subcommand)]
enum CampaignCommand {
    Report(report::ReportArgs),
    Compare(compare::CompareArgs),
    Merge(merge::MergeArgs),
}

pub(crate) fn run(args: &CampaignArgs) -> Result<String, Failure> {
    match &args.command {
        CampaignCommand::Report(args) => report::run(args),
        CampaignCommand::Compare(args) => compare::run(args),
        CampaignCommand::Merge(args) => merge::run(args),
    }
}

/// Reads results, and says on standard error what of them cannot be read.
fn read(path: &Path) -> Result<Results, Failure> {
    let results = firebreak_report::read_file(path);
    let results = results.map_err(|error| Failure::text(error.to_string()))?;
    if !results.left_out.is_nothing() {
        eprintln!("firebreak: {}: {}", path.display(), results.left_out);
    }
    Ok(results)
}

fn write(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, contents).map_err(|error| {
        let path = path.display();
        Failure::text(format!("{path} cannot be written: {error}; choose another"))
    })
}
