// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest that consumes poison: every 100 ms it touches five pages, each in its own way, and says
//! what it got for it.
//!
//! SErrors are unmasked while it touches and masked while it prints. Its MMU is on, so that one of
//! the pages can be a translation table.
#![no_std]
#![no_main]

mod pages;

use firebreak_abi::guest_map::VTIMER_INTID;
use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::exception::{EC_DATA_ABORT, EC_FETCH_ABORT, Kind, unexpected};
use firebreak_guest_rt::{Boot, Frame, Vector, cpu, gic, guest, mmio, println, timer};
use pages::Way;

const ROUNDS_PER_SECOND: u64 = 10;

/// What one touch got: counts, and the last of each kind. Written by the handlers.
static ABORTS: Cell64 = Cell64::new(0);
static ABORT: [Cell64; 3] = [const { Cell64::new(0) }; 3];
static SERRORS: Cell64 = Cell64::new(0);
static SERROR: [Cell64; 2] = [const { Cell64::new(0) }; 2];

fn note(count: &Cell64, cells: &[Cell64], words: &[u64]) {
    count.add(1);
    for (cell, word) in cells.iter().zip(words) {
        cell.set(*word);
    }
}

fn on_sync(frame: &mut Frame, vector: Vector) {
    match frame.class() {
        EC_DATA_ABORT => frame.skip_instruction(),
        EC_FETCH_ABORT if frame.elr == pages::page(Way::Fetch) => {
            let [.., link] = frame.x;
            note(&ABORTS, &ABORT, &[frame.esr, frame.far, frame.elr]);
            frame.elr = link;
            return;
        }
        _ => unexpected(frame, vector),
    }
    note(&ABORTS, &ABORT, &[frame.esr, frame.far, frame.elr - 4]);
}

fn on_exception(frame: &mut Frame, vector: Vector) {
    match vector.kind() {
        Kind::Irq => {
            while let Some(intid) = gic::acknowledge() {
                timer::stop();
                gic::end(intid);
            }
        }
        Kind::SError => note(&SERRORS, &SERROR, &[frame.esr, frame.elr]),
        Kind::Sync => on_sync(frame, vector),
        Kind::Fiq => unexpected(frame, vector),
    }
}

/// Touches once and tells what came of it.
fn touch(way: Way) {
    let (aborts, serrors) = (ABORTS.get(), SERRORS.get());
    cpu::unmask_serror();
    pages::touch(way);
    mask_serror();
    let name = way.name();
    if SERRORS.get() != serrors {
        let [esr, elr] = SERROR.each_ref().map(Cell64::get);
        println!("touch: serror way={name} esr={esr:#x} elr={elr:#x}");
    }
    if ABORTS.get() != aborts {
        let [esr, far, elr] = ABORT.each_ref().map(Cell64::get);
        println!("touch: abort way={name} esr={esr:#x} far={far:#x} elr={elr:#x}");
    }
}

fn mask_serror() {
    // SAFETY: delays handlers, nothing else.
    unsafe { core::arch::asm!("isb", "msr daifset, #4", options(nostack, preserves_flags)) };
}

fn sleep_until(at_ticks: u64) {
    timer::arm(at_ticks);
    while timer::now() < at_ticks {
        cpu::wfi();
    }
    timer::stop();
}

/// Says how long the devicetree is, and the sum of its bytes: whether it is the same in each life.
fn tell_devicetree(at: u64) {
    const MAGIC: u32 = 0xd00d_feed;
    let word = |offset: u64| u32::from_be(mmio::read32(at + offset));
    let bytes = if word(0) == MAGIC { word(4) } else { 0 };
    let words = (0..u64::from(bytes / 4)).map(|index| word(4 * index));
    let sum = words.fold(0, u32::wrapping_add);
    println!("touch: devicetree bytes={bytes} sum={sum:#x}");
}

fn main(boot: Boot) -> ! {
    tell_devicetree(boot.dtb_ipa);
    pages::map();
    gic::init_distributor();
    gic::init_cpu();
    gic::enable_private(VTIMER_INTID);
    for way in Way::ALL {
        println!("touch: page way={} ipa={:#x}", way.name(), pages::page(way));
    }
    println!("touch: ready");
    cpu::unmask_irq();
    let round_ticks = timer::frequency_hz() / ROUNDS_PER_SECOND;
    let mut next_at_ticks = timer::now();
    let mut round: u64 = 0;
    loop {
        Way::ALL.into_iter().for_each(touch);
        round += 1;
        println!("touch: alive n={round}");
        next_at_ticks = (next_at_ticks + round_ticks).max(timer::now());
        sleep_until(next_at_ticks);
    }
}

guest!(main, on_exception);
