// SPDX-License-Identifier: MIT OR Apache-2.0
//! One vCPU's half of the vGIC: what its PE owns, and the calls that the kernel makes on it.
//!
//! The short paths are here: a timer interrupt or an SGI into a free list register. All that is
//! less common goes through `engine` (placing) and `revise` (taking back).

use core::sync::atomic::Ordering;

use crate::dist::{Distributor, VcpuShared, attention_flush, routed};
use crate::effects::{Effects, IntidIter};
use crate::lr::{HcrControl, ListRegister, LrBank};
use crate::sgi::{self, SgiRegister};
use crate::word::{IrqWord, bit};
use crate::{INTIDS, WORDS};

/// The INTIDs of SGIs.
const SGIS: u32 = 0xffff;

/// The vGIC state that belongs to the PE of one vCPU.
///
/// Every call that takes a bank must come from that PE, while its list registers are this vCPU's.
pub struct VcpuGic<'d> {
    pub(crate) dist: &'d Distributor,
    pub(crate) me: &'d VcpuShared,
    pub(crate) index: u8,
    /// The list registers are not this vCPU's: what comes waits in software.
    pub(crate) parked: bool,
    /// Interrupts wait in software because the list registers are full.
    pub(crate) overflow: bool,
    /// Private INTIDs that may go straight into a free list register: ready, and nothing waits.
    pub(crate) direct: u32,
    /// List registers whose pending state is latched, though their INTID is level-sensitive.
    pub(crate) latched: u32,
    pub(crate) hcr: HcrControl,
    /// INTID that was last put into each list register.
    pub(crate) lr_intid: [u8; 16],
    /// List register that each INTID was last put into. Held there exactly when that list register
    /// is occupied and `lr_intid` names the INTID.
    pub(crate) lr_index: [u8; INTIDS],
    /// INTIDs whose active state was moved out of the list registers, to be found again when the
    /// guest ends them.
    pub(crate) spilled: [u32; WORDS],
    /// Priority of each spilled INTID at the time.
    pub(crate) spilled_priority: [u8; INTIDS],
}

impl<'d> VcpuGic<'d> {
    /// The vGIC of vCPU `index` (0 to 7) of a partition. Const, so it can stand in a `static`.
    ///
    /// It is parked: [`VcpuGic::resume`] comes before the vCPU runs.
    pub const fn new(dist: &'d Distributor, index: u8) -> Self {
        Self {
            dist,
            me: dist.shared(index),
            index: index & 7,
            parked: true,
            overflow: false,
            direct: 0,
            latched: 0,
            hcr: HcrControl {
                no_pending: false,
                entry_not_present: false,
                trap_dir: false,
            },
            lr_intid: [0; 16],
            lr_index: [0; INTIDS],
            spilled: [0; WORDS],
            spilled_priority: [0; INTIDS],
        }
    }

    /// Returns the vCPU's number.
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// Returns the distributor of the partition.
    pub const fn distributor(&self) -> &'d Distributor {
        self.dist
    }

    /// Delivers a physical interrupt that was acknowledged, but not deactivated, on this PE.
    ///
    /// `vintid` has been mapped ([`Distributor::map_private`], [`Distributor::map_spi`]); an INTID
    /// that the guest's GIC does not have is deactivated and dropped.
    #[inline]
    pub fn inject_hw<B: LrBank>(&mut self, bank: &mut B, vintid: u32, pintid: u32) -> Effects {
        if vintid < 32 && self.direct & bit(vintid) != 0 {
            let lr = ListRegister::pending(vintid, self.me.private.rank(vintid)).backed_by(pintid);
            if self.put_direct(bank, vintid, lr) {
                return Effects::NONE;
            }
        }
        self.inject_hw_slow(bank, vintid, pintid)
    }

    /// Delivers an edge of an interrupt that has no physical one: a private INTID of this vCPU, or an SPI.
    pub fn inject<B: LrBank>(&mut self, bank: &mut B, vintid: u32) -> Effects {
        let posted = self.dist.pend(self.index, vintid);
        self.settle(bank, posted)
    }

    /// Sets the line of an emulated device: a private INTID of this vCPU, or an SPI.
    pub fn set_level<B: LrBank>(&mut self, bank: &mut B, vintid: u32, high: bool) -> Effects {
        let posted = self.dist.set_level(self.index, vintid, high);
        if posted == 0 {
            Effects::NONE
        } else {
            self.settle(bank, posted)
        }
    }

    /// Carries out a guest's write to an SGI register.
    #[inline]
    pub fn send_sgi<B: LrBank>(
        &mut self,
        bank: &mut B,
        register: SgiRegister,
        value: u64,
    ) -> Effects {
        let own = 1u32 << (self.index & 7);
        let intid = sgi::intid(value);
        let mut targets = sgi::targets(value, self.dist.present(), own);
        if register != SgiRegister::Sgi1 {
            targets = self.only_group0(targets, intid);
        }
        let kick = if targets & !own == 0 {
            0
        } else {
            self.post_sgi(targets & !own, intid)
        };
        if targets & own != 0 {
            let lr = ListRegister::pending(intid, self.me.private.rank(intid));
            if self.direct & bit(intid) == 0 || !self.put_direct(bank, intid, lr) {
                return Effects::kicks(kick | self.inject(bank, intid).kick);
            }
        }
        Effects::kicks(kick)
    }

    /// Takes what other PEs posted into the list registers. Call it after a kick; while the vCPU is
    /// parked it leaves all as it is.
    #[inline]
    pub fn drain_inbox<B: LrBank>(&mut self, bank: &mut B) -> Effects {
        let attention = self.me.attention.load(Ordering::Relaxed);
        if attention == 0 || attention == attention_flush(0) && self.take_sgi(bank) {
            return Effects::NONE;
        }
        Effects::kicks(self.drain(bank))
    }

    /// Handles the maintenance interrupt: ended level-sensitive interrupts are looked at again,
    /// waiting ones move up.
    pub fn maintenance<B: LrBank>(&mut self, bank: &mut B) -> Effects {
        Effects::kicks(self.drain(bank))
    }

    /// Carries out a guest's trapped `ICC_DIR_EL1` write (see [`HcrControl::trap_dir`]).
    pub fn deactivate<B: LrBank>(&mut self, bank: &mut B, vintid: u32) -> Effects {
        if vintid as usize >= INTIDS {
            return Effects::NONE;
        }
        let index = (vintid >> 5) as usize;
        let word = self.dist.word(self.me, index);
        word.active.fetch_and(!bit(vintid), Ordering::AcqRel);
        let posted = self.dist.request_one(
            self.index,
            index,
            bit(vintid),
            crate::dist::Request::ClearActive,
        );
        self.settle(bank, posted)
    }

    /// Moves everything out of the list registers into software state, so that the PE can be
    /// switched off or given to another vCPU. [`VcpuGic::resume`] undoes it.
    ///
    /// Active interrupts stay active, as the distributor keeps them when a PE powers down.
    pub fn park<B: LrBank>(&mut self, bank: &mut B) -> Effects {
        let mut kick = self.drain(bank);
        for slot in self.occupied(bank) {
            let lr = ListRegister(bank.lr(slot));
            if lr.is_active() {
                self.spill(bank, slot);
            } else {
                self.unload(bank, slot);
            }
        }
        // Nobody looks at requests from here on, so nothing may stay claimed: not even what the
        // guest ended without a notice.
        for intid in 32..INTIDS as u32 {
            if self.dist.owner(intid) == Some(self.index) {
                kick |= self.dist.release(intid);
            }
        }
        self.parked = true;
        self.overflow = false;
        self.direct = 0;
        // No maintenance meanwhile: empty list registers would ask for it for ever.
        self.hcr = HcrControl::default();
        bank.set_hcr(self.hcr);
        self.settle_kicks(kick)
    }

    /// Brings a parked vCPU back, or a new one up: fills the list registers, which are empty, from
    /// software state.
    pub fn resume<B: LrBank>(&mut self, bank: &mut B) -> Effects {
        for index in 1..WORDS {
            if let Some(spilled) = self.spilled.get_mut(index) {
                *spilled = IntidIter::of(index, *spilled)
                    .filter(|&intid| self.dist.claim(intid, self.index).is_ok())
                    .fold(0, |kept, intid| kept | bit(intid));
            }
        }
        bank.set_hcr(self.hcr);
        self.parked = false;
        self.overflow = true;
        Effects::kicks(self.drain(bank))
    }

    /// Empties the list registers and forgets everything, physical active states included. The
    /// vCPU is parked then.
    ///
    /// On the vCPU's own PE, before [`Distributor::reset`].
    pub fn reset<B: LrBank>(&mut self, bank: &mut B) {
        for index in 0..WORDS {
            let word = self.dist.word(self.me, index);
            let hw = word.hw.load(Ordering::Relaxed);
            let waiting = word.pending.load(Ordering::Relaxed) & routed(self.me, index);
            let mine = waiting | self.spilled.get(index).copied().unwrap_or(0);
            for intid in IntidIter::of(index, hw & mine) {
                bank.deactivate(word.pintid(intid));
            }
        }
        for slot in 0..bank.count() {
            let lr = ListRegister(bank.lr(slot));
            if lr.is_hw() && !lr.is_idle() {
                bank.deactivate(lr.pintid());
            }
            bank.set_lr(slot, 0);
        }
        *self = Self::new(self.dist, self.index);
        bank.set_hcr(self.hcr);
    }

    /// Returns how many interrupts of this vCPU are pending and could be delivered, in list
    /// registers or waiting.
    pub fn pending_count<B: LrBank>(&self, bank: &B) -> u32 {
        (0..WORDS)
            .map(|index| {
                let held = self.held(bank, index, ListRegister::PENDING);
                (held | self.candidates(index) & !self.held(bank, index, u64::MAX)).count_ones()
            })
            .sum()
    }

    /// Puts a private interrupt into the list register that it had before, when that is free.
    ///
    /// Not while the inbox is posted: what another vCPU asked for earlier (a clear-pending, say)
    /// must not hit an interrupt that came later.
    #[inline]
    fn put_direct<B: LrBank>(&mut self, bank: &mut B, intid: u32, lr: ListRegister) -> bool {
        if self.me.attention.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let free = bank.elrsr();
        let hint = self
            .lr_index
            .get((intid & 31) as usize)
            .copied()
            .unwrap_or(0)
            & 15;
        let slot = if free & 1 << hint != 0 {
            Some(hint)
        } else {
            self.other_slot(free, hint, intid)
        };
        let Some(slot) = slot else { return false };
        if let Some(name) = self.lr_intid.get_mut(usize::from(slot)) {
            *name = (intid & 31) as u8;
        }
        bank.set_lr(usize::from(slot), lr.0);
        true
    }

    /// A free list register for an interrupt that does not stand in the one that it had before.
    #[cold]
    fn other_slot(&mut self, free: u32, hint: u8, intid: u32) -> Option<u8> {
        if free == 0 || self.intid_in(hint.into()) == intid {
            return None;
        }
        let slot = (free.trailing_zeros() & 15) as u8;
        if let Some(hint) = self.lr_index.get_mut((intid & 31) as usize) {
            *hint = slot;
        }
        Some(slot)
    }

    /// The short way of an SGI from another vCPU: it is the only thing that waits, and its list
    /// register is free. Returns whether that was so.
    fn take_sgi<B: LrBank>(&mut self, bank: &mut B) -> bool {
        self.me
            .attention
            .fetch_and(!attention_flush(0), Ordering::AcqRel);
        let raised = self.me.private.raised();
        if raised.is_power_of_two() && raised & self.direct & SGIS != 0 {
            let intid = raised.trailing_zeros();
            let lr = ListRegister::pending(intid, self.me.private.rank(intid));
            if self.put_direct(bank, intid, lr) {
                self.me.private.pending.fetch_and(!raised, Ordering::AcqRel);
                return true;
            }
        }
        self.me.post(attention_flush(0));
        false
    }

    #[cold]
    fn inject_hw_slow<B: LrBank>(&mut self, bank: &mut B, vintid: u32, pintid: u32) -> Effects {
        if vintid < 16 || vintid as usize >= INTIDS {
            bank.deactivate(pintid);
            return Effects::NONE;
        }
        if self.parked && vintid < 32 {
            // Acknowledged after its vCPU parked. Nobody would end it: it would stay active into the
            // next life, which would never see its timer. A timer that is due then is due anew.
            bank.deactivate(pintid);
            return Effects::NONE;
        }
        let word = self.dist.word(self.me, (vintid >> 5) as usize);
        word.map(vintid, pintid);
        // Earlier requests first: see `put_direct`.
        let earlier = self.drain_inbox(bank);
        let posted = self.dist.pend(self.index, vintid);
        self.settle(bank, posted).and_kicks(earlier.kick)
    }

    /// Posts an SGI to other vCPUs.
    fn post_sgi(&self, targets: u32, intid: u32) -> u8 {
        IntidIter::of(0, targets).fold(0, |kick, vcpu| {
            kick | self.dist.pend((vcpu & 7) as u8, intid)
        })
    }

    /// Keeps the targets at which the SGI is configured as group 0.
    fn only_group0(&self, targets: u32, intid: u32) -> u32 {
        IntidIter::of(0, targets)
            .filter(|vcpu| {
                let word = &self.dist.shared((vcpu & 7) as u8).private;
                word.group.load(Ordering::Relaxed) & bit(intid) == 0
            })
            .fold(0, |kept, vcpu| kept | bit(vcpu))
    }

    /// Does the own share of what was posted; the rest is to be kicked.
    pub(crate) fn settle<B: LrBank>(&mut self, bank: &mut B, posted: u8) -> Effects {
        let own = 1 << (self.index & 7);
        // Draining names the own vCPU only when it left something: see `DRAIN_ROUNDS`.
        let more = if posted & own == 0 {
            0
        } else {
            self.drain(bank)
        };
        Effects::kicks(posted & !own | more)
    }

    fn settle_kicks(&self, posted: u8) -> Effects {
        Effects::kicks(posted & !(1 << (self.index & 7)))
    }

    /// The word `index` as this vCPU sees it.
    #[inline]
    pub(crate) fn word(&self, index: usize) -> &'d IrqWord {
        if index == 0 {
            &self.me.private
        } else {
            self.dist.spi_word(index)
        }
    }
}
