// SPDX-License-Identifier: MIT OR Apache-2.0
//! The quick reader against the thorough one: it knows all that the firmware writes, and where it
//! answers at all, both agree.

use std::cell::Cell;

use firebreak_abi::{Mpidr, Pa};
use firebreak_cper::{
    FirebreakInfo, Record, Severity, Unusual, Word, gist, gist_of, summary, write_record,
};
use proptest::prelude::*;
use std::sync::atomic::AtomicU32;

#[path = "../../../tests/fuzz/checks/cper.rs"]
mod checks;

fn record(severity: Severity, pa: Option<u64>, mpidr: bool, id: Option<u64>) -> Record {
    Record {
        pa: pa.map(Pa::new),
        mpidr: mpidr.then(|| Mpidr::from_raw(3)),
        iss: 0xc11,
        simulated: true,
        info: id.map(|id| FirebreakInfo {
            id: Some(id),
            ..FirebreakInfo::default()
        }),
        ..Record::new(severity)
    }
}

fn block(record: &Record) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let length = write_record(&mut bytes, record).unwrap();
    bytes.truncate(length);
    bytes
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks_exact(4)
        .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
        .collect()
}

#[test]
fn every_record_of_the_firmware_is_ordinary() {
    for severity in [
        Severity::Corrected,
        Severity::Recoverable,
        Severity::Fatal,
        Severity::Informational,
    ] {
        for pa in [None, Some(0), Some(0x4_5678_9abc)] {
            for mpidr in [false, true] {
                for id in [None, Some(0), Some(u64::MAX)] {
                    let bytes = block(&record(severity, pa, mpidr, id));
                    let read = gist_of(&words(&bytes)).unwrap();
                    assert_eq!(read.severity, severity);
                    assert_eq!(read.pa, pa.map(Pa::new));
                    assert_eq!(read.id, id);
                    assert_eq!(read.iss, summary(&bytes).iss);
                }
            }
        }
    }
}

/// Memory that changes under the reader cannot tell it two things, because it never looks twice.
#[test]
fn no_word_is_read_twice() {
    struct Once(u32, Cell<bool>);
    impl Word for Once {
        fn read(&self) -> u32 {
            assert!(!self.1.replace(true), "{:#x} was read twice", self.0);
            self.0
        }
    }
    let words = words(&block(&record(
        Severity::Recoverable,
        Some(0x4500_0000),
        true,
        Some(7),
    )));
    let once: Vec<Once> = words
        .iter()
        .map(|word| Once(*word, Cell::new(false)))
        .collect();
    assert!(gist_of(&once).is_ok());
    assert!(once.iter().any(|word| word.1.get()));
}

#[test]
fn what_stands_behind_the_limit_is_not_read() {
    let words = words(&block(&record(
        Severity::Fatal,
        Some(0x4500_0000),
        true,
        Some(7),
    )));
    assert!(gist_of(&words).is_ok());
    for limit in 0..words.len() {
        assert_eq!(gist_of(&words[..limit]), Err(Unusual), "{limit}");
    }
}

/// The firmware's memory is read as atomic words.
#[test]
fn shared_memory_reads_as_any_other() {
    let words = words(&block(&record(
        Severity::Corrected,
        Some(1 << 30),
        true,
        Some(3),
    )));
    let shared: Vec<AtomicU32> = words.iter().copied().map(AtomicU32::new).collect();
    assert_eq!(gist(&shared), gist_of(&words));
    assert!(gist(&shared).is_ok());
}

#[test]
fn an_empty_block_is_left_to_the_thorough_reader() {
    assert_eq!(gist_of(&[0_u32; 64]), Err(Unusual));
    assert_eq!(gist_of::<u32>(&[]), Err(Unusual));
}

/// Each bit of each word, turned over.
#[test]
fn one_wrong_bit_makes_no_difference_between_the_readers() {
    let bytes = block(&record(
        Severity::Recoverable,
        Some(0x4500_0000),
        true,
        Some(7),
    ));
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        checks::check_reader(&damaged);
    }
}

proptest! {
    #[test]
    fn wrong_bytes_make_no_difference_between_the_readers(
        severity in 0_u32..6,
        pa in proptest::option::of(any::<u64>()),
        mpidr: bool,
        id in proptest::option::of(any::<u64>()),
        damage in proptest::collection::vec((0_usize..512, any::<u8>()), 0..6),
    ) {
        let mut bytes = block(&record(Severity::from_raw(severity), pa, mpidr, id));
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        checks::check_reader(&bytes);
    }
}
