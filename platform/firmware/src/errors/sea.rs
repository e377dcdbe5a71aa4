// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way of an SEA: at once or not at all. What it is stands in `abort`.

use firebreak_contract::{Act, Raise, Severity, Target};

use super::{Error, Event, Machine, PeErrors};

impl PeErrors {
    /// An SEA cannot be held back: where its block is in use, the machine is reset.
    pub(super) fn raise_abort(
        &mut self,
        machine: &mut impl Machine,
        error: Error,
        act: Act,
        severity: Severity,
    ) {
        if machine.context().is_none() {
            return self.tell(machine, &error, Event::Dropped("pe-off"));
        }
        // EL2 does not hear of what EL1 takes, so nobody would acknowledge a record of it.
        if let Act::Notify {
            target: Target::El1,
            vector_offset,
        } = act
        {
            return self.deliver(machine, &error, Target::El1, vector_offset);
        }
        let raise = Raise {
            now_ticks: machine.now_ticks(),
            act,
            severity: severity.worse(Severity::Recoverable),
        };
        let action = self.source.on_raise(raise);
        self.carry_out(machine, error, action);
    }
}
