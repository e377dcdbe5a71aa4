// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor's own memory: the private pool, and tables in it.
//!
//! EL2 maps itself, the pool, the partitions' RAM and the devices that it drives at their own
//! physical addresses; so a physical address is also a pointer.

use crate::sync::Lock;
use buddy_system_allocator::Heap;
use core::alloc::Layout;
use core::sync::atomic::{AtomicU64, Ordering};
use firebreak_abi::{PAGE_SIZE_BYTES, Pa, PaRange, VmId};
use firebreak_arch::{cache, sysreg, timer};
use firebreak_paging::Frames;
use firebreak_vm::{FrameMap, FrameUse};

/// Orders of the buddy allocator: blocks up to 2^31 bytes, more than a pool ever holds.
const ORDERS: usize = 32;

/// Frames of the private pool.
const POOL_FRAMES: usize = (POOL_BYTES / PAGE_SIZE_BYTES) as usize;
/// Bytes of the private pool: stage-2 tables, PE blocks, splits of retired pages.
pub(crate) const POOL_BYTES: u64 = 0x10_0000;

/// The private pool. Nothing that may be poisoned by a guest's memory is ever in it.
pub(crate) static POOL: Lock<Pool> = Lock::new(Pool {
    heap: Heap::new(),
    is_settled: false,
});

/// What each frame of the pool is used for; changed under the lock of [`POOL`].
static FRAMES: FrameMap<POOL_FRAMES> = FrameMap::new();
/// Where the pool starts; written once at boot.
static POOL_START: AtomicU64 = AtomicU64::new(0);

/// Pages for tables, stacks and PE blocks.
///
/// While boot builds what is of any size, a buddy allocator hands pages out. It keeps its lists in
/// the free pages themselves, which would make it read a page that has gone bad; so when boot is
/// done, what is left goes into [`FRAMES`], which touches no page, and the rest comes from there.
pub(crate) struct Pool {
    heap: Heap<ORDERS>,
    is_settled: bool,
}

impl Pool {
    /// Gives the pool its memory.
    ///
    /// # Safety
    ///
    /// The range must be mapped, writable, unused, and never used otherwise again.
    pub(crate) unsafe fn add(&mut self, range: PaRange) {
        POOL_START.store(range.start.get(), Ordering::Release);
        // SAFETY: the caller's claim.
        unsafe {
            self.heap
                .init(range.start.get() as usize, range.len_bytes as usize);
        }
    }

    /// Takes pages at boot, contiguous and aligned to their common size, with anything in them.
    #[inline(never)]
    pub(crate) fn pages(&mut self, count: usize) -> Option<Pa> {
        let bytes = count.checked_mul(PAGE_SIZE_BYTES as usize)?;
        let layout = Layout::from_size_align(bytes, bytes.next_power_of_two()).ok()?;
        let start = self.heap.alloc(layout).ok()?;
        Some(Pa::new(start.as_ptr().expose_provenance() as u64))
    }

    /// Ends boot: what nobody has taken becomes single frames.
    pub(crate) fn settle(&mut self) {
        self.is_settled = true;
        // By the largest blocks that are left, as each costs a walk through the heap.
        for order in (0..=LARGEST_ORDER).rev() {
            while let Some(first) = self.pages(1 << order).and_then(frame_of) {
                (first..first + (1 << order)).for_each(|index| FRAMES.free(index));
            }
        }
    }

    /// Lends the pool to the tables of a partition.
    pub(crate) fn tables_of(&mut self, vm: VmId) -> Tables<'_> {
        Tables { pool: self, vm }
    }

    /// Gives a partition's tables back. Frames that went bad under them are not used again.
    ///
    /// # Safety
    ///
    /// No PE may walk these tables any more, nor have anything of them cached.
    pub(crate) unsafe fn release_tables(&mut self, vm: VmId) {
        FRAMES.release_tables(vm);
    }

    /// Takes a bad frame out of use, and returns what it was used for until now. A table stays
    /// one until [`release_tables`](Self::release_tables).
    pub(crate) fn retire(&mut self, pa: Pa) -> Option<FrameUse> {
        frame_of(pa).map(|index| FRAMES.retire(index))
    }
}

/// The largest block that [`Pool::settle`] asks for at once, as a power of two of pages.
const LARGEST_ORDER: usize = 9;

/// Says what the frame of an address in the pool is used for. From any context.
pub(crate) fn use_of(pa: Pa) -> Option<FrameUse> {
    frame_of(pa).map(|index| FRAMES.use_of(index))
}

/// Counts the frames of the pool whose use fits.
pub(crate) fn frames_that(fits: impl Fn(FrameUse) -> bool) -> u64 {
    let uses = (0..POOL_FRAMES).map(|index| FRAMES.use_of(index));
    uses.filter(|one| fits(*one)).count() as u64
}

/// Says whether a frame under a partition's tables has had an error.
pub(crate) fn has_worn_tables(vm: VmId) -> bool {
    FRAMES.has_worn_tables(vm)
}

fn frame_of(pa: Pa) -> Option<usize> {
    let offset = pa.get().checked_sub(POOL_START.load(Ordering::Acquire))?;
    let index = usize::try_from(offset / PAGE_SIZE_BYTES).ok()?;
    (index < POOL_FRAMES).then_some(index)
}

/// The pool, as memory for one partition's stage-2 tables.
pub(crate) struct Tables<'a> {
    pool: &'a mut Pool,
    vm: VmId,
}

impl Frames for Tables<'_> {
    fn alloc_zeroed(&mut self, count_contiguous: usize) -> Option<Pa> {
        let start = if self.pool.is_settled {
            let base = POOL_START.load(Ordering::Acquire);
            let first = FRAMES.take_for_table(count_contiguous, Pa::new(base), self.vm)?;
            Pa::new(base + first as u64 * PAGE_SIZE_BYTES)
        } else {
            let start = self.pool.pages(count_contiguous)?;
            let first = frame_of(start)?;
            for index in first..first + count_contiguous {
                FRAMES.note_table(index, self.vm);
            }
            start
        };
        let page = core::ptr::with_exposed_provenance_mut::<u8>(start.get() as usize);
        // SAFETY: the allocator, or the map of frames, has just given these bytes away.
        unsafe { page.write_bytes(0, PAGE_SIZE_BYTES as usize * count_contiguous) };
        Some(start)
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        read_entry(table, index)
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        write_entry(table, index, descriptor);
    }
}

/// Pages handed out from a range in order, while there is no MMU and thus no lock.
pub(crate) struct EarlyFrames {
    range: PaRange,
    used_bytes: u64,
}

impl EarlyFrames {
    /// Makes an allocator over an unused range, which it leaves to its user for ever.
    ///
    /// # Safety
    ///
    /// The range must be RAM that nobody else uses.
    pub(crate) const unsafe fn new(range: PaRange) -> Self {
        Self {
            range,
            used_bytes: 0,
        }
    }

    /// What has been handed out.
    pub(crate) const fn used(&self) -> PaRange {
        PaRange {
            start: self.range.start,
            len_bytes: self.used_bytes,
        }
    }
}

impl Frames for EarlyFrames {
    fn alloc_zeroed(&mut self, count_contiguous: usize) -> Option<Pa> {
        let bytes = PAGE_SIZE_BYTES * count_contiguous as u64;
        let free = self.range.start.get() + self.used_bytes;
        let start = free.next_multiple_of(bytes);
        let used_bytes = start + bytes - self.range.start.get();
        if used_bytes > self.range.len_bytes {
            return None;
        }
        self.used_bytes = used_bytes;
        let page = core::ptr::with_exposed_provenance_mut::<u8>(start as usize);
        // SAFETY: inside the range that `new` was given, and not handed out before.
        unsafe { page.write_bytes(0, bytes as usize) };
        Some(Pa::new(start))
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        read_entry(table, index)
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        write_entry(table, index, descriptor);
    }
}

fn entry(table: Pa, index: usize) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut::<u64>(table.get() as usize + 8 * (index & 511))
}

fn read_entry(table: Pa, index: usize) -> u64 {
    // SAFETY: tables come from one of the two allocators above and stay theirs; a walker of
    // another PE may read beside us, hence volatile.
    unsafe { entry(table, index).read_volatile() }
}

fn write_entry(table: Pa, index: usize, descriptor: u64) {
    // SAFETY: as in `read_entry`; edits of live tables go through a plan instead.
    unsafe { entry(table, index).write_volatile(descriptor) }
}

/// Bytes that EL2 moves between two promises to the timer.
const CHUNK_BYTES: u64 = 0x1_0000;
/// How far ahead the promise lies.
const CHUNK_LIMIT_US: u64 = 100;

/// Keeps a timer deadline in sight during long work, and takes it away at the end.
///
/// The interrupt stays pending until the work is done: EL2 masks it. What counts is that there is
/// a deadline: under QEMU's `-icount`, a PE that has none before it may run on for half a second
/// of virtual time while another PE's timer interrupt waits for its turn.
pub(crate) struct Pace;

impl Pace {
    pub(crate) fn step() -> Self {
        let later = sysreg::cntfrq_el0() * CHUNK_LIMIT_US / 1_000_000;
        timer::arm(sysreg::cntpct_el0() + later);
        Self
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        timer::disarm();
    }
}

/// A page of a partition's memory turned out to be bad while EL2 wrote to it. The error is in this
/// PE's queue: once that is drained, the page is retired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadPage;

unsafe extern "C" {
    /// Writes to a guest's memory, without a source whole pages; 0 when it is done, 1 when an SEA
    /// ended it (`vectors.S`).
    fn firebreak_guest_write(to: u64, from: u64, len_bytes: u64) -> u64;
}

/// Copies bytes into a partition's memory.
///
/// # Errors
///
/// [`BadPage`], with part of it written.
///
/// # Safety
///
/// `to` must be RAM of a partition none of whose vCPUs runs, mapped at EL2; `from` must be
/// readable and must not overlap it. The caller re-arms this PE's timer if it has deadlines.
pub(crate) unsafe fn copy_to_guest(to: Pa, from: Pa, len_bytes: u64) -> Result<(), BadPage> {
    // SAFETY: the caller's claim.
    unsafe { write(to, Some(from), len_bytes) }
}

/// Fills a partition's memory with zeros.
///
/// # Errors
///
/// [`BadPage`], with part of it written.
///
/// # Safety
///
/// As for [`copy_to_guest`]; the range is whole pages, none of them retired.
pub(crate) unsafe fn scrub(range: PaRange) -> Result<(), BadPage> {
    // SAFETY: the caller's claim.
    unsafe { write(range.start, None, range.len_bytes) }
}

/// Does both, in steps that keep a deadline in sight; without a source it writes zeros.
///
/// # Safety
///
/// As for [`copy_to_guest`].
unsafe fn write(to: Pa, from: Option<Pa>, len_bytes: u64) -> Result<(), BadPage> {
    let mut done = 0;
    while done < len_bytes {
        let _pace = Pace::step();
        let chunk = CHUNK_BYTES.min(len_bytes - done);
        let start = to.get() + done;
        let source = from.map_or(0, |from| from.get() + done);
        // SAFETY: the caller's claim, for a part of the range.
        if unsafe { firebreak_guest_write(start, source, chunk) } != 0 {
            return Err(BadPage);
        }
        cache::publish_guest_memory(start, chunk);
        done += chunk;
    }
    Ok(())
}
