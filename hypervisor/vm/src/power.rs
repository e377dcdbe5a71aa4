// SPDX-License-Identifier: MIT OR Apache-2.0
//! Power states of a vCPU, as PSCI sees them.
//!
//! The kernel keeps one `AtomicU8` for each vCPU and changes it by compare-and-exchange; the
//! functions here say from what to what:
//!
//! ```text
//!          claim (CPU_ON, by any vCPU)        started (by the vCPU's own PE)
//!   Off ───────────────────────────▶ OnPending ─────────────────────────▶ On
//!    ▲                                                                    │
//!    └──────────────────────── turned_off (CPU_OFF, itself) ──────────────┘
//! ```
//!
//! A stop or restart of the partition stores [`VcpuPower::Off`] into all of them, once no PE
//! runs any of its vCPUs.

use crate::psci::error;

/// Power state of a vCPU. The encoding is that of AFFINITY_INFO's return value (DEN0022, 5.1.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum VcpuPower {
    /// Runs guest code, or waits in a WFI or CPU_SUSPEND.
    On = 0,
    /// Does not run; CPU_ON starts it.
    Off = 1,
    /// Somebody called CPU_ON, and its PE has not entered the guest yet.
    OnPending = 2,
}

impl VcpuPower {
    /// Returns the encoding.
    #[inline]
    pub const fn to_raw(self) -> u8 {
        self as u8
    }

    /// Decodes. A byte that encodes nothing is taken for off: such a vCPU is never entered.
    #[inline]
    pub const fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Self::On,
            2 => Self::OnPending,
            _ => Self::Off,
        }
    }

    /// Answers a CPU_ON: the next state, to be stored by compare-and-exchange.
    ///
    /// # Errors
    ///
    /// The PSCI error code that the caller of CPU_ON gets: ALREADY_ON or ON_PENDING.
    #[inline]
    pub const fn claim(self) -> Result<Self, i64> {
        match self {
            Self::Off => Ok(Self::OnPending),
            Self::On => Err(error::ALREADY_ON),
            Self::OnPending => Err(error::ON_PENDING),
        }
    }

    /// Answers the vCPU's own PE, about to enter the guest: the next state, or `None` when
    /// nobody asked for it.
    #[inline]
    pub const fn started(self) -> Option<Self> {
        match self {
            Self::OnPending => Some(Self::On),
            Self::On | Self::Off => None,
        }
    }

    /// Answers the vCPU's own CPU_OFF: the next state, or `None` when it does not run.
    #[inline]
    pub const fn turned_off(self) -> Option<Self> {
        match self {
            Self::On => Some(Self::Off),
            Self::Off | Self::OnPending => None,
        }
    }
}

/// Says which vCPU is to watch the deadlines of the partition's devices, now that one has left its
/// PE: the first that runs, or has been asked to. `None`: nobody is left, and the partition is over.
///
/// The one that left is among them, for another may have turned it on again meanwhile, and may have
/// gone off since.
pub fn heir(powers: impl IntoIterator<Item = VcpuPower>) -> Option<usize> {
    let mut powers = powers.into_iter();
    powers.position(|power| power != VcpuPower::Off)
}

#[cfg(test)]
mod tests {
    use super::*;
    use VcpuPower::{Off, On, OnPending};

    #[test]
    fn somebody_who_is_left_watches_the_devices() {
        assert_eq!(heir([Off, On, Off]), Some(1));
        assert_eq!(heir([Off, Off, OnPending]), Some(2));
        assert_eq!(heir([Off, Off]), None);
        assert_eq!(heir([]), None);
    }

    /// vCPU 1 goes off; before its PE has parked it, vCPU 0 turns it on again, and goes off itself.
    /// The PE of vCPU 1 found nobody but its own vCPU, did not count that, and stopped the partition.
    #[test]
    fn regression_a_vcpu_that_is_turned_on_while_it_parks_keeps_its_partition() {
        assert_eq!(heir([Off, OnPending]), Some(1));
    }

    #[test]
    fn every_transition_is_in_the_picture() {
        assert_eq!(Off.claim(), Ok(OnPending));
        assert_eq!(On.claim(), Err(-4));
        assert_eq!(OnPending.claim(), Err(-5));
        assert_eq!(
            [Off, On, OnPending].map(VcpuPower::started),
            [None, None, Some(On)]
        );
        assert_eq!(
            [Off, On, OnPending].map(VcpuPower::turned_off),
            [None, Some(Off), None]
        );
    }

    #[test]
    fn every_byte_decodes_and_states_survive_a_round_trip() {
        for raw in 0..=u8::MAX {
            let state = VcpuPower::from_raw(raw);
            assert_eq!(state.to_raw(), if raw <= 2 { raw } else { Off.to_raw() });
        }
    }
}
