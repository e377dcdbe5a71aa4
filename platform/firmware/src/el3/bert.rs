// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the boot error record and takes the machine down.

use core::sync::atomic::{AtomicBool, Ordering};

use firebreak_abi::{Mpidr, sei::qemu_virt};
use firebreak_cper::{Record, append_record};
use firebreak_el3::boot_record::{self, Place};

use super::{log, power, sysreg};

const LEN: usize = qemu_virt::BERT_LEN as usize;

/// Set by the PE that writes the region: two of them going down at once leave one record.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Runs `action` on the region, unless another PE already does.
fn with_region(action: impl FnOnce(&mut [u8; LEN])) {
    if TAKEN.swap(true, Ordering::Acquire) {
        return;
    }
    let region = core::ptr::with_exposed_provenance_mut::<[u8; LEN]>(qemu_virt::BERT as usize);
    // SAFETY: RAM that the devicetree reserves. `TAKEN` keeps every other PE's firmware out, and
    // while EL3 writes the hypervisor has nothing to look for here: at boot it does not run yet,
    // and on the way down nobody will act on what it reads.
    action(unsafe { &mut *region });
    // A reset need not write caches back, and who reads next may read past them.
    sysreg::clean(qemu_virt::BERT, qemu_virt::BERT_LEN);
}

/// Keeps what an earlier life of the machine left, and clears everything else.
pub(super) fn init() {
    with_region(|region| {
        if !boot_record::is_valid(region) {
            region.fill(0);
        }
    });
    TAKEN.store(false, Ordering::Release);
}

/// Appends a record and resets the machine.
pub(super) fn reset_with(record: &Record) -> ! {
    with_region(|region| report(append_record(region, record).map(|_| ())));
    power::reset()
}

/// Appends a status block of EL2 and resets the machine.
pub(super) fn reset_with_block(block: &[u8], place: &Place) -> ! {
    with_region(|region| report(boot_record::append_block(region, block, place)));
    power::reset()
}

fn report(result: Result<(), firebreak_cper::CperError>) {
    if result.is_err() {
        log::line(format_args!("error text=boot-error-record-full"));
    }
}

/// Says where this PE is.
pub(super) fn place(pc_and_el: Option<(u64, u8)>) -> Place {
    let mpidr = Mpidr::from_raw(sysreg::mpidr_el1());
    Place {
        pe: mpidr.aff0(),
        mpidr,
        pc_and_el,
        ticks: sysreg::cntpct_el0(),
    }
}
