// SPDX-License-Identifier: MIT OR Apache-2.0
//! Restart policy: every policy, cause and count.

use firebreak_vm::{Next, RestartPolicy, StopCause, StopReason};

const CAUSES: [StopCause; 7] = [
    StopCause::Off,
    StopCause::Reset,
    StopCause::Silence,
    StopCause::Killed,
    StopCause::KilledForRestart,
    StopCause::Asked,
    StopCause::AskedForRestart,
];

#[test]
fn every_policy_and_cause() {
    for bits in 0..8u8 {
        let [on_reset, on_silence, on_kill] = [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0];
        for limit in 0..4 {
            let policy = RestartPolicy {
                limit,
                backoff_ms: 0,
                on_reset,
                on_silence,
                on_kill,
            };
            for cause in CAUSES {
                for count in [0, 1, 2, 3, 4, u32::MAX] {
                    let allowed = [false, on_reset, on_silence, on_kill, true, false, true];
                    let at = CAUSES.iter().position(|&one| one == cause).unwrap();
                    let restarts = policy.decide(cause, count) == Next::Restart;
                    assert_eq!(
                        restarts,
                        allowed[at] && (count < limit || cause == StopCause::AskedForRestart),
                        "{policy:?} {cause:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_reason_says_whether_the_policy_or_the_limit_forbids() {
    let policy = RestartPolicy {
        limit: 1,
        ..RestartPolicy::default()
    };
    let stop = |cause, count| match policy.decide(cause, count) {
        Next::Restart => String::from("restart"),
        Next::Stop(reason) => reason.to_string(),
    };
    assert_eq!(stop(StopCause::Off, 0), "turned itself off");
    assert_eq!(stop(StopCause::Reset, 0), "restart");
    assert_eq!(
        stop(StopCause::Silence, 1),
        "silence, after 1 restart(s), the limit"
    );
    // A policy that would not restart it anyway is the reason, limit or not.
    assert_eq!(
        stop(StopCause::Killed, 9),
        "killed, and its policy does not restart it"
    );
    let reached = StopReason::LimitReached {
        cause: StopCause::KilledForRestart,
        limit: 1,
    };
    assert_eq!(
        policy.decide(StopCause::KilledForRestart, 1),
        Next::Stop(reached)
    );
}

#[test]
fn what_somebody_asked_for_is_done_whatever_policy_and_limit_say() {
    let policy = RestartPolicy {
        limit: 0,
        backoff_ms: 100,
        on_reset: false,
        on_silence: false,
        on_kill: false,
    };
    for count in [0, 1, u32::MAX] {
        let decide = |cause| policy.decide(cause, count);
        assert_eq!(decide(StopCause::AskedForRestart), Next::Restart);
        assert_eq!(decide(StopCause::Asked), Next::Stop(StopReason::Asked));
    }
    assert_eq!(StopReason::Asked.to_string(), "asked to stop");
}

#[test]
fn a_partition_that_keeps_resetting_is_started_limit_times_again() {
    let policy = RestartPolicy::default();
    let mut count = 0;
    while policy.decide(StopCause::Reset, count) == Next::Restart {
        count += 1;
    }
    assert_eq!(count, policy.limit);
}

#[test]
fn the_back_off_doubles_up_to_its_most_and_nobody_who_asks_waits() {
    let policy = |backoff_ms| RestartPolicy {
        backoff_ms,
        ..RestartPolicy::default()
    };
    let delays = |backoff_ms, counts: [u32; 4]| {
        counts.map(|count| policy(backoff_ms).delay_ms(StopCause::Reset, count))
    };
    assert_eq!(delays(0, [0, 1, 999, u32::MAX]), [0; 4]);
    assert_eq!(delays(100, [0, 1, 2, 9]), [100, 200, 400, 51_200]);
    assert_eq!(delays(100, [10, 11, 999, u32::MAX]), [60_000; 4]);
    assert_eq!(
        delays(1, [15, 16, 17, 32]),
        [32_768, 60_000, 60_000, 60_000]
    );
    assert_eq!(delays(u32::MAX, [0, 1, 32, 64]), [60_000; 4]);
    assert_eq!(policy(100).delay_ms(StopCause::AskedForRestart, 3), 0);
    assert_eq!(policy(100).delay_ms(StopCause::KilledForRestart, 1), 200);
}

#[test]
fn a_later_cause_takes_the_place_of_one_that_keeps_the_partition_down_less() {
    // From the weakest; causes that start the partition again take no other's place.
    let ranks: [&[StopCause]; 4] = [
        &[
            StopCause::Reset,
            StopCause::Silence,
            StopCause::KilledForRestart,
            StopCause::AskedForRestart,
        ],
        &[StopCause::Off],
        &[StopCause::Killed],
        &[StopCause::Asked],
    ];
    let rank = |cause| ranks.iter().position(|rank| rank.contains(&cause));
    for later in CAUSES {
        for earlier in CAUSES {
            assert_eq!(
                later.outranks(earlier),
                rank(later) > rank(earlier),
                "{later:?} while it stops for {earlier:?}"
            );
        }
    }
}
