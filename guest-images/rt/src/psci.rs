// SPDX-License-Identifier: MIT OR Apache-2.0
//! PSCI by HVC (Arm DEN0022).

use core::arch::asm;

/// PSCI_VERSION.
pub const VERSION: u64 = 0x8400_0000;
/// CPU_SUSPEND, 64-bit.
pub const CPU_SUSPEND: u64 = 0xc400_0001;
/// CPU_OFF.
pub const CPU_OFF: u64 = 0x8400_0002;
/// CPU_ON, 64-bit.
pub const CPU_ON: u64 = 0xc400_0003;
/// SYSTEM_OFF.
pub const SYSTEM_OFF: u64 = 0x8400_0008;
/// SYSTEM_RESET.
pub const SYSTEM_RESET: u64 = 0x8400_0009;

/// Calls by HVC. Unknown functions return -1.
#[inline]
pub fn hvc(function: u64, arguments: [u64; 3]) -> i64 {
    let result: u64;
    // SAFETY: the SMC calling convention (DEN0028) keeps x18 and up; memory is not touched but by
    // CPU_ON, whose vCPU runs a Rust function that shares only `Cell64` with this one.
    unsafe {
        asm!("hvc #0",
            inout("x0") function => result,
            inout("x1") arguments[0] => _, inout("x2") arguments[1] => _,
            inout("x3") arguments[2] => _,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _,
            out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            out("x16") _, out("x17") _,
            options(nostack));
    }
    result.cast_signed()
}

/// Turns this machine off.
pub fn system_off() -> ! {
    hvc(SYSTEM_OFF, [0; 3]);
    // The call does not return on a machine that has PSCI; nothing is left to do on one without.
    halt()
}

/// Resets this machine.
pub fn system_reset() -> ! {
    hvc(SYSTEM_RESET, [0; 3]);
    halt()
}

/// Turns this vCPU off.
pub fn cpu_off() -> ! {
    hvc(CPU_OFF, [0; 3]);
    halt()
}

fn halt() -> ! {
    crate::cpu::mask_all();
    loop {
        crate::cpu::wfi();
    }
}

unsafe extern "C" {
    fn guest_secondary_entry();
}

/// Bytes of a second vCPU's stack.
const SECONDARY_STACK_BYTES: usize = 8192;

/// The stack of a second vCPU; its last 16 bytes hold the function that it runs.
#[repr(C, align(16))]
pub struct SecondaryStack {
    room: core::cell::UnsafeCell<[u8; SECONDARY_STACK_BYTES - 16]>,
    function: crate::cell::Cell64,
    pad: u64,
}

// SAFETY: `room` is touched by the vCPU that runs on it alone; `function` is a `Cell64`.
unsafe impl Sync for SecondaryStack {}

impl SecondaryStack {
    /// Makes an unused stack.
    pub const fn new() -> Self {
        Self {
            room: core::cell::UnsafeCell::new([0; SECONDARY_STACK_BYTES - 16]),
            function: crate::cell::Cell64::new(0),
            pad: 0,
        }
    }
}

impl Default for SecondaryStack {
    fn default() -> Self {
        Self::new()
    }
}

impl SecondaryStack {
    /// Leaves `function` for a vCPU that is started in `guest_secondary_entry`. Returns the context
    /// argument of its CPU_ON.
    pub fn prepare(&'static self, function: extern "C" fn() -> !) -> u64 {
        let _ = (self.room.get(), self.pad);
        self.function.set(function as usize as u64);
        &raw const self.function as u64
    }
}

/// Starts vCPU `index` in `function`. Returns PSCI's answer: 0, or a negative error.
///
/// The stack must not be in use by another vCPU: give each its own.
pub fn cpu_on(index: u64, stack: &'static SecondaryStack, function: extern "C" fn() -> !) -> i64 {
    let top = stack.prepare(function);
    let entry = guest_secondary_entry as *const () as u64;
    hvc(CPU_ON, [index, entry, top])
}
