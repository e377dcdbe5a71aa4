// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fourth level of SEIs, each of which interrupted the one before: the machine is reset there.
//!
//! The first finds EL2 on its way to the guest. The others are brought by firmware that barges in,
//! each when the one before reaches the same instruction (`nest=`). The point strikes in what the
//! fourth one then runs, which makes a fifth. Whatever it hits there, the machine must be reset by
//! EL2, once, with a record that the next boot reads.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use firebreak_qemu::Record;

use super::Job;
use super::expect::By;
use super::machine::{Swept, System};
use super::paths::{Kind, Path, path};
use super::report::{Lost, Row};
use super::select::{self, Extent};
use super::symbols::Symbols;
use super::targets::Targets;
use super::trace::{self, Level, Step};

/// Levels that the firmware opens before the point strikes.
const LEVELS: usize = 4;

/// Each strikes in the prologue of the one before, on SP_EL2.
pub(super) const IN_PROLOGUE: Path = Path {
    round: "hvc",
    label: "hvc",
    barge_in_only: true,
    ..path("sei_fourth", "hvc", false)
};
/// Each strikes at the start of the handler of the one before, on SP_EL0.
pub(super) const IN_HANDLER: Path = Path {
    name: "sei_fourth_handler",
    ..IN_PROLOGUE
};

/// Says whether a path is one of these.
pub(super) fn is_one(path: &Path) -> bool {
    [IN_PROLOGUE.name, IN_HANDLER.name].contains(&path.name)
}

/// Returns where the errors strike that open the levels.
fn nest(path: &Path, symbols: &Symbols) -> Result<[u64; LEVELS]> {
    let again = if path.name == IN_PROLOGUE.name {
        symbols.address("firebreak_window_sei_esr")?
    } else {
        symbols.address("firebreak_sei_el2")?
    };
    // Some instruction of the way to the guest, behind the look at what there is to do.
    let first = symbols.address("firebreak_window_exit_start")? + 4 * 8;
    Ok([first, again, again, again])
}

/// Sweeps the path. Its boundaries are those in a window, and the ends of each function on the way
/// to the reset: each costs a boot.
pub(super) fn sweep(job: Job<'_>, symbols: &Symbols) -> Result<Row> {
    let (path, mode, kind) = job;
    let nest = nest(path, symbols)?;
    let mut machine = Swept::boot(path, System::Alone, None)?;
    machine.behave(mode)?;
    // Never reached: the fourth level does not come back.
    let never = symbols.address("firebreak_window_sei_tail")?;
    let executed = fourth_level(&machine.trace_nest(kind, &nest, never)?, symbols)?;
    let targets = Targets {
        offsets: executed.values().copied().collect(),
        executed,
        in_guest: [].into(),
    };
    let chosen = select::choose(&targets, symbols, Kind::Uer, Extent::Functions);
    let mut failures = Vec::new();
    let mut lost = Vec::new();
    for address in chosen.keys() {
        let records = machine.nest(kind, &nest, *address)?;
        let boundary = symbols.name(*address);
        let problems = problems(&records, *address, kind);
        failures.extend(
            problems
                .into_iter()
                .map(|what| format!("{boundary}: {what}")),
        );
        lost.push(Lost {
            boundary,
            loss: "machine".to_owned(),
        });
    }
    Ok(Row {
        path: path.name.to_owned(),
        mode: mode.name().to_owned(),
        error: kind.name().to_owned(),
        boundaries: lost.len(),
        of: targets.executed.len(),
        points: lost.len(),
        nothing_lost: 0,
        vm_lost: 0,
        machine_lost: lost.len(),
        longest_masked: None,
        lost,
        failures,
        seconds: 0,
    })
}

/// Returns the addresses that the fourth level executes, up to the call that resets the machine.
fn fourth_level(steps: &[Step], symbols: &Symbols) -> Result<BTreeMap<u64, u64>> {
    let vectors = [
        symbols.address("firebreak_window_sei_el2t_start")?,
        symbols.address("firebreak_window_sei_el2h_start")?,
    ];
    let is_entry = |step: &Step| step.level == Level::El2 && vectors.contains(&step.pc);
    let entries: Vec<usize> = (0..steps.len())
        .filter(|index| steps.get(*index).is_some_and(is_entry))
        .collect();
    let start = entries
        .get(LEVELS - 1)
        .with_context(|| format!("{} levels were opened", entries.len()))?;
    let part = steps.get(*start..).unwrap_or(&[]);
    let end = part.iter().position(|step| step.level != Level::El2);
    Ok(trace::executed(part, 0..end.unwrap_or(part.len())))
}

/// Says what must not be about one strike.
fn problems(records: &[Record], address: u64, kind: Kind) -> Vec<String> {
    let mut problems = Vec::new();
    let points: Vec<Option<u64>> = records
        .iter()
        .filter_map(|record| Some(record.firmware("point")?.num("elr")))
        .collect();
    if points != [Some(address)] {
        problems.push(format!("struck at {points:x?}"));
    }
    let of = |verb: &str| {
        let lines = records.iter().filter_map(|record| record.firmware(verb));
        lines.collect::<Vec<_>>()
    };
    let delivered = of("delivered");
    let in_el2 = delivered
        .iter()
        .all(|line| line.text("from") == Some("el2"));
    if delivered.len() != LEVELS + 1 || !in_el2 {
        problems.push(format!(
            "{} handed over, all in EL2: {in_el2}",
            delivered.len()
        ));
    }
    let resets: Vec<Option<&str>> = of("reset").iter().map(|line| line.text("reason")).collect();
    if resets != [Some("fatal-call")] {
        problems.push(format!("resets: {resets:?}"));
    }
    let told: Vec<(Option<&str>, Option<u64>)> = records
        .iter()
        .filter_map(|record| record.event("boot-error-record"))
        .map(|event| (event.text("source"), event.hex("iss")))
        .collect();
    let wanted = (Some(By::Hypervisor.name()), Some(u64::from(kind.iss())));
    if told != [wanted] {
        problems.push(format!("boot error records: {told:x?}"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use Level::{El2, El3, Guest};

    #[test]
    fn what_the_fourth_entry_runs_is_the_fourth_level() {
        let symbols = Symbols::of(&[
            ("firebreak_window_sei_el2t_start", 0x180),
            ("firebreak_window_sei_el2h_start", 0x380),
        ]);
        let level = [(0x380, El2), (0x384, El2), (0, El3)];
        let trace: Vec<Step> = [(0x380, Guest)]
            .into_iter()
            .chain(level.repeat(3))
            .chain([(0x180, El2), (0x200, El2), (0, El3), (0x204, El2)])
            .map(|(pc, level)| Step { pc, level })
            .collect();
        let executed = fourth_level(&trace, &symbols).unwrap();
        assert_eq!(executed, [(0x180, 0), (0x200, 1)].into());
        assert!(fourth_level(&trace[..9], &symbols).is_err());
    }

    const GOOD: [&str; 8] = [
        "fw: delivered id=7 pe=0 from=el2 vector=0x380 elr=0x1",
        "fw: delivered id=7 pe=0 from=el2 vector=0x380 elr=0x1",
        "fw: delivered id=7 pe=0 from=el2 vector=0x380 elr=0x1",
        "fw: delivered id=7 pe=0 from=el2 vector=0x380 elr=0x1",
        "fw: point id=6 pe=0 at=0 elr=0x40 spsr=0x3c9",
        "fw: delivered id=6 pe=0 from=el2 vector=0x380 elr=0x40",
        "fw: reset reason=fatal-call",
        "{\"v\":1,\"t\":1,\"ev\":\"boot-error-record\",\"source\":\"hypervisor\",\"iss\":\"0x811\"}",
    ];

    #[test]
    fn each_line_that_is_missing_or_comes_twice_is_a_problem() {
        let problems = |lines: &[&str]| {
            let records: Vec<Record> = lines.iter().map(|line| Record::parse(line)).collect();
            problems(&records, 0x40, Kind::Ueo).len()
        };
        assert_eq!(problems(&GOOD), 0);
        for (index, line) in GOOD.iter().enumerate() {
            let mut lines = GOOD.to_vec();
            lines.remove(index);
            assert_eq!(problems(&lines), 1, "without {line}");
            let mut lines = GOOD.to_vec();
            lines.insert(index, line);
            assert_eq!(problems(&lines), 1, "twice {line}");
        }
    }
}
