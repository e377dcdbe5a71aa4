// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sweep, on the machine: its errors are raised by the timer like any other's.

use firebreak_abi::MAX_PES;
use firebreak_el3::errors::{Error, Machine, Order, PeErrors, Request};
use firebreak_el3::sweep::{NEST_ID, Nest, Plan, Step, Sweep};
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
            Step::Plant(address, error) => {
                plant(pe, address, error, (sweep.nest(), sweep.hold_ticks()));
            }
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
    /// What strikes before, and how much of it has.
    nest: Nest,
    turn: usize,
    /// Where `error` itself strikes.
    last: u64,
    /// For how long another PE waits there.
    hold_ticks: u64,
    /// Another PE reached it, and goes on without it.
    lifted: Option<Lifted>,
}

impl Probe {
    /// Moves on to the next place. Returns the error that strikes at this one.
    fn go_on(&mut self) -> Error {
        self.turn += 1;
        self.address = self.nest.get(self.turn).unwrap_or(self.last);
        self.instruction = sysreg::replace_instruction(self.address, PROBE_INSTRUCTION);
        Error {
            id: self.error.id.saturating_add(1).saturating_add(NEST_ID),
            record: None,
            ..self.error
        }
    }
}

/// All PEs run the same code, so there is one at a time.
static PROBE: Mutex<Option<Probe>> = Mutex::new(None);

/// For how long a probe is lifted at first, in ticks, of which an instruction takes one. As short as can
/// be, because the PE that it is for may pass meanwhile; twice as long when that was too short to leave
/// EL3. By the number of the error it varies, so that another try meets other circumstances.
const LIFTED_TICKS: u64 = 128;
const LIFTED_STEP_TICKS: u64 = 64;
const LIFTED_STEPS: u64 = 8;

/// A PE that goes on without a probe.
#[derive(Clone, Copy)]
struct Lifted {
    by: usize,
    ticks: u64,
    until: u64,
}

impl Lifted {
    fn new(by: usize, ticks: u64) -> Self {
        let until = sysreg::cntpct_el0().saturating_add(ticks);
        Self { by, ticks, until }
    }
}

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

fn plant(pe: usize, last: u64, error: Error, (nest, hold_ticks): (Nest, u64)) {
    take_out();
    lock::with(&PROBE, |probe| {
        let address = nest.get(0).unwrap_or(last);
        let instruction = sysreg::replace_instruction(address, PROBE_INSTRUCTION);
        *probe = Some(Probe {
            pe,
            address,
            instruction,
            error,
            nest,
            turn: 0,
            last,
            hold_ticks,
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
        let lifted = probe.lifted.filter(|lifted| lifted.by == machine.pe)?;
        let here = machine.context().map(|context| context.elr);
        if now < lifted.until {
            return Some(lifted.until);
        }
        if here == Some(probe.address) {
            // It never got to it.
            let longer = Lifted::new(machine.pe, lifted.ticks.saturating_mul(2));
            probe.lifted = Some(longer);
            return Some(longer.until);
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
    /// Take this one first; the probe stands at its next place.
    Nest(Error),
    /// Go on: it is the probe of another PE.
    Pass,
}

/// Lets another PE than the one that is meant wait until that was there, for as long as was asked for.
fn hold(pe: usize, here: u64) {
    let start = sysreg::cntpct_el0();
    let is_held = || {
        lock::with(&PROBE, |probe| {
            probe.as_ref().is_some_and(|probe| {
                let passed = sysreg::cntpct_el0().saturating_sub(start);
                probe.pe != pe && probe.address == here && passed < probe.hold_ticks
            })
        })
    };
    while is_held() {
        core::hint::spin_loop();
    }
}

/// Called for an SMC of EL2 with [`PROBE_IMMEDIATE`]: strikes at the instruction that the probe
/// stands for. `false` when it is no probe that stands there.
pub(in crate::el3) fn reached(pe: usize, frame: &mut Frame) -> bool {
    let here = frame.elr.wrapping_sub(4);
    hold(pe, here);
    let found = lock::with(&PROBE, |slot| {
        let probe = slot.as_mut().filter(|probe| probe.address == here)?;
        sysreg::replace_instruction(probe.address, probe.instruction);
        if probe.pe == pe && probe.nest.get(probe.turn).is_some() {
            return Some(Reached::Nest(probe.go_on()));
        }
        if probe.pe == pe {
            return slot.take().map(Reached::Strike);
        }
        let step = probe.error.id / 2 % LIFTED_STEPS;
        probe.lifted = Some(Lifted::new(pe, LIFTED_TICKS + step * LIFTED_STEP_TICKS));
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
    let error = match found {
        Reached::Strike(probe) => {
            tell(pe, &probe.error, 0, (frame.elr, frame.spsr));
            Some(probe.error)
        }
        Reached::Nest(error) => Some(error),
        Reached::Pass => None,
    };
    if let Some(error) = error {
        let request = Request {
            error,
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
