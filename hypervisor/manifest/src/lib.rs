// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads what Firebreak is told: the board's devicetree and the partitions' configuration.
//!
//! Three functions, used alike by the hypervisor at boot and by `firebreak check` on the host:
//! [`read_board`] says what the machine has, [`read_config`] what the partitions want, and
//! [`validate`] holds one against the other and gives each partition its memory. Nothing here
//! allocates, uses an atomic or touches a register, since it runs before the MMU is on.
//!
//! Only `tree.rs` knows the `fdt` crate. Only `value.rs` decodes cells. Every error names the
//! node and the property, or the partition, and the remedy.
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

mod board;
pub mod config;
pub mod devices;
mod error;
mod kernel_image;
mod plan;
pub mod tree;
pub mod value;

pub use board::{
    Board, Conduit, Gicv3, MAX_GICR, MAX_MEMORY, MAX_RESERVED, Sei, Source, Timer, Uart, read_board,
};
pub use config::{PartitionConfig, SystemConfig, read_config};
pub use devices::{
    Device, DeviceError, DeviceFault, DeviceList, DeviceWish, Devices, MAX_ALL_DEVICES,
    MAX_DEVICES, resolve_devices,
};
pub use error::{DtError, Fault, NodePath};
pub use firebreak_triage::Policy;
pub use firebreak_vm::RestartPolicy;
pub use kernel_image::{
    GUEST_DT_BYTES, GuestLayout, IMAGE_HEADER_LEN, KernelError, KernelImage, TooSmall, guest_layout,
};
pub use plan::{MemoryPlan, ModuleKind, PartitionFault, Placement, SystemError, validate};
pub use tree::{HEADER_LEN, MAX_DEPTH, MAX_NODES, MAX_TREE_BYTES, TreeFault, blob_len, used_len};

/// What can be wrong with a board's devicetree.
pub type BoardError<'a> = DtError<'a>;
/// What can be wrong with a configuration.
pub type ConfigError<'a> = DtError<'a>;
