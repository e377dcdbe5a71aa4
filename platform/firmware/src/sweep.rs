// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sweep: an error at each of a run of consecutive moments, one in each period.
//!
//! A guest that does the same thing at each multiple of a period of CNTPCT has the same
//! instruction at the same offset in each of them, where a tick is an instruction. So an error
//! at offset `from`, in the next period at `from + 1`, and so on, hits each boundary between two
//! instructions once. Before each the firmware looks whether the error before was acknowledged:
//! later, in the period itself, its polling would move what comes behind it.
//!
//! Pure: the schedule alone. `errors` does what it does with every error.

use crate::errors::Error;

/// How long before a period the firmware looks for acknowledgements, in ticks.
pub const PREPARE_TICKS: u64 = 20_000;
/// Periods in a row in which an error may stay unacknowledged, before the sweep gives up.
pub const PATIENCE: u32 = 64;

/// What to sweep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The error of the first point; the later ones count its number up, by 2.
    pub error: Error,
    /// An error that comes first in each period, at this offset: the point then lies in what it
    /// sets off. Its number is that of the point's error, plus 1.
    pub opening: Option<(u64, Error)>,
    /// Length of a period, in ticks of CNTPCT.
    pub period_ticks: u64,
    /// Offset of the first point from the start of a period, in ticks.
    pub from_ticks: u64,
    /// Offset of the last point.
    pub to_ticks: u64,
    /// An instruction of EL2. At the offset nothing strikes yet, but when this instruction is
    /// reached next: for boundaries that no tick falls on, and PEs that no tick fits.
    pub probe: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Before this period, at [`PREPARE_TICKS`], it is looked whether all is quiet.
    Wait { period_ticks: u64 },
    /// The opening error is due in this period.
    Open { period_ticks: u64 },
    /// The point is due in this period.
    Armed { period_ticks: u64 },
}

/// A sweep under way on one PE.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    plan: Plan,
    offset_ticks: u64,
    phase: Phase,
    skipped: u32,
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing yet.
    Nothing,
    /// The opening error.
    Open(Error),
    /// The point itself, at this offset.
    Point(u64, Error),
    /// All points were raised, and the last one was acknowledged.
    Done {
        /// How many.
        points: u64,
    },
    /// The error of the last point is still not acknowledged.
    Stuck {
        /// Offset of that point.
        at_ticks: u64,
    },
}

impl Sweep {
    /// Starts with the first period that lies far enough ahead.
    pub fn new(plan: Plan, now_ticks: u64) -> Self {
        let mut sweep = Self {
            plan,
            offset_ticks: plan.from_ticks,
            phase: Phase::Wait { period_ticks: 0 },
            skipped: 0,
        };
        sweep.next_period(now_ticks);
        sweep
    }

    /// Returns when it wants to be looked at.
    pub fn deadline(&self) -> u64 {
        match self.phase {
            Phase::Wait { period_ticks } => period_ticks.saturating_sub(PREPARE_TICKS),
            Phase::Open { period_ticks } => {
                period_ticks.saturating_add(self.plan.opening.map_or(0, |(at, _)| at))
            }
            Phase::Armed { period_ticks } => period_ticks.saturating_add(self.offset_ticks),
        }
    }

    /// Takes the next step if its time has come. `quiet`: nothing is outstanding on this PE.
    pub fn step(&mut self, now_ticks: u64, quiet: bool) -> Step {
        if now_ticks < self.deadline() {
            return Step::Nothing;
        }
        match self.phase {
            Phase::Wait { period_ticks } if quiet => {
                self.skipped = 0;
                if self.offset_ticks > self.plan.to_ticks {
                    return Step::Done {
                        points: self.points(),
                    };
                }
                self.phase = match self.plan.opening {
                    Some(_) => Phase::Open { period_ticks },
                    None => Phase::Armed { period_ticks },
                };
                Step::Nothing
            }
            Phase::Wait { .. } => {
                self.skipped += 1;
                if self.skipped > PATIENCE {
                    let at_ticks = self.offset_ticks.saturating_sub(1);
                    return Step::Stuck { at_ticks };
                }
                self.next_period(now_ticks);
                Step::Nothing
            }
            Phase::Open { period_ticks } => {
                self.phase = Phase::Armed { period_ticks };
                match self.plan.opening {
                    Some((_, error)) => Step::Open(Error {
                        id: self.id().saturating_add(1),
                        ..error
                    }),
                    None => Step::Nothing,
                }
            }
            Phase::Armed { .. } => {
                let error = Error {
                    id: self.id(),
                    ..self.plan.error
                };
                let at = self.offset_ticks;
                self.offset_ticks = at.saturating_add(1);
                self.next_period(now_ticks);
                Step::Point(at, error)
            }
        }
    }

    /// Returns the instruction at which the points strike, if it is not the clock that says so.
    pub fn probe(&self) -> Option<u64> {
        self.plan.probe
    }

    fn points(&self) -> u64 {
        self.offset_ticks.saturating_sub(self.plan.from_ticks)
    }

    fn id(&self) -> u64 {
        let turn = self.points().saturating_mul(2);
        self.plan.error.id.saturating_add(turn)
    }

    /// The first period of which the time to prepare is ahead.
    fn next_period(&mut self, now_ticks: u64) {
        let length = self.plan.period_ticks.max(2 * PREPARE_TICKS);
        let earliest = now_ticks.saturating_add(2 * PREPARE_TICKS);
        let period_ticks = earliest.div_ceil(length).saturating_mul(length);
        self.phase = Phase::Wait { period_ticks };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebreak_syndrome::{CperSeverity, Iss};

    const PERIOD: u64 = 1 << 20;

    fn plan(opening: Option<u64>) -> Plan {
        let error = Error::sei(10, Iss::UEO, None, Some(CperSeverity::Corrected));
        Plan {
            error,
            opening: opening.map(|at| (at, error)),
            period_ticks: PERIOD,
            from_ticks: 5,
            to_ticks: 7,
            probe: None,
        }
    }

    /// Runs it like the timer does; `lag` ticks pass between a deadline and the look.
    fn run(plan: Plan, lag: u64, quiet: impl Fn(u64) -> bool) -> Vec<(u64, Step)> {
        let mut now = 123;
        let mut sweep = Sweep::new(plan, now);
        let mut steps = Vec::new();
        loop {
            now = now.max(sweep.deadline() + lag);
            let step = sweep.step(now, quiet(now));
            if step != Step::Nothing {
                steps.push((now, step));
            }
            if matches!(step, Step::Done { .. } | Step::Stuck { .. }) {
                return steps;
            }
        }
    }

    #[test]
    fn each_offset_is_hit_once_and_each_in_a_period_of_its_own() {
        let steps = run(plan(None), 3, |_| true);
        let mut points = Vec::new();
        for (at, step) in &steps {
            if let Step::Point(offset, error) = step {
                assert_eq!((at - 3) % PERIOD, *offset);
                points.push((at / PERIOD, *offset, error.id));
            }
        }
        assert_eq!(
            points,
            [(1, 5, 10), (2, 6, 12), (3, 7, 14)],
            "period, offset, number"
        );
        assert_eq!(steps.last().unwrap().1, Step::Done { points: 3 });
    }

    #[test]
    fn an_opening_error_comes_first_in_each_period() {
        let steps = run(plan(Some(2)), 0, |_| true);
        let ids: Vec<u64> = steps
            .iter()
            .filter_map(|(_, step)| match step {
                Step::Open(error) | Step::Point(_, error) => Some(error.id),
                _ => None,
            })
            .collect();
        assert_eq!(ids, [11, 10, 13, 12, 15, 14]);
        for pair in steps.chunks_exact(2) {
            let [(open, Step::Open(_)), (point, Step::Point(offset, _))] = pair else {
                panic!("{pair:?}")
            };
            assert_eq!(point - open, offset - 2);
        }
    }

    #[test]
    fn a_point_waits_for_the_acknowledgement_of_the_one_before() {
        let steps = run(plan(None), 0, |now| now / PERIOD != 1);
        let periods: Vec<u64> = steps.iter().map(|(at, _)| at / PERIOD).collect();
        assert_eq!(
            periods,
            [1, 3, 4, 4],
            "nothing in the period that was not quiet"
        );
    }

    #[test]
    fn an_error_that_is_never_acknowledged_ends_the_sweep_and_is_named() {
        let steps = run(plan(None), 0, |now| now < PERIOD);
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[1].1, Step::Stuck { at_ticks: 5 });
    }
}
