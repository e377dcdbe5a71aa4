// SPDX-License-Identifier: MIT OR Apache-2.0
//! What contributors type: `cargo xtask setup`, `build`, `demo`, `test`, `bench`, `sweep`,
//! `fuzz`, `storm`, `campaign`, `check`.
//!
//! Each command does all that it needs, in order, and says what it does; nothing has to be
//! remembered between two of them. Exit codes: 0 all well, 1 something failed, 2 the command
//! line or the machine cannot be used (and what to do about it is printed).
#![forbid(unsafe_code)]

mod bench;
mod build;
mod campaign;
mod check;
mod demo;
#[cfg(test)]
mod documents;
mod fuzz;
mod generated;
mod image;
mod layers;
mod licenses;
mod map;
mod paths;
mod process;
mod setup;
mod storm;
mod suite;
mod sweep;
mod targets;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, shows, tests and measures Firebreak.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    Build(build::Args),
    Demo(demo::Args),
    Check(check::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Storm(storm::Args),
    Campaign(campaign::Args),
    Test(suite::Args),
    Sweep(sweep::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Storm(args) => storm::run(&args),
        Command::Campaign(args) => campaign::run(&args),
        Command::Test(args) => suite::run(&args),
        Command::Sweep(args) => sweep::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<process::Unusable>() {
                2
            } else {
                1
            })
        }
    }
}
