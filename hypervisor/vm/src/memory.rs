// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where each partition's RAM goes.
//!
//! First fit, in the order of the requests, at multiples of 2 MiB, so that stage 2 needs no
//! pages; a request of 1 GiB or more gets a multiple of 1 GiB if there is one. The host's
//! checker and the hypervisor run this same function, so what `firebreak check` accepts fits.

use core::fmt;

use firebreak_abi::{Pa, PaRange};
use heapless::Vec;

/// Least alignment of a partition's RAM, in bytes: a level 2 block.
pub const BLOCK_BYTES: u64 = 2 << 20;
/// Preferred alignment of large RAM, in bytes: a level 1 block.
pub const LARGE_BLOCK_BYTES: u64 = 1 << 30;
/// The most separate free ranges that a plan can handle, those between placed requests included.
pub const MAX_FREE_RANGES: usize = 64;

/// RAM that a partition wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// How much, in bytes: a multiple of 2 MiB.
    pub len_bytes: u64,
    /// Least alignment in bytes: a power of two. Anything below 2 MiB means 2 MiB.
    pub align_bytes: u64,
}

/// Why the requests cannot all be met. `index` counts requests from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// The length is zero or no multiple of 2 MiB.
    BadLength {
        /// Which request.
        index: usize,
        /// Its length.
        len_bytes: u64,
    },
    /// The alignment is no power of two.
    BadAlignment {
        /// Which request.
        index: usize,
        /// Its alignment.
        align_bytes: u64,
    },
    /// No free range is long enough.
    DoesNotFit {
        /// Which request.
        index: usize,
        /// Its length.
        len_bytes: u64,
        /// Longest stretch that is left at that alignment, in bytes.
        longest_bytes: u64,
    },
    /// More requests than the caller has room for, or more free ranges than
    /// [`MAX_FREE_RANGES`].
    TooMany,
    /// Two free ranges overlap, or one does not end inside the address space.
    BadFree {
        /// The culprit.
        range: PaRange,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadLength { index, len_bytes } => write!(
                f,
                "request {index}: {len_bytes:#x} bytes is not a positive multiple of 2 MiB"
            ),
            Self::BadAlignment { index, align_bytes } => {
                write!(
                    f,
                    "request {index}: alignment {align_bytes:#x} is not a power of two"
                )
            }
            Self::DoesNotFit {
                index,
                len_bytes,
                longest_bytes,
            } => write!(
                f,
                "request {index}: no {} MiB in one piece are free, {} MiB at most",
                len_bytes >> 20,
                longest_bytes >> 20
            ),
            Self::TooMany => write!(f, "too many requests or free ranges"),
            Self::BadFree { range } => write!(
                f,
                "free range {:#x}+{:#x} overlaps another or is too long",
                range.start, range.len_bytes
            ),
        }
    }
}

impl core::error::Error for PlanError {}

type Free = Vec<PaRange, MAX_FREE_RANGES>;

/// Places the requests, in order, into the free ranges (in any order): answer `n` is for
/// request `n`.
///
/// # Errors
///
/// [`PlanError`] names the first request that does not fit, or the range that lies.
pub fn plan_memory<const N: usize>(
    free: &[PaRange],
    requests: &[Request],
) -> Result<Vec<PaRange, N>, PlanError> {
    let mut free = sorted(free)?;
    let mut plan = Vec::new();
    for (index, &request) in requests.iter().enumerate() {
        let align_bytes = check(index, request)?;
        let large = request.len_bytes >= LARGE_BLOCK_BYTES && align_bytes < LARGE_BLOCK_BYTES;
        let found = large
            .then(|| first_fit(&free, request.len_bytes, LARGE_BLOCK_BYTES))
            .flatten()
            .or_else(|| first_fit(&free, request.len_bytes, align_bytes));
        let Some((at, range)) = found else {
            return Err(PlanError::DoesNotFit {
                index,
                len_bytes: request.len_bytes,
                longest_bytes: longest(&free, align_bytes),
            });
        };
        carve(&mut free, at, range)?;
        plan.push(range).map_err(|_| PlanError::TooMany)?;
    }
    Ok(plan)
}

/// Checks a request and returns the alignment that it gets.
fn check(index: usize, request: Request) -> Result<u64, PlanError> {
    let Request {
        len_bytes,
        align_bytes,
    } = request;
    if len_bytes == 0 || len_bytes & (BLOCK_BYTES - 1) != 0 {
        return Err(PlanError::BadLength { index, len_bytes });
    }
    if !align_bytes.is_power_of_two() {
        return Err(PlanError::BadAlignment { index, align_bytes });
    }
    Ok(align_bytes.max(BLOCK_BYTES))
}

/// Copies the free ranges, sorted by address; those that touch become one.
fn sorted(free: &[PaRange]) -> Result<Free, PlanError> {
    let mut ranges = Free::new();
    for &range in free.iter().filter(|range| range.len_bytes != 0) {
        if range.start.checked_add(range.len_bytes).is_none() {
            return Err(PlanError::BadFree { range });
        }
        ranges.push(range).map_err(|_| PlanError::TooMany)?;
    }
    sort(&mut ranges);
    let mut merged = Free::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end() => return Err(PlanError::BadFree { range }),
            Some(last) if range.start == last.end() => last.len_bytes += range.len_bytes,
            _ => merged.push(range).map_err(|_| PlanError::TooMany)?,
        }
    }
    Ok(merged)
}

/// Sorts by address. There are few, once; the library's sort is ten times as long as this.
fn sort(ranges: &mut [PaRange]) {
    for end in 1..ranges.len() {
        for at in (1..=end).rev() {
            let Some([before, behind]) = ranges.get_mut(at - 1..=at) else {
                return;
            };
            if before.start <= behind.start {
                break;
            }
            core::mem::swap(before, behind);
        }
    }
}

/// Returns the aligned part of a range, if there is any.
fn aligned(range: PaRange, align_bytes: u64) -> Option<PaRange> {
    let mask = align_bytes - 1;
    let start = range.start.get().checked_add(mask)? & !mask;
    let len_bytes = range.end().get().checked_sub(start)?;
    Some(PaRange::new(start, len_bytes))
}

fn first_fit(free: &Free, len_bytes: u64, align_bytes: u64) -> Option<(usize, PaRange)> {
    free.iter().enumerate().find_map(|(at, &range)| {
        let fit = aligned(range, align_bytes).filter(|fit| fit.len_bytes >= len_bytes)?;
        Some((
            at,
            PaRange {
                start: fit.start,
                len_bytes,
            },
        ))
    })
}

fn longest(free: &Free, align_bytes: u64) -> u64 {
    let lengths = free.iter().filter_map(|&range| aligned(range, align_bytes));
    lengths.map(|range| range.len_bytes).max().unwrap_or(0)
}

/// Takes `used` out of free range number `at`, leaving what is before and behind it.
fn carve(free: &mut Free, at: usize, used: PaRange) -> Result<(), PlanError> {
    if at >= free.len() {
        return Err(PlanError::TooMany);
    }
    let range = free.remove(at);
    let behind = gap(used.end(), range.end());
    let before = gap(range.start, used.start);
    for rest in [behind, before]
        .into_iter()
        .filter(|rest| rest.len_bytes != 0)
    {
        free.insert(at, rest).map_err(|_| PlanError::TooMany)?;
    }
    Ok(())
}

/// Returns what lies between two addresses.
const fn gap(start: Pa, end: Pa) -> PaRange {
    PaRange {
        start,
        len_bytes: end.get().saturating_sub(start.get()),
    }
}
