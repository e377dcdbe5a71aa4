// SPDX-License-Identifier: MIT OR Apache-2.0
//! State of 32 INTIDs: one atomic word for each property.

use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// Priority bits that the guest can set: five, as the smallest virtual CPU interface has.
pub(crate) const PRIORITY_MASK: u8 = 0xf8;
/// Position of the group in a rank, so that `rank << 48` is what a list register wants.
const RANK_GROUP: u16 = 1 << 12;

/// Returns the bit of an INTID in its word.
#[inline]
pub(crate) const fn bit(intid: u32) -> u32 {
    1 << (intid & 31)
}

/// 32 INTIDs. Software state only: what stands in list registers is not here.
pub(crate) struct IrqWord {
    pub(crate) enable: AtomicU32,
    /// Latched: an edge, a software set-pending, or an unplaced hardware interrupt.
    pub(crate) pending: AtomicU32,
    /// Active, but in no list register.
    pub(crate) active: AtomicU32,
    /// Level of the input lines of emulated devices.
    pub(crate) line: AtomicU32,
    /// 1: edge-triggered, 0: level-sensitive.
    pub(crate) edge: AtomicU32,
    /// 1: group 1.
    pub(crate) group: AtomicU32,
    /// 1: a physical interrupt stands behind it.
    pub(crate) hw: AtomicU32,
    /// Group (bit 12) and priority (bits 7 to 0) of each.
    rank: [AtomicU16; 32],
    /// Physical INTID of each.
    pintid: [AtomicU16; 32],
}

impl IrqWord {
    /// A word as after a reset; `edge` as for [`IrqWord::reset`].
    pub(crate) const fn new(edge: u32) -> Self {
        Self {
            enable: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            active: AtomicU32::new(0),
            line: AtomicU32::new(0),
            edge: AtomicU32::new(edge),
            group: AtomicU32::new(u32::MAX),
            hw: AtomicU32::new(0),
            rank: [const { AtomicU16::new(RANK_GROUP) }; 32],
            pintid: [const { AtomicU16::new(0) }; 32],
        }
    }

    /// Resets all but the hardware mapping and the device lines.
    pub(crate) fn reset(&self, edge: u32) {
        self.enable.store(0, Ordering::Relaxed);
        self.pending.store(0, Ordering::Relaxed);
        self.active.store(0, Ordering::Relaxed);
        self.line.store(0, Ordering::Relaxed);
        self.edge.store(edge, Ordering::Relaxed);
        self.group.store(u32::MAX, Ordering::Relaxed);
        for rank in &self.rank {
            rank.store(RANK_GROUP, Ordering::Relaxed);
        }
    }

    /// INTIDs that the distributor sees as pending, outside of list registers.
    #[inline]
    pub(crate) fn raised(&self) -> u32 {
        self.pending.load(Ordering::Acquire)
            | self.line.load(Ordering::Acquire) & !self.edge.load(Ordering::Relaxed)
    }

    /// INTIDs that may be handed to a CPU interface: enabled, group forwarded, not active here.
    #[inline]
    pub(crate) fn ready(&self, ctlr: u32) -> u32 {
        let group = self.group.load(Ordering::Relaxed);
        let forward0 = 0u32.wrapping_sub(ctlr & 1);
        let forward1 = 0u32.wrapping_sub(ctlr >> 1 & 1);
        self.enable.load(Ordering::Relaxed)
            & (group & forward1 | !group & forward0)
            & !self.active.load(Ordering::Relaxed)
    }

    /// Group and priority: `rank << 48` fits a list register.
    #[inline]
    pub(crate) fn rank(&self, intid: u32) -> u16 {
        self.rank_cell(intid).load(Ordering::Relaxed)
    }

    /// Priority, 0 the highest.
    #[inline]
    pub(crate) fn priority(&self, intid: u32) -> u8 {
        (self.rank(intid) & 0xff) as u8
    }

    /// Sets the priority; returns whether it changed.
    pub(crate) fn set_priority(&self, intid: u32, priority: u8) -> bool {
        let new = u16::from(priority & PRIORITY_MASK);
        let old = self
            .rank_cell(intid)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                Some(old & RANK_GROUP | new)
            });
        old.is_ok_and(|old| old & 0xff != new)
    }

    /// Sets the groups of all 32; returns the INTIDs that changed.
    pub(crate) fn set_groups(&self, groups: u32) -> u32 {
        let old = self.group.swap(groups, Ordering::AcqRel);
        for (index, cell) in self.rank.iter().enumerate() {
            if groups >> (index & 31) & 1 == 1 {
                cell.fetch_or(RANK_GROUP, Ordering::Relaxed);
            } else {
                cell.fetch_and(!RANK_GROUP, Ordering::Relaxed);
            }
        }
        old ^ groups
    }

    /// Physical INTID behind a guest's INTID.
    #[inline]
    pub(crate) fn pintid(&self, intid: u32) -> u32 {
        u32::from(self.pintid_cell(intid).load(Ordering::Relaxed))
    }

    /// Says which physical interrupt stands behind a guest's INTID.
    pub(crate) fn map(&self, intid: u32, pintid: u32) {
        self.pintid_cell(intid)
            .store((pintid & 0x1fff) as u16, Ordering::Relaxed);
        self.hw.fetch_or(bit(intid), Ordering::AcqRel);
    }

    #[inline]
    fn rank_cell(&self, intid: u32) -> &AtomicU16 {
        self.rank
            .get((intid & 31) as usize)
            .unwrap_or(&self.rank[0])
    }

    #[inline]
    fn pintid_cell(&self, intid: u32) -> &AtomicU16 {
        self.pintid
            .get((intid & 31) as usize)
            .unwrap_or(&self.pintid[0])
    }
}
