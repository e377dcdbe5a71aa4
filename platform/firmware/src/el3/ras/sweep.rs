// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sweep, on the machine: its errors are raised by the timer like any other's.

use firebreak_abi::MAX_PES;
use firebreak_el3::errors::{Error, Machine, Order, PeErrors, Request};
use firebreak_el3::sweep::{Plan, Step, Sweep};
use spin::Mutex;

use super::{Frame, Live, lock, log, sysreg};

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
                match sweep.probe() {
                    Some(address) => plant(pe, address, error),
                    None => {
                        tell(pe, &error, at, (elr, spsr));
                        raise(machine, errors, error);
                    }
                }
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

/// A probe: the SMC that stands in the place of an instruction, until it is reached.
#[derive(Clone, Copy)]
struct Probe {
    address: u64,
    instruction: u32,
    error: Error,
}

static PROBE: [Mutex<Option<Probe>>; MAX_PES] = [const { Mutex::new(None) }; MAX_PES];

/// `smc #0x5a`: no call of any convention has that immediate.
const PROBE_INSTRUCTION: u32 = 0xd400_0b43;
/// What ESR_EL3.ISS says of it.
pub(in crate::el3) const PROBE_IMMEDIATE: u64 = 0x5a;

fn tell(pe: usize, error: &Error, at: u64, (elr, spsr): (u64, u64)) {
    let id = error.id;
    log::line(format_args!(
        "point id={id} pe={pe} at={at} elr={elr:#x} spsr={spsr:#x}"
    ));
}

fn plant(pe: usize, address: u64, error: Error) {
    if let Some(slot) = PROBE.get(pe) {
        lock::with(slot, |probe| {
            // One that was never reached goes first.
            if let Some(old) = probe.take() {
                sysreg::replace_instruction(old.address, old.instruction);
            }
            let instruction = sysreg::replace_instruction(address, PROBE_INSTRUCTION);
            *probe = Some(Probe {
                address,
                instruction,
                error,
            });
        });
    }
}

/// Called for an SMC of EL2 with [`PROBE_IMMEDIATE`]: strikes at the instruction that the probe
/// stands for. `false` when there is no probe at that place.
pub(in crate::el3) fn reached(pe: usize, frame: &mut Frame) -> bool {
    let here = frame.elr.wrapping_sub(4);
    let probe = PROBE
        .get(pe)
        .and_then(|slot| lock::with(slot, |probe| probe.take_if(|probe| probe.address == here)));
    let Some(probe) = probe else {
        return false;
    };
    sysreg::replace_instruction(probe.address, probe.instruction);
    frame.elr = here;
    tell(pe, &probe.error, 0, (frame.elr, frame.spsr));
    let request = Request {
        error: probe.error,
        delay_ticks: 0,
        in_guest: false,
    };
    let _ = super::post(pe, Order::Raise(request));
    super::service(pe, Some(frame), false);
    true
}

fn raise(machine: &mut Live<'_>, errors: &mut PeErrors, error: Error) {
    let request = Request {
        error,
        delay_ticks: 0,
        in_guest: false,
    };
    errors.request(machine, request);
}
