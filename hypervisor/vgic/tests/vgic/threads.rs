// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several PEs at once, each a thread with its own list registers: nothing is lost between them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use firebreak_vgic::{Distributor, Effects, SgiRegister, VcpuGic};

use super::cpu::Cpu;
use super::oracle::Bits;

const VCPUS: usize = 4;
/// Under Miri, which also tries weak memory orders, a round takes a thousand times as long.
const ROUNDS: u64 = if cfg!(miri) { 40 } else { 20_000 };
/// SPIs that are made pending and moved about.
const SPIS: std::ops::Range<u32> = 32..40;

/// What the threads share besides the distributor.
struct Shared {
    dist: Distributor,
    kicks: [AtomicBool; VCPUS],
    /// By target and INTID: SGIs sent, and the count that the last handler of it saw at its start.
    sent: Vec<AtomicU64>,
    seen: Vec<AtomicU64>,
    /// The same for SPIs.
    spi_sent: Vec<AtomicU64>,
    spi_seen: Vec<AtomicU64>,
    /// vCPU + 1 that handles the SPI.
    spi_handler: Vec<AtomicU8>,
    /// Threads that still send.
    busy: AtomicUsize,
    /// PEs that found nothing to do.
    idle: [AtomicBool; VCPUS],
    /// How often an idle PE found something after all.
    woken: AtomicUsize,
    /// A thread failed: the others need not wait for it.
    failed: AtomicBool,
}

impl Shared {
    /// Whether nobody sends, and nobody has anything to do that could make work for another.
    fn at_rest(&self) -> bool {
        let woken = self.woken.load(Ordering::SeqCst);
        self.busy.load(Ordering::SeqCst) == 0
            && self.idle.iter().all(|idle| idle.load(Ordering::SeqCst))
            && !self.kicks.iter().any(|kick| kick.load(Ordering::SeqCst))
            && woken == self.woken.load(Ordering::SeqCst)
    }
}

/// A PE: one thread's own part.
struct Pe<'a> {
    index: usize,
    shared: &'a Shared,
    gic: VcpuGic<'a>,
    cpu: Cpu,
    random: u64,
}

impl Pe<'_> {
    fn random(&mut self, below: u64) -> u64 {
        // xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn kick(&self, mask: u8) {
        for target in 0..VCPUS {
            if mask >> target & 1 == 1 {
                self.shared.kicks[target].store(true, Ordering::SeqCst);
            }
        }
    }

    fn carry_out(&mut self, effects: Effects) {
        self.kick(effects.kick);
        while self.cpu.maintenance() {
            let effects = self.gic.maintenance(&mut self.cpu);
            self.kick(effects.kick);
        }
    }

    fn send_something(&mut self) {
        match self.random(8) {
            0..4 => {
                let intid = self.random(16) as usize;
                let targets = self.random(1 << VCPUS);
                for target in (0..VCPUS).filter(|target| targets >> target & 1 == 1) {
                    self.shared.sent[target * 16 + intid].fetch_add(1, Ordering::SeqCst);
                }
                let value = (intid as u64) << 24 | targets;
                let effects = self.gic.send_sgi(&mut self.cpu, SgiRegister::Sgi1, value);
                self.carry_out(effects);
            }
            4..7 => {
                let spi = self.random(8) as usize;
                self.shared.spi_sent[spi].fetch_add(1, Ordering::SeqCst);
                let effects = self.gic.inject(&mut self.cpu, SPIS.start + spi as u32);
                self.carry_out(effects);
            }
            _ => {
                let offset = 0x6000 + 8 * (SPIS.start + self.random(8) as u32);
                let affinity = self.random(VCPUS as u64);
                let effects = self.gic.gicd_write(&mut self.cpu, offset, 8, affinity);
                self.carry_out(effects);
            }
        }
    }

    /// Takes a kick, and handles one interrupt. Returns whether there was any of it.
    fn serve(&mut self) -> bool {
        let kicked = self.shared.kicks[self.index].swap(false, Ordering::SeqCst);
        if kicked {
            let effects = self.gic.drain_inbox(&mut self.cpu);
            self.carry_out(effects);
        }
        let Some(intid) = self.cpu.ack() else {
            return kicked;
        };
        self.carry_out(Effects::NONE);
        if intid < 16 {
            let slot = self.index * 16 + intid as usize;
            let count = self.shared.sent[slot].load(Ordering::SeqCst);
            self.shared.seen[slot].store(count, Ordering::SeqCst);
        } else {
            let spi = (intid - SPIS.start) as usize;
            let handler = &self.shared.spi_handler[spi];
            let before = handler.swap(self.index as u8 + 1, Ordering::SeqCst);
            assert_eq!(before, 0, "SPI {intid} is handled by two vCPUs at once");
            let count = self.shared.spi_sent[spi].load(Ordering::SeqCst);
            self.shared.spi_seen[spi].store(count, Ordering::SeqCst);
            handler.store(0, Ordering::SeqCst);
        }
        self.cpu.eoi(intid);
        self.carry_out(Effects::NONE);
        true
    }

    fn run(&mut self) {
        let effects = self.gic.resume(&mut self.cpu);
        self.carry_out(effects);
        for _ in 0..ROUNDS {
            self.send_something();
            for _ in 0..self.random(3) {
                self.serve();
            }
        }
        self.shared.busy.fetch_sub(1, Ordering::SeqCst);
        while !self.shared.at_rest() && !self.shared.failed.load(Ordering::Relaxed) {
            if self.shared.kicks[self.index].load(Ordering::SeqCst) {
                self.shared.woken.fetch_add(1, Ordering::SeqCst);
                self.shared.idle[self.index].store(false, Ordering::SeqCst);
            }
            while self.serve() {}
            self.shared.idle[self.index].store(true, Ordering::SeqCst);
            std::thread::yield_now();
        }
    }
}

impl Drop for Pe<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.failed.store(true, Ordering::Relaxed);
        }
    }
}

fn counters(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

fn enable_all(shared: &Shared) {
    let mut gic = VcpuGic::new(&shared.dist, 0);
    let mut cpu = Cpu::new(4);
    gic.gicd_write(&mut cpu, 0, 4, 2);
    gic.gicd_write(&mut cpu, 0xc08, 4, u64::from(u32::MAX));
    gic.gicd_write(&mut cpu, Bits::SetEnable.offset(1), 4, 0xff);
    for target in 0..VCPUS as u8 {
        let offset = super::machine::GICR_SGI + Bits::SetEnable.offset(0);
        gic.gicr_write(&mut cpu, target, offset, 4, 0xffff);
    }
}

/// Every SGI and every edge of an SPI is followed by a handler that starts after it, at one vCPU at a
/// time, however routes change meanwhile.
#[test]
fn no_interrupt_is_lost_between_pes_that_run_at_once() {
    for lrs in [1, 2, 4] {
        let shared = Shared {
            dist: Distributor::new(),
            kicks: [const { AtomicBool::new(false) }; VCPUS],
            sent: counters(VCPUS * 16),
            seen: counters(VCPUS * 16),
            spi_sent: counters(8),
            spi_seen: counters(8),
            spi_handler: (0..8).map(|_| AtomicU8::new(0)).collect(),
            busy: AtomicUsize::new(VCPUS),
            idle: [const { AtomicBool::new(false) }; VCPUS],
            woken: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        };
        shared.dist.configure(VCPUS);
        enable_all(&shared);
        std::thread::scope(|scope| {
            for index in 0..VCPUS {
                let shared = &shared;
                scope.spawn(move || {
                    let gic = VcpuGic::new(&shared.dist, index as u8);
                    let random = 0x9e37_79b9_7f4a_7c15 ^ (index as u64 + 1) << 32 | lrs as u64;
                    Pe {
                        index,
                        shared,
                        gic,
                        cpu: Cpu::new(lrs),
                        random,
                    }
                    .run();
                });
            }
        });
        for (slot, (sent, seen)) in shared.sent.iter().zip(&shared.seen).enumerate() {
            let (sent, seen) = (sent.load(Ordering::SeqCst), seen.load(Ordering::SeqCst));
            assert_eq!(
                seen,
                sent,
                "{lrs} LRs: vCPU {} lost SGI {}",
                slot / 16,
                slot % 16
            );
        }
        for (spi, (sent, seen)) in shared.spi_sent.iter().zip(&shared.spi_seen).enumerate() {
            let (sent, seen) = (sent.load(Ordering::SeqCst), seen.load(Ordering::SeqCst));
            assert_eq!(seen, sent, "{lrs} LRs: SPI {} was lost", spi + 32);
        }
    }
}
