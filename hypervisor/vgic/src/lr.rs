// SPDX-License-Identifier: MIT OR Apache-2.0
//! List registers: their encoding (`ICH_LR<n>_EL2`, Arm DDI 0487) and the access that the kernel provides.

/// What the maintenance interrupt and the traps of the virtual CPU interface are to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HcrControl {
    /// `ICH_HCR_EL2.NPIE`: maintenance interrupt when no list register is pending.
    pub no_pending: bool,
    /// `ICH_HCR_EL2.LRENPIE`: maintenance interrupt when an interrupt ended that is in no list register.
    pub entry_not_present: bool,
    /// `ICH_HCR_EL2.TDIR` (or `TC` where `ICH_VTR_EL2.TDS` is 0): trap the guest's `ICC_DIR_EL1`.
    pub trap_dir: bool,
}

/// The list registers of this PE.
///
/// The kernel implements it with `ICH_*_EL2`; tests implement it with a model.
pub trait LrBank {
    /// Returns `ICH_LR<index>_EL2`.
    fn lr(&self, index: usize) -> u64;
    /// Writes `ICH_LR<index>_EL2`.
    fn set_lr(&mut self, index: usize, value: u64);
    /// Returns `ICH_ELRSR_EL2`: list registers that may be overwritten. Bits of list registers that
    /// do not exist are 0.
    fn elrsr(&self) -> u32;
    /// Returns `ICH_EISR_EL2`: list registers whose end asked for a maintenance interrupt.
    fn eisr(&self) -> u32;
    /// Returns the number of list registers, at most 16.
    fn count(&self) -> usize;
    /// Returns `ICH_HCR_EL2.EOIcount`.
    fn eoi_count(&self) -> u32;
    /// Writes `ICH_HCR_EL2`: En = 1, the bits of `control`, **EOIcount = 0**.
    fn set_hcr(&mut self, control: HcrControl);
    /// Deactivates a physical interrupt (`ICC_DIR_EL1`); for a PPI, this PE's.
    fn deactivate(&mut self, pintid: u32);
    /// Returns whether a physical interrupt is pending (of this PE, for a PPI).
    ///
    /// Only reads of pending registers use it, for INTIDs that hardware stands behind.
    fn hw_pending(&self, pintid: u32) -> bool {
        let _ = pintid;
        false
    }
}

/// A value of a list register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListRegister(pub u64);

impl ListRegister {
    /// State bit: pending.
    pub const PENDING: u64 = 1 << 62;
    /// State bit: active.
    pub const ACTIVE: u64 = 1 << 63;
    /// A physical interrupt stands behind it and is deactivated with it.
    pub const HW: u64 = 1 << 61;
    /// Group 1.
    pub const GROUP1: u64 = 1 << 60;
    /// Maintenance interrupt when it ends (only without [`ListRegister::HW`]).
    pub const EOI: u64 = 1 << 41;
    /// Position of the physical INTID.
    pub const PINTID_SHIFT: u32 = 32;
    /// Position of the priority.
    pub const PRIORITY_SHIFT: u32 = 48;
    /// Group and priority.
    pub(crate) const RANK: u64 = Self::GROUP1 | 0xff << Self::PRIORITY_SHIFT;

    /// Empty.
    pub const EMPTY: Self = Self(0);

    /// Returns whether the interrupt is pending (also while active).
    #[inline]
    pub const fn is_pending(self) -> bool {
        self.0 & Self::PENDING != 0
    }

    /// Returns whether the interrupt is active (also while pending).
    #[inline]
    pub const fn is_active(self) -> bool {
        self.0 & Self::ACTIVE != 0
    }

    /// Returns whether the state is inactive.
    #[inline]
    pub const fn is_idle(self) -> bool {
        self.0 & (Self::PENDING | Self::ACTIVE) == 0
    }

    /// Returns whether a physical interrupt stands behind it.
    #[inline]
    pub const fn is_hw(self) -> bool {
        self.0 & Self::HW != 0
    }

    /// Returns the priority, 0 the highest.
    #[inline]
    pub const fn priority(self) -> u8 {
        (self.0 >> Self::PRIORITY_SHIFT & 0xff) as u8
    }

    /// Returns the guest's INTID.
    #[inline]
    pub const fn vintid(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// Returns the physical INTID. Meaningless without [`ListRegister::HW`].
    #[inline]
    pub const fn pintid(self) -> u32 {
        (self.0 >> Self::PINTID_SHIFT & 0x1fff) as u32
    }

    /// Returns the value with bits set.
    #[inline]
    pub(crate) const fn with(self, bits: u64) -> Self {
        Self(self.0 | bits)
    }

    /// Returns the value with bits cleared.
    #[inline]
    pub(crate) const fn without(self, bits: u64) -> Self {
        Self(self.0 & !bits)
    }

    /// A pending interrupt; `rank` is group and priority as [`IrqWord::rank`](crate::word::IrqWord::rank).
    #[inline]
    pub(crate) const fn pending(vintid: u32, rank: u16) -> Self {
        Self(Self::PENDING | (rank as u64) << Self::PRIORITY_SHIFT | vintid as u64)
    }

    /// Returns whether group and priority are those of `rank`.
    #[inline]
    pub(crate) const fn has_rank(self, rank: u16) -> bool {
        self.0 & Self::RANK == (rank as u64) << Self::PRIORITY_SHIFT
    }

    /// Returns the value with another group and priority.
    #[inline]
    pub(crate) const fn ranked(self, rank: u16) -> Self {
        Self(self.0 & !Self::RANK | (rank as u64) << Self::PRIORITY_SHIFT)
    }

    /// Makes it hardware-backed.
    #[inline]
    pub(crate) const fn backed_by(self, pintid: u32) -> Self {
        Self(self.0 | Self::HW | (pintid as u64 & 0x1fff) << Self::PINTID_SHIFT)
    }
}
