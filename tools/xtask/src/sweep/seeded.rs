// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults that the hypervisor can be built with, each of which the sweep has to find.

use std::path::Path;

use anyhow::{Context, Result, bail};
use firebreak_qemu::{Machine, Mark, Raise, Record, Storm, deadline};

use super::hit::{strike_all, strike_chosen};
use super::paths::{Kind, Mode, PATHS};
use super::select::Extent;
use super::symbols::Symbols;
use super::{HYPERVISOR_BASE, Job, machine, system_of};
use crate::process::step;
use crate::{build, image, paths};

/// Features of the hypervisor, and the errors by which each shows.
const SEEDS: [(&str, &[Kind]); 3] = [
    ("seed-elr-saved-late", &[Kind::Ueo]),
    ("seed-no-rewind", &[Kind::Ueo]),
    // By its report alone, and by what is done to the partition beside it.
    ("seed-wrong-partition", &[Kind::Ueo, Kind::Uer]),
];
/// Where each shows.
const PATH: &str = "hvc";

/// Shows where the queue is full: only there is anything lost by it.
const ACK_BEFORE_PUBLISH: &str = "seed-ack-before-publish";
/// Errors that fill the queue of 16 many times over.
const STORM: u64 = 3_000;
/// PE of the partition that takes them, and its name.
const VICTIM: (u8, &str) = (1, "victim");
/// How long anything of the storm may take, in seconds.
const PATIENCE_S: u64 = 120;

/// Builds each, sweeps, and fails for the one that stays hidden.
pub(super) fn run() -> Result<()> {
    acknowledged_too_early()?;
    let guest = Symbols::read(&paths::out().join("guests/sweep.elf"), 0)?;
    let path = PATHS
        .iter()
        .find(|path| path.name == PATH)
        .context("the path of the seeded faults is gone")?;
    for (feature, kinds) in SEEDS {
        let to = machine::dir().join(feature);
        let elf = build::featured_hypervisor(feature, &to)?;
        let symbols = Symbols::read(&elf, HYPERVISOR_BASE)?;
        for kind in kinds {
            let job = (path, Mode::Conforming, *kind);
            let line = first_finding(job, &to, &symbols, &guest)
                .with_context(|| format!("{feature}, {}", kind.name()))?;
            step(format!("sweep: {feature} is found: {line}"));
        }
    }
    Ok(())
}

/// Sweeps, and returns the first line of what was found; fails when nothing is.
fn first_finding(job: Job<'_>, to: &Path, symbols: &Symbols, guest: &Symbols) -> Result<String> {
    // What does not even come up without any error is a broken build, and no finding.
    let targets = machine::Swept::boot(job.0, system_of(job.0, job.2), Some(to))?
        .trace(guest, symbols)
        .context("it does not run")?;
    // A guest that dies of it ends the sweep early, which finds it as well.
    let row = if job.2.is_severe() {
        strike_chosen(job, Extent::Labels, Some(to), &targets, symbols)
    } else {
        strike_all(job, Some(to), &targets, symbols)
    };
    let found = match row {
        Ok(row) => row.failures,
        Err(error) => vec![format!("{error:#}")],
    };
    let Some(first) = found.first() else {
        bail!("the sweep does not find this fault");
    };
    Ok(first.lines().next().unwrap_or_default().to_owned())
}

/// A record that the firmware was told is safe, and that the full queue then refused.
fn acknowledged_too_early() -> Result<()> {
    let to = machine::dir().join(ACK_BEFORE_PUBLISH);
    build::featured_hypervisor(ACK_BEFORE_PUBLISH, &to)?;
    let (acked, finished) = storm(&to)?;
    if finished >= acked {
        bail!("{ACK_BEFORE_PUBLISH}: the storm does not find this fault: {finished} of {acked}");
    }
    step(format!(
        "sweep: {ACK_BEFORE_PUBLISH} is found: {acked} acknowledged, {finished} worked off"
    ));
    Ok(())
}

/// Storms at a partition that is being cleared for its restart, so that nobody empties the queue:
/// the same as `storm::a_full_queue_acknowledges_nothing_and_loses_nothing`, which passes without
/// the fault. Returns how many the firmware saw acknowledged, and how many EL2 worked off.
fn storm(hypervisor: &Path) -> Result<(u64, u64)> {
    let to = machine::dir().join("storm.img");
    image::build_with(&image::test_manifest("slow-restart"), &to, Some(hypervisor))?;
    let mut machine = Machine::new(to)
        .firmware(build::firmware_image())
        .smp(2)
        .icount(true)
        .start()?;
    let alive = |record: &Record| {
        record
            .line(VICTIM.1)
            .is_some_and(|line| line.starts_with("victim: alive"))
    };
    machine.wait_for("the victim", Mark::START, deadline(PATIENCE_S), alive)?;
    machine.send_raise(&Raise::new(9, VICTIM.0, 0x0411, "recoverable").in_guest())?;
    machine.wait_for("its end", Mark::START, deadline(PATIENCE_S), |record| {
        record.event("killed").is_some()
    })?;
    let storm = Storm::corrected(STORM, VICTIM.0).every_ticks(2_000);
    machine.send_firmware(&storm.to_string())?;
    let account = machine.wait_until(
        "a quiet queue",
        Mark::START,
        deadline(PATIENCE_S),
        |records| {
            let over = records
                .iter()
                .position(|record| record.firmware("storm").is_some())?;
            // The partition lives again: all that was in the queue has been worked off by then.
            let lives = records.iter().skip(over).filter(|record| alive(record));
            let queue = records
                .iter()
                .filter_map(|record| record.event("queue"))
                .rfind(|event| event.num("pe") == Some(u64::from(VICTIM.0)))?;
            if lives.count() < 3 || queue.num("pending")? != 0 {
                return None;
            }
            let acked = records.get(over)?.firmware("storm")?.num("acked")?;
            // What ended the partition was no part of the storm.
            Some((acked, queue.num("finished")?.saturating_sub(1)))
        },
    )?;
    machine.quit();
    Ok(account)
}
