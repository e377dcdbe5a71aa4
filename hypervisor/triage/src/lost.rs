// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contexts that the notification itself destroyed, whatever the error was.
//!
//! Firmware that barges into a masked window overwrites the only copy of what EL2 had not saved
//! yet. That context cannot go on, like one that a UEU interrupted, and its partition's reaction
//! to UEU decides how it ends.

use firebreak_abi::VmId;

use crate::policy::{Class, Policy, Reaction};
use crate::verdict::{ContextVerdict, Decision, Rule};

impl Policy {
    /// Says whether a partition of which a context is lost is started again.
    pub const fn restarts_lost_context(&self) -> bool {
        matches!(
            self.reaction(Class::Ueu).clamped(Class::Ueu),
            Reaction::Restart
        )
    }
}

impl Decision {
    /// Returns the decision for an error that also destroyed the context of a guest.
    #[must_use]
    pub fn with_lost_guest(self, vm: VmId, policies: &[Policy]) -> Self {
        let policy = policies.get(vm.index()).unwrap_or(&Policy::DEFAULT);
        let context = match self.context {
            ContextVerdict::ResetMachine | ContextVerdict::Kill { .. } => return self,
            _ if policy.restarts_lost_context() => ContextVerdict::Restart { vm },
            _ => ContextVerdict::Kill { vm },
        };
        Self {
            context,
            rule: Rule::ContextDestroyed,
            ..self
        }
    }

    /// Returns the decision for an error that also destroyed a context of EL2.
    #[must_use]
    pub const fn with_lost_hypervisor(self) -> Self {
        Self {
            context: ContextVerdict::ResetMachine,
            rule: Rule::HypervisorContextLost,
            ..self
        }
    }
}
