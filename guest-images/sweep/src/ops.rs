// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the rounds do, and what each may change.

use crate::device;
use crate::pair::Other;
use crate::registers::Registers;
use core::arch::global_asm;
use firebreak_abi::guest_map::{UART, VTIMER_INTID};
use firebreak_guest_rt::{gic, println, psci, read_sysreg, timer};

global_asm!(include_str!("rounds.S"));

/// The SGI that the guest sends to itself.
pub(crate) const SGI: u64 = 3;
/// From the start of a round to the expiry of its timer, in ticks.
const TIMER_TICKS: u64 = 200;
const UARTFR: u64 = 0x18;
const FEATURES: u64 = 0x8400_000a;
const CPU_SUSPEND: u64 = 0xc400_0001;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;

type Round = extern "C" fn(start_ticks: u64, registers: &mut Registers) -> u64;

macro_rules! rounds {
    ($($name:ident)*) => {
        unsafe extern "C" {
            $(safe fn $name(start_ticks: u64, registers: &mut Registers) -> u64;)*
        }
    };
}

rounds! {
    sweep_round_guest sweep_round_hvc sweep_round_hvc_trap sweep_round_smc sweep_round_load sweep_round_store
    sweep_round_sgi sweep_round_timer sweep_round_wfi sweep_round_console sweep_round_device
    sweep_round_receive sweep_round_serror sweep_round_touch
}

/// What it takes to prepare a round, and to look at it afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A call: x0 is the function, x1 its argument.
    Call(u64, u64),
    /// PSCI_VERSION, and a device register right behind it.
    CallThenDevice,
    /// A device register: its address, and what is stored.
    Device(u64, u64),
    /// The redistributor's GICR_ISENABLER0.
    Enable,
    /// An SGI to itself.
    Sgi,
    /// An SGI to the second vCPU.
    SgiToOther,
    /// CPU_ON of the second vCPU.
    CpuOn,
    /// The virtual timer, which expires while the round runs.
    Timer,
    /// The same, and a call that waits for it.
    TimerCall(u64),
    /// A line on the console.
    Console,
    /// The interrupt of a device that is passed through.
    Forwarded,
    /// A call that ends this life.
    End(u64),
    /// The same, with the device's interrupt taken by EL2 and not by the guest.
    EndLoud(u64),
    /// Nothing: an error ends this life, if one comes.
    Killed,
    /// An error takes a page, and it is told of it.
    LosesAPage,
    /// Nothing.
    Nothing,
}

/// A path.
pub(crate) struct Op {
    /// Name.
    pub(crate) name: &'static str,
    /// Its round.
    pub(crate) run: Round,
    /// Registers that hold results: bit n for xn.
    pub(crate) outputs: u64,
    /// What the second vCPU does meanwhile.
    pub(crate) other: Other,
    kind: Kind,
}

/// Waits for an interrupt, with these registers.
pub(crate) fn receive(registers: &mut Registers) {
    sweep_round_receive(0, registers);
}

/// Touches pages until one of them is gone, with these registers.
pub(crate) fn touch(registers: &mut Registers) {
    sweep_round_touch(0, registers);
}

const fn op(name: &'static str, run: Round, outputs: u64, kind: Kind) -> Op {
    Op {
        name,
        run,
        outputs,
        other: Other::Nobody,
        kind,
    }
}

impl Op {
    const fn with(self, other: Other) -> Self {
        Self { other, ..self }
    }
}

static OPS: [Op; 23] = [
    op("guest", sweep_round_guest, 0, Kind::Nothing),
    op("hvc", sweep_round_hvc, 1, Kind::Call(psci::VERSION, 0)),
    op(
        "hvc_features",
        sweep_round_hvc,
        1,
        Kind::Call(FEATURES, psci::VERSION),
    ),
    op(
        "hvc_trap",
        sweep_round_hvc_trap,
        1 | 1 << 5,
        Kind::CallThenDevice,
    ),
    op("smc", sweep_round_smc, 1, Kind::Call(psci::VERSION, 0)),
    op(
        "mmio_gicd",
        sweep_round_load,
        1,
        Kind::Device(gic::GICD_TYPER, 0),
    ),
    op("mmio_gicr", sweep_round_store, 0, Kind::Enable),
    op(
        "mmio_uart",
        sweep_round_load,
        1,
        Kind::Device(UART.get() + UARTFR, 0),
    ),
    op("sgi", sweep_round_sgi, 0, Kind::Sgi),
    op("irq_timer", sweep_round_timer, 0, Kind::Timer),
    op("wfi", sweep_round_wfi, 0, Kind::Timer),
    op("suspend", sweep_round_hvc, 1, Kind::TimerCall(CPU_SUSPEND)),
    op("console", sweep_round_console, 0, Kind::Console),
    op("restart", sweep_round_hvc, 0, Kind::End(SYSTEM_RESET)),
    op("off", sweep_round_hvc, 0, Kind::End(SYSTEM_OFF)),
    op("irq_device", sweep_round_device, 0, Kind::Forwarded),
    op("quiesce", sweep_round_hvc, 0, Kind::EndLoud(SYSTEM_RESET)),
    op("killed", sweep_round_guest, 0, Kind::Killed),
    op("pair_sgi", sweep_round_sgi, 0, Kind::SgiToOther).with(Other::Receives),
    op("pair_on", sweep_round_hvc, 1, Kind::CpuOn).with(Other::IsStarted),
    op("pair_restart", sweep_round_hvc, 0, Kind::End(SYSTEM_RESET)).with(Other::Waits),
    op("pair_killed", sweep_round_guest, 0, Kind::Killed).with(Other::Waits),
    op(
        "pair_retire",
        sweep_round_serror,
        1 << 29 | 1 << 30,
        Kind::LosesAPage,
    )
    .with(Other::Touches),
];

impl Op {
    /// Returns the path of that name.
    pub(crate) fn named(name: &[u8]) -> Option<&'static Self> {
        OPS.iter().find(|op| op.name.as_bytes() == name)
    }

    /// Says whether the round may end this life of the partition.
    pub(crate) fn ends_life(&self) -> bool {
        matches!(self.kind, Kind::End(_) | Kind::EndLoud(_) | Kind::Killed)
    }

    /// Says whether the device that is passed through takes part.
    pub(crate) fn has_device(&self) -> bool {
        matches!(self.kind, Kind::Forwarded | Kind::EndLoud(_))
    }

    /// Puts into the registers what the round needs there; arms the timer.
    pub(crate) fn prepare(&self, registers: &mut Registers, start_ticks: u64) {
        let x = &mut registers.x;
        let call = self.other.ask();
        match self.kind {
            Kind::Nothing | Kind::Killed | Kind::LosesAPage => {}
            Kind::End(function) => x[0] = function,
            Kind::EndLoud(function) => {
                device::ring();
                x[0] = function;
            }
            Kind::Forwarded => (x[0], x[1]) = (device::now(), device::MATCH),
            Kind::Call(function, argument) => (x[0], x[1]) = (function, argument),
            Kind::CallThenDevice => (x[0], x[4]) = (psci::VERSION, gic::GICD_TYPER),
            Kind::Device(address, value) => (x[0], x[1]) = (value, address),
            Kind::Enable => (x[0], x[1]) = (1 << SGI, gic::isenabler0()),
            Kind::Sgi => x[0] = gic::sgi_to(0, SGI),
            Kind::SgiToOther => x[0] = gic::sgi_to(1, SGI),
            Kind::CpuOn => {
                x[0] = psci::CPU_ON;
                (x[1], x[2], x[3]) = (call[0], call[1], call[2]);
            }
            Kind::Console => (x[0], x[1], x[2]) = (b'.'.into(), UART.get(), b'\n'.into()),
            Kind::Timer => arm(start_ticks),
            Kind::TimerCall(function) => {
                (x[0], x[1]) = (function, 0);
                arm(start_ticks);
            }
        }
    }

    /// Checks the results and what the round was to leave behind. Returns the differences.
    pub(crate) fn finish(&self, found: &Registers, round: u64) -> u64 {
        let mut bad = 0;
        let mut check = |what: &str, found: u64, wanted: u64| {
            if found != wanted {
                println!("sweep: bad round={round} {what}={found:#x} wanted={wanted:#x}");
                bad += 1;
            }
        };
        match self.kind {
            Kind::CallThenDevice => {
                check("version", found.x[0], 0x1_0001);
                let again = u64::from(firebreak_guest_rt::mmio::read32(gic::GICD_TYPER));
                check("register", found.x[5], again);
            }
            Kind::Call(function, _) if function == psci::VERSION => {
                check("version", found.x[0], 0x1_0001)
            }
            Kind::Call(..) | Kind::TimerCall(_) | Kind::CpuOn => check("result", found.x[0], 0),
            Kind::Device(address, _) => {
                // The same without anybody's striking: not in a round.
                let again = u64::from(firebreak_guest_rt::mmio::read32(address));
                check("register", found.x[0], again);
            }
            Kind::End(_) | Kind::EndLoud(_) => check("returned from the end", 1, 0),
            Kind::Nothing
            | Kind::Killed
            | Kind::LosesAPage
            | Kind::Enable
            | Kind::Console
            | Kind::Sgi
            | Kind::Forwarded
            | Kind::SgiToOther
            | Kind::Timer => {}
        }
        let wanted = match self.kind {
            Kind::Sgi => Some(SGI),
            Kind::Forwarded => Some(u64::from(device::INTID)),
            Kind::Timer | Kind::TimerCall(_) => Some(u64::from(VTIMER_INTID)),
            _ => None,
        };
        let pending = gic::acknowledge();
        check("intid", pending.map_or(0, u64::from), wanted.unwrap_or(0));
        if let Some(intid) = pending {
            if u64::from(intid) == u64::from(VTIMER_INTID) {
                timer::stop();
            }
            if intid == device::INTID {
                device::clear();
            }
            gic::end(intid);
        }
        check("second intid", gic::acknowledge().map_or(0, u64::from), 0);
        bad + self.other.await_answer(round)
    }
}

fn arm(start_ticks: u64) {
    let behind = read_sysreg!("cntpct_el0").wrapping_sub(timer::now());
    timer::arm((start_ticks + TIMER_TICKS).wrapping_sub(behind));
}
