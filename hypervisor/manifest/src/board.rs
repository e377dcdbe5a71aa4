// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a board is made of, as far as Firebreak needs to know.
//!
//! `read.rs` fills a [`Board`] from a devicetree in one pass; a host tool may fill one from a
//! board file. `plan.rs` holds a configuration against it.

mod node;
mod properties;
mod read;

pub use read::read_board;

use firebreak_abi::{MAX_PES, Mpidr, Pa, PaRange};
use heapless::{String, Vec};

/// The most pieces of RAM.
pub const MAX_MEMORY: usize = 8;
/// The most reserved ranges.
pub const MAX_RESERVED: usize = 16;
/// The most regions of GIC redistributors.
pub const MAX_GICR: usize = 4;

/// A board.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// `model`, cut at 64 bytes; the first `compatible` when there is none.
    pub model: String<64>,
    /// RAM, in the order of the devicetree.
    pub memory: Vec<PaRange, MAX_MEMORY>,
    /// Processing elements, in the order of the devicetree.
    pub cpus: Vec<Mpidr, MAX_PES>,
    /// PEs that the devicetree names beyond the bound of this build; they stay off.
    pub cpus_beyond_limit: u32,
    /// How to call the firmware, if it says so.
    pub psci_conduit: Option<Conduit>,
    /// Interrupt controller.
    pub gicv3: Option<Gicv3>,
    /// Console.
    pub uart: Option<Uart>,
    /// Memory that is not to be given away: reservation block, `/reserved-memory`, and what was
    /// added by [`Board::reserve`].
    pub reserved: Vec<PaRange, MAX_RESERVED>,
    /// Firmware-first error sources, if the firmware describes them.
    pub sei: Option<Sei>,
    /// Interrupts of the generic timer, if described.
    pub timer: Option<Timer>,
    /// Whether `/chosen` holds partitions (a bootloader put them there).
    pub has_domains: bool,
}

impl Board {
    /// Adds a reserved range: the devicetree's own place, for example.
    ///
    /// # Errors
    ///
    /// Gives the range back when [`MAX_RESERVED`] ranges are there already.
    pub fn reserve(&mut self, range: PaRange) -> Result<(), PaRange> {
        self.reserved.push(range)
    }

    /// Says whether the board has this processing element.
    pub fn has_pe(&self, mpidr: Mpidr) -> bool {
        self.cpus.contains(&mpidr)
    }
}

/// The instruction by which PSCI is called (Arm DEN0022).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// `SMC #0`: firmware at EL3.
    Smc,
    /// `HVC #0`: a hypervisor below this one.
    Hvc,
}

/// A GICv3.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gicv3 {
    /// Distributor.
    pub gicd: PaRange,
    /// Regions of redistributors.
    pub gicr: Vec<PaRange, MAX_GICR>,
    /// INTID of the maintenance interrupt; 25 when it is not described (SBSA's choice).
    pub maintenance_intid: u32,
}

/// A PL011.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uart {
    /// Registers.
    pub base: Pa,
    /// INTID.
    pub intid: u32,
    /// `current-speed`: what the line runs at, in bits a second.
    pub current_speed: Option<u32>,
    /// Rate of its first clock, UARTCLK, if that is a fixed one.
    pub clock_hz: Option<u32>,
}

/// The generic timer's interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    /// INTID of the EL1 physical timer.
    pub physical_intid: u32,
    /// INTID of the virtual timer.
    pub virtual_intid: u32,
    /// INTID of the EL2 physical timer.
    pub hypervisor_intid: u32,
}

/// The firmware's error sources (binding: `docs/sei-contract.md`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sei {
    /// The shared region.
    pub region: PaRange,
    /// Boot error record.
    pub bert: Option<PaRange>,
    /// Memory that survives a warm reset.
    pub persistent: Option<PaRange>,
    /// One source for each PE.
    pub sources: Vec<Source, MAX_PES>,
}

/// One error source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// The PE that it serves.
    pub mpidr: Mpidr,
    /// Cell that holds the address of the status block.
    pub error_status_address: Pa,
    /// Length of the status block, in bytes.
    pub error_status_length: u32,
    /// Read-ack register.
    pub read_ack: Pa,
    /// Pending word.
    pub pending: Pa,
    /// Syndrome word.
    pub syndrome: Pa,
}
