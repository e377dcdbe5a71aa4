// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a firmware that was told to misbehave does when an error happens: see `behavior`.

use firebreak_contract::{Act, Source};

use super::{Error, Event, Machine, PeErrors, brings_record, decide, modes, severity};
use crate::behavior::{Mode, Modes};

impl PeErrors {
    /// Does to an error what its modes say. Returns the error that is to be treated like any other
    /// from here on, or `None` when there is nothing left to do about it.
    pub(super) fn misbehave(&mut self, machine: &mut impl Machine, error: Error) -> Option<Error> {
        let modes = modes(machine, &error);
        if modes == Modes::CONFORMING {
            return Some(error);
        }
        if modes.has(Mode::CrossPe) {
            machine.meet(&error);
        }
        if modes.has(Mode::HandledInFirmware) {
            machine.pass_time();
            self.tell(machine, &error, Event::Handled);
            return None;
        }
        if modes.has(Mode::BargeIn) && !brings_record(machine, &error) && !self.block_is_free() {
            return self.barge_in_without_record(machine, error);
        }
        if modes.has(Mode::EarlyOverwrite) {
            self.give_block_up(machine);
        }
        Some(error)
    }

    /// What brings no record needs no block, so nothing keeps it back but the contract.
    fn barge_in_without_record(
        &mut self,
        machine: &mut impl Machine,
        error: Error,
    ) -> Option<Error> {
        let severity = severity(machine, &error);
        let Act::Notify {
            target,
            vector_offset,
        } = decide(machine, &error, severity)
        else {
            return Some(error);
        };
        self.deliver(machine, &error, target, vector_offset);
        None
    }

    /// Treats the block as free, whatever stands in it, and forgets what does.
    fn give_block_up(&mut self, machine: &mut impl Machine) {
        if let Some(lost) = self.current.take() {
            machine.take_pending();
            self.source = Source::new(self.limits);
            self.tell(machine, &lost, Event::Dropped("overwritten"));
        }
    }
}
