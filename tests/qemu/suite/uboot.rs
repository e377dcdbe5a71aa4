// SPDX-License-Identifier: MIT OR Apache-2.0
//! U-Boot boots what `firebreak build` made, and loads a system piece by piece.

use std::fs;

use firebreak_qemu::{BOOTLOADER_IMAGE_PA, Machine, Record, loader};
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, failed, image, out, trial};

/// Where the devicetree is moved to, to have room for more: behind the image, before U-Boot.
const DEVICETREE_PA: u64 = 0x5800_0000;
/// QEMU pads its devicetree to 1 MiB.
const DEVICETREE_BYTES: u64 = 0x11_0000;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("uboot::booti_boots_the_built_image", built_image));
    trials.push(trial("uboot::modules_are_loaded_one_by_one", modules));
}

/// Starts a machine at U-Boot's prompt, and types a script.
fn run(machine: Machine, script: &[String]) -> Result<Case, Failed> {
    let machine = machine.bootloader(out().join("u-boot.bin")).smp(2);
    let mut case = Case::start(machine)?;
    // The last line before it counts down to booting by itself; before, input may get lost.
    case.wait(
        "U-Boot to look for a network",
        |record| matches!(record, Record::Plain(line) if line.contains("Net:")),
    )?;
    // The first key ends the countdown.
    let typed = format!("\n{}\n", script.join("\n"));
    case.machine.type_raw(typed.as_bytes()).map_err(failed)?;
    Ok(case)
}

fn both_run(case: &Case, bits_per_second: u64) -> Outcome {
    let boot = case.event("boot", |_| true)?;
    case.hold(
        boot.num("line") == Some(bits_per_second),
        "the line's speed to be found",
    )?;
    case.hold(boot.num("pes") == Some(2), "two PEs")?;
    case.hold(boot.num("partitions") == Some(2), "two partitions")?;
    case.line("control", "control: ticks=")?;
    case.line("victim", "victim: alive n=3")?;
    Ok(())
}

fn built_image() -> Outcome {
    let script = [
        // QEMU's UART has no divisor, and this U-Boot sets none: 13 1/64 of 16 cycles at 24 MHz, which
        // comes next to 115,200 baud.
        "mw.l 0x9000024 0xd".to_owned(),
        "mw.l 0x9000028 0x1".to_owned(),
        format!("booti {BOOTLOADER_IMAGE_PA:#x} - ${{fdtcontroladdr}}"),
    ];
    both_run(&run(Machine::new(image("two")?), &script)?, 115_246)
}

/// As users of dom0less do it: the bare hypervisor, each payload at an address of its own, and
/// the partitions written into the board's devicetree by U-Boot.
fn modules() -> Outcome {
    let mut script = vec![
        "fdt addr ${fdtcontroladdr}".to_owned(),
        format!("fdt move ${{fdtcontroladdr}} {DEVICETREE_PA:#x} {DEVICETREE_BYTES:#x}"),
    ];
    let mut machine = Machine::new(out().join("hypervisor.bin"));
    for (name, pa) in [("control", 0x5200_0000), ("victim", 0x5300_0000)] {
        let file = out().join(format!("guests/{name}.bin"));
        let bytes = fs::metadata(&file).map_err(failed)?.len();
        machine = machine.args(["-device".into(), loader(&file, pa)]);
        let node = format!("/chosen/{name}");
        script.push(format!("fdt mknode /chosen {name}"));
        for property in [
            "compatible \"xen,domain\"",
            // Its shell takes what stands behind # for a comment.
            "\\#address-cells <2>",
            "\\#size-cells <2>",
            "cpus <1>",
            "memory <0 0x4000>",
            "vpl011",
        ] {
            script.push(format!("fdt set {node} {property}"));
        }
        script.push(format!("fdt mknode {node} kernel"));
        let kernel = format!("fdt set {node}/kernel");
        script.push(format!(
            "{kernel} compatible \"multiboot,kernel\" \"multiboot,module\""
        ));
        script.push(format!("{kernel} reg <0 {pa:#x} 0 {bytes:#x}>"));
    }
    script.push("fdt set /pl011@9000000 current-speed <57600>".to_owned());
    script.push(format!(
        "booti {BOOTLOADER_IMAGE_PA:#x} - {DEVICETREE_PA:#x}"
    ));
    both_run(&run(machine, &script)?, 57_600)
}
