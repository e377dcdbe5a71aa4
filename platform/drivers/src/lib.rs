//! Polled device drivers that EL2, EL3 and the bare-metal guests share.
#![cfg_attr(not(test), no_std)]
