// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any bytes typed on the shared line: see `checks/console.rs` for what must hold.
#![no_main]

#[path = "../checks/console.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check_console(bytes));
