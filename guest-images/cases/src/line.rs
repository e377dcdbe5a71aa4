// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints more than the line carries.

use firebreak_abi::guest_map::UART;
use firebreak_guest_rt::psci::{self, SecondaryStack};
use firebreak_guest_rt::{cpu, mmio, println, timer};

/// More than the hypervisor lets a guest print at once.
const FLOOD_BYTES: usize = 400_050;
/// For how long it pours.
const POUR_S: u64 = 5;

/// Prints faster than the hypervisor lets through, never looks whether there is room, and dies with
/// half a line unfinished.
pub(crate) fn flood() -> ! {
    for index in 1..=FLOOD_BYTES {
        let byte = if index % 64 == 0 { b'\n' } else { b'f' };
        // SAFETY: the UART's data register, UARTDR.
        unsafe { mmio::write32(UART.get(), byte.into()) };
    }
    psci::system_reset()
}

/// Prints as fast as it may for a while, each line with when it was begun.
pub(crate) fn pour() {
    let hz = timer::frequency_hz();
    println!("cases: pours hz={hz}");
    let (start, mut lines) = (timer::now(), 0_u64);
    while timer::now() - start < POUR_S * hz {
        println!("cases: n={lines} at={}", timer::now());
        lines += 1;
    }
    println!("cases: poured lines={lines}");
}

/// UARTFR, and its TXFF: the transmit FIFO is full.
const FR: u64 = UART.get() + 0x18;
const TXFF: u32 = 1 << 5;
/// For how long a full FIFO is looked at.
const FULL_S: u64 = 10;

fn is_full() -> bool {
    mmio::read32(FR) & TXFF != 0
}

static STACK: SecondaryStack = SecondaryStack::new();

/// Prints until there is no room, and goes off.
extern "C" fn fill() -> ! {
    while !is_full() {
        // SAFETY: the UART's data register, UARTDR.
        unsafe { mmio::write32(UART.get(), b'f'.into()) };
    }
    psci::cpu_off()
}

/// Lets the other vCPU fill the FIFO and go off, and looks whether there is room again.
pub(crate) fn fill_and_leave() {
    let answer = psci::cpu_on(1, &STACK, fill);
    while !is_full() {
        cpu::yield_now();
    }
    let start = timer::now();
    while is_full() && timer::now() - start < FULL_S * timer::frequency_hz() {
        cpu::yield_now();
    }
    let room = u8::from(!is_full());
    println!("cases: filled on={answer} room={room}");
}
