// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who owns an address, and what depends on the memory there.

use firebreak_abi::VmId;

/// Who owns an address. Each frame has one owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// One partition.
    Partition(VmId),
    /// A region that several partitions map.
    Shared,
    /// Stage-2 tables of one partition.
    Stage2Tables(VmId),
    /// Images that one partition is loaded from, whenever it starts.
    Payload(VmId),
    /// The hypervisor.
    Hypervisor(Part),
    /// The firmware.
    Firmware,
    /// A device: there is no page to take away.
    Device,
    /// Memory that nobody uses, or that only boot used.
    Unused,
    /// Nobody that is known.
    Unknown,
}

/// A part of the hypervisor's own memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Code.
    Text,
    /// Constants, and the configuration that it was built with.
    ReadOnly,
    /// Variables, PE blocks, state of partitions.
    Data,
    /// Stacks of the PEs in use.
    Stack,
    /// EL2's own translation tables.
    Tables,
    /// A frame of the private pool that nobody has.
    Pool,
    /// Crash page and log, which survive a warm reset.
    Log,
}

/// What becomes of the rest of the machine when memory of an owner goes bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stake {
    /// Everything rests on it.
    Machine,
    /// One partition's page: its policy decides.
    Page(VmId),
    /// A page of several partitions.
    SharedPage,
    /// One partition rests on it, and cannot run without.
    Partition(VmId),
    /// The hypervisor can do without it from now on.
    Dispensable,
    /// Nothing.
    Nothing,
    /// There is no memory to say anything about.
    NoPage,
}

impl Owner {
    /// Returns one of each, in the order of the documentation; `vm` is the partition.
    pub const fn all(vm: VmId) -> [Self; 15] {
        [
            Self::Partition(vm),
            Self::Shared,
            Self::Stage2Tables(vm),
            Self::Payload(vm),
            Self::Hypervisor(Part::Text),
            Self::Hypervisor(Part::ReadOnly),
            Self::Hypervisor(Part::Data),
            Self::Hypervisor(Part::Stack),
            Self::Hypervisor(Part::Tables),
            Self::Hypervisor(Part::Pool),
            Self::Hypervisor(Part::Log),
            Self::Firmware,
            Self::Device,
            Self::Unused,
            Self::Unknown,
        ]
    }

    /// Returns the word that events use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Partition(_) => "partition",
            Self::Shared => "shared",
            Self::Stage2Tables(_) => "stage2-tables",
            Self::Payload(_) => "payload",
            Self::Hypervisor(Part::Text) => "hypervisor-text",
            Self::Hypervisor(Part::ReadOnly) => "hypervisor-rodata",
            Self::Hypervisor(Part::Data) => "hypervisor-data",
            Self::Hypervisor(Part::Stack) => "hypervisor-stack",
            Self::Hypervisor(Part::Tables) => "hypervisor-tables",
            Self::Hypervisor(Part::Pool) => "hypervisor-pool",
            Self::Hypervisor(Part::Log) => "hypervisor-log",
            Self::Firmware => "firmware",
            Self::Device => "device",
            Self::Unused => "unused",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the partition that the memory serves, if it is one.
    pub const fn vm(self) -> Option<VmId> {
        match self {
            Self::Partition(vm) | Self::Stage2Tables(vm) | Self::Payload(vm) => Some(vm),
            _ => None,
        }
    }

    /// Says for people what an uncorrected error in such memory costs, and why.
    pub const fn consequence(self) -> &'static str {
        match self {
            Self::Partition(_) => "The partition loses the page, by its policy.",
            Self::Shared => "All that map the page lose it.",
            Self::Stage2Tables(_) => {
                "A walk of any of its vCPUs may read the bad descriptor, so the partition is \
                 stopped, whatever milder its policy says. If it is started again, it gets new \
                 tables in other frames; the bad one is never used again."
            }
            Self::Payload(_) => {
                "The running partition was copied from it and is not hit. It cannot be loaded \
                 again: when it stops, it stays down."
            }
            Self::Hypervisor(Part::Text) => {
                "The machine is reset. There is no second copy that EL2's code could be loaded \
                 from again, and the other PEs execute it meanwhile; a reset loads it afresh."
            }
            Self::Hypervisor(Part::ReadOnly) => {
                "The machine is reset: constants and configuration have no second copy either."
            }
            Self::Hypervisor(Part::Data) => {
                "The machine is reset: state of every partition is lost, and nobody knows which."
            }
            Self::Hypervisor(Part::Stack) => {
                "The machine is reset: the PE that runs on it cannot tell where to return to, \
                 and may hold a lock."
            }
            Self::Hypervisor(Part::Tables) => {
                "The machine is reset: any access of any PE at EL2 may walk the bad descriptor."
            }
            Self::Hypervisor(Part::Pool) => {
                "The frame is taken out of the pool and never handed out. Nobody is hit."
            }
            Self::Hypervisor(Part::Log) => {
                "Crash page and log are not written any more. Nobody is hit."
            }
            Self::Firmware => "The machine is reset: errors arrive through this memory.",
            Self::Device => "There is no page to take away: the interrupted context decides.",
            Self::Unused => "Nobody is hit, and nobody will be given it.",
            Self::Unknown => "Nobody knows whom it hits: the interrupted context decides.",
        }
    }

    /// Returns what is at stake.
    pub(crate) const fn stake(self) -> Stake {
        match self {
            Self::Partition(vm) => Stake::Page(vm),
            Self::Shared => Stake::SharedPage,
            Self::Stage2Tables(vm) => Stake::Partition(vm),
            Self::Payload(_) | Self::Hypervisor(Part::Pool | Part::Log) => Stake::Dispensable,
            Self::Hypervisor(_) | Self::Firmware => Stake::Machine,
            Self::Unused => Stake::Nothing,
            Self::Device | Self::Unknown => Stake::NoPage,
        }
    }
}
