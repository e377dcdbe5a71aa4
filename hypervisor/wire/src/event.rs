// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that the hypervisor reports, by name.
//!
//! Each event is one JSON object `{"v":1,"t":<CNTPCT ticks>,"ev":"<name>",...}`. Addresses and
//! syndromes are strings (`"0x..."`), because a JSON number does not hold 64 bits everywhere;
//! counts are numbers. Members are only ever added; a member that changes its meaning raises
//! [`SCHEMA_VERSION`].

use core::fmt::{self, Write};

use crate::aftermath::{BootErrorRecord, Crash, CrashRecord, LogEntry};
use crate::answer::Detail;
use crate::json::{Object, write_decimal};

/// Value of `v` in each event.
pub const SCHEMA_VERSION: u64 = 1;

/// The exception level that an error interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// A guest's user space.
    El0,
    /// A guest's kernel.
    El1,
    /// The hypervisor itself.
    El2,
}

impl Level {
    /// Returns `el0`, `el1` or `el2`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::El0 => "el0",
            Self::El1 => "el1",
            Self::El2 => "el2",
        }
    }
}

/// How far a virtual SError got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VserrorState {
    /// HCR_EL2.VSE is set, and the guest has not taken it.
    Pending,
    /// The guest took the exception.
    Taken,
    /// The guest's ESB moved it into DISR_EL1.
    Deferred,
    /// The guest was reset or stopped before it took it.
    Cancelled,
    /// A second one came on top: both live on in the injection that is told next.
    Merged,
    /// It is pending no more, but whether it was taken or deferred has been overwritten since.
    Gone,
}

impl VserrorState {
    /// Returns the word that the event carries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Taken => "taken",
            Self::Deferred => "deferred",
            Self::Cancelled => "cancelled",
            Self::Merged => "merged",
            Self::Gone => "gone",
        }
    }
}

/// Who left a boot error record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordSource {
    /// EL3, before it reset the machine.
    Firmware,
    /// The hypervisor's crash page.
    Hypervisor,
}

impl RecordSource {
    /// Returns `firmware` or `hypervisor`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Hypervisor => "hypervisor",
        }
    }
}

/// One piece of a partition's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ram {
    /// Where the guest sees it.
    pub ipa: u64,
    /// Where it is.
    pub pa: u64,
    /// Its length in bytes.
    pub len_bytes: u64,
}

/// A hardware error and what triage made of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrorEvent<'a> {
    /// Number of the error: the firmware's own if a record gave one, else counted by the hypervisor.
    pub id: u64,
    /// PE that took it.
    pub pe: u8,
    /// Partition that it interrupted.
    pub vm: Option<u8>,
    /// Name of that partition.
    pub name: Option<&'a str>,
    /// What it interrupted.
    pub from: Level,
    /// ELR_EL2.
    pub pc: u64,
    /// ESR_EL2.ISS.
    pub iss: u64,
    /// It came as a synchronous external abort, and `iss` is that of an abort.
    pub sync: bool,
    /// `UC`, `UEU`, `UER`, `UEO`, `CE`, `IMPDEF` or `uncategorized`.
    pub severity: &'a str,
    /// `recoverable`, `fatal`, `corrected`, `informational` or `none`.
    pub cper: &'a str,
    /// Physical address that the record names.
    pub pa: Option<u64>,
    /// What owns that address.
    pub owner: &'a str,
    /// Partition that owns it.
    pub page_vm: Option<u8>,
    /// What was decided.
    pub verdict: &'a str,
    /// Row of the triage table that decided it.
    pub rule: &'a str,
    /// What was interrupted: `guest`, `hypervisor` (at work) or `idle`.
    pub context: &'a str,
    /// Severity by the syndrome alone; none on a CPU without FEAT_RAS.
    pub syndrome_severity: Option<&'a str>,
    /// Severity by the record alone; none without one.
    pub record_severity: Option<&'a str>,
    /// What the memory is for: a word of the table in `docs/triage.md`, or `none`.
    pub owner_class: &'a str,
    /// Corrected errors of this page in its window of time, this one included; 0 for another kind
    /// of error.
    pub corrected_on_page: u64,
    /// The limit that holds for this page; 0: none.
    pub corrected_limit: u64,
}

/// Something worth telling a person or a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// The hypervisor runs on all its PEs.
    Boot {
        /// Version of the hypervisor.
        version: &'a str,
        /// Board, as the devicetree names it.
        board: &'a str,
        /// Number of PEs.
        pes: u64,
        /// Whether every PE has FEAT_RAS.
        ras: bool,
        /// `compatible` of the firmware-first source, or none.
        firmware: Option<&'a str>,
        /// Number of partitions.
        partitions: u64,
    },
    /// A partition was built.
    Partition {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
        /// Number of its vCPUs.
        vcpus: u64,
        /// PE of each vCPU.
        pes: &'a [u8],
        /// Its memory.
        ram: &'a [Ram],
    },
    /// A partition's first vCPU was entered.
    Started {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
        /// How often it was restarted before.
        restarts: u64,
    },
    /// A hardware error.
    Error(ErrorEvent<'a>),
    /// A virtual SError changed its state.
    Vserror {
        /// Partition.
        vm: u8,
        /// vCPU inside the partition.
        vcpu: u8,
        /// Identity of the injection.
        inj: u64,
        /// VSESR_EL2\[24:0\]; none where it cannot be chosen (no FEAT_RAS).
        syndrome: Option<u64>,
        /// How far it got.
        state: VserrorState,
        /// Where the guest was interrupted when it took it.
        elr: Option<u64>,
        /// The exception level that it was interrupted at.
        el: Option<Level>,
        /// Whether `elr` and `el` are what the guest was interrupted at; otherwise they are
        /// ELR_EL1 and SPSR_EL1 at a later look: a hint.
        exact: bool,
    },
    /// A page was taken away from a partition for good.
    Retired {
        /// Partition.
        vm: u8,
        /// Where the guest saw it.
        ipa: u64,
        /// The page.
        pa: u64,
    },
    /// A guest got a synchronous external abort (rate limited).
    Abort {
        /// Partition.
        vm: u8,
        /// vCPU inside the partition.
        vcpu: u8,
        /// What it touched.
        ipa: u64,
        /// FAR_EL1 as it was given.
        far: u64,
        /// Guest's program counter.
        pc: u64,
        /// Whether it wrote.
        write: bool,
        /// Whether the page was retired.
        retired: bool,
    },
    /// A guest got an UNDEF for a trap that nobody handles.
    Undef {
        /// Partition.
        vm: u8,
        /// vCPU inside the partition.
        vcpu: u8,
        /// Guest's program counter.
        pc: u64,
        /// ESR_EL2 of the trap.
        esr: u64,
    },
    /// A partition was killed.
    Killed {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// A partition is restarted.
    Restart {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
        /// Why.
        reason: &'a str,
        /// How often, this time included.
        count: u64,
    },
    /// A partition stopped and stays so.
    Stopped {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// A partition let its watchdog expire.
    Watchdog {
        /// Its number.
        vm: u8,
        /// Its name.
        name: &'a str,
    },
    /// Output was left out, because there was too much.
    Suppressed {
        /// What: `console:<name>` or the name of an event.
        what: &'a str,
        /// Bytes or events since the last time that this was told.
        count: u64,
    },
    /// The boot before this one ended with an error.
    BootErrorRecord(BootErrorRecord<'a>),
    /// An SError, or a synchronous external abort, without a record.
    Unclaimed {
        /// PE that took it.
        pe: u8,
        /// ESR_EL2.ISS.
        iss: u64,
    },
    /// A record stood unacknowledged of which no SEI had told.
    Unnotified {
        /// PE whose source it was.
        pe: u8,
    },
    /// The hypervisor failed.
    Panic {
        /// PE that failed.
        pe: u8,
        /// What it says.
        text: &'a str,
    },
    /// The configuration or the machine cannot be used.
    Halt {
        /// Why, and the remedy.
        text: &'a str,
    },
    /// A guest was made to take a synchronous external abort by a command.
    Vsea {
        /// Partition.
        vm: u8,
        /// vCPU inside the partition.
        vcpu: u8,
        /// Identity of the injection.
        inj: u64,
        /// ESR_EL1 as it was given.
        esr: u64,
        /// FAR_EL1 as it was given.
        far: Option<u64>,
        /// Where the guest was interrupted, exactly.
        elr: u64,
        /// The exception level that it was interrupted at.
        el: Level,
    },
    /// A command was carried out, or refused.
    Answer {
        /// The caller's number.
        id: Option<u64>,
        /// Whether it was done.
        ok: bool,
        /// Why not, or what has to be known about it.
        text: &'a str,
        /// What else there is to say.
        detail: Detail<'a>,
    },
    /// Memory of the hypervisor's own went bad, and it does without from now on.
    GivenUp {
        /// What it was for: as [`ErrorEvent::owner_class`].
        what: &'a str,
        /// Partition that it served.
        vm: Option<u8>,
        /// The page.
        pa: u64,
    },
    /// What a failing hypervisor leaves: now, or found at the next boot.
    Crash(Crash<'a>),
    /// An error record that waited then.
    CrashRecord(CrashRecord<'a>),
    /// An entry of the log of the boot before this one.
    Log(LogEntry<'a>),
    /// The accounts of a PE's recovery queue since boot. `reported` and `suppressed` errors add up to
    /// `finished` records, the one in hand aside.
    Queue {
        /// Its PE.
        pe: u8,
        /// Records that it took in.
        published: u64,
        /// Records that were worked off.
        finished: u64,
        /// Records that wait or are being worked on.
        pending: u64,
        /// Records that it refused because it was full; the firmware kept each until it was not.
        refused: u64,
        /// Errors that were reported one by one.
        reported: u64,
        /// Errors that were only counted.
        suppressed: u64,
    },
}

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
            } => {
                o.text("version", version)
                    .text("board", board)
                    .num("pes", pes);
                o.flag("ras", ras)
                    .opt_text("firmware", firmware)
                    .num("partitions", partitions);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{PartitionRow, PeRow, Stats, UsageRow};
    use serde_json::{Value, json};

    fn decoded(event: &Event<'_>) -> Value {
        let mut text = String::new();
        write_event(&mut text, 42, event).unwrap();
        assert_eq!(text.matches('\x1e').count(), 1);
        assert_eq!(text.matches('\n').count(), 1);
        serde_json::from_str(
            text.strip_prefix('\x1e')
                .unwrap()
                .strip_suffix('\n')
                .unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn every_event_is_one_json_object_with_the_members_of_its_schema() {
        let ram = [
            Ram {
                ipa: 0x4000_0000,
                pa: 0x5000_0000,
                len_bytes: 0x1000,
            },
            Ram {
                ipa: 0x4000_2000,
                pa: 0x5000_2000,
                len_bytes: 0x2000,
            },
        ];
        let cases = [
            (
                Event::Boot {
                    version: "0.1",
                    board: "b",
                    pes: 4,
                    ras: true,
                    firmware: None,
                    partitions: 3,
                },
                json!({"v":1,"t":42,"ev":"boot","version":"0.1","board":"b","pes":4,"ras":true,
                    "firmware":null,"partitions":3}),
            ),
            (
                Event::Partition {
                    vm: 1,
                    name: "linux",
                    vcpus: 2,
                    pes: &[0, 1],
                    ram: &ram,
                },
                json!({"v":1,"t":42,"ev":"partition","vm":1,"name":"linux","vcpus":2,"pes":[0,1],
                    "ram":[{"ipa":"0x40000000","pa":"0x50000000","len":"0x1000"},
                           {"ipa":"0x40002000","pa":"0x50002000","len":"0x2000"}]}),
            ),
            (
                Event::Started {
                    vm: 0,
                    name: "a",
                    restarts: 0,
                },
                json!({"v":1,"t":42,"ev":"started","vm":0,"name":"a","restarts":0}),
            ),
            (
                Event::Vserror {
                    vm: 2,
                    vcpu: 0,
                    inj: 3,
                    syndrome: Some(0x811),
                    state: VserrorState::Taken,
                    elr: Some(0x10),
                    el: Some(Level::El0),
                    exact: true,
                },
                json!({"v":1,"t":42,"ev":"vserror","vm":2,"vcpu":0,"inj":3,"syndrome":"0x811",
                    "state":"taken","elr":"0x10","el":"el0","exact":true}),
            ),
            (
                Event::Vsea {
                    vm: 2,
                    vcpu: 1,
                    inj: 4,
                    esr: 0x9600_0410,
                    far: None,
                    elr: 0x10,
                    el: Level::El1,
                },
                json!({"v":1,"t":42,"ev":"vsea","vm":2,"vcpu":1,"inj":4,"esr":"0x96000410",
                    "far":null,"elr":"0x10","el":"el1"}),
            ),
            (
                Event::Answer {
                    id: Some(u64::MAX),
                    ok: false,
                    text: "why",
                    detail: Detail::None,
                },
                json!({"v":1,"t":42,"ev":"answer","id":u64::MAX,"ok":false,"text":"why"}),
            ),
            (
                Event::Answer {
                    id: None,
                    ok: true,
                    text: "",
                    detail: Detail::Partitions(&[PartitionRow {
                        vm: 1,
                        name: "a",
                        state: "running",
                        restarts: 2,
                        vcpus_on: 1,
                        retired: 3,
                    }]),
                },
                json!({"v":1,"t":42,"ev":"answer","id":null,"ok":true,"text":"","partitions":
                    [{"vm":1,"name":"a","state":"running","restarts":2,"vcpus_on":1,"retired":3}]}),
            ),
            (
                Event::Answer {
                    id: Some(1),
                    ok: true,
                    text: "",
                    detail: Detail::Stats(&Stats {
                        pes: &[PeRow {
                            pe: 1,
                            seis: 2,
                            waiting: 3,
                        }],
                        partitions: &[UsageRow {
                            vm: 4,
                            vmid: 5,
                            tables: 6,
                            irqs_enabled: 7,
                            irqs_raised: 8,
                        }],
                        pool_free: 9,
                        pool_retired: 10,
                    }),
                },
                json!({"v":1,"t":42,"ev":"answer","id":1,"ok":true,"text":"",
                    "pes":[{"pe":1,"seis":2,"waiting":3}],"usage":[{"vm":4,"vmid":5,"tables":6,
                    "irqs_enabled":7,"irqs_raised":8}],"pool_free":9,"pool_retired":10}),
            ),
            (
                Event::Answer {
                    id: Some(1),
                    ok: true,
                    text: "",
                    detail: Detail::Injection(7),
                },
                json!({"v":1,"t":42,"ev":"answer","id":1,"ok":true,"text":"","inj":7}),
            ),
            (
                Event::Abort {
                    vm: 0,
                    vcpu: 1,
                    ipa: 1,
                    far: 2,
                    pc: 3,
                    write: true,
                    retired: false,
                },
                json!({"v":1,"t":42,"ev":"abort","vm":0,"vcpu":1,"ipa":"0x1","far":"0x2",
                    "pc":"0x3","write":true,"retired":false}),
            ),
            (
                Event::BootErrorRecord(BootErrorRecord {
                    number: 1,
                    severity: "UC",
                    cper: "fatal",
                    iss: Some(0x11),
                    pe: Some(1),
                    vm: None,
                    name: None,
                    vcpu: None,
                    from: Some("el2"),
                    pc: Some(0),
                    pa: Some(1),
                    id: Some(7),
                    at: None,
                    simulated: true,
                    source: RecordSource::Firmware,
                }),
                json!({"v":1,"t":42,"ev":"boot-error-record","severity":"UC","iss":"0x11","pe":1,
                    "vm":null,"pc":"0x0","pa":"0x1","source":"firmware","number":1,"cper":"fatal",
                    "name":null,"vcpu":null,"from":"el2","id":7,"at":null,"simulated":true}),
            ),
            (
                Event::Crash(Crash {
                    replayed: true,
                    whole: true,
                    failures: 0,
                    boot: 3,
                    at: 9,
                    pe: 1,
                    kind: "exception",
                    vector: 4,
                    vm: Some(0),
                    name: Some("a"),
                    vcpu: Some(0),
                    pc: Some(16),
                    words: &[("esr", 1), ("far", u64::MAX)],
                    calls: &[],
                    x: &[0, 1],
                    text: "why",
                    left_out: 0,
                }),
                json!({"v":1,"t":42,"ev":"crash","replayed":true,"whole":true,"failures":0,"boot":3,
                    "at":9,"pe":1,"kind":"exception","vector":4,"vm":0,"name":"a","vcpu":0,
                    "pc":"0x10","esr":"0x1","far":"0xffffffffffffffff","calls":[],
                    "x":["0x0","0x1"],"text":"why","left_out":0}),
            ),
            (
                Event::CrashRecord(CrashRecord {
                    replayed: false,
                    pe: 2,
                    state: "waiting",
                    at: 5,
                    cper: None,
                    iss: Some(2),
                    pc: None,
                    pa: None,
                    id: None,
                    vm: Some(1),
                    vcpu: Some(0),
                    verdict: "log",
                }),
                json!({"v":1,"t":42,"ev":"crash-record","replayed":false,"pe":2,"state":"waiting",
                    "at":5,"cper":null,"iss":"0x2","pc":null,"pa":null,"id":null,"vm":1,"vcpu":0,
                    "verdict":"log"}),
            ),
            (
                Event::Log(LogEntry {
                    number: 12,
                    boot: 1,
                    at: 3,
                    pe: 0,
                    cut: false,
                    text: "{\"v\":1}",
                }),
                json!({"v":1,"t":42,"ev":"log","number":12,"boot":1,"at":3,"pe":0,"cut":false,
                    "text":"{\"v\":1}"}),
            ),
            (
                Event::GivenUp {
                    what: "stage2-tables",
                    vm: Some(1),
                    pa: 0x4050_1000,
                },
                json!({"v":1,"t":42,"ev":"given-up","what":"stage2-tables","vm":1,
                    "pa":"0x40501000"}),
            ),
            (
                Event::Panic {
                    pe: 3,
                    text: "a \"quoted\"\n\x1eline",
                },
                json!({"v":1,"t":42,"ev":"panic","pe":3,"text":"a \"quoted\"\n\x1eline"}),
            ),
            (
                Event::Queue {
                    pe: 1,
                    published: 9,
                    finished: 8,
                    pending: 1,
                    refused: 2,
                    reported: 5,
                    suppressed: 3,
                },
                json!({"v":1,"t":42,"ev":"queue","pe":1,"published":9,"finished":8,"pending":1,
                    "refused":2,"reported":5,"suppressed":3}),
            ),
        ];
        for (event, expected) in cases {
            assert_eq!(decoded(&event), expected);
        }
    }

    #[test]
    fn an_error_keeps_all_64_bits_of_its_addresses() {
        let event = Event::Error(ErrorEvent {
            id: u64::MAX,
            pe: 2,
            vm: Some(1),
            name: Some("victim"),
            from: Level::El1,
            pc: u64::MAX,
            iss: 0x1ff_ffff,
            sync: false,
            severity: "UER",
            cper: "recoverable",
            pa: None,
            owner: "partition",
            page_vm: Some(1),
            verdict: "retire",
            rule: "r",
            context: "guest",
            syndrome_severity: Some("UER"),
            record_severity: None,
            owner_class: "partition",
            corrected_on_page: 0,
            corrected_limit: 16,
        });
        let value = decoded(&event);
        assert_eq!(value["pc"], "0xffffffffffffffff");
        assert_eq!(value["iss"], "0x1ffffff");
        assert_eq!(value["pa"], Value::Null);
        assert_eq!(value["id"].as_u64(), Some(u64::MAX));
        assert_eq!(value["from"], "el1");
    }

    #[test]
    fn a_sink_that_fails_is_told() {
        struct Full(usize);
        impl Write for Full {
            fn write_str(&mut self, s: &str) -> fmt::Result {
                self.0 = self.0.checked_sub(s.len()).ok_or(fmt::Error)?;
                Ok(())
            }
        }
        let event = Event::Halt {
            text: "no partitions",
        };
        let mut whole = String::new();
        write_event(&mut whole, 1, &event).unwrap();
        for room in 0..whole.len() {
            assert!(write_event(&mut Full(room), 1, &event).is_err(), "{room}");
        }
        assert!(write_event(&mut Full(whole.len()), 1, &event).is_ok());
    }
}
