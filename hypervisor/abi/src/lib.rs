// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identifiers, addresses and layouts that every part of Firebreak shares.
//!
//! Nothing here decides anything: it names things, so that a physical address
//! can never be passed where a guest's address is meant, and so that firmware,
//! hypervisor and host tool agree on the memory and the calls between them.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod addr;
pub mod guest_map;
pub mod ids;
pub mod image;
pub mod psci;
pub mod sei;

pub use addr::{Ipa, PAGE_SIZE_BYTES, Pa, PaRange, Va};
pub use ids::{MAX_PARTITIONS, MAX_PES, MAX_VCPUS_PER_PARTITION, Mpidr, PeId, VcpuId, VmId};
