// SPDX-License-Identifier: MIT OR Apache-2.0
//! PL011 UART (Arm DDI 0183), as complete as drivers can tell.
//!
//! Transmission takes no time, so the transmit FIFO is empty, until the kernel says that there is no
//! room on the line that all guests share ([`Pl011::set_room`]): then it is full, and drivers wait.
//! Reception has no wire either,
//! so nothing is lost while the guest is slow: up to [`RX_CAPACITY`] bytes wait, and the kernel
//! can ask for [`Pl011::room`] first. The receive timeout, 32 bit periods on a real wire, passes
//! at once.
//!
//! Like QEMU's model and unlike the manual, data flow does not depend on UARTCR: bare-metal
//! guests that never enable their UART are common.

use heapless::Deque;

use crate::access::{Effects, Line, PRIMECELL_ID, Read, cut, id_byte};

/// Bytes that wait for the guest to read them.
pub const RX_CAPACITY: usize = 64;
/// Depth of the FIFO that the identification registers promise (r1p5): trigger levels are
/// fractions of it.
const FIFO_DEPTH: usize = 32;
/// Peripheral identification: part 0x011, designer Arm, revision r1p5.
const PERIPHERAL_ID: u32 = 0x0034_1011;

/// Offsets of the registers.
pub mod reg {
    /// Data.
    pub const DR: u64 = 0x000;
    /// Receive status; a write clears it.
    pub const RSR_ECR: u64 = 0x004;
    /// Flags.
    pub const FR: u64 = 0x018;
    /// IrDA low-power counter.
    pub const ILPR: u64 = 0x020;
    /// Integer baud rate divisor.
    pub const IBRD: u64 = 0x024;
    /// Fractional baud rate divisor.
    pub const FBRD: u64 = 0x028;
    /// Line control.
    pub const LCR_H: u64 = 0x02c;
    /// Control.
    pub const CR: u64 = 0x030;
    /// Interrupt FIFO level select.
    pub const IFLS: u64 = 0x034;
    /// Interrupt mask set/clear.
    pub const IMSC: u64 = 0x038;
    /// Raw interrupt status.
    pub const RIS: u64 = 0x03c;
    /// Masked interrupt status.
    pub const MIS: u64 = 0x040;
    /// Interrupt clear.
    pub const ICR: u64 = 0x044;
    /// DMA control.
    pub const DMACR: u64 = 0x048;
}

/// Bits of UARTFR.
pub mod flag {
    /// Sending: while anything waits in the transmit FIFO.
    pub const BUSY: u32 = 1 << 3;
    /// Receive FIFO empty.
    pub const RXFE: u32 = 1 << 4;
    /// Transmit FIFO full.
    pub const TXFF: u32 = 1 << 5;
    /// Receive FIFO full.
    pub const RXFF: u32 = 1 << 6;
    /// Transmit FIFO empty: always when it is not full.
    pub const TXFE: u32 = 1 << 7;
}

/// Bits of UARTIMSC, UARTRIS, UARTMIS and UARTICR.
pub mod int {
    /// Receive FIFO at its trigger level.
    pub const RX: u32 = 1 << 4;
    /// Transmit FIFO at its trigger level.
    pub const TX: u32 = 1 << 5;
    /// Data waits in the receive FIFO.
    pub const RX_TIMEOUT: u32 = 1 << 6;
    /// A byte was lost.
    pub const OVERRUN: u32 = 1 << 10;
    /// All eleven.
    pub const ALL: u32 = 0x7ff;
}

/// UARTLCR_H.FEN: FIFOs enabled.
const LCR_H_FEN: u32 = 1 << 4;
/// UARTCR.LBE: loopback.
const CR_LBE: u32 = 1 << 7;
/// UARTCR after reset: TXE and RXE.
const CR_RESET: u32 = 0x300;
/// UARTIFLS after reset: both triggers at one half.
const IFLS_RESET: u32 = 0x12;
/// UARTDR.OE: bytes before this one were lost.
const DR_OVERRUN: u16 = 1 << 11;
/// UARTRSR.OE.
const RSR_OVERRUN: u32 = 1 << 3;

/// The UART of one guest.
#[derive(Clone, Debug)]
pub struct Pl011 {
    flags: u32,
    rx: Deque<u16, RX_CAPACITY>,
    lost_before_next: bool,
    overruns: u64,
    rsr: u32,
    ilpr: u32,
    ibrd: u32,
    fbrd: u32,
    lcr_h: u32,
    cr: u32,
    ifls: u32,
    imsc: u32,
    ris: u32,
    dmacr: u32,
    /// The transmit FIFO is full.
    full: bool,
    line: Line,
}

impl Default for Pl011 {
    fn default() -> Self {
        Self::new()
    }
}

impl Pl011 {
    /// Makes a UART as it is after reset.
    pub const fn new() -> Self {
        Self {
            flags: flag::TXFE | flag::RXFE,
            rx: Deque::new(),
            lost_before_next: false,
            overruns: 0,
            rsr: 0,
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            lcr_h: 0,
            cr: CR_RESET,
            ifls: IFLS_RESET,
            imsc: 0,
            ris: 0,
            dmacr: 0,
            full: false,
            line: Line::LOW,
        }
    }

    /// Puts everything back as it was after reset; bytes that nobody read are gone.
    pub fn reset(&mut self) -> Effects {
        let mut line = self.line;
        *self = Self::new();
        let irq = line.set(false);
        Effects { output: None, irq }
    }

    /// Returns how many bytes still fit in.
    pub fn room(&self) -> usize {
        RX_CAPACITY - self.rx.len()
    }

    /// Returns how many received bytes were lost since reset.
    pub const fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Says whether the interrupt line is up.
    #[inline]
    pub const fn irq_is_high(&self) -> bool {
        self.line.is_high()
    }

    /// Reads a register. A status read, which drivers poll, is answered first.
    #[inline]
    pub fn read(&mut self, offset: u64, width_bytes: u8) -> Read {
        if offset == reg::FR {
            return Read::plain(self.flags as u64);
        }
        self.read_other(offset, width_bytes)
    }

    fn read_other(&mut self, offset: u64, width_bytes: u8) -> Read {
        let register = match offset & !3 {
            // Only an access that holds the data byte takes it.
            reg::DR if offset == reg::DR => {
                let value = self.take();
                let irq = self.update_line();
                return Read {
                    value: cut(u32::from(value), offset, width_bytes),
                    irq,
                };
            }
            reg::RSR_ECR => self.rsr,
            reg::FR => self.flags,
            reg::ILPR => self.ilpr,
            reg::IBRD => self.ibrd,
            reg::FBRD => self.fbrd,
            reg::LCR_H => self.lcr_h,
            reg::CR => self.cr,
            reg::IFLS => self.ifls,
            reg::IMSC => self.imsc,
            reg::RIS => self.ris,
            reg::MIS => self.ris & self.imsc,
            reg::DMACR => self.dmacr,
            id @ 0xfe0..=0xfec => id_byte(PERIPHERAL_ID, id >> 2),
            id @ 0xff0..=0xffc => id_byte(PRIMECELL_ID, id >> 2),
            _ => 0,
        };
        Read::plain(cut(register, offset, width_bytes))
    }

    /// Writes a register. The width does not matter: every register's bits start at bit 0, and
    /// a write that does not start at its first byte is ignored.
    #[inline]
    pub fn write(&mut self, offset: u64, _width_bytes: u8, value: u64) -> Effects {
        let value = (value & 0xffff_ffff) as u32;
        if offset == reg::DR {
            return self.transmit((value & 0xff) as u8);
        }
        match offset {
            reg::RSR_ECR => self.rsr = 0,
            reg::ILPR => self.ilpr = value & 0xff,
            reg::IBRD => self.ibrd = value & 0xffff,
            reg::FBRD => self.fbrd = value & 0x3f,
            reg::LCR_H => self.set_line_control(value & 0xff),
            reg::CR => self.cr = value & 0xffff,
            reg::IFLS => self.ifls = value & 0x3f,
            reg::IMSC => self.imsc = value & int::ALL,
            reg::ICR => self.ris &= !value,
            reg::DMACR => self.dmacr = value & 0b111,
            _ => {}
        }
        Effects {
            output: None,
            irq: self.update_line(),
        }
    }

    /// Receives a byte from the console. One that does not fit is lost, counted, and reported
    /// to the guest as an overrun.
    pub fn receive(&mut self, byte: u8) -> Effects {
        self.put(byte);
        Effects {
            output: None,
            irq: self.update_line(),
        }
    }

    /// Says whether there is room on the line: if not, the transmit FIFO is full and its interrupt
    /// waits until there is.
    pub fn set_room(&mut self, room: bool) -> Effects {
        if self.full == room {
            self.full = !room;
            self.update_flags();
            if room {
                self.ris |= int::TX;
            } else {
                self.ris &= !int::TX;
            }
        }
        Effects {
            output: None,
            irq: self.update_line(),
        }
    }

    /// Sends a byte: it leaves at once, so the FIFO falls through its trigger level again, unless it
    /// is full. Whoever writes to a full one has its byte judged all the same.
    fn transmit(&mut self, byte: u8) -> Effects {
        if self.cr & CR_LBE != 0 {
            self.put(byte);
        }
        if !self.full {
            self.ris |= int::TX;
        }
        Effects {
            output: Some(byte),
            irq: self.update_line(),
        }
    }

    fn put(&mut self, byte: u8) {
        let lost = if self.lost_before_next { DR_OVERRUN } else { 0 };
        if self.rx.push_back(u16::from(byte) | lost).is_err() {
            self.lost_before_next = true;
            self.overruns = self.overruns.saturating_add(1);
            self.rsr |= RSR_OVERRUN;
            self.ris |= int::OVERRUN;
            return;
        }
        self.lost_before_next = false;
        self.ris |= int::RX_TIMEOUT;
        if self.rx.len() >= self.rx_trigger() {
            self.ris |= int::RX;
        }
        self.update_flags();
    }

    fn take(&mut self) -> u16 {
        let Some(value) = self.rx.pop_front() else {
            return 0;
        };
        // The status register goes with the character that was just read.
        self.rsr = u32::from(value >> 8) & 0xf;
        if self.rx.len() < self.rx_trigger() {
            self.ris &= !int::RX;
        }
        if self.rx.is_empty() {
            self.ris &= !int::RX_TIMEOUT;
        }
        self.update_flags();
        value
    }

    /// Returns how many bytes raise the receive interrupt: without FIFOs, one.
    fn rx_trigger(&self) -> usize {
        if self.lcr_h & LCR_H_FEN == 0 {
            return 1;
        }
        match (self.ifls >> 3) & 0b111 {
            0 => FIFO_DEPTH / 8,
            1 => FIFO_DEPTH / 4,
            2 => FIFO_DEPTH / 2,
            3 => FIFO_DEPTH * 3 / 4,
            _ => FIFO_DEPTH * 7 / 8,
        }
    }

    /// Sets line control; enabling or disabling the FIFOs empties them.
    fn set_line_control(&mut self, value: u32) {
        if (self.lcr_h ^ value) & LCR_H_FEN != 0 {
            self.rx.clear();
            self.lost_before_next = false;
            self.ris &= !(int::RX | int::RX_TIMEOUT);
        }
        self.lcr_h = value;
        self.update_flags();
    }

    fn update_flags(&mut self) {
        let full = match self.lcr_h & LCR_H_FEN {
            0 => !self.rx.is_empty(),
            _ => self.rx.is_full(),
        };
        let transmit = if self.full {
            // Drivers look at either.
            flag::TXFF | flag::BUSY
        } else {
            flag::TXFE
        };
        self.flags = transmit
            | if self.rx.is_empty() { flag::RXFE } else { 0 }
            | if full { flag::RXFF } else { 0 };
    }

    #[inline]
    fn update_line(&mut self) -> Option<crate::IrqLevel> {
        self.line.set(self.ris & self.imsc != 0)
    }
}
