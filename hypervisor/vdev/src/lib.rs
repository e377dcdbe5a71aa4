//! Emulated devices as state machines: PL011, PL031, SBSA watchdog.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
