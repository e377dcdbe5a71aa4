// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices passed through: a Linux with a disk of its own, a guest with a clock of its own, and what
//! their neighbor notices of it.

use std::io::Read as _;
use std::path::Path;

use firebreak_qemu::Event;
use flate2::read::GzDecoder;
use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, bare, failed, field, trial, workspace};

/// Number of the partition that has the device.
const OWNER_VM: u8 = 0;

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
    trials.push(trial("passthrough::a_level_that_stays_high", level));
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

/// What `stats` has counted so far: interrupts that were forwarded to the guest, maintenance interrupts
/// of its PE, virtual interrupts that are pending or active outside of list registers.
fn counted(case: &mut Case) -> Result<[u64; 3], Failed> {
    let stats = case.order("stats")?;
    let usage = row(&stats, "usage", "vm", OWNER_VM.into());
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
    case.machine.type_into(OWNER_VM, "disk\n").map_err(failed)?;
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

/// Makes the guest ring its clock: each end while the line is high brings the interrupt again, and
/// no other; while it is disabled nothing comes and nothing is lost. Returns what was forwarded.
fn ring(case: &mut Case) -> Result<u64, Failed> {
    let [before, maintenance, raised] = counted(case)?;
    case.hold(raised == 0, "no interrupt to be left from an earlier life")?;
    case.forget();
    case.machine
        .type_into(OWNER_VM, "level\n")
        .map_err(failed)?;
    let told = case.line("cases", "cases: level ")?;
    let rest = "found=000 taken=5 held=0 pending=1 late=1 spurious=0";
    case.hold(told.ends_with(rest), &format!("`{rest}`, not `{told}`"))?;
    let [after, still, _] = counted(case)?;
    // The emulated UART's: one for each byte that is typed at most.
    let ends = still - maintenance;
    let what = format!("no maintenance interrupt for the clock's, not {ends}");
    case.hold(ends <= "level\n".len() as u64, &what)?;
    Ok(after - before)
}

/// An interrupt whose line stays high is forwarded in hardware, comes again after each end, and is
/// no storm; a partition that is restarted while it is pending or active loses nothing by it.
fn level() -> Outcome {
    let mut case = Case::start(bare("level")?.smp(1).icount(true))?;
    case.line("cases", "cases: ready")?;
    for leave in ["active", "pending", ""] {
        let forwarded = ring(&mut case)?;
        case.hold(
            forwarded == 6,
            &format!("six interrupts to be forwarded, not {forwarded}"),
        )?;
        if leave.is_empty() {
            break;
        }
        case.forget();
        let word = format!("{leave}\n");
        case.machine.type_into(OWNER_VM, &word).map_err(failed)?;
        let told = case.line("cases", "cases: left ")?;
        let what = format!("an interrupt that is {leave}, not `{told}`");
        case.hold(field(&told, leave) == Some(1), &what)?;
        case.forget();
        case.order("restart cases")?;
        case.line("cases", "cases: ready")?;
    }
    Ok(())
}
