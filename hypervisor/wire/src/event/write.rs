// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events as bytes.

use core::fmt::{self, Write};

use super::{ErrorEvent, Event, Level, Ram, SCHEMA_VERSION};
use crate::json::{Object, write_decimal};

impl Event<'_> {
    /// Returns the value of `ev`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Boot { .. } => "boot",
            Self::Partition { .. } => "partition",
            Self::Started { .. } => "started",
            Self::Error(_) => "error",
            Self::Vserror { .. } => "vserror",
            Self::Retired { .. } => "retired",
            Self::Abort { .. } => "abort",
            Self::Undef { .. } => "undef",
            Self::Killed { .. } => "killed",
            Self::Restart { .. } => "restart",
            Self::Stopped { .. } => "stopped",
            Self::Watchdog { .. } => "watchdog",
            Self::Pvpanic { .. } => "pvpanic",
            Self::Suppressed { .. } => "suppressed",
            Self::BootErrorRecord(_) => "boot-error-record",
            Self::Unclaimed { .. } => "unclaimed",
            Self::Unnotified { .. } => "unnotified",
            Self::Panic { .. } => "panic",
            Self::Halt { .. } => "halt",
            Self::Vsea { .. } => "vsea",
            Self::Answer { .. } => "answer",
            Self::GivenUp { .. } => "given-up",
            Self::Crash(_) => "crash",
            Self::CrashRecord(_) => "crash-record",
            Self::Log(_) => "log",
            Self::Queue { .. } => "queue",
            Self::Spare { .. } => "spare",
        }
    }

    fn members(&self, o: &mut Object<'_>) {
        match *self {
            Self::Boot {
                version,
                board,
                pes,
                ras,
                firmware,
                partitions,
                line,
            } => {
                o.text("version", version)
                    .text("board", board)
                    .num("pes", pes);
                o.flag("ras", ras)
                    .opt_text("firmware", firmware)
                    .num("partitions", partitions)
                    .opt_num("line", line.map(u64::from));
            }
            Self::Partition {
                vm,
                name,
                vcpus,
                pes,
                ram,
            } => {
                who(o, vm, name).num("vcpus", vcpus);
                o.array("pes", pes, |w, pe| write_decimal(w, u64::from(*pe)));
                o.array("ram", ram, write_ram);
            }
            Self::Started { vm, name, restarts } => {
                who(o, vm, name).num("restarts", restarts);
            }
            Self::Error(ref error) => error.members(o),
            Self::Vserror {
                vm,
                vcpu,
                inj,
                syndrome,
                state,
                elr,
                el,
                exact,
            } => {
                at(o, vm, vcpu)
                    .num("inj", inj)
                    .opt_hex("syndrome", syndrome);
                o.text("state", state.as_str()).opt_hex("elr", elr);
                o.opt_text("el", el.map(Level::as_str)).flag("exact", exact);
            }
            Self::Retired { vm, ipa, pa } => {
                o.num("vm", u64::from(vm)).hex("ipa", ipa).hex("pa", pa);
            }
            Self::Abort {
                vm,
                vcpu,
                ipa,
                far,
                pc,
                write,
                retired,
            } => {
                at(o, vm, vcpu)
                    .hex("ipa", ipa)
                    .hex("far", far)
                    .hex("pc", pc);
                o.flag("write", write).flag("retired", retired);
            }
            Self::Undef { vm, vcpu, pc, esr } => {
                at(o, vm, vcpu).hex("pc", pc).hex("esr", esr);
            }
            Self::Killed { vm, name, reason } | Self::Stopped { vm, name, reason } => {
                who(o, vm, name).text("reason", reason);
            }
            Self::Restart {
                vm,
                name,
                reason,
                count,
            } => {
                who(o, vm, name).text("reason", reason).num("count", count);
            }
            Self::Watchdog { vm, name } => {
                who(o, vm, name);
            }
            Self::Pvpanic { vm, name, events } => {
                who(o, vm, name).num("events", events.into());
            }
            Self::Suppressed { what, count } => {
                o.text("what", what).num("count", count);
            }
            Self::BootErrorRecord(ref record) => record.members(o),
            Self::Unclaimed { pe, iss } => {
                o.num("pe", u64::from(pe)).hex("iss", iss);
            }
            Self::Unnotified { pe } => {
                o.num("pe", u64::from(pe));
            }
            Self::Panic { pe, text } => {
                o.num("pe", u64::from(pe)).text("text", text);
            }
            Self::Halt { text } => {
                o.text("text", text);
            }
            Self::Vsea {
                vm,
                vcpu,
                inj,
                esr,
                far,
                elr,
                el,
            } => {
                at(o, vm, vcpu).num("inj", inj).hex("esr", esr);
                o.opt_hex("far", far)
                    .hex("elr", elr)
                    .text("el", el.as_str());
            }
            Self::Answer {
                id,
                ok,
                text,
                detail,
            } => {
                o.opt_num("id", id).flag("ok", ok).text("text", text);
                detail.members(o);
            }
            Self::GivenUp { what, vm, pa } => {
                o.text("what", what)
                    .opt_num("vm", vm.map(u64::from))
                    .hex("pa", pa);
            }
            Self::Crash(ref crash) => crash.members(o),
            Self::CrashRecord(ref record) => record.members(o),
            Self::Log(ref entry) => entry.members(o),
            Self::Queue {
                pe,
                published,
                finished,
                pending,
                refused,
                reported,
                suppressed,
            } => {
                o.num("pe", u64::from(pe))
                    .num("published", published)
                    .num("finished", finished)
                    .num("pending", pending)
                    .num("refused", refused)
                    .num("reported", reported)
                    .num("suppressed", suppressed);
            }
            Self::Spare { vm, ipa, pa, left } => {
                o.num("vm", u64::from(vm)).hex("ipa", ipa);
                o.hex("pa", pa).num("left", left);
            }
        }
    }
}

impl ErrorEvent<'_> {
    fn members(&self, o: &mut Object<'_>) {
        o.num("id", self.id).num("pe", u64::from(self.pe));
        o.opt_num("vm", self.vm.map(u64::from))
            .opt_text("name", self.name);
        o.text("from", self.from.as_str())
            .hex("pc", self.pc)
            .hex("iss", self.iss)
            .flag("sync", self.sync);
        o.text("severity", self.severity)
            .text("cper", self.cper)
            .opt_hex("pa", self.pa);
        o.text("owner", self.owner)
            .opt_num("page_vm", self.page_vm.map(u64::from));
        o.text("verdict", self.verdict).text("rule", self.rule);
        o.text("context", self.context)
            .opt_text("syndrome_severity", self.syndrome_severity)
            .opt_text("record_severity", self.record_severity);
        o.text("owner_class", self.owner_class)
            .num("corrected_on_page", self.corrected_on_page)
            .num("corrected_limit", self.corrected_limit);
    }
}

fn who<'o, 'w>(o: &'o mut Object<'w>, vm: u8, name: &str) -> &'o mut Object<'w> {
    o.num("vm", u64::from(vm)).text("name", name)
}

fn at<'o, 'w>(o: &'o mut Object<'w>, vm: u8, vcpu: u8) -> &'o mut Object<'w> {
    o.num("vm", u64::from(vm)).num("vcpu", u64::from(vcpu))
}

fn write_ram(w: &mut dyn Write, ram: &Ram) -> fmt::Result {
    let mut o = Object::open(w);
    o.hex("ipa", ram.ipa)
        .hex("pa", ram.pa)
        .hex("len", ram.len_bytes);
    o.close()
}

/// Writes one event: record separator, JSON object, line feed. `t` is CNTPCT_EL0, in ticks.
///
/// # Errors
///
/// Returns what `w` returns; what was written by then is a torn event, which the other end
/// recognizes.
pub fn write_event(w: &mut impl Write, t: u64, event: &Event<'_>) -> fmt::Result {
    write_dyn(w, t, event)
}

fn write_dyn(w: &mut dyn Write, t: u64, event: &Event<'_>) -> fmt::Result {
    w.write_char('\x1e')?;
    let mut o = Object::open(w);
    o.num("v", SCHEMA_VERSION)
        .num("t", t)
        .text("ev", event.name());
    event.members(&mut o);
    o.close()?;
    w.write_char('\n')
}
