// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several PEs with one vCPU each, physical interrupts, and the kernel's duties.

use std::collections::BTreeMap;

use firebreak_vgic::{Distributor, Effects, HwOp, SgiRegister, VcpuGic};

use super::cpu::Cpu;

/// Guest's INTIDs that hardware stands behind: two PPIs and two SPIs (with other physical INTIDs).
pub(crate) const HW_INTIDS: [(u32, u32); 4] = [(27, 27), (30, 30), (40, 77), (41, 300)];

/// A physical interrupt in the physical distributor.
#[derive(Default, Clone, Copy, Debug)]
struct Physical {
    enabled: bool,
    pending: bool,
    active: bool,
}

pub(crate) struct Machine {
    pub(crate) dist: &'static Distributor,
    /// Where `dist` lives: a fuzzer makes millions of machines.
    allocation: *mut Distributor,
    pub(crate) gics: Vec<VcpuGic<'static>>,
    pub(crate) cpus: Vec<Cpu>,
    /// By PE (0 for SPIs) and physical INTID.
    physical: BTreeMap<(usize, u32), Physical>,
    /// Kicks that were not carried out, when they are held back.
    pub(crate) kicks: u8,
    /// Kicks are carried out at once.
    pub(crate) eager: bool,
}

pub(crate) const GICR_SGI: u32 = 0x1_0000;

impl Drop for Machine {
    fn drop(&mut self) {
        self.gics.clear();
        // SAFETY: `new` made this box; the vCPUs that referred to it are gone, and nobody takes
        // a copy of the reference out of its machine.
        drop(unsafe { Box::from_raw(self.allocation) });
    }
}

impl Machine {
    pub(crate) fn new(vcpus: usize, lrs: usize) -> Self {
        let allocation = Box::into_raw(Box::new(Distributor::new()));
        // SAFETY: it was made just now, and lives until the machine is dropped.
        let dist: &'static Distributor = unsafe { &*allocation };
        dist.configure(vcpus);
        for (vintid, pintid) in HW_INTIDS {
            if vintid < 32 {
                dist.map_private(vintid, pintid);
            } else {
                dist.map_spi(vintid, pintid);
            }
        }
        let gics = (0..vcpus)
            .map(|index| VcpuGic::new(dist, index as u8))
            .collect();
        let cpus = (0..vcpus).map(|_| Cpu::new(lrs)).collect();
        let mut machine = Self {
            dist,
            allocation,
            gics,
            cpus,
            physical: BTreeMap::new(),
            kicks: 0,
            eager: true,
        };
        for vcpu in 0..vcpus {
            machine.resume(vcpu);
        }
        machine
    }

    /// A write of `vcpu` to the distributor.
    pub(crate) fn gicd(&mut self, vcpu: usize, offset: u32, width: usize, value: u64) {
        let effects = self.gics[vcpu].gicd_write(&mut self.cpus[vcpu], offset, width, value);
        self.after(vcpu, effects);
    }

    /// A write of `vcpu` to the redistributor of `target`.
    pub(crate) fn gicr(
        &mut self,
        vcpu: usize,
        target: usize,
        offset: u32,
        width: usize,
        value: u64,
    ) {
        let cpu = &mut self.cpus[vcpu];
        let effects = self.gics[vcpu].gicr_write(cpu, target as u8, offset, width, value);
        self.after(vcpu, effects);
    }

    pub(crate) fn gicd_read(&mut self, vcpu: usize, offset: u32, width: usize) -> u64 {
        self.publish_pending(vcpu);
        self.gics[vcpu].gicd_read(&self.cpus[vcpu], offset, width)
    }

    pub(crate) fn gicr_read(
        &mut self,
        vcpu: usize,
        target: usize,
        offset: u32,
        width: usize,
    ) -> u64 {
        self.publish_pending(vcpu);
        self.gics[vcpu].gicr_read(&self.cpus[vcpu], target as u8, offset, width)
    }

    pub(crate) fn edge(&mut self, vcpu: usize, intid: u32) {
        let effects = self.gics[vcpu].inject(&mut self.cpus[vcpu], intid);
        self.after(vcpu, effects);
    }

    pub(crate) fn level(&mut self, vcpu: usize, intid: u32, high: bool) {
        let effects = self.gics[vcpu].set_level(&mut self.cpus[vcpu], intid, high);
        self.after(vcpu, effects);
    }

    pub(crate) fn sgi(&mut self, vcpu: usize, value: u64) {
        let cpu = &mut self.cpus[vcpu];
        let effects = self.gics[vcpu].send_sgi(cpu, SgiRegister::Sgi1, value);
        self.after(vcpu, effects);
    }

    /// A device asserts the physical interrupt behind a guest's INTID.
    pub(crate) fn fire(&mut self, vcpu: usize, vintid: u32) {
        let (pe, pintid) = self.physical_of(vcpu, vintid);
        self.physical.entry((pe, pintid)).or_default().pending = true;
        self.settle();
    }

    pub(crate) fn ack(&mut self, vcpu: usize) -> Option<u32> {
        let intid = self.cpus[vcpu].ack();
        self.settle();
        intid
    }

    pub(crate) fn eoi(&mut self, vcpu: usize, intid: u32) {
        self.cpus[vcpu].eoi(intid);
        self.settle();
    }

    /// `ICC_DIR_EL1`, trapped or not.
    pub(crate) fn dir(&mut self, vcpu: usize, intid: u32) {
        if self.cpus[vcpu].hcr.trap_dir {
            let effects = self.gics[vcpu].deactivate(&mut self.cpus[vcpu], intid);
            self.after(vcpu, effects);
        } else {
            self.cpus[vcpu].deactivate_virtual(intid);
            self.settle();
        }
    }

    pub(crate) fn park(&mut self, vcpu: usize) {
        let effects = self.gics[vcpu].park(&mut self.cpus[vcpu]);
        self.after(vcpu, effects);
    }

    pub(crate) fn resume(&mut self, vcpu: usize) {
        let effects = self.gics[vcpu].resume(&mut self.cpus[vcpu]);
        self.after(vcpu, effects);
    }

    /// Carries out the kicks that were held back.
    pub(crate) fn run_kicks(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "vCPUs kick each other for ever");
            if self.kicks == 0 {
                return;
            }
            let vcpu = self.kicks.trailing_zeros() as usize;
            self.kicks &= self.kicks - 1;
            let effects = self.gics[vcpu].drain_inbox(&mut self.cpus[vcpu]);
            self.apply(vcpu, effects);
            self.settle_physical();
        }
    }

    /// The kernel's duties after a call for `vcpu`.
    pub(crate) fn after(&mut self, vcpu: usize, effects: Effects) {
        self.apply(vcpu, effects);
        self.settle();
    }

    fn apply(&mut self, vcpu: usize, effects: Effects) {
        self.kicks |= effects.kick;
        for vintid in effects.intids() {
            let (pe, pintid) = self.physical_of(effects.vcpu.into(), vintid);
            let physical = self.physical.entry((pe, pintid)).or_default();
            match effects.op {
                HwOp::Enable => physical.enabled = true,
                HwOp::Disable => physical.enabled = false,
                HwOp::SetPending => physical.pending = true,
                HwOp::ClearPending => physical.pending = false,
                HwOp::Configure | HwOp::Route | HwOp::None => {}
            }
        }
        let _ = vcpu;
    }

    fn physical_of(&self, vcpu: usize, vintid: u32) -> (usize, u32) {
        let pintid = self
            .dist
            .physical_intid(vcpu as u8, vintid)
            .expect("a mapped INTID");
        (if vintid < 32 { vcpu } else { 0 }, pintid)
    }

    /// Runs everything that hardware would do at once: physical interrupts, maintenance, kicks.
    pub(crate) fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "the machine does not come to rest");
            let mut busy = self.settle_physical();
            for vcpu in 0..self.cpus.len() {
                if self.cpus[vcpu].maintenance() {
                    let effects = self.gics[vcpu].maintenance(&mut self.cpus[vcpu]);
                    self.apply(vcpu, effects);
                    busy = true;
                }
            }
            if self.eager && self.kicks != 0 {
                self.run_kicks();
                busy = true;
            }
            if !busy {
                return;
            }
        }
    }

    /// Deactivations, and physical interrupts that are taken. Returns whether there were any.
    fn settle_physical(&mut self) -> bool {
        let mut busy = false;
        for vcpu in 0..self.cpus.len() {
            for pintid in std::mem::take(&mut self.cpus[vcpu].deactivated) {
                let pe = if pintid < 32 { vcpu } else { 0 };
                let physical = self.physical.entry((pe, pintid)).or_default();
                assert!(physical.active, "physical {pintid} deactivated twice");
                physical.active = false;
                busy = true;
            }
        }
        let keys: Vec<_> = self.physical.keys().copied().collect();
        for (pe, pintid) in keys {
            let physical = self.physical.get_mut(&(pe, pintid)).expect("a key");
            if !(physical.pending && physical.enabled) || physical.active {
                continue;
            }
            physical.pending = false;
            physical.active = true;
            let (vintid, _) = HW_INTIDS
                .into_iter()
                .find(|hw| hw.1 == pintid)
                .expect("mapped");
            let vcpu = if vintid < 32 {
                pe
            } else {
                self.dist.route(vintid).unwrap_or(0).into()
            };
            let effects = self.gics[vcpu].inject_hw(&mut self.cpus[vcpu], vintid, pintid);
            self.apply(vcpu, effects);
            busy = true;
        }
        busy
    }

    fn publish_pending(&mut self, vcpu: usize) {
        let pending = self
            .physical
            .iter()
            .filter(|((pe, pintid), physical)| physical.pending && (*pintid >= 32 || *pe == vcpu));
        self.cpus[vcpu].hw_pending = pending.map(|((_, pintid), _)| *pintid).collect();
    }

    /// SPIs of a word that stand in list registers of other vCPUs.
    pub(crate) fn held_elsewhere(&self, vcpu: usize, word: u32) -> u32 {
        let others = self
            .cpus
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != vcpu);
        others
            .flat_map(|(_, cpu)| cpu.live())
            .filter(|lr| lr.vintid() >> 5 == word)
            .fold(0, |bits, lr| bits | 1 << (lr.vintid() & 31))
    }

    /// Checks what must hold at rest.
    pub(crate) fn check(&self) {
        for word in 1..5 {
            let mut seen = 0;
            for cpu in &self.cpus {
                for lr in cpu.live().filter(|lr| lr.vintid() >> 5 == word) {
                    let bit = 1 << (lr.vintid() & 31);
                    assert_eq!(seen & bit, 0, "SPI {} at two vCPUs", lr.vintid());
                    seen |= bit;
                }
            }
        }
    }
}
