// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trapped system registers: what a guest reads, what its writes do.
//!
//! Debug and PMU registers are not trapped: the PE is the vCPU's own, so they work. What is not
//! there for a guest reads as not there in the ID registers and is UNDEF when used.

use crate::exits;
use crate::pe::{PeBlock, Task};
use crate::virq::{self, Lrs};
use firebreak_arch::{cpu, gic, sysreg};
use firebreak_vgic::{CommonRegister, CommonState, SgiRegister};

const INSTRUCTION_BYTES: u64 = 4;

/// ISS of EC 0x18 (Arm ARM D24.2.42): which register, which direction, which Rt.
struct Access(u64);

impl Access {
    /// op0, op1, CRn, CRm, op2 as one number, in the places that the ISS gives them.
    const REGISTER_MASK: u64 = 0x3f_fc1e;

    const fn encode(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
        op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1
    }

    const fn register(&self) -> u64 {
        self.0 & Self::REGISTER_MASK
    }

    const fn is_read(&self) -> bool {
        self.0 & 1 == 1
    }

    const fn rt(&self) -> usize {
        (self.0 >> 5 & 0x1f) as usize
    }

    const fn crm(&self) -> u64 {
        self.0 >> 1 & 0xf
    }

    const fn op2(&self) -> u64 {
        self.0 >> 17 & 7
    }
}

const ICC_SGI1R_EL1: u64 = Access::encode(3, 0, 12, 11, 5);
const ICC_ASGI1R_EL1: u64 = Access::encode(3, 0, 12, 11, 6);
const ICC_SGI0R_EL1: u64 = Access::encode(3, 0, 12, 11, 7);
const ICC_DIR_EL1: u64 = Access::encode(3, 0, 12, 11, 1);
const ICC_CTLR_EL1: u64 = Access::encode(3, 0, 12, 12, 4);
const ICC_PMR_EL1: u64 = Access::encode(3, 0, 4, 6, 0);
const ICC_RPR_EL1: u64 = Access::encode(3, 0, 12, 11, 3);
const ERRIDR_EL1: u64 = Access::encode(3, 0, 5, 3, 0);
const ACTLR_EL1: u64 = Access::encode(3, 0, 1, 0, 1);
const DC_ISW: u64 = Access::encode(1, 0, 7, 6, 2);
const DC_CSW: u64 = Access::encode(1, 0, 7, 10, 2);
const DC_CISW: u64 = Access::encode(1, 0, 7, 14, 2);
/// op0 = 3, op1 = 0, CRn = 0: the ID registers.
const ID_SPACE: u64 = Access::encode(3, 0, 0, 0, 0);
const ID_SPACE_MASK: u64 = Access::encode(3, 7, 15, 0, 0);

/// Answers a trapped access.
#[inline(never)]
pub(crate) fn trapped(pe: &'static PeBlock) {
    // SAFETY: the tail of `firebreak_sync`, which made no `Task`.
    let mut task = unsafe { Task::enter(pe) };
    let access = Access(task.frame.esr);
    if access.register() == ICC_SGI1R_EL1 && !access.is_read() {
        return send_sgi(&mut task, SgiRegister::Sgi1);
    }
    other(&mut task);
}

#[inline]
fn send_sgi(task: &mut Task, register: SgiRegister) {
    let value = task.frame.read_gpr(Access(task.frame.esr).rt());
    task.frame.elr = task.frame.elr.wrapping_add(INSTRUCTION_BYTES);
    if let Some(vcpu) = &mut task.local.vcpu {
        let effects = vcpu.vgic.send_sgi(&mut Lrs, register, value);
        if !effects.is_none() {
            virq::carry_out(task, effects);
        }
    }
}

#[inline(never)]
fn other(task: &mut Task) {
    let access = Access(task.frame.esr);
    let register = access.register();
    let rt = access.rt();
    match (register, access.is_read()) {
        (ICC_SGI0R_EL1, false) => return send_sgi(task, SgiRegister::Sgi0),
        (ICC_ASGI1R_EL1, false) => return send_sgi(task, SgiRegister::AliasSgi1),
        (ICC_DIR_EL1, false) => {
            let intid = task.frame.read_gpr(rt) as u32 & 0xff_ffff;
            if let Some(vcpu) = &mut task.local.vcpu {
                let effects = vcpu.vgic.deactivate(&mut Lrs, intid);
                virq::carry_out(task, effects);
            }
        }
        (ICC_CTLR_EL1, _) => common(task, CommonRegister::Control),
        (ICC_PMR_EL1, _) => common(task, CommonRegister::PriorityMask),
        (ICC_RPR_EL1, true) => common(task, CommonRegister::RunningPriority),
        // No error records: those of the machine are the firmware's. ERR<n>* beyond are UNDEF.
        (ERRIDR_EL1, true) => task.frame.write_gpr(rt, 0),
        (ACTLR_EL1, true) => task.frame.write_gpr(rt, 0),
        (ACTLR_EL1, false) => {}
        // A guest's memory is always cacheable and coherent for it; by set and way it could
        // only disturb the others.
        (DC_ISW | DC_CSW | DC_CISW, false) => {}
        (_, true) if register & ID_SPACE_MASK == ID_SPACE && (1..=7).contains(&access.crm()) => {
            let ras_visible = task
                .vcpu()
                .is_some_and(|(partition, _)| partition.config.ras_visible);
            let raw = cpu::id_register(access.crm(), access.op2());
            let value = visible(access.crm(), access.op2(), raw, ras_visible);
            task.frame.write_gpr(rt, value);
        }
        _ => return exits::unknown(task),
    }
    task.frame.elr = task.frame.elr.wrapping_add(INSTRUCTION_BYTES);
}

/// Answers for a register that is trapped only because ICC_DIR_EL1 cannot be trapped alone.
#[cold]
fn common(task: &mut Task, register: CommonRegister) {
    let access = Access(task.frame.esr);
    let state = CommonState {
        vtr: sysreg::ich_vtr_el2(),
        vmcr: sysreg::ich_vmcr_el2(),
        active: [sysreg::ich_ap0r0_el2(), sysreg::ich_ap1r0_el2()],
    };
    if access.is_read() {
        task.frame.write_gpr(access.rt(), state.read(register));
    } else {
        let value = task.frame.read_gpr(access.rt());
        gic::write_virtual_interface(state.written(register, value));
    }
}

/// Clears a 4-bit field.
const fn without(value: u64, shifts: &[u32]) -> u64 {
    let mut result = value;
    let mut index = 0;
    while index < shifts.len() {
        result &= !(0xf << shifts[index]);
        index += 1;
    }
    result
}

/// Makes ID_AA64PFR0_EL1.CSV2 say 1 where it says more: from 2 on there is SCXTNUM_ELx.
const fn csv2_without_scxtnum(pfr0: u64) -> u64 {
    const SHIFT: u32 = 56;
    if pfr0 >> SHIFT & 0xf > 1 {
        pfr0 & !(0xf << SHIFT) | 1 << SHIFT
    } else {
        pfr0
    }
}

/// Cuts an ID register down to what a guest can use.
///
/// Arm ARM D24.2: fields are named in the comments. What is cut either needs EL2's help
/// (SVE, MTE, NMI, SME), shows more than one partition (MPAM, AMU), or is EL2 itself.
fn visible(crm: u64, op2: u64, raw: u64, ras_visible: bool) -> u64 {
    match (crm, op2) {
        // ID_PFR0_EL1: RAS, AMU.
        (1, 0) => without(raw, if ras_visible { &[20] } else { &[20, 28] }),
        // ID_AA64PFR0_EL1: EL2, EL3, SVE, SEL2, MPAM, AMU, RME; of CSV2 what needs no SCXTNUM_ELx,
        // which HCR_EL2.EnSCXT = 0 traps; RAS by policy.
        (4, 0) => {
            let value = csv2_without_scxtnum(without(raw, &[8, 12, 32, 36, 40, 44, 52]));
            if ras_visible {
                value
            } else {
                without(value, &[28])
            }
        }
        // ID_AA64PFR1_EL1: only BT and SSBS stay; RAS_frac by policy.
        (4, 1) => raw & if ras_visible { 0xf0ff } else { 0x00ff },
        // ID_AA64PFR2_EL1, ID_AA64ZFR0_EL1, ID_AA64SMFR0_EL1, ID_AA64FPFR0_EL1.
        (4, 2..=7) => 0,
        // ID_AA64DFR0_EL1: TraceVer, PMSVer, TraceFilt, TraceBuffer, MTPMU, BRBE, HPMN0.
        (5, 0) => without(raw, &[4, 32, 40, 44, 48, 52, 60]),
        // ID_AA64ISAR1_EL1: LS64.
        (6, 1) => without(raw, &[60]),
        // ID_AA64MMFR1_EL1: VH, HCX.
        (7, 1) => without(raw, &[8, 40]),
        // ID_AA64MMFR2_EL1: NV, and IESB with RAS.
        (7, 2) => without(raw, if ras_visible { &[24] } else { &[12, 24] }),
        // ID_AA64MMFR3_EL1, ID_AA64MMFR4_EL1: TCR2, SCTLR2, permission indirection, E3DSE.
        (7, 3..=7) => 0,
        _ => raw,
    }
}
