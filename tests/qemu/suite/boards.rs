// SPDX-License-Identifier: MIT OR Apache-2.0
//! One hypervisor binary, and a partition file that differs in the board alone.

use std::fs;

use firebreak_image::{NOMINAL_HYPERVISOR_BYTES, Options};
use firebreak_qemu::Machine;
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, failed, out, trial, workspace};

/// A board, and how QEMU is told to be it.
struct Board {
    name: &'static str,
    machine: &'static str,
    cpu: &'static str,
    smp: u32,
    has_ras: bool,
}

const BOARDS: [Board; 2] = [
    Board {
        name: "qemu-virt",
        machine: "virt,virtualization=on,gic-version=3",
        cpu: "neoverse-n1",
        smp: 2,
        has_ras: true,
    },
    // Two Cortex-A72 and two Cortex-R5: QEMU insists on all four.
    Board {
        name: "xlnx-versal-virt",
        machine: "xlnx-versal-virt",
        cpu: "cortex-a72",
        smp: 4,
        has_ras: false,
    },
];

pub(crate) fn add(trials: &mut Vec<Trial>) {
    for board in &BOARDS {
        trials.push(trial(format!("board::{}", board.name), move || pair(board)));
    }
}

fn pair(board: &Board) -> Outcome {
    let file = workspace().join("tests/qemu/systems/pair.toml");
    let text = fs::read_to_string(file).map_err(failed)?;
    let line = format!("board = \"{}\"", board.name);
    let text = text.replace("board = \"qemu-virt\"", &line);
    let dir = out().join("systems");
    fs::create_dir_all(&dir).map_err(failed)?;
    let file = dir.join(format!("pair-{}.toml", board.name));
    fs::write(&file, text).map_err(failed)?;
    let options = Options {
        payloads: Some(out()),
        hypervisor: Some(out().join("hypervisor.bin")),
    };
    let built = firebreak_image::build(&file, &options)
        .map_err(|error| Failed::from(format!("{error:?}")))?;
    let image = file.with_extension("img");
    fs::write(&image, &built.bytes).map_err(failed)?;

    let machine = Machine::new(image).machine(board.machine).cpu(board.cpu);
    let case = Case::start(machine.smp(board.smp))?;
    let boot = case.event("boot", |_| true)?;
    case.hold(boot.num("pes") == Some(2), "two PEs")?;
    case.hold(
        boot.flag("ras") == Some(board.has_ras),
        "what the PEs have to be said",
    )?;
    // What `check` and `build` say is what comes: with an image of 28 MB, EL2's memory behind it decides.
    // The page of `qemu-virt` is about the reference firmware, and has the devicetree elsewhere.
    let bytes = fs::metadata(out().join("hypervisor.bin"))
        .map_err(failed)?
        .len();
    case.hold(
        bytes.next_multiple_of(0x1_0000) == NOMINAL_HYPERVISOR_BYTES,
        "a check without a hypervisor to know about how long it is",
    )?;
    let planned = built
        .system
        .guests
        .iter()
        .zip(&built.system.plan.placements);
    for (guest, placement) in planned.filter(|_| board.name != "qemu-virt") {
        let told = case.event_of("partition", &guest.partition.name.value)?;
        let pa = told.value()["ram"][0]["pa"].as_str().map(str::to_owned);
        case.hold(
            pa == Some(format!("{:#x}", placement.ram.start.get())),
            "each partition's RAM where `build` said",
        )?;
    }
    case.line("control", "control: ready")?;
    case.line("control", "control: ticks=")?;
    case.line("linux", "agent: ready")?;
    case.line("linux", "agent: beat n=2 pattern=ok")?;
    Ok(())
}
