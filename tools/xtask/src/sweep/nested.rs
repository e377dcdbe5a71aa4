// SPDX-License-Identifier: MIT OR Apache-2.0
//! An SEI in what another SEI sets off.
//!
//! While a record is not acknowledged the firmware brings no other one. So the SEI that opens each
//! period comes without a record, and the one that sweeps finds EL2 in the path of the first.

use anyhow::{Context, Result};

use super::fourth;
use super::lives;
use super::machine::{Swept, System};
use super::paths::{Kind, Mode, Opening, PERIOD_TICKS, Path, path};
use super::symbols::Symbols;
use super::targets::Targets;

/// In the guest's round of no-operations, which begins with some twenty others.
const IN_GUEST_TICKS: u64 = 48;
/// How far in the wait of EL2 the SEI comes that is to find it there, at most.
const MOST_INTO_WAIT_TICKS: u64 = 64;

/// Opened where the path is going to say: see [`opened`].
const LATER: Opening = Opening::once(0, Kind::Bare);

/// Two errors in each period, of which the host is to hear one by one.
const fn opened_path(name: &'static str, round: &'static str, label: &'static str) -> Path {
    Path {
        round,
        period_ticks: 2 * PERIOD_TICKS,
        openings: [Some(LATER), None],
        ..path(name, label, false)
    }
}

/// The first SEI finds the guest.
pub(super) const SEI: Path = Path {
    short: true,
    ..opened_path("sei", "guest", "guest")
};
/// It finds EL2 on the way back to the guest.
pub(super) const IN_EXIT: Path = Path {
    short: true,
    ..opened_path("sei_nested", "hvc", "hvc")
};
/// It finds EL2 in the wait for a guest that is suspended. Of EL2 at work an SEI without a record
/// leaves nothing.
pub(super) const IN_WAIT: Path = opened_path("sei_nested_wait", "suspend", "hvc");

/// Says whether a path is one in the SEI path itself.
pub(super) fn is_sei_path(path: &Path) -> bool {
    path.last_opening()
        .is_some_and(|opening| opening.error == Kind::Bare)
}

/// Says whether the firmware notifies EL2 of errors that it would not hand it by itself.
pub(super) fn notifies_all(path: &Path) -> bool {
    path.name == IN_EXIT.name || path.name == IN_WAIT.name || fourth::is_one(path)
}

/// Returns how the firmware is to behave. By itself it would not notify EL2 of an SEI without a
/// record that found EL2; a firmware without triage does.
pub(super) fn behavior(path: &Path, mode: Mode) -> String {
    match (mode, notifies_all(path)) {
        (mode, false) => mode.name().to_owned(),
        (Mode::Conforming, true) => "notifies-uncontainable".to_owned(),
        (Mode::BargeIn, true) => "barge-in+notifies-uncontainable".to_owned(),
    }
}

/// Returns the path with the moments of its opening errors.
pub(super) fn opened(path: &Path, system: System, guest: &Symbols, own: &Symbols) -> Result<Path> {
    if path
        .last_opening()
        .is_none_or(|opening| opening.at_ticks != 0)
    {
        return Ok(*path);
    }
    let trace = |openings| {
        let part = Path { openings, ..*path };
        Swept::boot(&part, system, None)?.trace(guest, own)
    };
    let never = || format!("path {}: its round never gets there", path.name);
    let mut opened = *path;
    if let [Some(first), Some(second)] = path.openings {
        let alone = trace([Some(first), None])?;
        let at_ticks = lives::second_moment(&alone).with_context(never)?;
        opened.openings[1] = Some(Opening { at_ticks, ..second });
        return Ok(opened);
    }
    let at_ticks = if path.name == SEI.name {
        IN_GUEST_TICKS
    } else {
        moment(path, &trace([None; 2])?, own).with_context(never)?
    };
    opened.openings = [Some(Opening { at_ticks, ..LATER }), None];
    Ok(opened)
}

/// Returns when EL2 is where the first SEI of a path is to find it.
fn moment(path: &Path, plain: &Targets, own: &Symbols) -> Option<u64> {
    let windows = own.windows();
    let within = |name: &str| windows.get(name).cloned();
    if path.name == IN_EXIT.name {
        let executed = plain.executed.range(within("exit")?);
        let offsets: Vec<u64> = executed.map(|(_, at)| *at).collect();
        return offsets.get(offsets.len() / 2).copied();
    }
    let executed = plain.executed.range(within("idle")?);
    let mut offsets: Vec<u64> = executed.map(|(_, at)| *at).collect();
    offsets.sort_unstable();
    // In the middle of the WFI, and not at the first instruction of the wait: the way there is some
    // instructions longer or shorter from round to round.
    let gap = offsets
        .windows(2)
        .filter_map(|two| Some((two[1].checked_sub(two[0])?, two[0])))
        .max();
    match gap {
        Some((len, start)) if len > 2 => Some(start + (len / 2).min(MOST_INTO_WAIT_TICKS)),
        _ => offsets.first().copied(),
    }
}
