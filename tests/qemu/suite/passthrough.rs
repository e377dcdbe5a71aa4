// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices passed through: a Linux with a disk of its own, and what its neighbor notices of it.

use std::io::Read as _;
use std::path::Path;

use firebreak_qemu::Event;
use flate2::read::GzDecoder;
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, bare, failed, field, trial, workspace};

/// Number of the partition that has the disk.
const LINUX_VM: u8 = 0;

/// By the virtual clock QEMU runs the PEs in turns; a timer that nobody sees keeps the turns short,
/// so that no tick of the neighbor waits for one (as in the demo).
const SHORT_TURNS: [&str; 4] = [
    "-netdev",
    "hubport,id=turns,hubid=0",
    "-object",
    "filter-buffer,id=turns-timer,netdev=turns,queue=rx,interval=100",
];

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial(
        "passthrough::linux_works_on_a_disk_of_its_own_over_restarts",
        disk,
    ));
}

/// Writes an empty ext4 file system.
fn empty_disk(to: &Path) -> Outcome {
    let packed = workspace().join("tests/qemu/disks/empty.ext4.gz");
    let mut bytes = Vec::new();
    GzDecoder::new(std::fs::File::open(packed).map_err(failed)?)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    std::fs::write(to, bytes).map_err(failed)
}

/// A row of the answer to `stats`.
fn row<'a>(stats: &'a Event, list: &str, key: &str, is: u64) -> Option<&'a serde_json::Value> {
    let rows = stats.value().get(list)?.as_array()?;
    rows.iter().find(|row| row[key].as_u64() == Some(is))
}

/// What `stats` has counted so far: interrupts that were forwarded to Linux, maintenance interrupts
/// of its PE, virtual interrupts that are pending or active outside of list registers.
fn counted(case: &mut Case) -> Result<[u64; 3], Failed> {
    let stats = case.order("stats")?;
    let usage = row(&stats, "usage", "vm", LINUX_VM.into());
    let pe = row(&stats, "pes", "pe", 0);
    let number = |row: Option<&serde_json::Value>, key: &str| row.and_then(|row| row[key].as_u64());
    let all = [
        number(usage, "irqs_forwarded"),
        number(pe, "maintenance"),
        number(usage, "irqs_raised"),
    ];
    match all {
        [Some(forwarded), Some(maintenance), Some(raised)] => Ok([forwarded, maintenance, raised]),
        _ => Err(failed(format!("`stats` lacks a count: {}", stats.value()))),
    }
}

/// Makes Linux work on its disk; returns how many interrupts of it Linux has counted.
fn work(case: &mut Case, lives: u64) -> Result<u64, Failed> {
    case.forget();
    case.machine.type_into(LINUX_VM, "disk\n").map_err(failed)?;
    let told = case.line("linux", "agent: disk lives=")?;
    case.hold(
        field(&told, "lives") == Some(lives) && told.contains("intact=true"),
        &format!("{lives} lives on the disk and what they wrote, not `{told}`"),
    )?;
    field(&told, "irqs").ok_or_else(|| failed(format!("no count in `{told}`")))
}

/// Linux mounts the virtio-mmio disk that was given to it, reads and writes; each interrupt of the
/// disk is forwarded once, and EL2 is not entered for its end. A restarted Linux finds on the disk
/// what the one before it wrote, and the neighbor misses no tick because of all that.
fn disk() -> Outcome {
    let dir = tempfile::tempdir().map_err(failed)?;
    let file = dir.path().join("disk.img");
    empty_disk(&file)?;
    let drive = format!("file={},if=none,format=raw,id=disk", file.display());
    let machine = bare("passthrough")?.smp(2).icount(true).args(SHORT_TURNS);
    let machine = machine.args(["-drive", &drive, "-device", "virtio-blk-device,drive=disk"]);
    let mut case = Case::start(machine)?;
    case.line("linux", "agent: ready")?;
    for (life, way) in [(0, "restart linux"), (2, "stop linux")] {
        let [before, maintenance, _] = counted(&mut case)?;
        let first = work(&mut case, life)?;
        let second = work(&mut case, life + 1)?;
        let [after, still, _] = counted(&mut case)?;
        case.hold(first > 10 && second > first, "interrupts of the disk")?;
        let (forwarded, ends) = (after - before, still - maintenance);
        let what = format!("each of {second} interrupts to be forwarded once, not {forwarded}");
        case.hold(forwarded == second, &what)?;
        // The emulated UART's: one for each byte that is typed at most.
        let what = format!("no maintenance interrupt for the disk's, not {ends}");
        case.hold(ends <= 2 * "disk\n".len() as u64, &what)?;
        // Since boot: while Linux boots, works, and starts anew.
        case.forget();
        let told = case.line("control", "control: ticks=")?;
        case.hold(field(&told, "missed") == Some(0), "no tick to be missed")?;
        case.forget();
        case.order(way)?;
        if way == "restart linux" {
            case.line("linux", "agent: ready")?;
        }
    }
    case.event_of("stopped", "linux")?;
    let [_, _, raised] = counted(&mut case)?;
    case.hold(raised == 0, "a stopped Linux to leave no interrupt behind")
}
