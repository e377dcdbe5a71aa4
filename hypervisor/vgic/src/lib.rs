//! The virtual GICv3: distributor, redistributors and list registers as a state machine.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
