// SPDX-License-Identifier: MIT OR Apache-2.0
//! One processing element: what its vectors, its guest and the other PEs find there.

use crate::control::Order;
use crate::partition::Partition;
use crate::record::ErrorSource;
use crate::recovery::PendingError;
use crate::reports::Reports;
use crate::sync::Lock;
use crate::telling::Unreported;
use crate::trace;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use firebreak_abi::{MAX_PES, Mpidr, PeId, VcpuId, VmId};
use firebreak_arch::gic::{self, Redistributor};
use firebreak_arch::{Frame, NmiCtx, PeHead, TaskCtx};
use firebreak_blackbox::trace::Ring;
use firebreak_ring::{PutOff, Ring as Queue};
use firebreak_syndrome::Iss;
use firebreak_vgic::VcpuGic;

/// Why a PE has to look before it enters its guest: bits of [`PeHead::attention`].
pub(crate) mod attention {
    /// An error record is in the queue, or one could not be put there.
    pub(crate) const RECOVERY: u64 = 1 << 0;
    /// Another PE left virtual interrupts in the inbox.
    pub(crate) const INBOX: u64 = 1 << 1;
    /// The vCPU's power state or its partition's state changed.
    pub(crate) const STATE: u64 = 1 << 2;
    /// Another PE asks for a virtual SError.
    pub(crate) const VSERROR: u64 = 1 << 3;
    /// The partition's devices may have deadlines that no PE watches any more.
    pub(crate) const DEADLINES: u64 = 1 << 4;
    /// A command left an order.
    pub(crate) const ORDER: u64 = 1 << 5;
    /// Firmware barged in and destroyed the context of the guest: it must not run again.
    pub(crate) const CONTEXT_LOST: u64 = 1 << 6;
    /// The vCPU has been started, and has not executed anything yet.
    pub(crate) const STARTED: u64 = 1 << 7;
}

/// What EL2 has to do on a PE: values of [`PeBlock::set_work`].
pub(crate) mod work {
    /// There is work, and an error now may damage it.
    pub(crate) const AT_WORK: u8 = 0;
    /// It waits, or looks whether its wait is over.
    pub(crate) const WAITING: u8 = 1;
    /// It asks the GIC for an interrupt. Nothing can be damaged yet, but an interrupt that was
    /// acknowledged is active, and nobody else knows of it.
    pub(crate) const ASKING: u8 = 2;
}

/// Slots of the recovery queue of one PE.
pub(crate) const QUEUE_SLOTS: usize = 16;

/// Set beside the 25 bits of a syndrome that is there.
const PRESENT: u32 = 1 << 31;

/// Value of [`PeBlock::resident`] when no vCPU lives on the PE.
const NO_RESIDENT: u32 = u32::MAX;

/// All that belongs to one PE. SP_EL2 of that PE points at it.
#[repr(C, align(4096))]
pub(crate) struct PeBlock {
    /// What the vectors touch; first, because SP_EL2 points here.
    pub(crate) head: PeHead,
    /// Logical number.
    pub(crate) id: PeId,
    /// Affinity.
    pub(crate) mpidr: Mpidr,
    // Before the queue: what every exit touches stays in reach of one load's offset.
    local: UnsafeCell<PeLocal>,
    /// It has FEAT_RAS.
    pub(crate) ras: bool,
    /// Its error source, if it has one.
    pub(crate) source: Option<ErrorSource>,
    /// Errors that the SEI path took and task context has to work off.
    pub(crate) queue: Queue<PendingError, QUEUE_SLOTS>,
    /// SEIs that arrived on this PE.
    pub(crate) sei_count: AtomicU64,
    /// Where the way to the guest was last begun anew after an SEA, and in its lowest three bits
    /// how many times in a row.
    pub(crate) last_rewind: AtomicU64,
    /// SEIs that could not be taken when they came: the queue was full, or a record was being taken.
    pub(crate) put_off: PutOff,
    /// A record of this PE is being taken: another SEI leaves the block alone.
    taking: AtomicBool,
    /// What EL2 has to do on this PE: one of [`work`].
    work: AtomicU8,
    /// The vCPU that lives here, for the SEI path: [`NO_RESIDENT`], or partition \[15:8\] and
    /// vCPU \[7:0\].
    resident: AtomicU32,
    /// A virtual SError that another PE wants for this PE's vCPU.
    requested_vserror: AtomicU32,
    /// What a command wants of this PE's vCPU.
    pub(crate) order: Lock<Option<Order>>,
    /// Maintenance interrupts of the virtual CPU interface.
    pub(crate) maintenance_count: AtomicU64,
    /// Its last exits, if the configuration wants them.
    pub(crate) trace: Option<Ring<'static>>,
}

// SAFETY: `local` is reached through `Task::enter` alone, on the PE that owns the block and in
// task context, which never nests; the rest is atomic or immutable.
unsafe impl Sync for PeBlock {}

/// What only this PE's task context touches.
pub(crate) struct PeLocal {
    /// The vCPU that lives here.
    pub(crate) vcpu: Option<Vcpu>,
    /// Whether the vCPU's EL1 state is on this PE and the guest may be entered.
    pub(crate) running: bool,
    /// Physical redistributor.
    pub(crate) redistributor: Option<Redistributor>,
    /// An error that is dealt with and waits to be told.
    pub(crate) unreported: Option<Unreported>,
    /// The virtual SError whose end nobody has seen yet.
    pub(crate) injection: Option<Injection>,
    /// When the console of this vCPU wants its half line flushed, or has room again, in ticks of CNTPCT.
    pub(crate) console_deadline: Option<u64>,
    /// When the partition's watchdog wants a look.
    pub(crate) watchdog_deadline: Option<u64>,
    /// When to look for a record that nobody notified.
    pub(crate) record_deadline: Option<u64>,
    /// When the partition's real-time clock rings.
    pub(crate) alarm_deadline: Option<u64>,
    /// When a partition that stopped on this PE starts again.
    pub(crate) restart_deadline: Option<u64>,
    /// When to look for more input on the UART.
    pub(crate) input_deadline: Option<u64>,
    /// What the host hears of errors.
    pub(crate) reports: Reports,
    /// When to look again whether the guest is where an order wants it.
    pub(crate) order_deadline: Option<u64>,
}

/// The vCPU of a PE.
pub(crate) struct Vcpu {
    /// Its partition.
    pub(crate) partition: &'static Partition,
    /// Its number in the partition.
    pub(crate) index: u8,
    /// Its half of the virtual GIC.
    pub(crate) vgic: VcpuGic<'static>,
}

/// A virtual SError on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injection {
    /// Identity that the events carry.
    pub(crate) id: u64,
    /// Its syndrome.
    pub(crate) iss: Iss,
    /// VDISR_EL2 when it was raised: the guest may not have read an earlier one yet.
    pub(crate) vdisr_before: u64,
    /// When to look whether the guest took it, in ticks of CNTPCT; `None` until it is settled how
    /// the guest takes it.
    pub(crate) poll_deadline: Option<u64>,
}

impl PeBlock {
    /// Makes the block of a PE with the tops of its two stacks.
    #[inline(never)]
    ///
    /// The words: SP_EL0 of EL2's code and of the SEI path, address of the pending word, and where
    /// the block is going to stand. With a trace its exits go by way of it.
    pub(crate) fn new(
        id: PeId,
        mpidr: Mpidr,
        words: [u64; 4],
        (source, ras): (Option<ErrorSource>, bool),
        trace: Option<Ring<'static>>,
    ) -> Self {
        let [el2_sp, sei_sp, pending_word, this] = words;
        let [on_sync, on_irq] = trace::entries(trace.is_some());
        Self {
            head: PeHead {
                guest: UnsafeCell::new(Frame::default()),
                on_irq,
                el2_sp,
                on_sync,
                sei_sp,
                attention: AtomicU64::new(attention::STATE),
                pending_word,
                this,
            },
            id,
            mpidr,
            ras,
            source,
            queue: Queue::new(),
            sei_count: AtomicU64::new(0),
            last_rewind: AtomicU64::new(0),
            put_off: PutOff::new(),
            taking: AtomicBool::new(false),
            work: AtomicU8::new(work::AT_WORK),
            resident: AtomicU32::new(NO_RESIDENT),
            requested_vserror: AtomicU32::new(0),
            order: Lock::new(None),
            maintenance_count: AtomicU64::new(0),
            trace,
            local: UnsafeCell::new(PeLocal {
                vcpu: None,
                running: false,
                redistributor: None,
                unreported: None,
                injection: None,
                console_deadline: None,
                watchdog_deadline: None,
                alarm_deadline: None,
                restart_deadline: None,
                input_deadline: None,
                reports: Reports::new(),
                record_deadline: None,
                order_deadline: None,
            }),
        }
    }

    /// Says what EL2 has to do here: one of [`work`].
    pub(crate) fn set_work(&self, work: u8) {
        self.work.store(work, Ordering::Release);
    }

    /// Returns whether EL2 has nothing to do here. From any context.
    pub(crate) fn is_idle(&self) -> bool {
        self.work.load(Ordering::Acquire) != work::AT_WORK
    }

    /// Returns whether EL2 has nothing in its hands that would be lost if it began its wait anew.
    /// From any context.
    pub(crate) fn is_waiting(&self) -> bool {
        self.work.load(Ordering::Acquire) == work::WAITING
    }

    /// Says which vCPU lives here.
    pub(crate) fn set_resident(&self, vm: VmId, vcpu: u8) {
        self.resident
            .store(u32::from(vm.0) << 8 | u32::from(vcpu), Ordering::Release);
    }

    /// Returns the vCPU that lives here. From any context.
    pub(crate) fn resident(&self) -> Option<VcpuId> {
        match self.resident.load(Ordering::Acquire) {
            NO_RESIDENT => None,
            raw => Some(VcpuId {
                vm: VmId((raw >> 8) as u8),
                index: raw as u8,
            }),
        }
    }

    /// Begins to take a record; `false`: somebody whom this SEI interrupted is doing so.
    pub(crate) fn begin_taking(&self, _: &NmiCtx) -> bool {
        !self.taking.swap(true, Ordering::AcqRel)
    }

    /// Ends it.
    pub(crate) fn end_taking(&self, _: &NmiCtx) {
        self.taking.store(false, Ordering::Release);
    }

    /// Makes this PE look before it enters its guest. From the SEI path of the PE itself.
    #[inline]
    pub(crate) fn request_from_nmi(&self, _: &NmiCtx, bits: u64) {
        self.head.attention.fetch_or(bits, Ordering::Release);
    }

    /// Makes this PE look before it enters its guest, and interrupts it if it is another one.
    #[inline(never)]
    pub(crate) fn request(&self, task: &Task, bits: u64) {
        self.head.attention.fetch_or(bits, Ordering::Release);
        if self.id != task.pe.id {
            gic::kick(self.mpidr);
        }
    }

    /// Asks for a virtual SError for the vCPU of this PE; one that was asked for before and not
    /// seen yet is merged with it by the architecture's rule.
    pub(crate) fn request_vserror(&self, task: &Task, iss: Iss) {
        let merge = |waiting: u32| {
            let earlier = (waiting != 0).then(|| Iss::from_esr(u64::from(waiting & !PRESENT)));
            Some(earlier.map_or(iss, |earlier| earlier.merge(iss)).get() | PRESENT)
        };
        let _ = self
            .requested_vserror
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, merge);
        self.request(task, attention::VSERROR);
    }

    /// Takes a virtual SError that was asked for.
    pub(crate) fn take_requested_vserror(&self) -> Option<Iss> {
        match self.requested_vserror.swap(0, Ordering::AcqRel) {
            0 => None,
            request => Some(Iss::from_esr(u64::from(request & !PRESENT))),
        }
    }
}

/// Task context of one PE: its token and everything that only it may touch.
pub(crate) struct Task {
    /// Proof that locks may be taken.
    pub(crate) ctx: TaskCtx,
    /// This PE.
    pub(crate) pe: &'static PeBlock,
    /// What only this PE's task context touches.
    pub(crate) local: &'static mut PeLocal,
    /// The guest's registers.
    pub(crate) frame: &'static mut Frame,
}

impl Task {
    /// Enters task context.
    ///
    /// # Safety
    ///
    /// Once for each exception that a vector of task context hands to Rust (and once at boot),
    /// on the PE that owns the block, with nothing of an earlier `Task` alive.
    #[inline]
    pub(crate) unsafe fn enter(pe: &'static PeBlock) -> Self {
        // SAFETY: the caller is the first Rust function of a vector of task context.
        let ctx = unsafe { TaskCtx::new() };
        // SAFETY: the owning PE, and no other `Task` alive: the caller's claim.
        let local = unsafe { &mut *pe.local.get() };
        // SAFETY: as above; the vectors are done with the frame, and the SEI path touches it
        // only when it interrupted the guest, not when it interrupted this code.
        let frame = unsafe { &mut *pe.head.guest.get() };
        Self {
            ctx,
            pe,
            local,
            frame,
        }
    }
}

/// The PEs of the machine that Firebreak drives.
pub(crate) type PeTable = heapless::Vec<&'static PeBlock, MAX_PES>;

impl Task {
    /// Returns the partition of the vCPU that lives here, and the vCPU's number in it.
    #[inline]
    pub(crate) fn vcpu(&self) -> Option<(&'static Partition, u8)> {
        self.local
            .vcpu
            .as_ref()
            .map(|vcpu| (vcpu.partition, vcpu.index))
    }
}
