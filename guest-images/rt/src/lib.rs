// SPDX-License-Identifier: MIT OR Apache-2.0
//! EL1 runtime of the bare-metal guests.
//!
//! A guest is one image, entered at EL1 with the MMU off. It names two functions to [`guest!`]:
//! `main`, and one that gets every exception with its saved [`Frame`]. The modules here are the
//! devices of the machine that `firebreak-abi::guest_map` describes: they work on the machine
//! that the hypervisor makes and, unchanged, on a plain QEMU `virt`, which is how a guest is
//! tried without the hypervisor.
//!
//! Invariants: the MMU stays off, so all memory is Device memory. Unaligned accesses fault and
//! exclusives are not defined: nothing here uses an atomic read-modify-write; [`cell::Cell64`]
//! is the one way to share a word between `main`, exceptions and a second vCPU.
#![no_std]

pub mod cell;
pub mod console;
pub mod cpu;
pub mod exception;
pub mod gic;
pub mod mmio;
pub mod psci;
pub mod timer;

pub use exception::{Frame, Vector};

use core::arch::global_asm;

global_asm!(include_str!("entry.S"));
global_asm!(include_str!("vectors.S"));

/// What the guest finds when it starts.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    /// Intermediate physical address of the devicetree.
    pub dtb_ipa: u64,
    /// CNTVCT_EL0 as the guest's first instruction read it.
    pub entered_at_ticks: u64,
}

unsafe extern "Rust" {
    /// The guest's main function, defined by [`guest!`].
    safe fn guest_main(boot: Boot) -> !;
}

#[unsafe(no_mangle)]
extern "C" fn guest_rt_start(dtb_ipa: u64, entered_at_ticks: u64) -> ! {
    console::init();
    guest_main(Boot {
        dtb_ipa,
        entered_at_ticks,
    })
}

/// Names the two functions of a guest: `guest!(main, on_exception)`.
///
/// `main` is `fn(Boot) -> !`; `on_exception` is `fn(&mut Frame, Vector)` and returns to where
/// the frame's `elr` points.
#[macro_export]
macro_rules! guest {
    ($main:path, $on_exception:path) => {
        #[unsafe(no_mangle)]
        fn guest_main(boot: $crate::Boot) -> ! {
            let main: fn($crate::Boot) -> ! = $main;
            main(boot)
        }

        #[unsafe(no_mangle)]
        extern "C" fn guest_exception(frame: &mut $crate::Frame, vector: u64) {
            let handler: fn(&mut $crate::Frame, $crate::Vector) = $on_exception;
            handler(frame, $crate::Vector::from_index(vector))
        }
    };
}

/// Says what went wrong and turns the machine off.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    cpu::mask_all();
    println!("guest: panic: {info}");
    psci::system_off()
}
