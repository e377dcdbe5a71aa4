// SPDX-License-Identifier: MIT OR Apache-2.0
//! What it costs to publish a record in the recovery queue, with few and with many in it.
//!
//! The queue is a pure crate, so the code that the hypervisor's SEI path runs at EL2 runs here as
//! well, built by the same compiler with the same options. The record has the size of the
//! hypervisor's.

use crate::samples::{SAMPLES, Samples};
use core::arch::asm;
use firebreak_abi::PeId;
use firebreak_ring::Ring;

/// As long as what the SEI path publishes: 112 bytes.
type Record = [u64; 14];
/// Room for a thousand records and some.
const SLOTS: usize = 1024;

static QUEUE: Ring<Record, SLOTS> = Ring::new();
const PE: PeId = PeId(0);

/// Reads CNTVCT_EL0, in order with what touches memory before and after.
#[inline(always)]
fn ticks() -> u64 {
    let ticks: u64;
    // SAFETY: reads a counter. Not `nomem`, so that the compiler moves no access over it.
    unsafe { asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags)) };
    ticks
}

/// Publishes one record and times it, then takes the oldest one out, untimed.
fn publish(turn: usize) -> u64 {
    let record: Record = core::array::from_fn(|word| turn as u64 + word as u64);
    let record = core::hint::black_box(record);
    let before = ticks();
    let published = QUEUE.publish(before, 1, record);
    let after = ticks();
    // A turn that was refused would cost less, and be no figure: it must stand out.
    let taken = QUEUE.take(PE).is_some();
    if published.is_ok() && taken {
        after.wrapping_sub(before)
    } else {
        u64::MAX
    }
}

fn fill(count: u64) {
    for number in 0..count {
        let _ = QUEUE.publish(number, 1, [number; 14]);
    }
}

/// Measures with 1 and with 1,000 records in the queue besides the new one.
pub(crate) fn measure(samples: &mut Samples) {
    fill(1);
    samples.report("queue_publish", SAMPLES, publish);
    fill(999);
    samples.report("queue_publish_1000", SAMPLES, publish);
}
