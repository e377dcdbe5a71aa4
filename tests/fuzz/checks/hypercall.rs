// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any registers that a guest calls with: an answer from the tables of PSCI and
//! SMCCC, and a partition whose vCPUs move only along the arrows of their life.
//!
//! An input is a partition and a sequence of calls; a small kernel carries the outcomes out.

use super::bytes::Bytes;
use firebreak_abi::Ipa;
use firebreak_vm::psci::{
    Call, Machine, Outcome, SMCCC_1_2, SUCCESS, VERSION_1_1, decide, decode_call, error, function,
    handle,
};
use firebreak_vm::{Next, RestartPolicy, StopCause, VcpuPower};

const RAM: u64 = 0x4000_0000;
const RAM_BYTES: u64 = 0x0100_0000;

/// Function identifiers worth trying more often than chance would; the last is the input's own.
const IDS: [u32; 13] = [
    function::PSCI_VERSION,
    function::CPU_SUSPEND,
    function::CPU_OFF,
    function::CPU_ON,
    function::AFFINITY_INFO,
    function::MIGRATE_INFO_TYPE,
    function::SYSTEM_OFF,
    function::SYSTEM_RESET,
    function::PSCI_FEATURES,
    function::SYSTEM_RESET2,
    function::SMCCC_VERSION,
    function::SMCCC_ARCH_FEATURES,
    0,
];

struct Partition {
    vcpus: Vec<VcpuPower>,
}

impl Machine for Partition {
    fn vcpu_count(&self) -> u8 {
        self.vcpus.len() as u8
    }

    fn power(&self, index: u8) -> VcpuPower {
        // A number that is not below the count is a panic, which is the point.
        self.vcpus[usize::from(index)]
    }

    fn is_entry(&self, ipa: Ipa) -> bool {
        ipa.is_aligned(4) && (RAM..RAM + RAM_BYTES).contains(&ipa.get())
    }
}

/// Runs an input.
pub(crate) fn check_hypercall(input: &[u8]) {
    let mut program = Bytes(input);
    let count = 1 + program.below(8);
    let mut partition = Partition {
        vcpus: vec![VcpuPower::Off; count],
    };
    partition.vcpus[0] = VcpuPower::On;
    for _ in 0..256 {
        if program.is_empty() {
            return;
        }
        let kind = program.u8();
        if kind & 0x80 != 0 {
            // A PE comes to its vCPU.
            let vcpu = usize::from(kind & 0x7f) % count;
            if let Some(next) = partition.vcpus[vcpu].started() {
                partition.vcpus[vcpu] = next;
            }
            continue;
        }
        let on: Vec<usize> = (0..count)
            .filter(|vcpu| partition.vcpus[*vcpu] == VcpuPower::On)
            .collect();
        if on.is_empty() {
            return;
        }
        let caller = on[usize::from(kind >> 4) % on.len()];
        let (function_id, args) = registers(&mut program, usize::from(kind & 15));
        if !call(&mut partition, caller, function_id, args) {
            return;
        }
    }
}

fn registers(program: &mut Bytes<'_>, kind: usize) -> (u64, [u64; 3]) {
    let form = program.u8();
    let id = match IDS.get(kind) {
        Some(0) | None => program.u32(),
        Some(id) => id | u32::from(form & 1) << 30,
    };
    // What stands above W0 must not matter.
    let function_id = u64::from(id) | if form & 2 == 0 { 0 } else { 0xdead_beef << 32 };
    let args = core::array::from_fn(|index| match form >> (2 + 2 * index) & 3 {
        0 => u64::from(program.u8()),
        1 => RAM + u64::from(program.u32()),
        2 => u64::from(IDS[program.below(IDS.len())]) | 0x5555_0000_0000_0000,
        _ => program.u64(),
    });
    (function_id, args)
}

/// Makes one call. Returns whether the partition goes on.
fn call(partition: &mut Partition, caller: usize, function_id: u64, args: [u64; 3]) -> bool {
    let decoded = decode_call(function_id, args);
    let outcome = handle(function_id, args, partition);
    assert_eq!(outcome, decide(decoded, partition), "{decoded:x?}");
    let low = |id: u64| id & 0xffff_ffff;
    assert_eq!(
        decode_call(low(function_id), args),
        decoded,
        "W0 is the identifier"
    );
    if function_id & u64::from(function::SMC64) == 0 {
        let narrow = args.map(low);
        assert_eq!(
            decode_call(function_id, narrow),
            decoded,
            "SMC32 has 32-bit arguments"
        );
    }
    if let Call::Unknown(id) = decoded {
        assert_eq!(u64::from(id), low(function_id));
        assert_eq!(outcome, Outcome::Return(error::NOT_SUPPORTED));
    }
    match outcome {
        Outcome::Return(value) => check_value(partition, decoded, value),
        Outcome::CpuOn {
            index, entry_ipa, ..
        } => {
            assert!(matches!(decoded, Call::CpuOn { target, .. } if target == u64::from(index)));
            let power = &mut partition.vcpus[usize::from(index)];
            assert_eq!(*power, VcpuPower::Off, "a vCPU that runs is started again");
            *power = power.claim().unwrap_or(VcpuPower::Off);
            assert!(partition.is_entry(entry_ipa));
        }
        Outcome::CpuOff => {
            let power = &mut partition.vcpus[caller];
            *power = power.turned_off().expect("the caller runs");
        }
        Outcome::Suspend => assert!(matches!(decoded, Call::CpuSuspend { .. })),
        Outcome::SystemOff => {
            assert_eq!(decoded, Call::SystemOff);
            assert!(!restarts(StopCause::Off), "it wanted to be off");
            return false;
        }
        Outcome::SystemReset => {
            let reset = matches!(decoded, Call::SystemReset | Call::SystemReset2 { .. });
            assert!(reset && restarts(StopCause::Reset));
            return false;
        }
    }
    true
}

fn restarts(cause: StopCause) -> bool {
    let policy = RestartPolicy::default();
    policy.decide(cause, 0) == Next::Restart
}

/// Holds a returned value against what the specification has for the call.
fn check_value(partition: &Partition, call: Call, value: i64) {
    let allowed: &[i64] = match call {
        Call::Version => &[VERSION_1_1],
        Call::Features(_) | Call::SmcccArchFeatures(_) => &[SUCCESS, error::NOT_SUPPORTED],
        Call::CpuSuspend { .. } | Call::SystemReset2 { .. } => &[error::INVALID_PARAMETERS],
        Call::CpuOn { .. } => &[
            error::INVALID_PARAMETERS,
            error::ALREADY_ON,
            error::ON_PENDING,
            error::INVALID_ADDRESS,
        ],
        Call::AffinityInfo { .. } => &[0, 1, 2, error::INVALID_PARAMETERS],
        Call::MigrateInfoType => &[2],
        Call::SmcccVersion => &[SMCCC_1_2],
        Call::Unknown(_) => &[error::NOT_SUPPORTED],
        Call::CpuOff | Call::SystemOff | Call::SystemReset => &[],
    };
    assert!(allowed.contains(&value), "{call:x?} returned {value}");
    let vcpu = |target: u64| partition.vcpus.get(usize::try_from(target).ok()?).copied();
    match call {
        Call::CpuOn { target, .. } => match vcpu(target) {
            None => assert_eq!(value, error::INVALID_PARAMETERS),
            Some(VcpuPower::On) => assert_eq!(value, error::ALREADY_ON),
            Some(VcpuPower::OnPending) => assert_eq!(value, error::ON_PENDING),
            Some(VcpuPower::Off) => assert_eq!(value, error::INVALID_ADDRESS),
        },
        Call::AffinityInfo {
            target,
            lowest_level: 0,
        } => match vcpu(target) {
            None => assert_eq!(value, error::INVALID_PARAMETERS),
            Some(power) => assert_eq!(value, i64::from(power.to_raw())),
        },
        _ => {}
    }
}
