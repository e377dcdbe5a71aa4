// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory that firmware and hypervisor share: one page for each PE's error source.
//!
//! The hypervisor may write here at any time, so every access is volatile or atomic, and nothing
//! read from here is believed beyond what it says about the hypervisor itself.

use core::sync::atomic::{AtomicU64, Ordering};

use firebreak_abi::{MAX_PES, sei, sei::qemu_virt};

const STATUS_BLOCK: usize = sei::source::STATUS_BLOCK as usize;
const STATUS_BLOCK_LEN: usize = sei::source::STATUS_BLOCK_LEN as usize;

/// The source page of one PE.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page(usize);

impl Page {
    /// Returns the page of a PE below [`MAX_PES`].
    pub(super) fn of(pe: usize) -> Self {
        assert!(pe < MAX_PES);
        Self(qemu_virt::REGION as usize + pe * sei::source::STRIDE as usize)
    }

    /// Returns one of the page's 8-byte words.
    pub(super) fn word(self, offset: u64) -> &'static AtomicU64 {
        let address = self.0 + (offset as usize & 0xff8);
        // SAFETY: RAM that the devicetree reserves and nothing but atomics refers to; `offset`
        // stays inside of the page and aligned.
        unsafe { AtomicU64::from_ptr(core::ptr::with_exposed_provenance_mut(address)) }
    }

    /// Writes the status block, its first word last: until then the block reads as empty.
    pub(super) fn write_block(self, block: &[u8]) {
        let block = block.get(..STATUS_BLOCK_LEN).unwrap_or(block);
        self.word(sei::source::STATUS_BLOCK)
            .store(0, Ordering::Release);
        for (index, byte) in block.iter().enumerate().skip(8) {
            self.store_byte(index, *byte);
        }
        let mut first = [0; 8];
        if let Some(bytes) = block.get(..8) {
            first.copy_from_slice(bytes);
        }
        self.word(sei::source::STATUS_BLOCK)
            .store(u64::from_le_bytes(first), Ordering::Release);
    }

    /// Marks the block empty.
    pub(super) fn clear_block(self) {
        self.word(sei::source::STATUS_BLOCK)
            .store(0, Ordering::Release);
    }

    fn store_byte(self, index: usize, byte: u8) {
        let address = self.0 + STATUS_BLOCK + index;
        // SAFETY: `index` is below the block's length, so the byte lies inside of the page; no
        // Rust reference covers it.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(byte) }
    }

    fn init(self) {
        for offset in (0..sei::source::STRIDE).step_by(8) {
            self.word(offset).store(0, Ordering::Relaxed);
        }
        let block = self.0 as u64 + sei::source::STATUS_BLOCK;
        self.word(sei::source::ERROR_STATUS_ADDRESS)
            .store(block, Ordering::Relaxed);
        self.word(sei::source::READ_ACK)
            .store(sei::source::ACKED, Ordering::Release);
    }
}

/// Sets the sources' pages up, and clears the boot error record region unless it holds a record.
/// Persistent memory is left alone.
pub(super) fn init(pes: usize) {
    for pe in 0..pes {
        Page::of(pe).init();
    }
    super::bert::init();
}
