// SPDX-License-Identifier: MIT OR Apache-2.0
//! The six errors of the demo, and what is known of the machine that they hit.

use std::collections::BTreeMap;

use firebreak_qemu::{Event, Raise, Record, field};

/// IDS=1: the syndrome is the implementation's own and says nothing.
const IMPDEF: u32 = 0x100_0000;
/// Deep enough in Linux's memory to be neither its kernel nor its devicetree.
const INTO_LINUX_BYTES: u64 = 0x0300_0040;

/// One error and what shall come of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Case {
    /// Corrected, in `linux`'s memory: logged, nobody notices.
    CeLinux,
    /// Recoverable, in a page of `victim`: the page is retired, the guest told.
    UerVictim,
    /// Restartable, in `linux`: told by a virtual SError, survived.
    UeoLinux,
    /// Implementation defined, in `linux`: its kernel panics, and it is restarted.
    ImpdefLinux,
    /// Unrecoverable, taken in `victim`: killed.
    UeuVictim,
    /// Uncontainable: the firmware resets the machine, and the record is found afterwards.
    UcMachine,
}

impl Case {
    /// All cases, in the order in which they are shown.
    pub(crate) const ALL: [Self; 6] = [
        Self::CeLinux,
        Self::UerVictim,
        Self::UeoLinux,
        Self::ImpdefLinux,
        Self::UeuVictim,
        Self::UcMachine,
    ];

    /// Returns the name that tables and JSON use.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CeLinux => "ce-linux",
            Self::UerVictim => "uer-victim",
            Self::UeoLinux => "ueo-linux",
            Self::ImpdefLinux => "impdef-linux",
            Self::UeuVictim => "ueu-victim",
            Self::UcMachine => "uc-machine",
        }
    }

    /// Returns what happens, for people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::CeLinux => "corrected error in linux's memory",
            Self::UerVictim => "recoverable error in a page of victim",
            Self::UeoLinux => "restartable error taken in linux",
            Self::ImpdefLinux => "unclassified error taken in linux",
            Self::UeuVictim => "unrecoverable error taken in victim",
            Self::UcMachine => "uncontainable error",
        }
    }

    /// Returns the number by which firmware and hypervisor name the error.
    pub(crate) const fn id(self) -> u64 {
        101 + self as u64
    }

    /// Returns the partition whose PE takes it.
    pub(crate) const fn partition(self) -> &'static str {
        match self {
            Self::UerVictim | Self::UeuVictim => "victim",
            _ => "linux",
        }
    }

    /// Returns its syndrome, severity in the record, and severity after triage.
    pub(crate) const fn kind(self) -> (u32, &'static str, &'static str) {
        match self {
            Self::CeLinux => (0x1811, "corrected", "CE"),
            Self::UerVictim => (0x0c11, "recoverable", "UER"),
            Self::UeoLinux => (0x0811, "recoverable", "UEO"),
            Self::ImpdefLinux => (IMPDEF, "recoverable", "IMPDEF"),
            Self::UeuVictim => (0x0411, "recoverable", "UEU"),
            Self::UcMachine => (0x0011, "fatal", "UC"),
        }
    }

    /// Returns the verdict that triage shall reach.
    pub(crate) const fn verdict(self) -> &'static str {
        match self {
            Self::CeLinux => "log",
            Self::UerVictim => "retire",
            Self::UeoLinux | Self::ImpdefLinux => "inject",
            Self::UeuVictim => "kill",
            Self::UcMachine => "reset",
        }
    }

    /// Makes the request to the firmware, or `None` when the machine lacks what it takes.
    pub(crate) fn raise(self, layout: &Layout) -> Option<Raise> {
        let partition = layout.partitions.get(self.partition())?;
        let (iss, severity, _) = self.kind();
        let raise = Raise::new(self.id(), *partition.pes.first()?, iss, severity).in_guest();
        Some(match self {
            Self::CeLinux | Self::UcMachine => {
                raise.at(partition.ram.first()?.pa + INTO_LINUX_BYTES)
            }
            Self::UerVictim => raise.at(partition.pa_of(layout.victim_page_ipa?)?),
            Self::UeoLinux | Self::ImpdefLinux | Self::UeuVictim => raise,
        })
    }
}

/// A piece of a partition's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ram {
    ipa: u64,
    pa: u64,
    len_bytes: u64,
}

/// A partition, as the hypervisor reported it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Partition {
    /// Its number.
    pub(crate) vm: u64,
    /// PE of each vCPU.
    pub(crate) pes: Vec<u8>,
    ram: Vec<Ram>,
}

impl Partition {
    fn read(event: &Event) -> Option<Self> {
        let list = |key: &str| event.value().get(key)?.as_array();
        let pes = list("pes")?
            .iter()
            .filter_map(|pe| u8::try_from(pe.as_u64()?).ok())
            .collect();
        let ram = list("ram")?.iter().filter_map(|piece| {
            let hex = |key: &str| {
                u64::from_str_radix(piece.get(key)?.as_str()?.strip_prefix("0x")?, 16).ok()
            };
            Some(Ram {
                ipa: hex("ipa")?,
                pa: hex("pa")?,
                len_bytes: hex("len")?,
            })
        });
        Some(Self {
            vm: event.num("vm")?,
            pes,
            ram: ram.collect(),
        })
    }

    /// Translates an address of the guest.
    fn pa_of(&self, ipa: u64) -> Option<u64> {
        let inside = |ram: &&Ram| {
            ipa.checked_sub(ram.ipa)
                .is_some_and(|at| at < ram.len_bytes)
        };
        self.ram
            .iter()
            .find(inside)
            .map(|ram| ram.pa + (ipa - ram.ipa))
    }
}

/// What is where, gathered from what hypervisor and guests said when they started.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Layout {
    /// Partitions by name.
    pub(crate) partitions: BTreeMap<String, Partition>,
    /// The page that the victim touches.
    pub(crate) victim_page_ipa: Option<u64>,
}

impl Layout {
    /// Gathers it.
    pub(crate) fn read(records: &[Record]) -> Self {
        let mut layout = Self::default();
        for record in records {
            let partition = record.event("partition");
            if let Some(name) = partition.and_then(|event| event.text("name"))
                && let Some(partition) = partition.and_then(Partition::read)
            {
                layout.partitions.insert(name.to_owned(), partition);
            }
            if let Some(page) = record.line("victim").and_then(|line| field(line, "page")) {
                layout.victim_page_ipa = Some(page);
            }
        }
        layout
    }
}
