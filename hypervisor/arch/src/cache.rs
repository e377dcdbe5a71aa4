// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cache maintenance by address.

use crate::sysreg;

/// Smallest data cache line that the architecture allows to assume here, in bytes.
///
/// CTR_EL0.DminLine would allow larger steps; a step that is too small is only slower.
const LINE_BYTES: u64 = 64;

macro_rules! for_each_line {
    ($name:ident, $instruction:literal, $doc:literal) => {
        #[doc = $doc]
        #[inline(never)]
        fn $name(start: u64, len_bytes: u64) {
            let end = start.saturating_add(len_bytes);
            let mut address = start & !(LINE_BYTES - 1);
            // Four lines a turn, as long as bytes of the range stand in the fourth: boot and
            // restart pass through here for thousands of lines.
            while end.saturating_sub(address) > 3 * LINE_BYTES {
                // SAFETY: maintenance by address of mapped memory changes no value that the
                // program can see.
                unsafe {
                    core::arch::asm!(
                        concat!($instruction, ", {0}"),
                        "add {0}, {0}, #{line}",
                        concat!($instruction, ", {0}"),
                        "add {0}, {0}, #{line}",
                        concat!($instruction, ", {0}"),
                        "add {0}, {0}, #{line}",
                        concat!($instruction, ", {0}"),
                        "add {0}, {0}, #{line}",
                        inout(reg) address, line = const LINE_BYTES,
                        options(nostack, preserves_flags)
                    );
                }
            }
            while address < end {
                // SAFETY: as above.
                unsafe {
                    core::arch::asm!(
                        concat!($instruction, ", {}"), in(reg) address,
                        options(nostack, preserves_flags)
                    );
                }
                // Memory ends far below the end of the address space.
                address = address.wrapping_add(LINE_BYTES);
            }
        }
    };
}

for_each_line!(
    dc_civac,
    "dc civac",
    "Cleans and invalidates each line of a range to the point of coherency."
);

for_each_line!(
    dc_ivac,
    "dc ivac",
    "Invalidates each line of a range to the point of coherency."
);

/// Forgets what caches hold of a range that was written with caches off: memory is right, and lines
/// that a bootloader left behind, dirty or not, must not shadow it or come back over it.
///
/// # Safety
///
/// Nothing in the range was written through a cache since it was last clean.
pub unsafe fn forget(start: u64, len_bytes: u64) {
    dc_ivac(start, len_bytes);
    sysreg::dsb_sy();
}

/// Cleans and invalidates a range to the point of coherency: also before what a bootloader wrote is
/// read with caches off.
pub fn clean_and_invalidate(start: u64, len_bytes: u64) {
    dc_civac(start, len_bytes);
    sysreg::dsb_sy();
}

/// Makes code and data written by EL2 visible to a guest that starts with its caches off, and
/// forgets all instructions that any PE has fetched. No line stays behind in EL2's own alias: the
/// guest writes past the caches at first.
pub fn publish_guest_memory(start: u64, len_bytes: u64) {
    dc_civac(start, len_bytes);
    sysreg::dsb_ish();
    // SAFETY: forgetting fetched instructions changes no value.
    unsafe { core::arch::asm!("ic ialluis", options(nostack, preserves_flags)) };
    sysreg::dsb_ish();
    sysreg::isb();
}
