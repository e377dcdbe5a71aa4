// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints more than the line carries.

use firebreak_abi::guest_map::UART;
use firebreak_guest_rt::{mmio, println, psci, timer};

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
