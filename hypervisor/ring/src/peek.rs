// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking at a queue without consuming it: for the crash path.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use firebreak_abi::PeId;

use crate::entry::{Entry, Position};
use crate::ring::{Ring, Slot};
use crate::word::{SlotWord, State, held};

/// What stands in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peeked<T> {
    /// A published record.
    Ready(Entry<T>),
    /// A record that a PE is working on (or was, when it died). Its value is that PE's.
    InHands {
        /// Which record.
        position: Position,
        /// Its stamp, in ticks.
        stamp_ticks: u64,
        /// Who holds it.
        holder: PeId,
    },
    /// A slot whose producer has not published.
    Unpublished {
        /// Which record.
        position: Position,
        /// Level of its producer.
        nesting: u8,
    },
}

impl<T: Copy, const N: usize> Ring<T, N> {
    /// Shows every record to `f`, oldest first, the emergency slot last, and leaves the queue as
    /// it was. Returns how many were shown.
    ///
    /// For the crash path of `pe`. Safe while others still use the queue: a consumer that comes
    /// to a record while it is being copied sees the queue as ending there. Bounded by `N`.
    pub fn peek_all(&self, pe: PeId, mut f: impl FnMut(Peeked<T>)) -> usize {
        let start = self.tail();
        let mut shown = 0;
        // `tail` may lag behind what is finished by a lap: look at two, and at each slot once.
        for position in start..start.saturating_add(2 * N as u64) {
            let slot = self.slot(position);
            if let Some(peeked) = peek(slot, Self::lap(position), Position::at(position), pe) {
                f(peeked);
                shown += 1;
            }
        }
        let lap = SlotWord::unpack(self.emergency.word.load(Relaxed)).lap;
        if let Some(peeked) = peek(&self.emergency, lap, Position::emergency(lap), pe) {
            f(peeked);
            shown += 1;
        }
        shown
    }
}

fn peek<T: Copy>(slot: &Slot<T>, lap: u64, position: Position, pe: PeId) -> Option<Peeked<T>> {
    let found = slot.word.load(Relaxed);
    let word = SlotWord::unpack(found);
    if word.lap != lap {
        return None;
    }
    let stamp_ticks = slot.stamp_ticks.load(Relaxed);
    let in_hands = |holder| {
        Some(Peeked::InHands {
            position,
            stamp_ticks,
            holder: PeId(holder),
        })
    };
    match word.state {
        State::Free => None,
        State::Reserved => Some(Peeked::Unpublished {
            position,
            nesting: word.nesting,
        }),
        State::Claimed | State::Held | State::Peeked => in_hands(word.holder),
        State::Ready => {
            let peeked = held(found, State::Peeked, pe.0);
            if !slot.word.replace(found, peeked, Acquire) {
                // Somebody was faster: it is in their hands now, or finished.
                let now = SlotWord::unpack(slot.word.load(Relaxed));
                return (now.lap == lap).then(|| in_hands(now.holder)).flatten();
            }
            let entry = Entry {
                position,
                // Read again: only now it is certain to be this record's.
                stamp_ticks: slot.stamp_ticks.load(Relaxed),
                nesting: word.nesting,
                // SAFETY: this context holds the slot as PEEKED, by an acquiring exchange from
                // READY. Nothing else takes a PEEKED slot but `release_claims`, whose caller
                // vouches that this context never continues.
                value: unsafe { slot.cell.read() },
            };
            // Release: our copy is done before anybody may free the slot; and whoever acquires
            // it from here on sees what we acquired.
            slot.word.store(found, Release);
            Some(Peeked::Ready(entry))
        }
    }
}
