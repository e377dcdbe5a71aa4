// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an SEI destroyed that came while SError was masked, and how the interrupted goes on.
//!
//! Firmware that keeps to the contract never gets here with anything but the unmasked cases: it
//! defers. Firmware that barges in hands its SEI over in ELR, SPSR, ESR and FAR_EL2, of which the
//! interrupted prologue may have read none, some or all.

use super::{Lost, guest, place};
use crate::pe::{PeBlock, work};
use firebreak_abi::VmId;
use firebreak_arch::SeiLevel;
use firebreak_arch::frame::{LOST_ADDRESS, LOST_SYNDROME};
use firebreak_arch::windows::{self, Progress, Prologue};
use firebreak_triage::{GuestEl, Interrupted};

/// ESR_EL2.EC of HVC, whose ELR is behind it and which therefore cannot be done again.
const EC_HVC: u64 = 0x16;

/// What was interrupted.
pub(super) struct Place {
    /// For triage.
    pub(super) interrupted: Interrupted,
    /// Interrupted PC: the guest's, where it is known and nothing else is at stake.
    pub(super) pc: u64,
    /// What is gone.
    pub(super) lost: Lost,
    /// The interrupted does not go on: the PE looks for work instead.
    pub(super) abandon: bool,
}

impl Place {
    fn whole((interrupted, pc): (Interrupted, u64)) -> Self {
        Self {
            interrupted,
            pc,
            lost: Lost::Nothing,
            abandon: false,
        }
    }
}

/// Finds out what was interrupted, and prepares the frame of the level for the way back.
pub(super) fn settle(pe: &PeBlock, level: &mut SeiLevel) -> Place {
    let pc = level.found_elr;
    let masked = windows::masked(pc);
    if matches!(masked, Some((Prologue::SeiTail, _))) {
        // ELR and SPSR of whom the SEI before had interrupted still stand in the frame of this
        // level, and so do all other registers: it is the same interruption once more.
        let (interrupted, _) = place(pe, level.frame.elr);
        return Place::whole((interrupted, level.frame.elr));
    }
    level.frame.elr = pc;
    level.frame.spsr = level.found_spsr;
    level.frame.esr = level.found_esr;
    match masked {
        None => {
            let (interrupted, again) = place(pe, pc);
            level.frame.elr = again;
            Place::whole((interrupted, pc))
        }
        Some((Prologue::Guest | Prologue::GuestSei, progress)) => entry(pe, level, progress),
        Some((Prologue::Sei, Progress::Nothing)) => context_of_el2(pe, level),
        Some((Prologue::Sei, _)) => {
            level.frame.esr = LOST_SYNDROME;
            Place::whole((Interrupted::Hypervisor, pc))
        }
        Some((Prologue::SeiExit(start), _)) => {
            level.frame.elr = start;
            Place::whole((Interrupted::Hypervisor, pc))
        }
        Some((Prologue::SeiTail, _)) => Place::whole((Interrupted::Hypervisor, pc)),
    }
}

/// Inside the entry from a guest: nothing but that guest's context is at stake.
fn entry(pe: &PeBlock, level: &mut SeiLevel, progress: Progress) -> Place {
    if progress != Progress::Everything && progress != Progress::Syndrome {
        level.frame.esr = LOST_SYNDROME;
    }
    if progress == Progress::Syndrome && level.frame.x[0] >> 26 != EC_HVC {
        // FAR is gone: the guest's instruction is done again, and finds it again.
        level.frame.x[0] = LOST_ADDRESS;
    }
    if progress == Progress::Nothing {
        let vm = pe.resident().map_or(VmId(u8::MAX), |vcpu| vcpu.vm);
        let interrupted = Interrupted::Guest {
            vm,
            el: GuestEl::El1,
        };
        return Place {
            lost: Lost::Guest,
            ..Place::whole((interrupted, level.found_elr))
        };
    }
    let (elr, spsr) = if windows::guest_is_stored(level.found_elr) {
        // SAFETY: the interrupted prologue stored them there, and goes on only after this.
        let guest = unsafe { &*pe.head.guest.get() };
        (guest.elr, guest.spsr)
    } else {
        (level.frame.x[0], level.frame.x[1])
    };
    Place::whole((guest(pe.resident(), spsr), elr))
}

/// In the first instructions of an SEI that had interrupted EL2: where EL2 was is lost.
fn context_of_el2(pe: &PeBlock, level: &SeiLevel) -> Place {
    let before = if windows::has_level(level.found_elr) {
        level.level - 1
    } else {
        level.level
    };
    // Of a PE that waits for work nothing is lost but the wait. At work it may hold locks, and on
    // the way to work an interrupt that nobody else would end.
    let abandon = before == 1 && pe.is_waiting();
    if abandon {
        pe.set_work(work::AT_WORK);
        return Place {
            abandon,
            ..Place::whole((Interrupted::Idle, level.found_elr))
        };
    }
    Place {
        lost: Lost::Hypervisor,
        ..Place::whole((Interrupted::Hypervisor, level.found_elr))
    }
}
