// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queue itself: reserve, publish, claim, finish, recover. The crate's documentation explains it.

use core::borrow::Borrow;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use firebreak_abi::PeId;

use crate::entry::{Counters, Entry, Position, Refused};
use crate::sync::{Cell, Word};
use crate::word::{SlotWord, State, has_state, held, lap_of};

/// The most rounds of the reservation's loop. Without an interruption there are at most two; each
/// record that is published in between costs up to two more.
const MAX_RESERVE_ROUNDS: usize = 64;

/// A slot. 128 bytes apart, so that no store to another slot can take the exclusive monitor away
/// from a producer: the reservation granule is 64 bytes on the cores that exist.
#[repr(align(128))]
pub(crate) struct Slot<T> {
    pub(crate) word: Word,
    pub(crate) stamp_ticks: Word,
    pub(crate) cell: Cell<T>,
}

/// What only the ring's own PE writes.
#[repr(align(128))]
struct ProducerSide {
    /// The next position to reserve, or one less while a reservation is being completed.
    head: Word,
    refused: Word,
    abandoned: Word,
    /// Position in front of which the record of the emergency slot was made.
    emergency_before: Word,
}

/// What consumers write.
#[repr(align(128))]
struct ConsumerSide {
    /// Every position below is finished. May lag.
    tail: Word,
    /// Not 0: a publish was refused since the last look.
    overflow: Word,
}

/// The recovery queue of one PE: `N` slots, a power of two, and one more for a fatal record.
pub struct Ring<T, const N: usize> {
    producer: ProducerSide,
    consumer: ConsumerSide,
    pub(crate) emergency: Slot<T>,
    slots: [Slot<T>; N],
}

// SAFETY: a T is written by one context and copied out by others, on other PEs; T: Send allows
// that. Who may touch a slot's cell is decided by its word: see `Cell::write` and `Cell::read`.
unsafe impl<T: Copy + Send, const N: usize> Sync for Ring<T, N> {}

/// A slot that a producer has reserved.
struct Reserved<'r, T> {
    position: Position,
    slot: &'r Slot<T>,
    lap: u64,
}

/// A record that may be claimed: what the queue would hand out next.
#[derive(Clone, Copy)]
pub(crate) struct Front {
    pub(crate) position: Position,
    /// The slot's word.
    pub(crate) raw: u64,
    stamp_ticks: u64,
}

/// Returns the next position. Positions never wrap: 2^63 records, one in each nanosecond, are 292
/// years. The addition does not check, so that no panic is reachable from SEI context.
#[inline]
const fn after(position: u64) -> u64 {
    position.wrapping_add(1)
}

macro_rules! constructors {
    ($($constness:tt)?) => {
        impl<T: Copy> Slot<T> {
            $($constness)? fn new() -> Self {
                Self { word: Word::zero(), stamp_ticks: Word::zero(), cell: Cell::empty() }
            }
        }

        impl<T: Copy, const N: usize> Ring<T, N> {
            /// Makes an empty queue: nothing but zeros, so a `static` one costs no image space.
            #[must_use]
            pub $($constness)? fn new() -> Self {
                const { assert!(N >= 2 && N.is_power_of_two(), "N must be a power of two, at least 2") };
                Self {
                    producer: ProducerSide {
                        head: Word::zero(),
                        refused: Word::zero(),
                        abandoned: Word::zero(),
                        emergency_before: Word::zero(),
                    },
                    consumer: ConsumerSide { tail: Word::zero(), overflow: Word::zero() },
                    emergency: Slot::new(),
                    slots: new_slots!(),
                }
            }
        }
    };
}

#[cfg(not(loom))]
macro_rules! new_slots {
    () => {
        [const { Slot::new() }; N]
    };
}
#[cfg(loom)]
macro_rules! new_slots {
    () => {
        core::array::from_fn(|_| Slot::new())
    };
}

#[cfg(not(loom))]
constructors!(const);
#[cfg(loom)]
constructors!();

impl<T: Copy, const N: usize> Default for Ring<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy, const N: usize> Ring<T, N> {
    const SHIFT: u32 = N.trailing_zeros();
    const MASK: u64 = N as u64 - 1;

    #[inline]
    pub(crate) fn slot(&self, position: u64) -> &Slot<T> {
        // The mask keeps the index below N; the compiler sees that and drops the check.
        &self.slots[(position & Self::MASK) as usize]
    }

    #[inline]
    pub(crate) const fn lap(position: u64) -> u64 {
        position >> Self::SHIFT
    }

    pub(crate) fn tail(&self) -> u64 {
        self.consumer.tail.load(Relaxed)
    }

    #[inline]
    pub(crate) fn find(&self, position: Position) -> (&Slot<T>, u64) {
        if position.is_emergency() {
            (&self.emergency, position.number())
        } else {
            (self.slot(position.number()), Self::lap(position.number()))
        }
    }

    /// Publishes a record. When this returns `Ok`, the record cannot be lost any more, and its
    /// source may be acknowledged.
    ///
    /// Callable in SEI context on the ring's PE, also when it interrupts another call of this or
    /// any other function of the same ring. `nesting` is the depth of the caller among the
    /// contexts of this PE that publish: an interrupting call passes a larger number than the
    /// interrupted one. Bounded: the cost does not depend on how many records wait.
    ///
    /// # Errors
    ///
    /// [`Refused`], which is counted and remembered (see [`Ring::take_overflow`]): the caller
    /// does not acknowledge the source, and acts on its verdict at once.
    #[inline]
    pub fn publish(
        &self,
        stamp_ticks: u64,
        nesting: u8,
        value: impl Borrow<T>,
    ) -> Result<Position, Refused> {
        let reserved = self.reserve(nesting);
        self.complete(reserved, stamp_ticks, nesting, value.borrow())
    }

    /// Publishes a fatal record: as [`Ring::publish`], and into the emergency slot when the queue
    /// is full. Ordinary records never use that slot.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the emergency slot is in use as well.
    pub fn publish_fatal(
        &self,
        stamp_ticks: u64,
        nesting: u8,
        value: impl Borrow<T>,
    ) -> Result<Position, Refused> {
        let reserved = self
            .reserve(nesting)
            .or_else(|refused| self.reserve_emergency(nesting).ok_or(refused));
        self.complete(reserved, stamp_ticks, nesting, value.borrow())
    }

    #[inline]
    fn complete(
        &self,
        reserved: Result<Reserved<'_, T>, Refused>,
        stamp_ticks: u64,
        nesting: u8,
        value: &T,
    ) -> Result<Position, Refused> {
        match reserved {
            Ok(Reserved {
                position,
                slot,
                lap,
            }) => {
                slot.stamp_ticks.store(stamp_ticks, Relaxed);
                // SAFETY: this context holds the slot as RESERVED, by an acquiring exchange from
                // FREE. Nothing else takes a RESERVED slot but `abandon`, whose caller vouches
                // that this context never continues.
                unsafe { slot.cell.write(value) };
                // Release: whoever acquires READY sees stamp and value. Also keeps what the
                // caller does next (acknowledge) from being seen first by an observer that
                // orders its reads.
                slot.word
                    .store(SlotWord::made(lap, State::Ready, nesting).pack(), Release);
                Ok(position)
            }
            Err(refused) => {
                // First the flag, so that no loss of this context hides that a source waits.
                self.consumer.overflow.store(1, Release);
                self.producer.refused.add_one();
                Err(refused)
            }
        }
    }

    #[inline]
    fn reserve(&self, nesting: u8) -> Result<Reserved<'_, T>, Refused> {
        for _ in 0..MAX_RESERVE_ROUNDS {
            let position = self.producer.head.load(Relaxed);
            let lap = Self::lap(position);
            let slot = self.slot(position);
            let free = SlotWord::free(lap).pack();
            let found = slot.word.load(Relaxed);
            if found == free {
                let reserved = SlotWord::made(lap, State::Reserved, nesting).pack();
                // Acquire: the value's last readers released the slot when they freed it.
                if slot.word.replace(free, reserved, Acquire) {
                    // May fail: a producer that interrupted us here has done it for us.
                    self.producer
                        .head
                        .replace(position, after(position), Relaxed);
                    return Ok(Reserved {
                        position: Position(position),
                        slot,
                        lap,
                    });
                }
            } else if SlotWord::unpack(found).lap < lap {
                return Err(Refused::Full);
            } else {
                // Reserved by a producer that was interrupted, or lost, before it moved `head`.
                self.producer
                    .head
                    .replace(position, after(position), Relaxed);
            }
        }
        Err(Refused::Interrupted)
    }

    fn reserve_emergency(&self, nesting: u8) -> Option<Reserved<'_, T>> {
        let slot = &self.emergency;
        let found = slot.word.load(Relaxed);
        let word = SlotWord::unpack(found);
        let reserved = SlotWord::made(word.lap, State::Reserved, nesting).pack();
        if word.state != State::Free || !slot.word.replace(found, reserved, Acquire) {
            return None;
        }
        self.producer
            .emergency_before
            .store(self.producer.head.load(Relaxed), Relaxed);
        Some(Reserved {
            position: Position::emergency(word.lap),
            slot,
            lap: word.lap,
        })
    }

    /// Finds the record that is next: of the ring, or the emergency record at its place.
    #[inline]
    pub(crate) fn front(&self) -> Option<Front> {
        loop {
            // Looked at on both sides of the walk. Before: when the walk ends at nothing, only an
            // emergency record that was visible by then is older than whatever comes there.
            // After: a record that the walk found may be younger than one that was not visible.
            let early = self.emergency_front();
            let walked = self.walk();
            let late = self.emergency_front();
            match (walked, late) {
                (Some(found), Some((before, emergency))) => {
                    let older = before <= found.position.number();
                    return Some(if older { emergency } else { found });
                }
                (None, Some((_, emergency))) => {
                    if early.is_some_and(|(_, early)| early.position == emergency.position) {
                        return Some(emergency);
                    }
                    // Published meanwhile, and maybe others in front of it: walk again.
                }
                (walked, None) => return walked,
            }
        }
    }

    /// Finds the oldest record of the ring that is ready, unless an older one is not done, and
    /// moves `tail` over what is finished.
    fn walk(&self) -> Option<Front> {
        let mut position = self.tail();
        loop {
            let lap = Self::lap(position);
            let slot = self.slot(position);
            // Acquire: pairs with the producer's READY, so that the stamp, and an emergency
            // record that is older than this one, are seen.
            let raw = slot.word.load(Acquire);
            if lap_of(raw) > lap {
                // Fails behind a record that is still claimed: `tail` stays in front of it.
                self.consumer
                    .tail
                    .replace(position, after(position), Relaxed);
                position = after(position);
            } else if lap_of(raw) != lap {
                return None;
            } else if has_state(raw, State::Ready) {
                return Some(Front {
                    position: Position(position),
                    raw,
                    stamp_ticks: slot.stamp_ticks.load(Relaxed),
                });
            } else if has_state(raw, State::Claimed) || has_state(raw, State::Held) {
                position = after(position);
            } else {
                // The end; or a producer is not done, or a reader gives it back: wait, so that
                // the order holds.
                return None;
            }
        }
    }

    /// Returns the emergency record, if there is one, and the position in front of which it was
    /// made.
    fn emergency_front(&self) -> Option<(u64, Front)> {
        let slot = &self.emergency;
        // Acquire: what was published before it is seen from here on.
        let raw = slot.word.load(Acquire);
        if !has_state(raw, State::Ready) {
            return None;
        }
        let before = self.producer.emergency_before.load(Relaxed);
        let position = Position::emergency(lap_of(raw));
        Some((
            before,
            Front {
                position,
                raw,
                stamp_ticks: slot.stamp_ticks.load(Relaxed),
            },
        ))
    }

    pub(crate) fn claim_front(&self, front: Front, pe: PeId) -> Option<Entry<T>> {
        let (slot, _) = self.find(front.position);
        let claimed = held(front.raw, State::Claimed, pe.0);
        // Acquire: pairs with the producer's READY. The exchange fails unless this very record
        // is still there, so stamp and nesting belong to it.
        slot.word
            .replace(front.raw, claimed, Acquire)
            .then(|| Entry {
                position: front.position,
                stamp_ticks: front.stamp_ticks,
                nesting: SlotWord::unpack(front.raw).nesting,
                // SAFETY: this context holds the slot as CLAIMED, by an acquiring exchange from
                // READY. Nothing else takes a CLAIMED slot but `release_claims`, whose caller
                // vouches that this context never continues.
                value: unsafe { slot.cell.read() },
            })
    }

    /// Claims the oldest record and leaves it in the queue until [`Ring::finish`]: if `pe` is
    /// lost while it works on it, [`Ring::release_claims`] brings the record back.
    ///
    /// Exactly one caller gets each record. Not for SEI context: it repeats while others succeed.
    pub fn claim(&self, pe: PeId) -> Option<Entry<T>> {
        loop {
            let front = self.front()?;
            if let Some(entry) = self.claim_front(front, pe) {
                return Some(entry);
            }
        }
    }

    /// Finishes a record that `pe` claimed: its slot is free. Returns false, and does nothing,
    /// when `pe` does not hold it (any more).
    pub fn finish(&self, position: Position, pe: PeId) -> bool {
        let (slot, lap) = self.find(position);
        let found = slot.word.load(Relaxed);
        let word = SlotWord::unpack(found);
        if word.lap != lap || word.state != State::Claimed || word.holder != pe.0 {
            return false;
        }
        // Release: our copy of the value is done before a producer may write the slot.
        let finished = slot.word.replace(found, word.freed().pack(), Release);
        if finished {
            self.pass(position);
        }
        finished
    }

    /// Moves `tail` over a record that is finished.
    #[inline]
    pub(crate) fn pass(&self, position: Position) {
        if !position.is_emergency() {
            self.consumer
                .tail
                .replace(position.0, after(position.0), Relaxed);
        }
    }

    /// Takes the oldest record out of the queue: [`Ring::claim`] and [`Ring::finish`].
    pub fn take(&self, pe: PeId) -> Option<Entry<T>> {
        let entry = self.claim(pe)?;
        self.finish(entry.position, pe);
        Some(entry)
    }

    /// Returns the stamp of the record that is next, in ticks.
    pub fn oldest_stamp_ticks(&self) -> Option<u64> {
        self.front().map(|front| front.stamp_ticks)
    }

    /// Says whether a record waits or a publish was refused. The last look before a guest is
    /// entered or the PE idles.
    pub fn has_work(&self) -> bool {
        self.front().is_some() || self.consumer.overflow.load(Acquire) != 0
    }

    /// Says whether a publish was refused since the last call. Then the caller, when it has
    /// drained the queue, looks at the unacknowledged sources again.
    pub fn take_overflow(&self) -> bool {
        self.consumer.overflow.swap(0, Acquire) != 0
    }

    /// Gives up the producers of level `nesting` and deeper: their contexts were lost between
    /// reserving and publishing. Returns how many slots that freed. Their sources were not
    /// acknowledged, so nothing is lost: [`Ring::take_overflow`] will say that they wait.
    /// Bounded by `N`; callable in SEI context.
    ///
    /// # Safety
    ///
    /// No call of `publish` or `publish_fatal` on this ring with this or a deeper level, that
    /// has begun, ever continues; and what it did happened before this call (it ran on this PE,
    /// or its PE was stopped with a barrier).
    pub unsafe fn abandon(&self, nesting: u8) -> usize {
        let lost = |slot: &&Slot<T>| {
            let found = slot.word.load(Relaxed);
            let word = SlotWord::unpack(found);
            // Release: whatever the lost producer wrote comes before the next producer's write.
            word.state == State::Reserved
                && word.nesting >= nesting
                && slot.word.replace(found, word.freed().pack(), Release)
        };
        let count = self.all_slots().filter(lost).count();
        for _ in 0..count {
            self.producer.abandoned.add_one();
        }
        // Also without a hole: the lost context may not have come to its reservation.
        self.consumer.overflow.store(1, Release);
        count
    }

    /// Gives back what `pe` claimed, or looked at, and will not finish: its context was lost.
    /// Returns how many records that brought back; they are handed out again, before younger
    /// ones.
    ///
    /// # Safety
    ///
    /// No call of `claim`, `take` or `peek_all` on this ring by `pe`, that has begun, ever
    /// continues; no [`Held`](crate::Held) of `pe` is used any more; and what it did happened before this call.
    pub unsafe fn release_claims(&self, pe: PeId) -> usize {
        let is_held = |slot: &&Slot<T>| {
            let found = slot.word.load(Relaxed);
            let word = SlotWord::unpack(found);
            // Release: whatever the lost holder read comes before the next producer's write. As
            // an exchange it also carries on the release that published the value.
            matches!(word.state, State::Claimed | State::Held | State::Peeked)
                && word.holder == pe.0
                && slot.word.replace(found, word.ready().pack(), Release)
        };
        self.all_slots().filter(is_held).count()
    }

    pub(crate) fn all_slots(&self) -> impl Iterator<Item = &Slot<T>> {
        self.slots.iter().chain(core::iter::once(&self.emergency))
    }

    /// Counts. Read from the slots themselves, so an interrupted or lost context cannot make
    /// them drift.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters {
            refused: self.producer.refused.load(Relaxed),
            abandoned: self.producer.abandoned.load(Relaxed),
            ..Counters::default()
        };
        let mut laps = 0;
        for slot in self.all_slots() {
            let word = SlotWord::unpack(slot.word.load(Relaxed));
            laps = word.lap.saturating_add(laps);
            match word.state {
                State::Free => {}
                State::Reserved => counters.in_flight += 1,
                State::Ready | State::Claimed | State::Held | State::Peeked => {
                    counters.pending += 1;
                }
            }
        }
        counters.taken = laps.saturating_sub(counters.abandoned);
        counters.published = counters.taken.saturating_add(counters.pending);
        counters
    }
}

/// Takes the record with the smallest stamp of several queues. Returns the queue's index as well.
///
/// A queue whose oldest record is not published yet does not hold the others up.
pub fn take_oldest<'r, T, const N: usize>(
    rings: impl Iterator<Item = &'r Ring<T, N>> + Clone,
    pe: PeId,
) -> Option<(usize, Entry<T>)>
where
    T: Copy + 'r,
{
    loop {
        let (index, ring, front) = rings
            .clone()
            .enumerate()
            .filter_map(|(index, ring)| Some((index, ring, ring.front()?)))
            .min_by_key(|(.., front)| front.stamp_ticks)?;
        if let Some(entry) = ring.claim_front(front, pe) {
            ring.finish(entry.position, pe);
            return Some((index, entry));
        }
    }
}
