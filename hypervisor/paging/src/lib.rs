//! Translation tables of VMSAv8-64: stage 2 for guests, stage 1 for EL2; edits are values.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
