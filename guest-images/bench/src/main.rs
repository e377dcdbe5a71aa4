// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bench guest: what an exit costs, in ticks of the virtual counter.
//!
//! Run under `-icount shift=0,sleep=off` with a counter of 1 GHz, one tick is one instruction,
//! of guest and hypervisor together. Each operation is measured as the difference of two
//! readings of CNTVCT_EL0, less what an empty pair of readings gives. Latencies of interrupts
//! run from the reading before the SGI is sent, or from the timer's compare value, to the reading
//! that the vector's second instruction makes; nothing is taken off them.
//!
//! A figure that the machine cannot give (SMC without EL3 or EL2, a single vCPU) is left out,
//! with a line that says so.
#![no_std]
#![no_main]

mod ops;
mod queue;
mod samples;

use firebreak_abi::guest_map::{UART, VTIMER_INTID};
use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::exception::{EC_UNKNOWN, Kind, unexpected};
use firebreak_guest_rt::psci::{self, SecondaryStack};
use firebreak_guest_rt::{Boot, Frame, Vector, cpu, gic, guest, println, timer};
use samples::{SAMPLES, Samples, Summary, TIMER_SAMPLES};

/// A call in the vendor-specific hypervisor range that nobody defines.
const UNKNOWN_CALL: u64 = 0x4b00_0000;
/// The SGI that is measured.
const SGI: u64 = 1;
/// Offset of the PL011's flag register.
const UARTFR: u64 = 0x18;
/// From programming the timer to its expiry: long enough to be spinning or asleep by then.
const TIMER_LEAD_TICKS: u64 = 5000;
/// Turns that vCPU 0 waits for vCPU 1 to start.
const START_SPINS: u64 = 10_000_000;

/// When the last interrupt of each vCPU entered its vector; 0 while one is awaited. The vCPU's
/// handler writes the time, and vCPU 0 the zero while no interrupt is on its way.
static ENTERED_AT_TICKS: [Cell64; 2] = [const { Cell64::new(0) }; 2];
/// Counts UNDEFINED instructions; the handler writes it.
static UNDEFINED: Cell64 = Cell64::new(0);
/// 1 from when vCPU 1 takes interrupts.
static SECONDARY_READY: Cell64 = Cell64::new(0);
static SECONDARY_STACK: SecondaryStack = SecondaryStack::new();

fn on_irq(frame: &Frame) {
    while let Some(intid) = gic::acknowledge() {
        if intid == VTIMER_INTID {
            timer::stop();
        }
        gic::end(intid);
    }
    if let Some(entered) = ENTERED_AT_TICKS.get(cpu::index() as usize) {
        entered.set(frame.entered_at_ticks);
    }
}

fn on_exception(frame: &mut Frame, vector: Vector) {
    match vector.kind() {
        Kind::Irq => on_irq(frame),
        Kind::Sync if frame.class() == EC_UNKNOWN => {
            UNDEFINED.add(1);
            frame.skip_instruction();
        }
        _ => unexpected(frame, vector),
    }
}

/// Waits until the vCPU's interrupt has come. Returns when it entered the vector.
fn await_entry(vcpu: usize) -> u64 {
    let Some(cell) = ENTERED_AT_TICKS.get(vcpu) else {
        return 0;
    };
    loop {
        let entered_at_ticks = cell.get();
        if entered_at_ticks != 0 {
            cell.set(0);
            return entered_at_ticks;
        }
        cpu::yield_now();
    }
}

fn sgi_latency(vcpu: u64) -> u64 {
    let sent_at_ticks = ops::send_sgi(gic::sgi_to(vcpu, SGI));
    await_entry(vcpu as usize).wrapping_sub(sent_at_ticks)
}

fn timer_latency(turn: usize, asleep: bool) -> u64 {
    // The distance changes from turn to turn, so that no loop of the guest fits it.
    let due_ticks = timer::now() + TIMER_LEAD_TICKS + ((turn as u64 * 7) & 63);
    if asleep {
        // Masked until it wakes, as the timer may expire before WFI where time does not stand
        // still between two instructions. The unmasking is part of the latency.
        cpu::mask_irq();
        timer::arm(due_ticks);
        cpu::wfi();
        cpu::unmask_irq();
    } else {
        timer::arm(due_ticks);
    }
    await_entry(0).wrapping_sub(due_ticks)
}

/// Ticks from the machine's reset to the guest's first instruction.
///
/// The guest's own count may have been set to start at 0, so what the physical counter is ahead
/// of it is added. Where that counter is out of reach, nothing is.
fn ticks_to_first_instruction(boot: Boot) -> u64 {
    boot.entered_at_ticks + ops::physical_count_lead()
}

extern "C" fn secondary_main() -> ! {
    gic::init_cpu();
    gic::enable_private(SGI as u32);
    cpu::unmask_irq();
    SECONDARY_READY.set(1);
    loop {
        cpu::yield_now();
    }
}

/// Starts vCPU 1. Returns why it cannot be had.
fn start_secondary() -> Result<(), i64> {
    match psci::cpu_on(1, &SECONDARY_STACK, secondary_main) {
        0 => {}
        error => return Err(error),
    }
    for _ in 0..START_SPINS {
        if SECONDARY_READY.get() != 0 {
            return Ok(());
        }
        cpu::yield_now();
    }
    Err(0)
}

fn measure_calls(samples: &mut Samples) {
    samples.report("hvc_psci_version", SAMPLES, |_| ops::hvc(psci::VERSION));
    samples.report("hvc_unknown", SAMPLES, |_| ops::hvc(UNKNOWN_CALL));
    ops::smc(psci::VERSION);
    if UNDEFINED.get() == 0 {
        samples.report("smc_psci_version", SAMPLES, |_| ops::smc(psci::VERSION));
    } else {
        println!("bench: skip op=smc_psci_version reason=undefined");
    }
}

fn measure_devices(samples: &mut Samples) {
    let isenabler0 = gic::isenabler0();
    samples.report("gicd_typer_read", SAMPLES, |_| {
        ops::read32(gic::GICD_TYPER, 0)
    });
    samples.report("gicr_isenabler0_read", SAMPLES, |_| {
        ops::read32(isenabler0, 0)
    });
    // The SGI is enabled already, so this changes nothing but is a write like any other.
    samples.report("gicr_isenabler0_write", SAMPLES, |_| {
        ops::write32(isenabler0, 1 << SGI)
    });
    samples.report("uart_status_read", SAMPLES, |_| {
        ops::read32(UART.get() + UARTFR, 0)
    });
}

fn measure_interrupts(samples: &mut Samples) {
    samples.report("sgi_self", SAMPLES, |_| sgi_latency(0));
    samples.report("vtimer", TIMER_SAMPLES, |turn| timer_latency(turn, false));
    samples.report("vtimer_wfi", TIMER_SAMPLES, |turn| {
        timer_latency(turn, true)
    });
    // Last, as a second vCPU shares the clock of all that is measured after it.
    match start_secondary() {
        Ok(()) => samples.report("ipi", SAMPLES, |_| sgi_latency(1)),
        Err(error) => println!("bench: skip op=ipi reason=cpu_on={error}"),
    }
}

fn main(boot: Boot) -> ! {
    // SAFETY: `main` runs once.
    let mut samples = unsafe { Samples::take() };
    let ticks = ticks_to_first_instruction(boot);
    samples::print(
        "boot_to_guest",
        1,
        Summary {
            min: ticks,
            median: ticks,
            max: ticks,
        },
    );

    gic::init_distributor();
    gic::init_cpu();
    gic::enable_private(VTIMER_INTID);
    gic::enable_private(SGI as u32);
    cpu::unmask_irq();

    samples.calibrate(|_| ops::empty());
    measure_calls(&mut samples);
    measure_devices(&mut samples);
    queue::measure(&mut samples);
    samples.without_empty_pair();
    measure_interrupts(&mut samples);
    println!("bench: done");
    psci::system_off()
}

guest!(main, on_exception);
