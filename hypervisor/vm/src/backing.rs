// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which physical page stands behind each page of a partition's RAM.
//!
//! All of it is one range, but for the pages that were [retired](crate::retired): behind each of
//! those stands a spare from the partition's own range of spares, or nothing. A spare is lent
//! while the partition is down, and stays where it is from then on, through all restarts; if it
//! goes bad itself, the next one takes its place.

use firebreak_abi::{Ipa, PAGE_SIZE_BYTES, Pa, PaRange};

use crate::retired::{RetiredPages, RetiredPagesFull};

/// The most spare pages of one partition.
pub const MAX_SPARES: usize = 64;

/// No page stands in front of a spare.
const IDLE: u64 = u64::MAX;

/// A partition's RAM, page by page. `N` pages can be retired.
#[derive(Clone, Debug)]
pub struct Backing<const N: usize> {
    first: Ipa,
    ram: PaRange,
    retired: RetiredPages<N>,
    spares: PaRange,
    /// The page that each spare stands behind, or [`IDLE`].
    in_front: [u64; MAX_SPARES],
    /// One bit for each spare that went bad.
    bad: u64,
}

impl<const N: usize> Backing<N> {
    /// Makes the layout of a partition none of whose pages has gone bad. Of `spares` the first
    /// [`MAX_SPARES`] pages are used.
    pub const fn new(first: Ipa, ram: PaRange, spares: PaRange) -> Self {
        Self {
            first,
            ram,
            retired: RetiredPages::new(),
            spares,
            in_front: [IDLE; MAX_SPARES],
            bad: 0,
        }
    }

    /// Returns the pages that were retired.
    pub const fn retired(&self) -> &RetiredPages<N> {
        &self.retired
    }

    /// Returns where the partition sees a physical address, or saw it before it was retired; none
    /// if it never did.
    pub fn ipa_of(&self, pa: Pa) -> Option<Ipa> {
        if self.ram.contains(pa) {
            return Some(Ipa::new(pa.get() - self.ram.start.get() + self.first.get()));
        }
        let front = *self.in_front.get(self.spare_at(pa)?)?;
        (front != IDLE).then(|| Ipa::new(front + pa.get() % PAGE_SIZE_BYTES))
    }

    /// Returns the physical address behind one of the partition's; none in a hole, and outside of
    /// its RAM.
    pub fn pa_of(&self, ipa: Ipa) -> Option<Pa> {
        self.run_at(ipa, 1).map(|run| run.start)
    }

    /// Returns the run of physical memory behind an address, up to the next page that stands
    /// elsewhere, and `most_bytes` at most; none in a hole, and outside of the RAM.
    pub fn run_at(&self, ipa: Ipa, most_bytes: u64) -> Option<PaRange> {
        let offset = ipa.get().checked_sub(self.first.get())?;
        let left = self.ram.len_bytes.checked_sub(offset)?;
        if left == 0 {
            return None;
        }
        if self.retired.contains_ipa(ipa) {
            let inside = ipa.get() % PAGE_SIZE_BYTES;
            let spare = self.spare_behind(ipa.page())?;
            let len = most_bytes.min(PAGE_SIZE_BYTES - inside);
            return Some(PaRange::new(spare.get() + inside, len));
        }
        let retired = self.retired.as_slice().iter().map(|page| page.ipa.get());
        let next = retired.filter(|page| *page > ipa.get()).min();
        let whole = next.map_or(left, |page| left.min(page - ipa.get()));
        let start = self.ram.start.get() + offset;
        Some(PaRange::new(start, whole.min(most_bytes)))
    }

    /// Says whether no page stands behind an address of its RAM.
    pub fn is_hole(&self, ipa: Ipa) -> bool {
        self.retired.contains_ipa(ipa) && self.spare_behind(ipa.page()).is_none()
    }

    /// Returns the holes of its RAM, each once, in the order in which they came to be.
    pub fn holes(&self) -> impl Iterator<Item = Ipa> + '_ {
        let pages = self.retired.as_slice();
        let first = |index: usize, ipa: Ipa| !pages.iter().take(index).any(|one| one.ipa == ipa);
        let each = pages.iter().enumerate();
        let once = each.filter(move |(index, page)| first(*index, page.ipa));
        once.map(|(_, page)| page.ipa)
            .filter(|ipa| self.spare_behind(*ipa).is_none())
    }

    /// Retires the page of a physical address for good; says whether that is new. A spare that
    /// nobody uses is only struck out.
    ///
    /// # Errors
    ///
    /// [`RetiredPagesFull`] when no more pages can be remembered. A spare is struck out even then.
    pub fn retire(&mut self, pa: Pa) -> Result<bool, RetiredPagesFull> {
        let mut is_new = false;
        if let Some(spare) = self.spare_at(pa) {
            is_new = self.bad >> spare & 1 == 0;
            self.bad |= 1 << spare;
        }
        match self.ipa_of(pa) {
            Some(ipa) => self.retired.insert(ipa, pa),
            None => Ok(is_new),
        }
    }

    /// Notes that the partition cannot reach a retired page any more; says whether that is new.
    pub fn mark_cut_off(&mut self, pa: Pa) -> bool {
        self.retired.mark_cut_off(pa)
    }

    /// Puts a good spare behind the first hole, and says which; none if there is no hole, or no
    /// spare. Only while the partition is down: its devicetree has to say the same.
    pub fn lend(&mut self) -> Option<(Ipa, Pa)> {
        let hole = self.holes().next()?;
        let bad = self.bad;
        let spares = (0..self.spare_count()).zip(&mut self.in_front);
        let mut idle = spares.filter(|(spare, front)| bad >> spare & 1 == 0 && **front == IDLE);
        let (spare, front) = idle.next()?;
        *front = hole.get();
        Some((hole, self.spare(spare)))
    }

    /// Returns the spares in use, with the pages that they stand behind.
    pub fn lent(&self) -> impl Iterator<Item = (Ipa, Pa)> + '_ {
        let spares = (0..self.spare_count()).zip(&self.in_front);
        let used = spares.filter(|(spare, front)| self.is_good(*spare) && **front != IDLE);
        used.map(|(spare, front)| (Ipa::new(*front), self.spare(spare)))
    }

    /// Returns one bit for each spare that stands behind a page, or did until it went bad.
    pub fn lent_mask(&self) -> u64 {
        let spares = self.in_front.iter().enumerate();
        let lent = spares.filter(|(_, front)| **front != IDLE);
        lent.fold(0, |mask, (spare, _)| mask | 1 << spare)
    }

    /// Returns how many good spares nobody uses.
    pub fn spares_left(&self) -> usize {
        let spares = (0..self.spare_count()).zip(&self.in_front);
        spares
            .filter(|(spare, front)| self.is_good(*spare) && **front == IDLE)
            .count()
    }

    fn is_good(&self, spare: usize) -> bool {
        self.bad >> spare & 1 == 0
    }

    fn spare_behind(&self, page: Ipa) -> Option<Pa> {
        let mut lent = self.lent();
        lent.find(|(ipa, _)| *ipa == page).map(|(_, spare)| spare)
    }

    fn spare_count(&self) -> usize {
        MAX_SPARES.min((self.spares.len_bytes / PAGE_SIZE_BYTES) as usize)
    }

    fn spare_at(&self, pa: Pa) -> Option<usize> {
        spare_number(self.spares, pa).filter(|spare| *spare < self.spare_count())
    }

    fn spare(&self, number: usize) -> Pa {
        Pa::new(self.spares.start.get() + number as u64 * PAGE_SIZE_BYTES)
    }
}

/// Returns the number of the spare that an address lies in: its bit in
/// [`Backing::lent_mask`].
pub fn spare_number(spares: PaRange, pa: Pa) -> Option<usize> {
    let offset = pa.get().checked_sub(spares.start.get())?;
    let is_inside = spares.contains(pa) && offset < MAX_SPARES as u64 * PAGE_SIZE_BYTES;
    is_inside.then_some((offset / PAGE_SIZE_BYTES) as usize)
}
