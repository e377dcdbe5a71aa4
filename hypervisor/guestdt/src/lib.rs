// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes devicetrees: the one that a guest sees, and, on the host, a configuration.
//!
//! [`FdtWriter`] is bounded and never panics; [`write_guest_dt`] describes the machine of
//! [`firebreak_abi::guest_map`] with it. The hypervisor writes the guest's tree anew at each
//! start of a partition, so that it names the pages that were retired since.
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

mod device;
mod guest;
mod writer;

pub use device::{GuestDevice, interrupt_cells, write_device};
pub use guest::{GuestMachine, write_guest_dt, write_guest_dt_with};
pub use writer::{FdtWriter, MAX_NAMES, MAX_NAMES_BYTES, WriteError};
