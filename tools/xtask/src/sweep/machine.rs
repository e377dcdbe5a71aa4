// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine that is swept: its image, its trace, its points.

mod nest;
mod system;
mod tracing;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use firebreak_qemu::{Machine, Mark, Record, Running, deadline};

pub(super) use system::System;

use super::lives::Life;
use super::paths::{Kind, Mode, Path, SWEPT};
use super::resume::State;
use super::targets::chunks;
use super::{nested, typed};
use crate::{build, paths};

/// Points that are asked for at once.
pub(super) const CHUNK: u64 = 64;
/// A partition remembers 64 bad pages, and is stopped at the next.
pub(super) const MOST_PAGES: u64 = 62;
/// The first of them, in bytes from the start of RAM: behind what the guest needs.
const FIRST_PAGE: u64 = 6 << 20;
/// In so many periods a guest that lives tells of its rounds, even when each takes two of them.
const TELLING_PERIODS: u64 = 32;
/// Number of the first error. The firmware writes numbers while it handles an opening error: all
/// have as many digits, so that what follows comes at the same offset in each period.
const FIRST_ID: u64 = 1_000_000;
/// More than EL2 remembers of its last events.
const WARM_UP_EVENTS: u64 = 12;
/// A block that stage 2 maps at once: one page of each is lost.
const BLOCK_BYTES: u64 = 2 << 20;
/// How long one chunk may take, in seconds.
const PATIENCE_S: u64 = 120;

/// Returns where the sweep keeps what it makes.
pub(super) fn dir() -> PathBuf {
    paths::out().join("sweep")
}

/// Returns what is known of a sweep that was interrupted, or begins a new one.
pub(super) fn state(short: bool, resume: bool) -> Result<State> {
    let built = [
        build::hypervisor_elf(),
        build::firmware_image(),
        paths::out().join("guests/sweep.bin"),
    ];
    fs::create_dir_all(dir())?;
    State::open(dir().join("state.json"), &built, short, resume)
}

/// The machine of one path.
pub(super) struct Swept {
    running: Running,
    path: Path,
    system: System,
    mode: Mode,
    next_id: u64,
    /// Number of the first error that is a point.
    first_id: u64,
    /// Pages of either partition that were said to be bad.
    pages: [u64; 2],
    /// How often the partition was restarted, as far as that was looked at.
    restarts: u64,
    /// CNTPCT, as far as that was looked at.
    ticks: u64,
    /// How far that was.
    counted: Mark,
    /// Instructions at which errors strike one after the other, before a probe is put in its place.
    nest: Vec<u64>,
    /// For how long another PE than the one that is struck waits at a probe.
    hold_ticks: u64,
}

impl Swept {
    /// Boots it.
    pub(super) fn boot(
        path: &Path,
        system: System,
        hypervisor: Option<&std::path::Path>,
    ) -> Result<Self> {
        let running = Machine::new(system::make_image(path, system, hypervisor)?)
            .firmware(build::firmware_image())
            .smp(system.pes())
            .icount(true)
            // A second of the board's clock is one of the PEs', and not of the host's.
            .args(["-rtc", "clock=vm"])
            .start()?;
        let mut swept = Self {
            running,
            path: *path,
            system,
            mode: Mode::Conforming,
            next_id: FIRST_ID,
            first_id: FIRST_ID,
            pages: [0; 2],
            restarts: 0,
            ticks: 0,
            counted: Mark::START,
            nest: Vec::new(),
            hold_ticks: 0,
        };
        swept.await_ready(Mark::START)?;
        swept.begin_typing()?;
        swept.warm_up()?;
        swept.first_id = swept.next_id;
        Ok(swept)
    }

    /// Lets as many lives go by as make all numbers in the events as long as they stay: how long
    /// a number is says how many instructions it takes to write it. And as many events as make
    /// EL2's own list of the last of them full, once and for all.
    fn warm_up(&mut self) -> Result<()> {
        let lives = self.path.stage.warm_up_lives;
        let far = self.path.period_ticks / 2;
        if !self.path.typed.is_empty() {
            let steady = typed::steady_ticks(&self.path).start;
            let what = "times of as many digits as they keep";
            self.running
                .wait_for(what, Mark::START, deadline(PATIENCE_S), |record| {
                    time_of(record).is_some_and(|ticks| ticks >= steady)
                })?;
        } else if lives > 0 && self.path.is_opened() {
            self.sweep(Kind::Ce, &(far..far + lives).collect())?;
        } else if lives > 0 {
            let what = "the first lives of the partition";
            self.running
                .wait_for(what, Mark::START, deadline(PATIENCE_S), |record| {
                    restart_count(record).is_some_and(|count| count >= lives)
                })?;
        } else if self.path.is_opened() && !self.path.loses_a_page() {
            self.sweep(Kind::Ce, &(far..far + WARM_UP_EVENTS).collect())?;
        }
        Ok(())
    }

    /// Returns the number of the first error that is a point of the sweep.
    pub(super) fn first_id(&self) -> u64 {
        self.first_id
    }

    /// Returns how many more points this machine bears. Lives go by while nobody looks.
    pub(super) fn room(&mut self) -> u64 {
        let stage = self.path.stage;
        let lost = self.pages.into_iter().max().unwrap_or(0);
        if lost > 0 || self.path.loses_a_page() {
            MOST_PAGES.saturating_sub(lost)
        } else if !self.path.typed.is_empty() {
            self.look_on();
            let left = typed::steady_ticks(&self.path)
                .end
                .saturating_sub(self.ticks);
            left / self.path.period_ticks
        } else if stage.life == Life::GoesOn {
            u64::MAX
        } else {
            self.look_on();
            stage.most_lives.saturating_sub(self.restarts)
        }
    }

    /// Lets another PE that reaches a probe first wait there for so long, from now on.
    pub(super) fn hold(&mut self, ticks: u64) {
        self.hold_ticks = ticks;
    }

    /// Waits until the guest lives again after a reset, which also made the firmware forget how it
    /// is to behave.
    fn await_next_boot(&mut self, mark: Mark) -> Result<()> {
        self.await_ready(mark)?;
        self.begin_typing()?;
        self.behave(self.mode)
    }

    /// Has the firmware type from now on what comes in each period.
    fn begin_typing(&mut self) -> Result<()> {
        if self.path.typed.is_empty() {
            return Ok(());
        }
        let mark = self.running.mark();
        self.running.send_firmware(&typed::line(&self.path))?;
        self.running
            .wait_for("`fw: typing`", mark, deadline(PATIENCE_S), |record| {
                record.firmware("typing").is_some()
            })?;
        Ok(())
    }

    /// Waits until the guest does its rounds: the first of them may be too late.
    fn await_ready(&self, mark: Mark) -> Result<()> {
        let wanted = if self.path.stage.life == Life::GoesOn {
            "sweep: rounds="
        } else {
            "sweep: ready"
        };
        let what = format!("`{wanted}`");
        self.running
            .wait_for(&what, mark, deadline(PATIENCE_S), |record| {
                let line = record.line("sweep");
                line.is_some_and(|line| line.starts_with(wanted))
            })?;
        Ok(())
    }

    /// Tells the firmware how to behave.
    pub(super) fn behave(&mut self, mode: Mode) -> Result<()> {
        self.mode = mode;
        let behavior = nested::behavior(&self.path, mode);
        if behavior == Mode::Conforming.name() {
            return Ok(());
        }
        let mark = self.running.mark();
        self.running
            .send_firmware(&format!("behave pe={} as={behavior}", self.pe()))?;
        self.running
            .wait_for("`fw: behaving`", mark, deadline(PATIENCE_S), |record| {
                record.firmware("behaving").is_some()
            })?;
        Ok(())
    }

    /// Returns the PE that is struck.
    fn pe(&self) -> u8 {
        self.path.pe.unwrap_or(0)
    }

    /// `probe`: an instruction, and how many from there on.
    fn send(
        &mut self,
        kind: Kind,
        (from, to): (u64, u64),
        probe: Option<(u64, u64)>,
    ) -> Result<()> {
        let id = self.next_id;
        self.next_id += 2 * probe.map_or(to + 1 - from, |(_, count)| count);
        let mut line = format!(
            "sweep pe={} id={id} iss={:#x} sev={} period={} from={from} to={to}",
            self.pe(),
            kind.iss(),
            kind.severity(),
            self.path.period_ticks
        );
        for opening in self.path.openings.into_iter().flatten() {
            line.push_str(&format!(
                " open={}:{:#x}:{}",
                opening.at_ticks,
                opening.error.iss(),
                opening.error.severity()
            ));
            if let Some(stride) = opening.page_stride {
                let first = self.next_page(SWEPT, stride, to + 1 - from)?;
                line.push_str(&format!(":{first:#x}:{stride:#x}"));
            }
            if self.path.pe.is_some_and(|pe| pe != 0) {
                line.push_str("@0");
            }
        }
        if let Some(vm) = kind.page_of() {
            let page = self.next_page(vm, BLOCK_BYTES, 1)?;
            line.push_str(&format!(" pa={page:#x}"));
        }
        if let Some((address, count)) = probe {
            line.push_str(&format!(" probe={address:#x}+{count}@{}", self.hold_ticks));
        }
        if !self.nest.is_empty() {
            let nest: Vec<String> = self.nest.iter().map(|each| format!("{each:#x}")).collect();
            line.push_str(&format!(" nest={}", nest.join(",")));
        }
        Ok(self.running.send_firmware(&line)?)
    }

    /// Returns the first of so many pages of a partition that nothing has happened to yet.
    fn next_page(&mut self, vm: u64, stride: u64, count: u64) -> Result<u64> {
        let ram = self.ram(vm)?;
        let used = self
            .pages
            .get_mut(usize::try_from(vm)?)
            .with_context(|| format!("there is no partition {vm}"))?;
        let page = ram + FIRST_PAGE + stride * *used;
        *used += count;
        Ok(page)
    }

    /// Returns where a partition's memory begins.
    fn ram(&self, vm: u64) -> Result<u64> {
        let records = self.records();
        let found = records.iter().find_map(|record| {
            let event = record.event("partition")?;
            let text = format!("{}", event.value());
            let pa = text.split_once("\"pa\":\"0x")?.1.split('"').next()?;
            let pa = u64::from_str_radix(pa, 16).ok()?;
            (event.num("vm") == Some(vm)).then_some(pa)
        });
        found.with_context(|| format!("no event says where the memory of partition {vm} is"))
    }

    /// Raises an error at each of these offsets. Returns all that was said, from boot on.
    pub(super) fn sweep(&mut self, kind: Kind, offsets: &BTreeSet<u64>) -> Result<()> {
        for (from, to) in chunks(offsets, CHUNK) {
            let mut next = from;
            while next <= to {
                let mark = self.running.mark();
                self.send(kind, (next, to), None)?;
                let end = self.await_chunk(mark)?;
                if end.is_none() {
                    self.expect_life(mark, to + 1 - next)?;
                }
                let done = end.unwrap_or(to + 1);
                next = done;
                if end.is_some() {
                    self.await_next_boot(mark)?;
                }
            }
        }
        Ok(())
    }

    /// Raises one error at this offset, with the guest in its round; or when EL2 reaches the
    /// instruction `probe` after it.
    pub(super) fn strike(&mut self, kind: Kind, at: u64, probe: Option<u64>) -> Result<()> {
        let mark = self.running.mark();
        self.running
            .wait_for("a sign of life", mark, deadline(PATIENCE_S), is_period)?;
        let mark = self.running.mark();
        self.send(kind, (at, at), probe.map(|address| (address, 1)))?;
        if self.await_chunk(mark)?.is_some() {
            self.await_next_boot(mark)?;
        }
        Ok(())
    }

    /// Raises errors when the PE reaches these instructions, one in each period.
    pub(super) fn probe(&mut self, kind: Kind, at: u64, run: (u64, u64)) -> Result<()> {
        let mark = self.running.mark();
        self.send(kind, (at, at), Some(run))?;
        if self.await_chunk(mark)?.is_some() {
            self.await_next_boot(mark)?;
        }
        Ok(())
    }

    /// Takes from what was said since when it is, and how often the partition was restarted.
    fn look_on(&mut self) {
        let fresh = self.running.since(self.counted);
        self.counted = self.running.mark();
        let last = fresh.iter().filter_map(restart_count).next_back();
        self.restarts = last.unwrap_or(self.restarts);
        let now = fresh.iter().rev().find_map(time_of);
        self.ticks = now.unwrap_or(self.ticks);
    }

    /// Holds that the guest went on in a chunk of so many points.
    fn expect_life(&self, mark: Mark, points: u64) -> Result<()> {
        if points >= TELLING_PERIODS {
            let what = format!("a word of the guest in {points} periods");
            // The firmware's line may be ahead of the guest's.
            self.running
                .wait_for(&what, mark, deadline(PATIENCE_S), is_period)?;
        }
        Ok(())
    }

    /// Returns what was said so far.
    pub(super) fn records(&self) -> Vec<Record> {
        self.running.since(Mark::START)
    }

    /// Waits for the end of a chunk. `Some`: the machine was reset, and this is the next offset.
    fn await_chunk(&self, mark: Mark) -> Result<Option<u64>> {
        let what = "the end of a chunk";
        let mut last = None;
        let mut stuck = None;
        let end = self
            .running
            .wait_until(what, mark, deadline(PATIENCE_S), |records| {
                records.iter().rev().find_map(|record| {
                    let Record::Firmware(line) = record else {
                        return None;
                    };
                    match line.verb.as_str() {
                        "swept" => Some(None),
                        "ready" => {
                            last = records
                                .iter()
                                .filter_map(|record| record.firmware("point")?.num("at"))
                                .next_back();
                            Some(last.map(|at| at + 1))
                        }
                        "stuck" => {
                            stuck = Some(line.raw.clone());
                            Some(None)
                        }
                        _ => None,
                    }
                })
            })?;
        if let Some(line) = stuck {
            bail!(
                "{}",
                self.running.explain(&line, "it was never acknowledged")
            );
        }
        Ok(end)
    }

    /// Waits until every error that was raised has been reported, as far as that ever happens,
    /// and ends the machine, the path's `number`th. Returns all that was said, which is also written to a
    /// file.
    pub(super) fn finish(self, kind: Kind, number: usize) -> Vec<Record> {
        let mark = self.running.mark();
        // Two lines of the guest: what EL2 had to say before has been said.
        let _ = self
            .running
            .wait_until("the last reports", mark, deadline(30), |records| {
                let lives = |name| records.iter().any(|record| record.line(name).is_some());
                let told = records.iter().filter(|record| is_period(record)).count() > 1;
                (told && (self.system.pes() == 1 || lives(NEIGHBOR))).then_some(())
            });
        let (path, mode) = (self.path.name, self.mode.name());
        let records = self.running.quit();
        let file = format!("{path}-{mode}-{}-{number}.log", kind.name());
        keep(&file, &records);
        records
    }
}

/// Writes down what a machine said, for whoever wants to look into a failure; that it cannot be
/// written changes no verdict.
fn keep(file: &str, records: &[Record]) {
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    let _ = fs::write(dir().join(file), text);
}

/// The partition beside the one that is swept.
const NEIGHBOR: &str = "bystander";

/// A sign of life that comes again and again.
fn is_period(record: &Record) -> bool {
    record
        .line("sweep")
        .is_some_and(|line| line.starts_with("sweep: rounds=") || line.starts_with("sweep: ready"))
}

fn time_of(record: &Record) -> Option<u64> {
    match record {
        Record::Event(event) => event.num("t"),
        _ => None,
    }
}

fn restart_count(record: &Record) -> Option<u64> {
    record.event("restart")?.num("count")
}
