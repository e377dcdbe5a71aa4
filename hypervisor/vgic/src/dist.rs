// SPDX-License-Identifier: MIT OR Apache-2.0
//! State that all vCPUs of a partition share: the distributor, every redistributor's words, the inboxes.
//!
//! Everything is `&self` and atomic. A function that makes work for a vCPU posts its inbox and
//! returns the vCPU in a mask; a post is always behind the change that it announces.
//!
//! Where two PEs each write one thing and then read the other's (a pending bit and the route, an
//! enable bit and the owner), a sequentially consistent fence stands between the two on both
//! sides, so that at least one of them sees what the other did and posts.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};

use crate::effects::IntidIter;
use crate::word::{IrqWord, bit};
use crate::{MAX_VCPUS, SPIS, WORDS};

/// SGIs are edge-triggered, PPIs level-sensitive.
const PRIVATE_EDGE: u32 = 0x0000_ffff;
/// Both `GICD_CTLR` group enables.
pub(crate) const CTLR_GROUPS: u32 = 0b11;

/// Attention bit: look for new work in word `w`.
pub(crate) const fn attention_flush(word: usize) -> u32 {
    1 << (word & 7)
}

/// Attention bit: list registers that hold INTIDs of word `w` may be stale.
pub(crate) const fn attention_recheck(word: usize) -> u32 {
    0x100 << (word & 7)
}

/// Words that an inbox is about, one bit each.
pub(crate) const fn attention_words(attention: u32) -> u32 {
    (attention | attention >> 8) & ((1 << WORDS) - 1)
}

/// What another PE wants done with interrupts that may stand in a vCPU's list registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Look again: enable, route, priority or line changed.
    Recheck,
    /// The guest cleared pending.
    ClearPending,
    /// The guest set active.
    SetActive,
    /// The guest cleared active.
    ClearActive,
    /// Another vCPU is to take an SPI that this one has claimed.
    HandOver,
}

/// One vCPU's part: its redistributor's words and its inbox.
///
/// Aligned so that the vCPU's number is scaled by a shift, and no two vCPUs share a cache line.
#[repr(align(256))]
pub(crate) struct VcpuShared {
    pub(crate) private: IrqWord,
    /// `GICR_WAKER.ProcessorSleep`.
    pub(crate) asleep: AtomicU32,
    /// Which words need a look; see [`attention_flush`] and [`attention_recheck`].
    pub(crate) attention: AtomicU32,
    pub(crate) clear_pending: [AtomicU32; WORDS],
    pub(crate) set_active: [AtomicU32; WORDS],
    pub(crate) clear_active: [AtomicU32; WORDS],
    pub(crate) hand_over: [AtomicU32; WORDS],
    /// SPIs whose route is this vCPU; index 0 is unused.
    pub(crate) routed: [AtomicU32; WORDS],
}

impl VcpuShared {
    const fn new() -> Self {
        Self {
            private: IrqWord::new(PRIVATE_EDGE),
            asleep: AtomicU32::new(1),
            attention: AtomicU32::new(0),
            clear_pending: [const { AtomicU32::new(0) }; WORDS],
            set_active: [const { AtomicU32::new(0) }; WORDS],
            clear_active: [const { AtomicU32::new(0) }; WORDS],
            hand_over: [const { AtomicU32::new(0) }; WORDS],
            routed: [const { AtomicU32::new(0) }; WORDS],
        }
    }

    fn reset(&self, routed: u32) {
        self.private.reset(PRIVATE_EDGE);
        self.asleep.store(1, Ordering::Relaxed);
        self.attention.store(0, Ordering::Relaxed);
        for word in self
            .clear_pending
            .iter()
            .chain(&self.set_active)
            .chain(&self.clear_active)
            .chain(&self.hand_over)
        {
            word.store(0, Ordering::Relaxed);
        }
        for word in &self.routed {
            word.store(routed, Ordering::Relaxed);
        }
    }

    /// Announces work; the change itself must stand already.
    #[inline]
    pub(crate) fn post(&self, attention: u32) {
        self.attention.fetch_or(attention, Ordering::AcqRel);
    }
}

/// Returns element `index` of a per-word array, or element 0 outside of it.
#[inline]
pub(crate) fn at<T>(array: &[T; WORDS], index: usize) -> &T {
    array.get(index).unwrap_or(&array[0])
}

/// The distributor of one partition, with the shared half of its redistributors.
///
/// Const-constructible, so it can stand in a `static`. [`Distributor::configure`] comes first.
pub struct Distributor {
    pub(crate) ctlr: AtomicU32,
    /// vCPUs that exist, one bit each.
    present: AtomicU32,
    spi: [IrqWord; WORDS - 1],
    /// vCPU + 1 that may have the SPI in a list register, 0 none.
    owner: [AtomicU8; SPIS],
    /// `GICD_IROUTER<n>[23:0]`.
    router: [AtomicU32; SPIS],
    vcpu: [VcpuShared; MAX_VCPUS],
}

impl Default for Distributor {
    fn default() -> Self {
        Self::new()
    }
}

impl Distributor {
    /// A distributor without vCPUs, all else as after a reset.
    pub const fn new() -> Self {
        Self {
            ctlr: AtomicU32::new(0),
            present: AtomicU32::new(0),
            spi: [const { IrqWord::new(0) }; WORDS - 1],
            owner: [const { AtomicU8::new(0) }; SPIS],
            router: [const { AtomicU32::new(0) }; SPIS],
            vcpu: [const { VcpuShared::new() }; MAX_VCPUS],
        }
    }

    /// Sets the number of vCPUs (1 to 8; more are cut to 8) and resets.
    pub fn configure(&self, vcpus: usize) {
        let count = vcpus.clamp(1, MAX_VCPUS);
        self.present.store((1 << count) - 1, Ordering::Release);
        self.reset();
    }

    /// Resets all that a guest can change. The hardware mapping stays.
    ///
    /// Only while no vCPU of the partition runs, and after [`VcpuGic::reset`](crate::VcpuGic::reset)
    /// on each PE, which deactivates the physical interrupts that the guest left active.
    pub fn reset(&self) {
        self.ctlr.store(0, Ordering::Relaxed);
        for word in &self.spi {
            word.reset(0);
        }
        for (owner, router) in self.owner.iter().zip(&self.router) {
            owner.store(0, Ordering::Relaxed);
            router.store(0, Ordering::Relaxed);
        }
        for (index, vcpu) in self.vcpu.iter().enumerate() {
            vcpu.reset(if index == 0 { u32::MAX } else { 0 });
        }
    }

    /// Says that a physical interrupt stands behind a private INTID (16 to 31) of every vCPU.
    pub fn map_private(&self, vintid: u32, pintid: u32) {
        if (16..32).contains(&vintid) {
            for vcpu in &self.vcpu {
                vcpu.private.map(vintid, pintid);
            }
        }
    }

    /// Says that a physical SPI stands behind a guest's SPI (32 to 159).
    pub fn map_spi(&self, vintid: u32, pintid: u32) {
        if is_spi(vintid) {
            self.spi_word((vintid >> 5) as usize).map(vintid, pintid);
        }
    }

    /// Returns the physical INTID behind a guest's INTID, `None` when there is none.
    pub fn physical_intid(&self, vcpu: u8, vintid: u32) -> Option<u32> {
        let word = self.word_of(vcpu, vintid)?;
        (word.hw.load(Ordering::Relaxed) & bit(vintid) != 0).then(|| word.pintid(vintid))
    }

    /// Returns whether the guest configured an INTID as edge-triggered.
    pub fn is_edge(&self, vcpu: u8, vintid: u32) -> bool {
        self.word_of(vcpu, vintid)
            .is_some_and(|word| word.edge.load(Ordering::Relaxed) & bit(vintid) != 0)
    }

    /// Returns whether the guest enabled an INTID (its group may still be off).
    pub fn is_enabled(&self, vcpu: u8, vintid: u32) -> bool {
        self.word_of(vcpu, vintid)
            .is_some_and(|word| word.enable.load(Ordering::Relaxed) & bit(vintid) != 0)
    }

    /// Counts the INTIDs that are enabled, and those that are pending, active or high, of all
    /// vCPUs together. What stands in list registers alone is not seen.
    pub fn counts(&self) -> (u32, u32) {
        let present = self.present.load(Ordering::Relaxed);
        let private = self
            .vcpu
            .iter()
            .enumerate()
            .filter(|(index, _)| present >> (index & 31) & 1 == 1)
            .map(|(_, vcpu)| &vcpu.private);
        let words = self.spi.iter().chain(private);
        words.fold((0, 0), |(enabled, raised), word| {
            let load = |bits: &AtomicU32| bits.load(Ordering::Relaxed);
            let up = load(&word.pending) | load(&word.active) | load(&word.line);
            (
                enabled + load(&word.enable).count_ones(),
                raised + up.count_ones(),
            )
        })
    }

    /// Returns the vCPU that an SPI is routed to, `None` when no such vCPU exists.
    pub fn route(&self, vintid: u32) -> Option<u8> {
        if !is_spi(vintid) {
            return None;
        }
        let affinity = self.router_cell(vintid).load(Ordering::Relaxed);
        let present = self.present.load(Ordering::Relaxed);
        (affinity < 8 && present >> affinity & 1 == 1).then_some((affinity & 7) as u8)
    }

    /// Returns the number of vCPUs.
    pub fn vcpus(&self) -> u32 {
        self.present.load(Ordering::Relaxed).count_ones()
    }

    /// Makes an edge arrive at an INTID from any PE: an SPI, or a private INTID of `vcpu`.
    ///
    /// Returns the vCPUs to kick, the caller's own included. An INTID that hardware stands behind
    /// counts as its physical interrupt, which then has to be active.
    pub fn pend(&self, vcpu: u8, vintid: u32) -> u8 {
        let Some(word) = self.word_of(vcpu, vintid) else {
            return 0;
        };
        word.pending.fetch_or(bit(vintid), Ordering::AcqRel);
        self.announce(vcpu, (vintid >> 5) as usize, bit(vintid))
    }

    /// Sets the line of an emulated device from any PE; `vcpu` counts for private INTIDs only.
    ///
    /// Returns the vCPUs to kick, the caller's own included.
    pub fn set_level(&self, vcpu: u8, vintid: u32, high: bool) -> u8 {
        let Some(word) = self.word_of(vcpu, vintid) else {
            return 0;
        };
        let mask = bit(vintid);
        let index = (vintid >> 5) as usize;
        if high {
            let was = word.line.fetch_or(mask, Ordering::AcqRel);
            if was & mask != 0 {
                return 0;
            }
            word.pending
                .fetch_or(mask & word.edge.load(Ordering::Relaxed), Ordering::AcqRel);
            return self.announce(vcpu, index, mask);
        }
        let was = word.line.fetch_and(!mask, Ordering::AcqRel);
        if was & mask == 0 {
            return 0;
        }
        self.request(vcpu, index, mask, Request::Recheck)
    }

    /// Returns whether a vCPU has an interrupt to take that is in no list register yet, or a
    /// posted inbox.
    pub fn has_work(&self, vcpu: u8) -> bool {
        let shared = self.shared(vcpu);
        let ctlr = self.ctlr.load(Ordering::Relaxed);
        shared.attention.load(Ordering::Acquire) != 0
            || (0..WORDS).any(|index| {
                let word = self.word(shared, index);
                word.raised() & word.ready(ctlr) & routed(shared, index) != 0
            })
    }

    /// Returns whether a vCPU exists.
    #[inline]
    pub(crate) fn exists(&self, vcpu: u8) -> bool {
        self.present().checked_shr(vcpu.into()).unwrap_or(0) & 1 == 1
    }

    /// Bits of the vCPUs that exist.
    #[inline]
    pub(crate) fn present(&self) -> u32 {
        self.present.load(Ordering::Relaxed)
    }

    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "eight elements, and the index is cut to three bits"
    )]
    pub(crate) const fn shared(&self, vcpu: u8) -> &VcpuShared {
        &self.vcpu[(vcpu & 7) as usize]
    }

    /// Word `index` of the SPIs (1 to 4).
    #[inline]
    pub(crate) fn spi_word(&self, index: usize) -> &IrqWord {
        self.spi
            .get(index.wrapping_sub(1) & 3)
            .unwrap_or(&self.spi[0])
    }

    /// Word `index` as a vCPU sees it: 0 its private one, else SPIs.
    #[inline]
    pub(crate) fn word<'a>(&'a self, shared: &'a VcpuShared, index: usize) -> &'a IrqWord {
        if index == 0 {
            &shared.private
        } else {
            self.spi_word(index)
        }
    }

    fn word_of(&self, vcpu: u8, vintid: u32) -> Option<&IrqWord> {
        ((vintid as usize) < crate::INTIDS)
            .then(|| self.word(self.shared(vcpu), (vintid >> 5) as usize))
    }

    #[inline]
    pub(crate) fn router_cell(&self, intid: u32) -> &AtomicU32 {
        self.router.get(spi_index(intid)).unwrap_or(&self.router[0])
    }

    #[inline]
    fn owner_cell(&self, intid: u32) -> &AtomicU8 {
        self.owner.get(spi_index(intid)).unwrap_or(&self.owner[0])
    }

    /// Posts new work of a word to those who may take it.
    pub(crate) fn announce(&self, vcpu: u8, index: usize, bits: u32) -> u8 {
        if index == 0 {
            self.shared(vcpu).post(attention_flush(0));
            return 1 << (vcpu & 7);
        }
        fence(Ordering::SeqCst);
        let mut posted = 0;
        for target in self.each_vcpu() {
            let shared = self.shared(target);
            if at(&shared.routed, index).load(Ordering::Acquire) & bits != 0 {
                shared.post(attention_flush(index));
                posted |= 1 << (target & 7);
            }
        }
        posted
    }

    /// Posts a request to those whose list registers may hold INTIDs of a word.
    pub(crate) fn request(&self, vcpu: u8, index: usize, bits: u32, request: Request) -> u8 {
        if index == 0 {
            return if bits == 0 {
                0
            } else {
                self.request_one(vcpu, 0, bits, request)
            };
        }
        fence(Ordering::SeqCst);
        let mut posted = 0;
        for intid in IntidIter::of(index, bits) {
            if let Some(owner) = self.owner(intid) {
                posted |= self.request_one(owner, index, bit(intid), request);
            }
        }
        posted
    }

    /// Posts a request to one vCPU.
    #[inline(never)]
    pub(crate) fn request_one(&self, vcpu: u8, index: usize, bits: u32, request: Request) -> u8 {
        let shared = self.shared(vcpu);
        let requests = match request {
            Request::Recheck => None,
            Request::ClearPending => Some(&shared.clear_pending),
            Request::SetActive => Some(&shared.set_active),
            Request::ClearActive => Some(&shared.clear_active),
            Request::HandOver => Some(&shared.hand_over),
        };
        if request == Request::ClearActive {
            // The later write wins over a set that was not carried out yet.
            at(&shared.set_active, index).fetch_and(!bits, Ordering::AcqRel);
        }
        if let Some(words) = requests {
            at(words, index).fetch_or(bits, Ordering::AcqRel);
        }
        shared.post(attention_recheck(index));
        1 << (vcpu & 7)
    }

    /// Makes every vCPU look at everything.
    pub(crate) fn request_all(&self) -> u8 {
        let every = (0..WORDS).fold(0, |bits, index| bits | attention_recheck(index));
        let mut posted = 0;
        for target in self.each_vcpu() {
            self.shared(target).post(every);
            posted |= 1 << (target & 7);
        }
        posted
    }

    /// The vCPU that may hold an SPI.
    pub(crate) fn owner(&self, intid: u32) -> Option<u8> {
        self.owner_cell(intid)
            .load(Ordering::Acquire)
            .checked_sub(1)
    }

    /// Claims an SPI for a vCPU's list registers; otherwise returns who has it.
    ///
    /// Whether it may be delivered is to be looked at behind this: who changes that makes the
    /// change first and looks for an owner then, so one of the two sees the other.
    pub(crate) fn claim(&self, intid: u32, vcpu: u8) -> Result<(), u8> {
        let mine = (vcpu & 7) + 1;
        let cell = self.owner_cell(intid);
        match cell.compare_exchange(0, mine, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                fence(Ordering::SeqCst);
                Ok(())
            }
            Err(owner) if owner == mine => Ok(()),
            Err(owner) => Err(owner.wrapping_sub(1) & 7),
        }
    }

    /// Gives an SPI back, and hands it on when it waits for another vCPU. Returns whom to kick.
    pub(crate) fn release(&self, intid: u32) -> u8 {
        let index = (intid >> 5) as usize;
        self.owner_cell(intid).store(0, Ordering::Release);
        // Who makes it pending has a fence in `announce`: either it is seen here, or the target
        // finds no owner.
        fence(Ordering::SeqCst);
        let word = self.spi_word(index);
        let waiting = word.raised() & word.ready(self.ctlr.load(Ordering::Relaxed)) & bit(intid);
        if waiting == 0 {
            0
        } else {
            self.announce(0, index, waiting)
        }
    }

    /// Takes over a new `GICD_IROUTER`. Returns the vCPUs that were posted.
    pub(crate) fn set_route(&self, intid: u32, affinity: u32) -> u8 {
        let index = (intid >> 5) as usize;
        self.router_cell(intid)
            .store(affinity & 0x00ff_ffff, Ordering::Release);
        let target = self.route(intid);
        for vcpu in self.each_vcpu() {
            let routed = at(&self.shared(vcpu).routed, index);
            if target == Some(vcpu) {
                routed.fetch_or(bit(intid), Ordering::AcqRel);
            } else {
                routed.fetch_and(!bit(intid), Ordering::AcqRel);
            }
        }
        self.request(0, index, bit(intid), Request::Recheck) | self.announce(0, index, bit(intid))
    }

    fn each_vcpu(&self) -> impl Iterator<Item = u8> {
        IntidIter::of(0, self.present()).map(|vcpu| (vcpu & 7) as u8)
    }
}

/// SPIs of a word that are routed to a vCPU; all of the private word.
#[inline]
pub(crate) fn routed(shared: &VcpuShared, index: usize) -> u32 {
    if index == 0 {
        u32::MAX
    } else {
        at(&shared.routed, index).load(Ordering::Acquire)
    }
}

/// Returns whether an INTID is one of the implemented SPIs.
#[inline]
pub(crate) const fn is_spi(intid: u32) -> bool {
    intid >= 32 && (intid as usize) < crate::INTIDS
}

#[inline]
const fn spi_index(intid: u32) -> usize {
    (intid as usize).wrapping_sub(32)
}
