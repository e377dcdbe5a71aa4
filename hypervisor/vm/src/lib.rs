// SPDX-License-Identifier: MIT OR Apache-2.0
//! Life cycle of partitions and vCPUs: virtual PSCI, restart policy, page ownership, memory plan.
//!
//! Everything here is a pure function or a plain value. The kernel keeps the state (atomics for
//! vCPU power, one [`OwnerMap`] that is written at boot only) and carries the decisions out.
//!
//! * [`psci`]: what a guest's HVC or SMC means, and what it gets.
//! * [`power`]: on, off, on-pending, as bytes for a compare-and-exchange.
//! * [`restart`]: whether a partition that stopped comes back.
//! * [`owner`]: who owns a physical page, answered in bounded time, also inside an error exception.
//! * [`frames`]: what each frame of the hypervisor's own pool is used for.
//! * [`history`]: how many corrected errors a page has had lately.
//! * [`retired`]: the pages that a partition lost for good.
//! * [`backing`]: which page stands behind each of a partition's, spares for retired ones included.
//! * [`images`]: which kernel a partition is loaded from.
//! * [`memory`]: where each partition's RAM goes; the host's checker runs the same code.
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

pub mod backing;
pub mod frames;
pub mod history;
pub mod images;
pub mod memory;
pub mod owner;
pub mod power;
pub mod psci;
pub mod restart;
pub mod retired;

pub use backing::{Backing, MAX_SPARES};
pub use firebreak_triage::{Owner, Part};
pub use frames::{FrameMap, FrameUse};
pub use history::CorrectedErrors;
pub use images::{KernelSource, Kernels};
pub use memory::{PlanError, Request, plan_memory};
pub use owner::{Owned, OwnerMap, OwnerMapError};
pub use power::VcpuPower;
pub use psci::{Call, Machine, Outcome, decode_call, handle};
pub use restart::{Next, RestartPolicy, StopCause, StopReason};
pub use retired::{RetiredPage, RetiredPages, RetiredPagesFull};
