// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking back: list registers that a change of the distributor's state made stale.

use core::sync::atomic::Ordering;

use crate::dist::{at, routed};
use crate::effects::IntidIter;
use crate::lr::{ListRegister, LrBank};
use crate::vcpu::VcpuGic;
use crate::word::bit;

/// Requests of other PEs, or of the own register write, for one word.
#[derive(Clone, Copy)]
struct Requests {
    clear_pending: u32,
    clear_active: u32,
}

impl VcpuGic<'_> {
    /// Brings the list registers that hold INTIDs of a word in line with the shared state.
    pub(crate) fn revise<B: LrBank>(&mut self, bank: &mut B, index: usize) -> u8 {
        let word = self.word(index);
        let requests = Requests {
            clear_pending: at(&self.me.clear_pending, index).swap(0, Ordering::AcqRel),
            clear_active: at(&self.me.clear_active, index).swap(0, Ordering::AcqRel),
        };
        let set_active = at(&self.me.set_active, index).swap(0, Ordering::AcqRel);
        let mut kick = 0;

        let spilled = self.spilled.get(index).copied().unwrap_or(0);
        for intid in IntidIter::of(index, spilled & requests.clear_active) {
            kick |= self.finish_spilled(bank, intid);
        }
        if set_active != 0 {
            let held = self.held(bank, index, ListRegister::ACTIVE) & !requests.clear_active;
            word.active.fetch_or(set_active & !held, Ordering::AcqRel);
        }
        if index == 0 && requests.clear_pending != 0 {
            // A physical interrupt that waits in software is active: the guest's clear ends it.
            let waiting = requests.clear_pending & word.hw.load(Ordering::Relaxed);
            let dropped = word.pending.fetch_and(!waiting, Ordering::AcqRel) & waiting;
            for intid in IntidIter::of(0, dropped) {
                bank.deactivate(word.pintid(intid));
            }
        }
        for slot in self.occupied(bank) {
            if (self.intid_in(slot) >> 5) as usize == index {
                kick |= self.revise_slot(bank, slot, requests);
            }
        }
        let wanted = at(&self.me.hand_over, index).swap(0, Ordering::AcqRel);
        kick | self.hand_over(bank, index, wanted)
    }

    /// Brings one list register in line.
    fn revise_slot<B: LrBank>(&mut self, bank: &mut B, slot: usize, requests: Requests) -> u8 {
        let old = ListRegister(bank.lr(slot));
        let intid = self.intid_in(slot);
        let index = (intid >> 5) as usize;
        if old.is_idle() {
            return 0;
        }
        let mut lr = old;
        if requests.clear_active & bit(intid) != 0 {
            lr = lr.without(ListRegister::ACTIVE);
        }
        if requests.clear_pending & bit(intid) != 0 {
            self.set_latched(slot, false);
        }
        let mut ended_hw = lr.is_hw() && lr.is_idle();
        if lr.is_pending() {
            let rank = self.word(index).rank(intid);
            let keep = self.revise_pending(slot, lr, requests.clear_pending & bit(intid) != 0);
            ended_hw |= keep == Keep::Cleared && lr.is_hw() && !lr.is_active();
            lr = match keep {
                Keep::Here if !lr.is_active() => lr.ranked(rank),
                Keep::Here if lr.has_rank(rank) => lr,
                Keep::Here => {
                    // One list register cannot be active at one priority and pending at another.
                    self.word(index)
                        .pending
                        .fetch_or(bit(intid), Ordering::AcqRel);
                    lr.without(ListRegister::PENDING).with(ListRegister::EOI)
                }
                Keep::Cleared | Keep::Waiting => lr.without(ListRegister::PENDING),
            };
        }
        if lr.is_idle() {
            if ended_hw {
                bank.deactivate(lr.pintid());
            }
            return self.vacate(bank, slot);
        }
        if lr.is_active() && !lr.is_hw() && routed(self.me, index) & bit(intid) == 0 {
            // Another vCPU may be waiting for it: say when it ends.
            lr = lr.with(ListRegister::EOI);
        }
        if lr != old {
            bank.set_lr(slot, lr.0);
        }
        0
    }

    /// Decides on the pending state in a list register, and moves it to software when it has to wait.
    fn revise_pending(&self, slot: usize, lr: ListRegister, cleared: bool) -> Keep {
        let intid = self.intid_in(slot);
        let index = (intid >> 5) as usize;
        let word = self.word(index);
        let level = !lr.is_hw() && word.edge.load(Ordering::Relaxed) & bit(intid) == 0;
        let latched = if level {
            self.latched >> slot & 1 == 1
        } else {
            !cleared
        };
        let line = level && word.line.load(Ordering::Acquire) & bit(intid) != 0;
        if !latched && !line {
            return Keep::Cleared;
        }
        let ready = word.ready(self.dist.ctlr.load(Ordering::Relaxed));
        if ready & routed(self.me, index) & bit(intid) != 0 {
            return Keep::Here;
        }
        if latched {
            word.pending.fetch_or(bit(intid), Ordering::AcqRel);
        }
        Keep::Waiting
    }

    /// Passes SPIs on that another vCPU found claimed by this one. What is still being handled here
    /// follows when it ends. Only what was asked for: two vCPUs must not keep each other busy with
    /// what waits for a list register.
    fn hand_over<B: LrBank>(&mut self, bank: &mut B, index: usize, wanted: u32) -> u8 {
        if wanted == 0 {
            return 0;
        }
        let word = self.word(index);
        let ready = word.ready(self.dist.ctlr.load(Ordering::Relaxed));
        let elsewhere = wanted & word.raised() & ready & !routed(self.me, index);
        let free = bank.elrsr();
        let spilled = self.spilled.get(index).copied().unwrap_or(0);
        let mut kick = 0;
        for intid in IntidIter::of(index, elsewhere & !spilled) {
            kick |= match self.dist.owner(intid) {
                None => self.dist.announce(0, index, bit(intid)),
                Some(owner) if owner == self.index && self.slot_of(free, intid).is_none() => {
                    self.dist.release(intid)
                }
                Some(_) => 0,
            };
        }
        kick
    }
}

/// What becomes of a pending state in a list register.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Stays.
    Here,
    /// Goes back to wait in software.
    Waiting,
    /// Is gone: the guest cleared it, or the line fell.
    Cleared,
}
