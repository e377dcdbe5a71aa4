// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second vCPU goes on and off, as fast as the first one can ask; or the two relieve each other.

use crate::taken;
use firebreak_abi::guest_map::VTIMER_INTID;
use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::psci::{self, SecondaryStack};
use firebreak_guest_rt::{cpu, gic, println, timer};

const ROUNDS: u64 = 200;
/// PSCI's ALREADY_ON and ON_PENDING.
const NOT_YET: [i64; 2] = [-4, -5];
/// How long a round may take, in seconds of the guest.
const ROUND_LIMIT_S: u64 = 20;

static STACK: SecondaryStack = SecondaryStack::new();
/// Rounds that the second vCPU finished. Written by it alone.
static FINISHED: Cell64 = Cell64::new(0);

/// One round: take an interrupt of the own timer, say so, go off. The interrupt is enabled in the
/// first round only: what the redistributor holds outlives CPU_OFF.
extern "C" fn secondary() -> ! {
    if FINISHED.get() == 0 {
        gic::init_cpu();
        gic::enable_private(VTIMER_INTID);
    } else {
        gic::init_cpu_interface();
    }
    let before = taken(VTIMER_INTID);
    timer::arm(timer::now() + timer::frequency_hz() / 20_000);
    cpu::unmask_irq();
    while taken(VTIMER_INTID) == before {
        cpu::yield_now();
    }
    FINISHED.add(1);
    psci::cpu_off()
}

/// Turns the second vCPU on again and again, from the moment on at which it says that it goes.
pub(crate) fn rounds() {
    let limit_ticks = timer::frequency_hz() * ROUND_LIMIT_S;
    let first = FINISHED.get();
    for round in first..first + ROUNDS {
        let started_at = timer::now();
        loop {
            match psci::cpu_on(1, &STACK, secondary) {
                0 => break,
                answer if NOT_YET.contains(&answer) => cpu::yield_now(),
                answer => return println!("cases: rounds: CPU_ON answers {answer}"),
            }
        }
        while FINISHED.get() == round {
            if timer::now() - started_at > limit_ticks {
                return println!("cases: rounds: number {round} was lost");
            }
            cpu::yield_now();
        }
    }
    println!("cases: rounds={ROUNDS}");
}

/// Reliefs of the relay.
const RELIEFS: u64 = 1500;
/// For each vCPU: the function of a call stands on the stack, and the next call must not change it.
static RELAY_STACKS: [SecondaryStack; 2] = [SecondaryStack::new(), SecondaryStack::new()];
static SHORT_STACKS: [SecondaryStack; 2] = [SecondaryStack::new(), SecondaryStack::new()];
/// Reliefs so far. Written by the one that is on.
static RELIEVED: Cell64 = Cell64::new(0);

extern "C" fn goes_off() -> ! {
    psci::cpu_off()
}

/// Turns a vCPU on, as soon as that can be.
fn turn_on(index: u64, stacks: &'static [SecondaryStack; 2], function: extern "C" fn() -> !) {
    let Some(stack) = stacks.get(index as usize) else {
        return;
    };
    loop {
        match psci::cpu_on(index, stack, function) {
            0 => return,
            answer if NOT_YET.contains(&answer) => {}
            answer => println!("cases: relay: CPU_ON answers {answer}"),
        }
    }
}

/// Turns the other vCPU on, which goes off at once; turns it on again while its PE still parks it,
/// and goes off: the other one does the same then.
pub(crate) extern "C" fn relay() -> ! {
    let other = 1 - cpu::index();
    RELIEVED.add(1);
    if RELIEVED.get() > RELIEFS {
        println!("cases: relay={RELIEFS}");
        loop {
            cpu::yield_now();
        }
    }
    turn_on(other, &SHORT_STACKS, goes_off);
    turn_on(other, &RELAY_STACKS, relay);
    psci::cpu_off()
}
