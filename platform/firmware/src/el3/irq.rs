// SPDX-License-Identifier: MIT OR Apache-2.0
//! Group 0 interrupts: the secure UART, the secure timer, and the SGI between PEs' firmware.

use firebreak_el3::command::{Command, LineBuffer};
use firebreak_el3::errors::Order;
use spin::Mutex;

use super::frame::Frame;
use super::{gic, gpt, lock, log, ras, sysreg};

/// Most interrupts handled in one go: a device that never falls silent must not keep EL3 here.
const MOST: usize = 16;

/// The line that the host is typing.
static LINE: Mutex<LineBuffer> = Mutex::new(LineBuffer::new());

/// Called by `vectors.S` for an FIQ from below.
#[unsafe(no_mangle)]
extern "C" fn el3_fiq(frame: &mut Frame) {
    drain(sysreg::this_pe(), Some(frame));
}

/// Lets the host's commands in.
pub(super) fn enable_uart() {
    log::enable_rx_interrupt();
}

/// Handles what is pending in Group 0 on this PE. `frame` is the interrupted context, none when
/// the PE is off.
pub(super) fn drain(pe: usize, frame: Option<&mut Frame>) {
    for _ in 0..MOST {
        // The level-sensitive sources must still be asserted here, or the read says 1023.
        let intid = sysreg::icc_iar0_el1() as u32 & 0xff_ffff;
        match intid {
            gic::UART_INTID => read_commands(pe),
            gic::TIMER_INTID => sysreg::write_cntps_ctl_el1(0),
            gic::SGI_INTID => {}
            _ => break,
        }
        sysreg::isb();
        sysreg::write_icc_eoir0_el1(u64::from(intid));
        sysreg::isb();
    }
    ras::service(pe, frame, false);
}

/// Reads all that the host has sent.
///
/// Without a bound, on purpose: the UART raises its interrupt when its FIFO stops being empty, so
/// a byte left behind would silence it for good. The host is trusted to pause.
fn read_commands(pe: usize) {
    // In this order: a byte that comes between the last read and a clear behind it would lose
    // its interrupt.
    log::clear_rx_interrupt();
    while let Some(byte) = log::read_byte() {
        match lock::with(&LINE, |line| line.push(byte)) {
            Some(Ok(command)) => run(pe, command),
            Some(Err(text)) => log::line(format_args!("error text={text}")),
            None => {}
        }
    }
}

fn run(this_pe: usize, command: Command) {
    match command {
        Command::Ping => log::line(format_args!("pong")),
        Command::Sweep { pe, plan } => {
            ras::sweep(pe, plan);
            if pe != this_pe {
                ras::wake(pe);
            }
        }
        Command::Type { pe, text } => {
            ras::type_text(pe, text);
            log::line(format_args!("typing pe={pe}"));
            if pe != this_pe {
                ras::wake(pe);
            }
        }
        Command::Behave { pe, modes } => {
            ras::behave(pe, modes);
            match pe {
                Some(pe) => log::line(format_args!("behaving pe={pe} as={modes}")),
                None => log::line(format_args!("behaving pe=all as={modes}")),
            }
        }
        Command::Poison { pa, answer } => {
            let pa = pa.unwrap_or_else(gpt::stage2_table);
            gpt::tell("poisoned", pa, gpt::poison(pa, answer));
        }
        Command::Heal { pa } => gpt::tell("healed", pa, gpt::heal(pa)),
        Command::Raise { pe, with, order } => {
            for pe in with.into_iter().chain([pe]) {
                post(this_pe, pe, order);
            }
        }
    }
}

fn post(this_pe: usize, pe: usize, order: Order) {
    match ras::post(pe, order) {
        Ok(()) if pe == this_pe => {}
        Ok(()) => ras::wake(pe),
        Err(text) => {
            let id = match order {
                Order::Raise(request) => request.error.id,
                Order::Storm(request) => request.first.id,
            };
            log::line(format_args!("error text={text} id={id} pe={pe}"));
        }
    }
}
