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

use firebreak_abi::Pa;

use crate::errors::Error;

/// How long before a period the firmware looks for acknowledgements, in ticks.
pub const PREPARE_TICKS: u64 = 20_000;
/// Periods in a row in which an error may stay unacknowledged, before the sweep gives up.
pub const PATIENCE: u32 = 64;
/// Every instruction of A64.
const INSTRUCTION_BYTES: u64 = 4;
/// Errors that can strike before a probe is put in its place.
pub const MAX_NEST: usize = 4;
/// Their number is that of the point's error, plus 1 and this.
pub const NEST_ID: u64 = 1_000_000_000_000;

/// Errors that can come beside the point in each period.
pub const OPENINGS: usize = 2;

/// What to sweep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The error of the first point; the later ones count its number up, by 2.
    pub error: Error,
    /// Errors of which the point lies in what they set off, in the order of their offsets.
    pub openings: [Option<Opening>; OPENINGS],
    /// Length of a period, in ticks of CNTPCT.
    pub period_ticks: u64,
    /// Offset of the first point from the start of a period, in ticks.
    pub from_ticks: u64,
    /// Offset of the last point.
    pub to_ticks: u64,
    /// Instructions of EL2. At the offset nothing strikes yet, but when the instruction is reached
    /// next: for boundaries that no tick falls on, and PEs that no tick fits.
    pub probes: Option<Probes>,
    /// Before a probe is put in its place, errors without a record strike at these.
    pub nest: Nest,
}

/// Instructions of EL2, one after the other: at each an error without a record strikes when it is
/// reached, in the path of the one before, if it lies there.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Nest {
    at: [u64; MAX_NEST],
    count: usize,
}

impl Nest {
    /// Makes one of these addresses; `None` when there are too many.
    pub fn new(addresses: impl Iterator<Item = u64>) -> Option<Self> {
        let mut nest = Self::default();
        for address in addresses {
            *nest.at.get_mut(nest.count)? = address;
            nest.count += 1;
        }
        Some(nest)
    }

    /// Returns the instruction of turn `turn`.
    pub fn get(&self, turn: usize) -> Option<u64> {
        self.at.get(..self.count)?.get(turn).copied()
    }
}

/// An error that comes once in each period. Its number is that of the point's error, plus 1, whether
/// it is the first of them or the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opening {
    /// Offset from the start of the period, in ticks.
    pub at_ticks: u64,
    /// What it is.
    pub error: Error,
    /// Another PE that it strikes, where that runs a guest.
    pub pe: Option<usize>,
    /// From the address of one to that of the next, in bytes.
    pub stride_bytes: u64,
}

/// Instructions of EL2 that stand one behind the other: one for each period, all at the offset of
/// the first point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probes {
    /// Address of the first.
    pub first: u64,
    /// How many there are.
    pub count: u64,
    /// For so long another PE that reaches one first waits in EL3 for the one that is meant; then it goes
    /// on without it. Two that come by at the same time would pass one another otherwise.
    pub hold_ticks: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Before this period, at [`PREPARE_TICKS`], it is looked whether all is quiet.
    Wait { period_ticks: u64 },
    /// The opening error of this index is due in this period; `point`: and later the point.
    Open {
        period_ticks: u64,
        index: usize,
        point: bool,
    },
    /// The point is due in this period; and then the opening error of this index, if there is one.
    Armed { period_ticks: u64, index: usize },
}

/// A sweep under way on one PE.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    plan: Plan,
    /// Points so far.
    turn: u64,
    phase: Phase,
    skipped: u32,
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing yet.
    Nothing,
    /// The opening error, on this PE or another one.
    Open(Error, Option<usize>),
    /// The point itself, at this offset.
    Point(u64, Error),
    /// The point is to strike when this instruction is reached.
    Plant(u64, Error),
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
            turn: 0,
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
            Phase::Open {
                period_ticks,
                index,
                ..
            } => {
                let at_ticks = self.opening(index).map_or(0, |opening| opening.at_ticks);
                period_ticks.saturating_add(at_ticks)
            }
            Phase::Armed { period_ticks, .. } => period_ticks.saturating_add(self.offset_ticks()),
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
                if self.turn >= self.wanted() {
                    return Step::Done { points: self.turn };
                }
                self.go_on(period_ticks, 0, true, now_ticks);
                Step::Nothing
            }
            Phase::Wait { .. } => {
                self.skipped += 1;
                if self.skipped > PATIENCE {
                    let at_ticks = self.offset_ticks().saturating_sub(1);
                    return Step::Stuck { at_ticks };
                }
                self.next_period(now_ticks);
                Step::Nothing
            }
            Phase::Open {
                period_ticks,
                index,
                point,
            } => {
                let step = self.opening(index).map_or(Step::Nothing, |opening| {
                    let error = Error {
                        id: self.id().saturating_add(1),
                        pa: self.address_of(opening),
                        ..opening.error
                    };
                    Step::Open(error, opening.pe)
                });
                self.go_on(period_ticks, index + 1, point, now_ticks);
                step
            }
            Phase::Armed {
                period_ticks,
                index,
            } => {
                let step = self.point();
                self.go_on(period_ticks, index, false, now_ticks);
                step
            }
        }
    }

    /// What comes next in a period: the opening error of this index, or, if that is still ahead
    /// (`point`), the point before it.
    fn go_on(&mut self, period_ticks: u64, index: usize, point: bool, now_ticks: u64) {
        match self.opening(index) {
            Some(opening) if !point || opening.at_ticks <= self.offset_ticks() => {
                self.phase = Phase::Open {
                    period_ticks,
                    index,
                    point,
                };
            }
            _ if point => {
                self.phase = Phase::Armed {
                    period_ticks,
                    index,
                };
            }
            _ => self.next_turn(now_ticks),
        }
    }

    fn opening(&self, index: usize) -> Option<Opening> {
        self.plan.openings.get(index).copied().flatten()
    }

    /// The address of an opening error in this turn.
    fn address_of(&self, opening: Opening) -> Option<Pa> {
        let bytes = self.turn.saturating_mul(opening.stride_bytes);
        let pa = opening.error.pa?;
        Some(Pa::new(pa.get().saturating_add(bytes)))
    }

    fn point(&self) -> Step {
        let error = Error {
            id: self.id(),
            ..self.plan.error
        };
        match self.plan.probes {
            Some(probes) => {
                let bytes = self.turn.saturating_mul(INSTRUCTION_BYTES);
                Step::Plant(probes.first.saturating_add(bytes), error)
            }
            None => Step::Point(self.offset_ticks(), error),
        }
    }

    fn next_turn(&mut self, now_ticks: u64) {
        self.turn = self.turn.saturating_add(1);
        self.next_period(now_ticks);
    }

    /// Returns what strikes before a probe.
    pub fn nest(&self) -> Nest {
        self.plan.nest
    }

    /// Returns how long another PE waits at a probe.
    pub fn hold_ticks(&self) -> u64 {
        self.plan.probes.map_or(0, |probes| probes.hold_ticks)
    }

    /// Says whether it is the clock that strikes, or what the PE reaches.
    pub fn has_probes(&self) -> bool {
        self.plan.probes.is_some()
    }

    fn offset_ticks(&self) -> u64 {
        let ahead = if self.has_probes() { 0 } else { self.turn };
        self.plan.from_ticks.saturating_add(ahead)
    }

    fn wanted(&self) -> u64 {
        let ticks = (self.plan.to_ticks + 1).saturating_sub(self.plan.from_ticks);
        self.plan.probes.map_or(ticks, |probes| probes.count)
    }

    fn id(&self) -> u64 {
        let turn = self.turn.saturating_mul(2);
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

    fn plan(openings: [Option<u64>; OPENINGS]) -> Plan {
        let error = Error::sei(10, Iss::UEO, None, Some(CperSeverity::Corrected));
        Plan {
            error,
            openings: openings.map(|at_ticks| {
                Some(Opening {
                    at_ticks: at_ticks?,
                    error: Error {
                        pa: Some(Pa::new(0x5000_0000)),
                        ..error
                    },
                    pe: None,
                    stride_bytes: 0x1000,
                })
            }),
            period_ticks: PERIOD,
            from_ticks: 5,
            to_ticks: 7,
            probes: None,
            nest: Nest::default(),
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
        let steps = run(plan([None; 2]), 3, |_| true);
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
    fn probes_stand_at_one_instruction_after_the_other_and_at_one_offset() {
        let probes = Some(Probes {
            first: 0x4020_0c00,
            count: 3,
            hold_ticks: 0,
        });
        let plan = Plan {
            probes,
            ..plan([None; 2])
        };
        let steps = run(plan, 0, |_| true);
        let planted: Vec<(u64, u64, u64)> = steps
            .iter()
            .filter_map(|(at, step)| match step {
                Step::Plant(address, error) => Some((at % PERIOD, *address, error.id)),
                _ => None,
            })
            .collect();
        assert_eq!(
            planted,
            [
                (5, 0x4020_0c00, 10),
                (5, 0x4020_0c04, 12),
                (5, 0x4020_0c08, 14)
            ]
        );
        assert_eq!(steps.last().unwrap().1, Step::Done { points: 3 });
    }

    #[test]
    fn an_opening_error_comes_first_in_each_period() {
        let steps = run(plan([Some(2), None]), 0, |_| true);
        let ids: Vec<u64> = steps
            .iter()
            .filter_map(|(_, step)| match step {
                Step::Open(error, _) | Step::Point(_, error) => Some(error.id),
                _ => None,
            })
            .collect();
        assert_eq!(ids, [11, 10, 13, 12, 15, 14]);
        let pages: Vec<u64> = steps
            .iter()
            .filter_map(|(_, step)| match step {
                Step::Open(error, _) => Some(error.pa?.get()),
                _ => None,
            })
            .collect();
        assert_eq!(pages, [0x5000_0000, 0x5000_1000, 0x5000_2000]);
        for pair in steps.chunks_exact(2) {
            let [(open, Step::Open(..)), (point, Step::Point(offset, _))] = pair else {
                panic!("{pair:?}")
            };
            assert_eq!(point - open, offset - 2);
        }
    }

    #[test]
    fn a_probe_stands_before_an_opening_error_that_comes_later() {
        let mut openings = plan([Some(9), None]).openings;
        openings[0].as_mut().unwrap().pe = Some(0);
        let probes = Some(Probes {
            first: 0x40,
            count: 2,
            hold_ticks: 0,
        });
        let plan = Plan {
            openings,
            probes,
            ..plan([None; 2])
        };
        let steps: Vec<(u64, u64)> = run(plan, 0, |_| true)
            .iter()
            .filter_map(|(at, step)| match step {
                Step::Plant(_, error) => Some((at % PERIOD, error.id)),
                Step::Open(error, Some(0)) => Some((at % PERIOD, error.id)),
                _ => None,
            })
            .collect();
        assert_eq!(steps, [(5, 10), (9, 11), (5, 12), (9, 13)]);
    }

    #[test]
    fn a_point_waits_for_the_acknowledgement_of_the_one_before() {
        let steps = run(plan([None; 2]), 0, |now| now / PERIOD != 1);
        let periods: Vec<u64> = steps.iter().map(|(at, _)| at / PERIOD).collect();
        assert_eq!(
            periods,
            [1, 3, 4, 4],
            "nothing in the period that was not quiet"
        );
    }

    #[test]
    fn an_error_that_is_never_acknowledged_ends_the_sweep_and_is_named() {
        let steps = run(plan([None; 2]), 0, |now| now < PERIOD);
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[1].1, Step::Stuck { at_ticks: 5 });
    }

    #[test]
    fn two_opening_errors_come_one_after_the_other_before_each_point() {
        let steps = run(plan([Some(2), Some(4)]), 0, |_| true);
        assert_eq!(steps.len(), 10);
        for three in steps.chunks_exact(3) {
            let [
                (one, Step::Open(first, _)),
                (two, Step::Open(second, _)),
                (point, _),
            ] = three
            else {
                panic!("{three:?}")
            };
            assert_eq!((two - one, first.id), (2, second.id));
            assert!(point > two);
        }
    }
}
