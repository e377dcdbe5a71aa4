//! The QEMU suite.
#![forbid(unsafe_code)]
