// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another image for a partition, over the line that takes commands: what is damaged, too long or not
//! whole changes nothing; what is whole is what runs next.

use std::fs;

use firebreak_wire::{Crc32, PIECE_BYTES, encode_piece};
use libtest_mimic::Trial;

use crate::harness::{Case, Outcome, failed, field, out, trial, with_firmware};

/// As the system `reload` has it, in bytes.
const ROOM: u64 = 32 << 10;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("reload::what_is_not_whole_changes_nothing", refused));
    trials.push(trial("reload::another_image_runs_next", replaced));
}

fn boot() -> Result<Case, libtest_mimic::Failed> {
    let case = Case::start(with_firmware("reload")?.smp(2))?;
    case.line("control", "control: ready")?;
    case.line("victim", "victim: ready")?;
    Ok(case)
}

fn begin(image: &[u8]) -> String {
    let crc = Crc32::START.with(image).value();
    format!("reload victim bytes={} crc={crc:#x}", image.len())
}

fn piece(at: usize, bytes: &[u8]) -> String {
    let (crc, text) = encode_piece(at as u64, bytes);
    let text: String = text.collect();
    format!("data at={at:#x} crc={crc:#x} {text}")
}

/// Sends pieces of an image, and holds that each is counted.
fn send(case: &mut Case, image: &[u8]) -> Outcome {
    for (index, bytes) in image.chunks(PIECE_BYTES).enumerate() {
        let at = index * PIECE_BYTES;
        let answer = case.order(&piece(at, bytes))?;
        let next = (at + bytes.len()) as u64;
        case.hold(answer.num("next") == Some(next), "the piece to be counted")?;
    }
    Ok(())
}

/// Holds that the partition has neither stopped nor started since it was booted.
fn goes_on(case: &mut Case) -> Outcome {
    for event in ["stopped", "restart", "killed", "panic"] {
        case.never(event)?;
    }
    let ps = case.order("ps")?;
    let row = &ps.value()["partitions"][1];
    let same = row["state"] == "running" && row["restarts"] == 0 && row["kernel"] == "boot";
    case.hold(same, "the victim to run as before")?;
    case.line("victim", "victim: alive").map(drop)
}

fn refused() -> Outcome {
    let mut case = boot()?;
    case.forget();
    for command in ["commit", "abort", &piece(0, b"abc")] {
        case.refused(command, "no image is on its way")?;
    }
    case.refused("reload control bytes=1 crc=0", "no reload_room")?;
    case.refused("reload nobody", "no partition has that name")?;
    case.refused("reload victim bytes=9", "neither")?;
    let over = format!("reload victim bytes={} crc=0", ROOM + 1);
    case.refused(&over, "longer than")?;
    case.refused("reload victim bytes=18446744073709551615 crc=0", "longer")?;
    case.refused("reload victim bytes=0 crc=0", "no bytes")?;

    // Pieces: damaged, out of their order, behind the end, and given up.
    let image = [0x5a_u8; 3 * PIECE_BYTES];
    case.order(&begin(&image))?;
    let good = piece(0, &image[..PIECE_BYTES]);
    case.refused(&good.replacen("Wlpa", "Wlpb", 1), "damaged")?;
    case.refused(&good.replace("at=0x0", "at=0x1"), "damaged")?;
    let later = piece(PIECE_BYTES, &image[..PIECE_BYTES]);
    case.refused(&later, "does not begin where")?;
    case.refused(&piece(usize::MAX, b"abc"), "behind the end")?;
    case.order(&good)?;
    let again = case.order(&good)?;
    case.hold(again.num("next") == Some(48), "a piece to count once")?;
    case.refused("commit", "not all of the image")?;
    case.order("abort")?;
    case.refused("commit", "no image is on its way")?;

    // All of it, with another sum than was announced; and what is no kernel.
    case.order("reload victim bytes=144 crc=0x12345678")?;
    send(&mut case, &image)?;
    case.refused("commit", "sum")?;
    let elf = b"\x7fELF and so on";
    case.order(&begin(elf))?;
    send(&mut case, elf)?;
    case.refused("commit", "no kernel")?;
    goes_on(&mut case)
}

fn replaced() -> Outcome {
    let mut case = boot()?;
    let image = fs::read(out().join("guests/control.bin")).map_err(failed)?;
    case.forget();
    case.order(&begin(&image))?;
    send(&mut case, &image)?;
    goes_on(&mut case)?;
    case.order("commit")?;
    case.event_of("restart", "victim")?;
    case.line("victim", "control: ready")?;

    // It is what each later life is loaded from, until it is taken back.
    case.forget();
    case.order("restart victim")?;
    case.line("victim", "control: ready")?;
    let ps = case.order("ps")?;
    let kernel = &ps.value()["partitions"][1]["kernel"];
    case.hold(kernel == "reloaded", "the new kernel to be told")?;
    case.forget();
    case.order("stop victim")?;
    case.event_of("stopped", "victim")?;
    case.order("reload victim")?;
    case.line("victim", "victim: ready")?;

    // A second one goes into the other slot, and runs too.
    case.order(&begin(&image))?;
    send(&mut case, &image)?;
    case.forget();
    case.order("commit")?;
    case.line("victim", "control: ready")?;
    case.refused("commit", "no image is on its way")?;
    let told = case.line("control", "control: ticks=")?;
    case.hold(field(&told, "ticks").is_some(), "the neighbor to go on")
}
