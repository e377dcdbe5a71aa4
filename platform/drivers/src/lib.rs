// SPDX-License-Identifier: MIT OR Apache-2.0
//! Polled device drivers that EL2, EL3 and the bare-metal guests share.
//!
//! A driver here owns nothing but an address: who may use it, and when, is its caller's
//! business (the hypervisor's console lock, the firmware's log lock).
#![no_std]

pub mod pl011;
