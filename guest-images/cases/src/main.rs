// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases guest: does what a test types, a word a line, and says what came of it.
//!
//! Each word stands for something that once went wrong. It wants two vCPUs; the second one is on
//! only while `rounds` and `fill` run, in `relay` and in `watch`.
#![no_std]
#![no_main]

mod copies;
mod fresh;
mod level;
mod line;
mod power;
mod watch;

use core::str;
use firebreak_abi::guest_map::{PTIMER_INTID, VTIMER_INTID};
use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::exception::{Kind, unexpected};
use firebreak_guest_rt::{
    Boot, Frame, Vector, cpu, gic, guest, mmio, println, psci, timer, write_sysreg,
};

/// SGI that this guest sends to itself.
const SGI_INTID: u32 = 5;
/// Offsets from GICR_ISENABLER0: GICR_ICENABLER0, GICR_ISPENDR0 and GICR_ICPENDR0.
const ICENABLER: u64 = 0x80;
const ISPENDR: u64 = 0x100;
const ICPENDR: u64 = 0x180;

/// Interrupts that were taken, by INTID; one vCPU at a time takes any.
static TAKEN: [Cell64; 32] = [const { Cell64::new(0) }; 32];

/// How often an interrupt was taken.
fn taken(intid: u32) -> u64 {
    TAKEN.get(intid as usize).map_or(0, Cell64::get)
}

fn on_exception(frame: &mut Frame, vector: Vector) {
    if vector.kind() == Kind::Sync && watch::take(frame) {
        return;
    }
    if vector.kind() != Kind::Irq {
        unexpected(frame, vector);
    }
    while let Some(intid) = gic::acknowledge() {
        if level::take(intid) {
            continue;
        }
        if intid == VTIMER_INTID {
            timer::stop();
        }
        if let Some(taken) = TAKEN.get(intid as usize) {
            taken.add(1);
        }
        gic::end(intid);
    }
}

/// Asks for a suspension while an interrupt is pending in a list register.
fn suspend() {
    cpu::mask_irq();
    gic::enable_private(SGI_INTID);
    let before = taken(SGI_INTID);
    write_sysreg!(
        "s3_0_c12_c11_5",
        gic::sgi_to(cpu::index(), u64::from(SGI_INTID))
    );
    let result = psci::hvc(psci::CPU_SUSPEND, [0; 3]);
    cpu::unmask_irq();
    let came = taken(SGI_INTID) - before;
    println!("cases: suspend result={result} taken={came}");
}

/// Sleeps in the hypervisor until something is typed: the UART wakes.
fn sleep() {
    println!("cases: asleep");
    loop {
        psci::hvc(psci::CPU_SUSPEND, [0; 3]);
        if firebreak_guest_rt::console::read_byte().is_some() {
            return println!("cases: awake");
        }
    }
}

/// Sets and clears the pending latch of a timer's interrupt, whose timer is off.
fn latch(intid: u32) {
    let (base, bit) = (gic::isenabler0(), 1 << intid);
    // SAFETY: a GIC register, here and below.
    let write = |offset: u64| unsafe { mmio::write32(base + offset, bit) };
    let is_pending = || u8::from(mmio::read32(base + ISPENDR) & bit != 0);
    cpu::mask_irq();
    timer::stop();
    write(ICENABLER);
    write(ICPENDR);
    let before = (is_pending(), taken(intid));
    write(ISPENDR);
    let set = is_pending();
    write(ICPENDR);
    let cleared = is_pending();
    write(ISPENDR);
    write(0);
    cpu::unmask_irq();
    // The next exit delivers it, if it was not this one.
    psci::hvc(psci::VERSION, [0; 3]);
    let (idle, count) = before;
    let came = taken(intid) - count;
    println!("cases: latch intid={intid} idle={idle} set={set} cleared={cleared} taken={came}");
}

fn obey(word: &str) {
    match word {
        "flood" => line::flood(),
        "pour" => line::pour(),
        "fill" => line::fill_and_leave(),
        "suspend" => suspend(),
        "sleep" => sleep(),
        "latch" => {
            latch(VTIMER_INTID);
            latch(PTIMER_INTID);
        }
        "rounds" => power::rounds(),
        "relay" => power::relay(),
        "watch" => watch::run(),
        "copies" => copies::run(),
        "fresh" => fresh::tell(),
        "soil" => fresh::soil(),
        "level" => level::run(),
        "active" => level::leave_active(),
        "pending" => level::leave_pending(),
        "reset" => psci::system_reset(),
        "off" => psci::system_off(),
        _ => println!("cases: unknown word"),
    }
}

fn main(_boot: Boot) -> ! {
    fresh::look();
    gic::init_distributor();
    gic::init_cpu();
    cpu::unmask_irq();
    println!("cases: ready");
    let mut line = [0; 16];
    let mut len = 0;
    loop {
        match firebreak_guest_rt::console::read_byte() {
            None => cpu::yield_now(),
            Some(b'\n' | b'\r') => {
                let word = line.get(..len).and_then(|word| str::from_utf8(word).ok());
                len = 0;
                if let Some(word) = word.filter(|word| !word.is_empty()) {
                    obey(word);
                }
            }
            Some(byte) => {
                if let Some(slot) = line.get_mut(len) {
                    *slot = byte;
                    len += 1;
                }
            }
        }
    }
}

guest!(main, on_exception);
