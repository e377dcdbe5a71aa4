// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real poison: pages that the granule protection table closes to the normal world (FEAT_RME).
//!
//! An access to such a page traps to EL3 where and when it is made, with the physical address in
//! MFAR_EL3. The firmware treats it as what a memory controller would have answered with: an
//! external abort, or an SError. This module holds what is decided: the table's layout and the
//! error that a trap stands for. `el3::gpt` writes the registers.
//!
//! Source: Arm ARM DDI0487 M.a, D9 (granule protection), D24.2 (ESR_ELx, EC 0x1e; GPCCR_EL3).

use firebreak_abi::{PAGE_SIZE_BYTES, Pa};
use firebreak_syndrome::{CperSeverity, Iss};

use crate::abort::Abort;
use crate::errors::Error;

/// ESR_EL3.EC of a granule protection check exception.
pub const EC_GPC: u64 = 0x1e;
/// A level 0 entry covers 1 GiB (GPCCR_EL3.L0GPTSZ = 0).
pub const BLOCK_SHIFT: u32 = 30;
/// Entries of a level 1 table: 16 granules of 4 KiB each.
pub const LEVEL_1_ENTRIES: usize = 1 << (BLOCK_SHIFT - 12 - 4);
/// Level 0 entry: a block that everybody may access (GPI 0b1111).
pub const OPEN_BLOCK: u64 = 0xf1;
/// Level 0 entry: a level 1 table, at the address that is added.
pub const TABLE: u64 = 3;
/// Level 1 entry: 16 granules that everybody may access.
pub const OPEN_GRANULES: u64 = u64::MAX;
/// Pages that can be bad at a time.
pub const MOST: usize = 16;

/// ISS of the exception.
const IND: u64 = 1 << 20;
const GPCSC_SHIFT: u32 = 14;
/// GPCSC\[5:2\]: granule protection fault; \[1:0\] is the table's level.
const GPCSC_FAULT: u64 = 0b0011;
const WNR: u64 = 1 << 6;
const CM: u64 = 1 << 8;
const S1PTW: u64 = 1 << 7;
const FSC: u64 = 0x3f;
/// MFAR_EL3.FPA.
const FPA: u64 = 0x000f_ffff_ffff_ffff;

/// As what an access to a bad page is handed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A synchronous external abort.
    Sea,
    /// An SError.
    Sei,
}

impl Answer {
    /// Returns the word of the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sea => "sea",
            Self::Sei => "sei",
        }
    }
}

/// The pages that are bad.
#[derive(Debug)]
pub struct Pages {
    pages: [Option<(Pa, Answer)>; MOST],
}

impl Pages {
    /// Makes an empty set.
    pub const fn new() -> Self {
        Self {
            pages: [None; MOST],
        }
    }

    /// Adds a page, or changes how it answers. `false` when there is no room.
    pub fn insert(&mut self, pa: Pa, answer: Answer) -> bool {
        let page = pa.page();
        let known = |slot: &&mut Option<(Pa, Answer)>| slot.is_some_and(|(at, _)| at == page);
        let slot = match self.pages.iter_mut().find(known) {
            Some(slot) => Some(slot),
            None => self.pages.iter_mut().find(|slot| slot.is_none()),
        };
        match slot {
            Some(slot) => {
                *slot = Some((page, answer));
                true
            }
            None => false,
        }
    }

    /// Takes a page out. `false` when it was not bad.
    pub fn remove(&mut self, pa: Pa) -> bool {
        let page = pa.page();
        self.pages
            .iter_mut()
            .find_map(|slot| slot.take_if(|(at, _)| *at == page))
            .is_some()
    }

    /// Says how a page answers, if it is bad.
    pub fn answer(&self, pa: Pa) -> Option<Answer> {
        let page = pa.page();
        self.pages
            .iter()
            .flatten()
            .find_map(|(at, answer)| (*at == page).then_some(*answer))
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self::new()
    }
}

/// What the registers said when the trap was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trap {
    /// ESR_EL3.
    pub esr: u64,
    /// FAR_EL3.
    pub far: u64,
    /// MFAR_EL3.
    pub mfar: u64,
}

impl Trap {
    /// Returns the physical address that was accessed.
    pub const fn pa(&self) -> Pa {
        Pa::new(self.mfar & FPA)
    }

    /// Says whether a granule did not allow the access; otherwise the table itself is at fault,
    /// which is a fault of the firmware.
    pub const fn is_granule_fault(&self) -> bool {
        self.esr >> 26 == EC_GPC && self.esr >> (GPCSC_SHIFT + 2) & 0xf == GPCSC_FAULT
    }

    /// Returns the error that a memory controller would have made of it.
    pub fn error(&self, id: u64, answer: Answer) -> Error {
        let error = Error {
            id,
            iss: Iss::UER,
            pa: Some(self.pa()),
            record: Some(CperSeverity::Recoverable),
            abort: None,
            real: true,
            modes: None,
            in_storm: false,
        };
        match answer {
            Answer::Sei => error,
            Answer::Sea => Error {
                iss: self.abort_syndrome(),
                abort: Some(Abort {
                    fetch: self.esr & IND != 0,
                    far: Some(self.far),
                }),
                ..error
            },
        }
    }

    /// External aborts have codes of their own: 0x10 for 0x28, and 0x13 to 0x17 on a table walk
    /// for 0x23 to 0x27.
    const fn abort_syndrome(&self) -> Iss {
        let fsc = match self.esr & FSC {
            fsc @ 0x23..=0x27 => fsc - 0x10,
            _ => 0x10,
        };
        Iss::from_esr(self.esr & (WNR | CM | S1PTW) | fsc)
    }
}

/// Returns a level 1 entry with one granule opened or closed.
pub const fn set_granule(entry: u64, pa: Pa, open: bool) -> u64 {
    let nibble = 0xf << (4 * (pa.get() / PAGE_SIZE_BYTES % 16));
    if open {
        entry | nibble
    } else {
        entry & !nibble
    }
}

/// Returns the index of the level 1 entry that covers an address, in its table.
pub const fn entry_index(pa: Pa) -> usize {
    (pa.get() >> 16) as usize % LEVEL_1_ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    const PA: Pa = Pa::new(0x5012_3008);

    fn trap(esr: u64) -> Trap {
        Trap {
            esr,
            far: 0xffff_0000_0000_0008,
            mfar: 1 << 63 | PA.get(),
        }
    }

    #[test]
    fn a_trap_becomes_the_abort_of_its_access() {
        // As QEMU 10.0 has them: load, store, fetch, walk.
        for (esr, iss, fetch) in [
            (0x7a03_4028, 0x10, false),
            (0x7a03_4068, 0x50, false),
            (0x7a13_4028, 0x10, true),
            (0x7a33_4025, 0x15, true),
        ] {
            let trap = trap(esr);
            assert!(trap.is_granule_fault());
            let error = trap.error(7, Answer::Sea);
            assert_eq!(error.iss.get(), iss, "{esr:#x}");
            assert_eq!(error.abort.map(|abort| abort.fetch), Some(fetch));
            assert_eq!((error.pa, error.real), (Some(PA), true));
            let error = trap.error(7, Answer::Sei);
            assert_eq!((error.iss, error.abort), (Iss::UER, None));
        }
    }

    #[test]
    fn a_fault_of_the_table_itself_is_no_poison() {
        // GPCSC: walk fault at level 0, address size fault, external abort on the table.
        for gpcsc in [0b00_0100, 0b00_0000, 0b01_0100] {
            assert!(!trap(EC_GPC << 26 | gpcsc << GPCSC_SHIFT | 0x28).is_granule_fault());
        }
        assert!(!trap(0x9600_0010).is_granule_fault());
    }

    #[test]
    fn one_granule_is_closed_and_its_neighbors_stay_open() {
        for page in 0..16 {
            let pa = Pa::new(0x5012_0000 + page * PAGE_SIZE_BYTES);
            let closed = set_granule(OPEN_GRANULES, pa, false);
            assert_eq!(closed.count_zeros(), 4);
            assert_eq!(closed >> (4 * page) & 0xf, 0);
            assert_eq!(set_granule(closed, pa, true), OPEN_GRANULES);
            assert_eq!(entry_index(pa), 0x1012);
        }
    }

    #[test]
    fn pages_are_a_set_with_an_end() {
        let mut pages = Pages::new();
        assert!(pages.insert(PA, Answer::Sea) && pages.insert(PA.page(), Answer::Sei));
        assert_eq!(pages.answer(PA), Some(Answer::Sei));
        assert!(pages.remove(PA) && !pages.remove(PA));
        assert_eq!(pages.answer(PA), None);
        for page in 0..MOST as u64 {
            assert!(pages.insert(Pa::new(page * PAGE_SIZE_BYTES), Answer::Sea));
        }
        assert!(!pages.insert(PA, Answer::Sea));
        assert!(pages.insert(Pa::new(1), Answer::Sei));
    }
}
