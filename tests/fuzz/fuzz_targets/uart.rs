// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any accesses to an emulated UART, and any bytes typed and printed: see `checks/uart.rs` for what must hold.
#![no_main]

#[path = "../checks/bytes.rs"]
mod bytes;
#[path = "../checks/uart.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check_uart(bytes));
