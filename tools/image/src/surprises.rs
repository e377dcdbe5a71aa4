// SPDX-License-Identifier: MIT OR Apache-2.0
//! What works and will surprise.

use crate::diagnostic::{Problem, Source};
use crate::partition::Partition;

/// Warns of what works and will surprise.
pub(crate) fn of(source: &Source, partition: &Partition) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(unseen_console(source, partition));
    if partition.loaded.is_some() {
        let message = format!(
            "the files of partition \"{}\" are loaded by the bootloader: nothing is known of them",
            partition.name.value
        );
        let remedy = "to have them checked and put into the image, name them by `firebreak,file`";
        let span = partition.image.span.clone();
        problems.push(Problem::error(source, span, message, "not checked", remedy).warning());
    }
    problems
}

fn unseen_console(source: &Source, partition: &Partition) -> Option<Problem> {
    let cmdline = partition.cmdline.as_ref()?;
    if partition.console && names_other_console(&cmdline.value) {
        let message = "the command line asks for a console that the guest does not have";
        let remedy = "its UART is a PL011: write console=ttyAMA0";
        let span = cmdline.span.clone();
        return Some(Problem::error(source, span, message, "never seen", remedy).warning());
    }
    if partition.console || !cmdline.value.contains("console=ttyAMA") {
        return None;
    }
    let message = "the command line asks for a PL011, but the partition has no console";
    let remedy = source.say(
        "set console = \"pl011\", or take console= out of the command line",
        "add vpl011; or take console= out of the command line",
    );
    Some(Problem::error(source, cmdline.span.clone(), message, "never seen", remedy).warning())
}

/// Says whether all consoles of a command line are of other hardware: `console=ttyS0`.
fn names_other_console(cmdline: &str) -> bool {
    let mut named = cmdline
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("console="));
    let foreign = |name: &str| {
        ["ttyS", "ttyPS", "ttyUSB", "hvc"]
            .iter()
            .any(|kind| name.starts_with(kind))
    };
    let mut any = false;
    named.all(|name| {
        any = true;
        foreign(name)
    }) && any
}
