// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reference EL3 firmware for QEMU `virt` with `secure=on`: the thin part that touches the machine.
//!
//! What it decides is in the library `firebreak_el3` beside it and in `firebreak-contract`; this
//! binary boots every PE, moves registers, and carries decisions out. On the host it is an empty
//! program, so that commands for the whole workspace work.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod el3;

#[cfg(not(target_os = "none"))]
fn main() {}
