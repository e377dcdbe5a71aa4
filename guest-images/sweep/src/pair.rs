// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second vCPU, for rounds in which two take part.
//!
//! Nothing here is a read-modify-write: each word has one writer, and the other vCPU looks at it.

use crate::pages::Pages;
use crate::registers::{Registers, System};
use crate::{ops, physical_now, sleep_until, take_serrors};
use firebreak_abi::guest_map::VTIMER_INTID;
use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::psci::{self, SecondaryStack};
use firebreak_guest_rt::{gic, println, write_sysreg};

/// What the second vCPU does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Other {
    /// There is none.
    Nobody,
    /// It waits for an SGI, with a pattern in each register.
    Receives,
    /// It is off. Each round turns it on; it looks around, says so, and goes off.
    IsStarted,
    /// It waits, and is stopped with its partition.
    Waits,
    /// It touches pages and calls EL2, until a page is gone.
    Touches,
}

/// AFFINITY_INFO, 64-bit, and what it says of a vCPU that is off.
const AFFINITY_INFO: u64 = 0xc400_0004;
const OFF: i64 = 1;
/// How long the other one may take, and how often to look, in ticks.
const PATIENCE_TICKS: u64 = 4_000_000;
const LOOK_TICKS: u64 = 50_000;
/// Patterns of the second vCPU are those of other rounds.
const OTHER_ROUNDS: u64 = 1 << 40;

static STACK: SecondaryStack = SecondaryStack::new();
/// Rounds that the first vCPU began; it writes this.
static ASKED: Cell64 = Cell64::new(0);
/// Rounds that the second one finished; it writes this.
static ANSWERED: Cell64 = Cell64::new(0);
/// The second vCPU is there; it writes this.
static READY: Cell64 = Cell64::new(0);
/// All registers of a vCPU at its first instruction, but x0, in one: `rounds.S` writes it.
#[unsafe(no_mangle)]
static sweep_residue: Cell64 = Cell64::new(0);
/// The round is over for the first vCPU, which is not 0 then; it writes this.
static OVER: Cell64 = Cell64::new(0);
/// The pages that are gone for the second vCPU; it writes this.
static GONE: Cell64 = Cell64::new(0);
/// The first of the pages that are looked at; the first vCPU writes this.
static PAGES: Cell64 = Cell64::new(0);
/// Length of a period, for the second vCPU; the first one writes this.
static PERIOD: Cell64 = Cell64::new(1);

unsafe extern "C" {
    fn sweep_secondary_entry();
}

impl Other {
    /// Brings the second vCPU to where the rounds need it.
    pub(crate) fn start(self, period_ticks: u64) {
        PERIOD.set(period_ticks);
        let function: extern "C" fn() -> ! = match self {
            Self::Nobody | Self::IsStarted => return,
            Self::Receives | Self::Waits => receive,
            Self::Touches => touch,
        };
        if self == Self::Touches {
            PAGES.set(Pages::new().first());
        }
        let answer = psci::cpu_on(1, &STACK, function);
        wait(this_period(), "start", || answer == 0 && READY.get() != 0);
    }

    /// Says that a round is about to begin. Returns x1 to x3 of the CPU_ON that begins it.
    pub(crate) fn ask(self) -> [u64; 3] {
        OVER.set(0);
        ASKED.add(1);
        if self == Self::Touches {
            write_sysreg!("s3_0_c12_c11_5", gic::sgi_to(1, ops::SGI));
        }
        let entry = sweep_secondary_entry as *const () as u64;
        [1, entry, STACK.prepare(started)]
    }

    /// Takes that back: it was too late for the round.
    pub(crate) fn take_back(self) {
        ASKED.add(u64::MAX);
    }

    /// Waits for the second vCPU's part of a round. Returns the differences.
    pub(crate) fn await_answer(self, round: u64) -> u64 {
        OVER.set(1);
        let has_answered = || match self {
            Self::Nobody | Self::Waits => true,
            Self::Receives | Self::Touches => ANSWERED.get() == ASKED.get(),
            Self::IsStarted => {
                let is_off = || psci::hvc(AFFINITY_INFO, [1, 0, 0]) == OFF;
                ANSWERED.get() == ASKED.get() && is_off()
            }
        };
        let bad = wait(round, "answer", has_answered);
        if self != Self::Touches {
            return bad;
        }
        let mut pages = Pages::from(PAGES.get());
        let bad = bad + pages.follow(pages.look(), GONE.get(), round);
        PAGES.set(pages.first());
        bad
    }
}

fn wait(round: u64, what: &str, done: impl Fn() -> bool) -> u64 {
    let start = physical_now();
    while !done() {
        if physical_now() - start > PATIENCE_TICKS {
            let (asked, answered) = (ASKED.get(), ANSWERED.get());
            println!(
                "sweep: bad round={round} no {what} from vCPU 1: asked={asked:#x} answered={answered:#x}"
            );
            return 1;
        }
        sleep_until(physical_now() + LOOK_TICKS, PERIOD.get());
    }
    0
}

/// Returns the number of the period, which names a round.
fn this_period() -> u64 {
    physical_now() / PERIOD.get()
}

extern "C" fn receive() -> ! {
    begin();
    for round in 1.. {
        await_sgi(round);
        ANSWERED.set(round);
    }
    psci::cpu_off()
}

fn begin() {
    gic::init_cpu();
    gic::enable_private(ops::SGI as u32);
    gic::enable_private(VTIMER_INTID);
    READY.set(1);
}

/// Waits for the SGI of a round, with a pattern in each register. Takes the virtual SErrors that come
/// before.
fn await_sgi(round: u64) {
    let number = OTHER_ROUNDS + round;
    let mut intid = None;
    while intid.is_none() {
        let mut given = Registers::of(number);
        given.x[29] = 0;
        let system = System::scramble(number);
        let mut found = given;
        ops::receive(&mut found);
        let now = this_period();
        found.compare(&given, 1 << 29, now);
        System::read().compare(&system, now);
        intid = gic::acknowledge();
        intid.into_iter().for_each(gic::end);
        if !take_serrors(|| now) && intid.is_none() {
            println!("sweep: bad round={now} vCPU 1 woke up for nothing");
        }
    }
    let now = this_period();
    let wanted = [
        (intid.map(u64::from), Some(ops::SGI)),
        (gic::acknowledge().map(u64::from), None),
    ];
    for (found, wanted) in wanted {
        if found != wanted {
            println!("sweep: bad round={now} vCPU 1 took {found:?}, wanted {wanted:?}");
        }
    }
    if ASKED.get() != round {
        let asked = ASKED.get();
        println!("sweep: bad round={now} vCPU 1 was asked {asked} times");
    }
}

extern "C" fn touch() -> ! {
    begin();
    for round in 1.. {
        await_sgi(round);
        let pages = Pages::from(PAGES.get());
        let number = OTHER_ROUNDS + round;
        let [first, end, stride] = pages.range();
        let mut given = Registers::of(number);
        given.x[2..6].copy_from_slice(&[(&raw const OVER) as u64, first, end, stride]);
        let system = System::scramble(number);
        let mut found = given;
        if !pages.is_empty() {
            ops::touch(&mut found);
            let after = System::read();
            let now = this_period();
            // The call's answer, the cursor, what was loaded, and what there was left.
            found.compare(&given, 1 | 1 << 1 | 1 << 29 | 1 << 30, now);
            after.compare(&system.after_exception(&after), now);
        }
        // At least one interrupt in each round.
        sleep_until(physical_now() + LOOK_TICKS, PERIOD.get());
        wait(this_period(), "end of the round", || OVER.get() != 0);
        take_serrors(this_period);
        GONE.set(pages.look());
        ANSWERED.set(round);
    }
    psci::cpu_off()
}

extern "C" fn started() -> ! {
    let round = ASKED.get();
    let now = this_period();
    if sweep_residue.get() != 0 {
        let found = sweep_residue.get();
        println!("sweep: bad round={now} at-reset x1-x30={found:#x} wanted=0x0");
    }
    System::read().compare_with_reset(now);
    System::scramble(OTHER_ROUNDS + round);
    take_serrors(|| now);
    ANSWERED.set(round);
    psci::cpu_off()
}
