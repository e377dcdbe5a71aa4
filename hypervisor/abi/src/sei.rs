// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory and calls that EL3 firmware and the hypervisor share.
//!
//! The binding in `docs/sei-contract.md` says what each word means and who may write it when.
//! The hypervisor takes every address from the devicetree; the offsets here are how the
//! reference firmware lays its own region out, and how the two agree on a source's page.
//!
//! All numbers are little endian.

/// `compatible` of the devicetree node that describes the region and its sources.
pub const COMPATIBLE: &str = "firebreak,sei-1";

/// One 4 KiB page for each PE: the error source of that PE.
pub mod source {
    /// Error status address: 8-byte cell that holds the PA of the status block (GHESv2, ACPI 18.3.2.8).
    pub const ERROR_STATUS_ADDRESS: u64 = 0x000;
    /// Read-ack register: 1 when the block may be written, 0 while a record is outstanding.
    pub const READ_ACK: u64 = 0x008;
    /// Pending word: not 0 while a deferred record stands in the block that nobody took.
    pub const PENDING: u64 = 0x010;
    /// Syndrome (ISS, 25 bits) of the record that stands in the block, for a deferred record
    /// that EL2 pulls: it has no ESR_EL2 of its own.
    pub const SYNDROME: u64 = 0x018;
    /// Counters of the firmware, 8 bytes each, never reset while the machine runs.
    pub const COUNT_RAISED: u64 = 0x020;
    /// Records handed over by an SEI.
    pub const COUNT_DELIVERED: u64 = 0x028;
    /// Hand-overs that had to be put off.
    pub const COUNT_DEFERRED: u64 = 0x030;
    /// Records lost by the firmware (goal: never).
    pub const COUNT_DROPPED: u64 = 0x038;
    /// The status block.
    pub const STATUS_BLOCK: u64 = 0x100;
    /// Length of the status block, in bytes.
    pub const STATUS_BLOCK_LEN: u64 = 0x700;
    /// Distance from one PE's page to the next, in bytes.
    pub const STRIDE: u64 = 0x1000;
    /// Value of the read-ack register when the block is free.
    pub const ACKED: u64 = 1;
}

/// Devicetree property of a source node: PA of the error status address cell.
pub const PROP_ERROR_STATUS_ADDRESS: &str = "firebreak,error-status-address";
/// Devicetree property of a source node: length of its status block in bytes (one cell).
pub const PROP_ERROR_STATUS_LENGTH: &str = "firebreak,error-status-length";
/// Devicetree property of a source node: PA of the read-ack register.
pub const PROP_READ_ACK: &str = "firebreak,read-ack";
/// Devicetree property of a source node: PA of the pending word.
pub const PROP_PENDING: &str = "firebreak,pending";
/// Devicetree property of a source node: PA of the syndrome word.
pub const PROP_SYNDROME: &str = "firebreak,syndrome";
/// Devicetree property of the region's node: boot error record region (base, length).
pub const PROP_BERT: &str = "firebreak,boot-error-record";
/// Devicetree property of the region's node: memory that survives a warm reset and that the
/// hypervisor may use for its crash page and log (base, length).
pub const PROP_PERSISTENT: &str = "firebreak,persistent";

/// Where the reference firmware puts things on QEMU `virt`.
pub mod qemu_virt {
    /// Shared region: sources, boot error record, persistent memory. Not secure, outside of
    /// every loader blob, reserved by the devicetree.
    pub const REGION: u64 = 0x4010_0000;
    /// Its length in bytes.
    pub const REGION_LEN: u64 = 0x10_0000;
    /// Boot error record region, inside the shared region.
    pub const BERT: u64 = REGION + 0x8_0000;
    /// Its length in bytes.
    pub const BERT_LEN: u64 = 0x1000;
    /// Persistent memory, inside the shared region.
    pub const PERSISTENT: u64 = REGION + 0x9_0000;
    /// Its length in bytes.
    pub const PERSISTENT_LEN: u64 = 0x7_0000;
    /// Where the hypervisor's image is loaded and entered.
    pub const IMAGE: u64 = 0x4020_0000;
    /// Where QEMU leaves the devicetree, and where the firmware leaves the extended one.
    pub const DTB: u64 = 0x4000_0000;
    /// Space for the devicetree, in bytes.
    pub const DTB_LEN: u64 = 0x10_0000;
}

/// SMC calls of the reference firmware: OEM service range, 64-bit, fast calls (SMCCC 1.2, table 6-2).
///
/// Only EL2 may call them. From EL1 they never arrive: the hypervisor traps every SMC.
pub mod smc {
    /// Returns the interface version: major in \[31:16\], minor in \[15:0\].
    pub const VERSION: u64 = 0xc300_f000;
    /// Raises an error: x1 = ISS (25 bits), x2 = PA or [`NO_ADDRESS`], x3 = CPER severity,
    /// x4 = logical number of the PE, x5 = delay in ticks of CNTPCT (0: before the call returns).
    pub const RAISE: u64 = 0xc300_f001;
    /// Resets the machine and leaves a boot error record: x1 = PA of a status block, x2 = length.
    pub const FATAL: u64 = 0xc300_f002;
    /// Says that this PE's EL2 unmasked SError: deferred records are tried at once.
    pub const UNMASKED: u64 = 0xc300_f003;
    /// x2 of [`RAISE`] when the record names no address.
    pub const NO_ADDRESS: u64 = u64::MAX;
    /// Interface version 1.0.
    pub const INTERFACE_VERSION: u64 = 0x1_0000;
}
