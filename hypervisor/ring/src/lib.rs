// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NMI-safe deferred recovery queue: what an SEI handler decides now and others do later.
//!
//! One [`Ring`] per PE. The SEI contexts of that PE publish records; the same PE, and others, take
//! them, in order and each once. Between them stands `firebreak-triage`'s verdict on one side and
//! the kernel's recovery work on the other; this crate knows neither.
//!
//! The life of a record in the kernel:
//!
//! 1. SEI context: [`Ring::publish`] (a fatal one: [`Ring::publish_fatal`]). `Ok`: acknowledge the
//!    source. [`Refused`]: do not, and act on the verdict at once.
//! 2. Before a guest is entered, and before idling: while [`Ring::has_work`], [`Ring::claim`] each
//!    record, do the work, [`Ring::finish`] it (or, without a copy: [`Ring::hold`], [`Held::finish`]); then, if [`Ring::take_overflow`], look at the
//!    sources that were not acknowledged.
//! 3. When a context of the PE is thrown away: [`Ring::abandon`] on its own ring for the levels
//!    that are gone, [`Ring::release_claims`] on every ring for what it was working on.
//! 4. Dying: [`Ring::peek_all`].
//!
//! Invariants: nothing in the producer's path waits for anybody; a slot's value is touched only by
//! whom the slot's word names; a record is handed out again only if its holder is known to be lost.
//! `README.md` beside this crate has the algorithm, the reason for each memory ordering, and what was
//! rejected.
//!
//! Memory must be normal, cacheable and shareable: exclusives on anything else are not
//! architecturally defined, so a queue is of no use before EL2's stage 1 and caches are on.
#![cfg_attr(not(any(test, loom)), no_std)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod entry;
mod held;
mod peek;
mod put_off;
mod ring;
mod sync;
mod word;

pub use entry::{Counters, Entry, Position, Refused};
pub use held::Held;
pub use peek::Peeked;
pub use put_off::{PutOff, Sei};
pub use ring::{Ring, take_oldest};
pub use word::MAX_NESTING;

#[cfg(any(test, loom))]
pub mod hook;
#[cfg(all(test, not(loom)))]
mod tests;
