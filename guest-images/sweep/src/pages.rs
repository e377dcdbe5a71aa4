// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that an error may take from the partition: both vCPUs look which of them are gone.

use firebreak_abi::guest_map::RAM;
use firebreak_guest_rt::exception::{EC_DATA_ABORT, FSC_EXTERNAL};
use firebreak_guest_rt::{Frame, println};

/// As `cargo xtask sweep` chooses them: the first, behind what this program needs; each in another
/// 2 MiB, and at another place in it, so that a TLB has room for all; as many as a partition may lose.
const FIRST: u64 = 6 << 20;
const STRIDE_BYTES: u64 = (2 << 20) + (4 << 10);
const COUNT: u64 = 62;

unsafe extern "C" {
    safe fn sweep_is_gone(address: u64) -> u64;
    fn sweep_peek();
    fn sweep_gone();
    fn sweep_touch();
    fn sweep_done_touch();
}

/// Says whether an exception is what a load from a page that is gone meets, and goes on where that load
/// says so.
pub(crate) fn is_expected(frame: &mut Frame) -> bool {
    let places = [
        (sweep_peek as *const (), sweep_gone as *const ()),
        (sweep_touch as *const (), sweep_done_touch as *const ()),
    ];
    if frame.class() != EC_DATA_ABORT || frame.fault_status() != FSC_EXTERNAL {
        return false;
    }
    let place = places.iter().find(|(at, _)| *at as u64 == frame.elr);
    if let Some((_, next)) = place {
        frame.elr = *next as u64;
    }
    place.is_some()
}

/// The pages from one on.
#[derive(Clone, Copy)]
pub(crate) struct Pages {
    first: u64,
}

impl Pages {
    /// Those behind all that are gone.
    pub(crate) fn new() -> Self {
        let mut pages = Self { first: 0 };
        while let Some(last) = pages.gone().last() {
            pages.first = last + 1;
        }
        pages
    }

    /// Those from the one with this number on.
    pub(crate) const fn from(first: u64) -> Self {
        Self { first }
    }

    /// Returns the number of the first.
    pub(crate) const fn first(self) -> u64 {
        self.first
    }

    /// Returns where they begin, where they end, and how far they are apart.
    pub(crate) fn range(self) -> [u64; 3] {
        let page = |index| RAM.get() + FIRST + index * STRIDE_BYTES;
        [page(self.first), page(COUNT), STRIDE_BYTES]
    }

    /// Says whether there is one left to lose.
    pub(crate) const fn is_empty(self) -> bool {
        self.first >= COUNT
    }

    /// Looks which of them are gone for the vCPU that runs this.
    fn gone(self) -> impl Iterator<Item = u64> {
        let [start, _, stride] = Self { first: 0 }.range();
        (self.first..COUNT).filter(move |index| sweep_is_gone(start + index * stride) != 0)
    }

    /// Returns a word in which each page that is gone for this vCPU is a bit.
    pub(crate) fn look(self) -> u64 {
        self.gone().fold(0, |mask, index| mask | 1 << index)
    }

    /// Goes on behind the page that went in a round, if one did. `mine` and `other`: what each vCPU saw
    /// of it. Says what they saw; both must have lost the same, and no more than one. Returns the
    /// differences.
    pub(crate) fn follow(&mut self, mine: u64, other: u64, round: u64) -> u64 {
        if mine != other || mine.count_ones() > 1 {
            println!("sweep: bad round={round} pages gone={mine:#x} for vCPU 1={other:#x}");
        } else if mine != 0 {
            println!("sweep: gone page={} round={round}", mine.trailing_zeros());
        }
        if mine | other != 0 {
            self.first = u64::from((mine | other).ilog2()) + 1;
        }
        u64::from(mine != other)
    }
}
