// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine that is swept: its image, its trace, its points.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use firebreak_qemu::{Machine, Mark, Record, Running, deadline};

use super::lives::Life;
use super::paths::{Kind, Mode, Path};
use super::resume::State;
use super::symbols::Symbols;
use super::trace::{self, Step};
use super::{nested, two_pes};
use crate::{build, image, paths};

/// Opening errors that come while a trace is taken: more than the rounds that are looked at.
const OPENINGS: u64 = 400;
/// No-operations before the anchor of a round.
const SLED_TICKS: u64 = 24;
/// Points that are asked for at once.
const CHUNK: u64 = 64;
/// A round of at most so many ticks is swept whole, without choosing.
const WHOLE_TICKS: usize = 2_500;
/// From the start of a period to the expiry of the guest's timer and a bit more.
const TIMER_TICKS: u64 = 400;
/// A partition remembers 64 bad pages, and is stopped at the next.
const MOST_PAGES: u64 = 62;
/// The first of them, in bytes from the start of RAM: behind what the guest needs.
const FIRST_PAGE: u64 = 6 << 20;
/// Times that three signs of life are waited for, until the trace has a round.
const TRACE_TURNS: u32 = 6;
/// In so many periods a guest that lives tells of its rounds, even when each takes two of them.
const TELLING_PERIODS: u64 = 32;
/// Number of the first error. The firmware writes numbers while it handles an opening error: all
/// have as many digits, so that what follows comes at the same offset in each period.
const FIRST_ID: u64 = 1_000_000;
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

/// The partitions that a path runs in, by the name of their file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum System {
    /// The sweep guest alone.
    Alone,
    /// The sweep guest, and another one on a PE of its own that must not notice anything.
    Beside,
    /// The same with as little memory as there can be, for a partition that ends in each round.
    Lives,
    /// The sweep guest alone, with memory of which a page can be lost again and again.
    Pages,
    /// The sweep guest with two vCPUs, and a bystander.
    Pair,
    /// The same with as little memory as there can be.
    PairLives,
}

impl System {
    const fn file(self) -> &'static str {
        match self {
            Self::Alone => "sweep",
            Self::Beside => "sweep-beside",
            Self::Lives => "sweep-lives",
            Self::Pages => "sweep-pages",
            Self::Pair => "sweep-pair",
            Self::PairLives => "sweep-pair-lives",
        }
    }

    const fn pes(self) -> u32 {
        match self {
            Self::Alone | Self::Pages => 1,
            Self::Beside | Self::Lives => 2,
            Self::Pair | Self::PairLives => 3,
        }
    }
}

/// Makes the image for a path.
fn make_image(
    path: &Path,
    system: System,
    hypervisor: Option<&std::path::Path>,
) -> Result<PathBuf> {
    let template = image::test_manifest(system.file());
    let text = fs::read_to_string(&template).with_context(|| template.display().to_string())?;
    let arguments = format!("sweep={} period={}", path.round, path.period_ticks);
    let text = text.replace("sweep=hvc period=1048576", &arguments);
    let built = hypervisor.and_then(|file| Some(format!("-{}", file.file_name()?.display())));
    let name = format!(
        "{}-{}{}",
        system.file(),
        path.name,
        built.unwrap_or_default()
    );
    // Machines of the same path may start at the same time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let manifest = dir().join(format!("{name}.toml"));
    build::write_if_changed(&manifest, text.as_bytes())?;
    let to = dir().join(format!("{name}.img"));
    image::build_with(&manifest, &to, hypervisor)?;
    Ok(to)
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
    /// Pages that the partition was told to be bad.
    pages: u64,
    /// How often the partition was restarted, as far as that was looked at.
    restarts: u64,
}

impl Swept {
    /// Boots it.
    pub(super) fn boot(
        path: &Path,
        system: System,
        hypervisor: Option<&std::path::Path>,
    ) -> Result<Self> {
        let running = Machine::new(make_image(path, system, hypervisor)?)
            .firmware(build::firmware_image())
            .smp(system.pes())
            .icount(true)
            .start()?;
        let mut swept = Self {
            running,
            path: *path,
            system,
            mode: Mode::Conforming,
            next_id: FIRST_ID,
            first_id: FIRST_ID,
            pages: 0,
            restarts: 0,
        };
        swept.await_ready(Mark::START)?;
        swept.warm_up()?;
        swept.first_id = swept.next_id;
        Ok(swept)
    }

    /// Lets as many lives go by as make all numbers in the events as long as they stay: how long
    /// a number is says how many instructions it takes to write it.
    fn warm_up(&mut self) -> Result<()> {
        let lives = self.path.stage.warm_up_lives;
        if lives > 0 && self.path.opening.is_some() {
            let far = self.path.period_ticks / 2;
            self.sweep(Kind::Ce, &(far..far + lives).collect())?;
        } else if lives > 0 {
            let what = "the first lives of the partition";
            self.running
                .wait_for(what, Mark::START, deadline(PATIENCE_S), |record| {
                    restart_count(record).is_some_and(|count| count >= lives)
                })?;
        }
        Ok(())
    }

    /// Returns the number of the first error that is a point of the sweep.
    pub(super) fn first_id(&self) -> u64 {
        self.first_id
    }

    /// Returns how many more points this machine bears.
    pub(super) fn room(&self) -> u64 {
        let stage = &self.path.stage;
        if self.path.loses_a_page() {
            MOST_PAGES.saturating_sub(self.pages)
        } else if stage.life == Life::GoesOn {
            u64::MAX
        } else {
            stage.most_lives.saturating_sub(self.restarts)
        }
    }

    /// Waits until the guest lives again after a reset, which also made the firmware forget how it
    /// is to behave.
    fn await_next_boot(&mut self, mark: Mark) -> Result<()> {
        self.await_ready(mark)?;
        self.behave(self.mode)
    }

    fn await_ready(&self, mark: Mark) -> Result<()> {
        self.running
            .wait_for("`sweep: ready`", mark, deadline(PATIENCE_S), |record| {
                record
                    .line("sweep")
                    .is_some_and(|line| line.starts_with("sweep: ready"))
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

    /// Traces some periods, with the opening errors of the path but without its points.
    /// Returns what is to be swept.
    pub(super) fn trace(&mut self, guest: &Symbols, hypervisor: &Symbols) -> Result<Targets> {
        let anchor = match self.path.pe {
            Some(_) => 0,
            None => self.anchor_offset(guest)?,
        };
        let file = dir().join(format!("{}-{}.trace", self.system.file(), self.path.name));
        // What is there belongs to another run; QEMU appends.
        let _ = fs::remove_file(&file);
        if self.path.opening.is_some() && !self.path.loses_a_page() {
            // Far behind everything that the opening error sets off.
            let far = self.path.period_ticks / 2;
            self.behave(Mode::Conforming)?;
            self.send(Kind::Ce, (far, far + OPENINGS), None)?;
        }
        for line in [
            format!("logfile {}", file.display()),
            "one-insn-per-tb on".to_owned(),
        ] {
            self.running.monitor(&line)?;
        }
        // The monitor takes its time: some rounds may be over before the log begins.
        let mut found = None;
        for _ in 0..TRACE_TURNS {
            self.running.monitor("log exec,nochain")?;
            if self.path.loses_a_page() {
                // Each error with a page of its own.
                let far = self.path.period_ticks / 2;
                self.strike(Kind::Ce, far, None)?;
                self.strike(Kind::Ce, far, None)?;
            }
            let mark = self.running.mark();
            // A sign of life stands for eight rounds; an error without a record comes in each. Of a
            // life one is enough, and each is long.
            let is_sei_path = nested::is_sei_path(&self.path);
            let is_sign = |record: &Record| match is_sei_path {
                true => record.firmware("point").is_some(),
                false => is_period(record),
            };
            let signs = if self.path.stage.life == Life::GoesOn {
                3
            } else {
                1
            };
            self.running
                .wait_until("signs of life", mark, deadline(PATIENCE_S), |records| {
                    let found = records.iter().filter(|record| is_sign(record)).count();
                    (found >= signs).then_some(())
                })?;
            self.running.monitor("log none")?;
            if file.exists() {
                let symbols = (guest, hypervisor);
                found = if self.path.pe.is_some() {
                    two_pes::targets(&self.path, &file, symbols)?
                } else {
                    let steps = trace::read(&file, 0)?;
                    targets(&self.path, &steps, symbols, anchor)?
                };
            }
            if found.is_some() {
                break;
            }
        }
        let _ = fs::remove_file(&file);
        found.with_context(|| format!("path {}: the trace has no whole round", self.path.name))
    }

    /// Returns the offset at which the guest's round reaches its anchor: a few instructions behind
    /// the start of the period.
    fn anchor_offset(&mut self, guest: &Symbols) -> Result<u64> {
        let anchor = guest.address(&format!("sweep_anchor_{}", self.path.label))?;
        let opening = self.path.opening.take();
        let mark = self.running.mark();
        let struck = self.strike(Kind::Ce, 0, None);
        self.path.opening = opening;
        struck?;
        let records = self.running.since(mark);
        let elr = records
            .iter()
            .find_map(|record| record.firmware("point")?.num("elr"));
        // Before the anchor lie no-operations, one after the other.
        elr.and_then(|elr| anchor.checked_sub(elr))
            .map(|bytes| bytes / 4)
            .filter(|ticks| *ticks <= SLED_TICKS)
            .with_context(|| format!("path {}: a period begins at {elr:x?}", self.path.name))
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
        if let Some(opening) = self.path.opening {
            line.push_str(&format!(
                " open={}:{:#x}:{}",
                opening.at_ticks,
                opening.error.iss(),
                opening.error.severity()
            ));
            if let Some(stride) = opening.page_stride {
                let page = self.ram()? + FIRST_PAGE + stride * self.pages;
                self.pages += 1;
                line.push_str(&format!(":{page:#x}"));
            }
            if self.path.pe.is_some_and(|pe| pe != 0) {
                line.push_str("@0");
            }
        }
        if let Some((address, count)) = probe {
            line.push_str(&format!(" probe={address:#x}+{count}"));
        }
        Ok(self.running.send_firmware(&line)?)
    }

    /// Returns where the partition's memory begins.
    fn ram(&self) -> Result<u64> {
        let records = self.records();
        let found = records.iter().find_map(|record| {
            let text = format!("{}", record.event("partition")?.value());
            let pa = text.split_once("\"pa\":\"0x")?.1.split('"').next()?;
            u64::from_str_radix(pa, 16).ok()
        });
        found.context("no event says where the partition's memory is")
    }

    /// Raises an error at each of these offsets. Returns all that was said, from boot on.
    pub(super) fn sweep(&mut self, kind: Kind, offsets: &BTreeSet<u64>) -> Result<()> {
        for (from, to) in chunks(offsets) {
            let mut next = from;
            while next <= to {
                let mark = self.running.mark();
                self.send(kind, (next, to), None)?;
                let end = self.await_chunk(mark)?;
                if end.is_none() {
                    self.expect_life(mark, to + 1 - next)?;
                }
                let done = end.unwrap_or(to + 1);
                self.count_restarts(mark);
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
        self.count_restarts(mark);
        Ok(())
    }

    /// Raises errors when the PE reaches these instructions, one in each period.
    pub(super) fn probe(&mut self, kind: Kind, first: u64, count: u64) -> Result<()> {
        let mark = self.running.mark();
        let at = two_pes::PLANT_TICKS;
        self.send(kind, (at, at), Some((first, count)))?;
        if self.await_chunk(mark)?.is_some() {
            self.await_next_boot(mark)?;
        }
        self.count_restarts(mark);
        Ok(())
    }

    fn count_restarts(&mut self, mark: Mark) {
        let counts = self.running.since(mark);
        let last = counts.iter().filter_map(restart_count).next_back();
        self.restarts = last.unwrap_or(self.restarts);
    }

    /// Holds that the guest went on in a chunk of so many points.
    fn expect_life(&self, mark: Mark, points: u64) -> Result<()> {
        if points >= TELLING_PERIODS && !self.running.since(mark).iter().any(is_period) {
            let why = format!("it told of no round in {points} periods");
            bail!("{}", self.running.explain("the guest goes on", &why));
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
                (told && (self.system == System::Alone || lives(BYSTANDER))).then_some(())
            });
        let (path, mode) = (self.path.name, self.mode.name());
        let records = self.running.quit();
        let file = dir().join(format!("{path}-{mode}-{}-{number}.log", kind.name()));
        let text: String = records.iter().map(|record| format!("{record}\n")).collect();
        // For whoever wants to look into a failure; its absence changes no verdict.
        let _ = fs::write(file, text);
        records
    }
}

/// The partition beside the one that is swept.
const BYSTANDER: &str = "bystander";

/// A sign of life that comes again and again.
fn is_period(record: &Record) -> bool {
    record
        .line("sweep")
        .is_some_and(|line| line.starts_with("sweep: rounds=") || line.starts_with("sweep: ready"))
}

fn restart_count(record: &Record) -> Option<u64> {
    record.event("restart")?.num("count")
}

/// Runs of consecutive offsets, none longer than a chunk.
pub(super) fn chunks(offsets: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut chunks: Vec<(u64, u64)> = Vec::new();
    for &offset in offsets {
        match chunks.last_mut() {
            Some((from, to)) if *to + 1 == offset && offset - *from < CHUNK => *to = offset,
            _ => chunks.push((offset, offset)),
        }
    }
    chunks
}

/// What is to be swept: the boundaries, and the offsets that hit them.
#[derive(Debug)]
pub(super) struct Targets {
    /// Addresses at EL2 that a round executes, and the offset at which each is reached first.
    pub(super) executed: BTreeMap<u64, u64>,
    /// Offsets in the period.
    pub(super) offsets: BTreeSet<u64>,
    /// Offsets at which the guest runs: the first, the last before EL2, the first after it, the last.
    pub(super) in_guest: BTreeSet<u64>,
}

/// Finds what is to be swept in a trace; `None` while it is too short.
///
/// The round reaches its anchor `start` ticks behind the start of the period.
fn targets(
    path: &Path,
    steps: &[Step],
    (guest, hypervisor): (&Symbols, &Symbols),
    start: u64,
) -> Result<Option<Targets>> {
    let anchor = guest.address(&format!("sweep_anchor_{}", path.label))?;
    let done = match path.stage.is_over_at {
        Some(symbol) => guest.address(symbol)?,
        None => guest.address(&format!("sweep_done_{}", path.label))?,
    };
    let rounds = trace::rounds(steps, anchor, done);
    // The first of many may be the one during which the log began.
    let unsure = usize::from(path.stage.life == Life::GoesOn || rounds.len() > 1);
    let mut found = None;
    for round in rounds.into_iter().skip(unsure) {
        let part = if nested::is_sei_path(path) {
            let from = path.opening.map_or(0, |opening| opening.at_ticks);
            trace::behind_firmware(round, from.saturating_sub(start) as usize)
                .map(|first| first..round.len())
        } else {
            path.stage.part(round, hypervisor).ok()
        };
        // In some the opening error did not come. Of those that lose a page the last is like all
        // that follow.
        if let Some(part) = part
            && (found.is_none() || path.loses_a_page())
        {
            found = Some(targets_of(round, part, start));
        }
    }
    Ok(found)
}

/// Makes the targets of a part of a round.
fn targets_of(round: &[Step], part: Range<usize>, start: u64) -> Targets {
    let is_whole = part == (0..round.len());
    let offsets = if is_whole && round.len() <= WHOLE_TICKS {
        (0..start + round.len() as u64 + TIMER_TICKS).collect()
    } else {
        let wanted = trace::wanted(round, part.clone());
        wanted.into_iter().map(|at| start + at).collect()
    };
    let executed = trace::executed(round, part).into_iter();
    let in_guest = trace::edges_of_the_guest(round).into_iter();
    Targets {
        executed: executed
            .map(|(address, at)| (address, start + at))
            .collect(),
        offsets,
        in_guest: in_guest.map(|at| start + at).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_end() {
        let mut targets = Targets {
            executed: [(0x40, 5), (0x44, 6), (0x20, 7)].into(),
            offsets: [5, 6, 7, 8].into(),
            in_guest: BTreeSet::new(),
        };
        targets.end_at(0x80);
        assert_eq!(targets.offsets.len(), 4);
        targets.end_at(0x20);
        assert_eq!(targets.offsets, [5, 6].into());
        assert_eq!(targets.executed, [(0x40, 5), (0x44, 6)].into());
    }

    #[test]
    fn offsets_are_asked_for_in_runs_that_are_not_too_long() {
        let offsets: BTreeSet<u64> = (0..CHUNK + 3).chain([100, 200, 201]).collect();
        assert_eq!(
            chunks(&offsets),
            [(0, CHUNK - 1), (CHUNK, CHUNK + 2), (100, 100), (200, 201)]
        );
    }
}
