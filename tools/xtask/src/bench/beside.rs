// SPDX-License-Identifier: MIT OR Apache-2.0
//! How late the ticks of a 1 kHz guest are: alone, and beside a Linux that boots, runs, panics and
//! starts again.
//!
//! The guest itself reads when its handler begins, and sums up each window of ticks in a line. What
//! the hypervisor and Linux say on the same serial line tells which window fell into which phase.

use std::fs;

use anyhow::{Context, Result, ensure};
use firebreak_qemu::{Machine, Mark, Record, Running, deadline};

use super::Figure;
use crate::process::step;
use crate::{build, image, paths};

/// Ticks in a window.
const WINDOW: u64 = 20;
/// Windows of the phases that last as long as they are let.
const WINDOWS: usize = 25;
/// Number of the partition of Linux.
const LINUX_VM: u8 = 0;
const CONTROL: &str = "control";
const LINUX: &str = "linux";

/// By the virtual clock QEMU runs the PEs in turns. It begins each round with PE 0, where the guest
/// with the ticks is: after a timer fired, that one is looked at before Linux runs on. A timer that
/// nobody sees keeps the turns short besides (as in the demo).
const SHORT_TURNS: [&str; 4] = [
    "-netdev",
    "hubport,id=turns,hubid=0",
    "-object",
    "filter-buffer,id=turns-timer,netdev=turns,queue=rx,interval=100",
];

/// A window of ticks: how late they were, in instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Window {
    min: u64,
    median: u64,
    max: u64,
}

/// Measures `tick_alone` and the same beside Linux.
pub(super) fn measure() -> Result<Vec<Figure>> {
    build::initramfs()?;
    let manifest = paths::out().join("bench-beside.toml");
    let text = format!(
        "[system]\ncontrol = true\n\n\
         [[partition]]\nname = \"{LINUX}\"\nvcpus = 1\npes = [1]\nmemory = \"256 MiB\"\n\
         image = \"kernel/Image\"\ninitramfs = \"initramfs.cpio\"\nautostart = false\n\
         cmdline = \"console=ttyAMA0 panic=-1 loglevel=4 agent.watchdog_s=0\"\n\n\
         [[partition]]\nname = \"{CONTROL}\"\nvcpus = 1\npes = [0]\nmemory = \"16 MiB\"\n\
         image = \"guests/control.bin\"\nwatchdog = false\ncmdline = \"window={WINDOW}\"\n"
    );
    fs::write(&manifest, text).with_context(|| manifest.display().to_string())?;
    let path = paths::out().join("bench-beside.img");
    image::build(&manifest, &path)?;
    let machine = Machine::new(path).smp(2).icount(true).args(SHORT_TURNS);
    let mut machine = machine.start()?;
    phases(&mut machine)?.into_iter().map(figure).collect()
}

/// Lets Linux go through its phases, and returns the windows of each.
fn phases(machine: &mut Running) -> Result<Vec<(&'static str, Vec<Window>)>> {
    let mut all = Vec::new();
    // The first window is that of the guest's own start.
    wait(machine, "the first window", Mark::START, is_window)?;
    all.push(("tick_alone", some(machine)?));

    step("bench: ticks beside a Linux that boots");
    let mark = machine.mark();
    machine.send_command(1, "start linux")?;
    wait(machine, "Linux's start", mark, |one| {
        one.event("started").is_some()
    })?;
    let booting = machine.mark();
    wait(machine, "the agent", booting, is_ready)?;
    all.push(("tick_linux_boots", inside(&machine.since(booting))));
    all.push(("tick_linux_runs", some(machine)?));

    step("bench: ticks beside a Linux that panics and starts again");
    let mark = machine.mark();
    machine.type_into(LINUX_VM, "panic\n")?;
    wait(machine, "the restart", mark, |one| {
        one.event("restart").is_some()
    })?;
    let restarting = machine.mark();
    wait(machine, "Linux's next start", restarting, |one| {
        one.event("started").is_some()
    })?;
    wait(machine, "the next agent", restarting, is_ready)?;
    let records = machine.since(mark);
    let is = |name: &'static str| move |one: &Record| one.event(name).is_some();
    all.push((
        "tick_linux_panics",
        around(&records, |_| true, is("restart")),
    ));
    all.push((
        "tick_linux_restarts",
        around(&records, is("restart"), is("started")),
    ));
    Ok(all)
}

fn wait(
    machine: &Running,
    what: &str,
    mark: Mark,
    wanted: impl FnMut(&Record) -> bool,
) -> Result<Record> {
    Ok(machine.wait_for(what, mark, deadline(300), wanted)?)
}

/// Waits for some windows more, and returns those that began here.
fn some(machine: &Running) -> Result<Vec<Window>> {
    let mark = machine.mark();
    Ok(
        machine.wait_until("windows", mark, deadline(300), |records| {
            let windows = inside(records);
            (windows.len() >= WINDOWS).then_some(windows)
        })?,
    )
}

fn is_ready(record: &Record) -> bool {
    let line = record.line(LINUX);
    line.is_some_and(|line| line.starts_with("agent: ready"))
}

fn is_window(record: &Record) -> bool {
    window(record).is_some()
}

/// Reads `control: window n=.. min=.. median=.. max=..`.
fn window(record: &Record) -> Option<Window> {
    let words = record.line(CONTROL)?.strip_prefix("control: window ")?;
    let number = |key: &str| {
        let mut words = words.split(' ');
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
    };
    Some(Window {
        min: number("min")?,
        median: number("median")?,
        max: number("max")?,
    })
}

/// Windows that began and ended among these records; the first one began before.
fn inside(records: &[Record]) -> Vec<Window> {
    records.iter().filter_map(window).skip(1).collect()
}

/// Windows that overlap with what lies between two records.
fn around(
    records: &[Record],
    begins: impl Fn(&Record) -> bool,
    ends: impl Fn(&Record) -> bool,
) -> Vec<Window> {
    let from = records.iter().position(begins).unwrap_or(records.len());
    let rest = records.get(from..).unwrap_or(&[]);
    let to = rest.iter().position(ends).unwrap_or(rest.len());
    let overlapping = rest.iter().enumerate().filter_map(|(index, record)| {
        let window = window(record)?;
        Some((index, window))
    });
    let mut windows = Vec::new();
    for (index, window) in overlapping {
        windows.push(window);
        // This one holds the end.
        if index > to {
            break;
        }
    }
    windows
}

fn figure((operation, windows): (&'static str, Vec<Window>)) -> Result<Figure> {
    ensure!(
        !windows.is_empty(),
        "no window of ticks fell into {operation}"
    );
    let mut medians: Vec<u64> = windows.iter().map(|window| window.median).collect();
    medians.sort_unstable();
    let of = |value: Option<u64>| value.context("no window");
    Ok(Figure {
        operation: operation.to_owned(),
        median: of(medians.get(medians.len() / 2).copied())?,
        min: of(windows.iter().map(|window| window.min).min())?,
        max: of(windows.iter().map(|window| window.max).max())?,
        unit: "instructions",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Record {
        Record::Line {
            name: CONTROL.to_owned(),
            text: text.to_owned(),
        }
    }

    fn ticks(median: u64) -> Record {
        line(&format!("control: window n=20 min=1 median={median} max=9"))
    }

    fn medians(windows: &[Window]) -> Vec<u64> {
        windows.iter().map(|window| window.median).collect()
    }

    #[test]
    fn a_window_that_began_before_a_phase_is_not_inside_of_it() {
        let records = [
            ticks(1),
            line("control: ticks=1000 missed=0"),
            ticks(2),
            ticks(3),
        ];
        assert_eq!(medians(&inside(&records)), [2, 3]);
    }

    #[test]
    fn a_short_phase_has_the_windows_that_hold_a_part_of_it() {
        let (begin, end) = (line("begin"), line("end"));
        let is = |text: &'static str| move |one: &Record| one.line(CONTROL) == Some(text);
        let whole = [ticks(1), begin.clone(), end.clone(), ticks(2), ticks(3)];
        assert_eq!(medians(&around(&whole, is("begin"), is("end"))), [2]);
        let longer = [begin, ticks(1), ticks(2), end, ticks(3), ticks(4)];
        assert_eq!(medians(&around(&longer, is("begin"), is("end"))), [1, 2, 3]);
    }

    #[test]
    fn a_figure_has_the_extremes_of_all_windows() {
        let window = |min, median, max| Window { min, median, max };
        let windows = vec![window(3, 5, 9), window(2, 4, 50), window(3, 6, 8)];
        let figure = figure(("tick_alone", windows)).unwrap();
        assert_eq!((figure.min, figure.median, figure.max), (2, 5, 50));
        assert!(super::figure(("tick_alone", Vec::new())).is_err());
    }
}
