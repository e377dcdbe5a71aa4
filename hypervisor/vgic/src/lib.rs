// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual GICv3: distributor, redistributors and list registers as a state machine.
//!
//! A guest talks to the virtual CPU interface (`ICC_*`, list registers) without exits; what this
//! crate keeps is everything behind it. Two kinds of state:
//!
//! * [`Distributor`]: one for each partition, shared by all its PEs, plain atomics of one word
//!   for 32 INTIDs and no lock at all. An SError that arrives in the middle of any function here
//!   finds nothing that it could deadlock on.
//! * [`VcpuGic`]: one for each vCPU, owned (`&mut`) by the PE that the vCPU is pinned to. It alone
//!   touches that PE's list registers, through the [`LrBank`] that the kernel implements.
//!
//! While a vCPU is loaded, its list registers are the truth for the interrupts in them: nothing
//! is copied at exits. A PE that has something for another vCPU changes the shared state, posts
//! that vCPU's inbox, and returns the vCPU's number in [`Effects::kick`]; the kernel sends a
//! physical SGI there, and the target drains its inbox into its list registers.
//!
//! Invariants:
//!
//! 1. An INTID stands in at most one list register of the partition. For an SPI the vCPU that may
//!    hold it is named by an owner cell that is claimed by compare-and-swap.
//! 2. While interrupts wait in software because the list registers are full, none of them has a
//!    higher priority than a pending one in a list register, at least one list register is
//!    pending, and the no-pending maintenance interrupt is on.
//! 3. A software pending bit of a hardware-backed INTID means: its physical interrupt is active
//!    and is deactivated by the guest's own end of interrupt, or by [`LrBank::deactivate`].
//!
//! What the guest cannot see: pending and active bits of interrupts that stand in another vCPU's list
//! registers read as 0 (asking that PE would mean to wait for it). A write there, and a clear-pending
//! or an active-state write to another vCPU's interrupts, takes effect when its PE took the kick.
//! Interrupts of a group that the guest turned off at its own CPU interface still occupy list registers.
//!
//! The kernel orders its memory writes before the kick (`dsb ishst`, then the physical SGI).
//!
//! The guest sees one security state (`GICD_CTLR.DS` = 1), affinity routing always on, INTIDs 0 to
//! 159, no LPIs, no message-based SPIs, no 1-of-N. Group 0 interrupts are put into list registers
//! as group 0, which a guest sees as FIQ where the kernel sets `HCR_EL2.FMO`. Register names and
//! rules: Arm IHI 0069 (GICv3), chapters 4, 6 and 12; list registers: Arm DDI 0487, `ICH_*`.
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

mod common;
mod decode;
mod dist;
mod effects;
mod engine;
mod lr;
mod mmio;
mod revise;
mod sgi;
mod vcpu;
mod word;

pub use common::{CommonRegister, CommonState};
pub use dist::Distributor;
pub use effects::{Effects, HwOp, IntidIter};
pub use lr::{HcrControl, ListRegister, LrBank};
pub use sgi::SgiRegister;
pub use vcpu::VcpuGic;

/// The most vCPUs of one partition.
pub const MAX_VCPUS: usize = firebreak_abi::MAX_VCPUS_PER_PARTITION;
/// Number of INTIDs: 32 private ones and 128 SPIs.
pub const INTIDS: usize = firebreak_abi::guest_map::GUEST_INTIDS as usize;
/// Words of 32 INTIDs; word 0 is the private one.
pub(crate) const WORDS: usize = INTIDS / 32;
/// Number of SPIs.
pub(crate) const SPIS: usize = INTIDS - firebreak_abi::guest_map::FIRST_SPI as usize;

const _: () = assert!(MAX_VCPUS == 8 && INTIDS == 160);
