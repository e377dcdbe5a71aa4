// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines and images that cannot work: one clear message, and never a hang in silence.

use std::fs;
use std::path::PathBuf;

use firebreak_qemu::Machine;
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, bare, failed, image, out, trial, with_firmware};

/// Where an image says where its configuration is (`firebreak-abi`, `image`): magic, length of
/// the hypervisor, offset and length of the configuration, length of all.
const INFO_OFFSET: usize = 64;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("refusal::not_at_el2", not_at_el2));
    trials.push(trial("refusal::gicv2", gicv2));
    trials.push(trial("refusal::no_configuration", no_configuration));
    trials.push(trial("refusal::configuration_is_noise", || {
        broken("noise", |config| config.fill(0x5a))
    }));
    trials.push(trial("refusal::configuration_is_cut_short", || {
        broken("short", |config| {
            let half = config.len() / 2;
            if let Some(rest) = config.get_mut(half..) {
                rest.fill(0);
            }
        })
    }));
    trials.push(trial("refusal::too_little_memory", too_little_memory));
    trials.push(trial("refusal::too_few_pes", too_few_pes));
    trials.push(trial("refusal::boot_stack_overflowed", boot_stack));
}

fn not_at_el2() -> Outcome {
    let case = Case::start(bare("one")?.machine("virt,gic-version=3").smp(1))?;
    case.event("halt", |event| {
        event.text("text").is_some_and(|text| text.contains("EL2"))
    })
    .map(drop)
}

fn gicv2() -> Outcome {
    let case = Case::start(
        bare("one")?
            .machine("virt,virtualization=on,gic-version=2")
            .smp(1),
    )?;
    case.wait("a message that names the GIC", |record| {
        record.to_string().contains("GICv3")
    })
    .map(drop)
}

/// The hypervisor as it was linked has no partitions.
fn no_configuration() -> Outcome {
    let case = Case::start(Machine::new(out().join("hypervisor.bin")).smp(1))?;
    halts(&case)
}

fn halts(case: &Case) -> Outcome {
    let halt = case.event("halt", |_| true)?;
    case.hold(
        halt.text("text").is_some_and(|text| text.len() > 20),
        "a message in words",
    )?;
    case.never("started")?;
    case.never("panic")
}

/// An image whose configuration was damaged on its way.
fn broken(name: &str, damage: impl FnOnce(&mut [u8])) -> Outcome {
    let mut bytes = fs::read(image("two")?).map_err(failed)?;
    let word = |index: usize| -> Option<usize> {
        let start = INFO_OFFSET + 8 * index;
        let bytes: [u8; 8] = bytes.get(start..start + 8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let (Some(offset), Some(len)) = (word(2), word(3)) else {
        return Err(Failed::from("no image"));
    };
    let config = bytes
        .get_mut(offset..offset + len)
        .ok_or("the configuration is outside")?;
    damage(config);
    let path: PathBuf = out().join("systems").join(format!("broken-{name}.img"));
    fs::write(&path, bytes).map_err(failed)?;
    let case = Case::start(
        Machine::new(path)
            .firmware(out().join("firmware.bin"))
            .smp(2),
    )?;
    halts(&case)
}

/// The board has a quarter of the memory that the system was checked for.
fn too_little_memory() -> Outcome {
    let case = Case::start(with_firmware("demo")?.memory_mib(256))?;
    halts(&case)
}

fn too_few_pes() -> Outcome {
    let case = Case::start(with_firmware("four")?.smp(2))?;
    halts(&case)
}

/// A pattern stands below the boot stack; an overflow that wrote over a frame of it is noticed.
fn boot_stack() -> Outcome {
    const GUARD: [u8; 0x1000] = [0x42; 0x1000];
    let whole = fs::read(image("one")?).map_err(failed)?;
    let guard = whole.windows(GUARD.len()).position(|bytes| bytes == GUARD);
    let guard = guard.ok_or("the image has no guard below its boot stack")?;
    for offset in [0, GUARD.len() - 16] {
        let mut bytes = whole.clone();
        bytes[guard + offset] = 0;
        let path: PathBuf = out().join(format!("systems/boot-stack-{offset}.img"));
        fs::write(&path, bytes).map_err(failed)?;
        let case = Case::start(Machine::new(path).smp(1))?;
        let text = "the boot stack overflowed";
        case.event("halt", |event| {
            event.text("text").is_some_and(|told| told.contains(text))
        })?;
        case.never("started")?;
    }
    Ok(())
}
