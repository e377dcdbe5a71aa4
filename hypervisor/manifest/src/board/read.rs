// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a board's devicetree in one pass.
//!
//! The properties of a node stand before its children, so a node is judged before they are read.
//! What can only be answered at the end (which UART is the console,
//! which PE a phandle means) is noted on the way. A node that Firebreak does not need may hold
//! what it likes; one that it needs must be right in every word.

use firebreak_abi::{MAX_PES, Mpidr, Pa, PaRange};
use heapless::Vec;

use super::node::{Frame, Kind, Node};
use super::properties::{Device, Id, Names, Properties};
use super::{Board, Conduit, Gicv3, MAX_GICR, Sei, Source, Timer, Uart};
use crate::error::{Complaint, DtError, Fault, NodePath, Refused};
use crate::tree::{Event, MAX_DEPTH, Tree};
use crate::value::{Value, place_of};

/// The most UARTs that are considered, and the most aliases that are remembered.
const MAX_CANDIDATES: usize = 4;

/// The most fixed clocks that are remembered.
const MAX_CLOCKS: usize = 16;

/// Reads a board's devicetree.
///
/// # Errors
///
/// A damaged blob, or a node that Firebreak needs and that is wrong. What is merely absent is
/// absent in the [`Board`]: the caller decides whether it can do without.
#[inline(never)]
pub fn read_board(dtb: &[u8]) -> Result<Board, DtError<'_>> {
    let complaint = Complaint::default();
    complaint.close(read(dtb, &complaint))
}

fn read<'a>(dtb: &'a [u8], complaint: &Complaint<'a>) -> Result<Board, Refused> {
    let bad_tree = |fault| complaint.tree(fault);
    let tree = Tree::open(dtb).map_err(bad_tree)?;
    let mut found = Found::new(complaint);
    for (address, len_bytes) in tree.reservations() {
        let path = NodePath::top(b"(reservation block)");
        found.reserve(path, PaRange::new(address, len_bytes))?;
    }
    let mut frames = [Frame::default(); MAX_DEPTH + 1];
    let mut names = Names::new();
    let mut properties = Properties::new();
    let mut walk = tree.walk();
    while let Some(event) = walk.next_event().map_err(bad_tree)? {
        let Event::Begin(name) = event else { continue };
        let depth = walk.depth();
        let kind = open(&mut frames, depth, name);
        properties.clear();
        while let Some((name, value)) = walk.next_property().map_err(bad_tree)? {
            if let Some(id) = names.find(name).map_err(bad_tree)? {
                properties.set(id, value);
            } else if kind == Kind::Aliases {
                // An alias too many is only missed if the console is named by it, and then the
                // first UART takes its place.
                let _ = found.aliases.push((name.bytes().map_err(bad_tree)?, value));
            }
        }
        found.judge(&mut frames, depth, &properties)?;
    }
    found.resolve()?;
    Ok(found.board)
}

/// Puts a node on the stack and returns what it is.
fn open<'a>(frames: &mut [Frame<'a>], depth: usize, name: &'a [u8]) -> Kind {
    let parent = depth.checked_sub(1).and_then(|parent| frames.get(parent));
    let dead = parent.is_some_and(|parent| parent.kind == Kind::Dead);
    let known = match (dead, depth) {
        (false, 2) => place_of(&["cpus", "chosen", "aliases", "reserved-memory"], name),
        _ => None,
    };
    let kind = match known {
        _ if dead => Kind::Dead,
        Some(0) => Kind::Cpus,
        Some(1) => Kind::Chosen,
        Some(2) => Kind::Aliases,
        Some(_) => Kind::ReservedMemory,
        None => Kind::Other,
    };
    if let Some(frame) = frames.get_mut(depth) {
        // Cell counts by the specification's defaults (2.3.5).
        *frame = Frame {
            name,
            kind,
            address_cells: 2,
            size_cells: 1,
        };
    }
    kind
}

/// What has been found so far.
struct Found<'a, 'c> {
    complaint: &'c Complaint<'a>,
    board: Board,
    /// UARTs, each with the phandle of its first clock.
    uarts: Vec<(NodePath<'a>, Uart, Option<u32>), MAX_CANDIDATES>,
    /// Fixed clocks: phandle and rate.
    clocks: Vec<(u32, u32), MAX_CLOCKS>,
    aliases: Vec<(&'a [u8], Value<'a>), MAX_CANDIDATES>,
    stdout_path: Option<&'a str>,
    /// phandles of the PEs, in the order of `board.cpus`.
    phandles: Vec<Option<u32>, MAX_PES>,
    /// Sources that name their PE by phandle: (index of the source, phandle, node).
    unresolved: Vec<(usize, u32, NodePath<'a>), MAX_PES>,
}

impl<'a, 'c> Found<'a, 'c> {
    fn new(complaint: &'c Complaint<'a>) -> Self {
        Self {
            complaint,
            board: Board::default(),
            uarts: Vec::new(),
            clocks: Vec::new(),
            aliases: Vec::new(),
            stdout_path: None,
            phandles: Vec::new(),
            unresolved: Vec::new(),
        }
    }

    /// Judges the node at `depth`, all of whose properties are known now.
    fn judge(
        &mut self,
        frames: &mut [Frame<'a>],
        depth: usize,
        properties: &Properties<'a>,
    ) -> Result<(), Refused> {
        let mut frame = frames.get(depth).copied().unwrap_or_default();
        if frame.kind == Kind::Dead {
            return Ok(());
        }
        if properties.is_enabled() {
            let node = Node {
                frames,
                depth,
                properties,
                complaint: self.complaint,
            };
            frame.address_cells = node.cell(Id::AddressCells, frame.address_cells)?;
            frame.size_cells = node.cell(Id::SizeCells, frame.size_cells)?;
            self.judge_enabled(&mut frame, &node)?;
            if node
                .get(Id::Ranges)
                .is_some_and(|ranges| !ranges.is_empty())
            {
                frame.kind = Kind::Dead;
            }
        } else {
            frame.kind = Kind::Dead;
        }
        if let Some(slot) = frames.get_mut(depth) {
            *slot = frame;
        }
        Ok(())
    }

    fn judge_enabled(&mut self, frame: &mut Frame<'a>, node: &Node<'a, '_>) -> Result<(), Refused> {
        match node.parent().kind {
            Kind::Cpus => return self.cpu(node),
            Kind::Sei => return self.source(node),
            Kind::ReservedMemory if node.get(Id::Reg).is_some() => {
                node.each_range(|range| self.reserve(node.path(), range))?;
            }
            _ => {}
        }
        if node.depth == 1 {
            self.name_board(node);
            return Ok(());
        }
        if frame.kind == Kind::Chosen {
            self.stdout_path = node.get(Id::StdoutPath).and_then(|path| path.text());
            return Ok(());
        }
        if node
            .get(Id::DeviceType)
            .is_some_and(|kind| kind.has("memory"))
        {
            return node.each_range(|range| self.memory(node, range));
        }
        match node.get(Id::Compatible).and_then(Device::of) {
            Some(Device::Pl011) => self.uart(node),
            Some(Device::FixedClock) => {
                self.fixed_clock(node);
                Ok(())
            }
            Some(Device::Gicv3) => self.gic(node),
            Some(Device::Timer) => self.timer(node),
            Some(Device::Psci) => self.psci(node),
            Some(Device::Sei) => {
                frame.kind = Kind::Sei;
                self.sei(node)
            }
            Some(Device::Domain) => {
                self.board.has_domains |= node.parent().kind == Kind::Chosen;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn name_board(&mut self, node: &Node<'a, '_>) {
        let name = node.get(Id::Model).or(node.get(Id::Compatible));
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

    fn memory(&mut self, node: &Node<'a, '_>, range: PaRange) -> Result<(), Refused> {
        if self.board.memory.iter().any(|other| other.overlaps(range)) {
            return Err(node.wrong(
                Id::Reg,
                "overlaps memory that was named before; make it disjoint",
            ));
        }
        let most = self.board.memory.capacity();
        self.board
            .memory
            .push(range)
            .map_err(|_| node.too_many("pieces of memory", most))
    }

    fn reserve(&mut self, path: NodePath<'a>, range: PaRange) -> Result<(), Refused> {
        if range.len_bytes == 0 || self.board.reserved.contains(&range) {
            return Ok(());
        }
        let most = self.board.reserved.capacity();
        let fault = if range.start.checked_add(range.len_bytes).is_none() {
            Fault::Value("ends behind the address space; correct the length")
        } else if self.board.reserved.push(range).is_err() {
            Fault::TooMany {
                what: "reserved ranges",
                most,
            }
        } else {
            return Ok(());
        };
        Err(self.complaint.node(&path, &fault))
    }

    fn cpu(&mut self, node: &Node<'a, '_>) -> Result<(), Refused> {
        if !node.get(Id::DeviceType).is_some_and(|kind| kind.has("cpu")) {
            return Ok(());
        }
        let mpidr = node.affinity(Id::Reg)?;
        if self.board.has_pe(mpidr) {
            return Err(node.wrong(Id::Reg, "is the affinity of another PE; give each its own"));
        }
        if self.board.cpus.push(mpidr).is_err() {
            self.board.cpus_beyond_limit = self.board.cpus_beyond_limit.saturating_add(1);
            return Ok(());
        }
        // As many slots as PEs: cannot fail when the one above did not.
        let _ = self
            .phandles
            .push(node.get(Id::Phandle).and_then(|value| value.u32()));
        Ok(())
    }

    fn uart(&mut self, node: &Node<'a, '_>) -> Result<(), Refused> {
        let range = node.first_range(Id::Reg)?;
        let intid = node.interrupt(0)?;
        let intid =
            intid.ok_or_else(|| node.missing(Id::Interrupts, "give the UART's interrupt"))?;
        let current_speed = match node.cell(Id::CurrentSpeed, 0)? {
            0 => None,
            speed => Some(speed),
        };
        // UARTCLK comes first (binding arm,pl011); a provider with cells of its own is no fixed clock.
        let clocks = node.get(Id::Clocks).and_then(|clocks| clocks.cells());
        let clock = clocks.and_then(|mut cells| u32::try_from(cells.number(1)?).ok());
        let uart = Uart {
            base: range.start,
            intid,
            current_speed,
            clock_hz: None,
        };
        // One UART too many is never the first, and a console among the first four is enough.
        let _ = self.uarts.push((node.path(), uart, clock));
        Ok(())
    }

    /// Remembers a clock, which may be the console's. Of one that is not as it should be, or of one
    /// too many, the rate is not known.
    fn fixed_clock(&mut self, node: &Node<'a, '_>) {
        let cell = |id| node.get(id).and_then(|value| value.u32());
        if let (Some(phandle), Some(hz)) = (cell(Id::Phandle), cell(Id::ClockFrequency)) {
            let _ = self.clocks.push((phandle, hz));
        }
    }

    fn gic(&mut self, node: &Node<'a, '_>) -> Result<(), Refused> {
        const GICD_LEN: u64 = 0x1_0000;
        const GICR_LEN: u64 = 0x2_0000;
        const SBSA_MAINTENANCE_INTID: u32 = 25;
        const WRONG: &str = "is too short or not 64 KiB aligned; \
                             give GICD (64 KiB) and GICR (128 KiB for each PE)";
        if self.board.gicv3.is_some() {
            return Err(node.wrong(Id::Compatible, "a second GICv3 is described; keep one"));
        }
        let regions = node.cell(Id::RedistributorRegions, 1)?;
        let mut cells = node.cells(Id::Reg)?;
        let frame = |least, cells: &mut _| {
            let range = node.range(Id::Reg, cells)?;
            if range.len_bytes < least || !range.start.is_aligned(0x1_0000) {
                return Err(node.wrong(Id::Reg, WRONG));
            }
            Ok(range)
        };
        let gicd = frame(GICD_LEN, &mut cells)?;
        let mut gicr = Vec::new();
        // Behind the redistributors stand GICC, GICH and GICV of a GICv2, which is not used.
        for _ in 0..regions {
            let range = frame(GICR_LEN, &mut cells)?;
            gicr.push(range)
                .map_err(|_| node.too_many("redistributor regions", MAX_GICR))?;
        }
        if gicr.is_empty() {
            return Err(node.wrong(
                Id::RedistributorRegions,
                "is 0; describe the redistributors",
            ));
        }
        let maintenance_intid = node.interrupt(0)?.unwrap_or(SBSA_MAINTENANCE_INTID);
        self.board.gicv3 = Some(Gicv3 {
            gicd,
            gicr,
            maintenance_intid,
        });
        Ok(())
    }

    fn timer(&mut self, node: &Node<'a, '_>) -> Result<(), Refused> {
        // Order of the binding: secure, non-secure EL1, virtual, EL2.
        if let (Some(physical_intid), Some(virtual_intid), Some(hypervisor_intid)) =
            (node.interrupt(1)?, node.interrupt(2)?, node.interrupt(3)?)
        {
            self.board.timer = Some(Timer {
                physical_intid,
                virtual_intid,
                hypervisor_intid,
            });
        }
        Ok(())
    }

    fn psci(&mut self, node: &Node<'a, '_>) -> Result<(), Refused> {
        let method = node.need(Id::Method, "say \"smc\" or \"hvc\"")?;
        self.board.psci_conduit = Some(match method.text() {
            Some("smc") => Conduit::Smc,
            Some("hvc") => Conduit::Hvc,
            _ => return Err(node.form(Id::Method, "\"smc\" or \"hvc\"")),
        });
        Ok(())
    }

    fn sei(&mut self, node: &Node<'a, '_>) -> Result<(), Refused> {
        if self.board.sei.is_some() {
            return Err(node.wrong(
                Id::Compatible,
                "a second error interface is described; keep one",
            ));
        }
        let region = node.first_range(Id::Reg)?;
        let within = |id| -> Result<Option<PaRange>, Refused> {
            if node.get(id).is_none() {
                return Ok(None);
            }
            let range = node.first_range(id)?;
            node.inside(id, region, range.start, range.len_bytes)?;
            Ok(Some(range))
        };
        let (bert, persistent) = (within(Id::Bert)?, within(Id::Persistent)?);
        self.reserve(node.path(), region)?;
        self.board.sei = Some(Sei {
            region,
            bert,
            persistent,
            sources: Vec::new(),
        });
        Ok(())
    }

    fn source(&mut self, node: &Node<'a, '_>) -> Result<(), Refused> {
        let Some(sei) = self.board.sei.as_mut() else {
            return Ok(());
        };
        let region = sei.region;
        let word = |id| source_word(node, id, region);
        let length = node.need(Id::ErrorStatusLength, "give the status block's bytes")?;
        let length = length
            .u32()
            .filter(|bytes| u64::from(*bytes) <= region.len_bytes);
        let (mpidr, phandle) = target(node)?;
        let source = Source {
            mpidr,
            error_status_address: word(Id::ErrorStatusAddress)?,
            error_status_length: length.ok_or_else(|| {
                node.form(
                    Id::ErrorStatusLength,
                    "one cell: bytes, at most the shared region's",
                )
            })?,
            read_ack: word(Id::ReadAck)?,
            pending: word(Id::Pending)?,
            syndrome: word(Id::Syndrome)?,
        };
        let index = sei.sources.len();
        if sei.sources.push(source).is_ok()
            && let Some(phandle) = phandle
        {
            // As many slots as sources. A source too many is that of a PE that stays off.
            let _ = self.unresolved.push((index, phandle, node.path()));
        }
        Ok(())
    }

    /// Answers what could not be answered before everything was seen.
    fn resolve(&mut self) -> Result<(), Refused> {
        for (index, phandle, path) in &self.unresolved {
            let pe = self.phandles.iter().position(|one| *one == Some(*phandle));
            let mpidr = pe.and_then(|pe| self.board.cpus.get(pe)).copied();
            let source = self
                .board
                .sei
                .as_mut()
                .and_then(|sei| sei.sources.get_mut(*index));
            if let (Some(mpidr), Some(source)) = (mpidr, source) {
                source.mpidr = mpidr;
                continue;
            }
            let fault = Fault::Value("is not the phandle of a PE; name one of /cpus");
            return Err(self.complaint.property(path, "cpu", &fault));
        }
        let named = self.stdout_path.and_then(|path| self.find_uart(path));
        let chosen = named.or(self.uarts.first().map(|(_, uart, clock)| (*uart, *clock)));
        self.board.uart = chosen.map(|(uart, clock)| Uart {
            clock_hz: clock.and_then(|clock| self.rate_of(clock)),
            ..uart
        });
        Ok(())
    }

    fn rate_of(&self, clock: u32) -> Option<u32> {
        let (_, hz) = self.clocks.iter().find(|(phandle, _)| *phandle == clock)?;
        Some(*hz)
    }

    /// Finds the UART that `stdout-path` names, and its clock: a path or an alias, options behind a colon.
    fn find_uart(&self, stdout_path: &'a str) -> Option<(Uart, Option<u32>)> {
        let name = stdout_path.split(':').next()?;
        let path = if name.starts_with('/') {
            name
        } else {
            let alias = self
                .aliases
                .iter()
                .find(|(alias, _)| *alias == name.as_bytes())?;
            alias.1.text()?
        };
        self.uarts
            .iter()
            .find(|(node, ..)| node.is(path))
            .map(|(_, uart, clock)| (*uart, *clock))
    }
}

/// Reads the address of one of a source's words in the shared region.
#[inline(never)]
fn source_word(node: &Node<'_, '_>, id: Id, region: PaRange) -> Result<Pa, Refused> {
    let value = node.need(id, "each source needs it")?;
    let pa = value.number().map(Pa::new);
    let pa = pa.ok_or_else(|| node.form(id, "a physical address of one or two cells"))?;
    if !pa.is_aligned(8) {
        return Err(node.wrong(id, "is not 8-byte aligned; align it"));
    }
    node.inside(id, region, pa, 8)?;
    Ok(pa)
}

/// Which PE a source serves: by affinity, or by a phandle that is looked up at the end.
fn target(node: &Node<'_, '_>) -> Result<(Mpidr, Option<u32>), Refused> {
    if let Some(cpu) = node.get(Id::Cpu) {
        let phandle = cpu.u32().ok_or_else(|| node.form(Id::Cpu, "one phandle"))?;
        return Ok((Mpidr::default(), Some(phandle)));
    }
    let id = if node.get(Id::Mpidr).is_some() {
        Id::Mpidr
    } else {
        Id::Reg
    };
    Ok((node.affinity(id)?, None))
}
