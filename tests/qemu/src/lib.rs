// SPDX-License-Identifier: MIT OR Apache-2.0
//! The QEMU suite is the test program `suite/main.rs`; this crate has no code of its own.
#![forbid(unsafe_code)]
