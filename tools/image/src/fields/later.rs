// SPDX-License-Identifier: MIT OR Apache-2.0
//! Words of both forms that are kept for later, and refused until then.

/// A word that means something, but not yet.
#[derive(Clone, Copy, Debug)]
pub struct NotYet {
    /// Its key in TOML.
    pub key: &'static str,
    /// Names of devicetree properties, or of nodes' `compatible`, that mean the same.
    pub properties: &'static [&'static str],
    /// What it would be.
    pub what: &'static str,
    /// What to do as long as it is not.
    pub remedy: &'static str,
}

const NO_SHARING: &str = "remove it: partitions share nothing but the UART";

/// Words that are kept for later, wherever they stand.
pub static NOT_YET: [NotYet; 4] = [
    NotYet {
        key: "shared_memory",
        properties: &[
            "xen,shared-mem",
            "xen,shm-id",
            "xen,domain-shared-memory-v1",
        ],
        what: "memory that partitions share",
        remedy: NO_SHARING,
    },
    NotYet {
        key: "doorbells",
        properties: &["xen,evtchn", "xen,evtchn-v1"],
        what: "interrupts from one partition to another",
        remedy: NO_SHARING,
    },
    NotYet {
        key: "schedule",
        properties: &["domain-cpupool"],
        what: "several vCPUs on one PE",
        remedy: "remove it, and give each vCPU a PE of its own",
    },
    NotYet {
        key: "cache_colors",
        properties: &["llc-colors"],
        what: "coloring of caches",
        remedy: "remove it: partitions share the caches that their PEs share",
    },
];
