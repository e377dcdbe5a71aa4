// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts the extended devicetree where QEMU left the plain one.

use firebreak_abi::{MAX_PES, PaRange, sei, sei::qemu_virt};
use firebreak_el3::fdt::{self, Additions, Source};
use spin::Mutex;

use super::{lock, log};

/// Room for the new tree while the old one is read. QEMU's own has some 8 KiB.
const BUFFER_BYTES: usize = 0x2_0000;
static BUFFER: Mutex<[u8; BUFFER_BYTES]> = Mutex::new([0; BUFFER_BYTES]);

/// Extends the devicetree; on an error the old one stays, and the log says so.
pub(super) fn extend(pes: usize) {
    let sources: [Source; MAX_PES] = core::array::from_fn(|pe| Source {
        affinity: pe as u64,
        page: qemu_virt::REGION + pe as u64 * sei::source::STRIDE,
    });
    let additions = Additions {
        region: PaRange::new(qemu_virt::REGION, qemu_virt::REGION_LEN),
        boot_error_record: PaRange::new(qemu_virt::BERT, qemu_virt::BERT_LEN),
        persistent: PaRange::new(qemu_virt::PERSISTENT, qemu_virt::PERSISTENT_LEN),
        sources: sources.get(..pes).unwrap_or(&sources),
    };
    let tree = core::ptr::with_exposed_provenance_mut::<[u8; qemu_virt::DTB_LEN as usize]>(
        qemu_virt::DTB as usize,
    );
    // SAFETY: QEMU virt has RAM there and keeps it for the devicetree; no other PE has left
    // `boot.S`, so nobody else uses it while this reference lives.
    let tree = unsafe { &mut *tree };
    let result = lock::with(&BUFFER, |buffer| {
        let length = fdt::extend(tree, buffer, &additions)?;
        let (new, old) = (buffer.get(..length), tree.get_mut(..length));
        let (Some(new), Some(old)) = (new, old) else {
            return Err(fdt::Error::NoSpace);
        };
        old.copy_from_slice(new);
        Ok(())
    });
    if let Err(error) = result {
        log::line(format_args!("error text=devicetree-{}", error.name()));
    }
}
