//! Board data: only what a board's devicetree cannot tell.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
