// SPDX-License-Identifier: MIT OR Apache-2.0
//! Between the virtual GIC's decisions and the physical GIC.

use crate::passthrough;
use crate::pe::{Task, attention};
use crate::system;
use firebreak_abi::guest_map;
use firebreak_arch::gic::Redistributor;
use firebreak_arch::{cpu, gic, sysreg};
use firebreak_vgic::{Effects, HcrControl, HwOp, LrBank};

/// The list registers of this PE.
pub(crate) struct Lrs;

/// ICH_HCR_EL2: En.
const HCR_EN: u64 = 1 << 0;
/// ICH_HCR_EL2.LRENPIE.
const HCR_LRENPIE: u64 = 1 << 2;
/// ICH_HCR_EL2.NPIE.
const HCR_NPIE: u64 = 1 << 3;
/// ICH_HCR_EL2.TC: traps the common registers, ICC_DIR_EL1 among them.
const HCR_TC: u64 = 1 << 10;
/// ICH_HCR_EL2.TDIR: traps ICC_DIR_EL1.
const HCR_TDIR: u64 = 1 << 14;
/// ICH_VTR_EL2.TDS: TDIR is implemented.
const VTR_TDS: u64 = 1 << 19;

impl LrBank for Lrs {
    #[inline]
    fn lr(&self, index: usize) -> u64 {
        gic::read_list_register(index)
    }

    #[inline]
    fn set_lr(&mut self, index: usize, value: u64) {
        gic::write_list_register(index, value);
    }

    #[inline]
    fn elrsr(&self) -> u32 {
        // Arm ARM D24.1.2: it follows a write of a list register only behind a context
        // synchronization event. A bit of before would have the next interrupt put over that one.
        sysreg::isb();
        sysreg::ich_elrsr_el2() as u32
    }

    #[inline]
    fn eisr(&self) -> u32 {
        sysreg::isb();
        sysreg::ich_eisr_el2() as u32
    }

    #[inline]
    fn count(&self) -> usize {
        gic::list_register_count()
    }

    fn eoi_count(&self) -> u32 {
        (sysreg::ich_hcr_el2() >> 27 & 0x1f) as u32
    }

    fn set_hcr(&mut self, control: HcrControl) {
        let trap = if sysreg::ich_vtr_el2() & VTR_TDS != 0 {
            HCR_TDIR
        } else {
            HCR_TC
        };
        let bit = |on: bool, value: u64| if on { value } else { 0 };
        gic::write_virtual_control(
            HCR_EN
                | bit(control.entry_not_present, HCR_LRENPIE)
                | bit(control.no_pending, HCR_NPIE)
                | bit(control.trap_dir, trap),
        );
    }

    fn deactivate(&mut self, pintid: u32) {
        gic::deactivate(pintid);
    }

    #[inline(never)]
    fn hw_pending(&self, pintid: u32) -> bool {
        if pintid >= guest_map::FIRST_SPI {
            return passthrough::is_pending(pintid);
        }
        system::redistributor(cpu::mpidr()).is_some_and(|own| own.is_pending(pintid))
    }
}

/// Carries out what the virtual GIC left to be done.
#[inline(never)]
pub(crate) fn carry_out(task: &mut Task, effects: Effects) {
    let Some((partition, own)) = task.vcpu() else {
        return;
    };
    kick(task, effects.kick);
    if effects.word != 0 {
        return passthrough::carry_out(task, effects);
    }
    let private: fn(&Redistributor, u32) = match effects.op {
        HwOp::Enable => |one, intid| one.set_private(intid, true),
        HwOp::Disable => |one, intid| one.set_private(intid, false),
        HwOp::SetPending => |one, intid| one.set_pending(intid, true),
        HwOp::ClearPending => |one, intid| one.set_pending(intid, false),
        // Private interrupts of the timer have fixed modes, and no route.
        HwOp::None | HwOp::Configure | HwOp::Route => return,
    };
    // A guest may reach another vCPU's private interrupts: redistributors are memory-mapped.
    let redistributor = if own == effects.vcpu {
        task.local.redistributor
    } else {
        let pe = partition.pes.get(usize::from(effects.vcpu));
        pe.and_then(|pe| system::redistributor(pe.mpidr))
    };
    for vintid in effects.intids() {
        let pintid = partition
            .distributor
            .physical_intid(effects.vcpu, vintid)
            .filter(|pintid| *pintid < guest_map::FIRST_SPI);
        if let (Some(pintid), Some(redistributor)) = (pintid, &redistributor) {
            private(redistributor, pintid);
        }
    }
}

/// Makes the PEs of these vCPUs of the own partition look into their inboxes.
pub(crate) fn kick(task: &mut Task, vcpus: u8) {
    let Some((partition, _)) = task.vcpu() else {
        return;
    };
    for (index, pe) in partition.pes.iter().enumerate() {
        if vcpus >> index & 1 == 1 {
            pe.request(task, attention::INBOX);
        }
    }
}

/// Sets the line of an emulated device of this PE's own partition.
pub(crate) fn set_level(task: &mut Task, intid: u32, high: bool) {
    let Some(vcpu) = &mut task.local.vcpu else {
        return;
    };
    let effects = vcpu.vgic.set_level(&mut Lrs, intid, high);
    if !effects.is_none() {
        carry_out(task, effects);
    }
}

/// Sets the line of an emulated device of any partition.
pub(crate) fn set_level_of(
    task: &Task,
    partition: &'static crate::partition::Partition,
    intid: u32,
    high: bool,
) {
    let kicked = partition.distributor.set_level(0, intid, high);
    for (index, pe) in partition.pes.iter().enumerate() {
        if kicked >> index & 1 == 1 {
            pe.request(task, attention::INBOX);
        }
    }
}

/// Says which physical interrupts stand behind a guest's private ones.
pub(crate) fn map_timers(distributor: &firebreak_vgic::Distributor) {
    for intid in [guest_map::VTIMER_INTID, guest_map::PTIMER_INTID] {
        distributor.map_private(intid, intid);
    }
}
