// SPDX-License-Identifier: MIT OR Apache-2.0
//! PL011: identification, FIFO borders, interrupts, and a driver that works as Linux's does.

use std::collections::VecDeque;

use firebreak_vdev::pl011::{RX_CAPACITY, flag, int, reg};
use firebreak_vdev::{Effects, IrqLevel, Pl011};
use proptest::prelude::*;

fn get(uart: &mut Pl011, offset: u64) -> u32 {
    uart.read(offset, 4).value as u32
}

fn set(uart: &mut Pl011, offset: u64, value: u32) -> Effects {
    uart.write(offset, 4, u64::from(value))
}

/// Enables FIFOs with the given receive trigger, and unmasks interrupts.
fn with_fifos(trigger: u32, imsc: u32) -> Pl011 {
    let mut uart = Pl011::new();
    for (offset, value) in [
        (reg::LCR_H, 0x70),
        (reg::IFLS, trigger << 3),
        (reg::IMSC, imsc),
        (reg::CR, 0x301),
    ] {
        assert_eq!(set(&mut uart, offset, value), Effects::default());
    }
    uart
}

#[test]
fn identification_is_that_of_an_arm_pl011_r1p5() {
    let mut uart = Pl011::new();
    let bytes: Vec<u32> = (0..8).map(|n| get(&mut uart, 0xfe0 + 4 * n)).collect();
    assert_eq!(bytes, [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
    // What amba_device_try_add makes of it, and the mask that amba-pl011 matches with.
    let periphid = bytes[..4].iter().rev().fold(0, |all, byte| all << 8 | byte);
    let cid = bytes[4..].iter().rev().fold(0, |all, byte| all << 8 | byte);
    assert_eq!(cid, 0xb105_f00d);
    assert_eq!(periphid & 0x000f_ffff, 0x0004_1011);
    // Revision 3 or above: the driver takes the FIFO for 32 deep.
    assert!((periphid >> 20) & 0xf >= 3);
}

#[test]
fn registers_read_as_after_reset() {
    let mut uart = Pl011::new();
    let expected = [
        (reg::RSR_ECR, 0),
        (reg::FR, 0x90),
        (reg::ILPR, 0),
        (reg::IBRD, 0),
        (reg::FBRD, 0),
        (reg::LCR_H, 0),
        (reg::CR, 0x300),
        (reg::IFLS, 0x12),
        (reg::IMSC, 0),
        (reg::RIS, 0),
        (reg::MIS, 0),
        (reg::DMACR, 0),
        (reg::DR, 0),
    ];
    for (offset, value) in expected {
        assert_eq!(get(&mut uart, offset), value, "{offset:#x}");
    }
}

#[test]
fn registers_keep_their_bits_and_no_others() {
    let mut uart = Pl011::new();
    let bits = [
        (reg::ILPR, 0xff),
        (reg::IBRD, 0xffff),
        (reg::FBRD, 0x3f),
        (reg::LCR_H, 0xff),
        (reg::CR, 0xffff),
        (reg::IFLS, 0x3f),
        (reg::IMSC, 0x7ff),
        (reg::DMACR, 0x7),
    ];
    for (offset, mask) in bits {
        let _ = set(&mut uart, offset, u32::MAX);
        assert_eq!(get(&mut uart, offset), mask, "{offset:#x}");
    }
    for offset in [reg::FR, reg::RIS, reg::MIS, 0xfe0, 0x100] {
        let before = get(&mut uart, offset);
        let _ = set(&mut uart, offset, u32::MAX);
        assert_eq!(get(&mut uart, offset), before, "{offset:#x} is read only");
    }
}

#[test]
fn every_offset_and_width_is_answered() {
    let mut uart = Pl011::new();
    for offset in 0..0x1000 {
        for width in [1, 2, 4, 8] {
            let value = uart.read(offset, width).value;
            assert!(
                width == 8 || value >> (8 * width) == 0,
                "{offset:#x}/{width}: {value:#x}"
            );
            let _ = uart.write(offset, width, u64::MAX);
        }
    }
}

#[test]
fn a_byte_read_of_data_takes_it_and_a_read_beside_it_does_not() {
    let mut uart = with_fifos(0, 0);
    let _ = uart.receive(b'x');
    assert_eq!(uart.read(reg::DR + 1, 1).value, 0);
    assert_eq!(uart.read(reg::DR, 1).value, u64::from(b'x'));
    assert_eq!(get(&mut uart, reg::FR) & flag::RXFE, flag::RXFE);
}

#[test]
fn the_receive_interrupt_comes_at_each_trigger_level_and_goes_below_it() {
    for (select, level) in [(0, 4), (1, 8), (2, 16), (3, 24), (4, 28), (7, 28)] {
        let mut uart = with_fifos(select, int::RX);
        for n in 1..=level {
            let raised = uart.receive(0).irq;
            assert_eq!(
                raised,
                (n == level).then_some(IrqLevel::Raised),
                "{n} of {level}"
            );
        }
        let read = uart.read(reg::DR, 4);
        assert_eq!(read.irq, Some(IrqLevel::Lowered));
        assert_eq!(get(&mut uart, reg::RIS) & int::RX, 0);
    }
}

#[test]
fn the_timeout_interrupt_stays_until_the_fifo_is_empty() {
    let mut uart = with_fifos(2, int::RX_TIMEOUT);
    assert_eq!(uart.receive(1).irq, Some(IrqLevel::Raised));
    assert_eq!(uart.receive(2).irq, None);
    assert_eq!(uart.read(reg::DR, 4).irq, None);
    assert_eq!(uart.read(reg::DR, 4).irq, Some(IrqLevel::Lowered));
    // Cleared by hand: quiet until the next byte.
    let _ = uart.receive(3);
    assert_eq!(
        set(&mut uart, reg::ICR, int::RX_TIMEOUT).irq,
        Some(IrqLevel::Lowered)
    );
    assert_eq!(uart.receive(4).irq, Some(IrqLevel::Raised));
}

#[test]
fn without_fifos_every_byte_interrupts_and_none_is_lost() {
    let mut uart = Pl011::new();
    let _ = set(&mut uart, reg::IMSC, int::RX);
    for byte in 0..10 {
        let _ = uart.receive(byte);
        assert_eq!(
            get(&mut uart, reg::FR) & (flag::RXFF | flag::RXFE),
            flag::RXFF
        );
    }
    for byte in 0..10 {
        assert!(uart.irq_is_high());
        assert_eq!(get(&mut uart, reg::DR), byte);
    }
    assert!(!uart.irq_is_high());
}

#[test]
fn one_byte_too_many_is_counted_and_reported_with_the_next() {
    let mut uart = with_fifos(2, int::OVERRUN);
    for byte in 0..RX_CAPACITY as u8 {
        assert_eq!(uart.room(), RX_CAPACITY - usize::from(byte));
        assert_eq!(get(&mut uart, reg::FR) & flag::RXFF, 0);
        assert_eq!(uart.receive(byte).irq, None);
    }
    assert_eq!(get(&mut uart, reg::FR) & flag::RXFF, flag::RXFF);
    assert_eq!(uart.receive(b'!').irq, Some(IrqLevel::Raised));
    assert_eq!(uart.overruns(), 1);
    assert_eq!(get(&mut uart, reg::RSR_ECR), 1 << 3);
    assert_eq!(
        set(&mut uart, reg::ICR, int::OVERRUN).irq,
        Some(IrqLevel::Lowered)
    );
    assert_eq!(get(&mut uart, reg::DR), 0);
    assert_eq!(get(&mut uart, reg::RSR_ECR), 0);
    let _ = uart.receive(b'?');
    for byte in 1..RX_CAPACITY as u32 {
        assert_eq!(get(&mut uart, reg::DR), byte);
    }
    assert_eq!(get(&mut uart, reg::DR), u32::from(b'?') | 1 << 11);
    let _ = uart.receive(b'.');
    assert_eq!(uart.read(reg::DR, 4).value, u64::from(b'.'), "told once");
    let _ = set(&mut uart, reg::ICR, int::ALL);
    assert_eq!(get(&mut uart, reg::RSR_ECR), 0);
    for _ in 0..=RX_CAPACITY {
        let _ = uart.receive(0);
    }
    assert_eq!(uart.overruns(), 2);
    let _ = set(&mut uart, reg::RSR_ECR, 0);
    assert_eq!(get(&mut uart, reg::RSR_ECR), 0);
}

#[test]
fn enabling_fifos_empties_them() {
    let mut uart = Pl011::new();
    let _ = set(&mut uart, reg::IMSC, int::RX);
    let _ = uart.receive(7);
    assert_eq!(
        set(&mut uart, reg::LCR_H, 0x70).irq,
        Some(IrqLevel::Lowered)
    );
    assert_eq!(get(&mut uart, reg::FR), 0x90);
    let _ = uart.receive(8);
    let _ = set(&mut uart, reg::LCR_H, 0x72);
    assert_eq!(get(&mut uart, reg::DR), 8);
}

#[test]
fn unmasking_shows_a_transmit_interrupt_that_a_write_left() {
    let mut uart = Pl011::new();
    assert_eq!(
        set(&mut uart, reg::IMSC, int::TX).irq,
        None,
        "nothing was sent yet"
    );
    let _ = set(&mut uart, reg::IMSC, 0);
    let sent = set(&mut uart, reg::DR, 0x1f_0041);
    assert_eq!(
        sent,
        Effects {
            output: Some(b'A'),
            irq: None
        }
    );
    assert_eq!(
        set(&mut uart, reg::IMSC, int::TX).irq,
        Some(IrqLevel::Raised)
    );
    assert_eq!(get(&mut uart, reg::MIS), int::TX);
    assert_eq!(
        set(&mut uart, reg::ICR, int::TX).irq,
        Some(IrqLevel::Lowered)
    );
    assert_eq!(set(&mut uart, reg::DR, 0x42).irq, Some(IrqLevel::Raised));
    assert_eq!(set(&mut uart, reg::IMSC, 0).irq, Some(IrqLevel::Lowered));
}

#[test]
fn loopback_feeds_what_is_sent_back() {
    let mut uart = with_fifos(0, 0);
    let _ = set(&mut uart, reg::CR, 0x381);
    assert_eq!(set(&mut uart, reg::DR, 0x55).output, Some(0x55));
    assert_eq!(get(&mut uart, reg::DR), 0x55);
}

#[test]
fn reset_lowers_the_line_and_forgets_everything() {
    let mut uart = with_fifos(0, int::ALL);
    let _ = uart.receive(1);
    assert_eq!(uart.reset().irq, Some(IrqLevel::Lowered));
    assert_eq!(get(&mut uart, reg::FR), 0x90);
    assert_eq!(get(&mut uart, reg::IMSC), 0);
    assert_eq!(uart.reset().irq, None);
}

/// The paths of Linux's driver that move bytes: `pl011_startup`, `pl011_start_tx_pio`,
/// `pl011_tx_chars` and `pl011_int`, as register accesses.
struct Driver {
    uart: Pl011,
    im: u32,
    to_send: VecDeque<u8>,
    sent: Vec<u8>,
    received: Vec<u8>,
    line: bool,
}

impl Driver {
    const FIFO: usize = 32;

    fn start() -> Self {
        let (to_send, sent, received) = (VecDeque::new(), Vec::new(), Vec::new());
        let mut driver = Self {
            uart: Pl011::new(),
            im: 0,
            to_send,
            sent,
            received,
            line: false,
        };
        driver.set(reg::ICR, 0x7d0);
        driver.set(reg::IFLS, 0x12);
        driver.set(reg::LCR_H, 0x70);
        driver.set(reg::CR, 0x301);
        driver.set(reg::ICR, int::RX | int::RX_TIMEOUT);
        for _ in 0..2 * Self::FIFO {
            if driver.get(reg::FR) & flag::RXFE != 0 {
                break;
            }
            driver.get(reg::DR);
        }
        driver.im = int::RX_TIMEOUT | int::RX;
        driver.set(reg::IMSC, driver.im);
        driver
    }

    fn note(&mut self, irq: Option<IrqLevel>) {
        if let Some(level) = irq {
            let high = level == IrqLevel::Raised;
            assert_ne!(high, self.line, "a change that is none");
            self.line = high;
        }
        assert_eq!(self.line, self.uart.irq_is_high());
    }

    fn get(&mut self, offset: u64) -> u32 {
        let read = self.uart.read(offset, 2);
        self.note(read.irq);
        read.value as u32
    }

    fn set(&mut self, offset: u64, value: u32) {
        let effects = self.uart.write(offset, 2, u64::from(value));
        self.sent.extend(effects.output);
        self.note(effects.irq);
    }

    fn type_in(&mut self, byte: u8) {
        let effects = self.uart.receive(byte);
        self.note(effects.irq);
    }

    fn write(&mut self, text: &[u8]) {
        self.to_send.extend(text);
        if self.tx_chars(false) {
            self.im |= int::TX;
            self.set(reg::IMSC, self.im);
        }
    }

    fn tx_chars(&mut self, from_irq: bool) -> bool {
        for _ in 0..Self::FIFO / 2 {
            if !from_irq && self.get(reg::FR) & flag::TXFF != 0 {
                return true;
            }
            let Some(byte) = self.to_send.pop_front() else {
                break;
            };
            self.set(reg::DR, u32::from(byte));
        }
        if self.to_send.is_empty() {
            self.im &= !int::TX;
            self.set(reg::IMSC, self.im);
            return false;
        }
        true
    }

    fn interrupts(&mut self) {
        for _ in 0..1000 {
            if !self.line {
                return;
            }
            let mut status = self.get(reg::RIS) & self.im;
            for _ in 0..256 {
                if status == 0 {
                    break;
                }
                self.set(reg::ICR, status & !(int::TX | int::RX_TIMEOUT | int::RX));
                if status & (int::RX_TIMEOUT | int::RX) != 0 {
                    while self.get(reg::FR) & flag::RXFE == 0 {
                        let data = self.get(reg::DR);
                        self.received.push(data as u8);
                    }
                }
                if status & int::TX != 0 {
                    self.tx_chars(true);
                }
                status = self.get(reg::RIS) & self.im;
            }
        }
        panic!("the interrupt line never goes down");
    }
}

#[test]
fn a_driver_waits_for_room_and_goes_on_by_interrupt() {
    let mut driver = Driver::start();
    let effects = driver.uart.set_room(false);
    driver.note(effects.irq);
    let text = b"nothing of this may leave before there is room";
    driver.write(text);
    driver.interrupts();
    assert_eq!(driver.sent, b"");
    let transmit = flag::TXFF | flag::TXFE | flag::BUSY;
    // There are drivers that wait for the end of BUSY, and look at nothing else.
    assert_eq!(driver.get(reg::FR) & transmit, flag::TXFF | flag::BUSY);
    let effects = driver.uart.set_room(true);
    driver.note(effects.irq);
    assert!(driver.line, "room is told by the transmit interrupt");
    assert_eq!(driver.get(reg::FR) & transmit, flag::TXFE);
    driver.interrupts();
    assert_eq!(driver.sent, text);
}

#[test]
fn a_driver_that_fills_the_fifo_is_not_interrupted_before_there_is_room() {
    let mut driver = Driver::start();
    driver.write(&[b'x'; 100]);
    assert!(driver.line);
    let effects = driver.uart.set_room(false);
    driver.note(effects.irq);
    assert!(!driver.line);
    // What it still writes is handed on: whoever counts bytes decides.
    driver.set(reg::DR, u32::from(b'y'));
    assert_eq!(driver.sent.last(), Some(&b'y'));
    assert!(!driver.line);
    assert_eq!(driver.uart.set_room(false), Effects::default());
    let effects = driver.uart.reset();
    driver.note(effects.irq);
    assert_eq!(
        driver.get(reg::FR) & flag::TXFF,
        0,
        "a new life begins with room"
    );
}

#[test]
fn a_driver_sends_a_long_text_by_interrupts() {
    let mut driver = Driver::start();
    let text: Vec<u8> = (0..1000).map(|n| b'a' + (n % 26) as u8).collect();
    driver.write(&text);
    assert!(driver.line, "more to send than fits in one go");
    driver.interrupts();
    assert_eq!(driver.sent, text);
    assert!(!driver.line);
}

proptest! {
    #[test]
    fn a_driver_gets_and_sends_every_byte_in_order(
        steps in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..100).prop_map(Ok),
                prop::collection::vec(any::<u8>(), 0..RX_CAPACITY).prop_map(Err),
            ],
            0..20,
        ),
    ) {
        let mut driver = Driver::start();
        let (mut sent, mut typed) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Ok(text) => {
                    driver.write(&text);
                    sent.extend(text);
                }
                Err(input) => {
                    for &byte in &input {
                        driver.type_in(byte);
                    }
                    typed.extend(input);
                }
            }
            driver.interrupts();
        }
        prop_assert_eq!(driver.sent, sent);
        prop_assert_eq!(driver.received, typed);
        prop_assert_eq!(driver.uart.overruns(), 0);
    }

    #[test]
    fn the_line_is_what_status_and_mask_say(
        accesses in prop::collection::vec((0..4u8, 0..0x13u64, any::<u32>()), 0..200),
    ) {
        let mut uart = Pl011::new();
        let mut line = false;
        for (kind, register, value) in accesses {
            let irq = match kind {
                0 => uart.read(4 * register, 4).irq,
                1 => uart.receive(value as u8).irq,
                _ => set(&mut uart, 4 * register, value).irq,
            };
            if let Some(level) = irq {
                prop_assert_ne!(level == IrqLevel::Raised, line);
                line = !line;
            }
            let (ris, imsc) = (get(&mut uart, reg::RIS), get(&mut uart, reg::IMSC));
            prop_assert_eq!(line, ris & imsc != 0);
            prop_assert_eq!(get(&mut uart, reg::MIS), ris & imsc);
        }
    }
}
