// SPDX-License-Identifier: MIT OR Apache-2.0
//! Register accesses of a guest: distributor frame and redistributor frames.
//!
//! Every offset and width is answered: what the architecture reserves, what is not implemented, and
//! what is accessed in a width that a register does not have, reads as zero and ignores writes.

use core::sync::atomic::{Ordering, fence};

use crate::decode::{self, Bank, BitRegister};
use crate::dist::{CTLR_GROUPS, Request, is_spi};
use crate::effects::{Effects, HwOp, IntidIter};
use crate::lr::{ListRegister, LrBank};
use crate::vcpu::VcpuGic;
use crate::word::{IrqWord, bit};
use crate::{WORDS, dist};

/// INTIDs whose enable, pending and so on a redistributor has.
const PRIVATE: usize = 0;

impl VcpuGic<'_> {
    /// Reads `width` bytes (1, 2, 4 or 8) of the distributor at `offset` (below 0x1_0000).
    ///
    /// Pending and active bits of SPIs that stand in another vCPU's list registers read as 0.
    #[inline]
    pub fn gicd_read<B: LrBank>(&self, bank: &B, offset: u32, width: usize) -> u64 {
        if width == 4 && offset & 3 == 0 {
            return u64::from(self.gicd_read_word(bank, offset));
        }
        self.read_odd(offset, width, false, self.index)
    }

    /// Writes the low `width` bytes (1, 2, 4 or 8) of `value` to the distributor at `offset`.
    #[inline]
    pub fn gicd_write<B: LrBank>(
        &mut self,
        bank: &mut B,
        offset: u32,
        width: usize,
        value: u64,
    ) -> Effects {
        if width == 4 && offset & 3 == 0 {
            return self.gicd_write_word(bank, offset, (value & 0xffff_ffff) as u32);
        }
        self.write_odd(bank, offset, width, value, self.index)
    }

    /// Reads `width` bytes (1, 2, 4 or 8) of vCPU `target`'s redistributor at `offset`: RD_base below
    /// 0x1_0000, SGI_base below 0x2_0000.
    ///
    /// Pending and active bits in another vCPU's list registers read as 0.
    #[inline]
    pub fn gicr_read<B: LrBank>(&self, bank: &B, target: u8, offset: u32, width: usize) -> u64 {
        if !self.dist.exists(target) {
            return 0;
        }
        if width == 4 && offset & 3 == 0 {
            return u64::from(self.gicr_read_word(bank, target, offset));
        }
        if width == 8 && offset == decode::GICR_TYPER {
            return self.gicr_typer(target);
        }
        match offset.checked_sub(decode::SGI_FRAME) {
            Some(offset) => self.read_odd(offset, width, true, target),
            None => 0,
        }
    }

    /// Writes the low `width` bytes (1, 2, 4 or 8) of `value` to vCPU `target`'s redistributor at `offset`.
    #[inline]
    pub fn gicr_write<B: LrBank>(
        &mut self,
        bank: &mut B,
        target: u8,
        offset: u32,
        width: usize,
        value: u64,
    ) -> Effects {
        if target == self.index && width == 4 && offset & 3 == 0 {
            return self.gicr_write_own(bank, offset, (value & 0xffff_ffff) as u32);
        }
        self.gicr_write_any(bank, target, offset, width, value)
    }

    /// A 32-bit write to the vCPU's own redistributor: the registers that guests write all the time
    /// come first.
    #[inline]
    fn gicr_write_own<B: LrBank>(&mut self, bank: &mut B, offset: u32, value: u32) -> Effects {
        const SET_ENABLE: u32 = decode::SGI_FRAME + 0x100;
        const CLEAR_ENABLE: u32 = decode::SGI_FRAME + 0x180;
        match offset {
            SET_ENABLE => self.set_enable(bank, &self.me.private, self.index, PRIVATE, value),
            CLEAR_ENABLE => self.clear_enable(bank, &self.me.private, self.index, PRIVATE, value),
            _ => self.gicr_write_any(bank, self.index, offset, 4, value.into()),
        }
    }

    #[inline(never)]
    fn gicr_write_any<B: LrBank>(
        &mut self,
        bank: &mut B,
        target: u8,
        offset: u32,
        width: usize,
        value: u64,
    ) -> Effects {
        if !self.dist.exists(target) {
            return Effects::NONE;
        }
        let Some(banked) = offset.checked_sub(decode::SGI_FRAME) else {
            if offset == decode::GICR_WAKER && width == 4 {
                let asleep = (value >> 1 & 1) as u32;
                self.dist
                    .shared(target)
                    .asleep
                    .store(asleep, Ordering::Relaxed);
            }
            return Effects::NONE;
        };
        if width != 4 || offset & 3 != 0 {
            return self.write_priority_byte(bank, target, banked, width, value);
        }
        let value = (value & 0xffff_ffff) as u32;
        match decode::bank(banked) {
            Bank::Bits(register, PRIVATE) => {
                self.write_bits(bank, target, PRIVATE, register, value)
            }
            Bank::Priority(intid) if intid < 32 => {
                self.write_priorities(bank, target, intid, value)
            }
            Bank::Config(16) => self.write_config(bank, target, 16, value),
            _ => Effects::NONE,
        }
    }

    #[inline]
    fn gicd_read_word<B: LrBank>(&self, bank: &B, offset: u32) -> u32 {
        if offset < 0x80 {
            return match offset {
                decode::CTLR => {
                    self.dist.ctlr.load(Ordering::Relaxed) | decode::CTLR_ARE | decode::CTLR_DS
                }
                decode::GICD_TYPER => decode::GICD_TYPER_VALUE,
                decode::GICD_IIDR => decode::IIDR_VALUE,
                _ => 0,
            };
        }
        self.gicd_read_banked(bank, offset)
    }

    // Out of line: the registers in front, GICD_TYPER among them, need no stack then.
    #[inline(never)]
    fn gicd_read_banked<B: LrBank>(&self, bank: &B, offset: u32) -> u32 {
        if offset >= decode::ID_REGISTERS {
            return decode::id_register(offset);
        }
        if let Some((intid, high)) = decode::router(offset) {
            return if high {
                0
            } else {
                self.dist.router_cell(intid).load(Ordering::Relaxed)
            };
        }
        match decode::bank(offset) {
            Bank::Bits(register, index) if (1..WORDS).contains(&index) => {
                self.read_bits(bank, self.index, index, register)
            }
            Bank::Priority(intid) if is_spi(intid) => self.read_priorities(self.index, intid),
            Bank::Config(intid) if is_spi(intid) => self.read_config(self.index, intid),
            _ => 0,
        }
    }

    fn gicd_write_word<B: LrBank>(&mut self, bank: &mut B, offset: u32, value: u32) -> Effects {
        if let Some((intid, high)) = decode::router(offset) {
            return if high {
                Effects::NONE
            } else {
                self.write_router(bank, intid, value)
            };
        }
        match decode::bank(offset) {
            Bank::Bits(register, index) if (1..WORDS).contains(&index) => {
                self.write_bits(bank, self.index, index, register, value)
            }
            Bank::Priority(intid) if is_spi(intid) => {
                self.write_priorities(bank, self.index, intid, value)
            }
            Bank::Config(intid) if is_spi(intid) => {
                self.write_config(bank, self.index, intid, value)
            }
            _ if offset == decode::CTLR => self.write_ctlr(bank, value),
            _ => Effects::NONE,
        }
    }

    fn gicr_read_word<B: LrBank>(&self, bank: &B, target: u8, offset: u32) -> u32 {
        let Some(banked) = offset.checked_sub(decode::SGI_FRAME) else {
            return match offset {
                decode::GICR_IIDR => decode::IIDR_VALUE,
                decode::GICR_TYPER => (self.gicr_typer(target) & 0xffff_ffff) as u32,
                decode::GICR_TYPER_HIGH => (self.gicr_typer(target) >> 32) as u32,
                decode::GICR_WAKER => {
                    let asleep = self.dist.shared(target).asleep.load(Ordering::Relaxed);
                    asleep << 1 | asleep << 2
                }
                decode::ID_REGISTERS.. => decode::id_register(offset),
                _ => 0,
            };
        };
        match decode::bank(banked) {
            Bank::Bits(register, PRIVATE) => self.read_bits(bank, target, PRIVATE, register),
            Bank::Priority(intid) if intid < 32 => self.read_priorities(target, intid),
            Bank::Config(intid @ (0 | 16)) => self.read_config(target, intid),
            _ => 0,
        }
    }

    /// `GICR_TYPER`: affinity (Aff0 is the vCPU's number), processor number, Last.
    fn gicr_typer(&self, target: u8) -> u64 {
        let last = u64::from(u32::from(target) + 1 == self.dist.vcpus());
        u64::from(target) << 32 | u64::from(target) << 8 | last << 4
    }

    /// Reads of other widths than 32 bits: priority bytes, 64-bit routers.
    fn read_odd(&self, offset: u32, width: usize, private: bool, target: u8) -> u64 {
        if width == 8 && !private && offset & 7 == 0 {
            return match decode::router(offset) {
                Some((intid, _)) => u64::from(self.dist.router_cell(intid).load(Ordering::Relaxed)),
                None => 0,
            };
        }
        match decode::bank(offset) {
            Bank::Priority(intid) if width == 1 && private == (intid < 32) && in_range(intid) => {
                u64::from(self.word_for(target, intid).priority(intid))
            }
            _ => 0,
        }
    }

    /// Writes of other widths than 32 bits to the distributor.
    fn write_odd<B: LrBank>(
        &mut self,
        bank: &mut B,
        offset: u32,
        width: usize,
        value: u64,
        target: u8,
    ) -> Effects {
        if width == 8 && offset & 7 == 0 {
            return match decode::router(offset) {
                Some((intid, _)) => self.write_router(bank, intid, (value & 0xffff_ffff) as u32),
                None => Effects::NONE,
            };
        }
        match decode::bank(offset) {
            Bank::Priority(intid) if width == 1 && is_spi(intid) => {
                self.write_priority(bank, target, intid, value, 1)
            }
            _ => Effects::NONE,
        }
    }

    fn write_priority_byte<B: LrBank>(
        &mut self,
        bank: &mut B,
        target: u8,
        offset: u32,
        width: usize,
        value: u64,
    ) -> Effects {
        match decode::bank(offset) {
            Bank::Priority(intid) if width == 1 && intid < 32 => {
                self.write_priority(bank, target, intid, value, 1)
            }
            _ => Effects::NONE,
        }
    }

    fn word_for(&self, target: u8, intid: u32) -> &IrqWord {
        self.dist
            .word(self.dist.shared(target), (intid >> 5) as usize)
    }

    fn write_ctlr<B: LrBank>(&mut self, bank: &mut B, value: u32) -> Effects {
        let groups = value & CTLR_GROUPS;
        if self.dist.ctlr.swap(groups, Ordering::AcqRel) == groups {
            return Effects::NONE;
        }
        let posted = self.dist.request_all();
        self.settle(bank, posted)
    }

    fn write_router<B: LrBank>(&mut self, bank: &mut B, intid: u32, affinity: u32) -> Effects {
        let posted = self.dist.set_route(intid, affinity);
        let hw = self.word_for(self.index, intid).hw.load(Ordering::Relaxed) & bit(intid);
        self.settle(bank, posted)
            .and_hw(HwOp::Route, 0, intid >> 5, hw)
    }

    fn read_bits<B: LrBank>(
        &self,
        bank: &B,
        target: u8,
        index: usize,
        register: BitRegister,
    ) -> u32 {
        let word = self.dist.word(self.dist.shared(target), index);
        let own = index != PRIVATE || target == self.index;
        match register {
            BitRegister::Group => word.group.load(Ordering::Relaxed),
            BitRegister::SetEnable | BitRegister::ClearEnable => {
                word.enable.load(Ordering::Relaxed)
            }
            BitRegister::SetPending | BitRegister::ClearPending => {
                let raised = word.raised();
                if !own {
                    return raised;
                }
                let hw = IntidIter::of(index, word.hw.load(Ordering::Relaxed))
                    .filter(|&intid| bank.hw_pending(word.pintid(intid)))
                    .fold(0, |bits, intid| bits | bit(intid));
                raised | hw | self.held(bank, index, ListRegister::PENDING)
            }
            BitRegister::SetActive | BitRegister::ClearActive => {
                let active = word.active.load(Ordering::Relaxed);
                if own {
                    active | self.held(bank, index, ListRegister::ACTIVE)
                } else {
                    active
                }
            }
        }
    }

    fn write_bits<B: LrBank>(
        &mut self,
        bank: &mut B,
        target: u8,
        index: usize,
        register: BitRegister,
        value: u32,
    ) -> Effects {
        let word = self.dist.word(self.dist.shared(target), index);
        match register {
            BitRegister::SetEnable => self.set_enable(bank, word, target, index, value),
            BitRegister::ClearEnable => self.clear_enable(bank, word, target, index, value),
            _ => self.write_state(bank, target, index, register, value),
        }
    }

    #[inline]
    fn set_enable<B: LrBank>(
        &mut self,
        bank: &mut B,
        word: &IrqWord,
        target: u8,
        index: usize,
        value: u32,
    ) -> Effects {
        let new = value & !word.enable.fetch_or(value, Ordering::AcqRel);
        let hw = new & word.hw.load(Ordering::Relaxed);
        let raised = word.raised() & new;
        self.refresh_direct();
        let effects = Effects::hw(HwOp::Enable, target, (index & 7) as u8, hw);
        if raised == 0 {
            effects
        } else {
            self.spread(bank, effects, (target, index), raised)
        }
    }

    #[inline]
    fn clear_enable<B: LrBank>(
        &mut self,
        bank: &mut B,
        word: &IrqWord,
        target: u8,
        index: usize,
        value: u32,
    ) -> Effects {
        let old = value & word.enable.fetch_and(!value, Ordering::AcqRel);
        let hw = old & word.hw.load(Ordering::Relaxed);
        self.refresh_direct();
        let effects = Effects::hw(HwOp::Disable, target, (index & 7) as u8, hw);
        self.recall(bank, effects, (target, index), old)
    }

    /// Hands newly enabled interrupts that wait to those who take them.
    #[inline(never)]
    fn spread<B: LrBank>(
        &mut self,
        bank: &mut B,
        effects: Effects,
        (target, index): (u8, usize),
        bits: u32,
    ) -> Effects {
        let posted = self.dist.announce(target, index, bits);
        effects.and_kicks(self.settle(bank, posted).kick)
    }

    /// Has disabled interrupts taken out of the list registers that hold them.
    #[inline(never)]
    fn recall<B: LrBank>(
        &mut self,
        bank: &mut B,
        effects: Effects,
        (target, index): (u8, usize),
        bits: u32,
    ) -> Effects {
        let own = index == PRIVATE && target == self.index && !self.overflow;
        if own && bits & self.held(bank, PRIVATE, ListRegister::PENDING) == 0 {
            return effects;
        }
        let posted = self.dist.request(target, index, bits, Request::Recheck);
        effects.and_kicks(self.settle(bank, posted).kick)
    }

    /// Writes group, pending and active bits.
    #[inline(never)]
    fn write_state<B: LrBank>(
        &mut self,
        bank: &mut B,
        target: u8,
        index: usize,
        register: BitRegister,
        value: u32,
    ) -> Effects {
        let word = self.dist.word(self.dist.shared(target), index);
        let hw = word.hw.load(Ordering::Relaxed);
        let mut effects = Effects::NONE;
        let posted = match register {
            BitRegister::SetEnable | BitRegister::ClearEnable => 0,
            BitRegister::SetPending => {
                word.pending.fetch_or(value & !hw, Ordering::AcqRel);
                effects = Effects::hw(HwOp::SetPending, target, (index & 7) as u8, value & hw);
                self.dist.announce(target, index, value & !hw)
            }
            BitRegister::ClearPending => {
                self.clear_pending(bank, word, index, value);
                effects = Effects::hw(HwOp::ClearPending, target, (index & 7) as u8, value & hw);
                self.dist
                    .request(target, index, value, Request::ClearPending)
            }
            BitRegister::Group => {
                let changed = word.set_groups(value);
                self.dist.request(target, index, changed, Request::Recheck)
                    | self.dist.announce(target, index, changed)
            }
            BitRegister::SetActive => self.set_active(word, target, index, value),
            BitRegister::ClearActive => {
                word.active.fetch_and(!value, Ordering::AcqRel);
                self.dist
                    .request(target, index, value, Request::ClearActive)
                    | self.dist.announce(target, index, value & word.raised())
            }
        };
        effects.and_kicks(self.settle(bank, posted).kick)
    }

    /// Clears the latches of a word.
    ///
    /// A physical interrupt that waits in software is active, and the clear ends it: an SPI here, a
    /// private one by the vCPU that has it.
    fn clear_pending<B: LrBank>(&self, bank: &mut B, word: &IrqWord, index: usize, bits: u32) {
        let hw = word.hw.load(Ordering::Relaxed);
        word.pending.fetch_and(!(bits & !hw), Ordering::AcqRel);
        if index != PRIVATE && bits & hw != 0 {
            let waiting = word.pending.fetch_and(!(bits & hw), Ordering::AcqRel) & bits & hw;
            for intid in IntidIter::of(index, waiting) {
                bank.deactivate(word.pintid(intid));
            }
        }
    }

    /// Sets active bits, by way of the list registers that may hold the interrupt.
    fn set_active(&self, word: &IrqWord, target: u8, index: usize, bits: u32) -> u8 {
        if index == PRIVATE {
            return self.dist.request(target, PRIVATE, bits, Request::SetActive);
        }
        let mut posted = 0;
        for intid in IntidIter::of(index, bits) {
            let mask = bit(intid);
            if self.dist.owner(intid).is_none() {
                word.active.fetch_or(mask, Ordering::AcqRel);
                fence(Ordering::SeqCst);
                if self.dist.owner(intid).is_none() {
                    continue;
                }
                // Somebody took it meanwhile: let that vCPU decide.
                word.active.fetch_and(!mask, Ordering::AcqRel);
            }
            posted |= self.dist.request(target, index, mask, Request::SetActive);
        }
        posted
    }

    fn read_priorities(&self, target: u8, intid: u32) -> u32 {
        let word = self.word_for(target, intid);
        let byte = |lane: u32| u32::from(word.priority(intid | lane));
        byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24
    }

    fn write_priorities<B: LrBank>(
        &mut self,
        bank: &mut B,
        target: u8,
        intid: u32,
        value: u32,
    ) -> Effects {
        self.write_priority(bank, target, intid, u64::from(value), 4)
    }

    /// Takes over the priorities of `lanes` INTIDs from `intid` on.
    fn write_priority<B: LrBank>(
        &mut self,
        bank: &mut B,
        target: u8,
        intid: u32,
        value: u64,
        lanes: u32,
    ) -> Effects {
        let word = self
            .dist
            .word(self.dist.shared(target), (intid >> 5) as usize);
        let mut changed = 0;
        for lane in 0..lanes {
            let priority = (value >> (lane << 3) & 0xff) as u8;
            if word.set_priority(intid.wrapping_add(lane), priority) {
                changed |= bit(intid.wrapping_add(lane));
            }
        }
        let raised = changed & word.raised();
        let index = (intid >> 5) as usize;
        let mut posted = self.dist.request(target, index, changed, Request::Recheck);
        if raised != 0 {
            posted |= self.dist.announce(target, index, raised);
        }
        if posted == 0 {
            Effects::NONE
        } else {
            self.settle(bank, posted)
        }
    }

    fn read_config(&self, target: u8, intid: u32) -> u32 {
        let edge = self.word_for(target, intid).edge.load(Ordering::Relaxed);
        decode::config_from_bits(edge >> (intid & 16))
    }

    fn write_config<B: LrBank>(
        &mut self,
        bank: &mut B,
        target: u8,
        intid: u32,
        value: u32,
    ) -> Effects {
        let word = self
            .dist
            .word(self.dist.shared(target), (intid >> 5) as usize);
        let half = 0xffff << (intid & 16);
        let edge = decode::config_to_bits(value) << (intid & 16);
        let set = edge & !word.edge.fetch_or(edge, Ordering::AcqRel);
        let clear = half & !edge;
        let cleared = clear & word.edge.fetch_and(!clear, Ordering::AcqRel);
        let changed = set | cleared;
        if changed == 0 {
            return Effects::NONE;
        }
        let index = (intid >> 5) as usize;
        let posted = self
            .dist
            .request(target, index, changed, dist::Request::Recheck)
            | self.dist.announce(target, index, changed);
        let hw = word.hw.load(Ordering::Relaxed) & changed;
        self.settle(bank, posted)
            .and_hw(HwOp::Configure, target, intid >> 5, hw)
    }
}

/// Returns whether the GIC has an INTID.
const fn in_range(intid: u32) -> bool {
    (intid as usize) < crate::INTIDS
}
