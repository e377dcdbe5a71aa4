// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node at hand, for those who decode its properties.

use firebreak_abi::{Mpidr, Pa, PaRange};

use super::properties::{Id, Properties};
use crate::error::{Complaint, Fault, NodePath, Refused};
use crate::value::{Cells, Value};

/// What a node is to the reader.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
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
pub(super) struct Frame<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: Kind,
    pub(super) address_cells: u32,
    pub(super) size_cells: u32,
}

/// A node whose properties are all known.
pub(super) struct Node<'a, 'p> {
    /// All open nodes; index 1 is the root.
    pub(super) frames: &'p [Frame<'a>],
    /// Index of this one.
    pub(super) depth: usize,
    pub(super) properties: &'p Properties<'a>,
    pub(super) complaint: &'p Complaint<'a>,
}

impl<'a> Node<'a, '_> {
    pub(super) fn parent(&self) -> Frame<'a> {
        self.depth
            .checked_sub(1)
            .and_then(|parent| self.frames.get(parent))
            .copied()
            .unwrap_or_default()
    }

    /// Returns the path; only errors and UARTs need it.
    pub(super) fn path(&self) -> NodePath<'a> {
        let below_root = self.frames.get(2..=self.depth).unwrap_or_default();
        below_root
            .iter()
            .fold(NodePath::default(), |path, frame| path.child(frame.name))
    }

    pub(super) fn get(&self, id: Id) -> Option<Value<'a>> {
        self.properties.get(id)
    }

    #[cold]
    #[inline(never)]
    fn error(&self, id: Id, fault: &Fault<'a>) -> Refused {
        self.complaint.property(&self.path(), id.name(), fault)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn missing(&self, id: Id, remedy: &'static str) -> Refused {
        self.error(id, &Fault::Missing(remedy))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn form(&self, id: Id, form: &'static str) -> Refused {
        self.error(id, &Fault::Form(form))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn wrong(&self, id: Id, remedy: &'static str) -> Refused {
        self.error(id, &Fault::Value(remedy))
    }

    pub(super) fn too_many(&self, what: &'static str, most: usize) -> Refused {
        let fault = Fault::TooMany { what, most };
        self.complaint.node(&self.path(), &fault)
    }

    #[inline(never)]
    pub(super) fn need(&self, id: Id, remedy: &'static str) -> Result<Value<'a>, Refused> {
        match self.get(id) {
            Some(value) => Ok(value),
            None => Err(self.missing(id, remedy)),
        }
    }

    #[inline(never)]
    pub(super) fn cell(&self, id: Id, default: u32) -> Result<u32, Refused> {
        match self.get(id) {
            Some(value) => value.u32().ok_or_else(|| self.form(id, "one cell")),
            None => Ok(default),
        }
    }

    #[inline(never)]
    pub(super) fn cells(&self, id: Id) -> Result<Cells<'a>, Refused> {
        let value = self.need(id, "say where it is")?;
        value.cells().ok_or_else(|| self.form(id, "whole cells"))
    }

    /// Reads one address and length by the parent's cell counts.
    pub(super) fn range(&self, id: Id, cells: &mut Cells<'a>) -> Result<PaRange, Refused> {
        const FORM: &str = "addresses of one or two cells and lengths of one or two cells";
        let Frame {
            address_cells,
            size_cells,
            ..
        } = self.parent();
        let (start, len_bytes) = match (address_cells, size_cells) {
            // Without any cell, a list of ranges would never end.
            (0, _) | (_, 0) => (None, None),
            _ => (cells.number(address_cells), cells.number(size_cells)),
        };
        let (Some(start), Some(len_bytes)) = (start, len_bytes) else {
            return Err(self.form(id, FORM));
        };
        if start.checked_add(len_bytes).is_none() {
            return Err(self.wrong(id, "ends behind the address space; correct the length"));
        }
        Ok(PaRange::new(start, len_bytes))
    }

    pub(super) fn first_range(&self, id: Id) -> Result<PaRange, Refused> {
        let mut cells = self.cells(id)?;
        self.range(id, &mut cells)
    }

    /// Hands over each range of `reg` that is not empty.
    pub(super) fn each_range(
        &self,
        mut take: impl FnMut(PaRange) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let mut cells = self.cells(Id::Reg)?;
        while !cells.is_done() {
            let range = self.range(Id::Reg, &mut cells)?;
            if range.len_bytes != 0 {
                take(range)?;
            }
        }
        Ok(())
    }

    /// Returns the INTID of the n-th interrupt in the GIC's three-cell form.
    pub(super) fn interrupt(&self, n: usize) -> Result<Option<u32>, Refused> {
        const FORM: &str = "three cells for each interrupt: 0 (SPI) or 1 (PPI), number, trigger";
        if self.get(Id::Interrupts).is_none() {
            return Ok(None);
        }
        let mut cells = self.cells(Id::Interrupts)?;
        for _ in 0..n.saturating_mul(3) {
            if cells.number(1).is_none() {
                return Ok(None);
            }
        }
        if cells.is_done() {
            return Ok(None);
        }
        match (cells.number(1), cells.number(1), cells.number(1)) {
            (Some(0), Some(spi @ 0..988), Some(_)) => Ok(u32::try_from(spi + 32).ok()),
            (Some(1), Some(ppi @ 0..16), Some(_)) => Ok(u32::try_from(ppi + 16).ok()),
            _ => Err(self.form(Id::Interrupts, FORM)),
        }
    }

    /// Refuses what does not lie inside of the shared region.
    #[inline(never)]
    pub(super) fn inside(
        &self,
        id: Id,
        region: PaRange,
        start: Pa,
        len_bytes: u64,
    ) -> Result<(), Refused> {
        let end = start.checked_add(len_bytes);
        if start >= region.start && end.is_some_and(|end| end <= region.end()) {
            Ok(())
        } else {
            Err(self.wrong(id, "lies outside of the shared region; put it inside"))
        }
    }

    /// Reads the affinity of a PE.
    pub(super) fn affinity(&self, id: Id) -> Result<Mpidr, Refused> {
        let raw = self
            .need(id, "give the affinity of MPIDR_EL1")?
            .number()
            .ok_or_else(|| self.form(id, "one or two cells: the affinity of MPIDR_EL1"))?;
        let mpidr = Mpidr::from_raw(raw);
        if mpidr.get() == raw {
            Ok(mpidr)
        } else {
            Err(self.wrong(id, "has bits outside of MPIDR_EL1's affinity; clear them"))
        }
    }
}
