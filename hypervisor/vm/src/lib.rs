//! Life cycle of partitions and vCPUs: virtual PSCI, restart policy, page ownership.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
