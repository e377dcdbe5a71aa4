// SPDX-License-Identifier: MIT OR Apache-2.0
//! A partition: its memory, its devices, its life.
//!
//! Everything here is shared by the PEs that run the partition's vCPUs: atomics, or behind a
//! lock of task context. Life cycle: *running* until somebody requests a stop; every vCPU then
//! parks on its own PE, and the last one to park carries the stop out alone (`lifecycle.rs`).

use crate::console::{self, GuestConsole};
use crate::pe::{PeBlock, Task, attention};
use crate::sync::Lock;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use firebreak_abi::{Ipa, MAX_VCPUS_PER_PARTITION, Pa, PaRange, VmId};
use firebreak_arch::guest::Identity;
use firebreak_arch::{TaskCtx, sysreg};
use firebreak_manifest::{PartitionConfig, Placement};
use firebreak_paging::Stage2;
use firebreak_vdev::{Pl011, Pl031, Pvpanic, Watchdog};
use firebreak_vgic::Distributor;
use firebreak_vm::{Backing, KernelSource, Kernels, StopCause, VcpuPower};
use firebreak_wire::{Event, OutputBudget};
use heapless::Vec;

/// The most pages of one partition that are retired one by one.
pub(crate) const MAX_RETIRED: usize = 64;

/// Emulated devices of a partition.
pub(crate) struct Devices {
    /// Serial port.
    pub(crate) uart: Pl011,
    /// Real-time clock.
    pub(crate) rtc: Pl031,
    /// SBSA watchdog.
    pub(crate) watchdog: Watchdog,
    /// By which it says that it panics.
    pub(crate) pvpanic: Pvpanic,
}

/// No start was asked for: not an address that an instruction can stand at.
pub(crate) const NO_ENTRY: u64 = u64::MAX;

/// What other PEs may know and change of a vCPU.
pub(crate) struct VcpuShared {
    /// Power state, as `firebreak_vm` encodes it.
    pub(crate) power: AtomicU8,
    /// Where CPU_ON wants it to start, or [`NO_ENTRY`].
    pub(crate) entry: AtomicU64,
    /// What CPU_ON wants in x0.
    pub(crate) context: AtomicU64,
}

/// Life of a partition: values of [`Partition::state`].
pub(crate) mod state {
    /// Its vCPUs may run.
    pub(crate) const RUNNING: u8 = 0;
    /// Its vCPUs park.
    pub(crate) const STOPPING: u8 = 1;
    /// It is over until somebody starts it.
    pub(crate) const STOPPED: u8 = 2;
    /// The PE of its first vCPU loads it again.
    pub(crate) const STARTING: u8 = 3;
    /// Where the number of the cause begins.
    pub(crate) const CAUSE_SHIFT: u32 = 2;
    /// The state without a cause.
    pub(crate) const MASK: u8 = (1 << CAUSE_SHIFT) - 1;
    /// It stops for no cause: it has not run yet, and is loaded. Any cause takes its place.
    pub(crate) const HELD: u32 = 1 << 8;
    /// Where the bits of the vCPUs that have parked begin.
    pub(crate) const PARKED_SHIFT: u32 = 16;
    /// It is over for good: the machine cannot run it.
    pub(crate) const UNUSABLE: u8 = STOPPED | 1 << CAUSE_SHIFT;

    /// From here on, the number above [`STOPPED`] is a cause's: it is over until its back-off is.
    pub(crate) const FIRST_WAITING: u8 = 2;

    /// Words for a state.
    pub(crate) const fn name(state: u8) -> &'static str {
        match state {
            RUNNING => "running",
            STOPPING => "stopping",
            STOPPED => "stopped",
            _ => "starting",
        }
    }
}

/// Causes by the number that stands beside [`state::STOPPING`].
const CAUSES: [StopCause; 7] = [
    StopCause::Killed,
    StopCause::Off,
    StopCause::Reset,
    StopCause::Silence,
    StopCause::KilledForRestart,
    StopCause::Asked,
    StopCause::AskedForRestart,
];

fn number_of(cause: StopCause) -> u8 {
    CAUSES.iter().position(|known| *known == cause).unwrap_or(0) as u8
}

/// The cause that stands beside [`state::STOPPING`].
fn cause_of(raw: u32) -> StopCause {
    CAUSES
        .get(usize::from(raw as u8 >> state::CAUSE_SHIFT))
        .copied()
        .unwrap_or(StopCause::Killed)
}

/// [`state::STOPPING`] for a cause.
fn stopping(cause: StopCause) -> u8 {
    state::STOPPING | number_of(cause) << state::CAUSE_SHIFT
}

/// VMID 0 is what EL2 leaves in VTTBR_EL2 before any guest.
const fn vmid(vm: VmId) -> u8 {
    vm.0 + 1
}

/// A partition.
pub(crate) struct Partition {
    /// Number.
    pub(crate) id: VmId,
    /// What the partition file says.
    pub(crate) config: PartitionConfig<'static>,
    /// Its memory.
    pub(crate) ram: PaRange,
    /// Where the guest sees it.
    pub(crate) ram_base: Ipa,
    /// Its tables; edits of the live ones take the lock.
    pub(crate) stage2: Lock<Stage2>,
    /// VTCR_EL2.
    pub(crate) vtcr: u64,
    /// VTTBR_EL2; it follows [`stage2`](Self::stage2), under its lock.
    pub(crate) vttbr: AtomicU64,
    /// Its tables have an uncorrected error: nobody walks them, and it must not run on them.
    pub(crate) tables_lost: AtomicBool,
    /// Its RAM disk has an uncorrected error: it cannot be loaded again.
    pub(crate) payload_lost: AtomicBool,
    /// It has more bad pages than [`MAX_RETIRED`]: nobody knows all of them, and it must not run again.
    pub(crate) worn_out: AtomicBool,
    /// Virtual distributor.
    pub(crate) distributor: Distributor,
    /// vCPUs, by number.
    pub(crate) vcpus: Vec<VcpuShared, MAX_VCPUS_PER_PARTITION>,
    /// PEs of the vCPUs, by number; written once at boot.
    pub(crate) pes: Vec<&'static PeBlock, MAX_VCPUS_PER_PARTITION>,
    /// Emulated devices.
    pub(crate) devices: Lock<Devices>,
    /// Events that the guest itself causes, a few each second.
    events: Lock<OutputBudget>,
    /// Console output.
    pub(crate) console: Lock<GuestConsole>,
    /// What stands behind each page of its RAM.
    pub(crate) backing: Lock<Backing<MAX_RETIRED>>,
    /// Which kernel it is loaded from.
    pub(crate) kernels: Lock<Kernels>,
    /// Room for two that commands bring.
    pub(crate) slots: PaRange,
    /// Its spare pages.
    pub(crate) spares: PaRange,
    /// Those in use, as [`Backing::lent_mask`] tells them: read from any context.
    pub(crate) spares_lent: AtomicU64,
    /// See [`state`]; while it is stopping, with the cause's number above, and with a bit for each
    /// vCPU that has parked: one word, so that nobody parks for a stop that is over.
    state: AtomicU32,
    /// When its back-off is over, in ticks of CNTPCT.
    pub(crate) restart_at: AtomicU64,
    /// How often it was restarted.
    pub(crate) restarts: AtomicU32,
    /// Interrupts of its devices that it was handed.
    pub(crate) forwarded: AtomicU64,
    /// A device of it may still write to its memory, though it has stopped.
    pub(crate) loud: AtomicBool,
}

impl Partition {
    /// Returns the name.
    pub(crate) fn name(&self) -> &str {
        self.config.name.as_str()
    }

    /// Reports an event that the guest caused, unless it causes too many; those are counted.
    pub(crate) fn report(&self, ctx: &TaskCtx, event: &Event<'_>) {
        let mut budget = self.events.lock(ctx);
        if !budget.take(sysreg::cntpct_el0(), 1) {
            return;
        }
        let count = budget.take_suppressed();
        drop(budget);
        if count > 0 {
            console::emit(
                ctx,
                &Event::Suppressed {
                    what: self.name(),
                    count,
                },
            );
        }
        console::emit(ctx, event);
    }

    /// Returns the identity that vCPU `index` wears on its PE.
    pub(crate) fn identity(&self, index: u8, midr: u64) -> Identity {
        // Arm ARM D24.2.124: bit 31 is RES1, and U (bit 30) says uniprocessor.
        const RES1: u64 = 1 << 31;
        Identity {
            vtcr: self.vtcr,
            vttbr: self.vttbr.load(Ordering::Acquire),
            vmpidr: RES1 | u64::from(index),
            vpidr: midr,
            direct_aborts: self.config.direct_aborts,
        }
    }

    /// Gives the partition other tables, while no vCPU of it runs.
    pub(crate) fn set_tables(&self, stage2: &mut Stage2, new: Stage2) {
        *stage2 = new;
        self.vttbr
            .store(new.vttbr(vmid(self.id)), Ordering::Release);
        self.tables_lost.store(false, Ordering::Release);
    }

    /// Says whether one of its addresses is RAM, holes included.
    pub(crate) fn is_ram(&self, ipa: Ipa) -> bool {
        let offset = ipa.get().checked_sub(self.ram_base.get());
        offset.is_some_and(|offset| offset < self.ram.len_bytes)
    }

    /// Returns one of the two slots for kernels that commands bring.
    pub(crate) fn slot(&self, number: u8) -> PaRange {
        let len_bytes = self.slots.len_bytes / 2;
        let start = self.slots.start.get() + u64::from(number & 1) * len_bytes;
        PaRange::new(start, len_bytes)
    }

    /// Returns where a kernel stands.
    pub(crate) fn kernel(&self, kernels: &Kernels, source: KernelSource) -> PaRange {
        match source {
            KernelSource::Boot => self.config.kernel,
            KernelSource::Slot(number) => PaRange {
                len_bytes: kernels.len_bytes(number),
                ..self.slot(number)
            },
        }
    }

    /// Says where it sees, or saw, physical memory of its own.
    pub(crate) fn ipa_of(&self, ctx: &TaskCtx, pa: Pa) -> Option<Ipa> {
        self.backing.lock(ctx).ipa_of(pa)
    }

    /// Makes a partition that stops wait for its back-off; as [`end_stop`](Self::end_stop).
    pub(crate) fn wait_for_restart(&self, cause: StopCause) -> Result<(), StopCause> {
        let number = number_of(cause) + state::FIRST_WAITING;
        self.leave_stop(cause, state::STOPPED | number << state::CAUSE_SHIFT)
    }

    /// Keeps everybody else from a partition that has not run yet, as at the end of a stop. Who wants
    /// it to stop is heard by [`end_hold`](Self::end_hold).
    pub(crate) fn hold(&self) {
        let alone = u32::from(stopping(StopCause::AskedForRestart)) | self.all_parked();
        self.state.store(alone | state::HELD, Ordering::Release);
    }

    /// Lets a partition run that was held, unless somebody wants it to stop: that is the error.
    pub(crate) fn end_hold(&self) -> Result<(), StopCause> {
        let end = |raw: u32| (raw & state::HELD != 0).then_some(u32::from(state::RUNNING));
        self.state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, end)
            .map_or_else(|raw| Err(cause_of(raw)), |_| Ok(()))
    }

    /// Ends the wait of a back-off, if there is one, and returns why it stopped. The caller has
    /// the partition alone then, as at the end of a stop.
    pub(crate) fn end_wait(&self) -> Option<StopCause> {
        let raw = self.state.load(Ordering::Acquire);
        let number = (raw as u8 >> state::CAUSE_SHIFT).checked_sub(state::FIRST_WAITING)?;
        if raw as u8 & state::MASK != state::STOPPED {
            return None;
        }
        let cause = CAUSES.get(usize::from(number)).copied()?;
        // All have parked, so that nobody takes this for a stop that wants to be carried out.
        let alone = u32::from(stopping(cause)) | self.all_parked();
        let first = self
            .state
            .compare_exchange(raw, alone, Ordering::AcqRel, Ordering::Acquire);
        first.ok()?;
        Some(cause)
    }

    /// The bits of all vCPUs that can park.
    fn all_parked(&self) -> u32 {
        ((1u32 << self.config.vcpus) - 1) << state::PARKED_SHIFT
    }

    /// Makes a partition that is stopped start again; says whether it was stopped, and can.
    pub(crate) fn request_start(&self, task: &Task) -> bool {
        let first = self.state.compare_exchange(
            u32::from(state::STOPPED),
            u32::from(state::STARTING),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if first.is_err() {
            if self.end_wait().is_none() {
                return false;
            }
            self.set_state(state::STARTING);
        }
        match self.pes.first() {
            Some(pe) => pe.request(task, attention::STATE),
            None => return false,
        }
        true
    }

    /// Makes all vCPUs park.
    pub(crate) fn request_stop(&self, task: &Task, cause: StopCause) {
        self.try_stop(task, cause);
    }

    /// The same; says whether this is the cause for which it stops: the first that anybody names,
    /// or one that outranks it and comes before the stop is over.
    pub(crate) fn try_stop(&self, task: &Task, cause: StopCause) -> bool {
        // State and cause in one store: whoever sees the one sees the other.
        let begin = |raw: u32| match raw as u8 & state::MASK {
            state::RUNNING => Some(u32::from(stopping(cause))),
            state::STOPPING if raw & state::HELD != 0 || cause.outranks(cause_of(raw)) => {
                let parked = raw & !(u32::from(u8::MAX) | state::HELD);
                Some(parked | u32::from(stopping(cause)))
            }
            _ => None,
        };
        let before = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, begin);
        if before == Ok(u32::from(state::RUNNING)) {
            for pe in &self.pes {
                pe.request(task, attention::STATE);
            }
        }
        before.is_ok()
    }

    /// Lets a partition run that nobody else touches: its stop for `cause` is over, or it was
    /// stopped. The stop goes on for the cause that outranked this one in between, if there is one:
    /// that is the error.
    pub(crate) fn end_stop(&self, cause: StopCause) -> Result<(), StopCause> {
        self.leave_stop(cause, state::RUNNING)
    }

    fn leave_stop(&self, cause: StopCause, next: u8) -> Result<(), StopCause> {
        let end = |raw: u32| {
            let outranked = raw as u8 & state::MASK == state::STOPPING && cause_of(raw) != cause;
            (!outranked).then_some(u32::from(next))
        };
        self.state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, end)
            .map_or_else(|raw| Err(cause_of(raw)), |_| Ok(()))
    }

    /// Returns the state: one of [`state`].
    pub(crate) fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire) as u8 & state::MASK
    }

    /// Says whether its vCPUs may run.
    pub(crate) fn is_running(&self) -> bool {
        self.state() == state::RUNNING
    }

    /// Says whether the machine cannot run it.
    pub(crate) fn is_unusable(&self) -> bool {
        self.state.load(Ordering::Acquire) == u32::from(state::UNUSABLE)
    }

    /// Says whether a vCPU has parked for the stop that is under way.
    pub(crate) fn has_parked(&self, vcpu: u8) -> bool {
        self.state.load(Ordering::Acquire) >> (state::PARKED_SHIFT + u32::from(vcpu & 7)) & 1 == 1
    }

    /// Notes that a vCPU has parked; says whether it was the last one to do so. A stop that is over
    /// by now is none of its business.
    pub(crate) fn note_parked(&self, vcpu: u8) -> bool {
        let all = self.all_parked();
        let own = 1u32 << (state::PARKED_SHIFT + u32::from(vcpu & 7));
        let park = |raw: u32| {
            let stopping = raw as u8 & state::MASK == state::STOPPING;
            stopping.then_some(raw | own)
        };
        let before = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, park);
        before.is_ok_and(|raw| raw & own == 0 && (raw | own) & all == all)
    }

    /// Ends a stop: running again, or stopped. Nobody has parked for the next one.
    pub(crate) fn set_state(&self, state: u8) {
        self.state.store(u32::from(state), Ordering::Release);
    }

    /// Returns why it stops.
    pub(crate) fn cause(&self) -> StopCause {
        cause_of(self.state.load(Ordering::Acquire))
    }

    /// Makes a partition that has not run.
    pub(crate) fn new(
        id: VmId,
        config: PartitionConfig<'static>,
        placement: &Placement,
        stage2: Stage2,
        pa_range: u64,
    ) -> Self {
        let (ram, spares, slots) = (placement.ram, placement.spares, placement.slots);
        let shares = console::shares();
        let mut vcpus = Vec::new();
        for _ in 0..config.vcpus {
            let vcpu = VcpuShared {
                power: AtomicU8::new(VcpuPower::Off.to_raw()),
                entry: AtomicU64::new(NO_ENTRY),
                context: AtomicU64::new(0),
            };
            // The manifest refuses more vCPUs than fit.
            let _ = vcpus.push(vcpu);
        }
        Self {
            id,
            ram,
            ram_base: placement.ram_ipa,
            vtcr: stage2.geometry().vtcr(pa_range.min(5)),
            vttbr: AtomicU64::new(stage2.vttbr(vmid(id))),
            tables_lost: AtomicBool::new(false),
            payload_lost: AtomicBool::new(false),
            worn_out: AtomicBool::new(false),
            stage2: Lock::new(stage2),
            distributor: Distributor::new(),
            vcpus,
            pes: Vec::new(),
            devices: Lock::new(Devices {
                uart: Pl011::new(),
                rtc: Pl031::new(0),
                watchdog: Watchdog::new(),
                pvpanic: Pvpanic::new(),
            }),
            events: Lock::new(OutputBudget::new(
                shares.events_per_second,
                shares.event_burst,
                sysreg::cntfrq_el0(),
                sysreg::cntpct_el0(),
            )),
            console: Lock::new(GuestConsole::new()),
            backing: Lock::new(Backing::new(placement.ram_ipa, ram, spares)),
            spares,
            spares_lent: AtomicU64::new(0),
            kernels: Lock::new(Kernels::new()),
            slots,
            state: AtomicU32::new(u32::from(state::STOPPED)),
            restart_at: AtomicU64::new(0),
            restarts: AtomicU32::new(0),
            forwarded: AtomicU64::new(0),
            loud: AtomicBool::new(false),
            config,
        }
    }
}
