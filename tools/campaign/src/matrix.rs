// SPDX-License-Identifier: MIT OR Apache-2.0
//! All cases of a plan, each with its name.

use firebreak_report::{Class, Shard};

use crate::glob;
use crate::plan::{Expectation, Plan, Steps};

/// One case: indices into the plan's lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// By which it can be run alone.
    pub name: String,
    /// Which guest.
    pub guest: usize,
    /// Which error.
    pub error: usize,
    /// Which moment.
    pub moment: usize,
    /// Which policy; `None`: as the partition file says.
    pub policy: Option<usize>,
    /// Which behavior of the firmware.
    pub firmware: usize,
    /// Which repetition, from 0.
    pub repetition: u32,
}

/// Expands a plan. The order is that in which the machine has to be set up least often.
pub fn expand(plan: &Plan) -> Vec<Case> {
    let mut cases = Vec::new();
    let policies: Vec<Option<usize>> = match plan.policies.len() {
        0 => vec![None],
        count => (0..count).map(Some).collect(),
    };
    for (guest, about) in plan.guests.iter().enumerate() {
        let for_it = |names: &[String]| names.is_empty() || names.contains(&about.name);
        for policy in &policies {
            for (moment, _) in indexed(&plan.moments, |one| for_it(&one.guests)) {
                for firmware in 0..plan.firmware.len() {
                    for (error, _) in indexed(&plan.errors, |one| for_it(&one.guests)) {
                        for repetition in 0..plan.repetitions {
                            let mut case = Case {
                                name: String::new(),
                                guest,
                                error,
                                moment,
                                policy: *policy,
                                firmware,
                                repetition,
                            };
                            case.name = name(plan, &case);
                            cases.push(case);
                        }
                    }
                }
            }
        }
    }
    cases
}

fn indexed<T>(list: &[T], keep: impl Fn(&T) -> bool) -> impl Iterator<Item = (usize, &T)> {
    list.iter().enumerate().filter(move |(_, one)| keep(one))
}

/// `error/moment/guest[/policy][/firmware]/repetition`: what is the same for all is left out.
fn name(plan: &Plan, case: &Case) -> String {
    let mut parts = vec![
        error(plan, case),
        plan.moments.get(case.moment).map_or("", |one| &one.name),
        plan.guests.get(case.guest).map_or("", |one| &one.name),
    ];
    if plan.policies.len() > 1 {
        parts.push(policy(plan, case));
    }
    if plan.firmware.len() > 1 {
        parts.push(firmware(plan, case));
    }
    format!("{}/{}", parts.join("/"), case.repetition)
}

fn error<'p>(plan: &'p Plan, case: &Case) -> &'p str {
    plan.errors.get(case.error).map_or("", |one| &one.name)
}

/// Returns the name of a case's policy.
pub(crate) fn policy<'p>(plan: &'p Plan, case: &Case) -> &'p str {
    let chosen = case.policy.and_then(|index| plan.policies.get(index));
    chosen.map_or("default", |one| &one.name)
}

/// Returns how the firmware behaves in a case.
pub(crate) fn firmware<'p>(plan: &'p Plan, case: &Case) -> &'p str {
    plan.firmware
        .get(case.firmware)
        .map_or("conforming", |one| one)
}

/// Says whether an expectation is about a case.
pub(crate) fn is_about(plan: &Plan, expectation: &Expectation, case: &Case) -> bool {
    let moment = plan.moments.get(case.moment).map_or("", |one| &one.name);
    let guest = plan.guests.get(case.guest).map_or("", |one| &one.name);
    [
        (&expectation.error, error(plan, case)),
        (&expectation.moment, moment),
        (&expectation.guest, guest),
        (&expectation.policy, policy(plan, case)),
        (&expectation.firmware, firmware(plan, case)),
    ]
    .into_iter()
    .all(|(pattern, name)| glob::matches(pattern, name))
}

/// Returns what a plan expects of a case: the first expectation that is about it.
pub fn expected(plan: &Plan, case: &Case) -> Option<Vec<Class>> {
    let mut expectations = plan.expectations.iter();
    let found = expectations.find(|expectation| is_about(plan, expectation, case))?;
    Some(found.classes.clone())
}

/// Leaves one part of all cases: every `count`-th, so that parts take equally long.
pub(crate) fn shard(cases: Vec<Case>, shard: Shard) -> Vec<Case> {
    let count = shard.count.max(1) as usize;
    let first = shard.index.saturating_sub(1) as usize;
    cases.into_iter().skip(first).step_by(count).collect()
}

/// Returns the number of instructions that a case steps over. The same plan, seed and name give
/// the same number, whatever else runs.
pub(crate) fn steps(plan: &Plan, case: &Case) -> u32 {
    match plan.moments.get(case.moment).map(|moment| moment.steps) {
        Some(Steps::Exactly(steps)) => steps,
        Some(Steps::Random(from, to)) => {
            let span = u64::from(to - from) + 1;
            let drawn = spread(plan.seed, &case.name) % span;
            from + u32::try_from(drawn).unwrap_or(0)
        }
        None => 0,
    }
}

/// FNV-1a over the name, then the finalizer of SplitMix64: no generator to keep in step.
fn spread(seed: u64, name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mut mixed = hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
