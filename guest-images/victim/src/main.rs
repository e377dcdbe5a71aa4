// SPDX-License-Identifier: MIT OR Apache-2.0
//! Victim guest: reports the errors that reach it, and recovers.
//!
//! SErrors are unmasked in `main`. An SError is reported with its syndrome; a synchronous
//! external abort is reported, and the access to the page that took it skipped. An abort of
//! anything else was simulated, because nothing else is ever bad: that instruction is tried again.
//! Every 100 ms `main`
//! obeys typed letters (`m`, `u`, `e`, `p`), reads and writes the page that the host knows as the one to break, and says that it lives.
#![no_std]
#![no_main]

mod page;
mod report;

use firebreak_abi::guest_map::{PVPANIC, VTIMER_INTID};
use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::exception::{EC_DATA_ABORT, EC_FETCH_ABORT, Kind, unexpected};
use firebreak_guest_rt::{Boot, Frame, Vector, console, cpu, gic, guest, mmio, println, timer};
use report::Error;

/// What the pvpanic device is told.
const PANICKED: u32 = 1;
const ROUNDS_PER_SECOND: u64 = 10;
/// DISR_EL1 is read this part of a second behind ESB.
const ESB_LOOKS_PER_SECOND: u64 = 50;

// Written by the handlers, read by `main`.
static SERRORS: Cell64 = Cell64::new(0);
static ABORTS: Cell64 = Cell64::new(0);
// Whether SErrors wait: `main` alone.
static MASKED: Cell64 = Cell64::new(0);

fn on_serror(frame: &Frame) {
    SERRORS.add(1);
    report::note(Error::SError {
        n: SERRORS.get(),
        esr: frame.esr,
        elr: frame.elr,
        spsr: frame.spsr,
        disr: cpu::take_disr(),
    });
    report::print_noted();
}

fn on_sync(frame: &mut Frame, vector: Vector) {
    if !matches!(frame.class(), EC_DATA_ABORT | EC_FETCH_ABORT) {
        unexpected(frame, vector);
    }
    ABORTS.add(1);
    report::note(Error::Abort {
        n: ABORTS.get(),
        esr: frame.esr,
        far: frame.far,
        elr: frame.elr,
    });
    // FnV: FAR_EL1 says nothing.
    if frame.esr >> 10 & 1 == 0 && page::holds(frame.far) {
        frame.skip_instruction();
    }
    report::print_noted();
}

fn on_irq() {
    while let Some(intid) = gic::acknowledge() {
        if intid == VTIMER_INTID {
            // The interrupt only ends the sleep; `main` arms the timer again.
            timer::stop();
        }
        gic::end(intid);
    }
}

fn on_exception(frame: &mut Frame, vector: Vector) {
    match vector.kind() {
        Kind::Irq => on_irq(),
        Kind::SError => on_serror(frame),
        Kind::Sync => on_sync(frame, vector),
        Kind::Fiq => unexpected(frame, vector),
    }
}

/// Obeys what was typed: `m` masks SErrors, `u` lets them in, `e` executes ESB and later looks at
/// what it deferred, `p` has it panic.
fn obey_typed() {
    while let Some(byte) = console::read_byte() {
        match byte {
            b'm' => {
                cpu::mask_serror();
                MASKED.set(1);
                println!("victim: masked");
            }
            b'u' => {
                println!("victim: unmasked");
                MASKED.set(0);
                cpu::unmask_serror();
            }
            b'e' => {
                cpu::esb();
                // Time enough for the hypervisor to see it before it is read and cleared.
                let until = timer::now() + timer::frequency_hz() / ESB_LOOKS_PER_SECOND;
                while timer::now() < until {
                    cpu::yield_now();
                }
                println!("victim: esb disr={:#x}", cpu::take_disr());
            }
            b'p' => panic_silently(),
            _ => {}
        }
    }
}

/// Ends as a kernel does whose console is dead: the device is told, and nobody else.
fn panic_silently() -> ! {
    // SAFETY: there is a device, or nothing.
    unsafe { mmio::write32(PVPANIC.get(), PANICKED) };
    cpu::mask_irq();
    loop {
        cpu::wfi();
    }
}

/// A pending SError that is masked ends each WFI: then it listens while it spins.
fn sleep_until(at_ticks: u64) {
    timer::arm(at_ticks);
    while timer::now() < at_ticks {
        cpu::wfi();
        if MASKED.get() != 0 {
            obey_typed();
        }
    }
    timer::stop();
}

fn main(_boot: Boot) -> ! {
    gic::init_distributor();
    gic::init_cpu();
    gic::enable_private(VTIMER_INTID);
    println!("victim: ready page={:#x}", page::ipa());
    cpu::unmask_serror();
    cpu::unmask_irq();

    let round_ticks = timer::frequency_hz() / ROUNDS_PER_SECOND;
    let mut next_at_ticks = timer::now();
    let mut round = 0;
    loop {
        report::print_noted();
        obey_typed();
        let aborts_before = ABORTS.get();
        let intact = page::read_and_write(round);
        // After an abort the words are not the page's, so they prove nothing.
        if !intact && ABORTS.get() == aborts_before {
            println!("victim: page content lost at round={round}");
        }
        round += 1;
        println!("victim: alive n={round}");
        report::print_noted();
        next_at_ticks = (next_at_ticks + round_ticks).max(timer::now());
        sleep_until(next_at_ticks);
    }
}

guest!(main, on_exception);
