// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths of commands, and what begins again by one.

use super::super::symbols::Symbols;
use super::super::trace::{Level, Step};
use super::super::typed::{self, STROKE_BYTES};
use super::*;

fn answer(ok: bool) -> String {
    event(&format!("\"ev\":\"answer\",\"id\":null,\"ok\":{ok}"))
}

fn stopped() -> String {
    event("\"ev\":\"stopped\",\"vm\":0,\"name\":\"sweep\"")
}

fn killed() -> String {
    event("\"ev\":\"killed\",\"vm\":0,\"name\":\"sweep\"")
}

/// A life that a command begins has no `restart`.
fn begun() -> Vec<String> {
    life().split_off(1)
}

fn in_barge_in(name: &str, elr: u64) -> Story {
    Story {
        mode: Mode::BargeIn,
        ..Story::new(name, Kind::Ueo, elr)
    }
}

#[test]
fn what_ends_is_stopped_once_answered_and_begun_again_once() {
    for (name, commands) in [("off", 1), ("cmd_stop", 2), ("cmd_start", 2)] {
        let mut story = Story::new(name, Kind::Ueo, WORK).and(&[&stopped()]);
        for _ in 0..commands {
            story = story.and(&[&answer(true)]);
        }
        let story = story.and(&strs(&begun()));
        story.holds(
            5,
            &[
                ("\"ok\":true", "\"ok\":false"),
                ("born=2", "born=3"),
                ("\"ev\":\"stopped\"", "\"ev\":\"killed\""),
            ],
        );
    }
}

#[test]
fn a_restart_that_was_asked_for_is_answered_once_and_one_life() {
    for name in ["cmd_restart", "cmd_reload"] {
        let story = Story::new(name, Kind::Ueo, WORK)
            .and(&[&answer(true)])
            .and(&strs(&life()));
        story.holds(5, &[("\"ok\":true", "\"ok\":false")]);
    }
}

#[test]
fn a_command_on_a_partition_that_goes_on_is_answered_once() {
    let story = Story::new("cmd_trace", Kind::Ueo, WORK).and(&[&answer(true)]);
    story.holds(5, &[("\"ok\":true", "\"ok\":false")]);
    let ends = story.and(&[&stopped()]);
    assert_ne!(ends.problems(), Vec::<String>::new());
}

fn injected() -> Vec<String> {
    vec![
        answer(true),
        event("\"ev\":\"vserror\",\"vm\":0,\"state\":\"pending\",\"syndrome\":\"0x1000000\""),
        "sweep| sweep: serror n=1 round=2".to_owned(),
    ]
}

#[test]
fn what_is_injected_is_told_and_taken_once_in_each_period() {
    let story = Story::new("cmd_inject", Kind::Ueo, WORK).and(&strs(&injected()));
    story.holds(
        5,
        &[
            ("0x1000000", "0x1000001"),
            ("\"vm\":0,\"state\"", "\"vm\":1,\"state\""),
            ("round=2", "round=3"),
        ],
    );
    // Periods without a point have their own.
    let later = "sweep| sweep: serror n=2 round=3";
    assert_eq!(story.and(&[later]).problems(), Vec::<String>::new());
    // Told of an error as well, the guest may take one for both, or two.
    let told = |count: usize| {
        let heard = vec!["sweep| sweep: serror n=2 round=2"; count];
        Story::new("cmd_inject", Kind::Uer, EXIT)
            .and(&strs(&injected()))
            .and(&[&vserror(0)])
            .and(&heard)
            .problems()
            .len()
    };
    assert_eq!((told(0), told(1)), (0, 0));
    assert!(told(2) > 0);
    // An error that comes while the injected one is pending is one with it; nothing else is.
    let twice = |kind| {
        let story = Story::new("cmd_inject", kind, EXIT).and(&strs(&injected()));
        story.and(&[&injected()[1]]).problems().len()
    };
    assert_eq!(twice(Kind::Uer), 0);
    assert!(twice(Kind::Ueo) > 0);
}

#[test]
fn a_context_that_is_lost_where_a_command_comes_is_part_of_the_stop_that_was_asked_for() {
    let story = in_barge_in("cmd_stop", ENTRY_EARLY)
        .and(&[&stopped(), &answer(true), &answer(true)])
        .and(&strs(&begun()));
    story.holds(5, &[]);
    assert_ne!(story.and(&[&killed()]).problems(), Vec::<String>::new());
}

#[test]
fn a_context_that_is_lost_costs_a_life_where_none_was_to_end() {
    let story = in_barge_in("cmd_trace", ENTRY_EARLY)
        .and(&[&answer(true), &killed()])
        .and(&strs(&life()));
    story.holds(5, &[]);
    // A guest that never got to ask for its end runs when it is to be started.
    let story = in_barge_in("off", ENTRY_EARLY)
        .and(&[&killed()])
        .and(&strs(&life()))
        .and(&[&answer(false)]);
    story.holds(5, &[("\"ok\":false", "\"ok\":true")]);
}

#[test]
fn a_stroke_is_what_a_uart_keeps_and_strokes_come_in_order() {
    let paths = || PATHS.iter().filter(|path| !path.typed.is_empty());
    assert!(paths().count() > 0);
    for path in paths() {
        assert!(path.typed.is_sorted_by_key(|stroke| stroke.at_ticks));
        for stroke in path.typed {
            assert!(stroke.text.len() <= STROKE_BYTES, "{}", stroke.text);
            assert!(stroke.at_ticks < path.period_ticks);
        }
        // All bytes of a command come in one period or the one before, and it ends.
        let whole: String = path.typed.iter().map(|stroke| stroke.text).collect();
        assert_eq!(whole.matches('\n').count(), whole.matches("\x01:").count());
    }
    let line = typed::line(path("cmd_stop"));
    assert!(line.starts_with("type pe=0 period=67108864 at=60:013a73746f70"));
}

#[test]
fn the_clock_of_a_command_behind_a_wait_starts_where_the_firmware_types_it() {
    let take = 0x80;
    let own = Symbols::of(&[("_ZN1x7control4take17h0E", take)]);
    let step = |pc, level| Step { pc, level };
    let mut round = vec![step(1, Level::Guest); 41];
    // Four ticks late: the firmware's own way in.
    round.extend([step(2, Level::El3); 3]);
    round.extend([step(3, Level::El2), step(take, Level::El2)]);
    round.extend([step(4, Level::El3), step(5, Level::El2)]);
    round.extend([step(2, Level::El3); 3]);
    round.extend([step(3, Level::El2), step(take, Level::El2)]);
    let start = 23;
    let first = typed::taken(path("cmd_stop"), &round, start, &own).unwrap();
    assert_eq!((first.0, first.1.index, first.1.ticks), (44, 41, 64));
    let second = typed::taken(path("cmd_start"), &round, start, &own).unwrap();
    let at = path("cmd_start").typed[1].at_ticks + 4;
    assert_eq!((second.0, second.1.index, second.1.ticks), (51, 48, at));
    assert!(typed::taken(path("cmd_start"), &round[..50], start, &own).is_none());
}
