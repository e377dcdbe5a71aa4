// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requirements on the queue, each at every step where an SEI can strike or a context can be
//! lost; and random histories against a model.

mod held;
mod history;
mod put_off;
mod requirements;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use firebreak_abi::PeId;

use crate::hook::with_hook;
use crate::{Entry, Ring};

/// A ring small enough to wrap quickly.
type Small = Ring<u32, 4>;

const HERE: PeId = PeId(0);
const ELSEWHERE: PeId = PeId(1);

/// Runs `body` and calls `sei` once, before step number `at` (from 0) of the body; steps of the
/// SEI itself do not count. Returns whether there was such a step, and the body's result.
fn interrupt_at<R>(at: usize, sei: impl Fn() + 'static, body: impl FnOnce() -> R) -> (bool, R) {
    let steps = Rc::new(Cell::new(0));
    let inside = Cell::new(false);
    let count = Rc::clone(&steps);
    let hook = move || {
        if inside.get() {
            return;
        }
        if count.get() == at {
            inside.set(true);
            sei();
            inside.set(false);
        }
        count.set(count.get() + 1);
    };
    let result = with_hook(Rc::new(hook), body);
    (steps.get() > at, result)
}

/// Counts the steps of `body`.
fn steps_of(body: impl FnOnce()) -> usize {
    let steps = Rc::new(Cell::new(0));
    let count = Rc::clone(&steps);
    with_hook(Rc::new(move || count.set(count.get() + 1)), body);
    steps.get()
}

/// Runs `body` and loses it for good before its step number `at`. Returns its result if it had
/// finished by then.
fn lose_at<R>(at: usize, body: impl FnOnce() -> R) -> Option<R> {
    struct Lost;
    let left = Cell::new(at);
    let hook = move || match left.get() {
        0 => resume_unwind(Box::new(Lost)),
        more => left.set(more - 1),
    };
    match catch_unwind(AssertUnwindSafe(|| with_hook(Rc::new(hook), body))) {
        Ok(result) => Some(result),
        Err(payload) if payload.is::<Lost>() => None,
        Err(payload) => resume_unwind(payload),
    }
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
