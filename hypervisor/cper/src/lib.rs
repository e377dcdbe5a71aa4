//! GHES status blocks and CPER sections: bounded reader and writer.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
