// SPDX-License-Identifier: MIT OR Apache-2.0
//! The typist, on the machine: the console's own UART, in loopback.

use firebreak_abi::MAX_PES;
use firebreak_el3::typist::{Text, Typist};
use spin::Mutex;

use super::{lock, sysreg};
use crate::el3::mmio::Reg32;

/// Console of QEMU `virt`, which is EL2's.
const CONSOLE: usize = 0x0900_0000;
/// UARTCR: UART, transmitter and receiver enabled, as EL2 has it; and loopback.
const CR_ENABLED: u32 = 0x301;
const CR_LOOPBACK: u32 = 1 << 7;

/// UARTDR and UARTCR.
///
/// SAFETY: registers of the PL011 that stands there on QEMU `virt`; `boot.S` maps it as device memory.
const DATA: Reg32 = unsafe { Reg32::new(CONSOLE) };
/// SAFETY: as above.
const CONTROL: Reg32 = unsafe { Reg32::new(CONSOLE + 0x30) };

/// The typist of each PE.
static TYPIST: [Mutex<Option<Typist>>; MAX_PES] = [const { Mutex::new(None) }; MAX_PES];

/// Types a text from now on, by the timer of this PE; or none any more.
pub(in crate::el3) fn start(pe: usize, text: Option<Text>) {
    if let Some(slot) = TYPIST.get(pe) {
        let now = sysreg::cntpct_el0();
        lock::with(slot, |typist| {
            *typist = text.map(|text| Typist::new(text, now));
        });
    }
}

/// Types what is due. Returns when the next stroke comes.
///
/// What is typed goes out on the line as well: a PL011 in loopback should keep it, QEMU's does not.
pub(super) fn step(pe: usize) -> Option<u64> {
    lock::with(TYPIST.get(pe)?, |slot| {
        let typist = slot.as_mut()?;
        if let Some(stroke) = typist.step(sysreg::cntpct_el0()) {
            CONTROL.write(CR_ENABLED | CR_LOOPBACK);
            for byte in stroke.bytes() {
                DATA.write(u32::from(*byte));
            }
            CONTROL.write(CR_ENABLED);
        }
        Some(typist.deadline())
    })
}
