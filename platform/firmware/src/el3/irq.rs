// SPDX-License-Identifier: MIT OR Apache-2.0
//! Group 0 interrupts: the secure UART, the secure timer, and the SGI between PEs' firmware.

use super::frame::Frame;
use super::{gic, log, sysreg};

/// Most interrupts handled in one go: a device that never falls silent must not keep EL3 here.
const MOST: usize = 16;

/// Called by `vectors.S` for an FIQ from below.
#[unsafe(no_mangle)]
extern "C" fn el3_fiq(frame: &mut Frame) {
    drain(super::sysreg::mpidr_el1() as usize & 0xff, Some(frame));
}

/// Lets the host's commands in.
pub(super) fn enable_uart() {
    log::enable_rx_interrupt();
}

/// Handles what is pending in Group 0 on this PE. `frame` is the interrupted context, none when
/// the PE is off.
pub(super) fn drain(_pe: usize, _frame: Option<&mut Frame>) {
    for _ in 0..MOST {
        // The level-sensitive sources must still be asserted here, or the read says 1023.
        let intid = sysreg::icc_iar0_el1() as u32 & 0xff_ffff;
        match intid {
            gic::UART_INTID => {
                log::clear_rx_interrupt();
                while log::read_byte().is_some() {}
            }
            gic::TIMER_INTID => sysreg::write_cntps_ctl_el1(0),
            gic::SGI_INTID => {}
            _ => return,
        }
        sysreg::isb();
        sysreg::write_icc_eoir0_el1(u64::from(intid));
        sysreg::isb();
    }
}
