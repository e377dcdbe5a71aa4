// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual PSCI 1.1 (DEN0022) and SMCCC 1.2 (DEN0028), by HVC and by SMC alike.
//!
//! [`handle`] answers a call from nothing but its registers and the power states of the
//! partition's vCPUs. The caller of an unknown function gets NOT_SUPPORTED, always: no call of
//! a guest ever reaches EL3.
//!
//! A function identifier is 32 bits (W0). An SMC32 call's arguments are the low words of its
//! registers; what stands above them is ignored, as SMCCC 2.6 asks.

use firebreak_abi::{Ipa, Mpidr};

use crate::power::VcpuPower;

pub use firebreak_abi::psci as function;

/// Return values below zero (DEN0022, 5.2.2).
pub mod error {
    /// The function does not exist here. SMCCC's own value is the same.
    pub const NOT_SUPPORTED: i64 = -1;
    /// An argument makes no sense.
    pub const INVALID_PARAMETERS: i64 = -2;
    /// The vCPU runs already.
    pub const ALREADY_ON: i64 = -4;
    /// The vCPU is being started already.
    pub const ON_PENDING: i64 = -5;
    /// The entry point is not in the partition's memory.
    pub const INVALID_ADDRESS: i64 = -9;
}

/// Return value of a call that worked.
pub const SUCCESS: i64 = 0;
/// PSCI 1.1: major in \[31:16\], minor in \[15:0\].
pub const VERSION_1_1: i64 = 0x1_0001;
/// SMCCC 1.2.
pub const SMCCC_1_2: i64 = 0x1_0002;
/// MIGRATE_INFO_TYPE: no trusted OS that would have to move.
const NO_MIGRATION: i64 = 2;
/// CPU_SUSPEND power_state, original format: bits that must be zero (DEN0022, 5.4.2).
const POWER_STATE_RES0: u32 = 0xfcfe_0000;
/// SYSTEM_RESET2 reset_type: SYSTEM_WARM_RESET, the only architectural one.
const WARM_RESET: u32 = 0;

/// What a guest asked for, with arguments as wide as its convention says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// PSCI_VERSION.
    Version,
    /// PSCI_FEATURES of a function.
    Features(u32),
    /// CPU_SUSPEND to a power state.
    CpuSuspend {
        /// Raw power_state.
        power_state: u32,
    },
    /// CPU_OFF.
    CpuOff,
    /// CPU_ON.
    CpuOn {
        /// Raw affinity of the vCPU to start.
        target: u64,
        /// Where it starts.
        entry_ipa: Ipa,
        /// What it finds in x0.
        context: u64,
    },
    /// AFFINITY_INFO.
    AffinityInfo {
        /// Raw affinity of the vCPU or group.
        target: u64,
        /// Lowest affinity level that counts.
        lowest_level: u64,
    },
    /// MIGRATE_INFO_TYPE.
    MigrateInfoType,
    /// SYSTEM_OFF.
    SystemOff,
    /// SYSTEM_RESET.
    SystemReset,
    /// SYSTEM_RESET2.
    SystemReset2 {
        /// Raw reset_type.
        reset_type: u32,
    },
    /// SMCCC_VERSION.
    SmcccVersion,
    /// SMCCC_ARCH_FEATURES of a function.
    SmcccArchFeatures(u32),
    /// Anything else.
    Unknown(u32),
}

/// What the kernel does about a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Puts the value into x0 and resumes.
    Return(i64),
    /// Starts a vCPU that was off: claims its power state by compare-and-exchange
    /// ([`VcpuPower::claim`]), returns SUCCESS to the caller, or the error when another caller
    /// came first.
    CpuOn {
        /// Number of the vCPU in its partition.
        index: u8,
        /// Where it starts.
        entry_ipa: Ipa,
        /// What it finds in x0.
        context: u64,
    },
    /// Turns the calling vCPU off; the call does not return.
    CpuOff,
    /// Waits for an interrupt as WFI does, then returns SUCCESS.
    Suspend,
    /// Stops the partition for good ([`crate::StopCause::Off`]).
    SystemOff,
    /// Stops the partition and asks the restart policy ([`crate::StopCause::Reset`]).
    SystemReset,
}

/// What a call needs to know of the calling partition.
///
/// vCPU `n` has Aff0 = n, and all other affinity fields zero.
pub trait Machine {
    /// Returns the number of vCPUs.
    fn vcpu_count(&self) -> u8;

    /// Returns the power state of a vCPU below [`Self::vcpu_count`].
    fn power(&self, index: u8) -> VcpuPower;

    /// Says whether a vCPU may start at this address.
    fn is_entry(&self, ipa: Ipa) -> bool;
}

/// Answers a call: `function_id` is the caller's x0, `args` its x1 to x3.
///
/// PSCI_VERSION and the unknown functions, which benchmarks and probing guests call in loops,
/// touch nothing but the identifier.
#[inline]
pub fn handle<M: Machine + ?Sized>(function_id: u64, args: [u64; 3], machine: &M) -> Outcome {
    if function_id & 0xffff_ffff == function::PSCI_VERSION as u64 {
        return Outcome::Return(VERSION_1_1);
    }
    decide(decode_call(function_id, args), machine)
}

/// Decodes a call.
pub fn decode_call(function_id: u64, args: [u64; 3]) -> Call {
    let id = word(function_id);
    let [x1, x2, x3] = if id & function::SMC64 == 0 {
        args.map(|arg| arg & 0xffff_ffff)
    } else {
        args
    };
    match id {
        function::PSCI_VERSION => Call::Version,
        function::PSCI_FEATURES => Call::Features(word(x1)),
        function::CPU_OFF => Call::CpuOff,
        function::MIGRATE_INFO_TYPE => Call::MigrateInfoType,
        function::SYSTEM_OFF => Call::SystemOff,
        function::SYSTEM_RESET => Call::SystemReset,
        function::SMCCC_VERSION => Call::SmcccVersion,
        function::SMCCC_ARCH_FEATURES => Call::SmcccArchFeatures(word(x1)),
        _ => match id & !function::SMC64 {
            function::CPU_SUSPEND => Call::CpuSuspend {
                power_state: word(x1),
            },
            function::CPU_ON => Call::CpuOn {
                target: x1,
                entry_ipa: Ipa::new(x2),
                context: x3,
            },
            function::AFFINITY_INFO => Call::AffinityInfo {
                target: x1,
                lowest_level: x2,
            },
            function::SYSTEM_RESET2 => Call::SystemReset2 {
                reset_type: word(x1),
            },
            _ => Call::Unknown(id),
        },
    }
}

/// Decides a call.
pub fn decide<M: Machine + ?Sized>(call: Call, machine: &M) -> Outcome {
    match call {
        Call::Version => Outcome::Return(VERSION_1_1),
        Call::Features(id) => Outcome::Return(feature(id)),
        Call::CpuSuspend { power_state } if power_state & POWER_STATE_RES0 != 0 => {
            Outcome::Return(error::INVALID_PARAMETERS)
        }
        // A request to power down may be answered by standby (DEN0022, 5.1.2): no state is
        // lost, and the call returns when an interrupt comes.
        Call::CpuSuspend { .. } => Outcome::Suspend,
        Call::CpuOff => Outcome::CpuOff,
        Call::CpuOn {
            target,
            entry_ipa,
            context,
        } => cpu_on(target, entry_ipa, context, machine),
        Call::AffinityInfo {
            target,
            lowest_level,
        } => Outcome::Return(affinity_info(target, lowest_level, machine)),
        Call::MigrateInfoType => Outcome::Return(NO_MIGRATION),
        Call::SystemOff => Outcome::SystemOff,
        Call::SystemReset
        | Call::SystemReset2 {
            reset_type: WARM_RESET,
        } => Outcome::SystemReset,
        Call::SystemReset2 { .. } => Outcome::Return(error::INVALID_PARAMETERS),
        Call::SmcccVersion => Outcome::Return(SMCCC_1_2),
        Call::SmcccArchFeatures(function::SMCCC_VERSION | function::SMCCC_ARCH_FEATURES) => {
            Outcome::Return(SUCCESS)
        }
        Call::SmcccArchFeatures(_) | Call::Unknown(_) => Outcome::Return(error::NOT_SUPPORTED),
    }
}

/// PSCI_FEATURES: no flags for what exists. CPU_SUSPEND's zero means original power_state
/// format, platform-coordinated mode only.
fn feature(id: u32) -> i64 {
    match decode_call(u64::from(id), [0; 3]) {
        Call::Unknown(_) | Call::SmcccArchFeatures(_) => error::NOT_SUPPORTED,
        _ => SUCCESS,
    }
}

fn cpu_on<M: Machine + ?Sized>(target: u64, entry_ipa: Ipa, context: u64, machine: &M) -> Outcome {
    let Some(index) = vcpu_of(target, machine) else {
        return Outcome::Return(error::INVALID_PARAMETERS);
    };
    if let Err(code) = machine.power(index).claim() {
        return Outcome::Return(code);
    }
    if !machine.is_entry(entry_ipa) {
        return Outcome::Return(error::INVALID_ADDRESS);
    }
    Outcome::CpuOn {
        index,
        entry_ipa,
        context,
    }
}

/// AFFINITY_INFO: of one vCPU, or (levels 1 to 3) of the only cluster there is.
fn affinity_info<M: Machine + ?Sized>(target: u64, lowest_level: u64, machine: &M) -> i64 {
    if lowest_level == 0 {
        return match vcpu_of(target, machine) {
            Some(index) => i64::from(machine.power(index).to_raw()),
            None => error::INVALID_PARAMETERS,
        };
    }
    let ignored = match lowest_level {
        1 => 0xff,
        2 => 0xffff,
        3 => 0xff_ffff,
        _ => return error::INVALID_PARAMETERS,
    };
    if target & !ignored != 0 || machine.vcpu_count() == 0 {
        return error::INVALID_PARAMETERS;
    }
    let any = |state| (0..machine.vcpu_count()).any(|index| machine.power(index) == state);
    let state = if any(VcpuPower::On) {
        VcpuPower::On
    } else if any(VcpuPower::OnPending) {
        VcpuPower::OnPending
    } else {
        VcpuPower::Off
    };
    i64::from(state.to_raw())
}

/// Returns the vCPU that an affinity names; bits outside the affinity fields name none.
fn vcpu_of<M: Machine + ?Sized>(target: u64, machine: &M) -> Option<u8> {
    let mpidr = Mpidr::from_raw(target);
    let index = mpidr.aff0();
    (mpidr.get() == target && target == u64::from(index) && index < machine.vcpu_count())
        .then_some(index)
}

const fn word(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}
