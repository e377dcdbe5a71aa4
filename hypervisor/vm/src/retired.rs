// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pages that a partition lost to hardware errors.
//!
//! The list outlives the partition's restarts: memory that went bad is never mapped, scrubbed or
//! handed out again while the machine runs.

use core::fmt;

use firebreak_abi::{Ipa, Pa};
use heapless::Vec;

/// One page that was taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetiredPage {
    /// Where the partition saw it.
    pub ipa: Ipa,
    /// Where it is.
    pub pa: Pa,
}

/// No more pages can be remembered: the partition has to stop for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetiredPagesFull {
    /// The page that went bad.
    pub page: RetiredPage,
    /// How many went bad before.
    pub capacity: usize,
}

impl fmt::Display for RetiredPagesFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "page {:#x} (physical {:#x}) went bad after {} others: too many to remember",
            self.page.ipa, self.page.pa, self.capacity
        )
    }
}

impl core::error::Error for RetiredPagesFull {}

/// At most `N` retired pages of one partition.
#[derive(Clone, Debug, Default)]
pub struct RetiredPages<const N: usize> {
    pages: Vec<RetiredPage, N>,
    /// Of `pages`, those that the partition cannot reach any more.
    cut_off: Vec<Pa, N>,
}

impl<const N: usize> RetiredPages<N> {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self {
            pages: Vec::new(),
            cut_off: Vec::new(),
        }
    }

    /// Remembers the page of an address; says whether it is new.
    ///
    /// # Errors
    ///
    /// [`RetiredPagesFull`] when there is no room; the list is unchanged then.
    pub fn insert(&mut self, ipa: Ipa, pa: Pa) -> Result<bool, RetiredPagesFull> {
        let page = RetiredPage {
            ipa: ipa.page(),
            pa: pa.page(),
        };
        if self.contains_pa(pa) {
            return Ok(false);
        }
        match self.pages.push(page) {
            Ok(()) => Ok(true),
            Err(page) => Err(RetiredPagesFull { page, capacity: N }),
        }
    }

    /// Notes that the partition cannot reach a retired page any more; says whether that is new.
    pub fn mark_cut_off(&mut self, pa: Pa) -> bool {
        let page = pa.page();
        self.contains_pa(page) && !self.cut_off.contains(&page) && self.cut_off.push(page).is_ok()
    }

    /// Says whether the page that the partition sees at an address was retired.
    pub fn contains_ipa(&self, ipa: Ipa) -> bool {
        self.pages.iter().any(|one| one.ipa == ipa.page())
    }

    /// Says whether the physical page of an address was retired.
    pub fn contains_pa(&self, pa: Pa) -> bool {
        self.pages.iter().any(|one| one.pa == pa.page())
    }

    /// Returns the pages, in the order in which they went bad.
    pub fn as_slice(&self) -> &[RetiredPage] {
        &self.pages
    }
}
