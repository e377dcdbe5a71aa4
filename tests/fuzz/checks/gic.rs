// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any accesses of guests to their GIC.
//!
//! The first byte chooses. Half of the inputs are sequences that the architecture defines, run
//! against the oracle that knows nothing of list registers; the others are accesses of any offset, width
//! and value by vCPUs that behave as badly as they can, and only the machine's own invariants
//! must hold: no panic, no INTID in two list registers, no physical interrupt deactivated twice,
//! and everything comes to rest.

use super::bytes::Bytes;
use super::machine::{GICR_SGI, HW_INTIDS, Machine};
use super::pair::{Op, VCPUS, sequence};

/// The longest sequence: longer ones find nothing that shorter ones do not, only later.
const MAX_OPS: usize = 200;

/// Runs an input.
pub(crate) fn check_gic(input: &[u8]) {
    let mut program = Bytes(input);
    let kind = program.u8();
    let lrs = [1, 2, 4, 16][usize::from(kind >> 1 & 3)];
    let (split, eager) = (kind & 8 != 0, kind & 16 != 0);
    if kind & 1 == 0 {
        let mut ops = vec![];
        while !program.is_empty() && ops.len() < MAX_OPS {
            ops.push(defined(&mut program));
        }
        sequence(lrs, split, eager, &ops);
    } else {
        anything(lrs, split, eager, &mut program);
    }
}

fn intid(program: &mut Bytes<'_>) -> u32 {
    let byte = u32::from(program.u8());
    // Private ones, the first SPIs and the last: few enough to meet each other.
    match byte & 63 {
        low @ 0..48 => low,
        62 => 128 + (byte >> 6),
        63 => 159,
        hw => HW_INTIDS[hw as usize % HW_INTIDS.len()].0,
    }
}

fn spi(program: &mut Bytes<'_>) -> u32 {
    match intid(program) {
        private @ 0..32 => private + 32,
        spi => spi,
    }
}

fn mask(program: &mut Bytes<'_>) -> u32 {
    let byte = program.u8();
    match byte >> 5 {
        0..=4 => 1 << (byte & 31),
        5 => u32::MAX,
        _ => program.u32(),
    }
}

/// Reads one operation of a well-behaved machine.
fn defined(program: &mut Bytes<'_>) -> Op {
    let kind = program.u8();
    let by = usize::from(kind >> 5) % VCPUS;
    let vcpu = by;
    match kind & 31 {
        0..=2 => Op::SpiBits {
            by,
            bits: program.below(7),
            word: if kind & 1 == 0 { 1 } else { 4 },
            value: mask(program),
        },
        3..=5 => Op::PrivateBits {
            by,
            target: program.below(VCPUS),
            bits: program.below(7),
            value: mask(program),
        },
        6 | 7 => Op::Priority {
            by,
            intid: intid(program),
            value: program.u8(),
        },
        8 => Op::Config {
            by,
            intid: intid(program),
            edge: program.u8() & 1 == 1,
        },
        9 | 10 => Op::Route {
            by,
            intid: spi(program),
            affinity: [0, 1, 2, 7, 0x100][program.below(5)],
        },
        11 => Op::Ctlr {
            by,
            value: u32::from(program.u8() & 3),
        },
        12 | 13 => Op::Fire {
            vcpu,
            which: program.below(HW_INTIDS.len()),
        },
        14 | 15 => Op::Edge {
            vcpu,
            intid: intid(program),
        },
        16 | 17 => Op::Level {
            vcpu,
            intid: intid(program),
            high: kind & 1 == 1,
        },
        18 | 19 => {
            let (which, list) = (program.u8(), program.u8());
            let all = u64::from(list >> 7) << 40;
            Op::Sgi {
                vcpu,
                value: u64::from(which & 15) << 24 | u64::from(list & 15) | all,
            }
        }
        20..=23 => Op::Ack { vcpu },
        24..=26 => Op::Eoi { vcpu },
        27 | 28 => Op::Dir {
            vcpu,
            pick: program.below(8),
        },
        29 | 30 => Op::Kicks,
        _ => Op::Park { vcpu },
    }
}

/// An offset of a frame: mostly where registers are.
fn offset(program: &mut Bytes<'_>, base: u32) -> u32 {
    let (kind, low) = (program.u8(), u32::from(program.u8()));
    let register = match kind & 7 {
        0 => return program.u32() & 0xffff,
        1 => 0x6000 + 8 * low,
        2 => 0xc00 + (low & 0x3f),
        3 => 0x400 + low,
        4 => return low,
        5 => return 0xff00 + low,
        _ => 0x80 + (u32::from(kind >> 3) & 7) * 0x80 + (low & 0x1f),
    };
    base + register
}

/// Accesses of any kind, by guests of any kind.
fn anything(lrs: usize, split: bool, eager: bool, program: &mut Bytes<'_>) {
    let mut machine = Machine::new(VCPUS, lrs);
    machine.eager = eager;
    for cpu in &mut machine.cpus {
        cpu.split_eoi = split;
    }
    for _ in 0..MAX_OPS {
        if program.is_empty() {
            break;
        }
        let kind = program.u8();
        let vcpu = usize::from(kind >> 5) % VCPUS;
        step(&mut machine, vcpu, kind & 31, program);
        check(&machine);
    }
    machine.eager = true;
    machine.run_kicks();
    machine.settle();
    check(&machine);
}

fn step(machine: &mut Machine, vcpu: usize, kind: u8, program: &mut Bytes<'_>) {
    let width = 1 << (kind & 3);
    match kind {
        0..=3 => {
            let offset = offset(program, 0);
            let value = machine.gicd_read(vcpu, offset, width);
            assert!(
                width == 8 || value >> (8 * width) == 0,
                "wider than the access"
            );
        }
        4..=11 => {
            let (offset, low, high) = (offset(program, 0), mask(program), mask(program));
            machine.gicd(vcpu, offset, width, u64::from(high) << 32 | u64::from(low));
        }
        12 | 13 => {
            // One more than there are.
            let (target, offset) = (program.below(VCPUS + 1), offset(program, GICR_SGI));
            let value = machine.gicr_read(vcpu, target, offset, width);
            assert!(
                width == 8 || value >> (8 * width) == 0,
                "wider than the access"
            );
        }
        14..=18 => {
            let (target, offset) = (program.below(VCPUS + 1), offset(program, GICR_SGI));
            let (low, high) = (mask(program), mask(program));
            machine.gicr(
                vcpu,
                target,
                offset,
                width,
                u64::from(high) << 32 | u64::from(low),
            );
        }
        19 => machine.fire(vcpu, HW_INTIDS[program.below(HW_INTIDS.len())].0),
        20 | 21 => device(machine, vcpu, program),
        22 => {
            let value = program.u64();
            machine.sgi(vcpu, value);
        }
        23..=25 => drop(machine.ack(vcpu)),
        26 | 27 => {
            // Any INTID at all, as long as some priority runs: what else the CPU interface does
            // with an end of interrupt is not the distributor's.
            let intid = intid(program);
            if !machine.cpus[vcpu].running.is_empty() {
                machine.eoi(vcpu, intid);
            }
        }
        28 => {
            let intid = program.u32() & 0x3ff;
            machine.dir(vcpu, intid);
        }
        29 => {
            machine.run_kicks();
            machine.settle();
        }
        _ => {
            machine.park(vcpu);
            machine.resume(vcpu);
        }
    }
}

/// An emulated device's interrupt; those that hardware stands behind come from hardware alone.
fn device(machine: &mut Machine, vcpu: usize, program: &mut Bytes<'_>) {
    let (intid, how) = (intid(program), program.u8());
    if HW_INTIDS.iter().any(|hw| hw.0 == intid) {
        return;
    }
    if how & 1 == 0 || intid < 16 {
        machine.edge(vcpu, intid);
    } else {
        machine.level(vcpu, intid, how & 2 == 2);
    }
}

fn check(machine: &Machine) {
    machine.check();
    for cpu in &machine.cpus {
        let mut seen: Vec<u32> = cpu.live().map(|lr| lr.vintid()).collect();
        assert!(
            seen.iter().all(|intid| *intid < 160),
            "no such INTID: {seen:?}"
        );
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count, "an INTID in two list registers");
    }
}
