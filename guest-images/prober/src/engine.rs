// SPDX-License-Identifier: MIT OR Apache-2.0
//! One probe: do it, catch what it causes, compare with what is right, print.
//!
//! Every exception is survived: the handler notes the first one of a probe and goes on behind
//! the instruction, or at the caller when the instruction itself could not be fetched.

use core::fmt;
use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::exception::{EC_DATA_ABORT, EC_FETCH_ABORT, EC_UNKNOWN, FSC_EXTERNAL};
use firebreak_guest_rt::{Frame, Vector, println, read_sysreg};

/// Data abort from a lower exception level (EC 0x24).
const EC_DATA_ABORT_LOWER: u64 = 0x24;
/// SVC from AArch64 (EC 0x15).
const EC_SVC: u64 = 0x15;
/// Trapped access to a system register (EC 0x18): what a CPU with FEAT_IDST reports, to EL1
/// itself, for an identification register that it does not have.
const EC_TRAPPED_REGISTER: u64 = 0x18;
/// SVE (EC 0x19) and SME (EC 0x1d), which this guest leaves off in CPACR_EL1.
const EC_VECTORS_OFF: [u64; 2] = [0x19, 0x1d];
/// ESR: a 32-bit instruction (IL, bit 25).
const ESR_IL: u64 = 1 << 25;
/// ESR of a data abort: the syndrome describes the access (ISV, bit 24). Never set at EL1.
const ESR_ISV: u64 = 1 << 24;
/// ESR of a data abort: it was a write (WnR, bit 6).
const ESR_WNR: u64 = 1 << 6;
/// ESR of a data abort: cache maintenance (CM, bit 8).
const ESR_CM: u64 = 1 << 8;
/// PSTATE at the entry of an exception: all of DAIF masked.
const DAIF_MASKED: u64 = 0x3c0;
/// SPSR: exception level and stack pointer (M, bits 3:0).
const SPSR_MODE: u64 = 0xf;

/// Offset of the vectors for exceptions from EL1 with SP_EL0.
pub(crate) const FROM_EL1T: u64 = 0;
/// Offset of the vectors for exceptions from EL1 with SP_EL1.
pub(crate) const FROM_EL1H: u64 = 0x200;
/// Offset of the vectors for exceptions from EL0.
pub(crate) const FROM_EL0: u64 = 0x400;

/// What the handler saw.
#[derive(Clone, Copy)]
pub(crate) struct Caught {
    vector: u64,
    esr: u64,
    far: u64,
    spsr: u64,
    daif: u64,
}

/// What a probe led to.
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    value: u64,
    caught: Option<Caught>,
}

/// What is right.
#[derive(Clone, Copy)]
pub(crate) enum Expect {
    /// A synchronous external abort of a load, taken at this vector, with this FAR.
    ReadAbort { far: u64, vector: u64 },
    /// The same of a store.
    WriteAbort { far: u64, vector: u64 },
    /// The same, where the architecture leaves open whether it counts as a write.
    AccessAbort { far: u64 },
    /// A synchronous external abort of an instruction fetch, with this FAR.
    FetchAbort { far: u64 },
    /// A value, no exception.
    Value,
    /// A negative result (a PSCI or SMCCC error), no exception.
    Refusal,
    /// An UNDEFINED instruction.
    Undefined,
    /// A value or an UNDEFINED instruction: the register may be there or be hidden.
    ValueOrUndefined,
    /// Anything that leaves the guest running.
    Survival,
}

// Written by the handler during a probe; `attempt` resets them between probes.
static CAUGHT: Cell64 = Cell64::new(0);
static VECTOR: Cell64 = Cell64::new(0);
static ESR: Cell64 = Cell64::new(0);
static FAR: Cell64 = Cell64::new(0);
static SPSR: Cell64 = Cell64::new(0);
static DAIF: Cell64 = Cell64::new(0);
/// Where to go on after an exception from EL0.
pub(crate) static RESUME_AT: Cell64 = Cell64::new(0);

static PROBES: Cell64 = Cell64::new(0);
static UNEXPECTED: Cell64 = Cell64::new(0);

unsafe extern "C" {
    safe static guest_header: u8;
    safe static __image_end: u8;
}

fn is_inside_image(address: u64) -> bool {
    let start = &raw const guest_header as u64;
    let end = &raw const __image_end as u64;
    (start..end).contains(&address)
}

/// The exception handler of the guest.
pub(crate) fn on_exception(frame: &mut Frame, vector: Vector) {
    if CAUGHT.get() == 0 {
        VECTOR.set(vector.offset());
        ESR.set(frame.esr);
        FAR.set(frame.far);
        SPSR.set(frame.spsr);
        DAIF.set(read_sysreg!("daif"));
    }
    let is_svc = frame.class() == EC_SVC;
    if vector.offset() >= FROM_EL0 {
        // Back to EL1h, all masked. The SVC at the end of a harmless visit to EL0 is no result.
        if !is_svc {
            CAUGHT.add(1);
        }
        frame.elr = RESUME_AT.get();
        frame.spsr = DAIF_MASKED | 0b0101;
        return;
    }
    CAUGHT.add(1);
    if vector.offset() & 0x180 != 0 {
        // Asynchronous: the interrupted instruction is not at fault.
    } else if is_inside_image(frame.elr) {
        // SVC, HVC and SMC point behind themselves already.
        if !is_svc {
            frame.skip_instruction();
        }
    } else {
        let [.., link] = frame.x;
        frame.elr = link;
    }
}

/// Runs a probe.
pub(crate) fn attempt(probe: impl FnOnce() -> u64) -> Outcome {
    CAUGHT.set(0);
    let value = probe();
    let caught = (CAUGHT.get() != 0).then(|| Caught {
        vector: VECTOR.get(),
        esr: ESR.get(),
        far: FAR.get(),
        spsr: SPSR.get(),
        daif: DAIF.get(),
    });
    Outcome { value, caught }
}

impl Caught {
    fn class(self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// Says whether the state around the exception is as a real one would leave it.
    fn is_well_formed(self) -> bool {
        let came_from = match self.vector & !0x7f {
            FROM_EL1T => 0b0100,
            FROM_EL1H => 0b0101,
            _ => 0b0000,
        };
        self.spsr & SPSR_MODE == came_from && self.daif & DAIF_MASKED == DAIF_MASKED
    }

    fn is_external_abort(self, classes: &[u64], far: u64, vector: u64) -> bool {
        classes.contains(&self.class())
            && self.esr & 0x3f == FSC_EXTERNAL
            && self.esr & ESR_IL != 0
            && self.far == far
            && self.vector == vector
            && self.is_well_formed()
    }

    fn is_data_abort(self, far: u64, vector: u64, write: Option<bool>) -> bool {
        let class = if vector == FROM_EL0 {
            EC_DATA_ABORT_LOWER
        } else {
            EC_DATA_ABORT
        };
        self.is_external_abort(&[class], far, vector)
            && self.esr & ESR_ISV == 0
            && write.is_none_or(|write| (self.esr & ESR_WNR != 0) == write)
            && (write.is_none() || self.esr & ESR_CM == 0)
    }

    fn is_absent_register(self) -> bool {
        (self.class() == EC_TRAPPED_REGISTER || EC_VECTORS_OFF.contains(&self.class()))
            && self.vector == FROM_EL1H
            && self.is_well_formed()
    }

    fn is_undefined(self) -> bool {
        self.class() == EC_UNKNOWN && self.vector == FROM_EL1H && self.is_well_formed()
    }
}

impl Outcome {
    fn is(self, expected: Expect) -> bool {
        match (expected, self.caught) {
            (Expect::ReadAbort { far, vector }, Some(caught)) => {
                caught.is_data_abort(far, vector, Some(false))
            }
            (Expect::WriteAbort { far, vector }, Some(caught)) => {
                caught.is_data_abort(far, vector, Some(true))
            }
            (Expect::AccessAbort { far }, Some(caught)) => {
                caught.is_data_abort(far, FROM_EL1H, None)
            }
            (Expect::FetchAbort { far }, Some(caught)) => {
                caught.is_external_abort(&[EC_FETCH_ABORT], far, FROM_EL1H)
            }
            (Expect::Undefined, Some(caught)) => caught.is_undefined(),
            (Expect::ValueOrUndefined, Some(caught)) => {
                caught.is_undefined() || caught.is_absent_register()
            }
            (Expect::Refusal, None) => {
                // A 32-bit call may answer in 32 bits.
                self.value.cast_signed() < 0 || (self.value as u32).cast_signed() < 0
            }
            (Expect::Value | Expect::ValueOrUndefined, None) => true,
            (Expect::Survival, _) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.caught {
            None => write!(f, "value={:#x}", self.value),
            Some(caught) if caught.class() == EC_UNKNOWN => {
                write!(f, "undef esr={:#x}", caught.esr)
            }
            Some(Caught {
                vector, esr, far, ..
            }) => {
                write!(f, "esr={esr:#x} far={far:#x} vector={vector:#x}")
            }
        }
    }
}

/// Counts the probe and prints its line; an unexpected outcome has `UNEXPECTED` at its end.
pub(crate) fn report(what: fmt::Arguments<'_>, outcome: Outcome, expected: Expect) {
    PROBES.add(1);
    if outcome.is(expected) {
        println!("prober: {what} -> {outcome}");
    } else {
        UNEXPECTED.add(1);
        println!("prober: {what} -> {outcome} UNEXPECTED");
    }
}

/// Runs a probe and reports it: `probe!(expected, { code -> u64 }, "what {}", ..)`.
#[macro_export]
macro_rules! probe {
    ($expected:expr, $probe:expr, $($what:tt)*) => {
        $crate::engine::report(
            format_args!($($what)*),
            $crate::engine::attempt($probe),
            $expected,
        )
    };
}

/// Values, UNDEFINED instructions and aborts of a sweep over many registers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    count: u64,
    values: u64,
    aborts: u64,
    others: u64,
}

impl Tally {
    /// Counts one access.
    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.count += 1;
        match outcome.caught {
            None => self.values += 1,
            Some(caught) if matches!(caught.class(), EC_DATA_ABORT) && caught.is_well_formed() => {
                self.aborts += 1;
            }
            Some(_) => self.others += 1,
        }
    }

    /// Reports the sweep in one line; any exception but a data abort is unexpected.
    pub(crate) fn report(self, what: fmt::Arguments<'_>) {
        PROBES.add(self.count);
        let Self {
            count,
            values,
            aborts,
            others,
        } = self;
        UNEXPECTED.add(others);
        let end = if others == 0 { "" } else { " UNEXPECTED" };
        println!("prober: {what} -> accesses={count} values={values} aborts={aborts}{end}");
    }
}

/// Returns the number of probes so far, and of those with an unexpected outcome.
pub(crate) fn counts() -> (u64, u64) {
    (PROBES.get(), UNEXPECTED.get())
}
