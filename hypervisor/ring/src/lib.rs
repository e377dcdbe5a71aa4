//! The NMI-safe deferred recovery queue.
#![cfg_attr(not(test), no_std)]
