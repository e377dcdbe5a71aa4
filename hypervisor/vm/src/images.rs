// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which kernel a partition is loaded from: that of the boot image, or one that came later.
//!
//! There are two slots for those, so that the one in use stays whole until the next has come.

/// Where a kernel stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelSource {
    /// In the image that was booted.
    Boot,
    /// In a slot: 0 or 1.
    Slot(u8),
}

impl KernelSource {
    const fn bit(self) -> u8 {
        match self {
            Self::Boot => 1,
            Self::Slot(slot) => 2 << (slot & 1),
        }
    }
}

/// The kernels of one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernels {
    current: KernelSource,
    next: Option<KernelSource>,
    len_bytes: [u64; 2],
    bad: u8,
}

impl Kernels {
    /// Begins with what was booted.
    pub const fn new() -> Self {
        Self {
            current: KernelSource::Boot,
            next: None,
            len_bytes: [0; 2],
            bad: 0,
        }
    }

    /// Returns the one that the partition is loaded from.
    pub const fn current(&self) -> KernelSource {
        self.current
    }

    /// Returns the length of the kernel in a slot, in bytes.
    pub fn len_bytes(&self, slot: u8) -> u64 {
        self.len_bytes.get(usize::from(slot)).copied().unwrap_or(0)
    }

    /// Returns a slot that a new kernel can be written to; none while the next start is to take
    /// one, or when memory is bad.
    pub fn free_slot(&self) -> Option<u8> {
        let is_free = |slot: &u8| {
            let source = KernelSource::Slot(*slot);
            self.current != source && !self.is_bad(source)
        };
        if self.next.is_some() {
            return None;
        }
        (0..2).find(is_free)
    }

    /// Proposes what the partition is to be loaded from when it next starts.
    pub fn propose(&mut self, source: KernelSource, len_bytes: u64) {
        if let KernelSource::Slot(slot) = source
            && let Some(len) = self.len_bytes.get_mut(usize::from(slot))
        {
            *len = len_bytes;
        }
        self.next = Some(source);
    }

    /// Takes a proposal back; says whether it was still there. If not, the partition has started
    /// with it.
    pub fn withdraw(&mut self) -> bool {
        self.next.take().is_some()
    }

    /// Takes what is proposed, at a start, and returns what to load.
    pub fn take(&mut self) -> KernelSource {
        self.current = self.next.take().unwrap_or(self.current);
        self.current
    }

    /// Notes that memory went bad under a kernel.
    pub fn spoil(&mut self, source: KernelSource) {
        self.bad |= source.bit();
    }

    /// Says whether memory went bad under a kernel.
    pub const fn is_bad(&self, source: KernelSource) -> bool {
        self.bad & source.bit() != 0
    }
}

impl Default for Kernels {
    fn default() -> Self {
        Self::new()
    }
}
