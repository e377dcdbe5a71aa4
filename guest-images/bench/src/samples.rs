// SPDX-License-Identifier: MIT OR Apache-2.0
//! The samples of one operation, and the line that sums them up.

use core::cell::UnsafeCell;
use firebreak_guest_rt::println;

/// Samples of an operation that runs back to back.
pub(crate) const SAMPLES: usize = 2000;
/// Samples of an operation that waits for a time.
pub(crate) const TIMER_SAMPLES: usize = 500;
/// Turns before the first sample, so that translation and caches are warm.
pub(crate) const WARM_UP: usize = 16;

struct Store(UnsafeCell<[u64; SAMPLES]>);

// SAFETY: `Samples` is made once, on the boot vCPU, and is the only way in.
unsafe impl Sync for Store {}

static STORE: Store = Store(UnsafeCell::new([0; SAMPLES]));

/// Room for the samples of one operation at a time.
pub(crate) struct Samples {
    ticks: &'static mut [u64; SAMPLES],
    /// What two reads of the counter cost by themselves; taken off each difference.
    empty_pair: u64,
}

/// Smallest, middle and largest of some samples.
#[derive(Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) min: u64,
    pub(crate) median: u64,
    pub(crate) max: u64,
}

impl Samples {
    /// Takes the store.
    ///
    /// # Safety
    ///
    /// Only once in the life of the guest.
    pub(crate) unsafe fn take() -> Self {
        // SAFETY: the caller promises that no other reference exists.
        let ticks = unsafe { &mut *STORE.0.get() };
        Self {
            ticks,
            empty_pair: 0,
        }
    }

    /// Measures the empty pair, and uses it from here on.
    pub(crate) fn calibrate(&mut self, empty: impl FnMut(usize) -> u64) {
        self.empty_pair = 0;
        self.empty_pair = self
            .collect(SAMPLES, empty)
            .map_or(0, |summary| summary.median);
    }

    /// Takes nothing off from here on: for latencies that are no pair of readings in a row.
    pub(crate) fn without_empty_pair(&mut self) {
        self.empty_pair = 0;
    }

    /// Runs `one` until there are `count` samples. It gets the number of the turn and returns a
    /// difference of two counter readings. `None` for no samples at all.
    pub(crate) fn collect(
        &mut self,
        count: usize,
        mut one: impl FnMut(usize) -> u64,
    ) -> Option<Summary> {
        for turn in 0..WARM_UP {
            one(turn);
        }
        let used = self.ticks.get_mut(..count.min(SAMPLES))?;
        for (turn, sample) in used.iter_mut().enumerate() {
            *sample = one(turn).saturating_sub(self.empty_pair);
        }
        used.sort_unstable();
        let median = *used.get(used.len() / 2)?;
        Some(Summary {
            min: *used.first()?,
            median,
            max: *used.last()?,
        })
    }

    /// Collects and prints.
    pub(crate) fn report(&mut self, name: &str, count: usize, one: impl FnMut(usize) -> u64) {
        if let Some(summary) = self.collect(count, one) {
            print(name, count, summary);
        }
    }
}

/// Prints the line of one operation.
pub(crate) fn print(name: &str, count: usize, summary: Summary) {
    let Summary { min, median, max } = summary;
    println!("bench: op={name} n={count} min={min} median={median} max={max}");
}
