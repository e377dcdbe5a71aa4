// SPDX-License-Identifier: MIT OR Apache-2.0
//! Placing: which waiting interrupt goes into which list register, and what happens when there are too few.
//!
//! With a free list register an interrupt is placed as it comes. When none is free, `refill` keeps
//! the waiting interrupts ordered against the placed ones (invariant 2 of the crate): a waiting one
//! pushes out a pending one of lower priority; where all list registers are active, the active one
//! of lowest priority (the outermost, which ends last) is moved to software and found again by
//! EOIcount or by the trapped `ICC_DIR_EL1` when the guest ends it.

use core::sync::atomic::Ordering;

use crate::dist::{attention_flush, attention_recheck, attention_words, routed};
use crate::effects::IntidIter;
use crate::lr::{HcrControl, ListRegister, LrBank};
use crate::vcpu::VcpuGic;
use crate::word::bit;
use crate::{INTIDS, WORDS, dist};

/// Rounds of draining before the rest is left to a kick of this PE by itself: other vCPUs can
/// post at any time, and no guest may keep a PE at EL2.
const DRAIN_ROUNDS: usize = 8;
/// Both state bits.
const HELD: u64 = ListRegister::PENDING | ListRegister::ACTIVE;

/// Slots of a mask, lowest first.
pub(crate) fn slots(mask: u32) -> impl Iterator<Item = usize> {
    IntidIter::of(0, mask & 0xffff).map(|slot| slot as usize)
}

/// List registers that exist, one bit each.
#[inline]
fn existing<B: LrBank>(bank: &B) -> u32 {
    0xffff >> (16 - bank.count().clamp(1, 16))
}

impl VcpuGic<'_> {
    /// Occupied list registers, an ended one that waits for its maintenance included.
    #[inline]
    pub(crate) fn occupied<B: LrBank>(&self, bank: &B) -> impl Iterator<Item = usize> + use<B> {
        slots(!bank.elrsr() & existing(bank))
    }

    /// INTIDs of a word that stand in own list registers in one of the states.
    pub(crate) fn held<B: LrBank>(&self, bank: &B, index: usize, states: u64) -> u32 {
        self.occupied(bank)
            .map(|slot| (self.intid_in(slot), bank.lr(slot)))
            .filter(|&(intid, lr)| (intid >> 5) as usize == index && lr & states & HELD != 0)
            .fold(0, |bits, (intid, _)| bits | bit(intid))
    }

    /// INTIDs of a word that wait for this vCPU and may be delivered.
    #[inline(never)]
    pub(crate) fn candidates(&self, index: usize) -> u32 {
        let word = self.word(index);
        let raised = word.raised();
        if raised == 0 {
            return 0;
        }
        raised & word.ready(self.dist.ctlr.load(Ordering::Relaxed)) & routed(self.me, index)
    }

    /// INTID that was last put into a list register.
    #[inline]
    pub(crate) fn intid_in(&self, slot: usize) -> u32 {
        u32::from(self.lr_intid.get(slot & 15).copied().unwrap_or(0))
    }

    /// The list register that holds an INTID; `free` is what ELRSR says.
    #[inline]
    pub(crate) fn slot_of(&self, free: u32, intid: u32) -> Option<usize> {
        let slot = usize::from(self.lr_index.get(intid as usize).copied().unwrap_or(0) & 15);
        (free >> slot & 1 == 0 && self.intid_in(slot) == intid).then_some(slot)
    }

    /// Takes posted work, ended interrupts, and what waits; returns the vCPUs to kick.
    pub(crate) fn drain<B: LrBank>(&mut self, bank: &mut B) -> u8 {
        if self.parked {
            return 0;
        }
        let own = 1 << (self.index & 7);
        let mut kick = self.reap(bank);
        for _ in 0..DRAIN_ROUNDS {
            if self.me.attention.load(Ordering::Relaxed) == 0 {
                break;
            }
            let attention = self.me.attention.swap(0, Ordering::AcqRel);
            for index in slots(attention_words(attention)) {
                if attention & attention_recheck(index) != 0 {
                    kick |= self.revise(bank, index);
                }
                kick |= self.flush(bank, index);
            }
        }
        // Behind the requests: what waits is not to be taken for older than they are.
        if self.overflow {
            kick |= self.refill(bank);
        }
        self.update_control(bank);
        let rest = if self.me.attention.load(Ordering::Relaxed) == 0 {
            0
        } else {
            own
        };
        kick & !own | rest
    }

    /// Places what waits in one word, as far as list registers are free.
    fn flush<B: LrBank>(&mut self, bank: &mut B, index: usize) -> u8 {
        let mut kick = 0;
        for intid in IntidIter::of(index, self.candidates(index)) {
            if self.overflow {
                break;
            }
            match self.deliver(bank, intid) {
                Some(more) => kick |= more,
                None => self.overflow = true,
            }
        }
        kick
    }

    /// Places one interrupt, or merges it into the list register that holds it already.
    ///
    /// Returns `None` when no list register is free, otherwise the vCPUs to kick.
    fn deliver<B: LrBank>(&mut self, bank: &mut B, intid: u32) -> Option<u8> {
        let free = bank.elrsr() & existing(bank);
        if let Some(slot) = self.slot_of(free, intid) {
            self.absorb(bank, slot, intid);
            return Some(0);
        }
        let index = (intid >> 5) as usize;
        if dist::is_spi(intid) {
            // Before there is any talk of room: one that another vCPU holds needs none here.
            if let Err(owner) = self.dist.claim(intid, self.index) {
                let request = dist::Request::HandOver;
                return Some(self.dist.request_one(owner, index, bit(intid), request));
            }
            if self.candidates(index) & bit(intid) == 0 {
                return Some(self.dist.release(intid));
            }
        }
        if free == 0 {
            return None;
        }
        let hint = usize::from(self.lr_index.get(intid as usize).copied().unwrap_or(0) & 15);
        let slot = if free >> hint & 1 == 1 {
            hint
        } else {
            free.trailing_zeros() as usize
        };
        self.place(bank, slot, intid);
        Some(0)
    }

    /// Writes a waiting interrupt into a list register that may be overwritten.
    fn place<B: LrBank>(&mut self, bank: &mut B, slot: usize, intid: u32) {
        let word = self.word((intid >> 5) as usize);
        let mask = bit(intid);
        let hw = word.hw.load(Ordering::Relaxed) & mask != 0;
        let level = !hw && word.edge.load(Ordering::Relaxed) & mask == 0;
        let latched = self.take_latch(intid);
        let line = level && word.line.load(Ordering::Acquire) & mask != 0;
        if !latched && !line {
            return;
        }
        let mut lr = ListRegister::pending(intid, word.rank(intid));
        if hw {
            lr = lr.backed_by(word.pintid(intid));
        }
        if level {
            lr = lr.with(ListRegister::EOI);
        }
        self.set_latched(slot, level && latched);
        self.set_slot(slot, intid);
        bank.set_lr(slot, lr.0);
    }

    /// Takes a latch for a list register; returns whether there was one.
    ///
    /// Who clears pending on another PE clears the latch first and asks for the list register then,
    /// so a latch that stands while such a request waits is younger than the request, which must
    /// not hit it. (Where the request comes in right now, the interrupt is delivered once more,
    /// which a guest that clears it while it is being delivered has to expect; none is lost.) The
    /// latch of a private hardware interrupt is left to the request, and set only after a drain.
    fn take_latch(&self, intid: u32) -> bool {
        let index = (intid >> 5) as usize;
        let mask = bit(intid);
        let word = self.word(index);
        let taken = word.pending.fetch_and(!mask, Ordering::AcqRel) & mask != 0;
        if index == 0 && word.hw.load(Ordering::Relaxed) & mask != 0 {
            return taken;
        }
        let requests = dist::at(&self.me.clear_pending, index);
        if taken && requests.load(Ordering::Acquire) & mask != 0 {
            requests.fetch_and(!mask, Ordering::AcqRel);
        }
        taken
    }

    fn set_slot(&mut self, slot: usize, intid: u32) {
        if let Some(name) = self.lr_intid.get_mut(slot & 15) {
            *name = (intid & 0xff) as u8;
        }
        if let Some(hint) = self.lr_index.get_mut(intid as usize) {
            *hint = (slot & 15) as u8;
        }
    }

    pub(crate) fn set_latched(&mut self, slot: usize, latched: bool) {
        let mask = 1 << (slot & 15);
        self.latched = if latched {
            self.latched | mask
        } else {
            self.latched & !mask
        };
    }

    /// Merges a waiting interrupt into its own list register.
    ///
    /// Pending stays pending; an active edge becomes active and pending. An active level waits for
    /// its end, which raises a maintenance interrupt; so does an active edge whose priority or group
    /// changed, because the list register has only one of them.
    fn absorb<B: LrBank>(&mut self, bank: &mut B, slot: usize, intid: u32) {
        let lr = ListRegister(bank.lr(slot));
        if lr.is_idle() {
            self.place(bank, slot, intid);
            return;
        }
        if lr.is_hw() {
            return;
        }
        let word = self.word((intid >> 5) as usize);
        let mask = bit(intid);
        let edge = word.edge.load(Ordering::Relaxed) & mask != 0;
        if edge && (!lr.is_active() || lr.has_rank(word.rank(intid))) {
            if self.take_latch(intid) {
                bank.set_lr(slot, lr.with(ListRegister::PENDING).0);
            }
        } else if lr.is_active() {
            bank.set_lr(slot, lr.with(ListRegister::EOI).0);
        } else if self.take_latch(intid) {
            self.set_latched(slot, true);
        }
    }

    /// Brings the highest-priority waiting interrupts into the list registers.
    pub(crate) fn refill<B: LrBank>(&mut self, bank: &mut B) -> u8 {
        let mut kick = 0;
        let mut done = [0; WORDS];
        self.overflow = false;
        // First what needs no room: otherwise a second event of an interrupt that is pending in a
        // list register would wait, and count as a new one after the first is acknowledged.
        for slot in self.occupied(bank) {
            let intid = self.intid_in(slot);
            if self.candidates((intid >> 5) as usize) & bit(intid) != 0 {
                self.absorb(bank, slot, intid);
            }
        }
        while let Some((intid, priority)) = self.best(&done) {
            let index = (intid >> 5) as usize;
            match self.deliver(bank, intid) {
                Some(more) => kick |= more,
                None if self.make_room(bank, priority) => continue,
                None => {
                    self.overflow = true;
                    break;
                }
            }
            if let Some(word) = done.get_mut(index) {
                *word |= bit(intid);
            }
        }
        if self.overflow {
            self.split_repeated(bank);
        }
        kick
    }

    /// Keeps active and pending out of the list registers while others wait: its end would leave a
    /// pending list register behind that is of lower priority than a waiting interrupt, and that
    /// keeps the no-pending maintenance away. The pending half waits as well.
    fn split_repeated<B: LrBank>(&mut self, bank: &mut B) {
        for slot in self.occupied(bank) {
            let lr = ListRegister(bank.lr(slot));
            if lr.is_active() && lr.is_pending() {
                let intid = self.intid_in(slot);
                self.word((intid >> 5) as usize)
                    .pending
                    .fetch_or(bit(intid), Ordering::AcqRel);
                bank.set_lr(
                    slot,
                    lr.without(ListRegister::PENDING).with(ListRegister::EOI).0,
                );
            }
        }
    }

    /// The waiting interrupt of highest priority, `done` ones left out.
    fn best(&self, done: &[u32; WORDS]) -> Option<(u32, u8)> {
        let mut best: Option<(u32, u8)> = None;
        for (index, done) in done.iter().enumerate() {
            for intid in IntidIter::of(index, self.candidates(index) & !done) {
                let priority = self.word(index).priority(intid);
                if best.is_none_or(|(_, least)| priority < least) {
                    best = Some((intid, priority));
                }
            }
        }
        best
    }

    /// Frees a list register for an interrupt of `priority`; `false` when it has to wait.
    fn make_room<B: LrBank>(&mut self, bank: &mut B, priority: u8) -> bool {
        let mut pending: Option<(u8, usize)> = None;
        let mut active: Option<(u8, usize)> = None;
        for slot in self.occupied(bank) {
            let lr = ListRegister(bank.lr(slot));
            let kind = if lr.is_active() {
                &mut active
            } else {
                &mut pending
            };
            if kind.is_none_or(|(worst, _)| lr.priority() > worst) {
                *kind = Some((lr.priority(), slot));
            }
        }
        match (pending, active) {
            (Some((worst, slot)), _) if priority < worst => self.unload(bank, slot),
            (None, Some((_, slot))) => self.spill(bank, slot),
            _ => return false,
        }
        true
    }

    /// Takes a list register that is not active back into software. An SPI stays claimed.
    pub(crate) fn unload<B: LrBank>(&mut self, bank: &mut B, slot: usize) {
        let intid = self.intid_in(slot);
        let word = self.word((intid >> 5) as usize);
        let lr = ListRegister(bank.lr(slot));
        let mask = bit(intid);
        let level = !lr.is_hw() && word.edge.load(Ordering::Relaxed) & mask == 0;
        if lr.is_pending() && (!level || self.latched >> slot & 1 == 1) {
            word.pending.fetch_or(mask, Ordering::AcqRel);
        }
        bank.set_lr(slot, ListRegister::EMPTY.0);
        self.set_latched(slot, false);
    }

    /// Empties a list register, and gives an SPI back.
    pub(crate) fn vacate<B: LrBank>(&mut self, bank: &mut B, slot: usize) -> u8 {
        bank.set_lr(slot, ListRegister::EMPTY.0);
        self.set_latched(slot, false);
        let intid = self.intid_in(slot);
        if dist::is_spi(intid) {
            self.dist.release(intid)
        } else {
            0
        }
    }

    /// Moves an active interrupt from its list register into software.
    ///
    /// The end of an earlier one must have been counted before ([`VcpuGic::reap`]).
    pub(crate) fn spill<B: LrBank>(&mut self, bank: &mut B, slot: usize) {
        let intid = self.intid_in(slot);
        let index = (intid >> 5) as usize;
        let lr = ListRegister(bank.lr(slot));
        let word = self.word(index);
        let level = !lr.is_hw() && word.edge.load(Ordering::Relaxed) & bit(intid) == 0;
        word.active.fetch_or(bit(intid), Ordering::AcqRel);
        if lr.is_pending() && (!level || self.latched >> slot & 1 == 1) {
            word.pending.fetch_or(bit(intid), Ordering::AcqRel);
        }
        if let Some(spilled) = self.spilled.get_mut(index) {
            *spilled |= bit(intid);
        }
        if let Some(priority) = self.spilled_priority.get_mut(intid as usize) {
            *priority = lr.priority();
        }
        bank.set_lr(slot, ListRegister::EMPTY.0);
        self.set_latched(slot, false);
    }

    /// Clears ended list registers that asked for maintenance, and counts the ends of spilled
    /// interrupts. Returns the vCPUs to kick; own words to look at are posted to the own inbox.
    pub(crate) fn reap<B: LrBank>(&mut self, bank: &mut B) -> u8 {
        let mut kick = 0;
        for slot in slots(bank.eisr() & existing(bank)) {
            let intid = self.intid_in(slot);
            kick |= self.vacate(bank, slot);
            self.me.post(attention_flush((intid >> 5) as usize));
            kick |= 1 << (self.index & 7);
        }
        if self.hcr.entry_not_present {
            let ended = bank.eoi_count();
            for _ in 0..ended.min(INTIDS as u32) {
                kick |= self.end_spilled(bank);
            }
            if ended != 0 {
                bank.set_hcr(self.hcr);
            }
        }
        kick
    }

    /// Ends the spilled interrupt of highest priority: guests end interrupts in the reverse order of
    /// acknowledging them (with EOImode 0, the only mode that counts here).
    fn end_spilled<B: LrBank>(&mut self, bank: &mut B) -> u8 {
        let mut best: Option<(u8, u32)> = None;
        for (index, bits) in self.spilled.iter().enumerate() {
            for intid in IntidIter::of(index, *bits) {
                let priority = self
                    .spilled_priority
                    .get(intid as usize)
                    .copied()
                    .unwrap_or(0);
                if best.is_none_or(|(least, _)| priority < least) {
                    best = Some((priority, intid));
                }
            }
        }
        best.map_or(0, |(_, intid)| self.finish_spilled(bank, intid))
    }

    /// Deactivates a spilled interrupt.
    pub(crate) fn finish_spilled<B: LrBank>(&mut self, bank: &mut B, intid: u32) -> u8 {
        let index = (intid >> 5) as usize;
        let word = self.word(index);
        if let Some(spilled) = self.spilled.get_mut(index) {
            *spilled &= !bit(intid);
        }
        word.active.fetch_and(!bit(intid), Ordering::AcqRel);
        if word.hw.load(Ordering::Relaxed) & bit(intid) != 0 {
            bank.deactivate(word.pintid(intid));
        }
        self.me.post(attention_flush(index));
        let own = 1 << (self.index & 7);
        if dist::is_spi(intid) {
            own | self.dist.release(intid)
        } else {
            own
        }
    }

    /// Brings maintenance, traps and the direct path in line with what waits and what is spilled.
    pub(crate) fn update_control<B: LrBank>(&mut self, bank: &mut B) {
        let spilled = self.spilled.iter().any(|&word| word != 0);
        let control = HcrControl {
            no_pending: self.overflow,
            entry_not_present: spilled,
            trap_dir: spilled || self.me.private.active.load(Ordering::Relaxed) != 0,
        };
        if control != self.hcr {
            self.hcr = control;
            bank.set_hcr(control);
        }
        self.refresh_direct();
    }

    /// Recomputes which private interrupts may take the short path.
    #[inline]
    pub(crate) fn refresh_direct(&mut self) {
        self.direct = if self.overflow || self.parked {
            0
        } else {
            self.me
                .private
                .ready(self.dist.ctlr.load(Ordering::Relaxed))
        };
    }
}
