// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log: it goes on over resets, loses the oldest first, and believes nothing that is torn.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use firebreak_blackbox::log::{Earlier, Log, MAX_ENTRIES, SLOT_BYTES, TEXT_BYTES, View};
use proptest::prelude::*;

const SLOT_WORDS: usize = SLOT_BYTES / 8;

fn memory(slots: usize, fill: u64) -> Vec<AtomicU64> {
    (0..slots * SLOT_WORDS)
        .map(|_| AtomicU64::new(fill))
        .collect()
}

fn snapshot(words: &[AtomicU64]) -> Vec<u64> {
    words
        .iter()
        .map(|word| word.load(Ordering::Relaxed))
        .collect()
}

fn add(log: &Log<'_>, pe: u8, ticks: u64, text: &str) {
    let mut entry = log.entry(pe, ticks);
    writeln!(entry, "\x1e{text}").unwrap();
    entry.finish();
}

fn texts(words: &[u64]) -> Vec<String> {
    let Some(view) = View::read(words) else {
        return Vec::new();
    };
    view.entries()
        .map(|entry| view.text(&entry, &mut [0; TEXT_BYTES]).to_owned())
        .collect()
}

#[test]
fn a_log_goes_on_over_a_reset_and_drops_the_oldest() {
    let words = memory(4, 0xa5a5_a5a5_a5a5_a5a5);
    let (log, earlier) = Log::adopt(&words, 1).unwrap();
    assert_eq!((earlier, log.boot()), (None, 1));
    for number in 1..=4 {
        add(&log, 2, number, &format!("{{\"n\":{number}}}"));
    }
    let (log, earlier) = Log::adopt(&words, 2).unwrap();
    let expected = Earlier {
        same_configuration: false,
        last: 4,
        boot: 1,
    };
    assert_eq!((earlier, log.boot()), (Some(expected), 2));
    add(&log, 5, 50, "again");
    let words = snapshot(&words);
    assert_eq!(texts(&words), ["{\"n\":3}", "{\"n\":4}", "again"]);
    let view = View::read(words.as_slice()).unwrap();
    let entry = view.entry(5).unwrap();
    assert_eq!(
        (entry.pe, entry.ticks, entry.boot, entry.cut),
        (5, 50, 2, false)
    );
    assert_eq!(
        (view.entry(2), view.damaged(), view.capacity()),
        (None, 0, 3)
    );
}

#[test]
fn the_same_configuration_is_known_again() {
    let words = memory(3, 0);
    assert!(Log::adopt(&words, 77).unwrap().1.is_none());
    assert!(
        Log::adopt(&words, 77)
            .unwrap()
            .1
            .unwrap()
            .same_configuration
    );
    assert!(
        !Log::adopt(&words, 78)
            .unwrap()
            .1
            .unwrap()
            .same_configuration
    );
}

#[test]
fn memory_of_another_size_begins_anew_and_too_little_is_refused() {
    let words = memory(6, 0);
    add(&Log::adopt(&words, 0).unwrap().0, 0, 0, "old");
    assert_eq!(Log::adopt(&words[..4 * SLOT_WORDS], 0).unwrap().1, None);
    for slots in 0..2 {
        assert!(Log::adopt(&words[..slots * SLOT_WORDS], 0).is_none());
    }
    let words = memory(MAX_ENTRIES + 9, 0);
    assert_eq!(
        Log::adopt(&words, 0).unwrap().0.view().capacity(),
        MAX_ENTRIES as u64
    );
}

#[test]
fn an_entry_that_was_never_finished_is_damaged_and_hides_no_other() {
    let words = memory(5, 0);
    let (log, _) = Log::adopt(&words, 0).unwrap();
    add(&log, 0, 0, "before");
    // Dropped without an end.
    write!(
        log.entry(0, 0),
        "half of an event that is longer than a word"
    )
    .unwrap();
    add(&log, 0, 0, "behind");
    let words = snapshot(&words);
    assert_eq!(texts(&words), ["before", "behind"]);
    assert_eq!(View::read(words.as_slice()).unwrap().damaged(), 1);
}

#[test]
fn each_changed_bit_of_an_entry_is_noticed() {
    let words = memory(3, 0);
    let (log, _) = Log::adopt(&words, 0).unwrap();
    add(&log, 1, 2, "0123456789");
    let whole = snapshot(&words);
    for index in SLOT_WORDS..SLOT_WORDS + 6 {
        for bit in 0..64 {
            let mut words = whole.clone();
            words[index] ^= 1 << bit;
            assert!(texts(&words).is_empty(), "word {index} bit {bit}");
            assert_eq!(View::read(words.as_slice()).unwrap().damaged(), 1);
        }
    }
}

#[test]
fn a_dump_that_ends_early_shows_what_is_there() {
    let words = memory(9, 0);
    let (log, _) = Log::adopt(&words, 0).unwrap();
    ["a", "b", "c"]
        .iter()
        .for_each(|text| add(&log, 0, 0, text));
    let words = snapshot(&words);
    assert_eq!(texts(&words[..3 * SLOT_WORDS]), ["a", "b"]);
    assert_eq!(texts(&words[..3 * SLOT_WORDS - 1]), ["a", "b"]);
    assert!(texts(&words[..SLOT_WORDS]).is_empty());
    assert!(texts(&words[..4]).is_empty());
}

#[test]
fn a_long_text_is_cut_and_says_so() {
    let words = memory(2, 0);
    let (log, _) = Log::adopt(&words, 0).unwrap();
    for (len, cut) in [(TEXT_BYTES, false), (TEXT_BYTES + 1, true)] {
        add(&log, 0, 0, &"z".repeat(len));
        let view = log.view();
        let entry = view.entry(view.last()).unwrap();
        assert_eq!(entry.cut, cut, "{len}");
        assert_eq!(view.text(&entry, &mut [0; TEXT_BYTES]).len(), TEXT_BYTES);
    }
}

#[test]
fn writers_on_several_pes_lose_nothing() {
    let words = memory(101, 0);
    let (log, _) = Log::adopt(&words, 0).unwrap();
    std::thread::scope(|scope| {
        for pe in 0..4 {
            let log = &log;
            scope.spawn(move || (0..25).for_each(|n| add(log, pe, n, &format!("{pe}:{n}"))));
        }
    });
    let mut found = texts(&snapshot(&words));
    found.sort();
    let mut expected: Vec<String> = (0..100).map(|n| format!("{}:{}", n / 25, n % 25)).collect();
    expected.sort();
    assert_eq!(found, expected);
}

proptest! {
    #[test]
    fn what_is_written_is_read(texts_in in prop::collection::vec("[ -~]{0,1000}", 1..12)) {
        let words = memory(5, 3);
        let (log, _) = Log::adopt(&words, 0).unwrap();
        for text in &texts_in {
            add(&log, 0, 0, text);
        }
        let kept: Vec<String> = texts_in
            .iter()
            .skip(texts_in.len().saturating_sub(4))
            .map(|text| text.chars().take(TEXT_BYTES).collect())
            .collect();
        prop_assert_eq!(texts(&snapshot(&words)), kept);
    }

    #[test]
    fn hostile_memory_is_adopted_and_works(
        changes in prop::collection::vec((0..5 * SLOT_WORDS, any::<u64>()), 0..30),
        length in 0..5 * SLOT_WORDS,
    ) {
        let words = memory(5, 0);
        let (log, _) = Log::adopt(&words, 0).unwrap();
        (0..6).for_each(|n| add(&log, 0, n, "entry"));
        for (index, value) in changes {
            words[index].store(value, Ordering::Relaxed);
        }
        let _ = texts(&snapshot(&words)[..length]);
        let before = texts(&snapshot(&words));
        prop_assert!(before.iter().all(|text| text == "entry" || text.is_ascii()));
        let (log, _) = Log::adopt(&words, 0).unwrap();
        add(&log, 0, 0, "behind");
        prop_assert_eq!(texts(&snapshot(&words)).pop(), Some("behind".to_owned()));
    }
}
