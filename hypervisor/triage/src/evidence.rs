// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known about an error when the decision is due.

use firebreak_abi::{Pa, VmId};
use firebreak_syndrome::{CperSeverity, Iss, Severity, external_abort_state};

use crate::owner::Owner;

/// Everything that triage looks at, apart from the policies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// Syndrome of the SEI; `None` on a CPU without FEAT_RAS, whose syndrome says nothing.
    pub iss: Option<Iss>,
    /// It came as a synchronous external abort (SEA): `iss` is that of an abort. It is precise, and
    /// the interrupted instruction was not carried out: executed again, it would abort again.
    pub sync: bool,
    /// The firmware's record; `None` when there was none, or none that could be read.
    pub record: Option<RecordSummary>,
    /// What the error interrupted.
    pub interrupted: Interrupted,
    /// Who owns the record's address; `None` when nobody has looked. Ignored without an address.
    pub owner: Option<Owner>,
    /// Corrected errors that this page has had inside the window of time, this one included.
    pub corrected_on_page: u16,
}

impl Evidence {
    /// Returns what the syndrome alone says; `None` on a CPU without FEAT_RAS.
    pub const fn syndrome_severity(&self) -> Option<Severity> {
        match self.state() {
            Some(state) => Some(state.severity()),
            None => None,
        }
    }

    /// The syndrome, as that of an SError.
    const fn state(&self) -> Option<Iss> {
        match self.iss {
            Some(iss) if self.sync => Some(external_abort_state(iss)),
            iss => iss,
        }
    }

    /// Returns what the record alone says; `None` when there is none.
    pub const fn record_severity(&self) -> Option<Severity> {
        match self.record {
            Some(record) => Some(record.severity.alone()),
            None => None,
        }
    }

    /// Returns how bad the error is: the worse of syndrome and record ([`Severity::of`]).
    pub const fn severity(&self) -> Severity {
        let state = self.state();
        match self.record {
            Some(record) => Severity::of(state, Some(record.severity)),
            None => Severity::of(state, None),
        }
    }

    /// Returns the address and its owner, if the record names an address.
    pub const fn page(&self) -> Option<(Pa, Owner)> {
        let Some(RecordSummary { pa: Some(pa), .. }) = self.record else {
            return None;
        };
        match self.owner {
            Some(owner) => Some((pa, owner)),
            None => Some((pa, Owner::Unknown)),
        }
    }
}

/// What triage needs from an error record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordSummary {
    /// Severity of the status block, or of its worst section.
    pub severity: CperSeverity,
    /// Physical address of the error, if the record says so.
    pub pa: Option<Pa>,
}

/// What the error interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupted {
    /// A guest, or EL2 where no state but that guest's was at stake.
    Guest {
        /// The partition.
        vm: VmId,
        /// Its exception level.
        el: GuestEl,
    },
    /// EL2 at work.
    Hypervisor,
    /// EL2 waiting for something to do.
    Idle,
}

impl Interrupted {
    /// Returns the word that events use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guest { .. } => "guest",
            Self::Hypervisor => "hypervisor",
            Self::Idle => "idle",
        }
    }
}

/// Exception level of a guest. Reported, not decided upon: a partition lives or dies as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestEl {
    /// EL0.
    El0,
    /// EL1.
    El1,
}
