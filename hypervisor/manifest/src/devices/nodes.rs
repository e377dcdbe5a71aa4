// SPDX-License-Identifier: MIT OR Apache-2.0
//! Walks the nodes of a board's devicetree with what each inherits.

use firebreak_abi::PaRange;

use crate::error::NodePath;
use crate::tree::{Event, MAX_DEPTH, Tree, TreeFault, Walk};
use crate::value::{Value, place_of};

macro_rules! properties {
    ($($id:ident = $name:literal),* $(,)?) => {
        /// A property that is of interest.
        #[derive(Clone, Copy)]
        pub(super) enum Id {
            $($id),*
        }
        const NAMES: &[&str] = &[$($name),*];
    };
}

properties! {
    Reg = "reg",
    Interrupts = "interrupts",
    InterruptParent = "interrupt-parent",
    Compatible = "compatible",
    Status = "status",
    Ranges = "ranges",
    AddressCells = "#address-cells",
    SizeCells = "#size-cells",
    Phandle = "phandle",
    ClockFrequency = "clock-frequency",
    DeviceType = "device_type",
}

/// Whether a node's registers are where its `reg` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Place {
    /// They are.
    #[default]
    Mapped,
    /// It is not to be used.
    Disabled,
    /// They are behind a bus that translates addresses, or that has none.
    BehindBus,
}

/// An open node.
#[derive(Clone, Copy, Default)]
struct Frame {
    address_cells: u32,
    size_cells: u32,
    interrupt_parent: u32,
    place: Place,
}

/// A node.
pub struct Node<'a, 'w> {
    /// Names from the root's child on.
    names: &'w [&'a [u8]],
    values: &'w [Option<Value<'a>>],
    /// Cell counts of its parent.
    address_cells: u32,
    size_cells: u32,
    /// phandle of its interrupt controller.
    pub(super) interrupt_parent: u32,
    /// Where its registers are.
    pub place: Place,
    /// Stands behind the last property.
    behind: &'w Walk<'a>,
    /// Stands before the first property.
    pub(super) walk: &'w Walk<'a>,
}

impl<'a> Node<'a, '_> {
    pub(super) fn get(&self, id: Id) -> Option<Value<'a>> {
        self.values.get(id as usize).copied().flatten()
    }

    /// Returns its path, for messages.
    pub fn path(&self) -> NodePath<'a> {
        self.names
            .iter()
            .fold(NodePath::default(), |path, name| path.child(name))
    }

    /// Returns the names of the nodes from the root's child to this one.
    pub const fn names(&self) -> &[&'a [u8]] {
        self.names
    }

    /// Says whether this is the node of a full path.
    pub fn is(&self, path: &str) -> bool {
        let mut wanted = path.split('/').skip(1).map(str::as_bytes);
        self.names.iter().all(|name| wanted.next() == Some(*name)) && wanted.next().is_none()
    }

    /// Says whether it has a child.
    pub(super) fn has_children(&self) -> bool {
        matches!(self.behind.clone().next_event(), Ok(Some(Event::Begin(_))))
    }

    /// Returns its registers; none where `reg` means something else. What is not a whole range
    /// is left out.
    pub fn regs(&self) -> impl Iterator<Item = PaRange> + use<'a> {
        let counts = (self.address_cells, self.size_cells);
        let usable = self.place == Place::Mapped && counts.0 != 0 && counts.1 != 0;
        let mut cells = self
            .get(Id::Reg)
            .filter(|_| usable)
            .and_then(|reg| reg.cells());
        core::iter::from_fn(move || {
            let cells = cells.as_mut()?;
            let (start, len) = (cells.number(counts.0)?, cells.number(counts.1)?);
            (len != 0 && start.checked_add(len).is_some()).then(|| PaRange::new(start, len))
        })
    }

    /// Returns its interrupts as the GIC's three cells.
    pub(super) fn interrupts(&self) -> impl Iterator<Item = [u32; 3]> + use<'a> {
        let mut cells = self.get(Id::Interrupts).and_then(|value| value.cells());
        core::iter::from_fn(move || {
            let cells = cells.as_mut()?;
            let mut one = || u32::try_from(cells.number(1)?).ok();
            Some([one()?, one()?, one()?])
        })
    }
}

/// Hands each node below the root to `take`, parents first, until that says `false`.
///
/// # Errors
///
/// A damaged blob.
pub fn each_node<'a>(
    dtb: &'a [u8],
    mut take: impl FnMut(&Node<'a, '_>) -> bool,
) -> Result<(), TreeFault> {
    let mut walk = Tree::open(dtb)?.walk();
    let mut frames = [Frame::default(); MAX_DEPTH + 1];
    let mut names: [&[u8]; MAX_DEPTH + 1] = [b""; MAX_DEPTH + 1];
    while let Some(event) = walk.next_event()? {
        let Event::Begin(name) = event else { continue };
        let depth = walk.depth();
        let before = walk.clone();
        let mut values = [None; NAMES.len()];
        while let Some((name, value)) = walk.next_property()? {
            let slot = place_of(NAMES, name.bytes()?).and_then(|at| values.get_mut(at));
            if let Some(slot) = slot {
                *slot = Some(value);
            }
        }
        let parent = frames
            .get(depth.wrapping_sub(1))
            .copied()
            .unwrap_or_default();
        let frame = open(&parent, &values, depth);
        if let (Some(slot), Some(place)) = (frames.get_mut(depth), names.get_mut(depth)) {
            (*slot, *place) = (frame, name);
        }
        let node = Node {
            names: names.get(2..=depth).unwrap_or_default(),
            values: &values,
            address_cells: parent.address_cells,
            size_cells: parent.size_cells,
            interrupt_parent: frame.interrupt_parent,
            place: if disabled(&values) {
                Place::Disabled
            } else {
                parent.place
            },
            behind: &walk,
            walk: &before,
        };
        if depth > 1 && !take(&node) {
            break;
        }
    }
    Ok(())
}

fn disabled(values: &[Option<Value<'_>>]) -> bool {
    let status = values.get(Id::Status as usize).copied().flatten();
    status.is_some_and(|status| !status.has("okay") && !status.has("ok"))
}

/// What a node's children inherit.
fn open(parent: &Frame, values: &[Option<Value<'_>>], depth: usize) -> Frame {
    let get = |id: Id| values.get(id as usize).copied().flatten();
    let cell = |id, default| get(id).and_then(|value| value.u32()).unwrap_or(default);
    let place = match get(Id::Ranges) {
        _ if disabled(values) => Place::Disabled,
        _ if depth == 1 || parent.place != Place::Mapped => parent.place,
        Some(ranges) if ranges.is_empty() => Place::Mapped,
        _ => Place::BehindBus,
    };
    Frame {
        // Cell counts by the specification's defaults (2.3.5).
        address_cells: cell(Id::AddressCells, 2),
        size_cells: cell(Id::SizeCells, 1),
        interrupt_parent: cell(Id::InterruptParent, parent.interrupt_parent),
        place,
    }
}
