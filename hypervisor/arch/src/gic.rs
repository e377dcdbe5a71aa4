// SPDX-License-Identifier: MIT OR Apache-2.0
//! The physical GICv3: distributor, this PE's redistributor, CPU interface, list registers.
//!
//! EL2 owns it. Physical interrupts come to EL2 (HCR_EL2.IMO) and are acknowledged with
//! EOImode = 1: EL2 drops the priority at once, and the interrupt stays active until the guest's
//! own EOI deactivates it through a list register with HW = 1 (IHI0069, 1.3.2 and 4.8).

use crate::sysreg;
use firebreak_abi::{Mpidr, Pa};

/// INTIDs 1020 to 1023 mean that there was nothing to acknowledge.
pub const SPURIOUS_FIRST: u32 = 1020;
/// The SGI that EL2 uses to make another PE look at its `attention`.
pub const KICK_INTID: u32 = 1;
/// Priority of every interrupt that EL2 enables.
const PRIORITY: u8 = 0xa0;

pub(crate) mod gicd {
    pub(super) const CTLR: u64 = 0x0000;
    pub(super) const TYPER: u64 = 0x0004;
    pub(super) const IGROUPR: u64 = 0x0080;
    pub(super) const ISENABLER: u64 = 0x0100;
    pub(crate) const ICENABLER: u64 = 0x0180;
    pub(crate) const ISPENDR: u64 = 0x0200;
    pub(crate) const ICPENDR: u64 = 0x0280;
    pub(crate) const ICACTIVER: u64 = 0x0380;
    pub(super) const IPRIORITYR: u64 = 0x0400;
    pub(crate) const ICFGR: u64 = 0x0c00;
    pub(super) const IROUTER: u64 = 0x6000;
    /// Non-secure view: ARE_NS, EnableGrp1A and EnableGrp1; the same bits with DS = 1.
    pub(super) const CTLR_ENABLE: u32 = 1 << 4 | 1 << 1 | 1 << 0;
    pub(super) const CTLR_RWP: u32 = 1 << 31;
}

mod gicr {
    pub(super) const TYPER: u64 = 0x0008;
    pub(super) const WAKER: u64 = 0x0014;
    pub(super) const SGI_BASE: u64 = 0x1_0000;
    pub(super) const TYPER_LAST: u64 = 1 << 4;
    pub(super) const TYPER_VLPIS: u64 = 1 << 1;
    pub(super) const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
    pub(super) const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
}

/// How often a status bit of the GIC is read before it is given up.
const POLL_LIMIT: u32 = 1_000_000;

pub(crate) fn read32(address: u64) -> u32 {
    // SAFETY: the address lies in a GIC frame that the devicetree named and EL2 mapped as Device
    // memory; `Gic::new` made its caller vouch for it.
    unsafe { core::ptr::with_exposed_provenance::<u32>(address as usize).read_volatile() }
}

pub(crate) fn write32(address: u64, value: u32) {
    // SAFETY: as in `read32`.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(address as usize).write_volatile(value) }
}

fn read64(address: u64) -> u64 {
    // SAFETY: as in `read32`.
    unsafe { core::ptr::with_exposed_provenance::<u64>(address as usize).read_volatile() }
}

fn write64(address: u64, value: u64) {
    // SAFETY: as in `read32`.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(address as usize).write_volatile(value) }
}

fn write8(address: u64, value: u8) {
    // SAFETY: as in `read32`.
    unsafe { core::ptr::with_exposed_provenance_mut::<u8>(address as usize).write_volatile(value) }
}

/// What the GIC refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicError {
    /// A status bit never changed.
    Timeout,
    /// No redistributor in the devicetree's regions has this PE's affinity.
    NoRedistributor(Mpidr),
}

/// The physical GIC, by the addresses of its frames.
#[derive(Clone, Copy, Debug)]
pub struct Gic {
    pub(crate) gicd: u64,
}

impl Gic {
    /// Names the distributor.
    ///
    /// # Safety
    ///
    /// `gicd` must be the distributor's 64 KiB frame, mapped as Device memory at its own address.
    pub const unsafe fn new(gicd: Pa) -> Self {
        Self { gicd: gicd.get() }
    }

    /// Turns the distributor on, with every SPI off, in Group 1, at EL2's priority.
    ///
    /// # Errors
    ///
    /// [`GicError::Timeout`] when the distributor never reports its writes as done.
    pub fn start_distributor(&self) -> Result<(), GicError> {
        write32(self.gicd + gicd::CTLR, gicd::CTLR_ENABLE & !3);
        self.wait_for_writes()?;
        let words = u64::from(read32(self.gicd + gicd::TYPER) & 0x1f) + 1;
        for word in 1..words {
            write32(self.gicd + gicd::ICENABLER + 4 * word, u32::MAX);
            write32(self.gicd + gicd::ICPENDR + 4 * word, u32::MAX);
            write32(self.gicd + gicd::ICACTIVER + 4 * word, u32::MAX);
            write32(self.gicd + gicd::IGROUPR + 4 * word, u32::MAX);
        }
        write32(self.gicd + gicd::CTLR, gicd::CTLR_ENABLE);
        self.wait_for_writes()
    }

    /// Routes an SPI to a PE and enables or disables it.
    pub fn set_spi(&self, intid: u32, target: Mpidr, enable: bool) {
        let word = 4 * u64::from(intid / 32);
        let bit = 1 << (intid % 32);
        if enable {
            write8(self.gicd + gicd::IPRIORITYR + u64::from(intid), PRIORITY);
            write64(
                self.gicd + gicd::IROUTER + 8 * u64::from(intid),
                target.get(),
            );
            write32(self.gicd + gicd::ISENABLER + word, bit);
        } else {
            write32(self.gicd + gicd::ICENABLER + word, bit);
        }
    }

    pub(crate) fn wait_for_writes(&self) -> Result<(), GicError> {
        for _ in 0..POLL_LIMIT {
            if read32(self.gicd + gicd::CTLR) & gicd::CTLR_RWP == 0 {
                return Ok(());
            }
        }
        Err(GicError::Timeout)
    }
}

/// The redistributor of one PE.
#[derive(Clone, Copy, Debug)]
pub struct Redistributor {
    base: u64,
}

impl Redistributor {
    /// Finds the redistributor of `mpidr` in a region of the devicetree.
    ///
    /// # Safety
    ///
    /// The region must be a GICv3 redistributor region, mapped as Device memory.
    ///
    /// # Errors
    ///
    /// [`GicError::NoRedistributor`] when the region holds none of that affinity.
    pub unsafe fn find(region: Pa, len_bytes: u64, mpidr: Mpidr) -> Result<Self, GicError> {
        let mut offset = 0;
        while offset + 0x2_0000 <= len_bytes {
            let base = region.get() + offset;
            let typer = read64(base + gicr::TYPER);
            if (typer >> 32) as u32 == mpidr.packed() {
                return Ok(Self { base });
            }
            if typer & gicr::TYPER_LAST != 0 {
                break;
            }
            offset += if typer & gicr::TYPER_VLPIS != 0 {
                0x4_0000
            } else {
                0x2_0000
            };
        }
        Err(GicError::NoRedistributor(mpidr))
    }

    /// Wakes it; all its PPIs are off and in Group 1 afterwards, the kick SGI is on.
    ///
    /// # Errors
    ///
    /// [`GicError::Timeout`] when it does not wake.
    pub fn start(&self) -> Result<(), GicError> {
        let waker = read32(self.base + gicr::WAKER);
        write32(
            self.base + gicr::WAKER,
            waker & !gicr::WAKER_PROCESSOR_SLEEP,
        );
        let mut awake = false;
        for _ in 0..POLL_LIMIT {
            awake = read32(self.base + gicr::WAKER) & gicr::WAKER_CHILDREN_ASLEEP == 0;
            if awake {
                break;
            }
        }
        if !awake {
            return Err(GicError::Timeout);
        }
        let sgi = self.base + gicr::SGI_BASE;
        write32(sgi + gicd::IGROUPR, u32::MAX);
        write32(sgi + gicd::ICENABLER, u32::MAX);
        for word in 0..8 {
            write32(
                sgi + gicd::IPRIORITYR + 4 * word,
                u32::from_ne_bytes([PRIORITY; 4]),
            );
        }
        self.clear_private();
        self.set_private(KICK_INTID, true);
        Ok(())
    }

    /// Enables or disables an SGI or PPI of this PE.
    pub fn set_private(&self, intid: u32, enable: bool) {
        let register = if enable {
            gicd::ISENABLER
        } else {
            gicd::ICENABLER
        };
        write32(self.base + gicr::SGI_BASE + register, 1 << (intid & 31));
    }

    /// Says whether an SGI or PPI of this PE is pending.
    pub fn is_pending(&self, intid: u32) -> bool {
        read32(self.base + gicr::SGI_BASE + gicd::ISPENDR) >> (intid & 31) & 1 == 1
    }

    /// Sets or clears the pending latch of an SGI or PPI of this PE. A line that is high keeps a
    /// level-sensitive interrupt pending all the same.
    pub fn set_pending(&self, intid: u32, pending: bool) {
        let register = if pending {
            gicd::ISPENDR
        } else {
            gicd::ICPENDR
        };
        write32(self.base + gicr::SGI_BASE + register, 1 << (intid & 31));
    }

    /// Forgets what is pending or active among the PPIs: nothing of a dead guest stays behind.
    pub fn clear_private(&self) {
        let sgi = self.base + gicr::SGI_BASE;
        write32(sgi + gicd::ICACTIVER, 0xffff_0000);
        write32(sgi + gicd::ICPENDR, 0xffff_0000);
    }
}

/// Turns on the CPU interface of this PE for EL2, and the guest's virtual one.
pub fn start_cpu_interface() {
    // SRE, DFB, DIB, and Enable: EL1 may use its own system registers.
    sysreg::write_icc_sre_el2(0xf);
    sysreg::isb();
    sysreg::write_icc_sre_el1(0x7);
    sysreg::isb();
    sysreg::write_icc_pmr_el1(0xff);
    sysreg::write_icc_bpr1_el1(0);
    // EOImode = 1: EOIR drops the priority, DIR or the guest's EOI deactivates.
    sysreg::write_icc_ctlr_el1(sysreg::icc_ctlr_el1() | 0b10);
    sysreg::write_icc_igrpen1_el1(1);
    reset_virtual_interface();
    sysreg::isb();
}

/// Gives the guest a virtual CPU interface in its reset state, with no interrupt in it.
pub fn reset_virtual_interface() {
    for index in 0..list_register_count() {
        write_list_register(index, 0);
    }
    sysreg::write_ich_ap0r0_el2(0);
    sysreg::write_ich_ap1r0_el2(0);
    sysreg::write_ich_vmcr_el2(0);
    sysreg::write_ich_hcr_el2(1);
    sysreg::isb();
}

/// Acknowledges the highest-priority pending physical interrupt.
#[inline]
pub fn acknowledge() -> u32 {
    (sysreg::icc_iar1_el1() & 0xff_ffff) as u32
}

/// Drops the running priority; the interrupt stays active.
#[inline]
pub fn drop_priority(intid: u32) {
    sysreg::write_icc_eoir1_el1(u64::from(intid));
}

/// Deactivates an interrupt that no list register will.
#[inline]
pub fn deactivate(intid: u32) {
    sysreg::write_icc_dir_el1(u64::from(intid));
}

/// Makes the PE with this affinity look at its `attention`.
pub fn kick(target: Mpidr) {
    let raw = target.get();
    let value = (raw >> 32 & 0xff) << 48
        | (raw >> 16 & 0xff) << 32
        | (raw >> 8 & 0xff) << 16
        | u64::from(KICK_INTID) << 24
        | (raw >> 4 & 0xf) << 44
        | 1 << (raw & 0xf);
    // What the other PE is to find must be visible before the interrupt is.
    sysreg::dsb_ish();
    sysreg::write_icc_sgi1r_el1(value);
    sysreg::isb();
}

/// Takes a kick that was acknowledged: no later load is older than the acknowledgement.
///
/// ICC_IAR1_EL1 is no memory access, so nothing else keeps the PE from having loaded `attention`
/// before: it would then find 0 there, and the kick that was to tell it otherwise is gone.
#[inline]
pub fn accept_kick() {
    sysreg::dsb_sy();
}

/// Returns the number of list registers of this PE, 1 to 16.
#[inline]
pub fn list_register_count() -> usize {
    (sysreg::ich_vtr_el2() & 0x1f) as usize + 1
}

macro_rules! list_registers {
    ($($index:literal $name:literal)*) => {
        /// Reads ICH_LR<n>_EL2; a number that does not exist reads as 0.
        ///
        /// Out of line, like the write: sixteen cases are too much to repeat at each use.
        #[inline(never)]
        pub fn read_list_register(index: usize) -> u64 {
            let value: u64;
            match index {
                $($index => {
                    // SAFETY: reading a list register has no side effect.
                    unsafe {
                        core::arch::asm!(
                            concat!("mrs {}, ", $name), out(reg) value,
                            options(nostack, preserves_flags)
                        );
                    }
                    value
                })*
                _ => 0,
            }
        }

        /// Writes ICH_LR<n>_EL2; a number that does not exist is ignored.
        #[inline(never)]
        pub fn write_list_register(index: usize, value: u64) {
            match index {
                $($index => {
                    // SAFETY: a list register feeds the guest's virtual CPU interface alone.
                    unsafe {
                        core::arch::asm!(
                            concat!("msr ", $name, ", {}"), in(reg) value,
                            options(nostack, preserves_flags)
                        );
                    }
                })*
                _ => {}
            }
        }
    };
}

list_registers! {
    0 "S3_4_C12_C12_0" 1 "S3_4_C12_C12_1" 2 "S3_4_C12_C12_2" 3 "S3_4_C12_C12_3"
    4 "S3_4_C12_C12_4" 5 "S3_4_C12_C12_5" 6 "S3_4_C12_C12_6" 7 "S3_4_C12_C12_7"
    8 "S3_4_C12_C13_0" 9 "S3_4_C12_C13_1" 10 "S3_4_C12_C13_2" 11 "S3_4_C12_C13_3"
    12 "S3_4_C12_C13_4" 13 "S3_4_C12_C13_5" 14 "S3_4_C12_C13_6" 15 "S3_4_C12_C13_7"
}

/// Writes ICH_HCR_EL2: the virtual CPU interface's switch, maintenance conditions and traps.
#[inline]
pub fn write_virtual_control(value: u64) {
    sysreg::write_ich_hcr_el2(value);
}

/// Writes ICH_VMCR_EL2: priority mask and modes of the guest's CPU interface.
pub fn write_virtual_interface(vmcr: u64) {
    sysreg::write_ich_vmcr_el2(vmcr);
}
