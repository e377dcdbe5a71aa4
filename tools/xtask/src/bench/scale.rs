// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures once more with more partitions configured: what a partition costs the others.
//!
//! The others stay stopped, each on a PE of its own. What is measured is what the hypervisor does
//! more because they are there.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use firebreak_abi::MAX_PARTITIONS;
use firebreak_qemu::{Machine, Mark, deadline};
use serde::Serialize;

use super::{Figure, restart, run_guest, sei};
use crate::process::step;
use crate::{image, paths};

/// PEs of the machine, whatever the number of partitions.
const PES: u32 = MAX_PARTITIONS as u32;

/// What is measured of a machine: the rows of the table by name, and their titles.
const ROWS: [(&str, &str); 16] = [
    ("hvc_psci_version", "HVC PSCI_VERSION"),
    ("hvc_unknown", "HVC with an unknown function"),
    ("gicd_typer_read", "GICD_TYPER read"),
    ("gicr_isenabler0_read", "GICR_ISENABLER0 read"),
    ("gicr_isenabler0_write", "GICR_ISENABLER0 write"),
    ("sgi_self", "SGI to self, to handler"),
    ("vtimer", "virtual timer expiry to handler"),
    ("vtimer_wfi", "the same, guest in WFI"),
    ("uart_status_read", "emulated UART status read"),
    (
        "sei_to_verdict",
        "SEI vector to verdict published and acked",
    ),
    (
        "sei_to_guest_vector",
        "SEI vector to the guest's SError vector",
    ),
    ("queue_publish", "queue: publish a record with 1 in it"),
    ("restart_small", "restart of a small partition, not cleared"),
    (
        "scrub_bytes_per_1000",
        "bytes cleared in 1,000 instructions",
    ),
    ("boot_to_guest", "boot to the guest's first instruction"),
    ("pool_free", "free frames of the pool, of 4 KiB"),
];

/// The figures with so many partitions.
#[derive(Serialize)]
pub(super) struct Scale {
    partitions: usize,
    results: Vec<Figure>,
}

/// Measures with each of these numbers of partitions.
pub(super) fn measure(counts: &[usize]) -> Result<Vec<Scale>> {
    counts
        .iter()
        .map(|count| {
            ensure!(
                (1..=MAX_PARTITIONS).contains(count),
                "there are 1 to {MAX_PARTITIONS} partitions, not {count}"
            );
            step(format!("bench: {count} partition(s)"));
            Ok(Scale {
                partitions: *count,
                results: figures(*count)?,
            })
        })
        .collect()
}

fn figures(count: usize) -> Result<Vec<Figure>> {
    let others = others(count);
    let bench = "[[partition]]\nname = \"bench\"\nvcpus = 1\npes = [0]\nmemory = \"16 MiB\"\n\
                 image = \"guests/bench.bin\"\nwatchdog = false\n\
                 restart = { on_reset = false, on_silence = false, limit = 0 }\n";
    let path = build(&format!("scale-{count}"), bench, &others)?;
    let mut figures = run_guest(path.clone(), PES)?;
    figures.push(pool_free(path)?);
    let victim = "[[partition]]\nname = \"victim\"\nvcpus = 1\npes = [0]\nmemory = \"16 MiB\"\n\
                  image = \"guests/victim.bin\"\nwatchdog = false\n\
                  [partition.on_error]\nueo = \"inject\"\n";
    let name = format!("scale-sei-{count}");
    figures.extend(sei::measure_in(
        &build(&name, victim, &others)?,
        &name,
        PES,
    )?);
    figures.extend(restart::measure_with(&others, PES)?);
    Ok(figures)
}

/// The board of a machine with more PEs than QEMU has by default.
fn eight() -> PathBuf {
    paths::workspace().join("tests/qemu/systems/boards/eight.toml")
}

/// The system's section of a partition file for a machine with so many PEs.
pub(super) fn system(pes: u32) -> String {
    let board = match pes {
        0..=4 => "qemu-virt".to_owned(),
        _ => eight().display().to_string(),
    };
    format!("[system]\nboard = \"{board}\"\ncontrol = true\n")
}

/// The partitions beside the one that is measured.
fn others(count: usize) -> String {
    (1..count)
        .map(|pe| {
            format!(
                "\n[[partition]]\nname = \"other-{pe}\"\nvcpus = 1\npes = [{pe}]\n\
                 memory = \"16 MiB\"\nimage = \"guests/victim.bin\"\nautostart = false\n"
            )
        })
        .collect()
}

fn build(name: &str, measured: &str, others: &str) -> Result<PathBuf> {
    let manifest = paths::out().join(format!("bench-{name}.toml"));
    let text = format!("{}\n{measured}{others}", system(PES));
    fs::write(&manifest, text).with_context(|| manifest.display().to_string())?;
    let path = paths::out().join(format!("bench-{name}.img"));
    image::build(&manifest, &path)?;
    Ok(path)
}

/// Asks a running system how many frames of the pool nobody has.
fn pool_free(path: PathBuf) -> Result<Figure> {
    let mut machine = Machine::new(path).smp(PES).icount(true).start()?;
    machine.wait_for("the guest", Mark::START, deadline(120), |record| {
        record.event("started").is_some()
    })?;
    let mark = machine.mark();
    machine.send_command(1, "stats")?;
    let answer = machine.wait_for("the answer to `stats`", mark, deadline(120), |record| {
        record.event("answer").is_some()
    })?;
    let free = answer
        .event("answer")
        .and_then(|event| event.num("pool_free"));
    let free = free.context("an answer to `stats` without `pool_free`")?;
    Ok(Figure {
        operation: "pool_free".to_owned(),
        median: free,
        min: free,
        max: free,
        unit: "frames",
    })
}

/// Shows the medians side by side.
pub(super) fn table(scales: &[Scale]) -> String {
    let mut text = format!("{:42}", "operation (instructions), by partitions");
    for scale in scales {
        text.push_str(&format!(" {:>9}", scale.partitions));
    }
    text.push('\n');
    for (operation, title) in ROWS {
        text.push_str(&format!("{title:42}"));
        for scale in scales {
            let figure = scale
                .results
                .iter()
                .find(|figure| figure.operation == operation);
            let median = figure.map_or_else(|| "-".to_owned(), |figure| figure.median.to_string());
            text.push_str(&format!(" {median:>9}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_eight_partitions_were_measured_on_a_board_of_four_pes() {
        let text = fs::read_to_string(eight()).unwrap();
        let board: toml::Table = text.parse().unwrap();
        let pes = board["pes"].as_array().unwrap().len();
        assert_eq!(pes, PES as usize);
        assert!(system(PES).contains("eight.toml") && system(1).contains("qemu-virt"));
    }

    #[test]
    fn each_other_partition_has_a_pe_of_its_own_and_stays_stopped() {
        assert_eq!(others(1), "");
        let seven = others(8);
        assert_eq!(seven.matches("autostart = false").count(), 7);
        for pe in 1..8 {
            assert_eq!(seven.matches(&format!("pes = [{pe}]")).count(), 1, "{pe}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused_before_anything_runs() {
        for count in [0, 9] {
            assert!(measure(&[count]).is_err());
        }
    }

    #[test]
    fn the_table_has_a_column_for_each_number() {
        let scale = |partitions, median| Scale {
            partitions,
            results: vec![Figure {
                operation: "hvc_psci_version".to_owned(),
                median,
                min: median,
                max: median,
                unit: "instructions",
            }],
        };
        let text = table(&[scale(1, 76), scale(8, 77)]);
        let row = text
            .lines()
            .find(|line| line.starts_with("HVC PSCI"))
            .unwrap();
        assert!(row.ends_with("        76        77"), "{row}");
        assert_eq!(text.lines().count(), ROWS.len() + 1);
    }
}
