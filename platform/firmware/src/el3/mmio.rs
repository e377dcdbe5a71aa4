// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device registers at fixed addresses.

/// A 32-bit register.
#[derive(Clone, Copy)]
pub(super) struct Reg32(usize);

impl Reg32 {
    /// Names the register at `address`.
    ///
    /// # Safety
    ///
    /// `address` must be a 4-byte aligned device register of QEMU `virt`, mapped as device
    /// memory, whose accesses have no effect on memory that Rust owns.
    pub(super) const unsafe fn new(address: usize) -> Self {
        Self(address)
    }

    /// Reads it.
    pub(super) fn read(self) -> u32 {
        // SAFETY: `new`'s caller promised a readable device register.
        unsafe { core::ptr::with_exposed_provenance::<u32>(self.0).read_volatile() }
    }

    /// Writes it.
    pub(super) fn write(self, value: u32) {
        // SAFETY: `new`'s caller promised a device register without effect on Rust's memory.
        unsafe { core::ptr::with_exposed_provenance_mut::<u32>(self.0).write_volatile(value) }
    }

    /// Sets and clears bits.
    pub(super) fn modify(self, clear: u32, set: u32) {
        self.write(self.read() & !clear | set);
    }
}
