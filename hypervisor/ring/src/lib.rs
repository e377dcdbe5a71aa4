// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NMI-safe deferred recovery queue.
#![cfg_attr(not(any(test, loom)), no_std)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod peek;
mod ring;
mod sync;
mod word;

pub use peek::Peeked;
pub use ring::{Counters, Entry, Position, Refused, Ring, take_oldest};
pub use word::MAX_NESTING;

#[cfg(any(test, loom))]
pub mod hook;
#[cfg(all(test, not(loom)))]
mod tests;
