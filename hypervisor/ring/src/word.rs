// SPDX-License-Identifier: MIT OR Apache-2.0
//! A slot's word: lap, state, who made the record and who holds it, in 64 bits.
//!
//! One word, so that every step of a slot's life is one atomic step. All zeros is a free slot of
//! lap 0, so that a fresh queue is nothing but zeros.
//!
//! Bits: state \[2:0\], nesting level \[6:3\], PE that holds it \[14:7\], lap \[63:15\].

/// The deepest nesting level that is told apart; deeper ones count as this one.
pub const MAX_NESTING: u8 = 15;

/// State of a slot. The numbers are those of the word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Nobody's. The lap is the one that it may be reserved for.
    Free = 0,
    /// A producer's, from its reservation until it publishes or is given up for lost.
    Reserved = 1,
    /// Published, nobody's.
    Ready = 2,
    /// A consumer's, until it is finished or its PE is given up for lost.
    Claimed = 3,
    /// A reader's that will give it back, of the crash path.
    Peeked = 4,
    /// As `Claimed`, by a consumer that works on the value in its place.
    Held = 5,
}

/// The lap of a word that is not decoded.
#[inline]
pub(crate) const fn lap_of(raw: u64) -> u64 {
    raw >> SlotWord::LAP_SHIFT
}

/// Says whether a word that is not decoded has this state.
#[inline]
pub(crate) const fn has_state(raw: u64, state: State) -> bool {
    raw & SlotWord::STATE_MASK == state as u64
}

/// The same record in another state, held by somebody, of a word that is not decoded.
#[inline]
pub(crate) const fn held(raw: u64, state: State, holder: u8) -> u64 {
    raw & !(SlotWord::STATE_MASK | 0xff << SlotWord::HOLDER_SHIFT)
        | state as u64
        | (holder as u64) << SlotWord::HOLDER_SHIFT
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
    const STATE_MASK: u64 = 7;
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
        self.state as u64
            | ((self.nesting as u64) << Self::NESTING_SHIFT)
            | ((self.holder as u64) << Self::HOLDER_SHIFT)
            | (self.lap << Self::LAP_SHIFT)
    }

    #[inline]
    pub(crate) const fn unpack(raw: u64) -> Self {
        let state = match raw & Self::STATE_MASK {
            0 => State::Free,
            1 => State::Reserved,
            2 => State::Ready,
            3 => State::Claimed,
            4 => State::Peeked,
            // Only `pack` makes words, so the rest is 5.
            _ => State::Held,
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
            State::Held,
        ] {
            for (lap, nesting, holder) in [(0, 0, 0), (1, 15, 255), ((1 << 49) - 1, 7, 8)] {
                let word = SlotWord {
                    lap,
                    state,
                    nesting,
                    holder,
                };
                let raw = word.pack();
                assert_eq!(SlotWord::unpack(raw), word);
                assert_eq!(lap_of(raw), lap);
                assert!(has_state(raw, state));
                let given = SlotWord {
                    state: State::Peeked,
                    holder: 3,
                    ..word
                };
                assert_eq!(held(raw, State::Peeked, 3), given.pack());
            }
        }
        assert_eq!(SlotWord::made(3, State::Ready, 200).nesting, MAX_NESTING);
    }
}
