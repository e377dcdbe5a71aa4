// SPDX-License-Identifier: MIT OR Apache-2.0
//! Power: the secure PL061, whose pins QEMU `virt` wires to power-off and reset.

use super::mmio::Reg32;
use super::sysreg;

/// Secure PL061 of QEMU `virt`.
const PL061: usize = 0x090b_0000;
/// Data direction register.
const DIR: usize = 0x400;
const PIN_OFF: u32 = 1 << 0;
const PIN_RESET: u32 = 1 << 1;

/// Turns the machine off.
pub(super) fn off() -> ! {
    pulse(PIN_OFF)
}

/// Resets the machine. RAM outside of QEMU's loader blobs keeps its content.
pub(super) fn reset() -> ! {
    pulse(PIN_RESET)
}

fn pulse(pin: u32) -> ! {
    sysreg::dsb_sy();
    // SAFETY: the direction register of the secure PL061.
    let direction = unsafe { Reg32::new(PL061 + DIR) };
    // The data register's address carries the mask of the pins that an access means.
    // SAFETY: a data register of the secure PL061.
    let data = unsafe { Reg32::new(PL061 + (pin as usize) * 4) };
    direction.write(PIN_OFF | PIN_RESET);
    data.write(0);
    data.write(pin);
    sysreg::dsb_sy();
    // The machine goes down under us; a PE that is still there has nothing left to do.
    loop {
        sysreg::wait_for_interrupt();
    }
}
