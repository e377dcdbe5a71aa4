// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine as boot found it, and the partitions: read-only from then on.

use crate::partition::Partition;
use crate::pe::{PeBlock, PeTable};
use firebreak_abi::{MAX_PARTITIONS, Mpidr, PaRange, VmId};
use firebreak_arch::cpu::Features;
use firebreak_arch::gic::{Gic, Redistributor};
use firebreak_manifest::Sei;
use firebreak_triage::Policy;
use firebreak_vm::OwnerMap;
use heapless::Vec;
use spin::Once;

/// Ranges of physical memory with one owner each, at most: each of eight partitions has five and each
/// of eight PEs six stacks, with what nobody uses between all of them; then come the devices.
const MAX_OWNED_RANGES: usize = 320;

/// Who owns which physical memory.
pub(crate) type Owners = OwnerMap<MAX_OWNED_RANGES>;

/// Everything that is decided at boot.
pub(crate) struct System {
    /// Features of the boot PE; all PEs are taken to be alike.
    pub(crate) features: Features,
    /// MIDR_EL1, as guests read it.
    pub(crate) midr: u64,
    /// Distributor.
    pub(crate) gic: Gic,
    /// Redistributor regions.
    pub(crate) gicr: Vec<PaRange, 4>,
    /// INTID of the maintenance interrupt.
    pub(crate) maintenance_intid: u32,
    /// INTID of the physical UART.
    pub(crate) uart_intid: Option<u32>,
    /// Firmware-first error sources.
    pub(crate) sei: Option<Sei>,
    /// PEs in use.
    pub(crate) pes: PeTable,
    /// Partitions by number.
    pub(crate) partitions: Vec<&'static Partition, MAX_PARTITIONS>,
    /// Error policy of each partition.
    pub(crate) policies: Vec<Policy, MAX_PARTITIONS>,
    /// Who owns which frame.
    pub(crate) owners: &'static Owners,
    /// Whether commands are taken on the UART.
    pub(crate) control: bool,
    /// How long the log that survives a reset may be, in bytes; `None`: as long as there is room.
    pub(crate) log_bytes: Option<u64>,
}

static SYSTEM: Once<System> = Once::new();

/// Publishes the system; once, by the boot PE.
pub(crate) fn publish(system: System) -> &'static System {
    SYSTEM.call_once(|| system)
}

/// Returns the system, or `None` while boot is under way. Never waits: the SEI path asks too.
#[inline]
pub(crate) fn get() -> Option<&'static System> {
    SYSTEM.get()
}

/// Returns a partition by number.
#[inline(never)]
pub(crate) fn partition(number: u8) -> Option<&'static Partition> {
    get()?.partitions.get(usize::from(number)).copied()
}

/// Returns a partition.
pub(crate) fn partition_of(vm: VmId) -> Option<&'static Partition> {
    partition(vm.0)
}

/// Returns the block of a PE by affinity.
pub(crate) fn pe(mpidr: Mpidr) -> Option<&'static PeBlock> {
    get()?.pes.iter().find(|pe| pe.mpidr == mpidr).copied()
}

/// Finds the physical redistributor of a PE.
pub(crate) fn redistributor(mpidr: Mpidr) -> Option<Redistributor> {
    find_redistributor(&get()?.gicr, mpidr)
}

/// Finds the physical redistributor of a PE in the regions that the devicetree names.
pub(crate) fn find_redistributor(regions: &[PaRange], mpidr: Mpidr) -> Option<Redistributor> {
    regions.iter().find_map(|region| {
        // SAFETY: a redistributor region of the devicetree, mapped as Device memory at boot.
        unsafe { Redistributor::find(region.start, region.len_bytes, mpidr) }.ok()
    })
}
