// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second vCPU reads two pages again and again and never leaves its guest, until each is gone.

use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::exception::{EC_DATA_ABORT, FSC_EXTERNAL};
use firebreak_guest_rt::psci::{self, SecondaryStack};
use firebreak_guest_rt::{Frame, cpu, mmio, println, timer};

/// Two pages of one 2 MiB block, of which this guest uses nothing else.
const PAGES: [u64; 2] = [0x4090_0000, 0x4090_1000];
/// How long the test may take to have each of them taken away, in seconds of the guest.
const LIMIT_S: u64 = 120;

static STACK: SecondaryStack = SecondaryStack::new();
/// How often each was read, and how often that aborted. Written by the second vCPU alone.
static READ: [Cell64; 2] = [const { Cell64::new(0) }; 2];
static GONE: [Cell64; 2] = [const { Cell64::new(0) }; 2];

extern "C" fn reader() -> ! {
    loop {
        for ((page, read), gone) in PAGES.into_iter().zip(&READ).zip(&GONE) {
            if gone.get() == 0 {
                mmio::read32(page);
                read.add(1);
            }
        }
    }
}

/// Takes the abort of a page that is gone; says whether it was one.
pub(crate) fn take(frame: &mut Frame) -> bool {
    if frame.class() != EC_DATA_ABORT || frame.fault_status() != FSC_EXTERNAL {
        return false;
    }
    let Some(index) = PAGES.into_iter().position(|page| page == frame.far) else {
        return false;
    };
    if let Some(gone) = GONE.get(index) {
        gone.add(1);
    }
    frame.skip_instruction();
    true
}

/// Starts the reader, and tells when each page is gone.
pub(crate) fn run() {
    let answer = psci::cpu_on(1, &STACK, reader);
    if answer != 0 {
        return println!("cases: watch: CPU_ON answers {answer}");
    }
    for ((page, read), gone) in PAGES.into_iter().zip(&READ).zip(&GONE) {
        while read.get() < 1000 {
            cpu::yield_now();
        }
        println!("cases: watch page={page:#x}");
        let until = timer::now() + LIMIT_S * timer::frequency_hz();
        while gone.get() == 0 {
            if timer::now() > until {
                return println!("cases: watch: {page:#x} is still there");
            }
            cpu::yield_now();
        }
        println!("cases: watch gone={page:#x}");
    }
}
