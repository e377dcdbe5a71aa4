// SPDX-License-Identifier: MIT OR Apache-2.0
//! A slot's word: lap, state, who made the record and who holds it, in 64 bits.
//!
//! One word, so that every step of a slot's life is one atomic step. All zeros is a free slot of
//! lap 0, so that a fresh queue is nothing but zeros.
//!
//! Bits: state \[2:0\], nesting level \[6:3\], PE that holds it \[14:7\], lap \[63:15\].

/// The deepest nesting level that is told apart; deeper ones count as this one.
pub const MAX_NESTING: u8 = 15;

/// State of a slot, in the order of its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Nobody's. The lap is the one that it may be reserved for.
    Free,
    /// A producer's, from its reservation until it publishes or is given up for lost.
    Reserved,
    /// Published, nobody's.
    Ready,
    /// A consumer's, until it is finished or its PE is given up for lost.
    Claimed,
    /// A reader's that will give it back, of the crash path.
    Peeked,
}

/// A decoded word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlotWord {
    pub(crate) lap: u64,
    pub(crate) state: State,
    pub(crate) nesting: u8,
    pub(crate) holder: u8,
}

impl SlotWord {
    const NESTING_SHIFT: u32 = 3;
    const HOLDER_SHIFT: u32 = 7;
    const LAP_SHIFT: u32 = 15;

    /// A slot that may be reserved for this lap.
    #[inline]
    pub(crate) const fn free(lap: u64) -> Self {
        Self {
            lap,
            state: State::Free,
            nesting: 0,
            holder: 0,
        }
    }

    /// A slot that a producer of this level filled or fills.
    #[inline]
    pub(crate) const fn made(lap: u64, state: State, nesting: u8) -> Self {
        let nesting = if nesting < MAX_NESTING {
            nesting
        } else {
            MAX_NESTING
        };
        Self {
            lap,
            state,
            nesting,
            holder: 0,
        }
    }

    /// The same record, held by somebody.
    #[inline]
    pub(crate) const fn held(self, state: State, holder: u8) -> Self {
        Self {
            state,
            holder,
            ..self
        }
    }

    /// The same record, held by nobody.
    #[inline]
    pub(crate) const fn ready(self) -> Self {
        Self {
            state: State::Ready,
            holder: 0,
            ..self
        }
    }

    /// The slot, free for the next lap.
    #[inline]
    pub(crate) const fn freed(self) -> Self {
        Self::free(self.lap.wrapping_add(1))
    }

    #[inline]
    pub(crate) const fn pack(self) -> u64 {
        let state = match self.state {
            State::Free => 0,
            State::Reserved => 1,
            State::Ready => 2,
            State::Claimed => 3,
            State::Peeked => 4,
        };
        state
            | ((self.nesting as u64) << Self::NESTING_SHIFT)
            | ((self.holder as u64) << Self::HOLDER_SHIFT)
            | (self.lap << Self::LAP_SHIFT)
    }

    #[inline]
    pub(crate) const fn unpack(raw: u64) -> Self {
        let state = match raw & 7 {
            0 => State::Free,
            1 => State::Reserved,
            2 => State::Ready,
            3 => State::Claimed,
            // Only `pack` makes words, so the rest is 4.
            _ => State::Peeked,
        };
        Self {
            lap: raw >> Self::LAP_SHIFT,
            state,
            nesting: (raw >> Self::NESTING_SHIFT & 0xf) as u8,
            holder: (raw >> Self::HOLDER_SHIFT & 0xff) as u8,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn words_survive_packing_and_a_fresh_slot_is_all_zeros() {
        assert_eq!(SlotWord::free(0).pack(), 0);
        for state in [
            State::Free,
            State::Reserved,
            State::Ready,
            State::Claimed,
            State::Peeked,
        ] {
            for (lap, nesting, holder) in [(0, 0, 0), (1, 15, 255), ((1 << 49) - 1, 7, 8)] {
                let word = SlotWord {
                    lap,
                    state,
                    nesting,
                    holder,
                };
                assert_eq!(SlotWord::unpack(word.pack()), word);
            }
        }
        assert_eq!(SlotWord::made(3, State::Ready, 200).nesting, MAX_NESTING);
    }
}
