// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts the instructions of an SEI's way, from the firmware's ERET on, in a trace of QEMU's.
//!
//! No guest can read when EL3 left, so the guest's clock is no use here. QEMU executes one
//! instruction at a time and logs each program counter; what is counted is what ran between two
//! of them. Addresses are those of the linked hypervisor, moved to where the image was loaded.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use firebreak_qemu::{Machine, Mark, Raise, deadline};
use object::{Object, ObjectSymbol};

use super::Figure;
use crate::{build, image, paths};

/// Where the reference firmware expects the image: the hypervisor is linked at 0.
const IMAGE_PA: u64 = 0x4020_0000;
/// What the firmware runs from.
const FIRMWARE: std::ops::Range<u64> = 0x0e00_0000..0x0e10_0000;
/// An SEI from a guest whose EL1 is AArch64 enters EL2 here.
const LOWER_SERROR: u64 = 0x580;
/// A guest at EL1 with its own stack pointer takes a virtual SError here.
const GUEST_SERROR: u64 = 0x380;
/// Restartable: the policy of the system passes it on to its guest.
const UEO: u32 = 0x0811;
/// SEIs that are measured.
const SAMPLES: u64 = 9;

/// The program counters between which instructions are counted.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// First instruction of EL2's vector.
    vector: u64,
    /// The SEI handler is done: the verdict is in the queue and the record is acknowledged.
    handled: u64,
    /// ERET to the guest.
    exit: u64,
    /// First instruction of the guest's own vector.
    guest_vector: u64,
}

/// Measures `sei_to_verdict` and `sei_to_guest_vector`.
pub(super) fn measure() -> Result<Vec<Figure>> {
    let name = "bench-sei";
    let path = paths::out().join(format!("{name}.img"));
    image::build(&image::test_manifest(name), &path)?;
    measure_in(&path, name, 1)
}

/// Measures them in an image whose partition `victim` lives on PE 0.
pub(super) fn measure_in(path: &Path, name: &str, pes: u32) -> Result<Vec<Figure>> {
    let places = places(&build::hypervisor_elf(), &build::guest_elf("victim"))?;
    let log = paths::out().join(format!("{name}.trace"));
    run(path, &log, pes)?;
    let mut trace = BufReader::new(File::open(&log).context("opening QEMU's trace")?);
    let (verdict, guest) = count(&mut trace, &places)?;
    // Some hundred megabytes that nobody needs any more.
    std::fs::remove_file(&log).with_context(|| log.display().to_string())?;
    Ok(vec![
        summary("sei_to_verdict", verdict)?,
        summary("sei_to_guest_vector", guest)?,
    ])
}

fn places(hypervisor: &Path, guest: &Path) -> Result<Places> {
    let vectors = symbol(hypervisor, "firebreak_vectors")?;
    let handled = symbol(hypervisor, "firebreak_window_entry_serror_end")?;
    let exit_end = symbol(hypervisor, "firebreak_window_exit_end")?;
    Ok(Places {
        vector: IMAGE_PA + vectors + LOWER_SERROR,
        handled: IMAGE_PA + handled,
        exit: IMAGE_PA + exit_end - 4,
        guest_vector: symbol(guest, "guest_vectors")? + GUEST_SERROR,
    })
}

/// Returns the value of a symbol.
fn symbol(elf: &Path, name: &str) -> Result<u64> {
    let bytes = std::fs::read(elf).with_context(|| elf.display().to_string())?;
    let file = object::File::parse(&*bytes).with_context(|| elf.display().to_string())?;
    file.symbols()
        .find(|symbol| symbol.name() == Ok(name))
        .map(|symbol| symbol.address())
        .ok_or_else(|| anyhow!("{}: no symbol {name}", elf.display()))
}

/// Runs the machine with its trace in `log`, and raises one error after the other.
fn run(image: &Path, log: &Path, pes: u32) -> Result<()> {
    let filter = format!(
        "{IMAGE_PA:#x}..{:#x},{:#x}..{:#x}",
        IMAGE_PA + 0x10_0000,
        FIRMWARE.start,
        FIRMWARE.end
    );
    let log = log.to_str().context("a directory whose name is no UTF-8")?;
    let mut machine = Machine::new(image)
        .firmware(build::firmware_image())
        .smp(pes)
        .icount(true)
        .args(["-accel", "tcg,one-insn-per-tb=on", "-d", "exec,nochain"])
        .args(["-dfilter", &filter, "-D", log])
        .start()?;
    machine.wait_for("`victim: alive`", Mark::START, deadline(120), |record| {
        record
            .line("victim")
            .is_some_and(|line| line.starts_with("victim: alive"))
    })?;
    for id in 1..=SAMPLES {
        let mark = machine.mark();
        machine.send_raise(&Raise {
            in_guest: true,
            ..Raise::new(id, 0, UEO, "recoverable")
        })?;
        machine.wait_for("the victim's SError", mark, deadline(120), |record| {
            record
                .line("victim")
                .is_some_and(|line| line.starts_with("victim: serror"))
        })?;
    }
    machine.quit();
    Ok(())
}

/// Finds each SEI in a trace, and counts the instructions to the two places behind it.
fn count(trace: &mut impl BufRead, places: &Places) -> Result<(Vec<u64>, Vec<u64>)> {
    let (mut verdicts, mut guests) = (Vec::new(), Vec::new());
    let mut before = 0;
    // Instructions since the vector's first, itself included.
    let mut since: Option<u64> = None;
    let mut line = String::new();
    while trace.read_line(&mut line).context("reading QEMU's trace")? != 0 {
        if let Some(pc) = program_counter(&line) {
            // Where the numbers are the same, a guest's address is told apart by what ran before.
            if pc == places.vector && FIRMWARE.contains(&before) {
                since = Some(0);
            }
            if let Some(instructions) = since {
                if pc == places.handled && verdicts.len() == guests.len() {
                    verdicts.push(instructions);
                }
                if pc == places.guest_vector && before == places.exit {
                    guests.push(instructions);
                    since = None;
                }
            }
            since = since.map(|instructions| instructions + 1);
            before = pc;
        }
        line.clear();
    }
    Ok((verdicts, guests))
}

/// Reads the program counter of `Trace 0: 0x7f.. [cs/pc/flags/cflags] symbol`: of PE 0 alone.
fn program_counter(line: &str) -> Option<u64> {
    let inside = line.strip_prefix("Trace 0:")?.split_once('[')?.1;
    u64::from_str_radix(inside.split('/').nth(1)?, 16).ok()
}

fn summary(operation: &str, mut samples: Vec<u64>) -> Result<Figure> {
    samples.sort_unstable();
    let (Some(&min), Some(&max), Some(&median)) = (
        samples.first(),
        samples.last(),
        samples.get(samples.len() / 2),
    ) else {
        bail!("QEMU's trace shows no {operation}: was it run with -d exec,nochain?");
    };
    Ok(Figure {
        operation: operation.to_owned(),
        median,
        min,
        max,
        unit: "instructions",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: Places = Places {
        vector: 0x4020_1580,
        handled: 0x4020_1700,
        exit: 0x4020_1780,
        guest_vector: 0x4020_0b80,
    };

    fn trace(counters: &[u64]) -> String {
        counters
            .iter()
            .map(|pc| format!("Trace 0: 0x7f00 [0000000000000000/{pc:016x}/00000021/ff000201] \n"))
            .collect()
    }

    #[test]
    fn what_runs_between_the_places_is_counted() {
        let text = trace(&[
            0x0e00_0004,
            0x4020_1580,
            0x4020_1584,
            0x4020_1700,
            0x4020_1780,
            0x4020_0b80,
            0x4020_0b84,
        ]);
        let counts = count(&mut text.as_bytes(), &PLACES).unwrap();
        assert_eq!(counts, (vec![2], vec![4]));
    }

    #[test]
    fn a_guest_at_the_vectors_address_is_no_sei() {
        let text = trace(&[0x4020_1000, 0x4020_1580, 0x4020_1700]);
        assert_eq!(
            count(&mut text.as_bytes(), &PLACES).unwrap(),
            (vec![], vec![])
        );
    }

    #[test]
    fn another_pe_is_not_counted() {
        let text = trace(&[
            0x0e00_0004,
            0x4020_1580,
            0x4020_1700,
            0x4020_1780,
            0x4020_0b80,
        ]);
        let other = "Trace 1: 0x7f00 [0000000000000000/0000000040201584/00000021/ff000201] \n";
        let text = text.replacen('\n', &format!("\n{other}"), 3);
        let counts = count(&mut text.as_bytes(), &PLACES).unwrap();
        assert_eq!(counts, (vec![1], vec![3]));
    }

    #[test]
    fn a_trace_without_an_sei_is_an_error_and_no_figure() {
        assert!(summary("sei_to_verdict", Vec::new()).is_err());
    }
}
