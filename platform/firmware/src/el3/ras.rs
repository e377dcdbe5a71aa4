// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors, on the machine: from a request to registers, source page and log.
//!
//! A request for another PE goes through that PE's inbox and an SGI, so that the error strikes
//! asynchronously to whatever runs there.

use core::sync::atomic::{AtomicU16, Ordering};

use firebreak_abi::{MAX_PES, Pa, sei::source as layout};
use firebreak_contract::{
    Limits, PstateFeatures, ResetReason, Target, entry_pstate, esr_for_sei, hcr, origin,
};
use firebreak_cper::Severity;
use firebreak_el3::behavior::{Mode, Modes};
use firebreak_el3::boot_record;
use firebreak_el3::errors::{
    self, BACKLOG, Context, Error, Event, Machine, Order, PeErrors, Request, StormCounts,
};
use firebreak_el3::lie::lie;
use firebreak_el3::psci::Psci;
use firebreak_syndrome::Iss;
use heapless::Deque;
use spin::Mutex;

mod sweep;
mod typing;

pub(super) use sweep::{PROBE_IMMEDIATE, reached as probe_reached, start as sweep};
pub(super) use typing::start as type_text;

use super::frame::Frame;
use super::region::Page;
use super::{PSCI, bert, gic, lock, log, meeting, sysreg};

/// What FAR_ELx holds after an SEI: the contract says that it is unknown, and this makes sure
/// that nobody comes to rely on it.
const FAR_POISON: u64 = 0xfa12_dead_fa12_dead;
/// What a firmware that handles an error by itself takes for that, in microseconds.
const HANDLING_US: u64 = 2_000;
/// Longest record: `firebreak_cper::write_record` with all of its sections.
const RECORD_BYTES: usize = 512;

/// State of each PE's errors. Only that PE's own EL3 locks it.
static ERRORS: [Mutex<PeErrors>; MAX_PES] =
    [const { Mutex::new(PeErrors::new(Limits::from_frequency(0))) }; MAX_PES];
/// Orders on their way to a PE.
static INBOX: [Mutex<Deque<Order, BACKLOG>>; MAX_PES] =
    [const { Mutex::new(Deque::new()) }; MAX_PES];

/// How each PE treats its errors: [`Modes`] in raw form.
static BEHAVIOR: [AtomicU16; MAX_PES] = [const { AtomicU16::new(0) }; MAX_PES];

/// Tells one PE, or all of them, how to treat errors from now on.
pub(super) fn behave(pe: Option<usize>, modes: Modes) {
    for (number, behavior) in BEHAVIOR.iter().enumerate() {
        if pe.is_none_or(|pe| pe == number) {
            behavior.store(modes.to_raw(), Ordering::Relaxed);
        }
    }
}

/// Sets this PE's state up, now that the frequency of its counter is known.
pub(super) fn init_pe(pe: usize) {
    let limits = Limits::from_frequency(sysreg::cntfrq_el0());
    lock::with(&ERRORS[pe], |errors| *errors = PeErrors::new(limits));
}

/// Posts an order to a PE.
///
/// # Errors
///
/// A word for the log: the PE is off or does not exist, or its inbox is full.
pub(super) fn post(pe: usize, order: Order) -> Result<(), &'static str> {
    if !lock::with(&PSCI, |psci: &mut Psci| psci.is_on(pe)) {
        return Err("pe-off");
    }
    let inbox = INBOX.get(pe).ok_or("pe-off")?;
    lock::with(inbox, |inbox| inbox.push_back(order)).map_err(|_| "inbox-full")
}

/// Wakes the EL3 of another PE for what [`post`] left there.
pub(super) fn wake(pe: usize) {
    gic::notify(pe);
}

/// Says whether a PE may be turned off: nothing is on its way to it, or with it.
pub(super) fn is_quiet(pe: usize) -> bool {
    lock::with(&INBOX[pe], |inbox| inbox.is_empty()) && lock::with(&ERRORS[pe], |e| e.is_quiet())
}

/// Does what is due on this PE, and arms its timer for the rest. The last thing before EL3 is
/// left: delays count from here.
pub(super) fn service(pe: usize, frame: Option<&mut Frame>, unmasked: bool) {
    lock::with(&ERRORS[pe], |errors| {
        let mut machine = Live {
            pe,
            page: Page::of(pe),
            frame,
        };
        errors.service(&mut machine, unmasked);
        while let Some(order) = lock::with(&INBOX[pe], Deque::pop_front) {
            errors.order(&mut machine, order);
        }
        let sweeping = sweep::step(&mut machine, errors);
        let typing = typing::step(pe);
        arm_timer(errors, sweeping.into_iter().chain(typing).min());
    });
}

/// Lets an error strike the instruction that EL3 interrupted, before anything else can happen.
pub(super) fn strike(pe: usize, frame: &mut Frame, error: Error) {
    lock::with(&ERRORS[pe], |errors| {
        let mut machine = Live {
            pe,
            page: Page::of(pe),
            frame: Some(frame),
        };
        let request = Request {
            error,
            delay_ticks: 0,
            in_guest: false,
        };
        errors.order(&mut machine, Order::Raise(request));
        // The error is outstanding now, so the timer comes back soon, for a sweep as well.
        arm_timer(errors, None);
    });
}

fn arm_timer(errors: &mut PeErrors, sweeping: Option<u64>) {
    let deadline = errors.next_deadline(sysreg::cntpct_el0());
    // A deadline that passed meanwhile fires at once: the timer's condition is a level.
    match deadline.into_iter().chain(sweeping).min() {
        Some(deadline) => {
            sysreg::write_cntps_cval_el1(deadline);
            sysreg::write_cntps_ctl_el1(1);
        }
        None => sysreg::write_cntps_ctl_el1(0),
    }
    sysreg::isb();
}

/// This PE, its source page, and the context that EL3 interrupted.
struct Live<'a> {
    pe: usize,
    page: Page,
    frame: Option<&'a mut Frame>,
}

impl Live<'_> {
    fn count(&self, offset: u64) {
        self.page.word(offset).fetch_add(1, Ordering::Relaxed);
    }

    fn record(&self, error: &Error, severity: Severity) -> firebreak_cper::Record {
        let interrupted = self.frame.as_ref().map(|frame| {
            let level = origin(frame.spsr).map_or(3, |origin| origin as u8);
            (frame.elr, level)
        });
        boot_record::record(error, severity, &bert::place(interrupted))
    }
}

impl Machine for Live<'_> {
    fn now_ticks(&self) -> u64 {
        sysreg::isb();
        sysreg::cntpct_el0()
    }

    fn context(&self) -> Option<Context> {
        let frame = self.frame.as_ref()?;
        Some(Context {
            spsr: frame.spsr,
            elr: frame.elr,
            hcr_el2: sysreg::hcr_el2(),
            tmea: sysreg::masked_errors_to_el2(),
        })
    }

    fn has_ras(&self) -> bool {
        sysreg::id_aa64pfr0_el1() >> 28 & 0xf != 0
    }

    fn behavior(&self) -> Modes {
        let raw = BEHAVIOR
            .get(self.pe)
            .map_or(0, |raw| raw.load(Ordering::Relaxed));
        Modes::from_raw(raw)
    }

    fn acked(&self) -> bool {
        self.page.word(layout::READ_ACK).load(Ordering::Acquire) & layout::ACKED != 0
    }

    fn pending(&self) -> u64 {
        self.page.word(layout::PENDING).load(Ordering::Acquire)
    }

    fn write_record(&mut self, error: &Error, modes: Modes) {
        let severity = error
            .record
            .map_or(Severity::Fatal, |s| Severity::from_raw(s.to_raw()));
        let mut block = [0; RECORD_BYTES];
        let length = firebreak_cper::write_record(&mut block, &self.record(error, severity));
        let block = length.ok().and_then(|len| block.get_mut(..len));
        let block = block.unwrap_or_default();
        lie(modes, block);
        self.page.word(layout::READ_ACK).store(0, Ordering::Release);
        self.page.write_block(block);
    }

    fn clear_record(&mut self) {
        self.page.clear_block();
    }

    fn set_pending(&mut self, iss: Iss) {
        self.page
            .word(layout::SYNDROME)
            .store(u64::from(iss.get()), Ordering::Release);
        self.page.word(layout::PENDING).store(1, Ordering::Release);
    }

    fn take_pending(&mut self) -> bool {
        self.page.word(layout::PENDING).swap(0, Ordering::AcqRel) != 0
    }

    fn notify(&mut self, error: &Error, target: Target, vector_offset: u16) {
        let Some(frame) = self.frame.as_deref() else {
            return;
        };
        let (esr, far) = match (error.abort, origin(frame.spsr)) {
            (Some(abort), Some(from)) => {
                let stale = errors::modes(self, error).has(Mode::StaleEc);
                let far = abort.far.unwrap_or(FAR_POISON);
                (abort.esr(error.iss, from, target, stale), far)
            }
            _ => (esr_for_sei(u64::from(error.iss.get())), FAR_POISON),
        };
        let Some(frame) = self.frame.as_deref_mut() else {
            return;
        };
        let (vbar, sctlr) = match target {
            Target::El2 => {
                sysreg::write_elr_el2(frame.elr);
                sysreg::write_spsr_el2(frame.spsr);
                sysreg::write_esr_el2(esr);
                sysreg::write_far_el2(far);
                (sysreg::vbar_el2(), sysreg::sctlr_el2())
            }
            Target::El1 => {
                sysreg::write_elr_el1(frame.elr);
                sysreg::write_spsr_el1(frame.spsr);
                sysreg::write_esr_el1(esr);
                sysreg::write_far_el1(far);
                (sysreg::vbar_el1(), sysreg::sctlr_el1())
            }
        };
        frame.spsr = entry_pstate(frame.spsr, target, &pstate_features(target, sctlr));
        frame.elr = vbar.wrapping_add(u64::from(vector_offset));
    }

    fn meet(&mut self, error: &Error) {
        if !meeting::meet() {
            let (id, pe) = (error.id, self.pe);
            log::line(format_args!("error text=nobody-met id={id} pe={pe}"));
        }
    }

    fn pass_time(&mut self) {
        let ticks = sysreg::cntfrq_el0() / 1_000_000 * HANDLING_US;
        let start = self.now_ticks();
        while self.now_ticks().saturating_sub(start) < ticks {}
    }

    fn event(&mut self, error: &Error, event: Event) {
        match event {
            Event::Raised => self.count(layout::COUNT_RAISED),
            Event::Delivered { .. } => self.count(layout::COUNT_DELIVERED),
            Event::Deferred(_) => self.count(layout::COUNT_DEFERRED),
            Event::Dropped(_) => self.count(layout::COUNT_DROPPED),
            Event::Taken | Event::Acked | Event::Handled | Event::Reset(_) => {}
        }
        // A storm's errors are told in one line at its end; the machine's end is told in any case.
        if !error.in_storm || matches!(event, Event::Reset(_)) {
            log_event(self.pe, error, event);
        }
    }

    fn storm_over(&mut self, first: &Error, counts: &StormCounts) {
        let (id, pe) = (first.id, self.pe);
        let StormCounts {
            raised,
            delivered,
            deferred,
            taken,
            acked,
            dropped,
        } = counts;
        log::line(format_args!(
            "storm id={id} pe={pe} raised={raised} delivered={delivered} deferred={deferred} \
             taken={taken} acked={acked} dropped={dropped}"
        ));
    }

    fn reset(&mut self, error: &Error, _reason: ResetReason) {
        bert::reset_with(&self.record(error, Severity::Fatal))
    }
}

fn log_event(pe: usize, error: &Error, event: Event) {
    let id = error.id;
    match event {
        Event::Raised => log_raised(pe, error),
        Event::Delivered {
            from,
            vector_offset,
            elr,
        } => {
            let from = from.name();
            log::line(format_args!(
                "delivered id={id} pe={pe} from={from} vector={vector_offset:#x} elr={elr:#x}"
            ));
        }
        Event::Deferred(reason) => {
            log::line(format_args!("deferred id={id} pe={pe} reason={reason}"));
        }
        Event::Taken => log::line(format_args!("taken id={id} pe={pe}")),
        Event::Acked => log::line(format_args!("acked id={id} pe={pe}")),
        Event::Handled => log::line(format_args!("handled id={id} pe={pe}")),
        Event::Dropped(reason) => {
            log::line(format_args!("dropped id={id} pe={pe} reason={reason}"));
        }
        Event::Reset(reason) => {
            let reason = reason.name();
            log::line(format_args!("reset reason={reason} id={id} pe={pe}"));
        }
    }
}

fn log_raised(pe: usize, error: &Error) {
    let (id, iss) = (error.id, error.iss.get());
    let severity = error.record.map_or("none", |severity| severity.name());
    let sync = error.abort.map_or("", |abort| match abort.fetch {
        true => " sync=fetch",
        false => " sync=data",
    });
    match error.pa.map(Pa::get) {
        Some(pa) => log::line(format_args!(
            "raised id={id} pe={pe} iss={iss:#x} sev={severity} pa={pa:#x}{sync}"
        )),
        None => log::line(format_args!(
            "raised id={id} pe={pe} iss={iss:#x} sev={severity}{sync}"
        )),
    }
}

/// Reads what shapes PSTATE at the target (`sctlr` is the target's).
fn pstate_features(target: Target, sctlr: u64) -> PstateFeatures {
    const SPAN: u64 = 1 << 23;
    const DSSBS: u64 = 1 << 44;
    const SPINTMASK: u64 = 1 << 62;
    let field = |register: u64, shift: u32| register >> shift & 0xf;
    let pfr1 = sysreg::id_aa64pfr1_el1();
    let host = hcr::E2H | hcr::TGE;
    PstateFeatures {
        span: (field(sysreg::id_aa64mmfr1_el1(), 20) != 0).then_some(sctlr & SPAN != 0),
        in_host: target == Target::El2 && sysreg::hcr_el2() & host == host,
        ssbs: (field(pfr1, 4) != 0).then_some(sctlr & DSSBS != 0),
        mte: field(pfr1, 8) >= 2,
        spintmask: (field(pfr1, 36) != 0).then_some(sctlr & SPINTMASK != 0),
        exlock: field(pfr1, 44) != 0 && sysreg::exception_lock(target == Target::El2),
        profiling_exception: field(sysreg::id_aa64dfr1_el1(), 48) != 0,
    }
}
