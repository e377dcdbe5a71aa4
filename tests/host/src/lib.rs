// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties that take several crates to state; this crate has no code of its own.
#![forbid(unsafe_code)]
