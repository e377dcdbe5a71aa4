// SPDX-License-Identifier: MIT OR Apache-2.0
//! The firmware's own end: say what happened, and reset.

use core::sync::atomic::{AtomicBool, Ordering};

use firebreak_el3::boot_record;

use super::{bert, log, power, sysreg};

/// Set by the first PE that panics: a fault inside of the panic path resets at once.
static PANICKING: AtomicBool = AtomicBool::new(false);

/// Called by `vectors.S` for an exception of EL3 itself, on a fresh stack.
#[unsafe(no_mangle)]
extern "C" fn el3_panic_exception(vector: u64) -> ! {
    if !PANICKING.swap(true, Ordering::Relaxed) {
        log::line(format_args!(
            "panic vector={:#x} esr={:#x} elr={:#x} far={:#x} spsr={:#x} mpidr={:#x}",
            vector * 0x80,
            sysreg::esr_el3(),
            sysreg::elr_el3(),
            sysreg::far_el3(),
            sysreg::spsr_el3(),
            sysreg::mpidr_el1()
        ));
        go_down(sysreg::elr_el3());
    }
    power::reset()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if !PANICKING.swap(true, Ordering::Relaxed) {
        match info.location() {
            Some(at) => log::line(format_args!(
                "panic file={} line={} text={}",
                at.file(),
                at.line(),
                info.message()
            )),
            None => log::line(format_args!("panic text={}", info.message())),
        }
        go_down(0);
    }
    power::reset()
}

fn go_down(pc: u64) -> ! {
    log::line(format_args!("reset reason=firmware-panic"));
    bert::reset_with(&boot_record::own_fault(&bert::place(Some((pc, 3)))))
}

/// An exception from below that cannot happen here: SCR_EL3 does not route it to EL3, or the
/// machine is not the one that the firmware was made for.
pub(super) fn unexpected(vector: u64) -> ! {
    el3_panic_exception(vector / 0x80)
}
