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
    let again = replant(machine);
    let next = lock::with(SWEEP.get(machine.pe)?, |slot| {
        let sweep = slot.as_mut()?;
        let pe = machine.pe;
        match sweep.step(machine.now_ticks(), errors.is_quiet()) {
            Step::Nothing => {}
            Step::Open(error, Some(other)) if other != pe => open_on(other, error),
            Step::Open(error, _) => raise(machine, errors, error),
            Step::Point(at, error) => {
                let (elr, spsr) = machine
                    .context()
                    .map_or((0, 0), |context| (context.elr, context.spsr));
                tell(pe, &error, at, (elr, spsr));
                raise(machine, errors, error);
            }
            Step::Plant(address, error) => plant(pe, address, error),
            Step::Done { points } => {
                take_out();
                log::line(format_args!("swept pe={pe} points={points}"));
                *slot = None;
            }
            Step::Stuck { at_ticks } => {
                log::line(format_args!("stuck pe={pe} at={at_ticks}"));
                *slot = None;
            }
        }
        slot.as_ref().map(Sweep::deadline)
    });
    next.into_iter().chain(again).min()
}

/// A probe: the SMC that stands in the place of an instruction, until its PE reaches it.
#[derive(Clone, Copy)]
struct Probe {
    pe: usize,
    address: u64,
    instruction: u32,
    error: Error,
    /// Another PE reached it, and goes on without it: which one, and until when.
    lifted: Option<(usize, u64)>,
}

/// All PEs run the same code, so there is one at a time.
static PROBE: Mutex<Option<Probe>> = Mutex::new(None);

/// For how long a probe is lifted, in ticks: the PE for which it was has left EL3 and passed the
/// instruction by then, as one instruction takes one tick.
const LIFTED_TICKS: u64 = 1_000;

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
    take_out();
    lock::with(&PROBE, |probe| {
        let instruction = sysreg::replace_instruction(address, PROBE_INSTRUCTION);
        *probe = Some(Probe {
            pe,
            address,
            instruction,
            error,
            lifted: None,
        });
    });
}

/// Takes the probe out that was never reached. Its error was never raised.
fn take_out() {
    if let Some(probe) = lock::with(&PROBE, Option::take) {
        sysreg::replace_instruction(probe.address, probe.instruction);
    }
}

/// Puts a probe back that this PE passed by. Returns when it is to be tried again.
fn replant(machine: &Live<'_>) -> Option<u64> {
    let now = machine.now_ticks();
    lock::with(&PROBE, |probe| {
        let probe = probe.as_mut()?;
        let (_, until) = probe.lifted.filter(|(by, _)| *by == machine.pe)?;
        let here = machine.context().map(|context| context.elr);
        if now < until {
            return Some(until);
        }
        if here == Some(probe.address) {
            // It never got to it.
            let until = now.saturating_add(LIFTED_TICKS);
            probe.lifted = Some((machine.pe, until));
            return Some(until);
        }
        sysreg::replace_instruction(probe.address, PROBE_INSTRUCTION);
        probe.lifted = None;
        None
    })
}

/// What the PE that reached a probe is to do.
enum Reached {
    /// Take the error.
    Strike(Probe),
    /// Go on: it is the probe of another PE.
    Pass,
}

/// Called for an SMC of EL2 with [`PROBE_IMMEDIATE`]: strikes at the instruction that the probe
/// stands for. `false` when it is no probe that stands there.
pub(in crate::el3) fn reached(pe: usize, frame: &mut Frame) -> bool {
    let here = frame.elr.wrapping_sub(4);
    let found = lock::with(&PROBE, |slot| {
        let probe = slot.as_mut().filter(|probe| probe.address == here)?;
        sysreg::replace_instruction(probe.address, probe.instruction);
        if probe.pe == pe {
            return slot.take().map(Reached::Strike);
        }
        let until = sysreg::cntpct_el0().saturating_add(LIFTED_TICKS);
        probe.lifted = Some((pe, until));
        Some(Reached::Pass)
    });
    let Some(found) = found else {
        // Another PE may have been here in between: then the instruction stands there again.
        let is_gone = sysreg::instruction(here) != PROBE_INSTRUCTION;
        if is_gone {
            frame.elr = here;
        }
        return is_gone;
    };
    frame.elr = here;
    if let Reached::Strike(probe) = found {
        tell(pe, &probe.error, 0, (frame.elr, frame.spsr));
        let request = Request {
            error: probe.error,
            delay_ticks: 0,
            in_guest: false,
        };
        let _ = super::post(pe, Order::Raise(request));
    }
    super::service(pe, Some(frame), false);
    true
}

/// Lets the opening error strike another PE, where that runs its guest.
fn open_on(pe: usize, error: Error) {
    let request = Request {
        error,
        delay_ticks: 0,
        in_guest: true,
    };
    match super::post(pe, Order::Raise(request)) {
        Ok(()) => super::wake(pe),
        Err(text) => {
            let id = error.id;
            log::line(format_args!("error text={text} id={id} pe={pe}"));
        }
    }
}

fn raise(machine: &mut Live<'_>, errors: &mut PeErrors, error: Error) {
    let request = Request {
        error,
        delay_ticks: 0,
        in_guest: false,
    };
    errors.request(machine, request);
}
