// SPDX-License-Identifier: MIT OR Apache-2.0
//! What touches a system register at EL2.
//!
//! Nothing here decides anything. The logic crates decide and return values; this crate carries
//! them out: vectors and guest entry, translation registers, the GICv3 CPU interface, timers,
//! PSCI calls, cache maintenance. Raw register writes stay inside: what is exported is an
//! operation with a meaning, and it orders itself against memory.
//!
//! Assumes: EL2 with E2H = 0, AArch64 at EL1, GICv3 with system registers, 4 KiB granule.
#![no_std]

pub mod cache;
pub mod cpu;
pub mod frame;
pub mod gic;
pub mod guest;
pub mod hcr;
pub mod mmu;
pub mod psci;
pub mod spi;
pub mod sysreg;
pub mod timer;
pub mod windows;

pub use firebreak_context::{NmiCtx, TaskCtx};
pub use frame::{Frame, PeHead, SeiLevel};
