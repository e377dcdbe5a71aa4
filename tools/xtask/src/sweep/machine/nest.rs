// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors that strike one inside of the other.

use anyhow::Result;
use firebreak_qemu::{Mark, Record, deadline};

use super::super::paths::Kind;
use super::super::tap::Tap;
use super::super::trace::{self, Step};
use super::{PATIENCE_S, Swept, dir};

impl Swept {
    /// Lets errors strike one inside of the other, and at last one when `probe` is reached. Returns
    /// what was said until the guest lives again, after a reset if there was one.
    pub(in super::super) fn nest(
        &mut self,
        kind: Kind,
        nest: &[u64],
        probe: u64,
    ) -> Result<Vec<Record>> {
        let mark = self.running.mark();
        if self.send_nest(kind, nest, probe, mark)? {
            self.await_next_boot(mark)?;
            // The guest may be faster than what tells of the record. That it never comes is for the judge.
            let told = |record: &Record| record.event("boot-error-record").is_some();
            let what = "the boot error record";
            let _ = self
                .running
                .wait_for(what, mark, deadline(PATIENCE_S), told);
        }
        Ok(self.running.since(mark))
    }

    /// Says whether the machine was reset.
    fn send_nest(&mut self, kind: Kind, nest: &[u64], probe: u64, mark: Mark) -> Result<bool> {
        self.nest = nest.to_vec();
        let sent = self.send(kind, (0, 0), Some((probe, 1)));
        self.nest.clear();
        sent?;
        let what = "the end of the machine, or of the errors";
        Ok(self
            .running
            .wait_until(what, mark, deadline(PATIENCE_S), |records| {
                records
                    .iter()
                    .find_map(|record| match record.firmware("ready") {
                        Some(_) => Some(true),
                        None => record.firmware("swept").map(|_| false),
                    })
            })?)
    }

    /// Does the same under QEMU's trace, up to the reset. Returns the steps of the PE.
    pub(in super::super) fn trace_nest(
        &mut self,
        kind: Kind,
        nest: &[u64],
        probe: u64,
    ) -> Result<Vec<Step>> {
        let tap = Tap::open(dir().join(format!("{}.trace", self.path.name)), |_| false)?;
        self.begin_trace(&tap)?;
        let mark = self.running.mark();
        let is_reset = self.send_nest(kind, nest, probe, mark)?;
        self.running.ask_monitor("log none")?;
        self.running.monitor("one-insn-per-tb off")?;
        let steps = tap.finish()?;
        if is_reset {
            self.await_next_boot(mark)?;
        }
        Ok(trace::of_pe(&steps, 0))
    }
}
