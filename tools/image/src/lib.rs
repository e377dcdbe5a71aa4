//! Partition files, checks, and the one bootable image.
#![forbid(unsafe_code)]
