// SPDX-License-Identifier: MIT OR Apache-2.0
//! EL3: boot, exceptions, and the machine's registers.
//!
//! All of EL3 runs with every exception masked, on one stack for each PE. What two PEs share is
//! behind [`lock::with`], whose wait is bounded.

mod bert;
mod dt;
mod frame;
mod gic;
mod gpt;
mod irq;
mod lock;
mod log;
mod meeting;
mod mmio;
mod panic;
mod pe;
mod power;
mod ras;
mod region;
mod smc;
mod sysreg;

use core::mem::offset_of;

use firebreak_abi::{MAX_PES, sei::qemu_virt};
use firebreak_el3::psci::{Psci, Start};
use spin::Mutex;

use frame::Frame;

/// Stack of each PE, in bytes.
const STACK_BYTES: usize = 0x4000;
/// Start of secure SRAM: block of code and constants (`linker/el3.ld`).
const SRAM: u64 = 0x0e00_0000;

/// MAIR_EL3: attribute 0 Device-nGnRE, attribute 1 Normal write-back.
const MAIR: u64 = 0xff04;
/// TCR_EL3: RES1 bits, 40-bit physical addresses, inner shareable write-back walks, 39-bit space.
const TCR: u64 = 1 << 31 | 1 << 23 | 0b010 << 16 | 0b11 << 12 | 0b01 << 10 | 0b01 << 8 | 25;
/// SCTLR_EL3: RES1 bits, WXN, instruction cache, stack alignment check, data cache, MMU.
const SCTLR: u64 = 0x30c5_0830 | 1 << 19 | 1 << 12 | 1 << 3 | 1 << 2 | 1;

core::arch::global_asm!(
    include_str!("boot.S"),
    MAX_PES = const MAX_PES,
    GICD_BASE = const gic::GICD_BASE,
    STACK_BYTES = const STACK_BYTES,
    FRAME_BYTES = const size_of::<Frame>(),
    MAIR = const MAIR,
    TCR = const TCR,
    SCTLR = const SCTLR,
    CODE_INDEX = const SRAM >> 21,
);

core::arch::global_asm!(
    include_str!("vectors.S"),
    FRAME_BYTES = const size_of::<Frame>(),
    FRAME_X30 = const offset_of!(Frame, x) + 30 * 8,
    FRAME_SPSR = const offset_of!(Frame, spsr),
    STACK_BYTES = const STACK_BYTES,
);

/// Power states of all PEs; set by the primary before any other PE leaves `boot.S`.
static PSCI: Mutex<Psci> = Mutex::new(Psci::new(1));

/// Called by `boot.S` on every PE, MMU on, with the PE's number.
#[unsafe(no_mangle)]
extern "C" fn el3_main(pe: usize) -> ! {
    pe::init();
    if pe == 0 {
        gpt::fill();
    }
    gpt::enable();
    ras::init_pe(pe);
    if pe == 0 {
        boot_machine();
        let start = Start {
            entry: qemu_virt::IMAGE,
            context: qemu_virt::DTB,
        };
        frame::enter_el2(pe, start)
    }
    gic::init_pe(pe);
    park(pe)
}

/// Sets up what there is once, and lets the other PEs out of `boot.S`.
fn boot_machine() {
    log::init();
    gic::init_distributor();
    let pes = gic::count_pes();
    lock::with(&PSCI, |psci| *psci = Psci::new(pes));
    gic::init_pe(0);
    region::init(pes);
    dt::extend(pes);
    irq::enable_uart();
    log::line(format_args!("ready pes={pes}"));
    gic::release_secondaries();
}

/// Keeps a PE that is off: it waits in EL3, answers Group 0 interrupts, and leaves when CPU_ON
/// names it.
fn park(pe: usize) -> ! {
    loop {
        irq::drain(pe, None);
        if let Some(start) = lock::with(&PSCI, |psci| psci.take_start(pe)) {
            frame::enter_el2(pe, start)
        }
        sysreg::wait_for_interrupt();
    }
}
