// SPDX-License-Identifier: MIT OR Apache-2.0
//! Probes of addresses where this guest has nothing.

use crate::access::{self, access32_at_el0, fetch, load32_at_el1t};
use crate::engine::{Expect, FROM_EL0, FROM_EL1H, FROM_EL1T};
use crate::probe;

/// Intermediate physical addresses that no guest has, whatever its RAM: devices of the machine
/// below that are the hypervisor's or the firmware's, and the gaps between the guest's own.
const HOLES: [u64; 25] = [
    0x0801_0000, // GICv2 CPU interface
    0x0802_0000, // GICv2m
    0x0804_0000, // GICv2 hypervisor interface
    0x0808_0000, // ITS
    0x0902_0000, // fw_cfg
    0x0903_0000, // GPIO
    0x0904_0000, // secure UART
    0x0905_0000, // SMMU
    0x0907_0000, // ACPI hot plug
    0x090b_0000, // secure GPIO: power
    0x0a00_0000, // virtio-mmio
    0x0a00_3e00, // virtio-mmio, the last
    0x0b02_0000, // behind the watchdog
    0x0c00_0000, // platform bus
    0x0e00_0000, // secure RAM: the firmware
    0x0f00_0000, // nothing
    0x1000_0000, // PCIe memory window
    0x3eff_0000, // PCIe I/O
    0x3f00_0000, // PCIe configuration
    0x3fff_fffc, // the last word below RAM
    0x0100_0000_0000 - 4,
    0x0001_0000_0000, // 4 GiB
    0x0040_1000_0000, // PCIe configuration, high
    0x0080_0000_0000, // PCIe memory window, high
    0x00ff_ffff_f000, // the last page of 40 bits
];

/// From the end of the guest's RAM to here lies other partitions' memory.
const RAM_WINDOW_END: u64 = 0x8000_0000;
const RAM_STEP: u64 = 0x0200_0000;

/// What does not fit 40 bits; whether that faults in stage 1 or 2 is the CPU's affair.
const BEYOND: [u64; 4] = [
    0x0100_0000_0000,
    0x1000_0000_0000,
    1 << 47,
    u64::MAX - 0xfff,
];

fn hole(ipa: u64) {
    // SAFETY: no Rust object stands at a hole, here and below.
    let load = || unsafe { access::load32(ipa, 0) };
    probe!(
        Expect::ReadAbort {
            far: ipa,
            vector: FROM_EL1H
        },
        load,
        "read {ipa:#x}"
    );
    // SAFETY: as above.
    let store = || unsafe { access::store32(ipa, 0xdead_beef) };
    probe!(
        Expect::WriteAbort {
            far: ipa,
            vector: FROM_EL1H
        },
        store,
        "write {ipa:#x}"
    );
}

/// One access to a hole of every kind, also of those that have no syndrome.
fn every_kind(ipa: u64) {
    type Access = unsafe fn(u64, u64) -> u64;
    let read = Expect::ReadAbort {
        far: ipa,
        vector: FROM_EL1H,
    };
    let write = Expect::WriteAbort {
        far: ipa,
        vector: FROM_EL1H,
    };
    let either = Expect::AccessAbort { far: ipa };
    let kinds: [(&str, Access, Expect); 34] = [
        ("load8", access::load8, read),
        ("load16", access::load16, read),
        ("load32", access::load32, read),
        ("load64", access::load64, read),
        ("load16_signed", access::load16_signed, read),
        ("load32_acquire", access::load32_acquire, read),
        ("load32_unprivileged", access::load32_unprivileged, read),
        ("load32_writeback", access::load32_writeback, read),
        ("load_pair32", access::load_pair32, read),
        ("load_pair64", access::load_pair64, read),
        ("load_simd", access::load_simd, read),
        ("load_simd_many", access::load_simd_many, read),
        ("load_exclusive", access::load_exclusive, either),
        ("store8", access::store8, write),
        ("store16", access::store16, write),
        ("store32", access::store32, write),
        ("store64", access::store64, write),
        ("store32_release", access::store32_release, write),
        ("store32_writeback", access::store32_writeback, write),
        ("store_pair32", access::store_pair32, write),
        ("store_pair64", access::store_pair64, write),
        ("store_simd", access::store_simd, write),
        // Without a reservation it need not touch memory at all.
        ("store_exclusive", access::store_exclusive, Expect::Survival),
        ("prefetch", access::prefetch, Expect::Value),
        // Device memory: an alignment fault of stage 1, before anyone asks where it is.
        ("dc_zva", access::dc_zva, Expect::Survival),
        // Maintenance by address may fault or do nothing.
        ("dc_civac", access::dc_civac, Expect::Survival),
        ("dc_cvac", access::dc_cvac, Expect::Survival),
        ("dc_cvau", access::dc_cvau, Expect::Survival),
        ("dc_ivac", access::dc_ivac, Expect::Survival),
        ("ic_ivau", access::ic_ivau, Expect::Survival),
        ("at_s1e1r", access::at_s1e1r, Expect::Value),
        ("at_s1e0w", access::at_s1e0w, Expect::Value),
        ("atomic_add", access::atomic_add, Expect::Survival),
        ("atomic_cas_pair", access::atomic_cas_pair, Expect::Survival),
    ];
    for (name, access, expected) in kinds {
        // SAFETY: no Rust object stands at a hole.
        probe!(expected, || unsafe { access(ipa, 0) }, "{name} {ipa:#x}");
    }
}

/// A hole as each exception level and stack sees it, and as the fetch of instructions does.
fn every_level(ipa: u64) {
    let expected = Expect::ReadAbort {
        far: ipa,
        vector: FROM_EL1T,
    };
    probe!(expected, || load32_at_el1t(ipa), "el1t read {ipa:#x}");
    let expected = Expect::ReadAbort {
        far: ipa,
        vector: FROM_EL0,
    };
    probe!(
        expected,
        || access32_at_el0(ipa, false),
        "el0 read {ipa:#x}"
    );
    let expected = Expect::WriteAbort {
        far: ipa,
        vector: FROM_EL0,
    };
    probe!(
        expected,
        || access32_at_el0(ipa, true),
        "el0 write {ipa:#x}"
    );
    probe!(
        Expect::FetchAbort { far: ipa },
        || fetch(ipa),
        "fetch {ipa:#x}"
    );
    // SAFETY: no Rust object stands at a hole.
    let unaligned = || unsafe { access::load32(ipa + 2, 0) };
    probe!(Expect::Survival, unaligned, "unaligned read {:#x}", ipa + 2);
    probe!(
        Expect::Survival,
        || fetch(ipa + 2),
        "unaligned fetch {:#x}",
        ipa + 2
    );
}

/// Probes every hole; `ram_end` is the first address behind the guest's RAM.
pub(crate) fn run(ram_end: u64) {
    HOLES.into_iter().for_each(hole);
    for ipa in [ram_end, ram_end + 0xffc] {
        hole(ipa);
    }
    let mut ipa = (ram_end + RAM_STEP) & !(RAM_STEP - 1);
    while ipa < RAM_WINDOW_END {
        hole(ipa);
        ipa += RAM_STEP;
    }
    for ipa in BEYOND {
        // SAFETY: no Rust object stands there, here and below.
        let load = || unsafe { access::load32(ipa, 0) };
        probe!(Expect::Survival, load, "read beyond {ipa:#x}");
        // SAFETY: as above.
        let store = || unsafe { access::store32(ipa, 0) };
        probe!(Expect::Survival, store, "write beyond {ipa:#x}");
        probe!(Expect::Survival, || fetch(ipa), "fetch beyond {ipa:#x}");
    }
    every_kind(0x0f00_0000);
    every_kind(ram_end);
    for ipa in [0x0f00_0000, 0x0a00_0000, ram_end] {
        every_level(ipa);
    }
    // Across the end: the first half is the guest's, the second is not. MMU off: alignment.
    // SAFETY: the last bytes of RAM are read only.
    let across = || unsafe { access::load64(ram_end - 4, 0) };
    probe!(
        Expect::Survival,
        across,
        "read across the end {:#x}",
        ram_end - 4
    );
}
