// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prober guest: reads, writes and executes where it may not, and lives to tell.
//!
//! Each probe prints one line, `prober: <what> -> <value, or the exception it caused>`, with
//! `UNEXPECTED` at the end when a guest of Firebreak must not see that. On another machine (a
//! plain QEMU, which has more devices) some outcomes are unexpected and right.
//!
//! All asynchronous exceptions stay masked but SError: one would show as a probe's outcome.
#![no_std]
#![no_main]

mod access;
mod calls;
mod devices;
mod engine;
mod memory;
mod sysregs;

use fdt::Fdt;
use firebreak_abi::guest_map::RAM;
use firebreak_guest_rt::{Boot, cpu, guest, mmio, println, psci};

/// The largest devicetree that is looked at, in bytes: QEMU's has 1 MiB of room.
const DTB_LIMIT_BYTES: u32 = 0x10_0000;
/// Taken when the devicetree does not say.
const DEFAULT_RAM_BYTES: u64 = 0x1000_0000;

/// Returns the first address behind the guest's RAM.
fn ram_end(dtb_ipa: u64) -> u64 {
    let fallback = RAM.get() + DEFAULT_RAM_BYTES;
    let total_bytes = u32::from_be(mmio::read32(dtb_ipa + 4)).min(DTB_LIMIT_BYTES);
    // SAFETY: the boot protocol puts a devicetree of that size there, outside of the image, and
    // nothing writes it before the probes begin.
    let blob = unsafe { core::slice::from_raw_parts(dtb_ipa as *const u8, total_bytes as usize) };
    let Ok(tree) = Fdt::new_unaligned(blob) else {
        return fallback;
    };
    tree.root()
        .memory()
        .reg()
        .iter::<u64, u64>()
        .flatten()
        .filter_map(|entry| entry.address.checked_add(entry.len))
        .max()
        .unwrap_or(fallback)
}

fn main(boot: Boot) -> ! {
    cpu::unmask_serror();
    let ram_end = ram_end(boot.dtb_ipa);
    println!("prober: ready ram_end={ram_end:#x}");
    sysregs::run();
    calls::run();
    memory::run(ram_end);
    devices::run();
    let (probes, unexpected) = engine::counts();
    println!("prober: unexpected={unexpected}");
    println!("prober: off");
    println!("prober: done probes={probes}");
    psci::system_off()
}

guest!(main, engine::on_exception);
