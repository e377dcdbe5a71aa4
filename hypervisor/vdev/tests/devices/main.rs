// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devices as their drivers see them.

mod pl011;
mod pl031;
mod watchdog;
