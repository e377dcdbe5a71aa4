// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of each point, and whether that is what must become of it.

use std::fmt;

use super::Job;
use super::expect::{End, Expected, Map, Place, expected, notified};
use super::lives::Life;
use super::nested;
use super::paths::{Kind, Mode, SWEPT};
use super::typed;

/// SPSR.M\[3:2\] of EL2.
const EL2: u64 = 2;
/// The partition that is swept.
pub(super) const PARTITION: &str = "sweep";
/// SPSR.A.
const SPSR_A: u64 = 1 << 8;

/// What one error went through.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// Times that the firmware raised it, handed it over, saw EL2 take it, saw it acknowledged.
    pub(super) raised: u32,
    pub(super) delivered: u32,
    pub(super) taken: u32,
    pub(super) acked: u32,
    pub(super) dropped: u32,
    /// Times that the hypervisor reported it.
    pub(super) reported: u32,
    /// Partition that the report blames.
    pub(super) blamed: Option<String>,
    /// Partition whose memory it is in, by the report.
    pub(super) page_of: Option<u64>,
    /// Partitions that lost a page for it.
    pub(super) retired: Vec<u64>,
    /// What became of the errors with a record that opened the period.
    pub(super) openings: Openings,
    /// Where the PE was when the firmware handed it over: whether that was EL2, and ELR.
    pub(super) handed_at: Option<(bool, u64)>,
    /// Boot error records that tell of it.
    pub(super) boot_records: Vec<BootRecord>,
    /// The virtual SErrors that its report was followed by.
    pub(super) told: Vec<Told>,
    /// Partitions whose guests say that they took one.
    pub(super) heard: Vec<u64>,
    /// How often the guest says that both of its vCPUs have lost a page.
    pub(super) gone: u32,
}

/// What a boot error record says, when it is read after the reset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BootRecord {
    pub(super) source: String,
    pub(super) iss: Option<u64>,
    pub(super) pc: Option<u64>,
    /// Whether it has the error's number.
    pub(super) is_named: bool,
}

/// How often errors that open a period were raised, lost, acknowledged and reported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Openings {
    pub(super) raised: u32,
    pub(super) dropped: u32,
    pub(super) acked: u32,
    pub(super) reported: u32,
}

/// A virtual SError.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// The partition that it is for.
    pub(super) vm: u64,
    /// What the guest finds in ESR_EL1.
    pub(super) syndrome: u64,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} in partition {}", self.syndrome, self.vm)
    }
}

/// A point of the sweep.
#[derive(Clone, Debug, Default)]
pub(super) struct Point {
    /// The firmware's number of the error.
    pub(super) id: u64,
    /// Offset in the period.
    pub(super) at: u64,
    /// Interrupted instruction.
    pub(super) elr: u64,
    /// Interrupted PSTATE.
    pub(super) spsr: u64,
    /// The error.
    pub(super) fate: Fate,
    /// Period in which it was reported.
    pub(super) period: Option<u64>,
    /// Stops of the guest's partition that followed, and how many of them because it was killed.
    pub(super) stops: u32,
    pub(super) killed: u32,
    /// Whether the firmware held it back because the record before was not acknowledged yet: nothing
    /// was interrupted where it was raised.
    pub(super) held: bool,
    /// Whether the machine was reset.
    pub(super) reset: bool,
    /// Virtual SErrors with the syndrome of one that a command asked for, beyond that one: this error's
    /// own, which came while that one was pending, and is one with it.
    pub(super) merged: u32,
    /// What was wrong.
    pub(super) problems: Vec<String>,
}

/// What a boundary cost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Loss {
    /// Nothing.
    Nothing,
    /// The interrupted partition.
    Vm,
    /// The machine.
    Machine,
}

impl Point {
    /// Says whether EL2 was interrupted.
    pub(super) fn in_el2(&self) -> bool {
        !self.held && self.spsr >> 2 & 3 == EL2
    }

    /// Says whether EL2 was interrupted with SError masked.
    pub(super) fn is_masked(&self) -> bool {
        self.in_el2() && self.spsr & SPSR_A != 0
    }

    /// Says whether the guest's partition was blamed, as far as anybody was.
    pub(super) fn blames_the_guest(&self) -> bool {
        self.held || self.fate.reported == 0 || self.fate.blamed.as_deref() == Some(PARTITION)
    }

    /// Leaves out of the account what came of the error that opened the period: the guest was told of
    /// it once and lost one page. That it was not is a problem, unless the machine was reset first.
    pub(super) fn expect_opening(&mut self, opening: Kind) {
        let syndrome = u64::from(opening.iss());
        let told = Told {
            vm: SWEPT,
            syndrome,
        };
        let fate = &mut self.fate;
        let mut found = [
            take(&mut fate.told, |each| *each == told),
            take(&mut fate.heard, |vm| *vm == SWEPT),
            take(&mut fate.retired, |vm| *vm == SWEPT),
        ]
        .into_iter();
        if !self.reset && !found.all(|found| found) {
            self.problems
                .push("the opening error was not told, not heard, or cost no page".to_owned());
        }
    }

    /// Leaves out of the account that a command made the guest take a virtual SError: in periods without
    /// a point as well. `taken`: how many it says it took in this one.
    pub(super) fn expect_injection(&mut self, syndrome: u64, taken: u32) {
        let fate = &mut self.fate;
        fate.told.retain(|told| told.syndrome != syndrome);
        fate.heard.retain(|vm| *vm != SWEPT);
        fate.heard.extend((1..taken).map(|_| SWEPT));
        if taken == 0 && self.period.is_some() && !self.reset {
            let why = "the guest did not take the virtual SError that was asked for";
            self.problems.push(why.to_owned());
        }
    }

    /// Holds that a page of the guest is gone for both of its vCPUs, and found gone once; unless its
    /// life ended before it could look.
    pub(super) fn expect_page_gone(&mut self) {
        let (gone, ended) = (self.fate.gone, self.reset || self.stops > 0);
        if gone != 1 && !(ended && gone == 0) {
            self.problems.push(format!(
                "a page is gone for both vCPUs {gone} times instead of once"
            ));
        }
    }

    /// Holds what happened against what must happen.
    pub(super) fn verify(&self, map: &Map, (path, mode, kind): Job<'_>) -> Vec<String> {
        if self.held {
            return Vec::new();
        }
        let place = |in_el2, elr| match (in_el2, map.place(elr)) {
            (false, _) => Place::Guest,
            (true, Place::Wait) if path.waits_for_nobody() => Place::Idle,
            (true, place) => place,
        };
        let later = self.fate.handed_at.map(|(in_el2, elr)| place(in_el2, elr));
        let here = place(self.in_el2(), self.elr);
        let struck = (here, self.is_masked());
        let mut wanted = if kind == Kind::Ueu && nested::notifies_all(path) {
            notified(mode, struck, later)
        } else {
            expected((kind, mode), struck, later)
        };
        let is_stopped = path.is_stopped_by_another() || typed::stops(path);
        if wanted.end == End::Vm && is_stopped {
            // The context that is lost on this PE is part of what the other one stops, or a command.
            wanted.end = End::Nothing;
        }
        let mut problems = self.verify_loss(wanted.end, here);
        // What was the old life's is not the new one's.
        let is_old = path.stage.to.is_some() || later.unwrap_or(here) != Place::Exit;
        let ends = (path.stage.life != Life::GoesOn || path.turns_off()) && is_old;
        // Two that are pending at a time are one to the guest, the opening one and this.
        let injects = path.name == typed::INJECT.name;
        let merge = path.loses_a_page() || injects;
        problems.extend(self.verify_words(&wanted, kind, (ends, merge, injects)));
        // One that barges in on the taking of another is decided by its syndrome alone.
        let by_syndrome = nested::is_sei_path(path) && mode == Mode::BargeIn && self.is_masked();
        let found = self.fate.boot_records.first();
        let records = match wanted.end {
            End::Machine(by) => vec![BootRecord {
                is_named: !by_syndrome || found.is_some_and(|record| record.is_named),
                source: by.name().to_owned(),
                iss: Some(u64::from(kind.iss())),
                pc: Some(self.fate.handed_at.map_or(self.elr, |(_, elr)| elr)),
            }],
            _ => Vec::new(),
        };
        if self.fate.boot_records != records {
            problems.push(format!(
                "boot error records {:x?} instead of {records:x?}",
                self.fate.boot_records
            ));
        }
        problems
    }

    fn verify_loss(&self, wanted: End, here: Place) -> Vec<String> {
        let mut problems = Vec::new();
        let loss = match wanted {
            End::Nothing => Loss::Nothing,
            End::Vm => Loss::Vm,
            End::Machine(_) => Loss::Machine,
        };
        if self.loss() != loss {
            problems.push(format!(
                "{:?} lost instead of {loss:?} ({here:?})",
                self.loss()
            ));
        }
        if loss == Loss::Vm && self.killed != 1 {
            problems.push(format!("killed {} times instead of once", self.killed));
        }
        problems
    }

    /// Holds who was told, who heard of it, and who lost a page. A guest whose life ends may not be
    /// told any more, or not hear it; one whose virtual SErrors merge hears one of them.
    fn verify_words(
        &self,
        wanted: &Expected,
        kind: Kind,
        (ends, merge, injects): (bool, bool, bool),
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let syndrome = u64::from(kind.iss());
        let told: Vec<Told> = wanted
            .told
            .map(|vm| Told { vm, syndrome })
            .into_iter()
            .collect();
        let heard: Vec<u64> = told.iter().map(|told| told.vm).collect();
        let may_be_untold = ends || injects;
        let is_told = self.fate.told == told || (may_be_untold && self.fate.told.is_empty());
        let most_merged = u32::from(injects && wanted.told == Some(SWEPT));
        if self.merged > most_merged {
            problems.push(format!(
                "{} virtual SErrors beside the one that was asked for",
                self.merged
            ));
        }
        let is_heard = self.fate.heard == heard || ((ends || merge) && self.fate.heard.is_empty());
        if !is_told || !is_heard {
            problems.push(format!(
                "told {:?} instead of {told:?}, and heard by {:?}",
                self.fate.told, self.fate.heard
            ));
        }
        let retired: Vec<u64> = wanted.retired.into_iter().collect();
        if self.fate.retired != retired {
            problems.push(format!(
                "pages were lost by {:?} instead of {retired:?}",
                self.fate.retired
            ));
        }
        if self.fate.reported > 0 && self.fate.page_of != kind.page_of() {
            problems.push(format!(
                "the page is said to be of {:?} instead of {:?}",
                self.fate.page_of,
                kind.page_of()
            ));
        }
        problems
    }

    /// Holds the three counts against each other: nothing lost, nothing twice.
    pub(super) fn account(&mut self) {
        let fate = &self.fate;
        let mut check = |what: &str, found: u32, wanted: u32| {
            if found != wanted {
                let why = format!("{what} {found} times instead of {wanted}");
                self.problems.push(why);
            }
        };
        check("raised", fate.raised, 1);
        check("dropped by the firmware", fate.dropped, 0);
        if !self.reset {
            check("handed over", fate.delivered + fate.taken, 1);
            check("acknowledged", fate.acked, 1);
            check("reported", fate.reported, 1);
            let openings = fate.openings;
            check("opening dropped", openings.dropped, 0);
            check("opening acknowledged", openings.acked, openings.raised);
            check("opening reported", openings.reported, openings.raised);
        }
    }

    /// Returns what it cost.
    pub(super) fn loss(&self) -> Loss {
        if self.reset {
            Loss::Machine
        } else if self.stops > 0 {
            Loss::Vm
        } else {
            Loss::Nothing
        }
    }
}

/// Takes the first of these out of a list; says whether there was one.
fn take<T>(list: &mut Vec<T>, wanted: impl Fn(&T) -> bool) -> bool {
    let found = list.iter().position(wanted);
    found.map(|index| list.remove(index)).is_some()
}
