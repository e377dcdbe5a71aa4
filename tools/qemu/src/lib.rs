// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs QEMU, and decodes what comes over its serial lines.
//!
//! [`Machine`] describes a machine, [`Running`] is one that runs: its serial lines are read by
//! threads and taken apart ([`Demux`], [`FirmwareLine`]) into one log of [`Record`]s, in which
//! callers wait for what they expect. Nothing here sleeps to let something happen: a caller
//! names what it waits for and how long at most, and a wait that fails shows what was there
//! instead.
//!
//! The demultiplexer is the mirror of `firebreak-wire`: no byte that a guest prints can come out
//! of it as an event, as another guest's line, or as the hypervisor's own words.
#![deny(unsafe_code)]

mod bound;
mod debugger;
mod demux;
mod firmware;
mod line;
mod log;
mod machine;
mod qmp;
mod reader;
mod running;
mod storm;

pub use bound::end_all;
pub use debugger::Debugger;
pub use demux::{Demux, Event, Item};
pub use firmware::{FirmwareLine, Raise};
pub use line::field;
pub use log::{Failure, Mark, Record};
pub use machine::{
    BOOTLOADER_IMAGE_PA, Ended, Error, Machine, Opened, Tap, deadline, loader, qemu_binary,
    qemu_version,
};
pub use running::{Clock, Running};
pub use storm::{Storm, StormAccount};
