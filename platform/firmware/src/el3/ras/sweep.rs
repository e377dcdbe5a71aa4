// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sweep, on the machine: its errors are raised by the timer like any other's.

use firebreak_abi::MAX_PES;
use firebreak_el3::errors::{Error, Machine, PeErrors, Request};
use firebreak_el3::sweep::{Plan, Step, Sweep};
use spin::Mutex;

use super::{Live, lock, log, sysreg};

/// The sweep of each PE.
static SWEEP: [Mutex<Option<Sweep>>; MAX_PES] = [const { Mutex::new(None) }; MAX_PES];

/// Starts a sweep on a PE; one that is under way there ends.
pub(in crate::el3) fn start(pe: usize, plan: Plan) {
    if let Some(slot) = SWEEP.get(pe) {
        lock::with(slot, |sweep| {
            *sweep = Some(Sweep::new(plan, sysreg::cntpct_el0()));
        });
    }
}

/// Does what is due. Returns when the sweep of this PE wants to be looked at again.
pub(super) fn step(machine: &mut Live<'_>, errors: &mut PeErrors) -> Option<u64> {
    lock::with(SWEEP.get(machine.pe)?, |slot| {
        let sweep = slot.as_mut()?;
        let pe = machine.pe;
        match sweep.step(machine.now_ticks(), errors.is_quiet()) {
            Step::Nothing => {}
            Step::Open(error) => raise(machine, errors, error),
            Step::Point(at, error) => {
                let (elr, spsr) = machine
                    .context()
                    .map_or((0, 0), |context| (context.elr, context.spsr));
                let id = error.id;
                log::line(format_args!(
                    "point id={id} pe={pe} at={at} elr={elr:#x} spsr={spsr:#x}"
                ));
                raise(machine, errors, error);
            }
            Step::Done { points } => {
                log::line(format_args!("swept pe={pe} points={points}"));
                *slot = None;
            }
            Step::Stuck { at_ticks } => {
                log::line(format_args!("stuck pe={pe} at={at_ticks}"));
                *slot = None;
            }
        }
        slot.as_ref().map(Sweep::deadline)
    })
}

fn raise(machine: &mut Live<'_>, errors: &mut PeErrors, error: Error) {
    let request = Request {
        error,
        delay_ticks: 0,
        in_guest: false,
    };
    errors.request(machine, request);
}
