// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where tests interrupt the queue. Exists in tests and under `--cfg loom` only.
//!
//! A hook that uses the queue is an SEI on the same PE; a hook that unwinds is a context that was
//! lost and never comes back.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

#[cfg(loom)]
use loom::thread_local;

type Hook = Rc<dyn Fn()>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = RefCell::new(None);
}

/// Runs this thread's hook, if it has one. The hook may use the queue: its own accesses pass
/// through here again.
pub(crate) fn step() {
    let hook = HOOK.with(|hook| hook.borrow().clone());
    if let Some(hook) = hook {
        hook();
    }
}

/// Runs `body` with a hook that is called before each of its accesses to the queue.
pub fn with_hook<R>(hook: Rc<dyn Fn()>, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<Hook>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let before = self.0.take();
            HOOK.with(|hook| *hook.borrow_mut() = before);
        }
    }
    let before = HOOK.with(|slot| slot.borrow_mut().replace(hook));
    let _restore = Restore(before);
    body()
}

/// Runs `body` and calls `sei` once, before step number `at` (from 0) of the body; steps of the
/// SEI itself do not count. Returns whether there was such a step, and the body's result.
pub fn interrupt_at<R>(at: usize, sei: impl Fn() + 'static, body: impl FnOnce() -> R) -> (bool, R) {
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

/// Runs `body` and loses it for good before its step number `at`. Returns its result if it had
/// finished by then.
pub fn lose_at<R>(at: usize, body: impl FnOnce() -> R) -> Option<R> {
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
