//! The SEI contract between EL3 and EL2: routing, deferral and hand-off, pure.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
