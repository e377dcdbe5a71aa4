// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any bytes as an error record: see `checks/cper.rs` for what must hold.
#![no_main]

#[path = "../checks/cper.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check_reader(bytes));
