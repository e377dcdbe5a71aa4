// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many corrected errors a page has had lately.
//!
//! For each of the last `N` pages that had one, a window of time: it begins with the page's first
//! corrected error; the first one behind its end begins the next window. The hypervisor keeps one
//! history for all PEs, behind a lock of task context, and gives each count to triage as evidence.

use firebreak_abi::Pa;
use heapless::Vec;

/// A page's window.
#[derive(Clone, Copy, Debug)]
struct Window {
    page: Pa,
    start_ticks: u64,
    len_ticks: u64,
    count: u16,
}

impl Window {
    fn is_over(&self, now_ticks: u64) -> bool {
        now_ticks.wrapping_sub(self.start_ticks) >= self.len_ticks
    }
}

/// The corrected errors of the `N` pages that had one most lately.
#[derive(Clone, Debug, Default)]
pub struct CorrectedErrors<const N: usize> {
    windows: Vec<Window, N>,
}

impl<const N: usize> CorrectedErrors<N> {
    /// Makes an empty history.
    pub const fn new() -> Self {
        Self {
            windows: Vec::new(),
        }
    }

    /// Notes a corrected error, and returns how many the page has had in its window, this one
    /// included. `len_ticks` is the length of a window that begins now.
    ///
    /// When `N` other pages have windows, one whose window is over makes room, else the one
    /// with the fewest errors, the oldest of those.
    pub fn note(&mut self, pa: Pa, now_ticks: u64, len_ticks: u64) -> u16 {
        let page = pa.page();
        let fresh = Window {
            page,
            start_ticks: now_ticks,
            len_ticks,
            count: 1,
        };
        if let Some(window) = self.windows.iter_mut().find(|window| window.page == page) {
            if window.is_over(now_ticks) {
                *window = fresh;
            } else {
                window.count = window.count.saturating_add(1);
            }
            return window.count;
        }
        if let Err(fresh) = self.windows.push(fresh) {
            let victim = self.windows.iter_mut().min_by_key(|window| {
                let over = window.is_over(now_ticks);
                (!over, window.count, window.start_ticks)
            });
            if let Some(victim) = victim {
                *victim = fresh;
            }
        }
        1
    }
}
