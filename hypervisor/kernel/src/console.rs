// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one serial line: events, guests' consoles, what is typed.

use crate::blackbox;
use crate::sync::{FairGuard, FairLock};
use core::fmt::{self, Write};
use firebreak_arch::{TaskCtx, sysreg};
use firebreak_blackbox::log::EntryWriter;
use firebreak_drivers::pl011::Pl011;
use firebreak_manifest::Uart;
use firebreak_wire::{
    ConsoleBudget, ConsoleEncoder, Divisor, Event, Input, InputDecoder, LineShares, LineSpeed,
    write_event,
};
use heapless::HistoryBuf;
use spin::Once;

/// Who may put how much on the line: known as soon as it is.
static SHARES: Once<LineShares> = Once::new();

/// Divides the line, once, at boot.
pub(crate) fn divide(speed: LineSpeed, partitions: usize, pes: usize) {
    SHARES.call_once(|| LineShares::of(speed, partitions, pes));
}

/// Returns who may put how much on the line.
pub(crate) fn shares() -> LineShares {
    let undivided = LineShares::of(LineSpeed::Emulated, 1, 1);
    SHARES.get().copied().unwrap_or(undivided)
}

/// The physical console.
pub(crate) static CONSOLE: FairLock<Console> = FairLock::new(Console {
    uart: None,
    input: None,
});

/// The physical UART and what decodes its input.
pub(crate) struct Console {
    uart: Option<Pl011>,
    input: Option<InputDecoder>,
}

impl Console {
    /// Names the UART, and finds out how fast its line is.
    ///
    /// # Safety
    ///
    /// Its base must be a PL011 that EL2 alone uses, reachable at that address.
    pub(crate) unsafe fn attach(&mut self, described: &Uart) -> LineSpeed {
        // SAFETY: the caller's claim.
        let mut uart = unsafe { Pl011::new(described.base.get() as usize) };
        let (integer, fraction) = uart.divisor();
        uart.enable();
        self.uart = Some(uart);
        let divisor = Divisor { integer, fraction };
        LineSpeed::find(described.current_speed, described.clock_hz, divisor)
    }

    /// Accepts input for that many partitions from now on.
    pub(crate) fn listen(&mut self, partitions: u8) {
        self.input = Some(InputDecoder::new(partitions));
        if let Some(uart) = &mut self.uart {
            uart.enable_rx_interrupt();
        }
    }

    /// Quiets the receive interrupt. Before the FIFO is drained, never after: a byte that comes
    /// in between would raise an interrupt that is then cleared unseen.
    pub(crate) fn begin_input(&mut self) {
        if let Some(uart) = &mut self.uart {
            uart.clear_rx_interrupt();
        }
    }

    /// Takes the next typed byte and says whom it is for. Outer `None`: nothing is left.
    pub(crate) fn next_input(&mut self) -> Option<Option<Input>> {
        let byte = self.uart.as_mut()?.read_byte()?;
        Some(self.input.as_mut().and_then(|input| input.push(byte)))
    }
}

impl Write for Console {
    #[inline(never)]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(uart) = &mut self.uart {
            uart.write_bytes(text.as_bytes());
        }
        Ok(())
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        write_char(self, c)
    }
}

/// Writes one character as text: the one place that encodes, for all sinks.
#[inline(never)]
pub(crate) fn write_char(sink: &mut dyn Write, c: char) -> fmt::Result {
    sink.write_str(c.encode_utf8(&mut [0; 4]))
}

/// Events that are remembered for the dump of a dying partition.
const REMEMBERED: usize = 8;

/// The last events: when, and which.
static HISTORY: FairLock<HistoryBuf<(u64, &'static str), REMEMBERED>> =
    FairLock::new(HistoryBuf::new());

/// Calls `tell` with the time and the name of each of the last events, oldest first.
pub(crate) fn last_events(ctx: &TaskCtx, mut tell: impl FnMut(u64, &'static str)) {
    for (ticks, name) in HISTORY.lock(ctx).oldest_ordered() {
        tell(*ticks, name);
    }
}

/// Says whether somebody holds the list of the last events.
pub(crate) fn is_history_locked() -> bool {
    HISTORY.is_locked()
}

/// Reports an event.
pub(crate) fn emit(ctx: &TaskCtx, event: &Event<'_>) {
    HISTORY
        .lock(ctx)
        .write((sysreg::cntpct_el0(), event.name()));
    write_logged(&mut CONSOLE.lock(ctx), event);
}

/// Writes an event to the line, and into the log that survives a reset.
pub(crate) fn write_logged(console: &mut Console, event: &Event<'_>) {
    let now = sysreg::cntpct_el0();
    let Some(entry) = blackbox::entry(now) else {
        // The UART does not fail.
        let _ = write_event(console, now, event);
        return;
    };
    let mut both = Both { console, entry };
    // Neither fails: the log cuts what is too long.
    let _ = write_event(&mut both, now, event);
    blackbox::keep(both.entry.finish());
}

/// The line and the log.
struct Both<'a> {
    console: &'a mut Console,
    entry: EntryWriter<'static>,
}

impl Write for Both<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.entry.write_str(text)?;
        self.console.write_str(text)
    }
}

/// Writes one line of the hypervisor's own words.
pub(crate) fn say(ctx: &TaskCtx, arguments: fmt::Arguments<'_>) {
    let mut console = CONSOLE.lock(ctx);
    // The UART does not fail.
    let _ = writeln!(console, "firebreak: {arguments}");
}

/// Takes the physical console when there is something to write, and keeps it while it lives: a
/// frame is not torn, and a byte that completes none does not wait for the line.
struct LazyConsole<'a> {
    ctx: &'a TaskCtx,
    guard: Option<FairGuard<'static, Console>>,
    /// What was put on the line.
    bytes: u64,
}

impl<'a> LazyConsole<'a> {
    fn new(ctx: &'a TaskCtx) -> Self {
        Self {
            ctx,
            guard: None,
            bytes: 0,
        }
    }
}

impl Write for LazyConsole<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let ctx = self.ctx;
        self.bytes += text.len() as u64;
        self.guard
            .get_or_insert_with(|| CONSOLE.lock(ctx))
            .write_str(text)
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        write_char(self, c)
    }
}

/// What a guest prints, on its way to the line.
pub(crate) struct GuestConsole {
    encoder: ConsoleEncoder,
    budget: ConsoleBudget,
    /// The guest was told to wait.
    full: bool,
}

/// What is left to do for a console.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rest {
    /// A half line waits.
    pub(crate) half_line: bool,
    /// The guest has to wait until then, in ticks of CNTPCT.
    pub(crate) full_until: Option<u64>,
    /// Whether there is room, if that is news to the guest.
    pub(crate) room: Option<bool>,
}

impl GuestConsole {
    /// Makes an empty one.
    pub(crate) fn new() -> Self {
        Self {
            encoder: ConsoleEncoder::new(),
            budget: Self::full_budget(),
            full: false,
        }
    }

    fn full_budget() -> ConsoleBudget {
        ConsoleBudget::new(&shares(), sysreg::cntfrq_el0(), sysreg::cntpct_el0())
    }

    /// Takes one byte.
    pub(crate) fn push(&mut self, ctx: &TaskCtx, name: &str, byte: u8) -> Rest {
        let now = sysreg::cntpct_el0();
        if self.budget.admits(now) {
            self.tell_suppressed(ctx, name);
            let mut console = LazyConsole::new(ctx);
            let _ = self.encoder.push(byte, name, &mut console);
            self.budget.spend(console.bytes);
        }
        self.rest(now)
    }

    /// Writes a half line out.
    pub(crate) fn flush(&mut self, ctx: &TaskCtx, name: &str) -> Rest {
        let mut console = LazyConsole::new(ctx);
        let _ = self.encoder.flush(name, &mut console);
        self.budget.spend(console.bytes);
        self.rest(sysreg::cntpct_el0())
    }

    fn rest(&mut self, now: u64) -> Rest {
        let full_until = if self.full || self.budget.is_full(now) {
            self.budget.opens_at(now)
        } else {
            None
        };
        let full = full_until.is_some();
        let news = self.full != full;
        self.full = full;
        Rest {
            half_line: self.encoder.has_half_line(),
            full_until,
            room: news.then_some(!full),
        }
    }

    /// Writes out what the guest left behind when it died. Its next life, of which there are not
    /// many, starts with a full budget: its first words are wanted.
    pub(crate) fn finish(&mut self, ctx: &TaskCtx, name: &str) {
        {
            // The console is given back before the next line wants it.
            let mut console = LazyConsole::new(ctx);
            let _ = self.encoder.finish(name, &mut console);
        }
        self.tell_suppressed(ctx, name);
        self.budget = Self::full_budget();
        self.full = false;
    }

    fn tell_suppressed(&mut self, ctx: &TaskCtx, name: &str) {
        let count = self.budget.take_suppressed();
        if count > 0 {
            emit(ctx, &Event::Suppressed { what: name, count });
        }
    }
}
