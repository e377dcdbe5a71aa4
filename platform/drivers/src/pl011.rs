// SPDX-License-Identifier: MIT OR Apache-2.0
//! PL011 UART, polled, with the receive interrupt as an option.
//!
//! All accesses are volatile and 32 bits wide (ARM DDI 0183, "Programmer's model"). Baud rate
//! and line control are left as firmware or QEMU set them: QEMU ignores them, and a board's
//! firmware has already printed with the values that fit its clock.

use core::fmt;

/// Data register.
const DR: usize = 0x000;
/// Flag register.
const FR: usize = 0x018;
/// Integer and fractional baud rate divisor.
const IBRD: usize = 0x024;
const FBRD: usize = 0x028;
/// Line control register.
const LCR_H: usize = 0x02c;
/// Control register.
const CR: usize = 0x030;
/// Interrupt mask set/clear register.
const IMSC: usize = 0x038;
/// Interrupt clear register.
const ICR: usize = 0x044;

/// Sending, or about to (FR\[3\]).
const FR_BUSY: u32 = 1 << 3;
/// Receive FIFO empty (FR\[4\]).
const FR_RXFE: u32 = 1 << 4;
/// Transmit FIFO full (FR\[5\]).
const FR_TXFF: u32 = 1 << 5;
/// UART, transmitter and receiver enabled (CR\[0\], \[8\], \[9\]).
const CR_ENABLED: u32 = 1 << 0 | 1 << 8 | 1 << 9;
/// Eight bits, FIFOs on (LCR_H\[6:5\], \[4\]).
const LCR_H_8BIT_FIFO: u32 = 0b11 << 5 | 1 << 4;
/// Receive and receive-timeout interrupts (IMSC and ICR\[4\], \[6\]).
const INT_RX: u32 = 1 << 4 | 1 << 6;
/// Every interrupt (ICR\[10:0\]).
const INT_ALL: u32 = 0x7ff;

/// Times that [`Pl011::write_byte`] looks for room before it gives the byte up.
const WRITE_SPINS: u32 = 1_000_000;

/// A PL011 at an address.
///
/// Writing needs `&mut`, so two writers need a lock between them; the driver has none of its own.
#[derive(Debug)]
pub struct Pl011 {
    base: usize,
}

impl Pl011 {
    /// Takes the UART whose registers start at `base`, as the caller's translation regime sees it.
    ///
    /// # Safety
    ///
    /// For as long as the value lives, `base` must be the start of 4 KiB of PL011 registers (or
    /// of an emulation of them) mapped as device memory, or used with the MMU off, and nobody
    /// else may drive them without the caller's knowing.
    pub const unsafe fn new(base: usize) -> Self {
        Self { base }
    }

    /// Enables the UART for 8-bit transfers, with every interrupt masked and cleared.
    pub fn enable(&mut self) {
        self.write(IMSC, 0);
        self.write(ICR, INT_ALL);
        // LCR_H is written while the UART is off (ARM DDI 0183, 3.3.8), and what the firmware still
        // sends is let out before; a line that never falls silent is not waited for.
        for _ in 0..WRITE_SPINS {
            if self.read(FR) & FR_BUSY == 0 {
                break;
            }
            core::hint::spin_loop();
        }
        self.write(CR, 0);
        self.write(LCR_H, LCR_H_8BIT_FIFO);
        self.write(CR, CR_ENABLED);
    }

    /// Returns the baud rate divisor: its integer, and its fraction in 64ths (IBRD\[15:0\], FBRD\[5:0\]).
    pub fn divisor(&self) -> (u16, u8) {
        (
            (self.read(IBRD) & 0xffff) as u16,
            (self.read(FBRD) & 0x3f) as u8,
        )
    }

    /// Sends one byte, waiting for room in the FIFO.
    ///
    /// The wait is bounded: a UART whose FIFO never empties loses the byte instead of hanging
    /// its caller.
    pub fn write_byte(&mut self, byte: u8) {
        for _ in 0..WRITE_SPINS {
            if self.can_write() {
                break;
            }
            core::hint::spin_loop();
        }
        self.write(DR, u32::from(byte));
    }

    /// Sends bytes as they are.
    pub fn write_bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_byte(byte);
        }
    }

    /// Says whether [`Self::write_byte`] would not wait.
    #[inline]
    pub fn can_write(&self) -> bool {
        self.read(FR) & FR_TXFF == 0
    }

    /// Takes one received byte, or `None` when there is none.
    #[inline]
    pub fn read_byte(&mut self) -> Option<u8> {
        if self.read(FR) & FR_RXFE != 0 {
            return None;
        }
        // The bits above are the byte's error flags, which no caller has a use for.
        Some((self.read(DR) & 0xff) as u8)
    }

    /// Lets received bytes raise the UART's interrupt.
    pub fn enable_rx_interrupt(&mut self) {
        self.clear_rx_interrupt();
        self.write(IMSC, INT_RX);
    }

    /// Clears the receive interrupt. Call it *before* draining with [`Self::read_byte`].
    ///
    /// A byte that arrives between the last read and a clear that follows it would lose its
    /// interrupt for ever: the FIFO is not empty any more, so no later byte raises a new one.
    pub fn clear_rx_interrupt(&mut self) {
        self.write(ICR, INT_RX);
    }

    #[inline]
    fn read(&self, offset: usize) -> u32 {
        let register = core::ptr::with_exposed_provenance::<u32>(self.base.wrapping_add(offset));
        // SAFETY: `new`'s caller promised PL011 registers at `base`; `offset` is one of the
        // 4-byte aligned constants above, inside their 4 KiB.
        unsafe { register.read_volatile() }
    }

    #[inline]
    fn write(&mut self, offset: usize, value: u32) {
        let register =
            core::ptr::with_exposed_provenance_mut::<u32>(self.base.wrapping_add(offset));
        // SAFETY: as in `read`; `&mut self` keeps two writers of this value apart.
        unsafe { register.write_volatile(value) }
    }
}

impl fmt::Write for Pl011 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_bytes(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::boxed::Box;

    /// Plain memory in place of the registers.
    fn with_registers(test: impl FnOnce(&mut Pl011, *mut u32)) {
        let registers = Box::into_raw(Box::new([0_u32; 1024])).cast::<u32>();
        // SAFETY: the memory is as long as the register frame and nobody else uses it; plain
        // memory has no side effects.
        let mut uart = unsafe { Pl011::new(registers.expose_provenance()) };
        test(&mut uart, registers);
        // SAFETY: `registers` came from `Box::into_raw` of this very type above.
        drop(unsafe { Box::from_raw(registers.cast::<[u32; 1024]>()) });
    }

    fn poke(registers: *mut u32, offset: usize, value: u32) {
        // SAFETY: `offset` is inside the 4 KiB that `with_registers` made.
        unsafe { registers.wrapping_byte_add(offset).write_volatile(value) }
    }

    fn peek(registers: *mut u32, offset: usize) -> u32 {
        // SAFETY: `offset` is inside the 4 KiB that `with_registers` made.
        unsafe { registers.wrapping_byte_add(offset).read_volatile() }
    }

    #[test]
    fn reads_nothing_from_an_empty_fifo_and_drops_error_flags() {
        with_registers(|uart, registers| {
            poke(registers, DR, 0x341);
            poke(registers, FR, FR_RXFE);
            assert_eq!(uart.read_byte(), None);
            poke(registers, FR, 0);
            assert_eq!(uart.read_byte(), Some(0x41));
        });
    }

    #[test]
    fn a_full_fifo_does_not_hang_the_writer() {
        with_registers(|uart, registers| {
            poke(registers, FR, FR_TXFF);
            assert!(!uart.can_write());
            uart.write_byte(b'x');
            assert_eq!(peek(registers, DR), u32::from(b'x'));
        });
    }

    #[test]
    fn the_divisor_is_what_the_firmware_left_there() {
        with_registers(|uart, registers| {
            assert_eq!(uart.divisor(), (0, 0));
            poke(registers, IBRD, 0xffff_000d);
            poke(registers, FBRD, 0xffff_ffc1);
            uart.enable();
            assert_eq!(uart.divisor(), (13, 1));
        });
    }

    #[test]
    fn receive_interrupt_is_cleared_alone() {
        with_registers(|uart, registers| {
            uart.enable();
            assert_eq!(peek(registers, CR), 0x301);
            assert_eq!(peek(registers, IMSC), 0);
            uart.enable_rx_interrupt();
            assert_eq!(peek(registers, ICR), 0x50);
            assert_eq!(peek(registers, IMSC), 0x50);
        });
    }
}
