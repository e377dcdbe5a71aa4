// SPDX-License-Identifier: MIT OR Apache-2.0
//! The firmware's log and command line: the secure UART, which no guest can reach.

use core::fmt;

use firebreak_drivers::pl011::Pl011;
use spin::Mutex;

use super::lock;

/// Secure PL011 of QEMU `virt`.
const SECURE_UART: usize = 0x0904_0000;
/// Looks at the lock before a line is printed without it: a torn line beats a lost one.
const SPINS: u32 = 10_000_000;

/// The UART. Its own registers are the state: nothing is cached beside them.
///
/// SAFETY: the secure PL011 stands there on QEMU `virt`, `boot.S` maps it as device memory, and
/// the normal world cannot reach it.
static UART: Mutex<Pl011> = Mutex::new(unsafe { Pl011::new(SECURE_UART) });

/// Enables the UART.
pub(super) fn init() {
    lock::with(&UART, Pl011::enable);
}

/// Lets received bytes raise INTID 40.
pub(super) fn enable_rx_interrupt() {
    lock::with(&UART, Pl011::enable_rx_interrupt);
}

/// Clears the receive interrupt; to be called before draining.
pub(super) fn clear_rx_interrupt() {
    lock::with(&UART, Pl011::clear_rx_interrupt);
}

/// Takes one received byte.
pub(super) fn read_byte() -> Option<u8> {
    lock::with(&UART, Pl011::read_byte)
}

/// Writes one line, `fw: ` before it.
pub(super) fn line(text: fmt::Arguments<'_>) {
    match lock::try_with(&UART, SPINS) {
        Some(mut uart) => write(&mut uart, text),
        None => {
            // SAFETY: as for `UART`. Its holder is stuck; the bytes may mix with the holder's,
            // which the registers stand.
            let mut uart = unsafe { Pl011::new(SECURE_UART) };
            write(&mut uart, text);
        }
    }
}

fn write(uart: &mut Pl011, text: fmt::Arguments<'_>) {
    // `Pl011` never fails; what a `Display` refuses to print is missing from the line, no more.
    let _ = fmt::Write::write_fmt(uart, format_args!("fw: {text}\n"));
}
