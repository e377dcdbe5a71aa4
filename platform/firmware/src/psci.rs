// SPDX-License-Identifier: MIT OR Apache-2.0
//! PSCI 1.1 (DEN0022): the power state of each PE, and the answers that follow from it.

use firebreak_abi::{MAX_PES, Mpidr};

pub use firebreak_abi::psci as function;

/// PSCI_VERSION: 1.1.
pub const VERSION: i64 = 0x1_0001;
/// SMCCC_VERSION: 1.2.
pub const SMCCC_VERSION: i64 = 0x1_0002;
/// MIGRATE_INFO_TYPE: no trusted OS that would have to migrate.
pub const NOT_MIGRATABLE: i64 = 2;
/// SUCCESS.
pub const SUCCESS: i64 = 0;

/// Why a call was refused; the value is what the caller gets in x0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum Error {
    /// The function does not exist here.
    NotSupported = -1,
    /// No such PE, level or state.
    InvalidParameters = -2,
    /// Not now.
    Denied = -3,
    /// The PE is on.
    AlreadyOn = -4,
    /// The PE is on its way up.
    OnPending = -5,
    /// The entry point is not memory of the normal world, or not aligned.
    InvalidAddress = -9,
}

impl Error {
    /// Returns the value for x0.
    pub const fn code(self) -> i64 {
        self as i64
    }
}

/// First address at which the normal world can start: RAM of QEMU `virt`.
const RAM_START: u64 = 0x4000_0000;
/// First address behind all RAM of QEMU `virt`.
const RAM_END: u64 = 0x40_0000_0000;
/// Says whether an address lies where QEMU `virt` has RAM of the normal world.
pub fn is_ram(address: u64) -> bool {
    (RAM_START..RAM_END).contains(&address)
}

/// CPU_SUSPEND, extended or original format: bit that asks for a power-down state.
const POWER_DOWN: u64 = 1 << 30 | 1 << 16;

/// Where a PE starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// First instruction, at EL2.
    pub entry: u64,
    /// x0 there.
    pub context: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Power {
    Off,
    Pending(Start),
    On,
}

/// Power states of all PEs. PE numbers are Aff0; all other affinity fields are 0.
#[derive(Debug)]
pub struct Psci {
    pes: [Power; MAX_PES],
    count: usize,
}

impl Psci {
    /// Makes the state after reset: `count` PEs, of which the primary is on.
    pub const fn new(count: usize) -> Self {
        let mut pes = [Power::Off; MAX_PES];
        if let Some(primary) = pes.first_mut() {
            *primary = Power::On;
        }
        Self { pes, count }
    }

    /// Returns the number of PEs.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Says whether a PE runs, or is about to. A number without a PE does not.
    pub fn is_on(&self, pe: usize) -> bool {
        self.pes.get(pe).is_some_and(|power| *power != Power::Off)
    }

    /// Handles CPU_ON; returns the number of the PE to be woken.
    ///
    /// # Errors
    ///
    /// The PSCI error to return.
    pub fn cpu_on(&mut self, target: u64, start: Start) -> Result<usize, Error> {
        let pe = self.pe(target)?;
        if !start.entry.is_multiple_of(4) || !is_ram(start.entry) {
            return Err(Error::InvalidAddress);
        }
        let power = self.pes.get_mut(pe).ok_or(Error::InvalidParameters)?;
        match power {
            Power::On => Err(Error::AlreadyOn),
            Power::Pending(_) => Err(Error::OnPending),
            Power::Off => {
                *power = Power::Pending(start);
                Ok(pe)
            }
        }
    }

    /// Takes a start that was asked for, if there is one; the PE is on from here.
    pub fn take_start(&mut self, pe: usize) -> Option<Start> {
        let power = self.pes.get_mut(pe)?;
        let Power::Pending(start) = *power else {
            return None;
        };
        *power = Power::On;
        Some(start)
    }

    /// Handles CPU_OFF of the calling PE.
    pub fn cpu_off(&mut self, pe: usize) {
        if let Some(power) = self.pes.get_mut(pe) {
            *power = Power::Off;
        }
    }

    /// Handles AFFINITY_INFO: 0 on, 1 off, 2 on its way.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidParameters`] for a PE that does not exist, and for all levels but 0:
    /// since PSCI 1.0 an implementation need not answer for clusters.
    pub fn affinity_info(&self, target: u64, level: u64) -> Result<i64, Error> {
        if level != 0 {
            return Err(Error::InvalidParameters);
        }
        match self.pes.get(self.pe(target)?) {
            Some(Power::On) => Ok(0),
            Some(Power::Off) => Ok(1),
            Some(Power::Pending(_)) => Ok(2),
            None => Err(Error::InvalidParameters),
        }
    }

    /// Handles PSCI_FEATURES and SMCCC_ARCH_FEATURES of a PSCI function.
    pub fn features(asked: u32) -> Result<i64, Error> {
        match asked & !function::SMC64 {
            function::CPU_SUSPEND
            | function::CPU_ON
            | function::AFFINITY_INFO
            | function::SYSTEM_RESET2 => Ok(SUCCESS),
            function::PSCI_VERSION
            | function::CPU_OFF
            | function::MIGRATE_INFO_TYPE
            | function::SYSTEM_OFF
            | function::SYSTEM_RESET
            | function::PSCI_FEATURES
            | function::SMCCC_VERSION
                if asked & function::SMC64 == 0 =>
            {
                Ok(SUCCESS)
            }
            _ => Err(Error::NotSupported),
        }
    }

    /// Checks the state that CPU_SUSPEND asks for: only standby exists.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidParameters`] for a power-down state.
    pub const fn check_suspend(power_state: u64) -> Result<(), Error> {
        if power_state & POWER_DOWN == 0 {
            Ok(())
        } else {
            Err(Error::InvalidParameters)
        }
    }

    fn pe(&self, target: u64) -> Result<usize, Error> {
        if target & !Mpidr::AFFINITY_MASK != 0 {
            return Err(Error::InvalidParameters);
        }
        usize::try_from(target)
            .ok()
            .filter(|pe| *pe < self.count.min(MAX_PES))
            .ok_or(Error::InvalidParameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Start = Start {
        entry: 0x4020_0000,
        context: 7,
    };

    #[test]
    fn a_pe_goes_from_off_over_pending_to_on_and_back() {
        let mut psci = Psci::new(4);
        assert_eq!(psci.affinity_info(2, 0), Ok(1));
        assert_eq!(psci.take_start(2), None);
        assert_eq!(psci.cpu_on(2, START), Ok(2));
        assert_eq!(psci.affinity_info(2, 0), Ok(2));
        assert_eq!(psci.cpu_on(2, START), Err(Error::OnPending));
        assert_eq!(psci.take_start(2), Some(START));
        assert_eq!(psci.take_start(2), None);
        assert_eq!(psci.affinity_info(2, 0), Ok(0));
        assert_eq!(psci.cpu_on(2, START), Err(Error::AlreadyOn));
        psci.cpu_off(2);
        assert!(!psci.is_on(2));
        assert_eq!(psci.cpu_on(2, START), Ok(2));
    }

    #[test]
    fn targets_that_do_not_exist_are_refused() {
        let mut psci = Psci::new(2);
        for target in [2, 8, 0x100, 0x8000_0001, 1 << 32, u64::MAX] {
            assert_eq!(
                psci.cpu_on(target, START),
                Err(Error::InvalidParameters),
                "{target:#x}"
            );
            assert_eq!(psci.affinity_info(target, 0), Err(Error::InvalidParameters));
        }
        assert_eq!(psci.affinity_info(0, 1), Err(Error::InvalidParameters));
    }

    #[test]
    fn entry_points_outside_of_ram_or_unaligned_are_refused() {
        let mut psci = Psci::new(2);
        for entry in [
            0,
            0x0e00_0000,
            0x3fff_fffc,
            0x4020_0002,
            0x40_0000_0000,
            u64::MAX,
        ] {
            let start = Start { entry, context: 0 };
            assert_eq!(
                psci.cpu_on(1, start),
                Err(Error::InvalidAddress),
                "{entry:#x}"
            );
        }
        assert!(!psci.is_on(1));
    }

    #[test]
    fn only_the_primary_is_on_after_reset() {
        let psci = Psci::new(8);
        assert!(psci.is_on(0));
        assert!((1..MAX_PES + 1).all(|pe| !psci.is_on(pe)));
    }

    #[test]
    fn features_knows_both_widths_where_both_exist() {
        assert_eq!(Psci::features(function::CPU_ON), Ok(0));
        assert_eq!(Psci::features(function::CPU_ON | function::SMC64), Ok(0));
        assert_eq!(Psci::features(function::CPU_OFF), Ok(0));
        assert_eq!(
            Psci::features(function::CPU_OFF | function::SMC64),
            Err(Error::NotSupported)
        );
        assert_eq!(Psci::features(0x8400_0005), Err(Error::NotSupported));
        assert_eq!(Psci::features(0), Err(Error::NotSupported));
    }

    #[test]
    fn only_standby_can_be_suspended_to() {
        assert_eq!(Psci::check_suspend(0), Ok(()));
        assert_eq!(Psci::check_suspend(1 << 16), Err(Error::InvalidParameters));
        assert_eq!(Psci::check_suspend(1 << 30), Err(Error::InvalidParameters));
    }
}
