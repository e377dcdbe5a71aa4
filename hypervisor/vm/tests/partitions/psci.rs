// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual PSCI and SMCCC: every function, every power state, every vCPU count.

use firebreak_abi::Ipa;
use firebreak_vm::psci::{Call, Machine, Outcome, decide, decode_call, error, handle};
use firebreak_vm::{VcpuPower, psci};
use proptest::prelude::*;

const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 0x1000_0000;
const ENTRY: u64 = RAM + 0x20_0000;
const SMC64: u64 = 0x4000_0000;

/// A partition whose vCPUs are in given states, with 256 MiB of RAM.
struct Partition(Vec<VcpuPower>);

impl Machine for Partition {
    fn vcpu_count(&self) -> u8 {
        self.0.len() as u8
    }

    fn power(&self, index: u8) -> VcpuPower {
        self.0[usize::from(index)]
    }

    fn is_entry(&self, ipa: Ipa) -> bool {
        ipa.get().wrapping_sub(RAM) < RAM_LEN && ipa.is_aligned(4)
    }
}

/// Answers nothing: for calls that must not ask.
struct Nobody;

impl Machine for Nobody {
    fn vcpu_count(&self) -> u8 {
        panic!("asked for the number of vCPUs")
    }

    fn power(&self, _: u8) -> VcpuPower {
        panic!("asked for a power state")
    }

    fn is_entry(&self, _: Ipa) -> bool {
        panic!("asked for an entry point")
    }
}

/// Every way that 1 to 4 vCPUs can be on, off, or being turned on.
fn every_partition() -> impl Iterator<Item = Partition> {
    (1..=4u32).flat_map(|count| {
        (0..3u32.pow(count)).map(move |code| {
            let state = |n| VcpuPower::from_raw((code / 3u32.pow(n) % 3) as u8);
            Partition((0..count).map(state).collect())
        })
    })
}

fn returns(value: i64) -> Outcome {
    Outcome::Return(value)
}

/// Identifiers, by DEN0022 table 5 and DEN0028 chapter 7: (SMC32, has a 64-bit twin, exists).
const FUNCTIONS: [(u64, bool, bool); 24] = [
    (0x8400_0000, false, true),
    (0x8400_0001, true, true),
    (0x8400_0002, false, true),
    (0x8400_0003, true, true),
    (0x8400_0004, true, true),
    (0x8400_0005, true, false),
    (0x8400_0006, false, true),
    (0x8400_0007, true, false),
    (0x8400_0008, false, true),
    (0x8400_0009, false, true),
    (0x8400_000a, false, true),
    (0x8400_000b, false, false),
    (0x8400_000c, true, false),
    (0x8400_000d, true, false),
    (0x8400_000e, true, false),
    (0x8400_000f, false, false),
    (0x8400_0010, true, false),
    (0x8400_0011, true, false),
    (0x8400_0012, true, true),
    (0x8400_0013, true, false),
    (0x8400_0014, true, false),
    (0x8000_0000, false, true),
    (0x8600_ff01, false, false),
    (0x8400_0050, false, false),
];

#[test]
fn features_tells_exactly_what_is_answered() {
    for (id, twin, exists) in FUNCTIONS {
        for (id, exists) in [(id, exists), (id | SMC64, twin && exists)] {
            let expected = if exists { 0 } else { error::NOT_SUPPORTED };
            assert_eq!(
                handle(0x8400_000a, [id, 0, 0], &Nobody),
                returns(expected),
                "{id:#x}"
            );
            let answer = decode_call(id, [0; 3]);
            assert_eq!(
                !matches!(answer, Call::Unknown(_)),
                exists,
                "{id:#x}: {answer:?}"
            );
        }
    }
}

#[test]
fn psci_features_knows_smccc_version_and_nothing_else_of_smccc() {
    // How a guest finds SMCCC 1.1 and above; the rest it asks SMCCC_ARCH_FEATURES for.
    assert_eq!(
        handle(0x8400_000a, [0x8000_0000, 0, 0], &Nobody),
        returns(0)
    );
    assert_eq!(
        handle(0x8400_000a, [0x8000_0001, 0, 0], &Nobody),
        returns(-1)
    );
}

#[test]
fn versions_are_1_1_and_1_2() {
    assert_eq!(handle(0x8400_0000, [0; 3], &Nobody), returns(0x1_0001));
    assert_eq!(decide(Call::Version, &Nobody), returns(0x1_0001));
    assert_eq!(handle(0x8000_0000, [0; 3], &Nobody), returns(0x1_0002));
    for (id, value) in [
        (0x8000_0000, 0),
        (0x8000_0001, 0),
        // Speculation workarounds, SoC identification, PSCI, garbage.
        (0x8000_8000, -1),
        (0x8000_7fff, -1),
        (0x8000_3fff, -1),
        (0x8000_0002, -1),
        (0x8400_0000, -1),
        (0xffff_ffff, -1),
    ] {
        assert_eq!(
            handle(0x8000_0001, [id, 0, 0], &Nobody),
            returns(value),
            "{id:#x}"
        );
    }
}

#[test]
fn the_upper_half_of_x0_is_not_part_of_the_identifier() {
    let dirty = 0xdead_beef_0000_0000;
    assert_eq!(
        handle(dirty | 0x8400_0000, [0; 3], &Nobody),
        returns(0x1_0001)
    );
    assert_eq!(
        handle(dirty | 0x8400_0008, [0; 3], &Nobody),
        Outcome::SystemOff
    );
}

#[test]
fn cpu_on_in_every_state() {
    for partition in every_partition() {
        for id in [0x8400_0003, 0x8400_0003 | SMC64] {
            for target in 0..6 {
                let expected = match partition.0.get(target as usize) {
                    None => returns(error::INVALID_PARAMETERS),
                    Some(VcpuPower::On) => returns(error::ALREADY_ON),
                    Some(VcpuPower::OnPending) => returns(error::ON_PENDING),
                    Some(VcpuPower::Off) => Outcome::CpuOn {
                        index: target as u8,
                        entry_ipa: Ipa::new(ENTRY),
                        context: 0x77,
                    },
                };
                let answer = handle(id, [target, ENTRY, 0x77], &partition);
                assert_eq!(answer, expected, "{:?} -> {target}", partition.0);
            }
        }
    }
}

#[test]
fn cpu_on_refuses_affinities_that_no_vcpu_has() {
    let partition = Partition(vec![VcpuPower::On, VcpuPower::Off]);
    let refused = returns(error::INVALID_PARAMETERS);
    for target in [
        2,
        0x101,
        0x1_0001,
        0x1_0000_0001,
        0x8000_0001,
        0x4000_0001,
        u64::MAX,
        1 << 63,
    ] {
        assert_eq!(
            handle(0xc400_0003, [target, ENTRY, 0], &partition),
            refused,
            "{target:#x}"
        );
    }
    // What stands above W1 does not count in a 32-bit call, and is lost from the arguments.
    let answer = handle(
        0x8400_0003,
        [0xffff_ffff_0000_0001, 0x1_4020_0000, u64::MAX],
        &partition,
    );
    let context = 0xffff_ffff;
    assert_eq!(
        answer,
        Outcome::CpuOn {
            index: 1,
            entry_ipa: Ipa::new(ENTRY),
            context
        }
    );
}

#[test]
fn cpu_on_refuses_an_entry_outside_of_ram() {
    let partition = Partition(vec![VcpuPower::On, VcpuPower::Off]);
    for entry in [0, RAM - 4, RAM + RAM_LEN, u64::MAX, ENTRY + 2] {
        let answer = handle(0xc400_0003, [1, entry, 0], &partition);
        assert_eq!(answer, returns(error::INVALID_ADDRESS), "{entry:#x}");
    }
}

#[test]
fn affinity_info_in_every_state() {
    for partition in every_partition() {
        for id in [0x8400_0004, 0xc400_0004] {
            for target in 0..6 {
                let state = partition.0.get(target as usize).map(|&state| match state {
                    VcpuPower::On => 0,
                    VcpuPower::Off => 1,
                    VcpuPower::OnPending => 2,
                });
                let expected = returns(state.unwrap_or(error::INVALID_PARAMETERS));
                assert_eq!(handle(id, [target, 0, 0], &partition), expected);
            }
            let has = |state| partition.0.contains(&state);
            let cluster = match (has(VcpuPower::On), has(VcpuPower::OnPending)) {
                (true, _) => 0,
                (false, true) => 2,
                (false, false) => 1,
            };
            for (target, level) in [(0, 1), (3, 1), (0xffff, 2), (0xff_ffff, 3)] {
                assert_eq!(handle(id, [target, level, 0], &partition), returns(cluster));
            }
            for (target, level) in [(0x100, 1), (0x1_0000, 2), (0x100_0000, 3), (0, 4), (0, 99)] {
                let refused = returns(error::INVALID_PARAMETERS);
                assert_eq!(handle(id, [target, level, 0], &partition), refused);
            }
        }
    }
}

#[test]
fn calls_that_stop_something() {
    assert_eq!(handle(0x8400_0002, [0; 3], &Nobody), Outcome::CpuOff);
    assert_eq!(handle(0x8400_0008, [0; 3], &Nobody), Outcome::SystemOff);
    assert_eq!(handle(0x8400_0009, [0; 3], &Nobody), Outcome::SystemReset);
    for id in [0x8400_0012, 0xc400_0012] {
        assert_eq!(handle(id, [0, 0, 0], &Nobody), Outcome::SystemReset);
        for kind in [1, 0x7fff_ffff, 0x8000_0000] {
            let refused = returns(error::INVALID_PARAMETERS);
            assert_eq!(handle(id, [kind, 0, 0], &Nobody), refused);
        }
    }
    assert_eq!(handle(0x8400_0006, [0; 3], &Nobody), returns(2));
}

#[test]
fn cpu_suspend_waits_whatever_the_state_and_refuses_reserved_bits() {
    for id in [0x8400_0001, 0xc400_0001] {
        for power_state in [0, 1, 0xffff, 0x1_0000, 0x0101_0000, 0x0301_ffff] {
            assert_eq!(
                handle(id, [power_state, ENTRY, 0], &Nobody),
                Outcome::Suspend
            );
        }
        for bit in (17..24).chain(26..32) {
            let answer = handle(id, [1 << bit, ENTRY, 0], &Nobody);
            assert_eq!(answer, returns(error::INVALID_PARAMETERS), "bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn any_call_is_answered_and_unknown_ones_ask_for_nothing(
        id in prop_oneof![
            any::<u64>(),
            (0..0x60u64).prop_map(|n| 0x8400_0000 | n),
            (0..0x60u64).prop_map(|n| 0xc400_0000 | n),
        ],
        args in any::<[u64; 3]>(),
        states in prop::collection::vec((0..3u8).prop_map(VcpuPower::from_raw), 0..8),
    ) {
        let call = decode_call(id, args);
        if let Call::Unknown(_) = call {
            prop_assert_eq!(handle(id, args, &Nobody), returns(-1));
        }
        let partition = Partition(states);
        let outcome = handle(id, args, &partition);
        prop_assert_eq!(outcome, decide(call, &partition));
        if let Outcome::CpuOn { index, entry_ipa, .. } = outcome {
            prop_assert_eq!(partition.0[usize::from(index)], VcpuPower::Off);
            prop_assert!(partition.is_entry(entry_ipa));
        }
        if let Outcome::Return(value) = outcome {
            prop_assert!(value >= psci::error::INVALID_ADDRESS);
        }
    }
}
