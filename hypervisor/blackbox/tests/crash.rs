// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crash page: what goes in comes out, and nothing that stands there makes the reader fail.

use std::sync::atomic::{AtomicU64, Ordering};

use firebreak_blackbox::crash::{
    Field, Kind, MAX_CALLS, MAX_EXITS, MAX_RECORDS, Page, State, TEXT_BYTES, Waiting, Who, Writer,
    clear, note_failure,
};
use firebreak_blackbox::trace::{Cause, Exit};
use firebreak_blackbox::{CRASH_PAGE_WORDS, Words};
use proptest::prelude::*;

const WHO: Who = Who {
    pe: 3,
    kind: Kind::Exception,
    vector: 4,
    pc: Some(0x4020_1234),
    vcpu: Some((2, 1)),
};

fn page(fill: u64) -> Vec<AtomicU64> {
    (0..CRASH_PAGE_WORDS)
        .map(|_| AtomicU64::new(fill))
        .collect()
}

fn snapshot(page: &[AtomicU64]) -> Vec<u64> {
    page.iter()
        .map(|word| word.load(Ordering::Relaxed))
        .collect()
}

fn record(number: u64) -> Waiting {
    Waiting {
        pe: 1,
        state: State::InHands,
        holder: 7,
        ticks: 100 + number,
        cper: Some(0),
        iss: Some(0x1ff_ffff),
        pc: Some(u64::MAX),
        pa: Some(1 << 51),
        id: Some(number),
        vcpu: Some((6, 2)),
        verdict: Waiting::verdict_of("retire-and-much-more"),
    }
}

fn written(records: u64) -> Vec<AtomicU64> {
    let words = page(0xdead_beef_dead_beef);
    let mut writer = Writer::begin(&words, &WHO);
    writer.set(Field::Esr, 0x0200_0000);
    writer.set(Field::Locks, 5);
    writer.gprs(&core::array::from_fn(|index| index as u64 + 1));
    writer.call(0, 0x4020_0010);
    writer.call(MAX_CALLS, 1);
    writer.text("vector 4: ");
    writer.text("esr 0x2000000");
    for number in 0..records {
        writer.record(&record(number));
    }
    writer.finish();
    words
}

#[test]
fn what_goes_in_comes_out() {
    let words = written(2);
    let page = Page::read(words.as_slice()).unwrap();
    assert!(page.is_whole());
    assert_eq!(page.who(), WHO);
    assert_eq!(page.get(Field::Esr), 0x0200_0000);
    assert_eq!((page.get(Field::Locks), page.get(Field::Far)), (5, 0));
    assert_eq!(page.gprs().unwrap()[30], 31);
    assert_eq!(page.calls()[..2], [0x4020_0010, 0]);
    assert_eq!(page.text(&mut [0; TEXT_BYTES]), "vector 4: esr 0x2000000");
    assert_eq!(page.records().collect::<Vec<_>>()[1], record(1));
    assert_eq!(record(1).verdict_name(), "retire-and-much-");
    assert_eq!((page.left_out(), page.failures()), (0, 0));
}

#[test]
fn a_record_without_anything_keeps_nothing() {
    let words = page(u64::MAX);
    let mut writer = Writer::begin(
        &words,
        &Who {
            pc: None,
            vcpu: None,
            ..WHO
        },
    );
    let bare = Waiting::unknown(2, State::Unpublished, 9);
    writer.record(&bare);
    writer.finish();
    let page = Page::read(words.as_slice()).unwrap();
    assert_eq!(page.records().collect::<Vec<_>>(), [bare]);
    assert_eq!(
        (page.gprs(), page.who().pc, page.who().vcpu),
        (None, None, None)
    );
}

#[test]
fn records_and_text_beyond_the_page_are_left_out_and_counted() {
    let words = written(MAX_RECORDS as u64 + 3);
    let page = Page::read(words.as_slice()).unwrap();
    assert!(page.is_whole());
    assert_eq!(page.records().count(), MAX_RECORDS);
    assert_eq!(page.left_out(), 3);
    let words = self::page(0);
    let mut writer = Writer::begin(&words, &WHO);
    writer.text(&"x".repeat(TEXT_BYTES + 9));
    writer.finish();
    let page = Page::read(words.as_slice()).unwrap();
    assert_eq!(page.text(&mut [0; TEXT_BYTES]).len(), TEXT_BYTES);
    assert_eq!(page.records().count(), 0);
}

#[test]
fn a_page_that_was_not_finished_is_torn_and_still_says_who() {
    let words = page(0);
    let writer = Writer::begin(&words, &WHO);
    writer.set(Field::Esr, 7);
    let page = Page::read(words.as_slice()).unwrap();
    assert!(!page.is_whole());
    assert_eq!((page.who(), page.get(Field::Esr)), (WHO, 7));
}

#[test]
fn each_changed_bit_is_noticed() {
    let whole = snapshot(&written(1));
    for index in 1..CRASH_PAGE_WORDS {
        let mut words = whole.clone();
        words[index] ^= 1 << (index % 64);
        let torn = !Page::read(words.as_slice()).unwrap().is_whole();
        // The number of failures is counted when the page is whole already.
        assert_eq!(torn, index != 2, "word {index}");
    }
}

#[test]
fn failures_are_counted_and_a_cleared_page_is_gone() {
    let words = written(0);
    note_failure(&words);
    note_failure(&words);
    assert_eq!(Page::read(words.as_slice()).unwrap().failures(), 2);
    clear(&words);
    assert!(Page::read(words.as_slice()).is_none());
}

#[test]
fn a_page_that_is_too_short_is_none_and_is_written_as_far_as_it_goes() {
    let short: Vec<AtomicU64> = (0..70).map(|_| AtomicU64::new(0)).collect();
    let mut writer = Writer::begin(&short, &WHO);
    writer.text(&"y".repeat(100));
    writer.record(&record(0));
    writer.finish();
    assert!(Page::read(short.as_slice()).is_none());
    assert_eq!(short.as_slice().word(70), 0);
}

/// Looks at all that there is.
fn read_all(words: &[u64]) {
    let Some(page) = Page::read(words) else {
        return;
    };
    let _ = (
        page.who(),
        page.gprs(),
        page.calls(),
        page.failures(),
        page.left_out(),
    );
    let mut buffer = [0; TEXT_BYTES];
    assert!(
        page.text(&mut buffer)
            .bytes()
            .all(|byte| (0x20..0x7f).contains(&byte))
    );
    assert!(page.records().count() <= MAX_RECORDS);
    for record in page.records() {
        assert!(record.verdict_name().len() <= 16);
    }
}

proptest! {
    #[test]
    fn garbage_behind_the_magic_never_fails(
        words in prop::collection::vec(any::<u64>(), CRASH_PAGE_WORDS),
    ) {
        let mut words = words;
        words[0] = u64::from_le_bytes(*b"FBCRASH3");
        read_all(&words);
        prop_assert!(!Page::read(words.as_slice()).unwrap().is_whole());
    }

    #[test]
    fn a_page_with_some_words_changed_never_fails(
        changes in prop::collection::vec((1..CRASH_PAGE_WORDS, any::<u64>()), 1..20),
    ) {
        let mut words = snapshot(&written(4));
        for (index, value) in changes {
            words[index] = value;
        }
        read_all(&words);
    }

    #[test]
    fn any_length_is_read(words in prop::collection::vec(any::<u64>(), 0..600)) {
        read_all(&words);
    }
}

#[test]
fn the_last_exits_stand_behind_the_records() {
    let exit = |ticks: u64| Exit {
        ticks,
        pc: 0x4020_0000 + ticks,
        cause: Cause::Interrupt(27),
        about: 0,
    };
    let words = page(u64::MAX);
    let mut writer = Writer::begin(&words, &WHO);
    // A full page: neither may write over the other.
    for number in 0..MAX_RECORDS as u64 {
        writer.record(&record(number));
    }
    for index in 2..MAX_EXITS + 2 {
        writer.exit(index, &exit(index as u64));
    }
    writer.finish();
    let words = snapshot(&words);
    let read = Page::read(&words[..]).expect("a page");
    assert!(read.is_whole());
    let numbers: Vec<_> = read.records().map(|record| record.id).collect();
    assert!(
        numbers
            .iter()
            .copied()
            .eq((0..MAX_RECORDS as u64).map(Some))
    );
    let expected: Vec<_> = (2..MAX_EXITS as u64).map(exit).collect();
    assert_eq!(read.exits().collect::<Vec<_>>(), expected);
}
