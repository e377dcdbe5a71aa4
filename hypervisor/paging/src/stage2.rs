// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stage 2: a guest's intermediate physical addresses to physical ones.

use firebreak_abi::{Ipa, Pa};

use crate::descriptor::Attributes;
use crate::plan::{Op, Plan};
use crate::table::{self, LAST_LEVEL, Leaf, Root, Span, Walk};
use crate::{Frames, PagingError};

/// Narrowest space that starts at level 1: smaller ones would start at level 2.
const MIN_IPA_BITS: u8 = 32;
/// Widest space without FEAT_LPA2.
const MAX_IPA_BITS: u8 = 48;
/// Bits that one table at level 1 resolves.
const ONE_LEVEL1_TABLE_BITS: u8 = 39;
/// Bits that 16 concatenated tables at level 1 resolve.
const MOST_LEVEL1_BITS: u8 = 43;
/// PE widths below this cannot start stage 2 at level 0 with the 4 KiB granule (VTCR_EL2.SL0).
const LEVEL0_OUTPUT_BITS: u8 = 44;

/// VTCR_EL2: IRGN0 and ORGN0 write-back, SH0 inner shareable, TG0 4 KiB, bit 31 RES1.
const VTCR_FIXED: u64 = (1 << 31) | (0b11 << 12) | (0b01 << 10) | (0b01 << 8);

/// Shape of a stage 2: how wide, where walks start, how many root tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    ipa_bits: u8,
    pa_bits: u8,
    start_level: u8,
    root_tables: usize,
}

impl Geometry {
    /// Chooses the shape with the fewest tables for intermediate physical addresses below
    /// `ipa_end`, on PEs with `pa_bits` bits of physical address.
    ///
    /// Up to 512 GiB, a single root at level 1; up to 8 TiB, 2 to 16 concatenated ones; then
    /// level 0. A guest's access behind the space is a stage-2 translation fault, like one to a
    /// hole inside it.
    ///
    /// # Errors
    ///
    /// [`PagingError::Geometry`] when the PE cannot translate that many bits.
    pub fn new(ipa_end: Ipa, pa_bits: u8) -> Result<Self, PagingError> {
        let last = ipa_end.get().saturating_sub(1);
        let needed = (u64::BITS - last.leading_zeros()) as u8;
        let ipa_bits = needed.max(MIN_IPA_BITS);
        let refused = PagingError::Geometry {
            input_bits: ipa_bits,
            output_bits: pa_bits,
        };
        if ipa_bits > pa_bits || ipa_bits > MAX_IPA_BITS {
            return Err(refused);
        }
        let (start_level, root_tables) = if ipa_bits <= ONE_LEVEL1_TABLE_BITS {
            (1, 1)
        } else if ipa_bits <= MOST_LEVEL1_BITS {
            (1, 1 << (ipa_bits - ONE_LEVEL1_TABLE_BITS))
        } else if pa_bits >= LEVEL0_OUTPUT_BITS {
            (0, 1)
        } else {
            return Err(refused);
        };
        Ok(Self {
            ipa_bits,
            pa_bits: pa_bits.min(MAX_IPA_BITS),
            start_level,
            root_tables,
        })
    }

    /// Returns the width of the guest's physical address space, in bits.
    pub const fn ipa_bits(self) -> u8 {
        self.ipa_bits
    }

    /// Returns the level of the first lookup.
    pub const fn start_level(self) -> u8 {
        self.start_level
    }

    /// Returns the number of concatenated root tables.
    pub const fn root_tables(self) -> usize {
        self.root_tables
    }

    /// Returns VTCR_EL2.T0SZ.
    pub const fn t0sz(self) -> u64 {
        64 - self.ipa_bits as u64
    }

    /// Returns VTCR_EL2.SL0 for the 4 KiB granule: 2 starts at level 0, 1 at level 1.
    pub const fn sl0(self) -> u64 {
        2 - self.start_level as u64
    }

    /// Returns VTCR_EL2 with 8-bit VMIDs; `ps` is its PS field, the encoding of
    /// ID_AA64MMFR0_EL1.PARange (at most 5: 48 bits).
    pub const fn vtcr(self, ps: u64) -> u64 {
        VTCR_FIXED | ((ps & 0b111) << 16) | (self.sl0() << 6) | self.t0sz()
    }
}

/// What an intermediate physical address leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The physical address, offset in the page included.
    pub pa: Pa,
    /// What the guest may do there.
    pub attributes: Attributes,
    /// Level of the block or page: 1 (1 GiB), 2 (2 MiB), 3 (4 KiB).
    pub level: u8,
}

/// The stage-2 tables of one partition.
///
/// Holds no memory itself: every call is lent the [`Frames`] in which the tables stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage2 {
    geometry: Geometry,
    root: Root,
}

impl Stage2 {
    /// Allocates an empty root.
    ///
    /// # Errors
    ///
    /// [`PagingError::OutOfFrames`] when the root tables do not fit.
    pub fn new<F: Frames + ?Sized>(
        frames: &mut F,
        geometry: Geometry,
    ) -> Result<Self, PagingError> {
        let pages = geometry.root_tables;
        let table = frames
            .alloc_zeroed(pages)
            .ok_or(PagingError::OutOfFrames { input: 0, pages })?;
        let root = Root {
            table,
            level: geometry.start_level,
            input_bits: geometry.ipa_bits,
            output_bits: geometry.pa_bits,
        };
        Ok(Self { geometry, root })
    }

    /// Returns the shape.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Returns the root, VTTBR_EL2.BADDR.
    pub const fn root(&self) -> Pa {
        self.root.table
    }

    /// Returns VTTBR_EL2 for a VMID of 8 bits.
    pub const fn vttbr(&self, vmid: u8) -> u64 {
        self.root.table.get() | ((vmid as u64) << 48)
    }

    /// Maps a range with the largest blocks that fit, while nobody uses what it maps.
    ///
    /// Only invalid descriptors become valid, so no TLB maintenance is owed; a DSB is, before
    /// the first walk.
    ///
    /// # Errors
    ///
    /// Names the overlap, the misalignment, the end of the address space, or says that no pages
    /// are left. The part below the culprit may be mapped then.
    pub fn map<F: Frames + ?Sized>(
        &self,
        frames: &mut F,
        ipa: Ipa,
        pa: Pa,
        len_bytes: u64,
        attributes: Attributes,
    ) -> Result<(), PagingError> {
        let span = Span {
            input: ipa.get(),
            output: pa.get(),
            left_bytes: len_bytes,
        };
        table::map(frames, self.root, span, attributes.bits())
    }

    /// Looks up an intermediate physical address as the PE would.
    pub fn translate<F: Frames + ?Sized>(&self, frames: &F, ipa: Ipa) -> Option<Mapping> {
        let Walk::Leaf(leaf) = table::walk(frames, self.root, ipa.get())? else {
            return None;
        };
        Some(Mapping {
            pa: table::output(leaf.descriptor, leaf.level, ipa.get()),
            attributes: Attributes::from_leaf(leaf.descriptor)?,
            level: leaf.level,
        })
    }

    /// Plans to take one page away while the guest runs.
    ///
    /// A block is split: its replacement is built aside, in one or two fresh contiguous pages,
    /// and swapped in by break-before-make. Nothing changes before the plan is carried out.
    ///
    /// # Errors
    ///
    /// [`PagingError::NotMapped`], or [`PagingError::OutOfFrames`] when a split finds no pages.
    pub fn unmap_page<F: Frames + ?Sized>(
        &self,
        frames: &mut F,
        ipa: Ipa,
    ) -> Result<Plan, PagingError> {
        let input = ipa.page().get();
        let Some(Walk::Leaf(leaf)) = table::walk(frames, self.root, input) else {
            return Err(PagingError::NotMapped { input });
        };
        let pa = table::output(leaf.descriptor, leaf.level, input);
        if leaf.level == LAST_LEVEL {
            return Ok(unmap_plan(leaf, ipa.page(), pa));
        }
        let new = fresh_tables(frames, input, leaf.level)?;
        table::fill_path(frames, new, leaf.level + 1, input, 0, |beside, level| {
            let output = table::output(leaf.descriptor, leaf.level, beside);
            table::leaf_like(leaf.descriptor, output.get(), level)
        });
        Ok(split_plan(leaf, new, pa))
    }

    /// Plans to fill the hole of one page while the guest runs, for example with a spare page.
    ///
    /// # Errors
    ///
    /// [`PagingError::Overlap`] when something is mapped there, [`PagingError::OutOfFrames`],
    /// [`PagingError::Misaligned`], [`PagingError::InputTooHigh`] or
    /// [`PagingError::OutputTooHigh`].
    pub fn map_page<F: Frames + ?Sized>(
        &self,
        frames: &mut F,
        ipa: Ipa,
        pa: Pa,
        attributes: Attributes,
    ) -> Result<Plan, PagingError> {
        let input = ipa.get();
        let span = Span {
            input,
            output: pa.get(),
            left_bytes: firebreak_abi::PAGE_SIZE_BYTES,
        };
        table::check(self.root, span)?;
        let page = table::page(pa.get(), attributes.bits());
        let (table, index, level) = match table::walk(frames, self.root, input) {
            Some(Walk::Hole {
                table,
                index,
                level,
            }) => (table, index, level),
            Some(Walk::Leaf(leaf)) => {
                let existing = table::output(leaf.descriptor, leaf.level, input);
                return Err(PagingError::Overlap { input, existing });
            }
            None => return Err(PagingError::NotMapped { input }),
        };
        let descriptor = if level == LAST_LEVEL {
            page
        } else {
            let new = fresh_tables(frames, input, level)?;
            table::fill_path(frames, new, level + 1, input, page, |_, _| 0);
            table::table_descriptor(new)
        };
        // Invalid to valid: descriptors that fault are never cached in a TLB. The first
        // barrier makes the fresh tables visible before what leads to them.
        let write = Op::Write {
            table,
            index,
            descriptor,
        };
        Ok(Plan::new(pa, [Op::Dsb, write, Op::Dsb, Op::Isb]))
    }
}

/// Allocates the tables between a descriptor of `level` and the last level.
fn fresh_tables<F: Frames + ?Sized>(
    frames: &mut F,
    input: u64,
    level: u8,
) -> Result<Pa, PagingError> {
    let needed = usize::from(LAST_LEVEL - level);
    let pages = needed.next_power_of_two();
    frames
        .alloc_zeroed(pages)
        .ok_or(PagingError::OutOfFrames { input, pages })
}

/// Valid page to hole. The TLBI by IPA leaves entries that combine both stages alone, so the
/// VM's stage-1 entries go too.
fn unmap_plan(leaf: Leaf, ipa: Ipa, pa: Pa) -> Plan {
    let write = Op::Write {
        table: leaf.table,
        index: leaf.index,
        descriptor: 0,
    };
    let ops = [
        write,
        Op::Dsb,
        Op::TlbiIpa(ipa),
        Op::Dsb,
        Op::TlbiVmallS1,
        Op::Dsb,
        Op::Isb,
    ];
    Plan::new(pa, ops)
}

/// Valid block to table: break, invalidate, make. The PE may have cached the block in pieces,
/// so all of the VM's entries go rather than those of one address.
fn split_plan(leaf: Leaf, new: Pa, pa: Pa) -> Plan {
    let Leaf { table, index, .. } = leaf;
    let descriptor = table::table_descriptor(new);
    let ops = [
        Op::Write {
            table,
            index,
            descriptor: 0,
        },
        Op::Dsb,
        Op::TlbiVmallS12,
        Op::Dsb,
        Op::Write {
            table,
            index,
            descriptor,
        },
        Op::Dsb,
        Op::Isb,
    ];
    Plan::new(pa, ops)
}
