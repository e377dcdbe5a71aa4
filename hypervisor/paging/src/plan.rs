// SPDX-License-Identifier: MIT OR Apache-2.0
//! A live edit of translation tables, as a value.

use firebreak_abi::{Ipa, Pa};
use heapless::Vec;

/// The most steps that a plan has.
pub const MAX_OPS: usize = 8;

/// One step of a live edit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Stores a descriptor: one 64-bit store.
    Write {
        /// Page of the table.
        table: Pa,
        /// Descriptor in it, 0 to 511.
        index: usize,
        /// New value.
        descriptor: u64,
    },
    /// DSB ISH.
    Dsb,
    /// TLBI IPAS2E1IS: stage-2 entries of this address and the VMID in VTTBR_EL2.
    TlbiIpa(Ipa),
    /// TLBI VMALLE1IS: stage-1 and combined entries of the VMID in VTTBR_EL2.
    TlbiVmallS1,
    /// TLBI VMALLS12E1IS: all entries of the VMID in VTTBR_EL2.
    TlbiVmallS12,
    /// ISB.
    Isb,
}

/// The steps of one live edit, in the order in which they have to be taken.
///
/// The kernel carries them out with the VM's VTTBR_EL2 loaded. Between the break and the make of
/// a block split, the VM's other vCPUs may take a translation fault on memory that is theirs:
/// either they stand still meanwhile, or their fault handler looks the address up again
/// ([`crate::Stage2::translate`]) and resumes when it is mapped.
///
/// A plan is stale when another plan for the same tables was carried out after it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "a plan changes nothing until it is carried out"]
pub struct Plan {
    pa: Pa,
    ops: Vec<Op, MAX_OPS>,
}

impl Plan {
    pub(crate) fn new<const COUNT: usize>(pa: Pa, ops: [Op; COUNT]) -> Self {
        Self {
            pa,
            ops: Vec::from_array(ops),
        }
    }

    /// Returns the physical page that this edit takes away or adds.
    pub const fn pa(&self) -> Pa {
        self.pa
    }

    /// Returns the steps.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }
}
