// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels that come later: the one in use is never written over.

use firebreak_vm::{KernelSource, Kernels};
use proptest::prelude::*;

#[test]
fn slots_take_turns_and_the_boot_image_stays() {
    let mut kernels = Kernels::new();
    assert_eq!(kernels.take(), KernelSource::Boot);
    for (slot, len) in [(0, 5), (1, 6), (0, 7), (1, 8)] {
        assert_eq!(kernels.free_slot(), Some(slot));
        kernels.propose(KernelSource::Slot(slot), len);
        assert_eq!(kernels.free_slot(), None, "until it was taken");
        assert_eq!(kernels.take(), KernelSource::Slot(slot));
        assert_eq!(kernels.len_bytes(slot), len);
        assert_eq!(kernels.take(), KernelSource::Slot(slot), "in each life");
    }
    kernels.propose(KernelSource::Boot, 0);
    assert_eq!(kernels.take(), KernelSource::Boot);
}

#[test]
fn what_is_withdrawn_was_never_there_unless_it_was_taken() {
    let mut kernels = Kernels::new();
    kernels.propose(KernelSource::Slot(0), 1);
    assert!(kernels.withdraw());
    assert_eq!(kernels.take(), KernelSource::Boot);
    kernels.propose(KernelSource::Slot(0), 1);
    assert_eq!(kernels.take(), KernelSource::Slot(0));
    assert!(!kernels.withdraw());
    assert_eq!(kernels.current(), KernelSource::Slot(0));
}

#[test]
fn bad_memory_is_not_written_to_again() {
    let mut kernels = Kernels::new();
    kernels.spoil(KernelSource::Slot(0));
    assert_eq!(kernels.free_slot(), Some(1));
    kernels.propose(KernelSource::Slot(1), 1);
    let _ = kernels.take();
    assert_eq!(kernels.free_slot(), None);
    assert!(kernels.is_bad(KernelSource::Slot(0)) && !kernels.is_bad(KernelSource::Boot));
}

proptest! {
    #[test]
    fn the_slot_that_is_written_to_is_never_in_use(steps in proptest::collection::vec(0_u8..6, 0..40)) {
        let mut kernels = Kernels::new();
        for step in steps {
            let in_use = kernels.current();
            if let Some(slot) = kernels.free_slot() {
                prop_assert_ne!(KernelSource::Slot(slot), in_use);
                if step < 2 {
                    kernels.propose(KernelSource::Slot(slot), 1);
                }
            }
            match step {
                2 => drop(kernels.withdraw()),
                3 => kernels.propose(KernelSource::Boot, 0),
                4 => kernels.spoil(in_use),
                _ => drop(kernels.take()),
            }
        }
    }
}
