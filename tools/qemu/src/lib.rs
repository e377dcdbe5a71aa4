//! Runs QEMU, and decodes what comes over its serial lines.
#![forbid(unsafe_code)]
