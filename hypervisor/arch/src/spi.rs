// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared peripheral interrupts of passed-through devices at the physical distributor, and the
//! registers of such devices.

use crate::gic::{Gic, GicError, gicd, read32, write32};
use firebreak_abi::Pa;

fn word(intid: u32) -> u64 {
    4 * u64::from(intid / 32)
}

const fn bit(intid: u32) -> u32 {
    1 << (intid % 32)
}

impl Gic {
    /// Says whether an SPI is pending.
    pub fn is_spi_pending(&self, intid: u32) -> bool {
        read32(self.gicd + gicd::ISPENDR + word(intid)) & bit(intid) != 0
    }

    /// Sets or clears the pending latch of an SPI.
    pub fn set_spi_pending(&self, intid: u32, pending: bool) {
        let register = if pending {
            gicd::ISPENDR
        } else {
            gicd::ICPENDR
        };
        write32(self.gicd + register + word(intid), bit(intid));
    }

    /// Turns an SPI off, and waits until it is.
    ///
    /// # Errors
    ///
    /// [`GicError::Timeout`] when the distributor never reports the write as done.
    pub fn disable_spi(&self, intid: u32) -> Result<(), GicError> {
        write32(self.gicd + gicd::ICENABLER + word(intid), bit(intid));
        self.wait_for_writes()
    }

    /// Makes a disabled SPI edge-triggered or level-sensitive.
    ///
    /// The register holds 16 SPIs: the caller lets nobody else in meanwhile (IHI0069, 12.9.9).
    pub fn set_spi_edge(&self, intid: u32, edge: bool) {
        let address = self.gicd + gicd::ICFGR + 4 * u64::from(intid / 16);
        let mask = 0b10 << (2 * (intid % 16));
        let old = read32(address);
        let new = if edge { old | mask } else { old & !mask };
        write32(address, new);
    }

    /// Forgets that a disabled SPI is pending or active.
    pub fn forget_spi(&self, intid: u32) {
        write32(self.gicd + gicd::ICPENDR + word(intid), bit(intid));
        write32(self.gicd + gicd::ICACTIVER + word(intid), bit(intid));
    }
}

/// Reads a register of a passed-through device.
///
/// # Safety
///
/// `at` is a register of a device that EL2 mapped as Device memory, a multiple of 4.
pub unsafe fn read_device(at: Pa) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::with_exposed_provenance::<u32>(at.get() as usize).read_volatile() }
}

/// Writes a register of a passed-through device.
///
/// # Safety
///
/// As for [`read_device`]; and the device must not be made to harm memory that is not its owner's.
pub unsafe fn write_device(at: Pa, value: u32) {
    let register = core::ptr::with_exposed_provenance_mut::<u32>(at.get() as usize);
    // SAFETY: the caller's promise.
    unsafe { register.write_volatile(value) }
}
