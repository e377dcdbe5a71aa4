// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an error must cost where it strikes: by the contract (`docs/sei-contract.md` 2), by the
//! table of triage (`docs/triage.md`), and by how far the interrupted window had come.

use std::ops::Range;

use anyhow::Result;

use super::paths::{Kind, Mode, SWEPT};
use super::symbols::Symbols;

/// Where an error found the PE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In the guest.
    Guest,
    /// In the entry from it, which has not read ELR and SPSR yet.
    EntryEarly,
    /// In the entry from it, further on.
    Entry,
    /// On the way back to it.
    Exit,
    /// EL2 waits for an interrupt of a guest that asked for it.
    Wait,
    /// EL2 waits for work, and its PE has no guest that runs.
    Idle,
    /// In the SEI path from EL2, which has not read ELR and SPSR yet.
    SeiEarly,
    /// In the SEI path from EL2, further on.
    Sei,
    /// EL2 at work.
    Work,
}

/// Who takes the machine down, and leaves a boot error record of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    /// EL3, which hands nothing over.
    Firmware,
    /// EL2.
    Hypervisor,
}

impl By {
    /// Returns the word of the `boot-error-record` event.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Hypervisor => "hypervisor",
        }
    }
}

/// What comes to an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Nothing does.
    Nothing,
    /// The interrupted partition is stopped.
    Vm,
    /// The machine is reset, with a boot error record.
    Machine(By),
}

/// What must happen beside the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Expected {
    /// What comes to an end.
    pub(super) end: End,
    /// Partition that is told by a virtual SError, once.
    pub(super) told: Option<u64>,
    /// Partition that loses a page.
    pub(super) retired: Option<u64>,
}

impl Expected {
    /// Nothing happens.
    pub(super) const NOTHING: Self = Self::only(End::Nothing);

    const fn only(end: End) -> Self {
        Self {
            end,
            told: None,
            retired: None,
        }
    }
}

/// A window with the mark behind which ELR and SPSR are known.
#[derive(Debug)]
struct Prologue {
    window: Range<u64>,
    known: u64,
}

/// The windows of a hypervisor.
#[derive(Debug)]
pub(super) struct Map {
    entries: Vec<Prologue>,
    seis: Vec<Prologue>,
    sei: Range<u64>,
    /// The last instruction of the SEI path: nothing but what it goes back to is at stake.
    tail: u64,
    exit: Range<u64>,
    idle: Range<u64>,
}

impl Map {
    /// Reads them from its symbols. `trap_behind_call`: an entry by a call is early until it has
    /// read its syndrome, too.
    pub(super) fn new(symbols: &Symbols, trap_behind_call: bool) -> Result<Self> {
        let window = |name: &str| -> Result<Range<u64>> {
            let start = symbols.address(&format!("firebreak_window_{name}_start"))?;
            Ok(start..symbols.address(&format!("firebreak_window_{name}_end"))?)
        };
        let prologue = |name: &&str| -> Result<Prologue> {
            Ok(Prologue {
                window: window(name)?,
                known: symbols.address(&format!("firebreak_window_{name}_known"))?,
            })
        };
        let mut entries: Vec<Prologue> = ["entry_sync", "entry_irq", "entry_serror"]
            .iter()
            .map(prologue)
            .collect::<Result<_>>()?;
        if trap_behind_call && let Some(sync) = entries.first_mut() {
            sync.known = symbols.address("firebreak_window_entry_sync_esr")?;
        }
        Ok(Self {
            entries,
            seis: ["sei_el2t", "sei_el2h"]
                .iter()
                .map(prologue)
                .collect::<Result<_>>()?,
            sei: window("sei")?,
            tail: symbols.address("firebreak_window_sei_tail")?,
            exit: window("exit")?,
            idle: window("idle")?,
        })
    }

    /// Returns what stands at an address of EL2.
    pub(super) fn place(&self, address: u64) -> Place {
        let early = |prologues: &[Prologue]| {
            let found = prologues
                .iter()
                .find(|each| each.window.contains(&address))?;
            Some(address < found.known)
        };
        match (early(&self.entries), early(&self.seis)) {
            (Some(true), _) => Place::EntryEarly,
            (Some(false), _) => Place::Entry,
            (_, Some(true)) => Place::SeiEarly,
            (_, Some(false)) => Place::Sei,
            // It goes back to the way to a guest, or to the wait for one.
            _ if address == self.tail => Place::Exit,
            _ if self.sei.contains(&address) => Place::Sei,
            _ if self.exit.contains(&address) => Place::Exit,
            _ if self.idle.contains(&address) => Place::Wait,
            _ => Place::Work,
        }
    }
}

/// Says where an error finds the PE in the end.
fn handed(mode: Mode, (place, masked): (Place, bool), later: Option<Place>) -> Place {
    match (mode, masked) {
        // It waits. EL2 takes it on its way to the guest, unless the firmware comes first.
        (Mode::Conforming, true) => later.unwrap_or(Place::Guest),
        _ => place,
    }
}

/// Says what must happen about a UEU of which EL2 is notified wherever it is, by a firmware that does
/// not look: a guest whose context alone is at stake ends, otherwise EL2 resets the machine itself.
pub(super) fn notified(mode: Mode, struck: (Place, bool), later: Option<Place>) -> Expected {
    Expected::only(match handed(mode, struck, later) {
        Place::Guest | Place::EntryEarly | Place::Entry | Place::Exit | Place::Wait => End::Vm,
        Place::SeiEarly | Place::Sei | Place::Idle | Place::Work => End::Machine(By::Hypervisor),
    })
}

/// Says what must happen about an error that struck at `place`.
///
/// `masked`: EL2 was there with SError masked. `later`: where the PE was when a deferred one was
/// handed over after all.
pub(super) fn expected(
    (kind, mode): (Kind, Mode),
    (place, masked): (Place, bool),
    later: Option<Place>,
) -> Expected {
    if kind == Kind::Ueu {
        // Whoever was interrupted is lost, and EL2 cannot be notified of its own loss.
        return Expected::only(match place {
            Place::Guest => End::Vm,
            _ => End::Machine(By::Firmware),
        });
    }
    let place = handed(mode, (place, masked), later);
    let retired = kind.page_of();
    match (place, kind) {
        // Nobody is left to be told, unless the page is another partition's.
        (Place::EntryEarly, _) => Expected {
            end: End::Vm,
            told: retired.filter(|vm| *vm != SWEPT),
            retired,
        },
        (Place::SeiEarly, _) => Expected::only(End::Machine(By::Hypervisor)),
        (_, Kind::Ce | Kind::Ueo | Kind::Bare) => Expected::NOTHING,
        // The owner of the page is told, or, where there is none, whoever was interrupted.
        (Place::Guest | Place::Entry | Place::Exit | Place::Wait, _) => Expected {
            end: End::Nothing,
            told: Some(retired.unwrap_or(SWEPT)),
            retired,
        },
        // Nothing could be lost there; but nobody can say that it is the idle loop alone that is hit.
        (Place::Idle | Place::Sei | Place::Work, _) => Expected::only(End::Machine(By::Hypervisor)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::paths::BYSTANDER;
    use super::*;
    use Mode::{BargeIn, Conforming};

    const TOLD: Expected = Expected {
        end: End::Nothing,
        told: Some(SWEPT),
        retired: None,
    };

    #[test]
    fn a_ueu_of_which_el2_is_notified_costs_whose_context_it_was() {
        let at = |mode, place, masked, later| notified(mode, (place, masked), later).end;
        let machine = End::Machine(By::Hypervisor);
        assert_eq!(at(BargeIn, Place::Sei, true, None), machine);
        assert_eq!(at(BargeIn, Place::Exit, false, None), End::Vm);
        // It waits until EL2 is on its way to the guest.
        assert_eq!(at(Conforming, Place::Sei, true, Some(Place::Exit)), End::Vm);
        assert_eq!(at(Conforming, Place::Sei, false, None), machine);
    }

    #[test]
    fn corrected_and_restartable_errors_cost_only_what_barging_in_destroys() {
        for kind in [Kind::Ce, Kind::Ueo] {
            let at = |mode, place| expected((kind, mode), (place, true), None);
            for place in [Place::EntryEarly, Place::Entry, Place::Sei, Place::SeiEarly] {
                assert_eq!(at(Conforming, place), Expected::NOTHING);
            }
            assert_eq!(at(BargeIn, Place::EntryEarly), Expected::only(End::Vm));
            assert_eq!(at(BargeIn, Place::Entry), Expected::NOTHING);
            let machine = Expected::only(End::Machine(By::Hypervisor));
            assert_eq!(at(BargeIn, Place::SeiEarly), machine);
        }
    }

    #[test]
    fn a_recoverable_error_is_told_to_the_guest_that_was_interrupted_or_ends_the_machine() {
        let at = |mode, place, masked, later| expected((Kind::Uer, mode), (place, masked), later);
        let machine = Expected::only(End::Machine(By::Hypervisor));
        for mode in [Conforming, BargeIn] {
            for place in [Place::Guest, Place::Exit, Place::Wait] {
                assert_eq!(at(mode, place, false, None), TOLD, "{place:?}");
            }
            assert_eq!(at(mode, Place::Work, false, None), machine);
            assert_eq!(at(mode, Place::Idle, false, None), machine);
        }
        // Put off until EL2 goes to the guest, or until it can be handed over.
        assert_eq!(at(Conforming, Place::EntryEarly, true, None), TOLD);
        let later = Some(Place::Work);
        assert_eq!(at(Conforming, Place::EntryEarly, true, later), machine);
        assert_eq!(
            at(BargeIn, Place::EntryEarly, true, None),
            Expected::only(End::Vm)
        );
        assert_eq!(at(BargeIn, Place::Entry, true, None), TOLD);
    }

    #[test]
    fn a_lost_context_ends_whoever_it_belonged_to() {
        for mode in [Conforming, BargeIn] {
            for place in [Place::EntryEarly, Place::Exit, Place::Work, Place::Wait] {
                for masked in [false, true] {
                    let found = expected((Kind::Ueu, mode), (place, masked), None);
                    assert_eq!(
                        found,
                        Expected::only(End::Machine(By::Firmware)),
                        "{place:?}"
                    );
                }
            }
            let found = expected((Kind::Ueu, mode), (Place::Guest, false), None);
            assert_eq!(found, Expected::only(End::Vm));
        }
    }

    #[test]
    fn a_page_is_lost_by_its_owner_who_is_told_of_it_whoever_was_interrupted() {
        for (kind, owner) in [(Kind::UerOwn, SWEPT), (Kind::UerOther, BYSTANDER)] {
            let at = |place, masked| expected((kind, BargeIn), (place, masked), None);
            let wanted = Expected {
                end: End::Nothing,
                told: Some(owner),
                retired: Some(owner),
            };
            for place in [Place::Guest, Place::Exit, Place::Entry, Place::Wait] {
                assert_eq!(at(place, false), wanted, "{place:?}");
            }
            let machine = Expected::only(End::Machine(By::Hypervisor));
            assert_eq!(at(Place::Work, false), machine);
            assert_eq!(at(Place::EntryEarly, true).end, End::Vm);
        }
        let found = expected((Kind::UerOther, BargeIn), (Place::EntryEarly, true), None);
        assert_eq!(
            (found.told, found.retired),
            (Some(BYSTANDER), Some(BYSTANDER))
        );
    }
}
