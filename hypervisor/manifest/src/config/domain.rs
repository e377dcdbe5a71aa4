// SPDX-License-Identifier: MIT OR Apache-2.0
//! One partition's node and its modules, property by property.

use firebreak_abi::{MAX_VCPUS_PER_PARTITION, Mpidr, PAGE_SIZE_BYTES, Pa, PaRange};
use firebreak_triage::{Class, Policy, Reaction};
use firebreak_vm::RestartPolicy;
use heapless::{String, Vec};

use super::read::{CellCounts, kib};
use super::{
    DEFAULT_SPARE_PAGES, MAX_BOOTARGS_LEN, MAX_RELOAD_ROOM_BYTES, MAX_RESTART_LIMIT,
    MAX_SPARE_PAGES, PartitionConfig, default_policy, is_valid_name, property,
};
use crate::devices::DeviceList;
use crate::error::{Complaint, Fault, NodePath, Refused};
use crate::value::{Value, place_of};

/// A partition's node while it is read.
pub(super) struct Domain<'a, 'c> {
    pub(super) complaint: &'c Complaint<'a>,
    path: NodePath<'a>,
    pub(super) partition: PartitionConfig<'a>,
    cells: CellCounts,
    image_relative: bool,
    kernel_seen: bool,
    mpidr_seen: bool,
    uer_seen: bool,
    /// One bit for each known property that was there.
    seen: u64,
}

/// Known properties.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Compatible,
    Cells,
    Phandle,
    Cpus,
    Memory,
    Vpl011,
    Mpidr,
    ImageRelative,
    RasVisible,
    DirectAborts,
    Watchdog,
    Pvpanic,
    OnReset,
    OnSilence,
    OnKill,
    Limit,
    Backoff,
    Autostart,
    CorrectedLimit,
    CorrectedWindow,
    SparePages,
    ReloadRoom,
    MemoryBase,
    DirectMap,
    Devices,
    DeviceDma,
    DeviceIpa,
}

impl Known {
    const ALL: [(&str, Self); 29] = [
        ("#address-cells", Self::Cells),
        ("#size-cells", Self::Cells),
        ("phandle", Self::Phandle),
        ("linux,phandle", Self::Phandle),
        ("compatible", Self::Compatible),
        (property::CPUS, Self::Cpus),
        (property::MEMORY, Self::Memory),
        (property::VPL011, Self::Vpl011),
        (property::MPIDR, Self::Mpidr),
        (property::IMAGE_RELATIVE, Self::ImageRelative),
        (property::RAS_VISIBLE, Self::RasVisible),
        (property::DIRECT_ABORTS, Self::DirectAborts),
        (property::WATCHDOG, Self::Watchdog),
        (property::PVPANIC, Self::Pvpanic),
        (property::RESTART_ON_RESET, Self::OnReset),
        (property::RESTART_ON_SILENCE, Self::OnSilence),
        (property::RESTART_ON_KILL, Self::OnKill),
        (property::RESTART_LIMIT, Self::Limit),
        (property::RESTART_BACKOFF, Self::Backoff),
        (property::AUTOSTART, Self::Autostart),
        (property::CORRECTED_LIMIT, Self::CorrectedLimit),
        (property::CORRECTED_WINDOW, Self::CorrectedWindow),
        (property::SPARE_PAGES, Self::SparePages),
        (property::RELOAD_ROOM, Self::ReloadRoom),
        (property::MEMORY_BASE, Self::MemoryBase),
        (property::DIRECT_MAP, Self::DirectMap),
        (property::DEVICES, Self::Devices),
        (property::DEVICE_DMA, Self::DeviceDma),
        (property::DEVICE_IPA, Self::DeviceIpa),
    ];
}

/// A property that is understood: a known one, or the reaction to a class of error.
#[derive(Clone, Copy)]
enum Meaning {
    Known(Known),
    On(Class),
}

impl Meaning {
    /// Finds what a name means, and its bit in `Domain::seen`: none for what may be repeated.
    fn of(name: &str) -> Option<(Self, u64)> {
        if let Some(at) = Known::ALL.iter().position(|(known, _)| *known == name) {
            let (_, known) = Known::ALL.get(at)?;
            let repeatable = matches!(known, Known::Cells | Known::Phandle);
            let bit = if repeatable { 0 } else { 1 << at };
            return Some((Self::Known(*known), bit));
        }
        let class = name.strip_prefix(property::ON_PREFIX)?;
        let at = Class::ALL.iter().position(|one| one.name() == class)?;
        Some((Self::On(*Class::ALL.get(at)?), 1 << (Known::ALL.len() + at)))
    }
}

impl<'a, 'c> Domain<'a, 'c> {
    /// Starts with the node's name, which is the partition's.
    pub(super) fn new(
        path: NodePath<'a>,
        node_name: &'a [u8],
        complaint: &'c Complaint<'a>,
    ) -> Result<Self, Refused> {
        const NAME: &str =
            "is no name for a partition; use up to 15 of a-z, 0-9 and -, a letter first";
        let text = node_name
            .split(|byte| *byte == b'@')
            .next()
            .unwrap_or_default();
        let name = core::str::from_utf8(text)
            .ok()
            .filter(|name| is_valid_name(name))
            .and_then(|name| String::try_from(name).ok())
            .ok_or_else(|| complaint.node(&path, &Fault::Value(NAME)))?;
        Ok(Self {
            complaint,
            path,
            partition: PartitionConfig {
                name,
                vcpus: 0,
                pes: Vec::new(),
                memory_bytes: 0,
                spare_pages: DEFAULT_SPARE_PAGES,
                reload_room_bytes: 0,
                memory_base: None,
                direct_map: false,
                devices: DeviceList::default(),
                kernel: PaRange::default(),
                ramdisk: None,
                bootargs: "",
                console: false,
                ras_visible: true,
                direct_aborts: false,
                watchdog: true,
                pvpanic: false,
                autostart: true,
                restart: RestartPolicy::default(),
                policy: Policy::default(),
            },
            cells: CellCounts::default(),
            image_relative: false,
            kernel_seen: false,
            mpidr_seen: false,
            uer_seen: false,
            seen: 0,
        })
    }

    pub(super) fn fault<T>(&self, property: &'a str, fault: Fault<'a>) -> Result<T, Refused> {
        Err(self.complaint.property(&self.path, property, &fault))
    }

    /// Takes one property.
    pub(super) fn property(&mut self, raw_name: &'a [u8], value: Value<'a>) -> Result<(), Refused> {
        let name = core::str::from_utf8(raw_name).unwrap_or("?");
        let Some((meaning, bit)) = Meaning::of(name) else {
            return self.fault(name, Fault::Unknown);
        };
        if self.seen & bit != 0 {
            return self.fault(name, Fault::Duplicate);
        }
        self.seen |= bit;
        let known = match meaning {
            Meaning::Known(known) => known,
            Meaning::On(class) => return self.reaction(name, class, value),
        };
        match known {
            Known::Compatible | Known::Phandle => {}
            Known::Cells => {
                self.cells.note(&self.path, name, value, self.complaint)?;
            }
            Known::Cpus => self.vcpus(name, value)?,
            Known::Memory => self.memory(name, value)?,
            Known::Vpl011 => {
                // Xen's binding also knows a value here; it means the same.
                self.partition.console = true;
            }
            Known::MemoryBase => match (value.len(), value.number()) {
                (8, Some(base)) => self.partition.memory_base = Some(Pa::new(base)),
                _ => return self.fault(name, Fault::Form("a physical address as two cells")),
            },
            Known::DirectMap => self.partition.direct_map = true,
            Known::Devices => self.partition.devices.paths = value,
            Known::DeviceDma => self.partition.devices.dma = Some(value),
            Known::DeviceIpa => self.partition.devices.ipa = Some(value),
            Known::Mpidr => {
                self.mpidr_seen = true;
                self.pes(name, value)?;
            }
            Known::ImageRelative => self.image_relative = true,
            Known::RasVisible => self.partition.ras_visible = self.flag(name, value)?,
            Known::DirectAborts => self.partition.direct_aborts = self.flag(name, value)?,
            Known::Watchdog => self.partition.watchdog = self.flag(name, value)?,
            Known::Pvpanic => self.partition.pvpanic = self.flag(name, value)?,
            Known::OnReset => self.partition.restart.on_reset = self.flag(name, value)?,
            Known::OnSilence => self.partition.restart.on_silence = self.flag(name, value)?,
            Known::OnKill => self.partition.restart.on_kill = self.flag(name, value)?,
            Known::Limit => match value.u32() {
                Some(limit @ 0..=MAX_RESTART_LIMIT) => self.partition.restart.limit = limit,
                _ => return self.fault(name, Fault::Form("one cell, 0 to 1000")),
            },
            Known::Backoff => match value.u32() {
                Some(backoff_ms @ 0..=RestartPolicy::MAX_BACKOFF_MS) => {
                    self.partition.restart.backoff_ms = backoff_ms;
                }
                _ => return self.fault(name, Fault::Form("milliseconds as one cell, 0 to 60000")),
            },
            Known::Autostart => self.partition.autostart = self.flag(name, value)?,
            Known::CorrectedLimit => {
                match value.u32().and_then(|limit| u16::try_from(limit).ok()) {
                    Some(limit) => self.partition.policy.corrected_limit = limit,
                    None => return self.fault(name, Fault::Form("one cell, 0 to 65535")),
                }
            }
            Known::SparePages => match value.u32().and_then(|pages| u8::try_from(pages).ok()) {
                Some(pages @ 0..=MAX_SPARE_PAGES) => self.partition.spare_pages = pages,
                _ => return self.fault(name, Fault::Form("one cell, 0 to 64")),
            },
            Known::ReloadRoom => match kib(value) {
                Some(bytes @ 0..=MAX_RELOAD_ROOM_BYTES) if bytes % PAGE_SIZE_BYTES == 0 => {
                    self.partition.reload_room_bytes = bytes;
                }
                _ => {
                    let form = "KiB as two cells, a multiple of 4 up to 65536";
                    return self.fault(name, Fault::Form(form));
                }
            },
            Known::CorrectedWindow => match value.u32() {
                Some(seconds @ 1..=Policy::MAX_CORRECTED_WINDOW_S) => {
                    self.partition.policy.corrected_window_s = seconds;
                }
                _ => return self.fault(name, Fault::Form("seconds as one cell, 1 to 31536000")),
            },
        }
        Ok(())
    }

    fn flag(&self, name: &'a str, value: Value<'a>) -> Result<bool, Refused> {
        match value.u32() {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            _ => self.fault(name, Fault::Form("one cell, 0 or 1")),
        }
    }

    fn vcpus(&mut self, name: &'a str, value: Value<'a>) -> Result<(), Refused> {
        let count = value
            .u32()
            .and_then(|count| u8::try_from(count).ok())
            .unwrap_or(u8::MAX);
        if count == 0 || usize::from(count) > MAX_VCPUS_PER_PARTITION {
            return self.fault(name, Fault::Form("one cell, 1 to 8 vCPUs"));
        }
        self.partition.vcpus = count;
        Ok(())
    }

    fn memory(&mut self, name: &'a str, value: Value<'a>) -> Result<(), Refused> {
        let bytes = match (value.len(), value.number()) {
            (8, Some(kib)) => kib.checked_mul(1024),
            _ => return self.fault(name, Fault::Form("KiB as two cells")),
        };
        match bytes {
            Some(bytes) if bytes > 0 => self.partition.memory_bytes = bytes,
            _ => {
                return self.fault(
                    name,
                    Fault::Form("a number of KiB that is neither 0 nor beyond 64 bits"),
                );
            }
        }
        Ok(())
    }

    fn pes(&mut self, name: &'a str, value: Value<'a>) -> Result<(), Refused> {
        const FORM: &str = "two cells for each vCPU: the PE's affinity";
        let Some(mut cells) = value.cells() else {
            return self.fault(name, Fault::Form(FORM));
        };
        while !cells.is_done() {
            let Some(raw) = cells.number(2) else {
                return self.fault(name, Fault::Form(FORM));
            };
            let mpidr = Mpidr::from_raw(raw);
            if mpidr.get() != raw {
                return self.fault(
                    name,
                    Fault::Value("has bits outside of MPIDR_EL1's affinity; clear them"),
                );
            }
            if self.partition.pes.contains(&mpidr) {
                return self.fault(
                    name,
                    Fault::Value("names a PE twice; each vCPU needs one of its own"),
                );
            }
            if self.partition.pes.push(mpidr).is_err() {
                let most = MAX_VCPUS_PER_PARTITION;
                return self.fault(name, Fault::TooMany { what: "PEs", most });
            }
        }
        Ok(())
    }

    fn reaction(&mut self, name: &'a str, class: Class, value: Value<'a>) -> Result<(), Refused> {
        let Some(word) = value.text() else {
            return self.fault(name, Fault::Form("a policy word"));
        };
        match Reaction::parse(word).and_then(|reaction| reaction.check(class).map(|()| reaction)) {
            Ok(reaction) => {
                self.uer_seen |= class == Class::Uer;
                self.partition.policy.set(class, reaction);
            }
            Err(error) => return self.fault(name, Fault::Reaction(error)),
        }
        Ok(())
    }

    /// Takes one module.
    pub(super) fn module(&mut self, module: ModuleNode<'a>, image_base: Pa) -> Result<(), Refused> {
        let path = module.path;
        let complaint = self.complaint;
        let wrong = |property, fault| Err(complaint.property(&path, property, &fault));
        let base = if self.image_relative {
            image_base.get()
        } else {
            0
        };
        let Some(compatible) = module.compatible else {
            return wrong(
                "compatible",
                Fault::Missing("say \"multiboot,kernel\" or \"multiboot,ramdisk\""),
            );
        };
        let range = module.range(self.cells, base, complaint)?;
        if compatible.has("multiboot,kernel") {
            if self.kernel_seen {
                return Err(complaint.node(&path, &Fault::Value("is a second kernel; remove one")));
            }
            self.kernel_seen = true;
            self.partition.kernel = range;
            if let Some(bootargs) = module.bootargs {
                self.partition.bootargs = match bootargs.text() {
                    Some(text) if text.len() <= MAX_BOOTARGS_LEN => text,
                    _ => return wrong("bootargs", Fault::Form("text of at most 2047 bytes")),
                };
            }
            return Ok(());
        }
        if module.bootargs.is_some() {
            return wrong(
                "bootargs",
                Fault::Value("belongs to the kernel's module; move it there"),
            );
        }
        if !compatible.has("multiboot,ramdisk") {
            return wrong(
                "compatible",
                Fault::Value(
                    "is no module that is supported; use \"multiboot,kernel\" or \"multiboot,ramdisk\"",
                ),
            );
        }
        if self.partition.ramdisk.replace(range).is_some() {
            return Err(complaint.node(&path, &Fault::Value("is a second ramdisk; remove one")));
        }
        Ok(())
    }

    /// Checks that nothing is missing and that the parts fit each other.
    pub(super) fn finish(mut self) -> Result<PartitionConfig<'a>, Refused> {
        if self.partition.vcpus == 0 {
            return self.fault(property::CPUS, Fault::Missing("say how many vCPUs"));
        }
        if self.partition.memory_bytes == 0 {
            return self.fault(property::MEMORY, Fault::Missing("say how many KiB of RAM"));
        }
        if !self.kernel_seen {
            let fault = Fault::Value("has no kernel; add a module \"multiboot,kernel\"");
            return Err(self.complaint.node(&self.path, &fault));
        }
        let pes = self.partition.pes.len();
        if self.mpidr_seen && pes != usize::from(self.partition.vcpus) {
            return self.fault(
                property::MPIDR,
                Fault::Value(
                    "names not as many PEs as there are vCPUs; each vCPU needs one of its own",
                ),
            );
        }
        self.check_devices()?;
        if !self.uer_seen {
            self.partition.policy.uer = default_policy(self.partition.ras_visible).uer;
        }
        Ok(self.partition)
    }
}

/// A module's node while it is read.
pub(super) struct ModuleNode<'a> {
    path: NodePath<'a>,
    compatible: Option<Value<'a>>,
    reg: Option<Value<'a>>,
    bootargs: Option<Value<'a>>,
}

impl<'a> ModuleNode<'a> {
    pub(super) const fn new(path: NodePath<'a>) -> Self {
        Self {
            path,
            compatible: None,
            reg: None,
            bootargs: None,
        }
    }

    /// Takes one property.
    pub(super) fn property(
        &mut self,
        raw_name: &'a [u8],
        value: Value<'a>,
        complaint: &Complaint<'a>,
    ) -> Result<(), Refused> {
        const NAMES: [&str; 5] = ["compatible", "reg", "bootargs", "phandle", "linux,phandle"];
        let slot = match place_of(&NAMES, raw_name) {
            Some(0) => &mut self.compatible,
            Some(1) => &mut self.reg,
            Some(2) => &mut self.bootargs,
            Some(_) => return Ok(()),
            None => return Err(self.refuse(raw_name, Fault::Unknown, complaint)),
        };
        if slot.replace(value).is_some() {
            return Err(self.refuse(raw_name, Fault::Duplicate, complaint));
        }
        Ok(())
    }

    fn refuse(&self, raw_name: &'a [u8], fault: Fault<'a>, complaint: &Complaint<'a>) -> Refused {
        let property = core::str::from_utf8(raw_name).unwrap_or("?");
        complaint.property(&self.path, property, &fault)
    }

    fn range(
        &self,
        counts: CellCounts,
        base: u64,
        complaint: &Complaint<'a>,
    ) -> Result<PaRange, Refused> {
        let wrong = |fault| complaint.property(&self.path, "reg", &fault);
        let reg = self
            .reg
            .ok_or_else(|| wrong(Fault::Missing("say where the module stands")))?;
        let form = || {
            wrong(Fault::Form(
                "one address and length, by the partition's cell counts",
            ))
        };
        let mut cells = reg.cells().ok_or_else(form)?;
        let start = cells.number(counts.address).ok_or_else(form)?;
        let len_bytes = cells.number(counts.size).ok_or_else(form)?;
        if !cells.is_done() {
            return Err(form());
        }
        if len_bytes == 0 {
            return Err(wrong(Fault::Value(
                "has length 0; give the module's length",
            )));
        }
        let start = start
            .checked_add(base)
            .filter(|start| start.checked_add(len_bytes).is_some());
        let start = start
            .ok_or_else(|| wrong(Fault::Value("ends behind the address space; correct it")))?;
        Ok(PaRange::new(start, len_bytes))
    }
}
