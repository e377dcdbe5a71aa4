// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine and its oracle side by side, and the operations that both of them know.
//!
//! The property tests make their sequences by chance, the fuzzer by coverage.

use super::machine::{GICR_SGI, HW_INTIDS, Machine};
use super::oracle::{Bits, Oracle};

/// What a guest, a device or the kernel does.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    SpiBits {
        by: usize,
        bits: usize,
        word: u32,
        value: u32,
    },
    PrivateBits {
        by: usize,
        target: usize,
        bits: usize,
        value: u32,
    },
    Priority {
        by: usize,
        intid: u32,
        value: u8,
    },
    Config {
        by: usize,
        intid: u32,
        edge: bool,
    },
    Route {
        by: usize,
        intid: u32,
        affinity: u32,
    },
    Ctlr {
        by: usize,
        value: u32,
    },
    Fire {
        vcpu: usize,
        which: usize,
    },
    Edge {
        vcpu: usize,
        intid: u32,
    },
    Level {
        vcpu: usize,
        intid: u32,
        high: bool,
    },
    Sgi {
        vcpu: usize,
        value: u64,
    },
    Ack {
        vcpu: usize,
    },
    Eoi {
        vcpu: usize,
    },
    Dir {
        vcpu: usize,
        pick: usize,
    },
    Kicks,
    Park {
        vcpu: usize,
    },
}

/// vCPUs of the partition.
pub(crate) const VCPUS: usize = 3;

/// A machine and its oracle, and what each vCPU has acknowledged.
struct Pair {
    machine: Machine,
    oracle: Oracle,
    /// Acknowledged, priority not dropped, oldest first.
    acked: Vec<Vec<u32>>,
    /// Priority dropped, not deactivated (EOImode 1).
    dropped: Vec<Vec<u32>>,
    split: bool,
}

fn is_hw(intid: u32) -> bool {
    HW_INTIDS.iter().any(|hw| hw.0 == intid)
}

impl Pair {
    fn new(lrs: usize, split: bool, eager: bool) -> Self {
        let mut machine = Machine::new(VCPUS, lrs);
        machine.eager = eager;
        for cpu in &mut machine.cpus {
            cpu.split_eoi = split;
        }
        let mut pair = Self {
            machine,
            oracle: Oracle::new(VCPUS),
            acked: vec![Vec::new(); VCPUS],
            dropped: vec![Vec::new(); VCPUS],
            split,
        };
        // As most guests leave it: group 1 on, and everything enabled.
        pair.run(&Op::Ctlr { by: 0, value: 2 });
        for vcpu in 0..VCPUS {
            pair.run(&Op::PrivateBits {
                by: vcpu,
                target: vcpu,
                bits: 1,
                value: u32::MAX,
            });
        }
        for word in 1..5 {
            pair.run(&Op::SpiBits {
                by: 0,
                bits: 1,
                word,
                value: u32::MAX,
            });
        }
        pair
    }

    /// Bits of a word that some vCPU has acknowledged and not ended.
    fn in_handlers(&self, target: Option<usize>, word: u32) -> u32 {
        let vcpus = (0..VCPUS).filter(|vcpu| target.is_none_or(|target| target == *vcpu));
        vcpus
            .flat_map(|vcpu| self.acked[vcpu].iter().chain(&self.dropped[vcpu]))
            .filter(|intid| *intid >> 5 == word)
            .fold(0, |bits, intid| bits | 1 << (intid & 31))
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::SpiBits {
                by,
                bits,
                word,
                value,
            } => self.bits(by, None, bits, word, value),
            Op::PrivateBits {
                by,
                target,
                bits,
                value,
            } => {
                self.bits(by, Some(target), bits, 0, value);
            }
            Op::Priority { by, intid, value } => {
                if intid < 32 {
                    self.machine
                        .gicr(by, by, GICR_SGI + 0x400 + intid, 1, value.into());
                } else {
                    self.machine.gicd(by, 0x400 + intid, 1, value.into());
                }
                self.oracle.irq(by, intid).priority = value & 0xf8;
            }
            Op::Config { by, intid, edge } => self.config(by, intid, edge),
            Op::Route {
                by,
                intid,
                affinity,
            } => {
                self.machine
                    .gicd(by, 0x6000 + 8 * intid, 8, affinity.into());
                let target = affinity as usize;
                self.oracle.irq(by, intid).route = (target < VCPUS).then_some(target);
            }
            Op::Ctlr { by, value } => {
                self.machine.gicd(by, 0, 4, value.into());
                self.oracle.ctlr = value;
            }
            Op::Fire { vcpu, which } => {
                let (intid, _) = HW_INTIDS[which];
                // An event behind one that the guest has not acknowledged is a second one for the
                // physical distributor, which sees an active interrupt. Level lines have no such.
                if !self.oracle.irq(vcpu, intid).pending {
                    self.machine.fire(vcpu, intid);
                    self.oracle.irq(vcpu, intid).pending = true;
                }
            }
            Op::Edge { vcpu, intid } if !is_hw(intid) => {
                // A late latch on a level line cannot be told from the line: see `finish`.
                if self.machine.eager || self.oracle.irq(vcpu, intid).edge {
                    self.machine.edge(vcpu, intid);
                    self.oracle.irq(vcpu, intid).pending = true;
                }
            }
            Op::Level { vcpu, intid, high } if !is_hw(intid) && intid >= 16 => {
                self.machine.level(vcpu, intid, high);
                self.oracle.level(vcpu, intid, high);
            }
            Op::Edge { .. } | Op::Level { .. } => {}
            Op::Sgi { vcpu, value } => {
                self.machine.sgi(vcpu, value);
                let intid = (value >> 24 & 15) as u32;
                for target in 0..VCPUS {
                    let named = value >> target & 1 == 1;
                    if if value >> 40 & 1 == 1 {
                        target != vcpu
                    } else {
                        named
                    } {
                        self.oracle.irq(target, intid).pending = true;
                    }
                }
            }
            Op::Ack { vcpu } => self.ack(vcpu),
            Op::Eoi { vcpu } => self.eoi(vcpu),
            Op::Dir { vcpu, pick } => self.dir(vcpu, pick),
            Op::Kicks => {
                self.machine.run_kicks();
                self.machine.settle();
            }
            Op::Park { vcpu } => {
                self.machine.park(vcpu);
                self.machine.resume(vcpu);
            }
        }
    }

    fn bits(&mut self, by: usize, target: Option<usize>, bits: usize, word: u32, mut value: u32) {
        let bits = Bits::ALL[bits];
        let busy = self.in_handlers(target, word);
        if matches!(bits, Bits::SetActive | Bits::ClearActive) {
            // A guest that changes the active state of what it is handling gets what it asks for.
            value &= !busy;
        }
        if bits == Bits::SetPending {
            // As for `Op::Fire`.
            for (intid, _) in HW_INTIDS.into_iter().filter(|hw| hw.0 >> 5 == word) {
                if self.oracle.irq(target.unwrap_or(by), intid).pending {
                    value &= !(1 << (intid & 31));
                }
            }
        }
        match target {
            Some(target) => {
                let offset = GICR_SGI + bits.offset(0);
                self.machine.gicr(by, target, offset, 4, value.into());
            }
            None => self.machine.gicd(by, bits.offset(word), 4, value.into()),
        }
        self.oracle.write(target.unwrap_or(by), bits, word, value);
        let hw = HW_INTIDS
            .iter()
            .any(|hw| hw.0 >> 5 == word && value >> (hw.0 & 31) & 1 == 1);
        let racy = match bits {
            Bits::ClearActive | Bits::SetActive | Bits::SetPending => true,
            Bits::ClearPending => hw,
            _ => false,
        };
        if racy {
            // Where the other vCPU acknowledges in between, either order is right: have none.
            self.run(&Op::Kicks);
        }
    }

    fn config(&mut self, by: usize, intid: u32, edge: bool) {
        // Only when it is at rest, as the architecture demands.
        let irq = *self.oracle.irq(by, intid);
        let kicked = !self.machine.eager && self.machine.kicks != 0;
        if intid < 16 || irq.pending || irq.line || irq.active || kicked {
            return;
        }
        let shift = 2 * (intid & 15) + 1;
        let offset = 0xc00 + (intid >> 4) * 4;
        if intid < 32 {
            let old = self.machine.gicr_read(by, by, GICR_SGI + offset, 4);
            let new = old & !(1 << shift) | u64::from(edge) << shift;
            self.machine.gicr(by, by, GICR_SGI + offset, 4, new);
        } else {
            let old = self.machine.gicd_read(by, offset, 4);
            let new = old & !(1 << shift) | u64::from(edge) << shift;
            self.machine.gicd(by, offset, 4, new);
        }
        self.oracle.irq(by, intid).edge = edge;
    }

    fn ack(&mut self, vcpu: usize) {
        let intid = self.machine.ack(vcpu);
        if self.machine.eager {
            self.oracle.ack(vcpu, intid);
        } else if let Some(intid) = intid {
            let priority = *self.machine.cpus[vcpu]
                .running
                .last()
                .expect("just acknowledged");
            self.oracle.force_ack(vcpu, intid, priority);
        }
        self.acked[vcpu].extend(intid);
    }

    fn eoi(&mut self, vcpu: usize) {
        let Some(intid) = self.acked[vcpu].pop() else {
            return;
        };
        self.machine.eoi(vcpu, intid);
        self.oracle.drop_priority(vcpu);
        if self.split {
            self.dropped[vcpu].push(intid);
        } else {
            self.oracle.irq(vcpu, intid).active = false;
        }
    }

    fn dir(&mut self, vcpu: usize, pick: usize) {
        if self.dropped[vcpu].is_empty() {
            return;
        }
        let pick = pick % self.dropped[vcpu].len();
        let intid = self.dropped[vcpu].remove(pick);
        self.machine.dir(vcpu, intid);
        self.oracle.irq(vcpu, intid).active = false;
    }

    /// Compares every register that the two have in common.
    fn compare(&mut self) {
        self.machine.check();
        for vcpu in 0..VCPUS {
            for bits in Bits::ALL {
                let got = self
                    .machine
                    .gicr_read(vcpu, vcpu, GICR_SGI + bits.offset(0), 4);
                let want = self.oracle.read(vcpu, bits, 0);
                assert_eq!(
                    got,
                    u64::from(want),
                    "vCPU {vcpu} private {bits:?}: {got:#x}, not {want:#x}"
                );
                for word in 1..5 {
                    let hidden = match bits {
                        Bits::Group | Bits::SetEnable | Bits::ClearEnable => 0,
                        _ => self.machine.held_elsewhere(vcpu, word),
                    };
                    let got = self.machine.gicd_read(vcpu, bits.offset(word), 4) as u32 & !hidden;
                    let want = self.oracle.read(vcpu, bits, word) & !hidden;
                    assert_eq!(
                        got, want,
                        "vCPU {vcpu} word {word} {bits:?}: {got:#x}, not {want:#x}"
                    );
                }
            }
        }
    }

    /// Takes over edges that count twice because they reached a vCPU late, behind its acknowledge
    /// of an earlier one. Nothing may be missing.
    fn adopt_late_edges(&mut self) {
        for vcpu in 0..VCPUS {
            for word in 0..5 {
                let offset = Bits::SetPending.offset(word);
                let got = match word {
                    0 => self.machine.gicr_read(vcpu, vcpu, GICR_SGI + offset, 4) as u32,
                    _ => self.machine.gicd_read(vcpu, offset, 4) as u32,
                };
                let late = got & !self.oracle.read(vcpu, Bits::SetPending, word);
                self.oracle.write(vcpu, Bits::SetPending, word, late);
            }
        }
    }

    /// Ends all handlers, and takes everything that is left, in order.
    fn finish(&mut self) {
        let late = !self.machine.eager;
        self.machine.eager = true;
        self.run(&Op::Kicks);
        if late {
            self.adopt_late_edges();
        }
        self.compare();
        for _ in 0..2000 {
            let mut busy = false;
            for vcpu in 0..VCPUS {
                while !self.dropped[vcpu].is_empty() {
                    self.dir(vcpu, 0);
                }
                self.ack(vcpu);
                if let Some(&intid) = self.acked[vcpu].last() {
                    // The driver's part: quiet the device.
                    self.machine
                        .level(vcpu, if is_hw(intid) { 0 } else { intid }, false);
                    self.oracle
                        .level(vcpu, if is_hw(intid) { 0 } else { intid }, false);
                    self.eoi(vcpu);
                    busy = true;
                }
                busy |= !self.dropped[vcpu].is_empty();
            }
            if !busy {
                self.compare();
                return;
            }
        }
        panic!("the guests never came to rest");
    }
}

/// Runs a sequence, and compares after each step; with late kicks, at the end.
pub(crate) fn sequence(lrs: usize, split: bool, eager: bool, ops: &[Op]) {
    let mut pair = Pair::new(lrs, split, eager);
    for op in ops {
        pair.run(op);
        if eager {
            pair.compare();
        }
    }
    pair.finish();
}
