// SPDX-License-Identifier: MIT OR Apache-2.0
//! Placeholder.
#![no_std]
#![no_main]
use firebreak_guest_rt as _;
