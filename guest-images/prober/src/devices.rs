// SPDX-License-Identifier: MIT OR Apache-2.0
//! Probes of the devices that the guest does have, used as they must not be.

use crate::access::{self, fetch};
use crate::engine::{Expect, Tally, attempt};
use crate::probe;
use firebreak_abi::guest_map::{
    FLASH, FLASH_LEN, GICD, GICD_LEN, GICR, GICR_STRIDE, RTC, UART, WDT_CONTROL, WDT_REFRESH,
};
use firebreak_guest_rt::console;

const PAGE: u64 = 0x1000;

/// Accesses without a syndrome, of odd widths and to odd addresses. What they do is the device's
/// choice, but the guest and its neighbors live on.
fn odd_accesses(name: &str, ipa: u64) {
    type Access = unsafe fn(u64, u64) -> u64;
    let kinds: [(&str, Access); 17] = [
        ("load8", access::load8),
        ("load16", access::load16),
        ("load16_signed", access::load16_signed),
        ("load64", access::load64),
        ("load32_writeback", access::load32_writeback),
        ("load_pair32", access::load_pair32),
        ("load_pair64", access::load_pair64),
        ("load_simd", access::load_simd),
        ("load_exclusive", access::load_exclusive),
        ("store8", access::store8),
        ("store16", access::store16),
        ("store64", access::store64),
        ("store32_writeback", access::store32_writeback),
        ("store_pair32", access::store_pair32),
        ("store_pair64", access::store_pair64),
        ("atomic_add", access::atomic_add),
        ("dc_civac", access::dc_civac),
    ];
    for (kind, access) in kinds {
        // SAFETY: device registers, no memory of the program, here and below.
        let odd = || unsafe { access(ipa, 0) };
        probe!(Expect::Survival, odd, "{name} {kind} {ipa:#x}");
    }
    for offset in 1..4 {
        // SAFETY: as above.
        let unaligned = || unsafe { access::load32(ipa + offset, 0) };
        probe!(
            Expect::Survival,
            unaligned,
            "{name} unaligned read {:#x}",
            ipa + offset
        );
    }
    probe!(
        Expect::FetchAbort { far: ipa },
        || fetch(ipa),
        "{name} fetch {ipa:#x}"
    );
}

/// Reads every word of a range.
fn sweep_reads(name: &str, start: u64, len: u64) {
    let mut tally = Tally::default();
    for offset in (0..len).step_by(4) {
        // SAFETY: device registers, no memory of the program.
        tally.add(attempt(|| unsafe { access::load32(start + offset, 0) }));
    }
    tally.report(format_args!("sweep {name} reads"));
}

/// Writes every word of a range from `first` on.
fn sweep_writes(name: &str, start: u64, first: u64, len: u64, value: u64) {
    let mut tally = Tally::default();
    for offset in (first..len).step_by(4) {
        // SAFETY: device registers, no memory of the program.
        tally.add(attempt(|| unsafe {
            access::store32(start + offset, value)
        }));
    }
    tally.report(format_args!("sweep {name} writes {value:#x}"));
}

/// Probes all devices. Interrupts stay masked: the sweeps leave the GIC in any state.
pub(crate) fn run() {
    odd_accesses("gicd", GICD.get() + 0x100);
    odd_accesses("gicd-ctlr", GICD.get());
    odd_accesses("gicd-irouter", GICD.get() + 0x6108);
    odd_accesses("gicr", GICR.get() + 0x8);
    odd_accesses("gicr-sgi", GICR.get() + 0x1_0100);
    odd_accesses("uart", UART.get() + 0x18);
    odd_accesses("rtc", RTC.get());
    odd_accesses("wdt-refresh", WDT_REFRESH.get() + 0x10);
    odd_accesses("wdt-control", WDT_CONTROL.get() + 0x20);

    sweep_reads("gicd", GICD.get(), GICD_LEN);
    sweep_reads("gicr", GICR.get(), GICR_STRIDE);
    sweep_reads("gicr-next", GICR.get() + GICR_STRIDE, GICR_STRIDE);
    sweep_reads("uart", UART.get(), PAGE);
    sweep_reads("rtc", RTC.get(), PAGE);
    sweep_reads("wdt-refresh", WDT_REFRESH.get(), PAGE);
    sweep_reads("wdt-control", WDT_CONTROL.get(), PAGE);
    for value in [0, 0xffff_ffff, 0x5555_5555, 0] {
        sweep_writes("gicd", GICD.get(), 0, GICD_LEN, value);
        sweep_writes("gicr", GICR.get(), 0, GICR_STRIDE, value);
        sweep_writes("rtc", RTC.get(), 0, PAGE, value);
    }
    // Not the data register, whose writes are output; and no value that arms the watchdog, whose
    // expiry is another test's.
    sweep_writes("uart", UART.get(), 4, PAGE, 0);
    sweep_writes("uart", UART.get(), 4, PAGE, 0xffff_ffff);
    console::init();
    sweep_writes("wdt-control", WDT_CONTROL.get(), 0, PAGE, 0);

    let flash_last = FLASH.get() + FLASH_LEN - 4;
    for ipa in [FLASH.get(), FLASH.get() + 0x0400_0000, flash_last] {
        // SAFETY: flash holds no memory of the program, here and below.
        let load = || unsafe { access::load32(ipa, 0) };
        probe!(Expect::Survival, load, "flash read {ipa:#x}");
        // SAFETY: as above.
        let store = || unsafe { access::store32(ipa, 0x98) };
        probe!(Expect::Survival, store, "flash write {ipa:#x}");
    }
    probe!(
        Expect::Survival,
        || fetch(flash_last),
        "flash fetch {flash_last:#x}"
    );
}
