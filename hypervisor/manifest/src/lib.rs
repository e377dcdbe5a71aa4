//! Devicetree facade (sole user of the fdt crate), partition configuration, whole-system validation.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
