// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks that the SEI path cannot take.

pub(crate) use firebreak_context::{FairGuard, FairLock, Guard, Lock};
