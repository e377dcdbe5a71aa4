// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a board's devicetree in one pass.
//!
//! The properties of a node stand before its children, so a node is judged when its first child
//! starts or when it ends. What can only be answered at the end (which UART is the console,
//! which PE a phandle means) is noted on the way. A node that Firebreak does not need may hold
//! what it likes; one that it needs must be right in every word.

use firebreak_abi::{Mpidr, Pa, PaRange, sei};
use heapless::Vec;

use super::{Board, Conduit, Gicv3, Sei, Source, Timer, Uart};
use crate::error::{DtError, Fault, NodePath};
use crate::tree::{Event, MAX_DEPTH, Tree};
use crate::value::Value;

/// What a node is to this reader.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Other,
    Cpus,
    ReservedMemory,
    Chosen,
    Aliases,
    Sei,
    /// Nothing below it is of interest: disabled, or behind an address translation.
    Dead,
}

/// An open node.
#[derive(Clone, Copy, Default)]
struct Frame<'a> {
    path: NodePath<'a>,
    kind: Kind,
    address_cells: u32,
    size_cells: u32,
}

/// The properties of the node at hand that this reader knows.
#[derive(Clone, Copy, Default)]
struct Properties<'a> {
    compatible: Option<Value<'a>>,
    reg: Option<Value<'a>>,
    interrupts: Option<Value<'a>>,
    status: Option<Value<'a>>,
    device_type: Option<Value<'a>>,
    phandle: Option<Value<'a>>,
    address_cells: Option<Value<'a>>,
    size_cells: Option<Value<'a>>,
    ranges: Option<Value<'a>>,
    method: Option<Value<'a>>,
    model: Option<Value<'a>>,
    stdout_path: Option<Value<'a>>,
    gicr_regions: Option<Value<'a>>,
    cpu: Option<Value<'a>>,
    mpidr: Option<Value<'a>>,
    bert: Option<Value<'a>>,
    persistent: Option<Value<'a>>,
    error_status_address: Option<Value<'a>>,
    error_status_length: Option<Value<'a>>,
    read_ack: Option<Value<'a>>,
    pending: Option<Value<'a>>,
    syndrome: Option<Value<'a>>,
}

impl<'a> Properties<'a> {
    /// Finds where a property is kept, if it is of interest.
    #[inline]
    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<Value<'a>>> {
        Some(match name {
            b"reg" => &mut self.reg,
            b"compatible" => &mut self.compatible,
            b"interrupts" => &mut self.interrupts,
            b"status" => &mut self.status,
            b"phandle" => &mut self.phandle,
            b"ranges" => &mut self.ranges,
            b"device_type" => &mut self.device_type,
            b"#address-cells" => &mut self.address_cells,
            b"#size-cells" => &mut self.size_cells,
            b"method" => &mut self.method,
            b"model" => &mut self.model,
            b"stdout-path" => &mut self.stdout_path,
            b"#redistributor-regions" => &mut self.gicr_regions,
            b"cpu" => &mut self.cpu,
            _ => return self.firebreak_slot(name),
        })
    }

    fn firebreak_slot(&mut self, name: &[u8]) -> Option<&mut Option<Value<'a>>> {
        if !name.starts_with(b"firebreak,") {
            return None;
        }
        Some(match core::str::from_utf8(name).ok()? {
            "firebreak,mpidr" => &mut self.mpidr,
            sei::PROP_BERT => &mut self.bert,
            sei::PROP_PERSISTENT => &mut self.persistent,
            sei::PROP_ERROR_STATUS_ADDRESS => &mut self.error_status_address,
            sei::PROP_ERROR_STATUS_LENGTH => &mut self.error_status_length,
            sei::PROP_READ_ACK => &mut self.read_ack,
            sei::PROP_PENDING => &mut self.pending,
            sei::PROP_SYNDROME => &mut self.syndrome,
            _ => return None,
        })
    }

    /// Says whether the node may be used at all.
    fn is_enabled(&self) -> bool {
        self.status
            .is_none_or(|status| status.has("okay") || status.has("ok"))
    }

    fn is_compatible(&self, with: &str) -> bool {
        self.compatible.is_some_and(|list| list.has(with))
    }
}

/// The most UARTs that are considered, and the most aliases that are remembered.
const MAX_CANDIDATES: usize = 8;

struct Reader<'a> {
    board: Board,
    frames: [Frame<'a>; MAX_DEPTH + 1],
    properties: Properties<'a>,
    uarts: Vec<(NodePath<'a>, Uart), MAX_CANDIDATES>,
    aliases: Vec<(&'a [u8], Value<'a>), MAX_CANDIDATES>,
    stdout_path: Option<&'a str>,
    /// phandles of the PEs, in the order of `board.cpus`.
    phandles: Vec<Option<u32>, { firebreak_abi::MAX_PES }>,
    /// Sources that name their PE by phandle: (index of the source, phandle, node).
    unresolved: Vec<(usize, u32, NodePath<'a>), { firebreak_abi::MAX_PES }>,
}

/// Reads a board's devicetree.
///
/// # Errors
///
/// A damaged blob, or a node that Firebreak needs and that is wrong. What is merely absent is
/// absent in the [`Board`]: the caller decides whether it can do without.
pub fn read_board(dtb: &[u8]) -> Result<Board, DtError<'_>> {
    let tree = Tree::open(dtb)?;
    let root = Frame {
        address_cells: 2,
        size_cells: 1,
        ..Frame::default()
    };
    let mut reader = Reader {
        board: Board::default(),
        frames: [root; MAX_DEPTH + 1],
        properties: Properties::default(),
        uarts: Vec::new(),
        aliases: Vec::new(),
        stdout_path: None,
        phandles: Vec::new(),
        unresolved: Vec::new(),
    };
    for (address, len_bytes) in tree.reservations() {
        reader.reserve(
            NodePath::top(b"(reservation block)"),
            PaRange::new(address, len_bytes),
        )?;
    }
    let mut walk = tree.walk();
    let mut judged = true;
    while let Some(event) = walk.next_event()? {
        match event {
            Event::Property(name, value) => reader.note(walk.depth(), name, value),
            Event::Begin(name) => {
                let depth = walk.depth();
                if !judged {
                    reader.judge(depth - 1)?;
                }
                reader.open(depth, name);
                judged = false;
            }
            Event::End => {
                if !judged {
                    reader.judge(walk.depth() + 1)?;
                }
                judged = true;
            }
        }
    }
    reader.finish()
}

impl<'a> Reader<'a> {
    fn frame(&self, depth: usize) -> Frame<'a> {
        self.frames.get(depth).copied().unwrap_or_default()
    }

    fn open(&mut self, depth: usize, name: &'a [u8]) {
        let parent = self.frame(depth.saturating_sub(1));
        let path = if depth == 1 {
            NodePath::default()
        } else {
            parent.path.child(name)
        };
        let kind = match (depth, parent.kind, name) {
            (_, Kind::Dead, _) => Kind::Dead,
            (2, _, b"cpus") => Kind::Cpus,
            (2, _, b"chosen") => Kind::Chosen,
            (2, _, b"aliases") => Kind::Aliases,
            (2, _, b"reserved-memory") => Kind::ReservedMemory,
            _ => Kind::Other,
        };
        if let Some(frame) = self.frames.get_mut(depth) {
            *frame = Frame {
                path,
                kind,
                address_cells: 2,
                size_cells: 1,
            };
        }
        self.properties = Properties::default();
    }

    #[inline]
    fn note(&mut self, depth: usize, name: &'a [u8], value: Value<'a>) {
        if let Some(slot) = self.properties.slot(name) {
            *slot = Some(value);
        } else if self.frame(depth).kind == Kind::Aliases {
            // An alias too many is only missed if the console is named by it, and then the
            // first UART takes its place.
            let _ = self.aliases.push((name, value));
        }
    }

    /// Judges the node at `depth`, all of whose properties are known now.
    fn judge(&mut self, depth: usize) -> Result<(), DtError<'a>> {
        let parent = self.frame(depth.saturating_sub(1));
        let mut frame = self.frame(depth);
        if frame.kind == Kind::Dead {
            return Ok(());
        }
        let properties = self.properties;
        if !properties.is_enabled() {
            frame.kind = Kind::Dead;
        } else {
            let at = At {
                path: frame.path,
                parent,
                properties: &properties,
            };
            frame.address_cells = at.cell("#address-cells", properties.address_cells, 2)?;
            frame.size_cells = at.cell("#size-cells", properties.size_cells, 1)?;
            self.judge_enabled(depth, &mut frame, &at)?;
            if properties.ranges.is_some_and(|ranges| !ranges.is_empty()) {
                frame.kind = Kind::Dead;
            }
        }
        if let Some(slot) = self.frames.get_mut(depth) {
            *slot = frame;
        }
        Ok(())
    }

    fn judge_enabled(
        &mut self,
        depth: usize,
        frame: &mut Frame<'a>,
        at: &At<'a, '_>,
    ) -> Result<(), DtError<'a>> {
        let properties = at.properties;
        match at.parent.kind {
            Kind::Cpus => return self.cpu(at),
            Kind::ReservedMemory if properties.reg.is_some() => {
                at.ranges(|reader, range| reader.reserve(at.path, range), self)?;
            }
            Kind::Sei => return self.source(at),
            Kind::Chosen => {
                self.board.has_domains |= properties
                    .compatible
                    .is_some_and(|list| list.has("firebreak,domain") || list.has("xen,domain"));
                return Ok(());
            }
            _ => {}
        }
        if depth == 1 {
            self.name_board(properties);
        } else if frame.kind == Kind::Chosen {
            self.stdout_path = properties.stdout_path.and_then(|path| path.text());
        } else if properties
            .device_type
            .is_some_and(|kind| kind.has("memory"))
        {
            at.ranges(|reader, range| reader.memory(at.path, range), self)?;
        } else if properties.is_compatible("arm,pl011") {
            self.uart(at)?;
        } else if properties.is_compatible("arm,gic-v3") {
            self.gic(at)?;
        } else if properties.is_compatible("arm,armv8-timer") {
            self.timer(at)?;
        } else if properties.method.is_some() && properties.is_compatible_with_psci() {
            self.psci(at)?;
        } else if properties.is_compatible(sei::COMPATIBLE) {
            self.sei(at)?;
            frame.kind = Kind::Sei;
        }
        Ok(())
    }

    fn name_board(&mut self, properties: &Properties<'a>) {
        let name = properties.model.or(properties.compatible);
        let bytes = name.map(|value| value.bytes()).unwrap_or_default();
        for byte in bytes.iter().take_while(|byte| **byte != 0) {
            let shown = if byte.is_ascii_graphic() || *byte == b' ' {
                *byte
            } else {
                b'?'
            };
            if self.board.model.push(char::from(shown)).is_err() {
                break;
            }
        }
    }

    fn memory(&mut self, path: NodePath<'a>, range: PaRange) -> Result<(), DtError<'a>> {
        if let Some(other) = self.board.memory.iter().find(|other| other.overlaps(range)) {
            let remedy = if *other == range {
                "names the same memory as another node; remove one"
            } else {
                "overlaps memory of another node; make them disjoint"
            };
            return Err(DtError::Property {
                node: path,
                property: "reg",
                fault: Fault::Value(remedy),
            });
        }
        let most = self.board.memory.capacity();
        self.board.memory.push(range).map_err(|_| DtError::Node {
            node: path,
            fault: Fault::TooMany {
                what: "pieces of memory",
                most,
            },
        })
    }

    fn reserve(&mut self, path: NodePath<'a>, range: PaRange) -> Result<(), DtError<'a>> {
        if range.len_bytes == 0 || self.board.reserved.contains(&range) {
            return Ok(());
        }
        if range.start.checked_add(range.len_bytes).is_none() {
            let fault = Fault::Value("ends behind the address space; correct the length");
            return Err(DtError::Node { node: path, fault });
        }
        let most = self.board.reserved.capacity();
        self.board.reserved.push(range).map_err(|_| DtError::Node {
            node: path,
            fault: Fault::TooMany {
                what: "reserved ranges",
                most,
            },
        })
    }

    fn cpu(&mut self, at: &At<'a, '_>) -> Result<(), DtError<'a>> {
        if !at
            .properties
            .device_type
            .is_some_and(|kind| kind.has("cpu"))
        {
            return Ok(());
        }
        let raw = at
            .reg()?
            .number()
            .ok_or(at.form("reg", "one or two cells: the affinity of MPIDR_EL1"))?;
        let mpidr = Mpidr::from_raw(raw);
        if mpidr.get() != raw {
            return Err(at.wrong(
                "reg",
                "has bits outside of MPIDR_EL1's affinity; clear them",
            ));
        }
        if self.board.cpus.contains(&mpidr) {
            return Err(at.wrong("reg", "is the affinity of another PE; give each its own"));
        }
        if self.board.cpus.push(mpidr).is_err() {
            self.board.cpus_beyond_limit = self.board.cpus_beyond_limit.saturating_add(1);
            return Ok(());
        }
        // As many slots as PEs: cannot fail when the one above did not.
        let _ = self
            .phandles
            .push(at.properties.phandle.and_then(|value| value.u32()));
        Ok(())
    }

    fn uart(&mut self, at: &At<'a, '_>) -> Result<(), DtError<'a>> {
        let range = at.first_range()?;
        let intid = at
            .interrupt(0)?
            .ok_or(at.missing("interrupts", "give the UART's interrupt"))?;
        // One UART too many is never the first, and a console among the first eight is enough.
        let _ = self.uarts.push((
            at.path,
            Uart {
                base: range.start,
                intid,
            },
        ));
        Ok(())
    }

    fn gic(&mut self, at: &At<'a, '_>) -> Result<(), DtError<'a>> {
        const GICD_LEN: u64 = 0x1_0000;
        const GICR_LEN: u64 = 0x2_0000;
        if self.board.gicv3.is_some() {
            return Err(at.wrong("compatible", "a second GICv3 is described; keep one"));
        }
        let regions = at.cell("#redistributor-regions", at.properties.gicr_regions, 1)?;
        let mut gicd = None;
        let mut gicr = Vec::new();
        let mut count = 0;
        let mut cells = at.cells("reg", at.properties.reg)?;
        // Behind the redistributors stand GICC, GICH and GICV of a GICv2, which is not used.
        while count <= regions && !cells.is_done() {
            let range = at.range(&mut cells)?;
            let least = if count == 0 { GICD_LEN } else { GICR_LEN };
            if range.len_bytes < least || !range.start.is_aligned(0x1_0000) {
                return Err(at.wrong("reg", "is too short or not 64 KiB aligned; give GICD (64 KiB) and GICR (128 KiB for each PE)"));
            }
            if count == 0 {
                gicd = Some(range);
            } else {
                gicr.push(range)
                    .map_err(|_| at.too_many("redistributor regions", super::MAX_GICR))?;
            }
            count += 1;
        }
        let gicd = gicd.ok_or(at.missing("reg", "give GICD and GICR"))?;
        if gicr.is_empty() {
            return Err(at.missing("reg", "give the redistributors behind the distributor"));
        }
        const SBSA_MAINTENANCE_INTID: u32 = 25;
        let maintenance_intid = at.interrupt(0)?.unwrap_or(SBSA_MAINTENANCE_INTID);
        self.board.gicv3 = Some(Gicv3 {
            gicd,
            gicr,
            maintenance_intid,
        });
        Ok(())
    }

    fn timer(&mut self, at: &At<'a, '_>) -> Result<(), DtError<'a>> {
        let nth = |n| at.interrupt(n);
        // Order of the binding: secure, non-secure EL1, virtual, EL2.
        if let (Some(physical_intid), Some(virtual_intid), Some(hypervisor_intid)) =
            (nth(1)?, nth(2)?, nth(3)?)
        {
            self.board.timer = Some(Timer {
                physical_intid,
                virtual_intid,
                hypervisor_intid,
            });
        }
        Ok(())
    }

    fn psci(&mut self, at: &At<'a, '_>) -> Result<(), DtError<'a>> {
        let method = at.properties.method.and_then(|value| value.text());
        self.board.psci_conduit = Some(match method {
            Some("smc") => Conduit::Smc,
            Some("hvc") => Conduit::Hvc,
            _ => return Err(at.form("method", "\"smc\" or \"hvc\"")),
        });
        Ok(())
    }

    fn sei(&mut self, at: &At<'a, '_>) -> Result<(), DtError<'a>> {
        if self.board.sei.is_some() {
            return Err(at.wrong(
                "compatible",
                "a second error interface is described; keep one",
            ));
        }
        let region = at.first_range()?;
        let within = |property, value: Option<Value<'a>>| -> Result<Option<PaRange>, DtError<'a>> {
            let Some(value) = value else { return Ok(None) };
            let mut cells = at.cells(property, Some(value))?;
            let range = at
                .range(&mut cells)
                .map_err(|_| at.form(property, "base and length, as in reg"))?;
            at.inside(property, region, range.start, range.len_bytes)?;
            Ok(Some(range))
        };
        let bert = within(sei::PROP_BERT, at.properties.bert)?;
        let persistent = within(sei::PROP_PERSISTENT, at.properties.persistent)?;
        self.reserve(at.path, region)?;
        self.board.sei = Some(Sei {
            region,
            bert,
            persistent,
            sources: Vec::new(),
        });
        Ok(())
    }

    fn source(&mut self, at: &At<'a, '_>) -> Result<(), DtError<'a>> {
        let Some(sei) = self.board.sei.as_mut() else {
            return Ok(());
        };
        let properties = at.properties;
        let region = sei.region;
        let word = |property, value: Option<Value<'a>>| -> Result<Pa, DtError<'a>> {
            let value = value.ok_or(at.missing(property, "each source needs it"))?;
            let pa = value
                .number()
                .ok_or(at.form(property, "a physical address of one or two cells"))?;
            if pa % 8 != 0 {
                return Err(at.wrong(property, "is not 8-byte aligned; align it"));
            }
            at.inside(property, region, Pa::new(pa), 8)?;
            Ok(Pa::new(pa))
        };
        let error_status_length = properties
            .error_status_length
            .and_then(|value| value.u32())
            .ok_or(at.form(
                sei::PROP_ERROR_STATUS_LENGTH,
                "one cell: the status block's bytes",
            ))?;
        let (mpidr, phandle) = at.target()?;
        let source = Source {
            mpidr,
            error_status_address: word(
                sei::PROP_ERROR_STATUS_ADDRESS,
                properties.error_status_address,
            )?,
            error_status_length,
            read_ack: word(sei::PROP_READ_ACK, properties.read_ack)?,
            pending: word(sei::PROP_PENDING, properties.pending)?,
            syndrome: word(sei::PROP_SYNDROME, properties.syndrome)?,
        };
        let index = sei.sources.len();
        if sei.sources.push(source).is_err() {
            return Ok(()); // The source of a PE that is not used either.
        }
        if let Some(phandle) = phandle {
            let _ = self.unresolved.push((index, phandle, at.path));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Board, DtError<'a>> {
        for (index, phandle, path) in &self.unresolved {
            let pe = self.phandles.iter().position(|one| *one == Some(*phandle));
            let mpidr = pe.and_then(|pe| self.board.cpus.get(pe)).copied();
            let source = self
                .board
                .sei
                .as_mut()
                .and_then(|sei| sei.sources.get_mut(*index));
            match (mpidr, source) {
                (Some(mpidr), Some(source)) => source.mpidr = mpidr,
                _ => {
                    let fault = Fault::Value("is not the phandle of a PE; name one of /cpus");
                    return Err(DtError::Property {
                        node: *path,
                        property: "cpu",
                        fault,
                    });
                }
            }
        }
        let named = self.stdout_path.and_then(|path| self.find_uart(path));
        self.board.uart = named.or(self.uarts.first().map(|(_, uart)| *uart));
        Ok(self.board)
    }

    /// Finds the UART that `stdout-path` names: a path or an alias, options behind a colon.
    fn find_uart(&self, stdout_path: &'a str) -> Option<Uart> {
        let name = stdout_path.split(':').next()?;
        let path = if name.starts_with('/') {
            name
        } else {
            self.aliases
                .iter()
                .find(|(alias, _)| *alias == name.as_bytes())?
                .1
                .text()?
        };
        self.uarts
            .iter()
            .find(|(node, _)| node.is(path))
            .map(|(_, uart)| *uart)
    }
}

impl Properties<'_> {
    fn is_compatible_with_psci(&self) -> bool {
        ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]
            .iter()
            .any(|one| self.is_compatible(one))
    }
}

/// The node at hand, for those who decode its properties.
struct At<'a, 'p> {
    path: NodePath<'a>,
    parent: Frame<'a>,
    properties: &'p Properties<'a>,
}

impl<'a> At<'a, '_> {
    fn missing(&self, property: &'a str, remedy: &'static str) -> DtError<'a> {
        DtError::Property {
            node: self.path,
            property,
            fault: Fault::Missing(remedy),
        }
    }

    fn form(&self, property: &'a str, form: &'static str) -> DtError<'a> {
        DtError::Property {
            node: self.path,
            property,
            fault: Fault::Form(form),
        }
    }

    fn wrong(&self, property: &'a str, remedy: &'static str) -> DtError<'a> {
        DtError::Property {
            node: self.path,
            property,
            fault: Fault::Value(remedy),
        }
    }

    fn too_many(&self, what: &'static str, most: usize) -> DtError<'a> {
        DtError::Node {
            node: self.path,
            fault: Fault::TooMany { what, most },
        }
    }

    fn cell(
        &self,
        name: &'a str,
        value: Option<Value<'a>>,
        default: u32,
    ) -> Result<u32, DtError<'a>> {
        value.map_or(Ok(default), |value| {
            value.u32().ok_or(self.form(name, "one cell"))
        })
    }

    fn reg(&self) -> Result<Value<'a>, DtError<'a>> {
        self.properties
            .reg
            .ok_or(self.missing("reg", "say where it is"))
    }

    fn cells(
        &self,
        name: &'a str,
        value: Option<Value<'a>>,
    ) -> Result<crate::value::Cells<'a>, DtError<'a>> {
        let value = value.ok_or(self.missing(name, "say where it is"))?;
        value.cells().ok_or(self.form(name, "whole cells"))
    }

    /// Reads one address and length by the parent's cell counts.
    fn range(&self, cells: &mut crate::value::Cells<'a>) -> Result<PaRange, DtError<'a>> {
        const FORM: &str = "addresses of one or two cells and lengths of one or two cells";
        let Frame {
            address_cells,
            size_cells,
            ..
        } = self.parent;
        if address_cells == 0 || size_cells == 0 {
            return Err(self.form("reg", FORM));
        }
        let start = cells.number(address_cells);
        let len_bytes = cells.number(size_cells);
        let (Some(start), Some(len_bytes)) = (start, len_bytes) else {
            return Err(self.form("reg", FORM));
        };
        if start.checked_add(len_bytes).is_none() {
            return Err(self.wrong("reg", "ends behind the address space; correct the length"));
        }
        Ok(PaRange::new(start, len_bytes))
    }

    fn first_range(&self) -> Result<PaRange, DtError<'a>> {
        let mut cells = self.cells("reg", self.properties.reg)?;
        self.range(&mut cells)
    }

    fn ranges(
        &self,
        mut each: impl FnMut(&mut Reader<'a>, PaRange) -> Result<(), DtError<'a>>,
        reader: &mut Reader<'a>,
    ) -> Result<(), DtError<'a>> {
        let mut cells = self.cells("reg", self.properties.reg)?;
        while !cells.is_done() {
            let range = self.range(&mut cells)?;
            if range.len_bytes != 0 {
                each(reader, range)?;
            }
        }
        Ok(())
    }

    /// Returns the INTID of the n-th interrupt in the GIC's three-cell form.
    fn interrupt(&self, n: usize) -> Result<Option<u32>, DtError<'a>> {
        const FORM: &str = "three cells for each interrupt: 0 (SPI) or 1 (PPI), number, trigger";
        let Some(value) = self.properties.interrupts else {
            return Ok(None);
        };
        let mut cells = self.cells("interrupts", Some(value))?;
        for _ in 0..n.saturating_mul(3) {
            if cells.number(1).is_none() {
                return Ok(None);
            }
        }
        if cells.is_done() {
            return Ok(None);
        }
        let numbers = (cells.number(1), cells.number(1), cells.number(1));
        match numbers {
            (Some(0), Some(spi @ 0..988), Some(_)) => Ok(u32::try_from(spi + 32).ok()),
            (Some(1), Some(ppi @ 0..16), Some(_)) => Ok(u32::try_from(ppi + 16).ok()),
            _ => Err(self.form("interrupts", FORM)),
        }
    }

    fn inside(
        &self,
        property: &'a str,
        region: PaRange,
        start: Pa,
        len_bytes: u64,
    ) -> Result<(), DtError<'a>> {
        let end = start.checked_add(len_bytes);
        let fits = start >= region.start && end.is_some_and(|end| end <= region.end());
        if fits {
            Ok(())
        } else {
            Err(self.wrong(property, "lies outside of the shared region; put it inside"))
        }
    }

    /// Which PE a source serves: by affinity, or by a phandle that is looked up at the end.
    fn target(&self) -> Result<(Mpidr, Option<u32>), DtError<'a>> {
        if let Some(cpu) = self.properties.cpu {
            let phandle = cpu.u32().ok_or(self.form("cpu", "one phandle"))?;
            return Ok((Mpidr::default(), Some(phandle)));
        }
        let (name, value) = match self.properties.mpidr {
            Some(value) => ("firebreak,mpidr", value),
            None => (
                "reg",
                self.properties
                    .reg
                    .ok_or(self.missing("cpu", "name the PE by phandle"))?,
            ),
        };
        let raw = value
            .number()
            .ok_or(self.form(name, "the affinity of MPIDR_EL1 as one or two cells"))?;
        Ok((Mpidr::from_raw(raw), None))
    }
}
