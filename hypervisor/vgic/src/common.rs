// SPDX-License-Identifier: MIT OR Apache-2.0
//! The common registers of the virtual CPU interface, for a PE that can trap `ICC_DIR_EL1` only
//! together with them (`ICH_VTR_EL2.TDS` = 0, `ICH_HCR_EL2.TC`): what hardware would have done.
//!
//! Source: Arm IHI 0069, 12.3 (`ICV_CTLR_EL1`, `ICV_PMR_EL1`, `ICV_RPR_EL1`) and 12.4
//! (`ICH_VMCR_EL2`, `ICH_VTR_EL2`, `ICH_AP0R<n>_EL2`, `ICH_AP1R<n>_EL2`).

/// A register that `ICH_HCR_EL2.TC` traps, besides those that send and end interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommonRegister {
    /// `ICC_CTLR_EL1`.
    Control,
    /// `ICC_PMR_EL1`: the priority mask.
    PriorityMask,
    /// `ICC_RPR_EL1`: the running priority. Read-only.
    RunningPriority,
}

/// `ICH_VMCR_EL2.VCBPR`.
const VMCR_CBPR: u64 = 1 << 4;
/// `ICH_VMCR_EL2.VEOIM`.
const VMCR_EOIM: u64 = 1 << 9;
/// Position of `ICH_VMCR_EL2.VPMR`, eight bits.
const VMCR_PMR_SHIFT: u32 = 24;
/// `ICC_CTLR_EL1.CBPR`.
const CTLR_CBPR: u64 = 1 << 0;
/// `ICC_CTLR_EL1.EOImode`.
const CTLR_EOIMODE: u64 = 1 << 1;
/// What `ICC_RPR_EL1` reads as when nothing is active.
const IDLE_PRIORITY: u64 = 0xff;

/// The state that these registers show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommonState {
    /// `ICH_VTR_EL2`: what is implemented.
    pub vtr: u64,
    /// `ICH_VMCR_EL2`.
    pub vmcr: u64,
    /// `ICH_AP0R0_EL2` and `ICH_AP1R0_EL2`: active priorities. One word of each holds all of them
    /// with five bits of preemption, which all PEs without TDS have.
    pub active: [u64; 2],
}

impl CommonState {
    /// Returns what the guest reads.
    pub const fn read(&self, register: CommonRegister) -> u64 {
        match register {
            CommonRegister::Control => self.control(),
            CommonRegister::PriorityMask => self.vmcr >> VMCR_PMR_SHIFT & 0xff,
            CommonRegister::RunningPriority => self.running(),
        }
    }

    /// Returns `ICH_VMCR_EL2` after the guest's write.
    #[must_use]
    pub const fn written(&self, register: CommonRegister, value: u64) -> u64 {
        match register {
            CommonRegister::Control => {
                let cbpr = if value & CTLR_CBPR == 0 { 0 } else { VMCR_CBPR };
                let eoim = if value & CTLR_EOIMODE == 0 {
                    0
                } else {
                    VMCR_EOIM
                };
                self.vmcr & !(VMCR_CBPR | VMCR_EOIM) | cbpr | eoim
            }
            CommonRegister::PriorityMask => {
                self.vmcr & !(0xff << VMCR_PMR_SHIFT) | (value & 0xff) << VMCR_PMR_SHIFT
            }
            CommonRegister::RunningPriority => self.vmcr,
        }
    }

    const fn control(&self) -> u64 {
        let cbpr = if self.vmcr & VMCR_CBPR == 0 {
            0
        } else {
            CTLR_CBPR
        };
        let eoimode = if self.vmcr & VMCR_EOIM == 0 {
            0
        } else {
            CTLR_EOIMODE
        };
        // PRIbits [31:29], IDbits [25:23], SEIS [22] and A3V [21] of ICH_VTR_EL2.
        cbpr | eoimode
            | (self.vtr >> 29 & 7) << 8
            | (self.vtr >> 23 & 7) << 11
            | (self.vtr >> 22 & 1) << 14
            | (self.vtr >> 21 & 1) << 15
    }

    const fn running(&self) -> u64 {
        let [group0, group1] = self.active;
        let active = (group0 | group1) & 0xffff_ffff;
        if active == 0 {
            return IDLE_PRIORITY;
        }
        // PREbits [28:26], less one: bit n stands for priority n in the upper bits.
        let preemption_bits = (self.vtr >> 26 & 7) + 1;
        (active.trailing_zeros() as u64) << (8 - preemption_bits)
    }
}
