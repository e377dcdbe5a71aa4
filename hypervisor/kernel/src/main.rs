// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor: wires the decisions of the logic crates to the registers of `firebreak-arch`.
//!
//! How to read it: `early` and `boot` bring the machine up once. After that, everything starts
//! in one of four functions that `vectors.S` calls: `exits::firebreak_sync` (a guest did
//! something), `irq::firebreak_irq` (a device did), `sei::firebreak_sei_*` (memory broke), and
//! `run::firebreak_resolve` (somebody asked this PE for something before its guest goes on).
#![no_std]
#![no_main]

mod aftermath;
mod blackbox;
mod boot;
mod console;
mod control;
mod crash;
mod deadlines;
mod early;
mod exits;
mod inject;
mod irq;
mod lifecycle;
mod load;
mod lost;
mod memory;
mod mmio;
mod owners;
mod partition;
mod passthrough;
mod pe;
mod record;
mod recovery;
mod reload;
mod reports;
mod retire;
mod run;
mod sea;
mod sei;
mod sync;
mod system;
mod system_registers;
mod telling;
mod trace;
mod unnotified;
mod virq;
mod vserror;

/// A bug of Firebreak: nothing that a guest or a devicetree does may end here.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crash::panicked(info)
}
