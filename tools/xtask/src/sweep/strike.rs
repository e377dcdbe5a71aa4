// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machines that one path is swept on, one after the other.
//!
//! Most paths need one. A partition that ends in each round is restarted only so often, and one
//! that loses a page in each has only so many: then the next machine goes on.

use std::collections::BTreeSet;

use anyhow::Result;

use super::judge::Point;
use super::lives::{self, Life};
use super::machine::{CHUNK, MOST_PAGES, Swept};
use super::targets::chunks;
use super::{Job, transcript, two_pes};

/// Lives that may go by while nothing is swept: between two commands, say, on a host that is slow.
const SPARE_LIVES: u64 = 100;

/// Raises errors, and keeps what became of them.
pub(super) struct Striker<'a> {
    job: Job<'a>,
    hypervisor: Option<&'a std::path::Path>,
    machine: Option<Swept>,
    /// How many were used up.
    used: usize,
    /// Points of the machines before.
    before: Vec<Point>,
    /// For how long another PE waits at a probe.
    hold_ticks: u64,
}

impl<'a> Striker<'a> {
    /// With the hypervisor that `build` made, or another one.
    pub(super) fn new(job: Job<'a>, hypervisor: Option<&'a std::path::Path>) -> Self {
        Self {
            job,
            hypervisor,
            machine: None,
            used: 0,
            before: Vec::new(),
            hold_ticks: 0,
        }
    }

    /// Returns a machine that bears so many points.
    fn machine(&mut self, points: u64) -> Result<&mut Swept> {
        let needed = points + self.spare();
        if let Some(full) = self.machine.take_if(|machine| machine.room() < needed) {
            let first_id = full.first_id();
            let points = self.judge(&full.finish(self.job.2, self.used), first_id);
            self.before.extend(points);
            self.used += 1;
        }
        if self.machine.is_none() {
            let mut machine = Swept::boot(
                self.job.0,
                super::system_of(self.job.0, self.job.2),
                self.hypervisor,
            )?;
            machine.behave(self.job.1)?;
            self.machine = Some(machine);
        }
        let machine = self
            .machine
            .as_mut()
            .ok_or_else(|| anyhow::anyhow!("there is no machine"))?;
        machine.hold(self.hold_ticks);
        Ok(machine)
    }

    /// Returns how many points one command may ask for: with all that goes by beside it, no more
    /// than a machine bears.
    fn most_at_once(&self) -> u64 {
        if self.job.0.loses_a_page() {
            MOST_PAGES
        } else {
            CHUNK
        }
    }

    /// What may go by while nothing is swept: lives do, pages do not.
    fn spare(&self) -> u64 {
        if self.job.0.stage.life == Life::GoesOn && self.job.0.typed.is_empty() {
            0
        } else {
            SPARE_LIVES
        }
    }

    /// Raises an error at each of these offsets.
    pub(super) fn sweep(&mut self, offsets: &BTreeSet<u64>) -> Result<()> {
        let kind = self.job.2;
        for (from, to) in chunks(offsets, self.most_at_once()) {
            self.machine(to + 1 - from)?
                .sweep(kind, &(from..=to).collect())?;
        }
        Ok(())
    }

    /// Raises one error at this offset, or when EL2 reaches the instruction `probe` after it.
    pub(super) fn strike(&mut self, at: u64, probe: Option<u64>) -> Result<()> {
        let kind = self.job.2;
        self.machine(1)?.strike(kind, at, probe)
    }

    /// Lets another PE that reaches a probe first wait there for so long, from now on.
    pub(super) fn hold(&mut self, ticks: u64) {
        self.hold_ticks = ticks;
    }

    /// Raises errors when the PE reaches these instructions, one in each period.
    pub(super) fn probe(&mut self, first: u64, count: u64) -> Result<()> {
        let kind = self.job.2;
        self.machine(count)?
            .probe(kind, two_pes::PLANT_TICKS, (first, count))
    }

    /// The same with the probe in its place from this offset on.
    pub(super) fn probe_at(&mut self, at: u64, first: u64, count: u64) -> Result<()> {
        let kind = self.job.2;
        self.machine(count)?.probe(kind, at, (first, count))
    }

    fn judge(&self, records: &[firebreak_qemu::Record], first_id: u64) -> Vec<Point> {
        let mut points = transcript::points(records, self.job.0.period_ticks);
        points.retain(|point| point.id >= first_id);
        lives::settle(&mut points, records, self.job.0);
        points
    }

    /// Returns what became of all points so far.
    pub(super) fn points(&self) -> Vec<Point> {
        let mut points = self.before.clone();
        if let Some(machine) = &self.machine {
            points.extend(self.judge(&machine.records(), machine.first_id()));
        }
        points
    }

    /// The same, when all has been said; ends the machine.
    pub(super) fn finish(mut self) -> Vec<Point> {
        let mut points = std::mem::take(&mut self.before);
        if let Some(machine) = self.machine.take() {
            let first_id = machine.first_id();
            points.extend(self.judge(&machine.finish(self.job.2, self.used), first_id));
        }
        points
    }
}
