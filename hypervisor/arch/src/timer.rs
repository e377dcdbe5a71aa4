// SPDX-License-Identifier: MIT OR Apache-2.0
//! EL2's own timer (CNTHP), one deadline for each PE.

use crate::sysreg;

/// INTID of the EL2 physical timer: PPI 10 (Arm BSA, table of PPIs).
pub const INTID: u32 = 26;
const ENABLE: u64 = 1;
const OFF: u64 = 0b10;

/// Arms the timer for an absolute count of CNTPCT.
pub fn arm(deadline_ticks: u64) {
    sysreg::write_cnthp_cval_el2(deadline_ticks);
    sysreg::write_cnthp_ctl_el2(ENABLE);
    sysreg::isb();
}

/// Arms the timer for an absolute count of CNTPCT, unless it is armed for an earlier one.
#[inline]
pub fn arm_no_later(deadline_ticks: u64) {
    let is_armed = sysreg::cnthp_ctl_el2() & ENABLE != 0;
    if !is_armed || sysreg::cnthp_cval_el2() > deadline_ticks {
        arm(deadline_ticks);
    }
}

/// Turns the timer off, and with it its level-sensitive interrupt.
pub fn disarm() {
    sysreg::write_cnthp_ctl_el2(OFF);
    sysreg::isb();
}
