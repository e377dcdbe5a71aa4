// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any bytes as a devicetree: see `checks/devicetree.rs` for what must hold.
#![no_main]

#[path = "../checks/bytes.rs"]
mod bytes;
#[path = "../checks/devicetree.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check_devicetree(bytes));
