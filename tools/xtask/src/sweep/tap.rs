// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's trace, read while it is written.
//!
//! QEMU writes into a pipe, so that nothing of it comes to a disk. The reader keeps the steps until it
//! has enough or has read too much; what comes then is thrown away, because a QEMU that finds the pipe
//! full stands still.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, mkfifoat};

use super::trace::{Lines, Step};

/// A trace has at most so many bytes: several lives of a partition, some minutes of QEMU's time.
pub(super) const MOST_BYTES: u64 = 2 << 30;

/// The last line.
const END: &str = "the end\n";

/// What PEs did, in QEMU's order.
type Steps = Vec<(u8, Step)>;

/// What was read.
#[derive(Debug)]
struct Taken {
    steps: Steps,
    /// There was more than a trace may have.
    too_long: bool,
}

/// A trace that is being taken.
pub(super) struct Tap {
    fifo: PathBuf,
    /// Our own way into the pipe, for what says that QEMU has written all.
    end: File,
    reader: Option<JoinHandle<io::Result<Taken>>>,
    over: Arc<AtomicBool>,
}

impl Tap {
    /// Makes the pipe, by a name that QEMU has not heard yet. `is_enough` is asked behind each step.
    pub(super) fn open(
        fifo: PathBuf,
        is_enough: impl FnMut(&[(u8, Step)]) -> bool + Send + 'static,
    ) -> Result<Self> {
        let name = || fifo.display().to_string();
        let _ = fs::remove_file(&fifo);
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).with_context(name)?;
        // Nobody writes yet, which is not to be waited for.
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&fifo)
            .with_context(name)?;
        let end = OpenOptions::new().write(true).open(&fifo);
        let end = end.with_context(name)?;
        let flags = fcntl_getfl(&pipe).with_context(name)?;
        fcntl_setfl(&pipe, flags - OFlags::NONBLOCK).with_context(name)?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let reader = thread::Builder::new()
            .name("trace".to_owned())
            .spawn(move || take(pipe, MOST_BYTES, &told, is_enough))?;
        Ok(Self {
            fifo,
            end,
            reader: Some(reader),
            over,
        })
    }

    /// Returns the file that QEMU is to write to.
    pub(super) fn file(&self) -> String {
        self.fifo.display().to_string()
    }

    /// Says whether no more is read: there is enough, or too much.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Returns the steps, when QEMU has said that it writes no more. It may still have the pipe open.
    pub(super) fn finish(mut self) -> Result<Steps> {
        self.end
            .write_all(END.as_bytes())
            .with_context(|| self.file())?;
        let reader = self.reader.take().context("the trace was read before")?;
        let taken = reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader of the trace is gone"))?
            .with_context(|| self.file())?;
        if taken.too_long {
            bail!(
                "QEMU's trace had {MOST_BYTES} bytes, and not what is looked for in it; the partition may \
                 be down, and the machine do something else"
            );
        }
        Ok(taken.steps)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.fifo);
    }
}

/// Reads a trace up to its end, and keeps what comes before there is enough of it.
fn take(
    trace: impl Read,
    most_bytes: u64,
    over: &AtomicBool,
    mut is_enough: impl FnMut(&[(u8, Step)]) -> bool,
) -> io::Result<Taken> {
    let mut taken = Taken {
        steps: Vec::new(),
        too_long: false,
    };
    let mut trace = BufReader::with_capacity(1 << 16, trace);
    let (mut line, mut lines, mut bytes) = (Vec::new(), Lines::default(), 0);
    loop {
        line.clear();
        let len = trace.read_until(b'\n', &mut line)?;
        if len == 0 || line == END.as_bytes() {
            return Ok(taken);
        }
        if over.load(Ordering::Relaxed) {
            continue;
        }
        bytes += len as u64;
        let steps = taken.steps.len();
        lines.add(&String::from_utf8_lossy(&line), &mut taken.steps);
        taken.too_long = bytes > most_bytes;
        // A step may still be taken back: it is looked at when the next one comes.
        let before = taken.steps.get(..steps).unwrap_or(&[]);
        let is_next = taken.steps.len() > steps;
        if taken.too_long || (is_next && is_enough(before)) {
            over.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pe: u8, pc: u64) -> String {
        format!("Trace {pe}: 0x1 [0/{pc:x}/61/0] \n")
    }

    fn text(count: u64) -> String {
        (0..count).map(|pc| line(0, pc)).collect()
    }

    #[test]
    fn what_comes_behind_enough_of_a_trace_is_not_kept() {
        let over = AtomicBool::new(false);
        let text = text(1000);
        let enough = |steps: &[(u8, Step)]| steps.last().is_some_and(|(_, step)| step.pc == 4);
        let taken = take(text.as_bytes(), u64::MAX, &over, enough).unwrap();
        assert_eq!(taken.steps.len(), 6, "and one by which the last is sure");
        assert!(over.into_inner() && !taken.too_long);
    }

    #[test]
    fn a_step_that_is_taken_back_is_not_looked_at() {
        let text = line(0, 4) + "Stopped execution of TB chain before 0x1 [4] \n" + &line(0, 5);
        let over = AtomicBool::new(false);
        let enough = |steps: &[(u8, Step)]| steps.last().is_some_and(|(_, step)| step.pc == 4);
        let taken = take(text.as_bytes(), u64::MAX, &over, enough).unwrap();
        assert_eq!(taken.steps.len(), 1);
        assert!(!over.into_inner());
    }

    #[test]
    fn a_trace_without_a_round_ends_at_its_bound() {
        let over = AtomicBool::new(false);
        let text = text(1000);
        let taken = take(text.as_bytes(), 2000, &over, |_| false).unwrap();
        assert!(taken.too_long && over.into_inner());
        assert!(taken.steps.len() < 100);
    }

    #[test]
    fn a_trace_comes_through_a_pipe_and_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("trace");
        let tap = Tap::open(fifo.clone(), |_| false).unwrap();
        // QEMU keeps it open.
        let mut to = OpenOptions::new().append(true).open(tap.file()).unwrap();
        to.write_all(text(3).as_bytes()).unwrap();
        assert_eq!(tap.finish().unwrap().len(), 3);
        assert!(!fifo.exists());
    }
}
