// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the answer to a command says besides whether it was done.

use core::fmt::{self, Write};

use crate::json::Object;

/// What an answer says besides whether it was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail<'a> {
    /// Nothing.
    None,
    /// Every partition.
    Partitions(&'a [PartitionRow<'a>]),
    /// Identity of the injection, as its events carry it.
    Injection(u64),
    /// Where the next piece of an image begins, in bytes.
    Next(u64),
    /// What was counted.
    Stats(&'a Stats<'a>),
    /// Exits of a vCPU, newest first.
    Exits(&'a [ExitRow]),
}

/// What was counted: of what a system could run out of, and of errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats<'a> {
    /// Each PE, in their order.
    pub pes: &'a [PeRow],
    /// Each partition, in their order.
    pub partitions: &'a [UsageRow],
    /// Frames of the hypervisor's pool that nobody has.
    pub pool_free: u64,
    /// Frames of the pool that are never used again.
    pub pool_retired: u64,
}

/// What a partition holds of the hypervisor, in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UsageRow {
    /// Its number.
    pub vm: u8,
    /// Its VMID, as VTTBR_EL2 has it.
    pub vmid: u64,
    /// Frames of the pool that hold its stage-2 tables.
    pub tables: u64,
    /// Virtual interrupts that are enabled.
    pub irqs_enabled: u64,
    /// Virtual interrupts that are pending or active, or whose line is high.
    pub irqs_raised: u64,
    /// Interrupts of its passed-through devices that were put into list registers.
    pub irqs_forwarded: u64,
}

/// One partition in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionRow<'a> {
    /// Its number.
    pub vm: u8,
    /// Its name.
    pub name: &'a str,
    /// `running`, `stopping`, `starting` or `stopped`.
    pub state: &'a str,
    /// How often it was restarted.
    pub restarts: u64,
    /// vCPUs that are on.
    pub vcpus_on: u64,
    /// Pages taken away for good.
    pub retired: u64,
    /// Good spare pages that nobody uses.
    pub spares: u64,
    /// `boot`, or `reloaded`: which kernel it is loaded from.
    pub kernel: &'a str,
}

/// One exit of a guest, in an answer and in a crash page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitRow {
    /// Its number, counted from 1 since boot; `None` in a crash page.
    pub number: Option<u64>,
    /// CNTPCT.
    pub at: u64,
    /// The guest's PC.
    pub pc: u64,
    /// ESR_EL2, of an exception.
    pub esr: Option<u64>,
    /// INTID, of an interrupt.
    pub intid: Option<u32>,
    /// IPA of an abort, else x0.
    pub about: u64,
}

/// One PE in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeRow {
    /// Its number.
    pub pe: u8,
    /// Errors that firmware handed over to it.
    pub seis: u64,
    /// Error records in its queue.
    pub waiting: u64,
    /// Maintenance interrupts of its virtual CPU interface.
    pub maintenance: u64,
}

impl Detail<'_> {
    pub(crate) fn members(&self, o: &mut Object<'_>) {
        match *self {
            Self::None => {}
            Self::Partitions(rows) => {
                o.array("partitions", rows, |w, row| row.write(w));
            }
            Self::Next(next) => {
                o.num("next", next);
            }
            Self::Injection(inj) => {
                o.num("inj", inj);
            }
            Self::Stats(stats) => {
                o.array("pes", stats.pes, |w, row| row.write(w));
                o.array("usage", stats.partitions, |w, row| row.write(w));
                o.num("pool_free", stats.pool_free)
                    .num("pool_retired", stats.pool_retired);
            }
            Self::Exits(rows) => {
                o.array("exits", rows, |w, row| row.write(w));
            }
        }
    }
}

impl PartitionRow<'_> {
    fn write(&self, w: &mut dyn Write) -> fmt::Result {
        let mut o = Object::open(w);
        o.num("vm", u64::from(self.vm))
            .text("name", self.name)
            .text("state", self.state)
            .num("restarts", self.restarts);
        o.num("vcpus_on", self.vcpus_on)
            .num("retired", self.retired)
            .num("spares", self.spares)
            .text("kernel", self.kernel);
        o.close()
    }
}

impl ExitRow {
    pub(crate) fn write(&self, w: &mut dyn Write) -> fmt::Result {
        let mut o = Object::open(w);
        o.opt_num("n", self.number)
            .num("at", self.at)
            .hex("pc", self.pc)
            .opt_hex("esr", self.esr)
            .opt_num("intid", self.intid.map(u64::from));
        if self.esr.is_some() {
            o.hex("about", self.about);
        }
        o.close()
    }
}

impl PeRow {
    fn write(&self, w: &mut dyn Write) -> fmt::Result {
        let mut o = Object::open(w);
        o.num("pe", u64::from(self.pe))
            .num("seis", self.seis)
            .num("waiting", self.waiting)
            .num("maintenance", self.maintenance);
        o.close()
    }
}

impl UsageRow {
    fn write(&self, w: &mut dyn Write) -> fmt::Result {
        let mut o = Object::open(w);
        o.num("vm", u64::from(self.vm))
            .num("vmid", self.vmid)
            .num("tables", self.tables)
            .num("irqs_enabled", self.irqs_enabled)
            .num("irqs_raised", self.irqs_raised)
            .num("irqs_forwarded", self.irqs_forwarded);
        o.close()
    }
}
