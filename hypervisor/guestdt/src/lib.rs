//! A bounded devicetree writer, and the devicetree that a guest sees.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
