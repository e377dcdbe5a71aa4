// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replays `tests/corpus/cper/`: the fuzzer's seeds, and whatever it found since.
//!
//! The seeds are made here; `FIREBREAK_BLESS=1 cargo test -p firebreak-cper --test corpus` writes
//! them anew after the format of the writer has changed on purpose.

use std::path::PathBuf;
use std::{env, fs};

use firebreak_abi::{Mpidr, Pa, PeId, VmId};
use firebreak_cper::{
    FirebreakInfo, MemoryError, Record, Severity, Source, Writer, append_record, write_cper,
    write_memory_error, write_record,
};

#[path = "../../../tests/fuzz/checks/cper.rs"]
mod checks;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/cper")
}

fn record(severity: Severity) -> Record {
    Record {
        pa: Some(Pa::new(0x4500_1000)),
        mpidr: Some(Mpidr::from_raw(2)),
        iss: 0xc11,
        simulated: true,
        info: Some(FirebreakInfo {
            source: Source::Hypervisor,
            id: Some(7),
            pe: Some(PeId(2)),
            partition: Some(VmId(1)),
            vcpu: Some(0),
            pc: Some(0xffff_8000_1020_3040),
            el: Some(1),
            ticks: Some(123_456_789),
        }),
        ..Record::new(severity)
    }
}

fn sized(write: impl FnOnce(&mut [u8]) -> usize) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let len = write(&mut bytes);
    bytes.truncate(len);
    bytes
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let block = |severity| sized(|buf| write_record(buf, &record(severity)).unwrap());
    let recoverable = block(Severity::Recoverable);
    let memory = MemoryError::at(Severity::Recoverable, Pa::new(0x4500_1000));
    let with = |at: usize, bytes: &[u8]| {
        let mut block = recoverable.clone();
        block[at..at + bytes.len()].copy_from_slice(bytes);
        block
    };
    vec![
        ("recoverable", recoverable.clone()),
        ("fatal", block(Severity::Fatal)),
        ("corrected", block(Severity::Corrected)),
        ("informational", block(Severity::Informational)),
        ("unknown-severity", block(Severity::Unknown(99))),
        (
            "memory-only",
            sized(|buf| write_memory_error(buf, &memory).unwrap()),
        ),
        (
            "sixteen-sections",
            sized(|buf| {
                let mut writer = Writer::new(buf, Severity::Recoverable).unwrap();
                (0..16).for_each(|_| writer.memory(&memory).unwrap());
                writer.finish().unwrap()
            }),
        ),
        ("boot-error-region", {
            let mut region = vec![0; 1536];
            append_record(&mut region, &record(Severity::Fatal)).unwrap();
            append_record(&mut region, &Record::new(Severity::Corrected)).unwrap();
            region
        }),
        (
            "cper-record",
            sized(|buf| write_cper(buf, 1, &record(Severity::Fatal)).unwrap()),
        ),
        ("empty", vec![0; 64]),
        ("cut-header", recoverable[..19].to_vec()),
        ("cut-section", recoverable[..300].to_vec()),
        ("data-length-lies", with(12, &[0xff; 4])),
        ("section-length-lies", with(44, &[0xff; 4])),
        ("old-revision", with(40, &[0x01, 0x02])),
        ("arm-length-lies", with(252, &[0xff; 4])),
        ("arm-info-count-lies", with(248, &[0xff, 0xff])),
        ("arm-contexts-lie", with(250, &[0xff, 0xff])),
        ("raw-data-wraps", with(4, &[0xff; 8])),
    ]
}

#[test]
fn the_seeds_are_what_the_writer_writes() {
    for (name, bytes) in seeds() {
        let path = corpus().join(name);
        if env::var_os("FIREBREAK_BLESS").is_some() {
            fs::write(&path, &bytes).unwrap();
        }
        let stored = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(stored, bytes, "{name}");
    }
}

#[test]
fn every_file_of_the_corpus_is_read_safely_and_so_is_each_of_its_prefixes() {
    let mut count = 0;
    for file in fs::read_dir(corpus()).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        (0..=bytes.len()).for_each(|len| checks::check_reader(&bytes[..len]));
        count += 1;
    }
    assert!(count >= seeds().len());
}
