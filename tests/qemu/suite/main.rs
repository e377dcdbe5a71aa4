// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots the whole system in QEMU, one machine for each case.
//!
//! An outcome is decided by what firmware, hypervisor and guests say, decoded; never by sleeping
//! or by how long something took. Deadlines are generous, and only say that it is over.
//! Run it with `cargo xtask test qemu`, which builds what is booted here.
#![forbid(unsafe_code)]

mod attribution;
mod boards;
mod boot;
mod campaign;
mod control;
mod crash;
mod demo;
mod errors;
mod guests;
mod harness;
mod lifecycle;
mod line;
mod misbehavior;
mod passthrough;
mod poison;
mod reactions;
mod records;
mod refusals;
mod regressions;
mod reload;
mod run_command;
mod sea;
mod spares;
mod storm;
mod uboot;
mod vserror;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Machines that run side by side; each keeps up to four host threads busy.
const MACHINES_AT_ONCE: usize = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(MACHINES_AT_ONCE);
    let mut trials: Vec<Trial> = Vec::new();
    boot::add(&mut trials);
    boards::add(&mut trials);
    line::add(&mut trials);
    records::add(&mut trials);
    refusals::add(&mut trials);
    guests::add(&mut trials);
    regressions::add(&mut trials);
    errors::add(&mut trials);
    attribution::add(&mut trials);
    misbehavior::add(&mut trials);
    poison::add(&mut trials);
    sea::add(&mut trials);
    spares::add(&mut trials);
    passthrough::add(&mut trials);
    uboot::add(&mut trials);
    control::add(&mut trials);
    lifecycle::add(&mut trials);
    reload::add(&mut trials);
    run_command::add(&mut trials);
    vserror::add(&mut trials);
    crash::add(&mut trials);
    storm::add(&mut trials);
    campaign::add(&mut trials);
    reactions::add(&mut trials);
    demo::add(&mut trials);
    libtest_mimic::run(&arguments, trials).exit_code()
}
