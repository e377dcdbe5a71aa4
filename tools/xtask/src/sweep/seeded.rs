// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults that the hypervisor can be built with, each of which the sweep has to find.

use anyhow::{Context, Result, bail};

use super::paths::{Kind, Mode, PATHS};
use super::symbols::Symbols;
use super::{HYPERVISOR_BASE, machine, one};
use crate::process::step;
use crate::{build, paths};

/// Features of the hypervisor, and the mode in which each shows.
const SEEDS: [(&str, Mode); 3] = [
    ("seed-elr-saved-late", Mode::Conforming),
    ("seed-no-rewind", Mode::Conforming),
    ("seed-wrong-partition", Mode::Conforming),
];
/// Where each shows.
const PATH: &str = "hvc";

/// Builds each, sweeps, and fails for the one that stays hidden.
pub(super) fn run() -> Result<()> {
    let guest = Symbols::read(&paths::out().join("guests/sweep.elf"), 0)?;
    let path = PATHS
        .iter()
        .find(|path| path.name == PATH)
        .context("the path of the seeded faults is gone")?;
    for (feature, mode) in SEEDS {
        let to = machine::dir().join(feature);
        let elf = build::featured_hypervisor(feature, &to)?;
        let symbols = Symbols::read(&elf, HYPERVISOR_BASE)?;
        // A guest that dies of it ends the sweep early, which finds it as well.
        let found = match one((path, mode, Kind::Ueo), Some(&to), &symbols, &guest) {
            Ok(row) => row.failures,
            Err(error) => vec![format!("{error:#}")],
        };
        let Some(first) = found.first() else {
            bail!("{feature}: the sweep does not find this fault");
        };
        let line = first.lines().next().unwrap_or_default();
        step(format!("sweep: {feature} is found: {line}"));
    }
    Ok(())
}
