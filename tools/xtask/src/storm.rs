// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storm of errors on the machine, and what firmware, hypervisor and host counted.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use firebreak_qemu::{Machine, Mark, Storm, StormAccount, deadline};
use serde_json::json;

use crate::process::step;
use crate::{build, image, paths};

/// PE of the system `two` that takes the errors.
const PE: u8 = 1;

/// Sends a storm of corrected errors through firmware, hypervisor and host, and adds up.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask storm                       a million errors
  cargo xtask storm --count 50000         fewer
  cargo xtask storm --json storm.json     and write the three accounts as JSON

Ends with exit code 0 only if no error was lost and none counted twice.")]
pub(crate) struct Args {
    /// How many errors.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Writes {"count","seconds","account":{...}}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    crate::setup::run(&crate::setup::Args::unattended())?;
    build::hypervisor()?;
    build::guests()?;
    build::firmware()?;
    let path = paths::out().join("storm.img");
    image::build(&image::test_manifest("two"), &path)?;
    let mut machine = Machine::new(path)
        .firmware(build::firmware_image())
        .smp(2)
        .start()?;
    let boot = Duration::from_secs(120);
    machine.wait_for("the victim", Mark::START, boot, |record| {
        record
            .line("victim")
            .is_some_and(|line| line.starts_with("victim: alive"))
    })?;
    let storm = Storm::corrected(args.count, PE);
    step(format!("storm: {} errors on PE {PE}", args.count));
    let started = Instant::now();
    machine.send_firmware(&storm.to_string())?;
    // A machine that manages no more than 500 errors a second has another problem.
    let patience = deadline(300 + args.count / 500);
    let account = machine.wait_until("the closed accounts", Mark::START, patience, |records| {
        StormAccount::read(records, &storm)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    print!("{}", table(&account));
    println!("{} errors in {seconds:.1} s", args.count);
    if let Some(path) = &args.json {
        let value = json!({ "count": args.count, "seconds": seconds, "account": account });
        fs::write(path, format!("{value:#}\n")).with_context(|| path.display().to_string())?;
    }
    account
        .check(&storm)
        .map_err(|text| anyhow!("the accounts do not agree: {text}"))
}

fn table(account: &StormAccount) -> String {
    let StormAccount {
        raised,
        delivered,
        taken,
        acked,
        dropped,
        published,
        finished,
        refused,
        events,
        suppressed,
        others,
    } = account;
    format!(
        "firmware     raised {raised}, by SEI {delivered}, pulled by EL2 {taken}, acknowledged {acked}, \
         dropped {dropped}\n\
         hypervisor   published {published}, worked off {finished}, refused at first {refused}\n\
         host         events {events} + suppressed {suppressed} = {}, other errors {others}\n",
        events + suppressed
    )
}
