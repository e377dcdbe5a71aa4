// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual CPU interface of one PE, as the Arm ARM's `ICV_*` pseudocode has it.

use std::collections::BTreeSet;

use firebreak_vgic::{HcrControl, ListRegister, LrBank};

/// One PE's list registers and virtual CPU interface.
pub(crate) struct Cpu {
    lrs: Vec<u64>,
    pub(crate) hcr: HcrControl,
    pub(crate) eoi_count: u32,
    /// Priorities of acknowledged interrupts whose priority was not dropped yet.
    pub(crate) running: Vec<u8>,
    /// `ICC_CTLR_EL1.EOImode`.
    pub(crate) split_eoi: bool,
    /// Physical interrupts that were deactivated and not looked at yet.
    pub(crate) deactivated: Vec<u32>,
    /// Physical interrupts that are pending, for reads of pending registers.
    pub(crate) hw_pending: BTreeSet<u32>,
    /// How often `set_lr` was called.
    pub(crate) lr_writes: usize,
}

impl Cpu {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            lrs: vec![0; count],
            hcr: HcrControl::default(),
            eoi_count: 0,
            running: Vec::new(),
            split_eoi: false,
            deactivated: Vec::new(),
            hw_pending: BTreeSet::new(),
            lr_writes: 0,
        }
    }

    /// List registers whose state is not idle.
    pub(crate) fn live(&self) -> impl Iterator<Item = ListRegister> + '_ {
        self.lrs
            .iter()
            .map(|&lr| ListRegister(lr))
            .filter(|lr| !lr.is_idle())
    }

    fn running_priority(&self) -> u16 {
        self.running.iter().copied().min().map_or(256, u16::from)
    }

    /// `ICC_IAR`: the pending list register of highest priority, when it may preempt.
    pub(crate) fn ack(&mut self) -> Option<u32> {
        let slot = (0..self.lrs.len())
            .filter(|&slot| {
                let lr = ListRegister(self.lrs[slot]);
                lr.is_pending() && !lr.is_active()
            })
            .min_by_key(|&slot| ListRegister(self.lrs[slot]).priority())?;
        let lr = ListRegister(self.lrs[slot]);
        if u16::from(lr.priority()) >= self.running_priority() {
            return None;
        }
        self.running.push(lr.priority());
        self.lrs[slot] = lr.0 & !ListRegister::PENDING | ListRegister::ACTIVE;
        Some(lr.vintid())
    }

    /// `ICC_EOIR`: drops the priority, and with EOImode 0 deactivates.
    pub(crate) fn eoi(&mut self, intid: u32) {
        let best = self
            .running
            .iter()
            .enumerate()
            .min_by_key(|(_, priority)| **priority);
        let best = best.map(|(index, _)| index);
        self.running
            .remove(best.expect("an acknowledged interrupt"));
        if !self.split_eoi {
            self.deactivate_virtual(intid);
        }
    }

    /// `ICC_DIR` that was not trapped, or the second half of `ICC_EOIR`.
    pub(crate) fn deactivate_virtual(&mut self, intid: u32) {
        let slot = (0..self.lrs.len()).find(|&slot| {
            let lr = ListRegister(self.lrs[slot]);
            lr.is_active() && lr.vintid() == intid
        });
        let Some(slot) = slot else {
            self.eoi_count += 1;
            return;
        };
        let lr = ListRegister(self.lrs[slot]);
        self.lrs[slot] = lr.0 & !ListRegister::ACTIVE;
        if lr.is_hw() {
            self.deactivated.push(lr.pintid());
        }
    }

    /// Whether the maintenance interrupt is asserted.
    pub(crate) fn maintenance(&self) -> bool {
        let pending = |lr: &u64| {
            let lr = ListRegister(*lr);
            lr.is_pending() && !lr.is_active()
        };
        self.eisr() != 0
            || self.hcr.entry_not_present && self.eoi_count != 0
            || self.hcr.no_pending && !self.lrs.iter().any(pending)
    }
}

impl LrBank for Cpu {
    fn lr(&self, index: usize) -> u64 {
        self.lrs[index]
    }

    fn set_lr(&mut self, index: usize, value: u64) {
        let new = ListRegister(value);
        assert!(
            !(new.is_hw() && new.is_pending() && new.is_active()),
            "hardware-backed and both pending and active: {value:#x}"
        );
        assert!(
            !(new.is_hw() && new.0 & !ListRegister::HW == 0),
            "empty with HW: {value:#x}"
        );
        if !new.is_idle() {
            for (other, &lr) in self.lrs.iter().enumerate() {
                let lr = ListRegister(lr);
                assert!(
                    other == index || lr.is_idle() || lr.vintid() != new.vintid(),
                    "INTID {} in two list registers",
                    new.vintid()
                );
            }
        }
        self.lr_writes += 1;
        self.lrs[index] = value;
    }

    fn elrsr(&self) -> u32 {
        let free = |lr: u64| {
            ListRegister(lr).is_idle() && (ListRegister(lr).is_hw() || lr & ListRegister::EOI == 0)
        };
        self.lrs
            .iter()
            .enumerate()
            .fold(0, |bits, (i, &lr)| bits | u32::from(free(lr)) << i)
    }

    fn eisr(&self) -> u32 {
        let ended = |lr: u64| {
            ListRegister(lr).is_idle() && !ListRegister(lr).is_hw() && lr & ListRegister::EOI != 0
        };
        self.lrs
            .iter()
            .enumerate()
            .fold(0, |bits, (i, &lr)| bits | u32::from(ended(lr)) << i)
    }

    fn count(&self) -> usize {
        self.lrs.len()
    }

    fn eoi_count(&self) -> u32 {
        self.eoi_count & 31
    }

    fn set_hcr(&mut self, control: HcrControl) {
        self.hcr = control;
        self.eoi_count = 0;
    }

    fn deactivate(&mut self, pintid: u32) {
        self.deactivated.push(pintid);
    }

    fn hw_pending(&self, pintid: u32) -> bool {
        self.hw_pending.contains(&pintid)
    }
}
