// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking a trace of some rounds: which boundaries there are.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use firebreak_qemu::{Record, deadline};

use super::super::lives::Life;
use super::super::paths::{Kind, Mode};
use super::super::symbols::Symbols;
use super::super::tap::Tap;
use super::super::targets::{self, Targets, targets};
use super::super::{nested, trace, two_pes};
use super::{MOST_PAGES, PATIENCE_S, Swept, dir, is_period, keep};

/// Opening errors that come while a trace is taken: more than the rounds that are looked at.
const OPENINGS: u64 = 400;
/// No-operations before the anchor of a round.
const SLED_TICKS: u64 = 24;
/// Times that signs of life are waited for, until the trace has a round.
const TURNS: u32 = 6;
/// How often it is looked whether there is enough.
const LOOK: Duration = Duration::from_millis(20);

impl Swept {
    /// Traces some periods, with the opening errors of the path but without its points.
    /// Returns what is to be swept.
    pub(in super::super) fn trace(
        &mut self,
        guest: &Symbols,
        hypervisor: &Symbols,
    ) -> Result<Targets> {
        let anchor = match self.path.pe {
            Some(_) => 0,
            None => self.anchor_offset(guest)?,
        };
        let each_has_a_page = self.path.loses_a_page() && self.path.pe.is_none();
        if self.path.is_opened() && !each_has_a_page {
            // Far behind everything that the opening error sets off.
            let far = self.path.period_ticks / 2;
            let most = match self.path.loses_a_page() {
                true => MOST_PAGES - 1,
                false => OPENINGS,
            };
            self.behave(Mode::Conforming)?;
            self.send(Kind::Ce, (far, far + most), None)?;
        }
        let mut found = Ok(None);
        for turn in 0..TURNS {
            found = self.trace_once((guest, hypervisor), anchor, turn);
            if !matches!(found, Ok(None)) {
                break;
            }
        }
        if let Ok(Some(found)) = found {
            return Ok(found);
        }
        let file = format!("{}-{}-trace.log", self.system.file(), self.path.name);
        keep(&file, &self.records());
        let name = self.path.name;
        found?.with_context(|| {
            let openings = self.path.openings.iter().flatten();
            let at: Vec<u64> = openings.map(|opening| opening.at_ticks).collect();
            format!(
                "path {name}: the trace has no round as it is wanted, opened at {at:?}; {} has what \
                 the machine said",
                dir().join(file).display()
            )
        })
    }

    /// Traces until a round is in, or the guest has told of enough of them.
    fn trace_once(
        &mut self,
        symbols: (&Symbols, &Symbols),
        anchor: u64,
        turn: u32,
    ) -> Result<Option<Targets>> {
        let name = format!("{}-{}-{turn}.trace", self.system.file(), self.path.name);
        let file = dir().join(name);
        let tap = if self.path.pe.is_some() {
            let ends = two_pes::Ends::of(&self.path, symbols)?;
            Tap::open(file, two_pes::watch(ends))?
        } else {
            Tap::open(file, targets::watch(&self.path, symbols, anchor)?)?
        };
        self.begin_trace(&tap)?;
        if self.path.loses_a_page() && self.path.pe.is_none() {
            // Each error with a page of its own.
            let far = self.path.period_ticks / 2;
            self.strike(Kind::Ce, far, None)?;
            self.strike(Kind::Ce, far, None)?;
        }
        self.await_rounds(&tap)?;
        self.running.ask_monitor("log none")?;
        let steps = tap.finish()?;
        if self.path.pe.is_some() {
            let ends = two_pes::Ends::of(&self.path, symbols)?;
            return Ok(two_pes::targets(&steps, &ends));
        }
        targets(&self.path, &trace::of_pe(&steps, 0), symbols, anchor)
    }

    /// Lets QEMU write.
    pub(super) fn begin_trace(&mut self, tap: &Tap) -> Result<()> {
        for line in [
            format!("logfile {}", tap.file()),
            "one-insn-per-tb on".to_owned(),
            "log exec,nochain".to_owned(),
        ] {
            let said = self.running.ask_monitor(&line)?;
            if !said.is_empty() {
                bail!("QEMU takes no trace: {said}");
            }
        }
        Ok(())
    }

    /// Waits until the trace has what is wanted, or as many signs of life were given as there are
    /// in the time of a whole round. Of a life two: it may have begun when the log does.
    fn await_rounds(&mut self, tap: &Tap) -> Result<()> {
        let is_sei_path = nested::is_sei_path(&self.path);
        // A sign of life stands for eight rounds; an error without a record comes in each.
        let is_sign = |record: &Record| match is_sei_path {
            true => record.firmware("point").is_some(),
            false => is_period(record),
        };
        let wanted = match self.path.stage.life {
            Life::GoesOn => 3,
            _ => 2,
        };
        let (mut mark, mut signs) = (self.running.mark(), 0);
        let end = Instant::now() + deadline(PATIENCE_S);
        while signs < wanted && !tap.is_over() {
            let fresh = self.running.fresh(&mut mark, LOOK)?;
            signs += fresh.iter().filter(|record| is_sign(record)).count();
            if Instant::now() > end {
                let what = "a whole round of the guest, under QEMU's trace";
                bail!("{}", self.running.explain(what, "it told of too few"));
            }
        }
        Ok(())
    }

    /// Returns the offset at which the guest's round reaches its anchor: a few instructions behind
    /// the start of the period.
    fn anchor_offset(&mut self, guest: &Symbols) -> Result<u64> {
        let anchor = guest.address(&format!("sweep_anchor_{}", self.path.label))?;
        let openings = std::mem::take(&mut self.path.openings);
        let mark = self.running.mark();
        let struck = self.strike(Kind::Ce, 0, None);
        self.path.openings = openings;
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
}
