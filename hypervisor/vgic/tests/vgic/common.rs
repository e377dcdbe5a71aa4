// SPDX-License-Identifier: MIT OR Apache-2.0
//! The common registers as a guest without TDIR sees them.

use firebreak_vgic::{CommonRegister, CommonState};

/// PRIbits = 5, PREbits = 5, IDbits = 16, A3V: a Cortex-A57's, four list registers.
const VTR: u64 = 4 << 29 | 4 << 26 | 1 << 21 | 3;

fn state(vmcr: u64, active: [u64; 2]) -> CommonState {
    CommonState {
        vtr: VTR,
        vmcr,
        active,
    }
}

#[test]
fn regression_priority_mask_and_control_work_where_tc_traps_them() {
    let idle = state(0, [0, 0]);
    let vmcr = idle.written(CommonRegister::PriorityMask, 0xfff0);
    assert_eq!(vmcr, 0xf0 << 24);
    assert_eq!(
        state(vmcr, [0, 0]).read(CommonRegister::PriorityMask),
        0xf0,
        "what was written is read back"
    );
    for (written, bits) in [
        (0b00, 0),
        (0b01, 1 << 4),
        (0b10, 1 << 9),
        (0b11, 1 << 9 | 1 << 4),
    ] {
        let vmcr = state(u64::MAX, [0, 0]).written(CommonRegister::Control, written);
        assert_eq!(vmcr, !(1 << 9 | 1 << 4) | bits, "{written:#b}");
        let read = state(vmcr, [0, 0]).read(CommonRegister::Control);
        assert_eq!(read & 0b11, written);
        assert_eq!(read >> 8 & 7, 4, "PRIbits");
        assert_eq!(read >> 15 & 1, 1, "A3V");
    }
    assert_eq!(
        idle.written(CommonRegister::RunningPriority, 7),
        0,
        "read-only"
    );
}

#[test]
fn the_running_priority_is_the_highest_active_of_both_groups() {
    let read = |active| state(0, active).read(CommonRegister::RunningPriority);
    assert_eq!(read([0, 0]), 0xff);
    assert_eq!(read([0, 1 << 20]), 0xa0);
    assert_eq!(read([1 << 4, 1 << 20]), 0x20);
    assert_eq!(read([1 << 31, 1]), 0);
}
