// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where two PEs meet in EL3, so that neither goes on before the other has come.

use core::sync::atomic::{AtomicU64, Ordering};

use super::sysreg;

/// Longest wait, in milliseconds: the other PE may be off, or its error waits for a guest.
const PATIENCE_MS: u64 = 500;

/// PEs that have come, ever. Two make a meeting: the first of them leaves an odd number behind.
static COME: AtomicU64 = AtomicU64::new(0);

/// Waits for the other PE; says whether it came.
pub(super) fn meet() -> bool {
    let before = COME.fetch_add(1, Ordering::AcqRel);
    let both = (before & !1) + 2;
    let patience_ticks = sysreg::cntfrq_el0() / 1_000 * PATIENCE_MS;
    let start = sysreg::cntpct_el0();
    while COME.load(Ordering::Acquire) < both {
        sysreg::isb();
        let waited_ticks = sysreg::cntpct_el0().saturating_sub(start);
        let alone = before + 1;
        // Nobody came: take the place back, unless somebody does so at this very moment.
        if waited_ticks > patience_ticks
            && COME
                .compare_exchange(alone, before, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}
