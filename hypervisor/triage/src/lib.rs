//! From evidence to verdict: a pure, total function.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
