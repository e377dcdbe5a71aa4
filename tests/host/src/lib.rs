//! Cross-crate properties and golden files.
#![forbid(unsafe_code)]
