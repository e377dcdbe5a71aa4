// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requirements on the queue, each at every step where an SEI can strike or a context can be
//! lost; and random histories against a model.

mod held;
mod history;
mod put_off;
mod requirements;

use std::cell::Cell;
use std::rc::Rc;

use firebreak_abi::PeId;

use crate::hook::{interrupt_at, lose_at, with_hook};
use crate::{Entry, Ring};

/// A ring small enough to wrap quickly.
type Small = Ring<u32, 4>;

const HERE: PeId = PeId(0);
const ELSEWHERE: PeId = PeId(1);

/// Counts the steps of `body`.
fn steps_of(body: impl FnOnce()) -> usize {
    let steps = Rc::new(Cell::new(0));
    let count = Rc::clone(&steps);
    with_hook(Rc::new(move || count.set(count.get() + 1)), body);
    steps.get()
}

/// Takes everything.
fn drain<T: Copy, const N: usize>(ring: &Ring<T, N>) -> Vec<Entry<T>> {
    core::iter::from_fn(|| ring.take(HERE)).collect()
}

fn values<T: Copy, const N: usize>(ring: &Ring<T, N>) -> Vec<T> {
    drain(ring).into_iter().map(|entry| entry.value).collect()
}

/// Publishes, whatever comes of it.
fn offer<T: Copy, const N: usize>(ring: &Ring<T, N>, stamp_ticks: u64, nesting: u8, value: T) {
    let _ = ring.publish(stamp_ticks, nesting, value);
}

/// Publishes into a queue that has room.
fn put<T: Copy, const N: usize>(ring: &Ring<T, N>, stamp_ticks: u64, nesting: u8, value: T) {
    ring.publish(stamp_ticks, nesting, value).unwrap();
}
