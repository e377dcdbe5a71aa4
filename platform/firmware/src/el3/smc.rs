// SPDX-License-Identifier: MIT OR Apache-2.0
//! Synchronous exceptions from below: SMC calls of EL2.

use core::sync::atomic::{AtomicU64, Ordering};

use firebreak_abi::{Pa, sei, sei::qemu_virt};
use firebreak_contract::{CperSeverity, Iss, ResetReason};
use firebreak_el3::errors::{self, Order, Request};
use firebreak_el3::poison::EC_GPC;
use firebreak_el3::psci::{self, Error, Psci, Start, function};

use super::frame::Frame;
use super::{PSCI, bert, gic, gpt, lock, log, panic, park, power, ras, sysreg};

/// ESR_EL3.EC: SMC from AArch64.
const EC_SMC64: u64 = 0x17;
/// SPSR_EL3.M\[4:2\] with the execution state: EL2, AArch64.
const MODE_EL2: u64 = 0b010;

/// Called by `vectors.S` for a synchronous exception from below.
#[unsafe(no_mangle)]
extern "C" fn el3_sync(frame: &mut Frame) {
    let esr = sysreg::esr_el3();
    let pe = sysreg::this_pe();
    match esr >> 26 & 0x3f {
        EC_SMC64 => {}
        EC_GPC => return gpt::trapped(pe, frame),
        _ => panic::unexpected(0x400),
    }
    // Only EL2 may call: an SMC of EL1 that the hypervisor did not trap knows nothing here.
    let from_el2 = frame.spsr >> 2 & 0b111 == MODE_EL2;
    if from_el2 && esr & 0xffff == ras::PROBE_IMMEDIATE && ras::probe_reached(pe, frame) {
        return;
    }
    let result = if from_el2 {
        call(pe, frame)
    } else {
        Error::NotSupported.code()
    };
    frame.x[0] = result.cast_unsigned();
}

/// Called by `vectors.S` for a physical SError from below.
#[unsafe(no_mangle)]
extern "C" fn el3_serror(_frame: &mut Frame) {
    panic::unexpected(0x580);
}

/// Carries one call out and returns x0.
fn call(pe: usize, frame: &mut Frame) -> i64 {
    let function = frame.x[0] as u32;
    let wide = function & function::SMC64 != 0;
    let argument = |index: usize| {
        if wide {
            frame.x[index]
        } else {
            frame.x[index] & 0xffff_ffff
        }
    };
    let [a1, a2, a3] = [argument(1), argument(2), argument(3)];
    let outcome = match function & !function::SMC64 {
        function::CPU_ON => cpu_on(
            pe,
            a1,
            Start {
                entry: a2,
                context: a3,
            },
        ),
        function::AFFINITY_INFO => lock::with(&PSCI, |psci| psci.affinity_info(a1, a2)),
        function::CPU_SUSPEND => Psci::check_suspend(a1).map(|()| {
            sysreg::wait_for_interrupt();
            psci::SUCCESS
        }),
        function::SYSTEM_RESET2 => reset("psci"),
        _ if wide => extension(pe, function, frame),
        function::SMCCC_VERSION => Ok(psci::SMCCC_VERSION),
        function::SMCCC_ARCH_FEATURES => match a1 as u32 {
            function::SMCCC_VERSION | function::SMCCC_ARCH_FEATURES => Ok(psci::SUCCESS),
            _ => Err(Error::NotSupported),
        },
        function::PSCI_VERSION => Ok(psci::VERSION),
        function::PSCI_FEATURES => Psci::features(a1 as u32),
        function::MIGRATE_INFO_TYPE => Ok(psci::NOT_MIGRATABLE),
        function::CPU_OFF => cpu_off(pe),
        function::SYSTEM_OFF => {
            log::line(format_args!("psci call=SYSTEM_OFF pe={pe} ret=0"));
            power::off()
        }
        function::SYSTEM_RESET => reset("psci"),
        _ => Err(Error::NotSupported),
    };
    outcome.unwrap_or_else(Error::code)
}

/// Calls of the SEI contract.
fn extension(pe: usize, function: u32, frame: &mut Frame) -> Result<i64, Error> {
    match u64::from(function) {
        sei::smc::VERSION => Ok(sei::smc::INTERFACE_VERSION.cast_signed()),
        sei::smc::RAISE => raise(pe, frame),
        sei::smc::FATAL => fatal(frame),
        sei::smc::UNMASKED => {
            // An error that is delivered here interrupts the caller behind its SMC.
            ras::service(pe, Some(frame), true);
            Ok(psci::SUCCESS)
        }
        _ => Err(Error::NotSupported),
    }
}

/// Numbers of the errors that EL2 raises; the host numbers its own, from 1.
static NEXT_ID: AtomicU64 = AtomicU64::new(1_000_000);

fn raise(pe: usize, frame: &mut Frame) -> Result<i64, Error> {
    let [_, iss, pa, severity, target, delay_ticks, ..] = frame.x;
    let iss = u32::try_from(iss)
        .ok()
        .and_then(Iss::new)
        .ok_or(Error::InvalidParameters)?;
    let record = match u32::try_from(severity).map(CperSeverity::from_raw) {
        Err(_) | Ok(CperSeverity::Unknown(_)) => return Err(Error::InvalidParameters),
        Ok(severity) => Some(severity),
    };
    let target = usize::try_from(target).map_err(|_| Error::InvalidParameters)?;
    let error = errors::Error {
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        iss,
        pa: (pa != sei::smc::NO_ADDRESS).then_some(Pa::new(pa)),
        record,
        abort: None,
        real: false,
        modes: None,
        in_storm: false,
    };
    let request = Request {
        error,
        delay_ticks,
        in_guest: false,
    };
    ras::post(target, Order::Raise(request)).map_err(|_| Error::InvalidParameters)?;
    if target == pe {
        ras::service(pe, Some(frame), false);
    } else {
        ras::wake(target);
    }
    Ok(psci::SUCCESS)
}

fn fatal(frame: &Frame) -> Result<i64, Error> {
    let [_, start, length, ..] = frame.x;
    let length = length.min(qemu_virt::BERT_LEN);
    let end = start.checked_add(length).ok_or(Error::InvalidParameters)?;
    if !psci::is_ram(start) || !psci::is_ram(end) {
        return Err(Error::InvalidParameters);
    }
    let shared = core::ptr::with_exposed_provenance::<u8>(start as usize);
    let mut block = [0; qemu_virt::BERT_LEN as usize];
    // A private copy: what is checked is what is kept, and where there is no RAM the access
    // faults here, before the boot error record is touched.
    for (index, byte) in block.iter_mut().enumerate().take(length as usize) {
        // SAFETY: the address is inside of what `boot.S` maps as the normal world's RAM; no Rust
        // reference covers it.
        *byte = unsafe { shared.wrapping_add(index).read_volatile() };
    }
    let reason = ResetReason::FatalCall.name();
    log::line(format_args!("reset reason={reason}"));
    let block = block.get(..length as usize).unwrap_or(&block);
    bert::reset_with_block(block, &bert::place(Some((frame.elr, 2))))
}

fn cpu_on(pe: usize, target: u64, start: Start) -> Result<i64, Error> {
    let result = lock::with(&PSCI, |psci| psci.cpu_on(target, start));
    let ret = result.map_or_else(Error::code, |_| psci::SUCCESS);
    log::line(format_args!(
        "psci call=CPU_ON pe={target} ret={ret} by={pe}"
    ));
    gic::notify(result?);
    Ok(psci::SUCCESS)
}

fn cpu_off(pe: usize) -> Result<i64, Error> {
    // A record that nobody acknowledged would be lost with the PE.
    if !ras::is_quiet(pe) {
        log::line(format_args!(
            "psci call=CPU_OFF pe={pe} ret={}",
            Error::Denied.code()
        ));
        return Err(Error::Denied);
    }
    log::line(format_args!("psci call=CPU_OFF pe={pe} ret=0"));
    lock::with(&PSCI, |psci| psci.cpu_off(pe));
    // Nothing of the normal world may keep waking this PE while it is off.
    sysreg::write_icc_igrpen1_el3(0);
    sysreg::isb();
    park(pe)
}

fn reset(reason: &str) -> ! {
    log::line(format_args!("reset reason={reason}"));
    power::reset()
}
