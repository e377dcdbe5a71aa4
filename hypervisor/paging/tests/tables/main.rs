// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables as hardware sees them: walked by an oracle that shares no code with the crate.

mod machine;
mod model;
mod stage1;
mod stage2;
