// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events of the end, and of the boot behind it: crash page, boot error record, log.

use crate::answer::ExitRow;
use crate::event::RecordSource;
use crate::json::{Object, write_quoted_hex};

/// A boot error record: the boot before this one ended with an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootErrorRecord<'a> {
    /// Which record of the region, from 1.
    pub number: u64,
    /// As in [`crate::ErrorEvent::severity`].
    pub severity: &'a str,
    /// As in [`crate::ErrorEvent::cper`].
    pub cper: &'a str,
    /// ISS of the error.
    pub iss: Option<u64>,
    /// PE that took it.
    pub pe: Option<u8>,
    /// Partition that it interrupted.
    pub vm: Option<u8>,
    /// Its name, unless the configuration has changed since.
    pub name: Option<&'a str>,
    /// vCPU inside the partition.
    pub vcpu: Option<u8>,
    /// `el0`, `el1`, `el2` or `el3`.
    pub from: Option<&'a str>,
    /// Interrupted program counter.
    pub pc: Option<u64>,
    /// Physical address that the record names.
    pub pa: Option<u64>,
    /// Number of the error.
    pub id: Option<u64>,
    /// CNTPCT when the record was made.
    pub at: Option<u64>,
    /// Whether the error was raised on demand.
    pub simulated: bool,
    /// Who left the record.
    pub source: RecordSource,
}

impl BootErrorRecord<'_> {
    pub(crate) fn members(&self, o: &mut Object<'_>) {
        o.text("severity", self.severity).opt_hex("iss", self.iss);
        o.opt_num("pe", self.pe.map(u64::from))
            .opt_num("vm", self.vm.map(u64::from))
            .opt_hex("pc", self.pc)
            .opt_hex("pa", self.pa);
        o.text("source", self.source.as_str())
            .num("number", self.number)
            .text("cper", self.cper);
        o.opt_text("name", self.name)
            .opt_num("vcpu", self.vcpu.map(u64::from))
            .opt_text("from", self.from)
            .opt_num("id", self.id)
            .opt_num("at", self.at);
        o.flag("simulated", self.simulated);
    }
}

/// A crash page, when the hypervisor fails and again at the next boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crash<'a> {
    /// Whether the boot before this one left it.
    pub replayed: bool,
    /// Whether the page is whole. If not, each member is what happened to stand there.
    pub whole: bool,
    /// How often the hypervisor failed again while it wrote and told this.
    pub failures: u64,
    /// Number of the boot, 0 if there is no log to count them.
    pub boot: u64,
    /// CNTPCT when it failed.
    pub at: u64,
    /// PE that failed.
    pub pe: u8,
    /// `panic`, `exception`, `error` or `unknown`.
    pub kind: &'a str,
    /// Slot of the vector table.
    pub vector: u64,
    /// Partition whose vCPU lives on the PE.
    pub vm: Option<u8>,
    /// Its name, unless the configuration has changed since.
    pub name: Option<&'a str>,
    /// vCPU inside the partition.
    pub vcpu: Option<u8>,
    /// Program counter, if it is known.
    pub pc: Option<u64>,
    /// Registers and other words by name.
    pub words: &'a [(&'a str, u64)],
    /// Return addresses on the stack, innermost first.
    pub calls: &'a [u64],
    /// x0 to x30; empty if they were not saved.
    pub x: &'a [u64],
    /// The last exits on that PE, oldest first, if there is a trace.
    pub exits: &'a [ExitRow],
    /// What it said.
    pub text: &'a str,
    /// Records that did not fit into the page.
    pub left_out: u64,
}

impl Crash<'_> {
    pub(crate) fn members(&self, o: &mut Object<'_>) {
        o.flag("replayed", self.replayed)
            .flag("whole", self.whole)
            .num("failures", self.failures)
            .num("boot", self.boot)
            .num("at", self.at)
            .num("pe", u64::from(self.pe));
        o.text("kind", self.kind)
            .num("vector", self.vector)
            .opt_num("vm", self.vm.map(u64::from))
            .opt_text("name", self.name)
            .opt_num("vcpu", self.vcpu.map(u64::from))
            .opt_hex("pc", self.pc);
        for (name, value) in self.words {
            o.hex(name, *value);
        }
        o.array("calls", self.calls, |w, value| write_quoted_hex(w, *value));
        o.array("x", self.x, |w, value| write_quoted_hex(w, *value));
        if !self.exits.is_empty() {
            o.array("exits", self.exits, |w, exit| exit.write(w));
        }
        o.text("text", self.text).num("left_out", self.left_out);
    }
}

/// An error record that waited in a queue when the hypervisor failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashRecord<'a> {
    /// Whether the boot before this one left it.
    pub replayed: bool,
    /// PE whose queue it stood in.
    pub pe: u8,
    /// `waiting`, `in-hands`, `unpublished` or `fatal`.
    pub state: &'a str,
    /// CNTPCT when it was published.
    pub at: u64,
    /// Severity of the firmware's record, as ACPI encodes it.
    pub cper: Option<u8>,
    /// ISS of the error.
    pub iss: Option<u64>,
    /// Interrupted program counter.
    pub pc: Option<u64>,
    /// Physical address that the record names.
    pub pa: Option<u64>,
    /// Number of the error.
    pub id: Option<u64>,
    /// Partition whose vCPU lives on the PE.
    pub vm: Option<u8>,
    /// vCPU inside the partition.
    pub vcpu: Option<u8>,
    /// The first 16 characters of what was decided.
    pub verdict: &'a str,
}

impl CrashRecord<'_> {
    pub(crate) fn members(&self, o: &mut Object<'_>) {
        o.flag("replayed", self.replayed)
            .num("pe", u64::from(self.pe))
            .text("state", self.state)
            .num("at", self.at)
            .opt_num("cper", self.cper.map(u64::from))
            .opt_hex("iss", self.iss);
        o.opt_hex("pc", self.pc)
            .opt_hex("pa", self.pa)
            .opt_num("id", self.id)
            .opt_num("vm", self.vm.map(u64::from))
            .opt_num("vcpu", self.vcpu.map(u64::from))
            .text("verdict", self.verdict);
    }
}

/// An entry of the log that the boot before this one left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogEntry<'a> {
    /// Its number, counted over all boots.
    pub number: u64,
    /// Number of the boot that made it.
    pub boot: u64,
    /// CNTPCT of that boot.
    pub at: u64,
    /// PE that made it.
    pub pe: u8,
    /// Whether it was too long for the log.
    pub cut: bool,
    /// The event as it was, one JSON object unless it was cut: as text, because what stood in
    /// memory over a reset is not trusted to be JSON.
    pub text: &'a str,
}

impl LogEntry<'_> {
    pub(crate) fn members(&self, o: &mut Object<'_>) {
        o.num("number", self.number)
            .num("boot", self.boot)
            .num("at", self.at)
            .num("pe", u64::from(self.pe));
        o.flag("cut", self.cut).text("text", self.text);
    }
}
