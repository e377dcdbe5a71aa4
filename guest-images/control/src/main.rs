// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control guest: a 1 kHz loop that records its own jitter and missed ticks.
//!
//! Each tick has an absolute time. A tick's lateness is the virtual count at which its handler
//! starts, less that time; a tick is missed when its handler starts a whole period late. The
//! interrupt handler does the accounting; `main` sleeps, and reports every 1000 ticks: `late_max_ns` is
//! the latest of these, `jitter_max_ns` the latest of all. With `window=N` on its command line it also
//! sums up the lateness of each N ticks.
#![no_std]
#![no_main]

mod window;

use firebreak_abi::guest_map::VTIMER_INTID;
use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::exception::{Kind, unexpected};
use firebreak_guest_rt::{Boot, Frame, Vector, cpu, gic, guest, println, timer};

const RATE_HZ: u64 = 1000;
const TICKS_PER_REPORT: u64 = 1000;

// Written by the handler, read by `main`.
static TICKS: Cell64 = Cell64::new(0);
static MISSED: Cell64 = Cell64::new(0);
static LATEST_TICKS: Cell64 = Cell64::new(0);
// Since the last report: `main` takes it with interrupts masked.
static LATEST_NOW_TICKS: Cell64 = Cell64::new(0);
// Written by `main` before the first interrupt, then by the handler.
static PERIOD_TICKS: Cell64 = Cell64::new(1);
static NEXT_AT_TICKS: Cell64 = Cell64::new(0);

fn on_tick(entered_at_ticks: u64) {
    let due_ticks = NEXT_AT_TICKS.get();
    let period_ticks = PERIOD_TICKS.get();
    let late_ticks = entered_at_ticks.saturating_sub(due_ticks);
    let missed = late_ticks / period_ticks;
    TICKS.add(1);
    MISSED.add(missed);
    LATEST_TICKS.raise(late_ticks);
    LATEST_NOW_TICKS.raise(late_ticks);
    window::note(late_ticks);
    // A missed tick is not made up for: the next one is the next that can be in time.
    let next_ticks = due_ticks + (missed + 1) * period_ticks;
    NEXT_AT_TICKS.set(next_ticks);
    timer::arm(next_ticks);
}

fn on_exception(frame: &mut Frame, vector: Vector) {
    if vector.kind() != Kind::Irq {
        unexpected(frame, vector);
    }
    while let Some(intid) = gic::acknowledge() {
        if intid == VTIMER_INTID {
            on_tick(frame.entered_at_ticks);
        }
        gic::end(intid);
    }
}

fn main(boot: Boot) -> ! {
    let frequency_hz = timer::frequency_hz();
    gic::init_distributor();
    gic::init_cpu();
    gic::enable_private(VTIMER_INTID);
    window::choose(boot.dtb_ipa);
    println!("control: ready");

    PERIOD_TICKS.set((frequency_hz / RATE_HZ).max(1));
    NEXT_AT_TICKS.set(timer::now() + PERIOD_TICKS.get());
    timer::arm(NEXT_AT_TICKS.get());

    let mut reported = 0;
    loop {
        // With interrupts masked between the look and the sleep, none can slip in between:
        // WFI wakes for a masked interrupt too.
        cpu::mask_irq();
        if TICKS.get() / TICKS_PER_REPORT == reported && !window::is_full() {
            cpu::wfi();
        }
        cpu::unmask_irq();
        window::report();
        let ticks = TICKS.get();
        if ticks / TICKS_PER_REPORT == reported {
            continue;
        }
        reported = ticks / TICKS_PER_REPORT;
        let missed = MISSED.get();
        cpu::mask_irq();
        let [jitter_ns, late_ns] = [&LATEST_TICKS, &LATEST_NOW_TICKS]
            .map(|latest| timer::ticks_to_ns(latest.get(), frequency_hz));
        LATEST_NOW_TICKS.set(0);
        cpu::unmask_irq();
        println!(
            "control: ticks={ticks} missed={missed} jitter_max_ns={jitter_ns} late_max_ns={late_ns}"
        );
    }
}

guest!(main, on_exception);
