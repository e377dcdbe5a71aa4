// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor's own end, and what the next boot knows of it.
//!
//! Nothing that a guest or a devicetree does makes Firebreak fail, so a debugger does: it writes
//! other instructions into EL2's code while the machine stands still.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use firebreak_abi::{Mpidr, Pa, PeId, sei::qemu_virt};
use firebreak_blackbox::CRASH_PAGE_WORDS;
use firebreak_blackbox::crash::Page;
use firebreak_blackbox::log::{TEXT_BYTES, View};
use firebreak_cper::{Bert, FirebreakInfo, Record as ErrorRecord, Severity, append_record};
use firebreak_qemu::{Event, Raise, Record};
use libtest_mimic::{Failed, Trial};
use object::{Object, ObjectSymbol};

use crate::harness::{Case, Outcome, bare, failed, out, trial, with_firmware};

const CE: u32 = 0x1811;
const UER: u32 = 0x0c11;
const UC: u32 = 0x0011;
const VICTIM_PE: u8 = 1;
/// Crash page, header of the log, and its first entries.
const DUMP_BYTES: usize = 0x4000;
/// UDF #0.
pub(crate) const UDF: u32 = 0;
/// MOV X0, #-2: what a call returns that is refused.
const MOV_X0_INVALID: u32 = 0x9280_0020;
/// SMC #0.
const SMC: u32 = 0xd400_0003;

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("crash::exception_is_told_and_kept", exception));
    trials.push(trial("crash::panic_is_told_and_kept", panic));
    trials.push(trial("crash::failing_again_still_resets", again));
    trials.push(trial("crash::without_firmware_it_halts", without_firmware));
    trials.push(trial("crash::firmware_that_refuses_the_record", refused));
    trials.push(trial("crash::error_in_own_memory", own_memory));
    trials.push(trial(
        "crash::error_that_the_firmware_resets_for",
        uncontainable,
    ));
    trials.push(trial("crash::several_boot_error_records", several_records));
    trials.push(trial("crash::log_goes_on_over_a_reset", log_goes_on));
    trials.push(trial("crash::dump_is_read_on_the_host", dump));
    trials.push(trial("crash::hostile_memory_is_not_believed", hostile));
}

/// The hypervisor's program, by symbol.
pub(crate) struct Program {
    bytes: Vec<u8>,
}

impl Program {
    pub(crate) fn load() -> Result<&'static Self, Failed> {
        static LOADED: OnceLock<Program> = OnceLock::new();
        if LOADED.get().is_none() {
            let bytes = fs::read(out().join("hypervisor.elf")).map_err(failed)?;
            let _ = LOADED.set(Self { bytes });
        }
        LOADED.get().ok_or_else(|| failed("no hypervisor.elf"))
    }

    /// Returns address and length of the first symbol whose name contains `part`.
    pub(crate) fn find(&self, part: &str) -> Result<(u64, u64), Failed> {
        let file = object::File::parse(&*self.bytes).map_err(failed)?;
        let symbol = file
            .symbols()
            .find(|symbol| {
                symbol.size() != 0 && symbol.name().is_ok_and(|name| name.contains(part))
            })
            .ok_or_else(|| failed(format!("hypervisor.elf has no function `{part}`")))?;
        Ok((symbol.address(), symbol.size()))
    }

    fn word(&self, address: u64) -> u32 {
        // Linked at 0, and the text segment is the first of the raw image.
        let image = raw_image();
        let at = address as usize;
        let bytes = image
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    }

    /// Returns where the hypervisor panics for an overflow: the instructions that load the place
    /// in the source and call the panic.
    fn overflow_check(&self) -> Result<u64, Failed> {
        let (target, _) = self.find("panic_const_add_overflow")?;
        let end = raw_image().len() as u64;
        let call = (4..end).step_by(4).find(|at| {
            let word = self.word(*at);
            let offset = i64::from((word << 6).cast_signed() >> 4);
            let is_call = word & 0xfc00_0000 == 0x9400_0000;
            // ADR X0, ...; BL: the linker has made one instruction of the usual two.
            is_call
                && at.wrapping_add_signed(offset) == target
                && self.word(at - 4) & 0x9f00_001f == 0x1000_0000
        });
        call.map(|at| at - 4)
            .ok_or_else(|| failed("the hypervisor checks no addition"))
    }
}

fn raw_image() -> &'static [u8] {
    static RAW: OnceLock<Vec<u8>> = OnceLock::new();
    RAW.get_or_init(|| fs::read(out().join("hypervisor.bin")).unwrap_or_default())
}

/// B from one address to another.
fn branch(from: u64, to: u64) -> u32 {
    0x1400_0000 | (to.wrapping_sub(from) >> 2) as u32 & 0x03ff_ffff
}

/// Overwrites instructions of the hypervisor.
pub(crate) fn patch(case: &Case, patches: &[(u64, u32)]) -> Outcome {
    let mut debugger = case.machine.debugger().map_err(failed)?;
    for (address, word) in patches {
        debugger
            .write(qemu_virt::IMAGE + address, &word.to_le_bytes())
            .map_err(failed)?;
    }
    Ok(())
}

/// Boots the system `two`, with a debugger within reach.
fn boot(firmware: bool) -> Result<Case, Failed> {
    let machine = if firmware {
        with_firmware("two")?
    } else {
        bare("two")?
    };
    // A count of instructions for a clock: how long the other PE has for stopping is then not a
    // question of what else the host is doing.
    let mut case = Case::start(machine.smp(2).icount(true).debugger())?;
    case.line("victim", "victim: alive")?;
    case.line("control", "control: ready")?;
    case.forget();
    Ok(case)
}

/// Lets the victim's PE do what was patched into its way to the guest, with an error in its queue.
pub(crate) fn trigger(case: &mut Case, id: u64) -> Outcome {
    case.machine
        .send_raise(&Raise::new(id, VICTIM_PE, CE, "corrected").in_guest())
        .map_err(failed)
}

/// Holds that both guests live again.
fn lives(case: &Case) -> Outcome {
    case.lines("victim", "victim: alive", 2)?;
    case.line("control", "control: ticks=").map(drop)
}

/// Waits for the crash page of this life (`replayed` false) or of the one before.
fn crash(case: &Case, replayed: bool) -> Result<Event, Failed> {
    let event = case.event("crash", |event| event.flag("replayed") == Some(replayed))?;
    case.hold(event.flag("whole") == Some(true), "the page to be whole")?;
    case.hold(
        event.num("pe") == Some(u64::from(VICTIM_PE)),
        "the PE that failed",
    )?;
    case.hold(
        event.text("name") == Some("victim") && event.num("vcpu") == Some(0),
        "the vCPU that lives there",
    )?;
    Ok(event)
}

/// Holds that the error that was on its way stood in its queue, and stayed there.
fn waits(case: &Case, replayed: bool, id: u64) -> Outcome {
    let event = case.event("crash-record", |event| {
        event.flag("replayed") == Some(replayed) && event.num("id") == Some(id)
    })?;
    case.hold(
        event.num("pe") == Some(u64::from(VICTIM_PE))
            && event.text("state") == Some("waiting")
            && event.hex("iss") == Some(u64::from(CE))
            && event.text("verdict") == Some("log"),
        "the record as it waited",
    )
}

/// Waits for an entry of the log that contains an event of that name.
fn logged(case: &Case, name: &str) -> Result<Event, Failed> {
    let wanted = format!("\"ev\":\"{name}\"");
    case.event("log", |event| {
        event
            .text("text")
            .is_some_and(|text| text.contains(&wanted))
    })
}

fn exception() -> Outcome {
    let mut case = boot(true)?;
    let (at, _) = Program::load()?.find("firebreak_resolve")?;
    let pc = qemu_virt::IMAGE + at;
    patch(&case, &[(at, UDF)])?;
    trigger(&mut case, 7)?;
    let panic = case.event("panic", |_| true)?;
    case.hold(
        panic.num("pe") == Some(u64::from(VICTIM_PE)),
        "the PE that panics",
    )?;
    for replayed in [false, true] {
        let event = crash(&case, replayed)?;
        case.hold(event.text("kind") == Some("exception"), "an exception")?;
        case.hold(event.hex("pc") == Some(pc), "the PC of the patch")?;
        // EC 0, unknown reason: an undefined instruction.
        case.hold(
            event.hex("esr").map(|esr| esr >> 26) == Some(0),
            "the syndrome of an undefined instruction",
        )?;
        case.hold(event.hex("stopped") == Some(1), "the other PE to stop")?;
        case.hold(
            event.value()["x"].as_array().map(Vec::len) == Some(31),
            "all registers",
        )?;
        waits(&case, replayed, 7)?;
        if !replayed {
            case.wait("a reset by the firmware", |record| {
                record
                    .firmware("reset")
                    .is_some_and(|line| line.text("reason") == Some("fatal-call"))
            })?;
            case.event("boot", |_| true)?;
        }
    }
    let record = case.event("boot-error-record", |_| true)?;
    case.hold(
        record.text("source") == Some("hypervisor")
            && record.num("pe") == Some(u64::from(VICTIM_PE))
            && record.hex("pc") == Some(pc)
            && record.text("name") == Some("victim")
            && record.text("from") == Some("el2"),
        "the record to say who failed and where",
    )?;
    let entry = logged(&case, "panic")?;
    case.hold(
        entry.num("pe") == Some(u64::from(VICTIM_PE)) && entry.num("boot") == Some(1),
        "the log to say who panicked, and in which boot",
    )?;
    case.forget();
    lives(&case)
}

/// A check of the hypervisor's own that fails: Rust's panic, with its place in the source.
fn panic() -> Outcome {
    let mut case = boot(true)?;
    let program = Program::load()?;
    let (at, _) = program.find("firebreak_resolve")?;
    patch(&case, &[(at, branch(at, program.overflow_check()?))])?;
    trigger(&mut case, 8)?;
    let panic = case.event("panic", |_| true)?;
    let text = panic.text("text").unwrap_or_default().to_owned();
    case.hold(
        text.contains(".rs:") && text.contains("overflow"),
        "the place and the reason",
    )?;
    for replayed in [false, true] {
        let event = crash(&case, replayed)?;
        case.hold(event.text("kind") == Some("panic"), "a panic")?;
        case.hold(event.text("text") == Some(&text), "the words of the panic")?;
        case.hold(
            event.value()["calls"]
                .as_array()
                .is_some_and(|calls| !calls.is_empty()),
            "return addresses",
        )?;
        waits(&case, replayed, 8)?;
    }
    case.event("boot-error-record", |event| {
        event.num("pe") == Some(u64::from(VICTIM_PE))
    })?;
    logged(&case, "panic")?;
    case.forget();
    lives(&case)
}

/// The hypervisor fails while it tells that it failed: the page, the record and the reset still come.
fn again() -> Outcome {
    let mut case = boot(true)?;
    let program = Program::load()?;
    let (at, _) = program.find("firebreak_resolve")?;
    let (told, _) = program.find("show_page")?;
    patch(&case, &[(at, UDF), (told, UDF)])?;
    trigger(&mut case, 9)?;
    case.event("panic", |_| true)?;
    case.event("boot", |_| true)?;
    let event = crash(&case, true)?;
    case.hold(
        event.hex("pc") == Some(qemu_virt::IMAGE + at),
        "the first failure, not the second",
    )?;
    case.hold(event.num("failures") == Some(1), "the second to be counted")?;
    waits(&case, true, 9)?;
    case.event("boot-error-record", |event| {
        event.hex("pc") == Some(qemu_virt::IMAGE + at)
    })?;
    case.forget();
    lives(&case)
}

fn without_firmware() -> Outcome {
    let case = boot(false)?;
    let (at, _) = Program::load()?.find("firebreak_sync")?;
    patch(&case, &[(at, UDF)])?;
    let panic = case.event("panic", |_| true)?;
    let event = case.event("crash", |event| event.flag("replayed") == Some(false))?;
    case.hold(
        event.num("pe") == panic.num("pe") && event.hex("pc") == Some(qemu_virt::IMAGE + at),
        "the PE and the PC",
    )?;
    let halt = case.event("halt", |_| true)?;
    case.hold(
        halt.text("text")
            .is_some_and(|text| text.contains("no firmware")),
        "the reason and the remedy",
    )?;
    // Everybody had stopped before a word was said.
    let after: Vec<Record> = case
        .records()
        .into_iter()
        .skip_while(|record| record.event("panic").is_none())
        .collect();
    case.hold(
        !after.iter().any(|record| {
            ["victim", "control"]
                .iter()
                .any(|name| record.line(name).is_some())
        }),
        "the guests to be silent",
    )?;
    case.never("boot")
}

fn refused() -> Outcome {
    let mut case = boot(true)?;
    let program = Program::load()?;
    let (at, _) = program.find("firebreak_resolve")?;
    let (call, len) = program.find("call_firmware")?;
    let smc = (call..call + len)
        .step_by(4)
        .find(|address| program.word(*address) == SMC)
        .ok_or("the hypervisor does not call the firmware there")?;
    patch(&case, &[(at, UDF), (smc, MOV_X0_INVALID)])?;
    trigger(&mut case, 10)?;
    case.wait("a reset by PSCI", |record| {
        record
            .firmware("reset")
            .is_some_and(|line| line.text("reason") == Some("psci"))
    })?;
    case.event("boot", |_| true)?;
    let record = case.event("boot-error-record", |_| true)?;
    case.hold(
        record.hex("pc") == Some(qemu_virt::IMAGE + at)
            && record.text("source") == Some("hypervisor"),
        "the hypervisor's own record",
    )?;
    crash(&case, true)?;
    lives(&case)
}

/// An uncorrected error in the hypervisor's memory, found while a guest runs.
fn own_memory() -> Outcome {
    let mut case = boot(true)?;
    let pa = qemu_virt::IMAGE + 0x1_0000;
    let raise = Raise::new(11, VICTIM_PE, UER, "recoverable")
        .at(pa)
        .in_guest();
    case.machine.send_raise(&raise).map_err(failed)?;
    case.event("boot", |_| true)?;
    let record = case.event("boot-error-record", |_| true)?;
    case.hold(
        record.text("source") == Some("hypervisor")
            && record.num("id") == Some(11)
            && record.hex("iss") == Some(u64::from(UER))
            && record.hex("pa") == Some(pa)
            && record.text("name") == Some("victim")
            && record.num("vcpu") == Some(0),
        "the whole error",
    )?;
    let event = crash(&case, true)?;
    case.hold(event.text("kind") == Some("error"), "no bug, but an error")?;
    let fatal = case.event("crash-record", |event| event.text("state") == Some("fatal"))?;
    case.hold(fatal.num("id") == Some(11), "the error that ended it")?;
    lives(&case)
}

/// The firmware knows no partitions: the hypervisor names the one that its record hit.
fn uncontainable() -> Outcome {
    let mut case = boot(true)?;
    let raise = Raise::new(12, VICTIM_PE, UC, "fatal").in_guest();
    case.machine.send_raise(&raise).map_err(failed)?;
    case.event("boot", |_| true)?;
    let record = case.event("boot-error-record", |_| true)?;
    case.hold(
        record.text("source") == Some("firmware")
            && record.num("id") == Some(12)
            && record.num("pe") == Some(u64::from(VICTIM_PE))
            && record.text("name") == Some("victim")
            && record.num("vcpu") == Some(0)
            && record.flag("simulated") == Some(true),
        "the whole error",
    )?;
    lives(&case)?;
    case.never("crash")
}

fn several_records() -> Outcome {
    let mut case = boot(true)?;
    let mut region = vec![0; qemu_virt::BERT_LEN as usize];
    for number in 1..=3_u8 {
        let record = ErrorRecord {
            pa: (number == 2).then_some(Pa::new(0x1234)),
            mpidr: Some(Mpidr::from_raw(u64::from(number))),
            info: Some(FirebreakInfo {
                id: Some(u64::from(number)),
                pe: Some(PeId(number)),
                ..FirebreakInfo::default()
            }),
            ..ErrorRecord::new(Severity::Fatal)
        };
        append_record(&mut region, &record).map_err(failed)?;
    }
    let mut debugger = case.machine.debugger().map_err(failed)?;
    debugger.write(qemu_virt::BERT, &region).map_err(failed)?;
    drop(debugger);
    case.machine.system_reset().map_err(failed)?;
    for number in 1..=3 {
        let event = case.event("boot-error-record", |event| {
            event.num("number") == Some(number)
        })?;
        case.hold(
            event.num("id") == Some(number) && event.num("pe") == Some(number),
            "each record in its turn",
        )?;
    }
    case.forget();
    case.machine.system_reset().map_err(failed)?;
    lives(&case)?;
    // Told once.
    case.never("boot-error-record")
}

fn log_goes_on() -> Outcome {
    let mut case = boot(true)?;
    case.machine.system_reset().map_err(failed)?;
    let first = logged(&case, "started")?;
    case.hold(first.num("boot") == Some(1), "the first boot's entry")?;
    lives(&case)?;
    case.forget();
    case.machine.system_reset().map_err(failed)?;
    let second = logged(&case, "started")?;
    case.hold(
        second.num("boot") == Some(2) && second.num("number") > first.num("number"),
        "the second boot's entry behind the first's",
    )?;
    lives(&case)?;
    case.never("crash")
}

/// The memory itself, at the moment of the reset, read as a host's tool reads it.
fn dump() -> Outcome {
    let machine = with_firmware("two")?.smp(2).debugger();
    let paused = ["-action", "reboot=shutdown,shutdown=pause"];
    let mut case = Case::start(machine.args(paused))?;
    case.line("victim", "victim: alive")?;
    let (at, _) = Program::load()?.find("firebreak_resolve")?;
    patch(&case, &[(at, UDF)])?;
    trigger(&mut case, 13)?;
    case.event("panic", |_| true)?;
    case.wait(
        "the reset, before which QEMU stops",
        |record| matches!(record, Record::Qemu(event) if event == "SHUTDOWN"),
    )?;
    let mut debugger = case.machine.debugger().map_err(failed)?;
    let bytes = debugger
        .read(qemu_virt::PERSISTENT, DUMP_BYTES)
        .map_err(failed)?;
    let region = debugger
        .read(qemu_virt::BERT, qemu_virt::BERT_LEN as usize)
        .map_err(failed)?;
    let words: Vec<u64> = bytes
        .chunks_exact(8)
        .filter_map(|chunk| chunk.try_into().ok().map(u64::from_le_bytes))
        .collect();
    let page = Page::read(&words[..]).ok_or("no crash page")?;
    case.hold(page.is_whole(), "the page to be whole")?;
    let who = page.who();
    case.hold(
        who.pe == VICTIM_PE && who.pc == Some(qemu_virt::IMAGE + at) && who.vcpu == Some((1, 0)),
        "the PE, the PC and the vCPU",
    )?;
    case.hold(
        page.records().any(|record| record.id == Some(13)),
        "the record that waited",
    )?;
    let view = View::read(&words[CRASH_PAGE_WORDS..]).ok_or("no log")?;
    let last = view.entry(view.last()).ok_or("no entry")?;
    case.hold(
        last.pe == VICTIM_PE && view.text(&last, &mut [0; TEXT_BYTES]).contains("\"panic\""),
        "the panic to be the last entry",
    )?;
    let records: Vec<_> = Bert::new(&region).records().collect();
    case.hold(
        records.len() == 1 && records.iter().all(Result::is_ok),
        "one boot error record",
    )?;
    // What `firebreak decode` is tested with comes from a real crash.
    if std::env::var_os("FIREBREAK_BLESS").is_some() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/dumps");
        fs::create_dir_all(&corpus).map_err(failed)?;
        fs::write(corpus.join("exception.bin"), &bytes).map_err(failed)?;
        fs::write(corpus.join("exception.bert"), &region[..1024]).map_err(failed)?;
    }
    Ok(())
}

fn hostile() -> Outcome {
    let mut case = boot(true)?;
    // All of the persistent memory garbage, but the words by which pieces are known.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes: Vec<u8> = (0..qemu_virt::PERSISTENT_LEN / 8)
        .flat_map(|_| {
            seed = seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
            seed.to_le_bytes()
        })
        .collect();
    bytes[..8].copy_from_slice(b"FBCRASH3");
    bytes[0x1000..0x1008].copy_from_slice(b"FBLOG\0\0\x01");
    let mut debugger = case.machine.debugger().map_err(failed)?;
    debugger
        .write(qemu_virt::PERSISTENT, &bytes)
        .map_err(failed)?;
    debugger
        .write(qemu_virt::BERT, &bytes[0x2000..0x3000])
        .map_err(failed)?;
    drop(debugger);
    case.machine.system_reset().map_err(failed)?;
    let event = case.event("crash", |_| true)?;
    case.hold(
        event.flag("whole") == Some(false),
        "a page that is not whole",
    )?;
    lives(&case)?;
    case.never("log")?;
    case.never("panic")?;
    case.forget();
    case.machine.system_reset().map_err(failed)?;
    let entry = logged(&case, "boot")?;
    case.hold(entry.num("boot") == Some(1), "a new log")?;
    lives(&case)?;
    case.never("crash")
}
