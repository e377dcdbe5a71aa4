// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's console.
//!
//! `main` prints with [`println!`](crate::println); a handler that may interrupt it asks
//! [`is_busy`] first, so that no line is cut by another.

use crate::cell::Cell64;
use core::fmt::{self, Write};
use firebreak_abi::guest_map::UART;
use firebreak_drivers::pl011::Pl011;

static BUSY: Cell64 = Cell64::new(0);

fn uart() -> Pl011 {
    // SAFETY: the machine has a PL011 there; the MMU is off, and a guest prints from one vCPU.
    unsafe { Pl011::new(UART.get() as usize) }
}

struct Console(Pl011);

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_bytes(text.as_bytes());
        Ok(())
    }
}

/// Enables the UART. It has been done when `main` runs; needed again after a guest wrote its registers.
pub fn init() {
    uart().enable();
}

/// Says whether a line is being printed.
pub fn is_busy() -> bool {
    BUSY.get() != 0
}

/// Takes a typed byte, or `None` when there is none.
pub fn read_byte() -> Option<u8> {
    uart().read_byte()
}

/// Sends one byte as it is.
pub fn write_byte(byte: u8) {
    uart().write_byte(byte);
}

/// Prints a line; the macro [`println!`](crate::println) calls it.
pub fn print_line(arguments: fmt::Arguments<'_>) {
    let before = BUSY.get();
    BUSY.set(1);
    // Writing to this console cannot fail.
    let _ = Console(uart()).write_fmt(arguments);
    uart().write_byte(b'\n');
    BUSY.set(before);
}

/// Prints a line on the guest's console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::console::print_line(format_args!($($argument)*))
    };
}
