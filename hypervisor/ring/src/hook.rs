// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where tests interrupt the queue. Exists in tests and under `--cfg loom` only.
//!
//! A hook that uses the queue is an SEI on the same PE; a hook that unwinds is a context that was
//! lost and never comes back.

use std::cell::RefCell;
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
