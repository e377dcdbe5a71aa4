// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs as they could have been, made up from a seed, for tests of what shows them.

use firebreak_report::{
    Case, Class, End, Event, Evidence, Guest, Reset, Results, Run, Shard, Source,
};

/// What hostile guests print.
pub(crate) const HOSTILE: &str =
    "</script><script>window.owned=1</script><img src=x onerror=window.owned=1>\u{2028}\u{1b}[31m";

/// SplitMix64: the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Makes a run of Linux: 8 errors, 6 moments, RAS visible or not, 2 repetitions: 192 cases.
pub(crate) fn linux(seed: u64) -> Results {
    const ERRORS: [(&str, u32); 8] = [
        ("ce", 0x1811),
        ("ueo", 0x811),
        ("uer", 0xc11),
        ("ueu", 0x411),
        ("uc", 0x11),
        ("impdef", 0x100_0000),
        ("reserved-aet", 0x1011),
        ("uncategorized", 0),
    ];
    const MOMENTS: [&str; 6] = [
        "el0",
        "el1",
        "el1-masked",
        "in-interrupt",
        "in-syscall",
        "while-copying",
    ];
    let mut numbers = Numbers(seed);
    let mut cases = Vec::new();
    for (error, iss) in ERRORS {
        for moment in MOMENTS {
            for ras_visible in [true, false] {
                for repetition in 0..2 {
                    let survives = ras_visible && matches!(error, "ce" | "ueo");
                    let (expected, other) = if survives {
                        (Class::SurvivedSilently, Class::RecoveredAndLogged)
                    } else {
                        (Class::Panicked, Class::Hung)
                    };
                    let class = match numbers.below(60) {
                        0 => other,
                        1 => Class::Inconclusive,
                        2 if moment == "while-copying" => Class::CorruptedSilently,
                        _ => expected,
                    };
                    let seen = if ras_visible { "visible" } else { "hidden" };
                    let name = format!("{error}/{moment}/{seen}/{repetition}");
                    let mut one = case("linux", &name, error, moment, iss, class);
                    one.ras_visible = ras_visible;
                    one.repetition = repetition;
                    one.wall_ms = 600 + numbers.below(700);
                    expect(&mut one, expected);
                    cases.push(one);
                }
            }
        }
    }
    if let Some(hostile) = cases.first_mut() {
        hostile.console.insert(0, HOSTILE.to_owned());
        hostile.reason = format!("it said {HOSTILE}");
    }
    whole(
        "linux-serror",
        &[("linux", "Linux 6.12.48+deb13-cloud-arm64")],
        cases,
    )
}

/// Makes a run of a bare-metal guest: `errors` syndromes (at most 1,024), 2 moments, and 2 policies.
pub(crate) fn baremetal(errors: u32) -> Results {
    let mut cases = Vec::new();
    let values = (0..1024_u32).map(|n| (n >> 9 << 24) | ((n >> 6 & 7) << 10) | (n & 0x3f));
    for iss in values.take(errors as usize) {
        for moment in ["masked", "unmasked"] {
            for policy in ["inject", "kill"] {
                let error = format!("{iss:#x}");
                let name = format!("{error}/{moment}/{policy}/0");
                let (ids, aet, dfsc) = (iss >> 24, iss >> 10 & 7, iss & 0x3f);
                let expected = match (ids, aet, dfsc, policy) {
                    (_, _, _, "kill") => Class::Rebooted,
                    (0, 2 | 6, 0x11, _) => Class::RecoveredAndLogged,
                    (1, ..) | (0, _, 0x11, _) => Class::Panicked,
                    _ if moment == "masked" => Class::SurvivedSilently,
                    _ => Class::Panicked,
                };
                let class = match (aet, dfsc) {
                    (5, 0x2a) => Class::HypervisorFault,
                    (7, 0x30) => Class::NotDelivered,
                    (3, 0x3f) => Class::TaskKilled,
                    _ => expected,
                };
                let mut one = case("victim", &name, &error, moment, iss, class);
                policy.clone_into(&mut one.policy);
                one.wall_ms = 40;
                expect(&mut one, expected);
                cases.push(one);
            }
        }
    }
    whole(
        "baremetal-all-syndromes",
        &[("victim", "Firebreak's victim")],
        cases,
    )
}

/// Gives part `index` of `count` of a run, as another machine would have run it.
pub(crate) fn shard(whole: &Results, index: u32, count: u32) -> Results {
    let mut part = whole.clone();
    let mut place = 0;
    part.cases.retain(|_| {
        place += 1;
        place % count == index % count
    });
    part.run.shard = Some(Shard { index, count });
    part.run.cases = part.cases.len() as u64;
    part.run.started = format!("2026-11-23T00:0{index}:00Z");
    let plan = &whole.run.plan;
    part.run.command =
        format!("firebreak campaign plans/{plan}.toml --shard {index}/{count} -o {index}.jsonl");
    if let Some(end) = &mut part.end {
        end.done = part.run.cases;
        end.wall_s = f64::from(index);
    }
    part
}

fn whole(plan: &str, guests: &[(&str, &str)], cases: Vec<Case>) -> Results {
    let guests = guests.iter().map(|(name, what)| Guest {
        name: (*name).to_owned(),
        what: (*what).to_owned(),
        sha256: "5a17".repeat(16),
    });
    let done = cases.len() as u64;
    Results {
        run: Run {
            v: firebreak_report::VERSION,
            plan: plan.to_owned(),
            plan_sha256: "c0de".repeat(16),
            firebreak: "0.1.0".to_owned(),
            commit: Some("f08d2ce0a1b2c3d4".to_owned()),
            qemu: "10.0.2".to_owned(),
            cpu: "neoverse-n1".to_owned(),
            guests: guests.collect(),
            seed: 1,
            shard: None,
            cases: done,
            started: "2026-11-23T00:00:00Z".to_owned(),
            command: format!("firebreak campaign plans/{plan}.toml"),
        },
        cases,
        end: Some(End {
            done,
            interrupted: false,
            wall_s: 412.25,
            budget_hit: None,
        }),
        left_out: firebreak_report::LeftOut::default(),
    }
}

fn expect(case: &mut Case, expected: Class) {
    case.expected = Some(vec![expected]);
    case.ok = (case.class != Class::Inconclusive).then_some(case.class == expected);
}

fn case(guest: &str, name: &str, error: &str, moment: &str, iss: u32, class: Class) -> Case {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let esr = 0xbe00_0000_u32 | iss;
    let seen = |source, t_ns, text: &str| Evidence {
        source,
        t_ns,
        text: text.to_owned(),
    };
    let event = |t_ns, source, text: &str| Event {
        t_ns,
        source,
        text: text.to_owned(),
    };
    let panicked = class == Class::Panicked;
    let last = match class {
        Class::Panicked => "Kernel panic - not syncing: Asynchronous SError Interrupt",
        Class::Hung => "(nothing for 5 s of the machine's time)",
        _ => "agent: tick 41 checksum 9c1e55aa",
    };
    let code = format!("SError Interrupt on CPU0, code 0x{esr:016x} -- SError");
    let plan = if guest == "linux" {
        "linux-serror"
    } else {
        "baremetal-all-syndromes"
    };
    let record = serde_json::json!({
        "severity": "recoverable", "vm": 1, "vcpu": 0, "esr": format!("{esr:#x}"),
        "rule": "own-unit", "verdict": { "act": "inject", "vsesr": format!("{iss:#x}") },
        "pa": null, "sections": ["ARM processor error"],
    });
    Case {
        name: name.to_owned(),
        guest: guest.to_owned(),
        error: error.to_owned(),
        moment: moment.to_owned(),
        policy: "inject".to_owned(),
        firmware: "conforming".to_owned(),
        ras_visible: true,
        repetition: 0,
        class,
        expected: None,
        ok: None,
        reason: match class {
            Class::Panicked => "the guest's own words of a panic came after it took the error",
            Class::Hung => "no heartbeat for 5 s, and the guest has not asked to be stopped",
            Class::Inconclusive => "the moment was not reached, so the error was not raised",
            _ => "the heartbeat went on, and the rule for this class matched",
        }
        .to_owned(),
        evidence: vec![
            seen(
                Source::Hypervisor,
                Some(1_204_117),
                "virtual SError taken, VSESR_EL2 cleared",
            ),
            seen(Source::Guest, Some(3_900_000), last),
            seen(Source::Host, None, "QEMU still runs"),
        ],
        timeline: vec![
            event(
                0,
                Source::Host,
                "restored the snapshot of the starting point",
            ),
            event(1_180_002, Source::Firmware, "SError delegated to EL2"),
            event(
                1_190_466,
                Source::Hypervisor,
                "error: rule own-unit, act inject",
            ),
            event(1_204_117, Source::Hypervisor, "virtual SError taken at EL1"),
            event(3_900_000, Source::Guest, last),
        ],
        console: if panicked {
            words(&[
                "[   12.004711] agent: tick 40 checksum 9c1e55aa",
                &code,
                "CPU: 0 UID: 0 PID: 412 Comm: agent Tainted: G   M                6.12.48",
                last,
            ])
        } else {
            words(&["[   12.004711] agent: tick 40 checksum 9c1e55aa", last])
        },
        syndrome: (class != Class::Inconclusive).then(|| format!("{esr:#x}")),
        syndrome_words: words(&["SError", "32-bit instruction", "decoded by the campaign"]),
        record: record.as_object().cloned(),
        command: format!("firebreak campaign plans/{plan}.toml --case {name}"),
        reset: Reset::Snapshot,
        wall_ms: 0,
    }
}
