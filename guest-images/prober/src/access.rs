// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single accesses of every kind, to any address.
//!
//! Each function is one instruction that may fault, in assembly, so that the handler can go on
//! behind it.

use crate::engine::RESUME_AT;
use core::arch::asm;

/// Makes functions of one instruction on an address: `{a}` is the address, `{v}` a value that
/// goes in and comes out.
macro_rules! instructions {
    ($($(#[$doc:meta])* $name:ident: $instruction:literal;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            ///
            /// When it writes, no Rust object may stand at the address.
            pub(crate) unsafe fn $name(address: u64, value: u64) -> u64 {
                let mut v = value;
                // SAFETY: the caller answers for the address; x8 to x12 and v0 to v3 are given up.
                unsafe {
                    asm!($instruction, "// {a} {v}",
                        a = inout(reg) address => _, v = inout(reg) v,
                        out("x8") _, out("x9") _, out("x10") _, out("x11") _,
                        out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                        options(nostack));
                }
                v
            }
        )*
    };
}

instructions! {
    /// Loads 8 bits.
    load8: "ldrb {v:w}, [{a}]";
    /// Loads 16 bits.
    load16: "ldrh {v:w}, [{a}]";
    /// Loads 32 bits.
    load32: "ldr {v:w}, [{a}]";
    /// Loads 64 bits.
    load64: "ldr {v}, [{a}]";
    /// Loads 16 bits and extends the sign.
    load16_signed: "ldrsh {v}, [{a}]";
    /// Loads 32 bits with acquire.
    load32_acquire: "ldar {v:w}, [{a}]";
    /// Loads 32 bits as EL0 would.
    load32_unprivileged: "ldtr {v:w}, [{a}]";
    /// Loads 32 bits and moves the base register.
    load32_writeback: "ldr {v:w}, [{a}], #4";
    /// Loads a pair of 32-bit registers.
    load_pair32: "ldp {v:w}, w8, [{a}]";
    /// Loads a pair of 64-bit registers.
    load_pair64: "ldp {v}, x8, [{a}]";
    /// Loads a SIMD register of 128 bits.
    load_simd: "ldr q0, [{a}]";
    /// Loads four SIMD registers.
    load_simd_many: "ld1 {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{a}]";
    /// Loads exclusively.
    load_exclusive: "ldxr {v:w}, [{a}]";
    /// Stores 8 bits.
    store8: "strb {v:w}, [{a}]";
    /// Stores 16 bits.
    store16: "strh {v:w}, [{a}]";
    /// Stores 32 bits.
    store32: "str {v:w}, [{a}]";
    /// Stores 64 bits.
    store64: "str {v}, [{a}]";
    /// Stores 32 bits with release.
    store32_release: "stlr {v:w}, [{a}]";
    /// Stores 32 bits and moves the base register.
    store32_writeback: "str {v:w}, [{a}], #4";
    /// Stores a pair of 32-bit registers.
    store_pair32: "stp {v:w}, {v:w}, [{a}]";
    /// Stores a pair of 64-bit registers.
    store_pair64: "stp {v}, {v}, [{a}]";
    /// Stores a SIMD register of 128 bits.
    store_simd: "str q0, [{a}]";
    /// Loads and stores exclusively; two instructions, of which either may fault.
    store_exclusive: "stxr w8, {v:w}, [{a}]";
    /// Prefetches, which never faults.
    prefetch: "prfm pldl1keep, [{a}]";
    /// Zeroes a block by cache maintenance.
    dc_zva: "dc zva, {a}";
    /// Cleans and invalidates to the point of coherency.
    dc_civac: "dc civac, {a}";
    /// Cleans to the point of coherency.
    dc_cvac: "dc cvac, {a}";
    /// Cleans to the point of unification.
    dc_cvau: "dc cvau, {a}";
    /// Invalidates to the point of coherency.
    dc_ivac: "dc ivac, {a}";
    /// Invalidates instructions to the point of unification.
    ic_ivau: "ic ivau, {a}";
    /// Translates the address as a read of EL1.
    at_s1e1r: "at s1e1r, {a}";
    /// Translates the address as a write of EL0.
    at_s1e0w: "at s1e0w, {a}";
    /// Adds atomically (LSE; UNDEFINED where the CPU has none).
    atomic_add: ".arch_extension lse\nldadd {v:w}, w8, [{a}]";
    /// Compares and swaps a pair (LSE).
    atomic_cas_pair: ".arch_extension lse\ncasp x8, x9, x10, x11, [{a}]";
}

/// Branches to the address and comes back by the handler.
pub(crate) fn fetch(address: u64) -> u64 {
    // SAFETY: the probes branch to places without memory of the program; the handler returns to
    // the link register.
    unsafe {
        asm!("blr {a}", a = in(reg) address, out("x30") _, clobber_abi("C"));
    }
    0
}

/// Loads 32 bits at EL1 with SP_EL0 as the stack pointer.
pub(crate) fn load32_at_el1t(address: u64) -> u64 {
    let value: u64;
    // SAFETY: no stack is used between the two switches.
    unsafe {
        asm!("mov {v}, xzr", "msr spsel, #0", "ldr {v:w}, [{a}]", "msr spsel, #1",
            a = in(reg) address, v = out(reg) value, options(preserves_flags));
    }
    value
}

/// Loads or stores 32 bits at EL0. With the MMU off, EL0 may reach all that EL1 may.
pub(crate) fn access32_at_el0(address: u64, write: bool) -> u64 {
    let value: u64;
    let resume_at = &raw const RESUME_AT as u64;
    // SAFETY: EL0 runs at most three instructions of this block, without a stack; the handler
    // comes back to label 2 at EL1 with every register as it was.
    unsafe {
        asm!(
            "adr {t}, 2f",
            "str {t}, [{resume_at}]",
            "adr {t}, 1f",
            "msr elr_el1, {t}",
            "mov {t}, #0x3c0",
            "msr spsr_el1, {t}",
            "mov {v}, xzr",
            "isb",
            "eret",
            "1: cbnz {write}, 3f",
            "ldr {v:w}, [{a}]",
            "svc #0",
            "3: str wzr, [{a}]",
            "svc #0",
            "2:",
            t = out(reg) _, v = out(reg) value, a = in(reg) address,
            write = in(reg) u64::from(write), resume_at = in(reg) resume_at,
        );
    }
    value
}
