// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the partitions are to be, as the configuration says it.
//!
//! The binding is described in `docs/partitions.md`. `read.rs` fills a [`SystemConfig`] from a
//! devicetree; `plan.rs` holds it against a board.

mod devices;
mod domain;
mod read;

pub use read::read_config;

use firebreak_abi::{MAX_PARTITIONS, MAX_VCPUS_PER_PARTITION, Mpidr, Pa, PaRange};
use firebreak_triage::{Iss, Policy, Reaction};
use firebreak_vm::RestartPolicy;
use heapless::{String, Vec};

use crate::devices::DeviceList;

/// The longest name of a partition: `[a-z][a-z0-9-]*`, so that it can head console lines.
pub const MAX_NAME_LEN: usize = 15;
/// The longest command line, in bytes.
pub const MAX_BOOTARGS_LEN: usize = 2047;
/// The highest restart limit.
pub const MAX_RESTART_LIMIT: u32 = 1000;

/// Spare pages of a partition that says nothing of them.
pub const DEFAULT_SPARE_PAGES: u8 = 8;
/// The most room for another kernel, in bytes.
pub const MAX_RELOAD_ROOM_BYTES: u64 = 64 << 20;
/// The longest log, in bytes: the layout knows no more entries.
pub const MAX_LOG_BYTES: u64 = 256 << 10;
/// The shortest log that holds an entry, in bytes.
pub const MIN_LOG_BYTES: u64 = 2 << 10;
/// The longest trace of a PE, in bytes.
pub const MAX_TRACE_BYTES: u64 = 32 << 10;
/// The most spare pages of one partition.
pub const MAX_SPARE_PAGES: u8 = firebreak_vm::MAX_SPARES as u8;

/// All partitions.
#[derive(Clone, Debug, Default)]
pub struct SystemConfig<'a> {
    /// In the order of the configuration, which gives the partitions their numbers.
    pub partitions: Vec<PartitionConfig<'a>, MAX_PARTITIONS>,
    /// Whether the running system takes commands on its UART.
    pub control: bool,
    /// The log that survives a reset, in bytes; 0 for none, `None` for as much as the firmware keeps.
    pub log_bytes: Option<u64>,
    /// The trace of each PE, in bytes; 0 for none.
    pub trace_bytes: u64,
}

/// One partition.
#[derive(Clone, Debug)]
pub struct PartitionConfig<'a> {
    /// Its name.
    pub name: String<MAX_NAME_LEN>,
    /// Its vCPUs; as many as `pes`.
    pub vcpus: u8,
    /// The PE that each vCPU owns. Empty if the configuration leaves the choice to Firebreak;
    /// [`crate::validate`] fills it in.
    pub pes: Vec<Mpidr, MAX_VCPUS_PER_PARTITION>,
    /// Its RAM, in bytes.
    pub memory_bytes: u64,
    /// Spare pages: what stands behind a page that was retired, from its next start on.
    pub spare_pages: u8,
    /// Room for another kernel that a command brings, in bytes: a multiple of 4 KiB. It is set aside
    /// twice, so that one can come while the other is in use.
    pub reload_room_bytes: u64,
    /// Where its RAM is to be, if the configuration chooses.
    pub memory_base: Option<Pa>,
    /// Whether the guest sees its RAM at its physical address (Xen's word for 1:1).
    pub direct_map: bool,
    /// Devices that are passed through to it.
    pub devices: DeviceList<'a>,
    /// Its kernel, as loaded.
    pub kernel: PaRange,
    /// Its initial RAM disk, as loaded.
    pub ramdisk: Option<PaRange>,
    /// Its kernel's command line; empty if there is none.
    pub bootargs: &'a str,
    /// Whether it has a PL011.
    pub console: bool,
    /// Whether its ID registers show FEAT_RAS, if the PE has it.
    pub ras_visible: bool,
    /// Whether its own external aborts go to it directly (HCR_EL2.TEA = 0), not by way of EL2.
    pub direct_aborts: bool,
    /// Whether it has a watchdog, by whose silence its death is noticed.
    pub watchdog: bool,
    /// Whether it has a pvpanic device, by which it says that it panics.
    pub pvpanic: bool,
    /// Whether it is started at boot, without being asked for.
    pub autostart: bool,
    /// When it comes back.
    pub restart: RestartPolicy,
    /// What is done about errors.
    pub policy: Policy,
}

/// Returns what is done about errors where the configuration says nothing.
///
/// A guest that does not see FEAT_RAS is told of a lost page in the one way that it can
/// understand: with an implementation-defined syndrome.
pub const fn default_policy(ras_visible: bool) -> Policy {
    let mut policy = Policy::DEFAULT;
    if !ras_visible {
        policy.uer = Reaction::Retire(Some(Iss::IMPDEF));
    }
    policy
}

/// Says whether a partition may have this name.
pub fn is_valid_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= MAX_NAME_LEN
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Names of the properties that a partition's node may have, and of those of `/chosen`.
pub mod property {
    /// In `/chosen`: the running system takes commands on its UART, no value.
    pub const CONTROL: &str = "firebreak,control";
    /// In `/chosen`: KiB of the log that survives a reset, two cells: 0, or 2 to 256.
    pub const LOG: &str = "firebreak,log";
    /// In `/chosen`: KiB of the trace of each PE, two cells, up to 32.
    pub const TRACE: &str = "firebreak,trace";
    /// vCPUs, one cell.
    pub const CPUS: &str = "cpus";
    /// RAM in KiB, two cells.
    pub const MEMORY: &str = "memory";
    /// Where its RAM is to be, two cells.
    pub const MEMORY_BASE: &str = "firebreak,memory-base";
    /// The guest sees its RAM at its physical address, no value.
    pub const DIRECT_MAP: &str = "direct-map";
    /// Paths of devices in the board's devicetree that are passed through, a list of strings.
    pub const DEVICES: &str = "firebreak,devices";
    /// For each of them one cell: 1 if its DMA is trusted.
    pub const DEVICE_DMA: &str = "firebreak,device-dma";
    /// For each of them two cells: where the guest sees its first register, 0 for the same place.
    pub const DEVICE_IPA: &str = "firebreak,device-ipa";
    /// There is a PL011, no value.
    pub const VPL011: &str = "vpl011";
    /// Affinities of the PEs, two cells for each vCPU.
    pub const MPIDR: &str = "firebreak,mpidr";
    /// `reg` of the modules counts from the start of the image, no value.
    pub const IMAGE_RELATIVE: &str = "firebreak,image-relative";
    /// Whether the guest sees FEAT_RAS, one cell, 0 or 1.
    pub const RAS_VISIBLE: &str = "firebreak,ras-visible";
    /// Whether the guest takes its external aborts itself, one cell, 0 or 1.
    pub const DIRECT_ABORTS: &str = "firebreak,direct-aborts";
    /// Whether the guest has a watchdog, one cell, 0 or 1.
    pub const WATCHDOG: &str = "firebreak,watchdog";
    /// Whether the guest has a pvpanic device, one cell, 0 or 1.
    pub const PVPANIC: &str = "firebreak,pvpanic";
    /// Whether a reset restarts it, one cell, 0 or 1.
    pub const RESTART_ON_RESET: &str = "firebreak,restart-on-reset";
    /// Whether silence restarts it, one cell, 0 or 1.
    pub const RESTART_ON_SILENCE: &str = "firebreak,restart-on-silence";
    /// Whether being killed restarts it, one cell, 0 or 1.
    pub const RESTART_ON_KILL: &str = "firebreak,restart-on-kill";
    /// How often at most, one cell.
    pub const RESTART_LIMIT: &str = "firebreak,restart-limit";
    /// Milliseconds before the first restart, one cell.
    pub const RESTART_BACKOFF: &str = "firebreak,restart-backoff";
    /// Whether it is started at boot, one cell, 0 or 1.
    pub const AUTOSTART: &str = "firebreak,autostart";
    /// Room for another kernel in KiB, two cells, a multiple of 4.
    pub const RELOAD_ROOM: &str = "firebreak,reload-room";
    /// Spare pages, one cell.
    pub const SPARE_PAGES: &str = "firebreak,spare-pages";
    /// Corrected errors on one page that retire it, one cell, 0 for never.
    pub const CORRECTED_LIMIT: &str = "firebreak,corrected-limit";
    /// One cell, in seconds: how long corrected errors of a page are counted together.
    pub const CORRECTED_WINDOW: &str = "firebreak,corrected-window";
    /// Followed by the name of a class of error: a policy word.
    pub const ON_PREFIX: &str = "firebreak,on-";
}
