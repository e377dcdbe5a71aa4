// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sweep guest: does one thing at each multiple of a period of CNTPCT, to the instruction, and
//! checks after each round that nothing of it has changed that should not.
//!
//! Its devicetree's boot arguments say what: `sweep=<path> period=<ticks>`, and `phase=<ticks>` for
//! a guest that does it so much later, out of the way of another one. The firmware strikes
//! at an offset from the same multiples (`sweep` on its line), so that an offset is one
//! instruction of this guest, or of the hypervisor while it handles what the guest did.
//!
//! All exceptions stay masked. A virtual SError is taken between the rounds, and counted; an external
//! abort is expected where a page may be gone, and nowhere else.
#![no_std]
#![no_main]

mod device;
mod lives;
mod ops;
mod pages;
mod pair;
mod registers;

use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::exception::{Kind, unexpected};
use firebreak_guest_rt::{Boot, Frame, Vector, cpu, gic, guest, println, psci, read_sysreg, timer};
use ops::Op;
use registers::{Registers, System};

/// The firmware looks for acknowledgements 20,000 ticks before a period, and strikes only in a
/// period for which it did: this guest must be ready by then.
const READY_TICKS: u64 = 30_000;
/// The wait for the period ends this long before it, in a loop that counts instructions.
const SPIN_TICKS: u64 = 4_000;
/// Rounds between two lines that say that all is well.
const REPORT_ROUNDS: u64 = 8;

/// Virtual SErrors that each vCPU took; it alone writes its own.
static SERRORS: [Cell64; 2] = [const { Cell64::new(0) }; 2];

/// Returns the virtual SErrors that this vCPU took.
fn serrors() -> &'static Cell64 {
    let [first, second] = &SERRORS;
    if read_sysreg!("mpidr_el1") & 0xff == 0 {
        first
    } else {
        second
    }
}

fn on_exception(frame: &mut Frame, vector: Vector) {
    match vector.kind() {
        Kind::SError => serrors().add(1),
        Kind::Sync if pages::is_expected(frame) => {}
        _ => unexpected(frame, vector),
    }
}

/// Finds `key=` in the devicetree and returns the word behind it. The bytes are searched as they
/// are: nobody but the boot arguments has such a word.
fn argument<'a>(dtb: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let at = dtb.windows(key.len()).position(|window| window == key)?;
    let value = dtb.get(at + key.len()..)?;
    let end = value.iter().position(|byte| *byte == 0 || *byte == b' ')?;
    value.get(..end)
}

fn devicetree(boot: Boot) -> &'static [u8] {
    let start = core::ptr::with_exposed_provenance::<u8>(boot.dtb_ipa as usize);
    let byte = |index: usize| {
        // SAFETY: the header of the devicetree, which the boot protocol puts there.
        u32::from(unsafe { start.wrapping_add(index).read() })
    };
    let len = byte(4) << 24 | byte(5) << 16 | byte(6) << 8 | byte(7);
    // SAFETY: its header says so, and nothing writes to it.
    unsafe { core::slice::from_raw_parts(start, len as usize) }
}

fn number(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

fn physical_now() -> u64 {
    read_sysreg!("cntpct_el0")
}

/// When rounds begin.
#[derive(Clone, Copy)]
struct Schedule {
    period_ticks: u64,
    phase_ticks: u64,
}

/// Sleeps until shortly before the next period for which there is time. Returns its start.
fn next_period(schedule: Schedule) -> u64 {
    let Schedule {
        period_ticks,
        phase_ticks,
    } = schedule;
    let earliest = (physical_now() + READY_TICKS).saturating_sub(phase_ticks);
    let start = earliest.div_ceil(period_ticks) * period_ticks + phase_ticks;
    sleep_until(start - SPIN_TICKS, period_ticks);
    start
}

/// Sleeps until CNTPCT has this value. The interrupt that ends it stays masked and is ended here. A
/// virtual SError that comes meanwhile is taken at once.
fn sleep_until(physical_ticks: u64, period_ticks: u64) {
    let behind = physical_now().wrapping_sub(timer::now());
    timer::arm(physical_ticks.wrapping_sub(behind));
    while physical_now() < physical_ticks {
        cpu::wfi();
        take_serrors(|| physical_now() / period_ticks);
    }
    timer::stop();
    drain_interrupts();
}

fn drain_interrupts() {
    while let Some(intid) = gic::acknowledge() {
        if intid == device::INTID {
            // A line that stays high would bring it again, for ever.
            device::clear();
        }
        gic::end(intid);
    }
}

/// Does a round, and says what is not as it must be. Its number is that of its period, by which
/// whoever reads it can tell which error it is about.
fn one_round(op: &Op, schedule: Schedule) -> u64 {
    let start = next_period(schedule);
    let round = start / schedule.period_ticks;
    let mut given = Registers::of(round);
    op.prepare(&mut given, start);
    let system = System::scramble(round);
    let mut found = given;
    if (op.run)(start, &mut found) == 0 {
        // The timer may have expired for nothing.
        timer::stop();
        drain_interrupts();
        op.other.take_back();
        return 0;
    }
    let after = System::read();

    let mut bad = found.compare(&given, op.outputs, round) + after.compare(&system, round);
    bad += op.finish(&found, round);
    take_serrors(|| round);
    bad
}

/// Takes the virtual SError that is pending, if there is one, and says so: with the period that `round`
/// names then, as the firmware may have taken its time shortly before. Returns whether there was.
fn take_serrors(round: impl Fn() -> u64) -> bool {
    let taken = serrors().get();
    cpu::unmask_serror();
    cpu::mask_all();
    let found = serrors().get();
    if found != taken {
        println!("sweep: serror n={found} round={}", round());
    }
    found != taken
}

fn main(boot: Boot) -> ! {
    let dtb = devicetree(boot);
    let Some(op) = argument(dtb, b"sweep=").and_then(Op::named) else {
        println!("sweep: unusable, no path of that name");
        psci::system_off()
    };
    let period_ticks = argument(dtb, b"period=")
        .and_then(number)
        .unwrap_or(1 << 20);
    let schedule = Schedule {
        period_ticks,
        phase_ticks: argument(dtb, b"phase=").and_then(number).unwrap_or(0),
    };
    // A life is told apart by the period in which it begins.
    let born = physical_now() / period_ticks;
    if op.ends_life() {
        lives::check(born);
        lives::soil();
    }
    if op.has_device() {
        device::check(born);
    }
    gic::init_distributor();
    gic::init_cpu();
    gic::enable_private(firebreak_abi::guest_map::VTIMER_INTID);
    gic::enable_private(ops::SGI as u32);
    if op.has_device() {
        device::set_up();
    }
    op.other.start(period_ticks);
    println!(
        "sweep: ready path={} period={period_ticks} born={born}",
        op.name
    );
    // One that the hypervisor had for the first instruction of this life.
    take_serrors(|| born);
    let mut bad = 0;
    for round in 1.. {
        bad += one_round(op, schedule);
        if round % REPORT_ROUNDS == 0 {
            println!(
                "sweep: rounds={round} bad={bad} serrors={}",
                serrors().get()
            );
        }
    }
    psci::system_off()
}

guest!(main, on_exception);
