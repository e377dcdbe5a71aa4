// SPDX-License-Identifier: MIT OR Apache-2.0
//! A record that a consumer works on where it stands.

use core::ops::{Deref, DerefMut};
use core::sync::atomic::Ordering::{Acquire, Release};

use firebreak_abi::PeId;

use crate::entry::Position;
use crate::ring::{Ring, Slot};
use crate::word::{SlotWord, State, held, lap_of};

/// A record that a PE holds. It stays in the queue until [`Held::finish`]; what is changed in it
/// stays changed if it comes back by [`Ring::release_claims`].
///
/// Dropped, it stays held.
pub struct Held<'r, T, const N: usize> {
    ring: &'r Ring<T, N>,
    slot: &'r Slot<T>,
    position: Position,
    /// The slot's word since the record is held.
    raw: u64,
}

impl<T: Copy, const N: usize> Ring<T, N> {
    /// As [`Ring::claim`], without a copy of the record.
    ///
    /// A state of the slot's own: so no [`Ring::finish`] can free it under its holder's hands.
    #[inline]
    pub fn hold(&self, pe: PeId) -> Option<Held<'_, T, N>> {
        loop {
            let front = self.front()?;
            let (slot, _) = self.find(front.position);
            let raw = held(front.raw, State::Held, pe.0);
            // Acquire: pairs with the producer's READY.
            if slot.word.replace(front.raw, raw, Acquire) {
                return Some(Held {
                    ring: self,
                    slot,
                    position: front.position,
                    raw,
                });
            }
        }
    }
}

impl<T: Copy, const N: usize> Held<'_, T, N> {
    /// Returns which record it is.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Finishes the record: its slot is free.
    #[inline]
    pub fn finish(self) {
        // Release: what was done with the value is done before a producer may write the slot. Nobody
        // else changes the word of a held slot.
        let freed = SlotWord::free(lap_of(self.raw)).freed();
        self.slot.word.store(freed.pack(), Release);
        self.ring.pass(self.position);
    }
}

impl<T: Copy, const N: usize> Deref for Held<'_, T, N> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this context has held the slot since an acquiring exchange from READY, so the cell
        // holds a T. Nothing else takes a HELD slot but `release_claims`, whose caller vouches that
        // this is not used any more.
        unsafe { &*self.slot.cell.place() }
    }
}

impl<T: Copy, const N: usize> DerefMut for Held<'_, T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; and there is one `Held` of a slot, which is borrowed mutably.
        unsafe { &mut *self.slot.cell.place() }
    }
}
