// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the observer makes of lines and events.

use super::*;
use crate::plan::Like;
use crate::words::{hex_after, shipped};

fn observer() -> Observer {
    let setting = Setting {
        partition: "linux".to_owned(),
        vm: 0,
        patterns: shipped(Like::Linux),
        bystander: Some(("control".to_owned(), 3)),
        silence_ns: 1000,
    };
    Observer::new(setting, Promise::default(), 2)
}

fn fed(lines: &[&str]) -> Observer {
    let mut observer = observer();
    observer.errors.push(9);
    for line in lines {
        observer.push(&Record::parse(line));
    }
    observer
}

#[test]
fn the_words_of_linux_are_sorted() {
    let seen = fed(&[
        r#"{"v":1,"t":10,"ev":"vserror","vm":0,"vcpu":0,"inj":7,"syndrome":"0x811","state":"taken","elr":"0x1","el":"el0","exact":true}"#,
        "linux| [    1.0] SError Interrupt on CPU0, code 0x00000000be000811 -- SError",
        "linux| [    1.1] Kernel panic - not syncing: Asynchronous SError Interrupt",
        "linux| agent: beat n=1 pattern=ok",
        "linux| agent: beat n=2 pattern=bad",
        "linux| agent: rests",
        "linux| hello",
    ])
    .seen;
    assert_eq!(seen.reports[0].esr, Some(0xbe00_0811));
    assert_eq!(seen.life[0].esr, Some(0xbe00_0811));
    assert_eq!((seen.panics.len(), seen.beats), (1, 1));
    assert_eq!((seen.corruptions.len(), seen.unusual.len()), (1, 1));
}

#[test]
fn a_task_that_ends_by_what_was_typed_counts_for_nothing() {
    let mut observer = observer();
    let ended = Record::parse("linux| agent: child ended signal=9");
    observer.typed.push("rest\n".to_owned());
    observer.push(&ended);
    observer.push(&Record::parse("linux| rest"));
    let seen = &observer.seen;
    assert!(seen.task_kills.is_empty() && seen.unusual.is_empty());
    // On a host that gave the guest no time this came late, and the case had survived silently.
    observer.push(&Record::parse("linux| agent: child ended signal=7"));
    assert_eq!(observer.seen.task_kills.len(), 1);
    observer.typed.clear();
    observer.push(&ended);
    assert_eq!(observer.seen.task_kills.len(), 2);
}

#[test]
fn what_concerns_others_is_a_fault() {
    let tick = "control| control: ticks=2000 missed=3 jitter_max_ns=5";
    assert!(fed(&[tick]).seen.faults.is_empty());
    let late = "control| control: ticks=2000 missed=4 jitter_max_ns=5";
    assert_eq!(fed(&[late]).seen.faults.len(), 1);
    let slow = "control| control: ticks=2000 missed=3 jitter_max_ns=900 late_max_ns=500";
    let slow = fed(&[slow, tick]).seen;
    assert_eq!((slow.faults.len(), slow.bystander_late_ns), (0, Some(500)));
    let killed = r#"{"v":1,"t":10,"ev":"killed","vm":1,"name":"control","reason":"x"}"#;
    assert_eq!(fed(&[killed]).seen.faults.len(), 1);
    let ours = r#"{"v":1,"t":10,"ev":"killed","vm":0,"name":"linux","reason":"x"}"#;
    assert_eq!(fed(&[ours]).seen.ends.len(), 1);
    let panics = r#"{"v":1,"t":10,"ev":"pvpanic","vm":0,"name":"linux","events":1}"#;
    let seen = fed(&[panics]).seen;
    assert_eq!((seen.panics.len(), seen.faults.len()), (1, 0));
    for failed in [
        r#"{"v":1,"t":10,"ev":"pvpanic","vm":1,"name":"control","events":1}"#,
        r#"{"v":1,"t":10,"ev":"panic","pe":0,"text":"x"}"#,
        r#"{"v":1,"t":10,"ev":"crash","kind":"panic"}"#,
    ] {
        assert_eq!(fed(&[failed]).seen.faults.len(), 1, "{failed}");
    }
    let decided = r#"{"v":1,"t":10,"ev":"crash","kind":"error"}"#;
    assert!(fed(&[decided]).seen.faults.is_empty());
}

#[test]
fn silence_is_counted_in_the_machines_time_and_ends_with_a_sign_of_life() {
    let at = |t: u64| format!(r#"{{"v":1,"t":{t},"ev":"answer","id":1,"ok":true}}"#);
    assert!(!fed(&[&at(0), &at(1000)]).seen.silent);
    assert!(fed(&[&at(0), &at(1001)]).seen.silent);
    let beat = "linux| agent: beat n=1 pattern=ok";
    assert!(!fed(&[&at(0), &at(900), beat, &at(1800)]).seen.silent);
    // Words are no sign of life.
    assert!(
        fed(&[&at(0), &at(900), "linux| hello", &at(1800)])
            .seen
            .silent
    );
}

/// A kernel without the table of its own text met it for ever, and each time counted as life.
#[test]
fn the_same_abort_again_and_again_is_silence() {
    let abort = |t: u64, pc: &str| {
        format!(r#"{{"v":1,"t":{t},"ev":"abort","vm":0,"vcpu":0,"pc":"{pc}","retired":true}}"#)
    };
    let same = [abort(0, "0x8"), abort(600, "0x8"), abort(1200, "0x8")];
    assert!(fed(&same.each_ref().map(String::as_str)).seen.silent);
    let others = [abort(0, "0x8"), abort(600, "0xc"), abort(1200, "0x10")];
    assert!(!fed(&others.each_ref().map(String::as_str)).seen.silent);
    // One whose handler met the next abort, met two of them in turns, for the ten minutes that a case may take.
    let turns = [abort(0, "0x8"), abort(600, "0xc"), abort(1700, "0x8")];
    assert!(fed(&turns.each_ref().map(String::as_str)).seen.silent);
    // However many there are, and with words between them it lives.
    let many: Vec<String> = (0..3000).map(|t| abort(t, &format!("{t:#x}"))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(fed(&many).seen.silent);
    let beat = "linux| agent: beat n=1 pattern=ok";
    let lives = [&same[0], beat, &same[1], beat, &same[2]];
    let seen = fed(&lives).seen;
    assert_eq!((seen.beats, seen.silent), (2, false));
}

#[test]
fn a_flood_is_noticed_and_takes_no_memory() {
    let mut observer = observer();
    let line = Record::parse("linux| spam");
    for _ in 0..3 * FLOOD_LINES {
        observer.push(&line);
    }
    assert!(observer.seen.flooded && observer.is_over());
    assert!(observer.console.len() <= CONSOLE_LINES);
    assert!(observer.timeline.len() <= MOST_ENTRIES);
    assert!(observer.seen.unusual.len() <= MOST_ENTRIES);
}

/// A record whose section with the number was broken was nobody's, and its case inconclusive.
#[test]
fn an_error_is_known_by_its_place_where_its_number_is_a_lie() {
    let delivered = "fw: delivered id=9 pe=2 from=el1 vector=0x580 elr=0x402015d4";
    let event = |pe: u8, pc: &str, iss: &str| {
        format!(
            r#"{{"v":1,"t":10,"ev":"error","id":1,"pe":{pe},"pc":"{pc}","iss":"{iss}","verdict":"log"}}"#
        )
    };
    let known = |lines: &[&str]| {
        let mut observer = observer();
        observer.errors.push(9);
        observer.alone = Some(0x811);
        for line in lines {
            observer.push(&Record::parse(line));
        }
        observer.seen.verdicts.len() == 1 && observer.record.is_some()
    };
    let ours = event(2, "0x402015d4", "0x811");
    // The two lines come in either order.
    assert!(known(&[delivered, &ours]) && known(&[&ours, delivered]));
    assert!(!known(&[&ours]));
    for other in [
        event(3, "0x402015d4", "0x811"),
        event(2, "0x402015d8", "0x811"),
        event(2, "0x402015d4", "0x1811"),
    ] {
        assert!(!known(&[delivered, &other]), "{other}");
    }
    // Two that fit, and nobody knows which.
    assert!(!known(&[&ours, &ours, delivered]));
}

#[test]
fn the_bystander_has_the_last_word() {
    let raised = "fw: raised id=9 pe=1";
    let beat = "linux| agent: beat n=1 pattern=ok";
    let tick = "control| control: ticks=2000 missed=3 jitter_max_ns=5";
    let over = |lines: &[&str]| fed(lines).is_over();
    // Whatever was said before the error was there counts for nothing.
    assert!(!over(&[beat, beat, raised, tick]));
    let mut observer = fed(&[raised, tick, beat, beat]);
    assert!(!observer.is_over());
    observer.push(&Record::parse(tick));
    assert!(observer.is_over());
    let late = "control| control: ticks=2000 missed=4 jitter_max_ns=5";
    assert!(over(&[late]));
}

/// A guest that reported its error and gave two signs of life within a millisecond ended its case before
/// the hypervisor had looked: `baremetal-moments` was inconclusive.
#[test]
fn a_guest_that_is_quicker_than_the_hypervisors_look_is_waited_for() {
    let at = |t: u64| format!(r#"{{"v":1,"t":{t},"ev":"answer","id":1,"ok":true}}"#);
    let life = |t: u64, state: &str| {
        format!(
            r#"{{"v":1,"t":{t},"ev":"vserror","vm":0,"inj":1,"syndrome":"0x811","state":"{state}"}}"#
        )
    };
    let beat = "linux| agent: beat n=1 pattern=ok";
    let mut observer = observer();
    observer.setting.bystander = None;
    observer.setting.silence_ns = 1_000_000_000;
    let mut over_behind = |lines: &[&str]| {
        for line in lines {
            observer.push(&Record::parse(line));
        }
        (observer.is_over(), observer.awaits_time())
    };
    assert_eq!(
        over_behind(&[&life(0, "pending"), beat, beat]),
        (false, true)
    );
    // When these words were said is known by the next event alone.
    assert_eq!(over_behind(&[&at(9_000_000)]), (false, true));
    assert_eq!(over_behind(&[&at(9_900_000)]), (false, true));
    // What it says behind the error counts.
    assert_eq!(over_behind(&[&life(9_950_000, "taken")]), (false, false));
    assert_eq!(over_behind(&[beat, beat]), (true, false));
    // One that is looked at and waits still is not waited for.
    assert_eq!(over_behind(&[&life(20_000_000, "pending")]), (false, true));
    assert_eq!(over_behind(&[&at(21_000_000)]), (false, true));
    assert_eq!(over_behind(&[&at(24_000_000)]), (true, false));
}

#[test]
fn numbers_in_lines_are_found() {
    assert_eq!(hex_after("code 0x00be, x", "code "), Some(0xbe));
    assert_eq!(hex_after("esr=be", "esr="), Some(0xbe));
    assert_eq!(hex_after("esr=", "esr="), None);
    assert_eq!(
        missed_ticks("control: ticks=1000 missed=7 jitter_max_ns=1"),
        Some(7)
    );
    assert_eq!(missed_ticks("control: ready"), None);
}
