// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the restart of a small partition costs, and the clearing of its memory in it.
//!
//! Measured by the hypervisor's own clock, from its `restart` event to its `started` event, in two
//! systems that differ in the partition's memory alone: what grows with it is the clearing.

use std::fs;

use anyhow::{Context, Result, ensure};
use firebreak_qemu::{Machine, Mark, deadline};

use super::{Figure, scale};
use crate::{image, paths};

/// Memory of the partition, in MiB.
const SIZES: [u64; 2] = [6, 12];
/// Restarts that are measured with each.
const SAMPLES: u64 = 5;

/// Measures `restart_small`, in instructions without the clearing, and `scrub`, in bytes for 1,000
/// instructions.
pub(super) fn measure() -> Result<Vec<Figure>> {
    measure_with("", 1)
}

/// Measures them beside other partitions, as the partition file describes them.
pub(super) fn measure_with(others: &str, pes: u32) -> Result<Vec<Figure>> {
    let [small, large] = SIZES.map(|size| instructions(size, others, pes));
    let (small, large) = (small?, large?);
    let grown = large
        .iter()
        .zip(&small)
        .map(|(large, small)| large.saturating_sub(*small));
    let mut grown: Vec<u64> = grown.collect();
    grown.sort_unstable();
    let more_bytes = (SIZES[1] - SIZES[0]) << 20;
    let per_more = *grown.get(grown.len() / 2).context("nothing was measured")?;
    ensure!(per_more > 0, "more memory did not take longer to clear");
    // What the small partition's own memory takes, by the same rate.
    let cleared = per_more * SIZES[0] / (SIZES[1] - SIZES[0]);
    let mut rest: Vec<u64> = small
        .iter()
        .map(|ticks| ticks.saturating_sub(cleared))
        .collect();
    rest.sort_unstable();
    let mut rate: Vec<u64> = grown
        .iter()
        .map(|ticks| more_bytes * 1000 / (*ticks).max(1))
        .collect();
    rate.sort_unstable();
    Ok(vec![
        figure("restart_small", &rest, "instructions")?,
        figure("scrub_bytes_per_1000", &rate, "bytes/1000 instructions")?,
    ])
}

fn figure(operation: &str, sorted: &[u64], unit: &'static str) -> Result<Figure> {
    let at = |index: usize| sorted.get(index).copied().context("nothing was measured");
    Ok(Figure {
        operation: operation.to_owned(),
        median: at(sorted.len() / 2)?,
        min: at(0)?,
        max: at(sorted.len().saturating_sub(1))?,
        unit,
    })
}

/// Restarts a partition by commands, and returns how long each took.
fn instructions(memory_mib: u64, others: &str, pes: u32) -> Result<Vec<u64>> {
    let name = format!("bench-restart-{memory_mib}");
    let manifest = paths::out().join(format!("{name}.toml"));
    let text = format!(
        "{}\n[[partition]]\nname = \"victim\"\nvcpus = 1\npes = [0]\n\
         memory = \"{memory_mib} MiB\"\nimage = \"guests/victim.bin\"\nwatchdog = false\n{others}",
        scale::system(pes)
    );
    fs::write(&manifest, text).with_context(|| manifest.display().to_string())?;
    let path = paths::out().join(format!("{name}.img"));
    image::build(&manifest, &path)?;
    let mut machine = Machine::new(path).smp(pes).icount(true).start()?;
    let ready = |record: &firebreak_qemu::Record| {
        let line = record.line("victim");
        line.is_some_and(|line| line.starts_with("victim: ready"))
    };
    machine.wait_for("the guest", Mark::START, deadline(120), ready)?;
    let mut all = Vec::new();
    for id in 1..=SAMPLES {
        let mark = machine.mark();
        machine.send_command(id, "restart victim")?;
        let time = |event: &'static str| {
            let record = machine.wait_for(event, mark, deadline(120), |record| {
                record.event(event).is_some()
            })?;
            let at = record.event(event).and_then(|event| event.num("t"));
            at.context("an event without a time")
        };
        all.push(time("started")?.saturating_sub(time("restart")?));
        machine.wait_for("the guest again", mark, deadline(120), ready)?;
    }
    Ok(all)
}
