// SPDX-License-Identifier: MIT OR Apache-2.0
//! The declared windows of `vectors.S`, by address, and what an SEI inside of each destroys.

/// Address of a label of `vectors.S`.
macro_rules! label {
    ($name:ident) => {{
        unsafe extern "C" {
            static $name: u8;
        }
        (&raw const $name).addr() as u64
    }};
}

/// A stretch of EL2 code: from its first instruction up to, not including, `end`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

impl Window {
    /// Says whether `address` lies inside.
    #[inline]
    pub fn contains(&self, address: u64) -> bool {
        address >= self.start && address < self.end
    }
}

/// Guest entry: restartable, unmasked through ERET.
#[inline]
pub fn exit() -> Window {
    Window {
        start: label!(firebreak_window_exit_start),
        end: label!(firebreak_window_exit_end),
    }
}

/// A write to a guest's memory, which an SEA ends: see [`guest_write_failed`].
#[inline]
pub fn guest_write() -> Window {
    Window {
        start: label!(firebreak_guest_write_start),
        end: label!(firebreak_guest_write_end),
    }
}

/// Where EL2 goes on after an SEA in [`guest_write`]: it returns to the caller, with the news.
pub fn guest_write_failed() -> u64 {
    label!(firebreak_guest_write_failed)
}

/// A PE's wait for work: restartable like the exit.
#[inline]
pub fn idle() -> Window {
    Window {
        start: label!(firebreak_window_idle_start),
        end: label!(firebreak_window_idle_end),
    }
}

/// How far a masked prologue had come. What it had not read from its register yet is lost to an
/// SEI that barges in, because that one is handed over in the same registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// ELR and SPSR are lost: the interrupted context cannot go on.
    Nothing,
    /// ELR is in x0 and SPSR in x1, or both are in the frame; ESR and FAR are lost.
    Context,
    /// ESR is in x0; FAR is lost.
    Syndrome,
    /// Everything was read.
    Everything,
}

/// Whose prologue it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prologue {
    /// A guest's synchronous exception or interrupt: the frame of the guest.
    Guest,
    /// An SEI that interrupted a guest: the same frame; its record is not acknowledged yet.
    GuestSei,
    /// An SEI that interrupted EL2.
    Sei,
    /// The way back of an SEI that interrupted EL2, which may begin anew at this address.
    SeiExit(u64),
    /// The last instruction of it: all registers but ELR and SPSR are those of whoever the
    /// first SEI interrupted, and ELR and SPSR still stand in the frame of its level.
    SeiTail,
}

/// The marks of a prologue: start, ELR and SPSR known, ESR read, FAR read, end.
type Marks = [u64; 5];

fn progress([start, known, esr, far, end]: Marks, pc: u64) -> Option<Progress> {
    if pc < start || pc >= end {
        None
    } else if pc < known {
        Some(Progress::Nothing)
    } else if pc < esr {
        Some(Progress::Context)
    } else if pc < far {
        Some(Progress::Syndrome)
    } else {
        Some(Progress::Everything)
    }
}

/// Says which masked prologue or epilogue of `vectors.S` holds `pc`, and how far it had come.
pub fn masked(pc: u64) -> Option<(Prologue, Progress)> {
    let sync = [
        label!(firebreak_window_entry_sync_start),
        label!(firebreak_window_entry_sync_known),
        label!(firebreak_window_entry_sync_esr),
        label!(firebreak_window_entry_sync_far),
        label!(firebreak_window_entry_sync_end),
    ];
    let irq = [
        label!(firebreak_window_entry_irq_start),
        label!(firebreak_window_entry_irq_known),
        // An interrupt has no syndrome and no address to lose.
        label!(firebreak_window_entry_irq_known),
        label!(firebreak_window_entry_irq_known),
        label!(firebreak_window_entry_irq_end),
    ];
    let serror = [
        label!(firebreak_window_entry_serror_start),
        label!(firebreak_window_entry_serror_known),
        label!(firebreak_window_entry_serror_esr),
        // An SError has no address.
        label!(firebreak_window_entry_serror_esr),
        label!(firebreak_window_entry_serror_end),
    ];
    let el2t = label!(firebreak_window_sei_el2t_known);
    let el2t = [
        label!(firebreak_window_sei_el2t_start),
        el2t,
        label!(firebreak_window_sei_el2t_end),
        label!(firebreak_window_sei_el2t_end),
        label!(firebreak_window_sei_el2t_end),
    ];
    let el2h = label!(firebreak_window_sei_el2h_known);
    let el2h = [
        label!(firebreak_window_sei_el2h_start),
        el2h,
        label!(firebreak_window_sei_el2h_end),
        label!(firebreak_window_sei_el2h_end),
        label!(firebreak_window_sei_el2h_end),
    ];
    let exit = label!(firebreak_window_sei_exit);
    let rest = [
        label!(firebreak_window_sei_start),
        label!(firebreak_window_sei_start),
        label!(firebreak_window_sei_esr),
        label!(firebreak_window_sei_esr),
        exit,
    ];
    for (marks, prologue) in [
        (sync, Prologue::Guest),
        (irq, Prologue::Guest),
        (serror, Prologue::GuestSei),
        (el2t, Prologue::Sei),
        (el2h, Prologue::Sei),
        (rest, Prologue::Sei),
    ] {
        if let Some(progress) = progress(marks, pc) {
            return Some((prologue, progress));
        }
    }
    let tail = label!(firebreak_window_sei_tail);
    if pc == tail {
        return Some((Prologue::SeiTail, Progress::Everything));
    }
    (pc >= exit && pc < tail).then_some((Prologue::SeiExit(exit), Progress::Everything))
}

/// Says whether an SEI that was interrupted at `pc`, in a [`Prologue::Sei`], has a level already:
/// all but those at the first instruction of a vector.
pub fn has_level(pc: u64) -> bool {
    ![
        label!(firebreak_window_sei_el2t_start),
        label!(firebreak_window_sei_el2h_start),
    ]
    .contains(&pc)
}

/// Says whether ELR and SPSR of the guest stand in its frame already, and not in x0 and x1.
///
/// `pc` lies in a prologue of [`Prologue::Guest`] or [`Prologue::GuestSei`] that knows them.
pub fn guest_is_stored(pc: u64) -> bool {
    // They are stored by the one instruction behind the mark.
    ![
        label!(firebreak_window_entry_sync_known),
        label!(firebreak_window_entry_irq_known),
        label!(firebreak_window_entry_serror_known),
    ]
    .contains(&pc)
}
