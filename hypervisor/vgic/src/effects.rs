// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel has to do after a call: values, so that nothing here touches hardware.

/// A change that the guest asked for and that belongs to a physical interrupt behind the virtual one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HwOp {
    /// Nothing.
    #[default]
    None,
    /// Enable the physical interrupts.
    Enable,
    /// Disable the physical interrupts.
    Disable,
    /// Make the physical interrupts pending (the guest wrote a set-pending register).
    SetPending,
    /// Clear the pending state of the physical interrupts.
    ClearPending,
    /// Take over the trigger mode: see [`Distributor::is_edge`](crate::Distributor::is_edge).
    Configure,
    /// Take over the route: see [`Distributor::route`](crate::Distributor::route).
    Route,
}

/// Work that a call leaves to the kernel. Fits one register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effects {
    /// vCPUs of the partition whose PE has to drain its inbox, one bit each. The caller's own only
    /// when others kept posting while it drained: then it is to look again, behind what else it has
    /// to do.
    pub kick: u8,
    /// What to do with the physical interrupts behind the INTIDs of [`Effects::intids`].
    pub op: HwOp,
    /// The vCPU whose private interrupts are meant when `word` is 0.
    pub vcpu: u8,
    /// The word: INTIDs `32 * word` to `32 * word + 31`.
    pub word: u8,
    /// The INTIDs of the word.
    pub mask: u32,
}

impl Effects {
    /// Nothing to do.
    pub const NONE: Self = Self {
        kick: 0,
        op: HwOp::None,
        vcpu: 0,
        word: 0,
        mask: 0,
    };

    /// Only vCPUs to kick.
    #[inline]
    pub(crate) const fn kicks(kick: u8) -> Self {
        Self { kick, ..Self::NONE }
    }

    /// A change of physical interrupts, none when the mask is empty.
    #[inline]
    pub(crate) const fn hw(op: HwOp, vcpu: u8, word: u8, mask: u32) -> Self {
        if mask == 0 {
            Self::NONE
        } else {
            Self {
                kick: 0,
                op,
                vcpu,
                word,
                mask,
            }
        }
    }

    /// Adds vCPUs to kick.
    #[inline]
    pub(crate) const fn and_kicks(self, kick: u8) -> Self {
        Self {
            kick: self.kick | kick,
            ..self
        }
    }

    /// Adds a change of physical interrupts.
    #[inline]
    pub(crate) const fn and_hw(self, op: HwOp, vcpu: u8, word: u32, mask: u32) -> Self {
        if mask == 0 {
            self
        } else {
            Self {
                kick: self.kick,
                op,
                vcpu,
                word: (word & 7) as u8,
                mask,
            }
        }
    }

    /// Returns whether there is nothing to do at all.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.kick == 0 && self.mask == 0
    }

    /// Returns the guest's INTIDs that [`Effects::op`] is about.
    ///
    /// [`Distributor::physical_intid`](crate::Distributor::physical_intid) names the physical one.
    #[inline]
    pub const fn intids(self) -> IntidIter {
        IntidIter {
            base: self.word as u32 * 32,
            bits: self.mask,
        }
    }
}

/// The INTIDs of a mask, lowest first.
#[derive(Clone, Copy, Debug)]
pub struct IntidIter {
    base: u32,
    bits: u32,
}

impl IntidIter {
    /// The bits of word `word`.
    #[inline]
    pub(crate) const fn of(word: usize, bits: u32) -> Self {
        Self {
            base: (word as u32 & 7) * 32,
            bits,
        }
    }
}

impl Iterator for IntidIter {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.bits == 0 {
            return None;
        }
        let lowest = self.bits.trailing_zeros();
        self.bits &= self.bits.wrapping_sub(1);
        Some(self.base | lowest)
    }
}
