// SPDX-License-Identifier: MIT OR Apache-2.0
//! A table of observations and their classes, and what holds for every observation.

use proptest::prelude::*;

use super::*;
use crate::observation::{Promise, Step};

const UER: u64 = 0xbe00_0c11;

fn step(stage: Stage, esr: Option<u64>) -> Step {
    Step {
        t_ns: 1,
        stage,
        esr,
        exact: true,
        el: Some(0),
        pc: Some(0x40_1000),
        text: format!("{stage:?}"),
    }
}

fn told(text: &str, esr: Option<u64>) -> Sign {
    Sign {
        text: text.to_owned(),
        esr,
    }
}

/// Raised, taken, and the guest goes on.
fn survived() -> Observation {
    Observation {
        raised: Raised::Yes,
        life: vec![step(Stage::Taken, Some(UER))],
        beats: 2,
        ..Observation::new(Promise::default(), 2)
    }
}

fn with(change: impl FnOnce(&mut Observation)) -> Observation {
    let mut seen = survived();
    change(&mut seen);
    seen
}

#[test]
fn the_table_of_classes() {
    let end = || "restart reason=reset".to_owned();
    let table = [
        (survived(), Class::SurvivedSilently),
        (
            with(|seen| seen.life = vec![step(Stage::Deferred, Some(UER))]),
            Class::SurvivedSilently,
        ),
        (
            with(|seen| seen.reports.push(told("serror", Some(UER)))),
            Class::RecoveredAndLogged,
        ),
        (
            with(|seen| seen.unusual.push(told("hello", None))),
            Class::RecoveredAndLogged,
        ),
        (
            with(|seen| seen.task_kills.push(told("signal=7", None))),
            Class::TaskKilled,
        ),
        (
            with(|seen| seen.corruptions.push(told("pattern=bad", None))),
            Class::CorruptedSilently,
        ),
        (
            // Not silently.
            with(|seen| {
                seen.corruptions.push(told("pattern=bad", None));
                seen.reports.push(told("serror", None));
            }),
            Class::RecoveredAndLogged,
        ),
        (
            with(|seen| {
                seen.panics.push(told("panic", Some(UER)));
                seen.ends.push(end());
                seen.beats = 0;
            }),
            Class::Panicked,
        ),
        (
            // It stops for good, without a restart.
            with(|seen| {
                seen.panics.push(told("panic", None));
                seen.beats = 0;
                seen.silent = true;
            }),
            Class::Panicked,
        ),
        (
            with(|seen| {
                seen.ends.push(end());
                seen.beats = 0;
            }),
            Class::Rebooted,
        ),
        (
            with(|seen| seen.machine_reset = Some("fw: reset reason=uncontainable".to_owned())),
            Class::Rebooted,
        ),
        (
            with(|seen| {
                seen.beats = 1;
                seen.silent = true;
            }),
            Class::Hung,
        ),
        (
            with(|seen| seen.life = vec![step(Stage::Pending, Some(UER))]),
            Class::NotDelivered,
        ),
        (
            with(|seen| {
                seen.life.clear();
                seen.verdicts.push("error verdict=log".to_owned());
            }),
            Class::NotDelivered,
        ),
        (
            with(|seen| seen.faults.push("panic".to_owned())),
            Class::HypervisorFault,
        ),
    ];
    for (seen, class) in table {
        let verdict = classify(&seen);
        assert_eq!(verdict.class, class, "{} of {seen:?}", verdict.reason);
    }
}

#[test]
fn what_proves_nothing_is_inconclusive() {
    let table = [
        with(|seen| seen.raised = Raised::Unknown),
        with(|seen| seen.raised = Raised::Refused("stopped".to_owned())),
        with(|seen| seen.host = Some("QEMU ended".to_owned())),
        with(|seen| {
            seen.beats = 0;
            seen.flooded = true;
        }),
        // Nobody waited long enough.
        with(|seen| seen.beats = 1),
        // Raised, and never heard of again.
        with(|seen| seen.life.clear()),
        with(|seen| seen.life = vec![step(Stage::Cancelled, Some(UER))]),
        // A report of an error that was not given.
        with(|seen| {
            seen.life = vec![step(Stage::Pending, Some(UER))];
            seen.reports.push(told("serror", Some(UER)));
        }),
        with(|seen| {
            seen.life.clear();
            seen.panics.push(told("panic", None));
        }),
        // Another syndrome.
        with(|seen| seen.reports.push(told("serror", Some(UER ^ 1)))),
        // Another class of exceptions.
        with(|seen| seen.reports.push(told("abort", Some(0x9600_0010)))),
        // It goes on after its last words.
        with(|seen| seen.panics.push(told("panic", None))),
        // Not where the moment says.
        with(|seen| seen.promise.el = Some(1)),
        with(|seen| seen.promise.masked = Some(true)),
        with(|seen| {
            seen.promise.masked = Some(false);
            seen.life.insert(0, step(Stage::Pending, Some(UER)));
        }),
    ];
    for seen in table {
        let verdict = classify(&seen);
        assert_eq!(
            verdict.class,
            Class::Inconclusive,
            "{} of {seen:?}",
            verdict.reason
        );
    }
}

#[test]
fn an_external_abort_waits_for_nobody() {
    let seen = with(|seen| {
        seen.promise.masked = Some(true);
        seen.life = vec![step(Stage::Taken, Some(0x9600_0010))];
    });
    assert_eq!(classify(&seen).class, Class::SurvivedSilently);
}

#[test]
fn a_syndrome_that_nobody_can_know_is_not_compared() {
    // A CPU without FEAT_RAS.
    let seen = with(|seen| {
        seen.life = vec![step(Stage::Taken, None)];
        seen.reports.push(told("serror", Some(0xbe00_0000)));
    });
    assert_eq!(classify(&seen).class, Class::RecoveredAndLogged);
}

fn stages() -> impl Strategy<Value = Stage> {
    prop_oneof![
        Just(Stage::Pending),
        Just(Stage::Taken),
        Just(Stage::Deferred),
        Just(Stage::Gone),
        Just(Stage::Merged),
        Just(Stage::Cancelled),
    ]
}

fn signs() -> impl Strategy<Value = Vec<Sign>> {
    let esr = prop_oneof![Just(None), Just(Some(UER)), Just(Some(0xbe00_0811))];
    proptest::collection::vec(esr.prop_map(|esr| told("a line", esr)), 0..3)
}

prop_compose! {
    fn observations()(
        life in proptest::collection::vec(
            (stages(), prop_oneof![Just(None), Just(Some(UER))], 0..2_u8), 0..4),
        lists in proptest::array::uniform5(signs()),
        raised in 0..4_u8,
        beats in 0..4_u32,
        flags in proptest::array::uniform8(any::<bool>()),
        masked in prop_oneof![Just(None), Just(Some(true)), Just(Some(false))],
        el in prop_oneof![Just(None), Just(Some(0)), Just(Some(1))],
    ) -> Observation {
        let [reports, panics, task_kills, corruptions, unusual] = lists;
        let some = |flag: bool| flag.then(|| "words".to_owned());
        Observation {
            promise: Promise { masked, el, near: None },
            raised: match raised {
                0 => Raised::Unknown,
                1 => Raised::Refused("why".to_owned()),
                _ => Raised::Yes,
            },
            life: life
                .into_iter()
                .map(|(stage, esr, el)| Step { el: Some(el), ..step(stage, esr) })
                .collect(),
            verdicts: some(flags[0]).into_iter().collect(),
            reports,
            panics,
            task_kills,
            corruptions,
            unusual,
            beats,
            beats_wanted: 2,
            missed: 0,
            ends: some(flags[1] && flags[2]).into_iter().collect(),
            machine_reset: some(flags[2] && flags[3]),
            faults: some(flags[3] && flags[4]).into_iter().collect(),
            bystander_late_ns: None,
            host: some(flags[4] && flags[5]),
            flooded: flags[6],
            silent: flags[7],
        }
    }
}

/// An error at EL0 hit the agent instead of the process that spins, which was told as unexpected.
#[test]
fn another_process_at_the_same_level_is_not_the_one_that_was_meant() {
    let mut seen = Observation::new(Promise::default(), 1);
    seen.raised = Raised::Yes;
    seen.life = vec![step(Stage::Taken, Some(UER))];
    seen.beats = 1;
    let pc = seen.life[0].pc.unwrap();
    for (near, misses) in [
        (None, false),
        (Some(pc - NEAR_BYTES), false),
        (Some(pc + NEAR_BYTES), false),
        (Some(pc + NEAR_BYTES + 1), true),
    ] {
        seen.promise.near = near;
        assert_eq!(misses_its_place(&seen), misses, "{near:x?}");
        let class = classify(&seen).class;
        assert_eq!(class == Class::Inconclusive, misses, "{near:x?}");
    }
    seen.promise = Promise {
        el: Some(1),
        ..Promise::default()
    };
    assert!(misses_its_place(&seen));
    seen.raised = Raised::Unknown;
    assert!(!misses_its_place(&seen));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_class_without_its_evidence(seen in observations()) {
        let class = classify(&seen).class;
        let alive = seen.alive();
        let ended = !seen.ends.is_empty() || seen.machine_reset.is_some();
        prop_assert_eq!(class == Class::HypervisorFault, !seen.faults.is_empty());
        if class != Class::HypervisorFault && class != Class::Inconclusive {
            prop_assert!(seen.raised == Raised::Yes, "not raised");
            prop_assert!(seen.host.is_none(), "the host failed");
        }
        match class {
            Class::SurvivedSilently => prop_assert!(
                alive && !ended && seen.delivered() && seen.reports.is_empty()
                    && seen.unusual.is_empty() && seen.corruptions.is_empty()
                    && seen.task_kills.is_empty()
            ),
            Class::RecoveredAndLogged => prop_assert!(
                alive && !ended && seen.delivered()
                    && !(seen.reports.is_empty() && seen.unusual.is_empty())
            ),
            Class::TaskKilled => prop_assert!(alive && !ended && !seen.task_kills.is_empty()),
            Class::CorruptedSilently => prop_assert!(
                alive && seen.reports.is_empty() && !seen.corruptions.is_empty()
            ),
            Class::NotDelivered => prop_assert!(alive && !seen.delivered() && !ended),
            Class::Panicked => prop_assert!(!seen.panics.is_empty() && seen.delivered()),
            Class::Rebooted => prop_assert!(ended && seen.panics.is_empty()),
            Class::Hung => prop_assert!(!alive && seen.silent && !ended),
            Class::HypervisorFault | Class::Inconclusive => {}
        }
    }

    #[test]
    fn a_syndrome_that_was_not_given_never_passes(seen in observations(), wrong in any::<u64>()) {
        let mut seen = seen;
        prop_assume!(wrong != UER);
        seen.faults.clear();
        for one in &mut seen.life {
            one.esr = Some(UER);
        }
        seen.life.push(step(Stage::Taken, Some(UER)));
        seen.reports.push(told("a report", Some(wrong)));
        prop_assert_eq!(classify(&seen).class, Class::Inconclusive);
    }

    #[test]
    fn an_error_that_was_not_raised_never_passes(seen in observations()) {
        let mut seen = seen;
        seen.raised = Raised::Refused("no".to_owned());
        seen.faults.clear();
        prop_assert_eq!(classify(&seen).class, Class::Inconclusive);
    }
}
