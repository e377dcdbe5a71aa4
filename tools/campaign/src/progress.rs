// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said while a campaign runs: a bar in a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use firebreak_report::{Case, Class};
use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed where there is no terminal, in seconds.
const LINE_EVERY_S: u64 = 30;

/// The progress of a run.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    started: Instant,
    all: u64,
    done: AtomicU64,
    told_s: AtomicU64,
}

impl Progress {
    pub(crate) fn new(cases: usize, quiet: bool) -> Self {
        let all = cases as u64;
        let shown = !quiet && std::io::stderr().is_terminal();
        let bar = shown.then(|| {
            let bar = ProgressBar::new(all);
            let template = "{bar:32} {pos}/{len}  {per_sec}  {eta} left  {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        Self {
            bar,
            quiet,
            started: Instant::now(),
            all,
            done: AtomicU64::new(0),
            told_s: AtomicU64::new(0),
        }
    }

    /// Says something above the bar.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.quiet => {}
            None => eprintln!("firebreak: {text}"),
        }
    }

    /// A case is done.
    pub(crate) fn case(&self, line: &Case) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if line.ok == Some(false) || line.class == Class::Inconclusive {
            self.say(&format!("{}: {}: {}", line.name, line.class, line.reason));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(line.class.to_string());
            return;
        }
        let elapsed = self.started.elapsed();
        let told = self.told_s.load(Ordering::Relaxed);
        if elapsed.as_secs() >= told + LINE_EVERY_S {
            self.told_s.store(elapsed.as_secs(), Ordering::Relaxed);
            self.say(&self.pace(done, elapsed));
        }
    }

    fn pace(&self, done: u64, elapsed: Duration) -> String {
        let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
        let left_s = (self.all - done.min(self.all)) as f64 / rate.max(0.001);
        format!(
            "{done} of {} cases, {rate:.1} a second, {left_s:.0} s left",
            self.all
        )
    }

    /// The run is over.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
