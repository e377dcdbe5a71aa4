// SPDX-License-Identifier: MIT OR Apache-2.0
//! Emulated devices as state machines: PL011, PL031, SBSA generic watchdog, pvpanic, erased flash.
//!
//! A device knows nothing of traps, locks or clocks. The kernel decodes a guest's access into
//! an offset, a width and a value, passes the time where a device needs it, and carries out
//! what comes back: a byte for the console, a new level of the interrupt line.
//!
//! Invariants: no access a guest can make panics; a register that does not exist reads as zero
//! and ignores writes; an interrupt line's level is reported when, and only when, it changes.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

mod access;
pub mod flash;
pub mod pl011;
pub mod pl031;
pub mod pvpanic;
pub mod watchdog;

pub use access::{Effects, IrqLevel, Read};
pub use flash::ErasedFlash;
pub use pl011::Pl011;
pub use pl031::Pl031;
pub use pvpanic::Pvpanic;
pub use watchdog::{Frame, Signal, Watchdog};
