// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts the instructions of what guests ask for most, and shows them beside the peers' figures.
//!
//! Under `-icount shift=0,sleep=off` with a counter of 1 GHz a tick is an instruction, so the
//! guest's own readings are exact, and the same each time for the same toolchain and image.

mod beside;
mod peers;
mod restart;
mod scale;
mod sei;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use firebreak_qemu::{Machine, Mark, deadline};
use object::{Object, ObjectSection};
use serde::Serialize;
use serde_json::json;

use self::peers::Peers;
use crate::process::step;
use crate::{build, image, paths};

/// Measures the hypervisor's core operations in instructions, and shows them beside the peers'.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench                          print the table
  cargo xtask bench --json bench.json        and write the figures as JSON
  cargo xtask bench --json tests/bench/latest.json     renew the committed ones, and README.md
  cargo xtask bench --partitions 1,2,4,8     with so many partitions configured")]
pub(crate) struct Args {
    /// Writes {"results":[{"operation","median","min","max","unit"}]}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Measures with so many partitions configured instead, and shows the medians side by side. As
    /// JSON: {"partitions":[{"partitions":N,"results":[..]}]}.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    partitions: Vec<usize>,
}

/// What was measured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Figure {
    operation: String,
    median: u64,
    min: u64,
    max: u64,
    unit: &'static str,
}

/// A row of the table, and what is to be reached.
struct Row {
    operation: &'static str,
    title: &'static str,
    reach: Option<u64>,
}

const fn row(operation: &'static str, title: &'static str, reach: Option<u64>) -> Row {
    Row {
        operation,
        title,
        reach,
    }
}

/// What is shown, in this order.
const ROWS: [Row; 25] = [
    row("hvc_psci_version", "HVC PSCI_VERSION", Some(80)),
    row("gicd_typer_read", "GICD_TYPER read", Some(130)),
    row("gicr_isenabler0_write", "GICR_ISENABLER0 write", Some(200)),
    row("sgi_self", "SGI to self, to handler", Some(220)),
    row("vtimer", "virtual timer expiry to handler", Some(110)),
    row("uart_status_read", "emulated UART status read", Some(180)),
    row(
        "boot_to_guest",
        "boot to the guest's first instruction",
        Some(250_000),
    ),
    row(
        "image_bytes",
        "hypervisor text + rodata, bytes",
        Some(98_304),
    ),
    row("hvc_unknown", "HVC with an unknown function", None),
    row("smc_psci_version", "SMC PSCI_VERSION", None),
    row("gicr_isenabler0_read", "GICR_ISENABLER0 read", None),
    row("vtimer_wfi", "the same, guest in WFI", None),
    row("ipi", "SGI to another vCPU, both PEs together", None),
    row(
        "sei_to_verdict",
        "SEI vector to verdict published and acked",
        Some(600),
    ),
    row(
        "sei_to_guest_vector",
        "SEI vector to the guest's SError vector",
        Some(1000),
    ),
    row(
        "queue_publish",
        "queue: publish a record with 1 in it",
        Some(120),
    ),
    row("queue_publish_1000", "the same with 1,000 in it", Some(120)),
    row(
        "masking_cost_hvc",
        "what the masking-safe scheme costs an HVC",
        Some(12),
    ),
    row(
        "restart_small",
        "restart of a small partition, not cleared",
        Some(100_000),
    ),
    row(
        "scrub_bytes_per_1000",
        "bytes cleared in 1,000 instructions",
        None,
    ),
    row(
        "tick_alone",
        "lateness of a 1 kHz guest's ticks, alone",
        None,
    ),
    row("tick_linux_boots", "the same, while Linux boots", None),
    row("tick_linux_runs", "the same, while Linux runs", None),
    row("tick_linux_panics", "the same, while Linux panics", None),
    row(
        "tick_linux_restarts",
        "the same, while Linux is started again",
        None,
    ),
];

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    crate::setup::run(&crate::setup::Args::unattended())?;
    build::hypervisor()?;
    build::guests()?;
    if !args.partitions.is_empty() {
        build::firmware()?;
        let scales = scale::measure(&args.partitions)?;
        print!("{}", scale::table(&scales));
        return write_json(args, &json!({ "partitions": scales }));
    }
    step("bench: one guest on one PE");
    let mut figures = measure("bench", 1)?;
    step("bench: one guest on two PEs");
    figures.extend(
        measure("bench-ipi", 2)?
            .into_iter()
            .filter(|figure| figure.operation == "ipi"),
    );
    figures.push(masking_cost(&figures)?);
    step("bench: SEIs, instruction by instruction");
    build::firmware()?;
    figures.extend(sei::measure()?);
    step("bench: restarts");
    figures.extend(restart::measure()?);
    step("bench: ticks of a guest that is alone");
    figures.extend(beside::measure()?);
    figures.push(image_bytes(&build::hypervisor_elf())?);
    print!("{}", table(&figures, &Peers::read()?));
    write_json(args, &json!({ "results": figures }))?;
    let committed = paths::workspace().join("tests/bench/latest.json");
    if let Some(path) = &args.json
        && path.canonicalize().ok() == committed.canonicalize().ok()
    {
        peers::renew_readme()?;
    }
    let missing: Vec<&str> = ROWS
        .iter()
        .map(|row| row.operation)
        .filter(|name| !figures.iter().any(|figure| figure.operation == *name))
        .collect();
    if !missing.is_empty() {
        bail!("the bench guest did not measure {}", missing.join(", "));
    }
    Ok(())
}

fn write_json(args: &Args, value: &serde_json::Value) -> Result<()> {
    let Some(path) = &args.json else {
        return Ok(());
    };
    fs::write(path, format!("{value:#}\n")).with_context(|| path.display().to_string())
}

/// Measures a hypercall once more in a build without the masking-safe scheme.
fn masking_cost(with: &[Figure]) -> Result<Figure> {
    const CALL: &str = "hvc_psci_version";
    let feature = "without-masking-scheme";
    let hypervisor = paths::out().join(format!("hypervisor-{feature}.bin"));
    build::featured_hypervisor(feature, &hypervisor)?;
    let path = paths::out().join("bench-baseline.img");
    image::build_with(&image::test_manifest("bench"), &path, Some(&hypervisor))?;
    let without = run_guest(path, 1)?;
    let median = |figures: &[Figure]| {
        let found = figures.iter().find(|figure| figure.operation == CALL);
        found
            .map(|figure| figure.median)
            .context("no hypercall was measured")
    };
    let cost = median(with)?.saturating_sub(median(&without)?);
    Ok(Figure {
        operation: "masking_cost_hvc".to_owned(),
        median: cost,
        min: cost,
        max: cost,
        unit: "instructions",
    })
}

fn measure(system: &str, pes: u32) -> Result<Vec<Figure>> {
    let path = paths::out().join(format!("{system}.img"));
    image::build(&image::test_manifest(system), &path)?;
    run_guest(path, pes)
}

fn run_guest(path: PathBuf, pes: u32) -> Result<Vec<Figure>> {
    let machine = Machine::new(path).smp(pes).icount(true).start()?;
    let lines = machine.wait_until("`bench: done`", Mark::START, deadline(300), |records| {
        let lines: Vec<String> = records
            .iter()
            .filter_map(|record| record.line("bench"))
            .map(str::to_owned)
            .collect();
        lines
            .iter()
            .any(|line| line == "bench: done")
            .then_some(lines)
    })?;
    Ok(lines.iter().filter_map(|line| figure(line)).collect())
}

/// Reads `bench: op=<name> n=<samples> min=.. median=.. max=..`.
fn figure(line: &str) -> Option<Figure> {
    let words = line.strip_prefix("bench: op=")?;
    let (operation, rest) = words.split_once(' ')?;
    let number = |key: &str| {
        let mut words = rest.split(' ');
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
    };
    Some(Figure {
        operation: operation.to_owned(),
        median: number("median")?,
        min: number("min")?,
        max: number("max")?,
        unit: "instructions",
    })
}

/// Adds up the sections of the linked hypervisor that hold code and constants.
fn image_bytes(elf: &Path) -> Result<Figure> {
    let bytes = fs::read(elf).with_context(|| elf.display().to_string())?;
    let file = object::File::parse(&*bytes).with_context(|| elf.display().to_string())?;
    let is_counted = |name: &str| name.starts_with(".text") || name.starts_with(".rodata");
    let sum: u64 = file
        .sections()
        .filter(|section| section.name().is_ok_and(is_counted))
        .map(|section| section.size())
        .sum();
    let operation = "image_bytes".to_owned();
    Ok(Figure {
        operation,
        median: sum,
        min: sum,
        max: sum,
        unit: "bytes",
    })
}

fn table(figures: &[Figure], peers: &Peers) -> String {
    let mut text = format!(
        "{:42} {:>9} {:>9} {:>9} {:>9}  {}\n",
        "operation (instructions)",
        "median",
        "min",
        "max",
        "reach",
        peers.names()
    );
    for row in &ROWS {
        let reach = row
            .reach
            .map_or_else(|| "-".to_owned(), |reach| reach.to_string());
        let Some(figure) = figures
            .iter()
            .find(|figure| figure.operation == row.operation)
        else {
            text.push_str(&format!("{:42} not measured\n", row.title));
            continue;
        };
        let missed = row
            .reach
            .and_then(|reach| figure.median.checked_sub(reach))
            .filter(|by| *by != 0);
        let missed = missed.map_or_else(String::new, |by| format!("  missed by {by}"));
        text.push_str(&format!(
            "{:42} {:>9} {:>9} {:>9} {reach:>9}  {}{missed}\n",
            row.title,
            figure.median,
            figure.min,
            figure.max,
            peers.words(row.operation)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_guest_is_a_figure() {
        let figure = figure("bench: op=sgi_self n=2000 min=1 median=2 max=30").unwrap();
        assert_eq!(
            (
                figure.operation.as_str(),
                figure.min,
                figure.median,
                figure.max
            ),
            ("sgi_self", 1, 2, 30)
        );
        for other in [
            "bench: done",
            "bench: skip op=ipi reason=x",
            "bench: op=x n=1 min=1",
        ] {
            assert_eq!(super::figure(other), None, "{other}");
        }
    }

    #[test]
    fn the_table_says_what_is_missed_and_what_was_not_measured() {
        let figure = |operation: &str, median| Figure {
            operation: operation.to_owned(),
            median,
            min: median,
            max: median,
            unit: "instructions",
        };
        let figures = [figure("hvc_psci_version", 80), figure("sgi_self", 230)];
        let text = table(&figures, &Peers::read().unwrap());
        assert!(text.contains("missed by 10"), "{text}");
        assert_eq!(text.matches("missed by").count(), 1);
        assert_eq!(text.matches("not measured").count(), ROWS.len() - 2);
    }

    #[test]
    fn the_committed_figures_have_the_names_of_the_table() {
        let path = paths::workspace().join("tests/bench/latest.json");
        let value: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let names: Vec<&str> = value["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| result["operation"].as_str().unwrap())
            .collect();
        for row in &ROWS {
            assert!(names.contains(&row.operation), "{}", row.operation);
        }
    }
}
