// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page that is there to break.

use core::arch::asm;
use core::cell::UnsafeCell;

/// Words at the start, in the middle and at the end: enough to meet a page that is gone.
const OFFSETS: [usize; 3] = [0, 2048, 4088];

#[repr(C, align(4096))]
struct TestPage(UnsafeCell<[u8; 4096]>);

// SAFETY: it is reached by the assembly below alone, on the guest's only vCPU.
unsafe impl Sync for TestPage {}

static PAGE: TestPage = TestPage(UnsafeCell::new([0; 4096]));

/// Returns the page's address, as the hypervisor maps it.
pub(crate) fn ipa() -> u64 {
    PAGE.0.get() as u64
}

/// Says whether an address lies in the page.
pub(crate) fn holds(address: u64) -> bool {
    address.wrapping_sub(ipa()) < 4096
}

/// Reads the words that the last round wrote and writes those of this one. Returns whether they
/// were as written.
///
/// Single loads and stores in assembly: when one aborts, the handler can go on behind it. A load
/// that was skipped leaves 0, which no round writes.
pub(crate) fn read_and_write(round: u64) -> bool {
    let mut intact = true;
    for offset in OFFSETS {
        let address = ipa() + offset as u64;
        let word: u64;
        // SAFETY: an aligned word inside `PAGE`.
        unsafe {
            asm!("mov {word}, xzr", "ldr {word}, [{address}]",
                word = out(reg) word, address = in(reg) address,
                options(nostack, preserves_flags));
        }
        intact &= round == 0 || word == content(round - 1, address);
        // SAFETY: an aligned word inside `PAGE`.
        unsafe {
            asm!("str {word}, [{address}]",
                word = in(reg) content(round, address), address = in(reg) address,
                options(nostack, preserves_flags));
        }
    }
    intact
}

fn content(round: u64, address: u64) -> u64 {
    address << 32 | (round & 0xffff_ffff)
}
