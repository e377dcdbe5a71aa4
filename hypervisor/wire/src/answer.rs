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
    /// What was counted on each PE, in their order.
    Pes(&'a [PeRow]),
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
}

/// One PE in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeRow {
    /// Its number.
    pub pe: u8,
    /// Errors that firmware handed over to it.
    pub seis: u64,
}

impl Detail<'_> {
    pub(crate) fn members(&self, o: &mut Object<'_>) {
        match *self {
            Self::None => {}
            Self::Partitions(rows) => {
                o.array("partitions", rows, |w, row| row.write(w));
            }
            Self::Injection(inj) => {
                o.num("inj", inj);
            }
            Self::Pes(rows) => {
                o.array("pes", rows, |w, row| row.write(w));
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
            .num("retired", self.retired);
        o.close()
    }
}

impl PeRow {
    fn write(&self, w: &mut dyn Write) -> fmt::Result {
        let mut o = Object::open(w);
        o.num("pe", u64::from(self.pe)).num("seis", self.seis);
        o.close()
    }
}
