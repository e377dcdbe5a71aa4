// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the reference firmware decides, apart from the machine: power states, the devicetree it
//! hands on, the host's commands, and the life of an error record.
//!
//! Neighbors: the binary of this package carries decisions out at EL3; `firebreak-contract`
//! routes; `firebreak-cper` encodes records. Nothing here touches a register or a raw address,
//! so all of it is tested on the host.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

pub mod abort;
pub mod behavior;
pub mod boot_record;
pub mod command;
pub mod errors;
pub mod fdt;
pub mod lie;
pub mod poison;
pub mod psci;
pub mod sweep;
pub mod typist;
