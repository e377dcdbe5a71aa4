// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any registers that a guest calls with: see `checks/hypercall.rs` for what must hold.
#![no_main]

#[path = "../checks/bytes.rs"]
mod bytes;
#[path = "../checks/hypercall.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check_hypercall(bytes));
