// SPDX-License-Identifier: MIT OR Apache-2.0
//! Probes of calls and of instructions that may trap.

use crate::engine::Expect;
use crate::probe;
use core::arch::asm;
use firebreak_guest_rt::cpu;

/// Function identifiers that nobody here implements.
const UNKNOWN: [u64; 16] = [
    0x8400_000d, // CPU_FREEZE
    0x8400_001f, // the last of PSCI's first block, but for what is optional
    0x8000_1234, // Arm architecture service
    0x8100_0000, // CPU service
    0x8200_0000, // SiP service
    0xc200_00ff, // SiP service, 64 bit
    0xc300_f001, // OEM service: the firmware's
    0xc300_f000,
    0x8300_f001,
    0xc400_0020, // SDEI_VERSION
    0x8400_0063, // FFA_VERSION
    0x8500_0000, // standard hypervisor service
    0xc600_ff01, // vendor-specific hypervisor service
    0xbf00_ff01, // trusted OS
    0x0000_0000, // a yielding call
    0xffff_ffff_ffff_ffff,
];

/// PSCI calls with arguments that make no sense; each must be refused.
const REFUSED: [(&str, [u64; 4]); 8] = [
    ("cpu_on self", [0xc400_0003, 0, 0x4020_0000, 0]),
    (
        "cpu_on far away",
        [0xc400_0003, 0xff_00ff_ffff, 0x4020_0000, 0],
    ),
    (
        "cpu_on with RES1",
        [0xc400_0003, 0x8000_0000, 0x4020_0000, 0],
    ),
    ("cpu_on 32 bit", [0x8400_0003, 0x7f, 0x4020_0000, 0]),
    (
        "cpu_on all ones",
        [0xc400_0003, u64::MAX, u64::MAX, u64::MAX],
    ),
    ("affinity_info nobody", [0xc400_0004, 0x7f, 0, 0]),
    ("affinity_info level 9", [0xc400_0004, 0, 9, 0]),
    ("migrate", [0xc400_0005, 0, 0, 0]),
];

/// Makes a function that makes one call with four arguments.
macro_rules! call {
    ($name:ident, $instruction:literal) => {
        fn $name(arguments: [u64; 4]) -> u64 {
            let [mut x0, x1, x2, x3] = arguments;
            // SAFETY: the calling convention keeps x18 and up; no call that is made here runs
            // another vCPU or touches memory.
            unsafe {
                asm!($instruction, inout("x0") x0, inout("x1") x1 => _, inout("x2") x2 => _,
                    inout("x3") x3 => _, out("x4") _, out("x5") _, out("x6") _, out("x7") _,
                    out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _,
                    out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
                    options(nostack));
            }
            x0
        }
    };
}

call!(hvc, "hvc #0");
call!(hvc_one, "hvc #1");
call!(hvc_xen, "hvc #0xea1");
call!(hvc_last, "hvc #0xffff");
call!(smc, "smc #0");
call!(smc_one, "smc #1");
call!(smc_last, "smc #0xffff");

/// Makes a probe of instructions without operands.
macro_rules! plain {
    ($expected:expr, $what:literal, $($instruction:literal),+) => {
        probe!($expected, || {
            // SAFETY: changes no memory, and no state that the compiler knows of.
            unsafe {
                asm!($($instruction),+, out("x0") _, options(nostack));
            }
            0
        }, $what)
    };
}

fn calls() {
    for function in UNKNOWN {
        let arguments = [function, 0, 0, 0];
        probe!(Expect::Refusal, || hvc(arguments), "hvc {function:#x}");
        // Without EL3, a CPU may also take the SMC as UNDEFINED before a hypervisor sees it.
        probe!(
            Expect::ValueOrUndefined,
            || smc(arguments),
            "smc {function:#x}"
        );
    }
    for (what, arguments) in REFUSED {
        probe!(Expect::Refusal, || hvc(arguments), "hvc {what}");
    }
    for function in 0x8400_0000_u64..0x8400_0020 {
        let arguments = [0x8400_000a, function, 0, 0];
        probe!(
            Expect::Value,
            || hvc(arguments),
            "hvc psci_features {function:#x}"
        );
    }
    let version = [0x8400_0000, 0, 0, 0];
    probe!(Expect::Value, || hvc(version), "hvc psci_version");
    probe!(
        Expect::Value,
        || hvc([0x8000_0000, 0, 0, 0]),
        "hvc smccc_version"
    );
    // Only immediate 0 is a call of the calling convention.
    probe!(Expect::ValueOrUndefined, || hvc_one(version), "hvc #1");
    probe!(Expect::ValueOrUndefined, || hvc_xen(version), "hvc #0xea1");
    probe!(
        Expect::ValueOrUndefined,
        || hvc_last(version),
        "hvc #0xffff"
    );
    probe!(Expect::ValueOrUndefined, || smc_one(version), "smc #1");
    probe!(
        Expect::ValueOrUndefined,
        || smc_last(version),
        "smc #0xffff"
    );
}

/// Probes calls and instructions.
pub(crate) fn run() {
    calls();
    plain!(Expect::Value, "yield", "yield");
    // With an event set, WFE falls through.
    plain!(Expect::Value, "wfe", "sevl", "wfe");
    probe!(Expect::Value, wait_for_timer, "wfi until the timer");
    plain!(Expect::Value, "esb", "hint #16");
    plain!(Expect::Value, "psb csync", "hint #17");
    plain!(Expect::Value, "dsb, dmb, isb", "dsb sy", "dmb sy", "isb");
    plain!(Expect::Undefined, "udf", "udf #0");
    plain!(Expect::Undefined, "dcps1", "dcps1");
    plain!(Expect::Undefined, "dcps3", "dcps3");
    // Halting debug is off: UNDEFINED. x0 = an operation that semihosting does not know.
    plain!(Expect::Undefined, "hlt", "mov x0, #0x7f", "hlt #0");
    plain!(Expect::Survival, "brk", "brk #0x1234");
    plain!(Expect::Survival, "svc", "svc #0x1234");
    plain!(Expect::Value, "dc isw", "mov x0, xzr", "dc isw, x0");
    plain!(Expect::Value, "dc csw", "mov x0, xzr", "dc csw, x0");
    plain!(Expect::Value, "dc cisw", "mov x0, xzr", "dc cisw, x0");
    plain!(Expect::Value, "ic iallu", "ic iallu");
    plain!(Expect::Value, "ic ialluis", "ic ialluis");
    plain!(Expect::Value, "tlbi vmalle1", "tlbi vmalle1");
    plain!(Expect::Value, "tlbi vmalle1is", "tlbi vmalle1is");
    plain!(Expect::Undefined, "tlbi alle1", "tlbi alle1");
    plain!(Expect::Undefined, "tlbi alle2", "tlbi alle2");
    plain!(Expect::Undefined, "tlbi vmalls12e1", "tlbi vmalls12e1");
    plain!(
        Expect::Undefined,
        "at s12e1r",
        "mov x0, xzr",
        "at s12e1r, x0"
    );
    plain!(Expect::Undefined, "at s1e2r", "mov x0, xzr", "at s1e2r, x0");
    // An implementation-defined operation, and one that is not allocated.
    plain!(
        Expect::ValueOrUndefined,
        "sys impdef c11",
        "sys #0, c11, c0, #0, x0"
    );
    plain!(
        Expect::ValueOrUndefined,
        "sys impdef c15",
        "sys #0, c15, c0, #0, x0"
    );
    plain!(
        Expect::ValueOrUndefined,
        "sys unallocated",
        "sys #7, c9, c15, #7, x0"
    );
}

/// Sleeps until the virtual timer's interrupt is pending, with interrupts masked.
fn wait_for_timer() -> u64 {
    use firebreak_guest_rt::{gic, timer};
    gic::init_distributor();
    gic::init_cpu();
    gic::enable_private(firebreak_abi::guest_map::VTIMER_INTID);
    let due_ticks = timer::now() + timer::frequency_hz() / 1000;
    timer::arm(due_ticks);
    while timer::now() < due_ticks {
        cpu::wfi();
    }
    timer::stop();
    0
}
