// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any accesses of a guest to its PL011, any bytes that are typed, and what
//! becomes of both on the shared line: no byte lost or changed but where the device says so, an
//! interrupt line that is what status and mask say, and no frame that a guest could forge.
//!
//! The oracle keeps the received bytes in a plain queue and knows nothing of the device's state.

use std::collections::VecDeque;

use super::bytes::Bytes;
use firebreak_vdev::pl011::{RX_CAPACITY, flag, int, reg};
use firebreak_vdev::{IrqLevel, Pl011};
use firebreak_wire::{ConsoleEncoder, Input, InputDecoder};

/// UARTLCR_H.FEN and UARTCR.LBE.
const FEN: u64 = 1 << 4;
const LBE: u64 = 1 << 7;
const NAME: &str = "vm-0";

struct Uart {
    uart: Pl011,
    line: bool,
    /// Received and not read.
    waiting: VecDeque<u8>,
    lost: u64,
    fifos: bool,
    loops_back: bool,
    /// There is no room on the line.
    full: bool,
    sent: Vec<u8>,
    frames: String,
    encoder: ConsoleEncoder,
}

/// Runs an input: the number of partitions, then accesses and typed bytes.
pub(crate) fn check_uart(input: &[u8]) {
    let mut program = Bytes(input);
    let partitions = program.u8() % 9;
    let mut typed = InputDecoder::new(partitions);
    let mut uart = Uart {
        uart: Pl011::new(),
        line: false,
        waiting: VecDeque::new(),
        lost: 0,
        fifos: false,
        loops_back: false,
        full: false,
        sent: vec![],
        frames: String::new(),
        encoder: ConsoleEncoder::new(),
    };
    while !program.is_empty() {
        match program.below(8) {
            0 | 1 => {
                let (offset, width) = place(&mut program);
                uart.read(offset, width);
            }
            2 | 3 => {
                let (offset, width) = place(&mut program);
                let value = program.u64();
                uart.write(offset, width, value);
            }
            4 => {
                let byte = program.u8();
                uart.write(reg::DR, 4, u64::from(byte));
            }
            5 => {
                let byte = program.u8();
                if let Some(byte) = push(&mut typed, partitions, byte) {
                    uart.receive(byte);
                }
            }
            6 => uart.receive_many(&mut program),
            _ => uart.flush_or_reset(program.u8()),
        }
        uart.check();
    }
    uart.finish();
}

/// A register that exists, or any offset of the page.
fn place(program: &mut Bytes<'_>) -> (u64, u8) {
    let kind = program.u8();
    let width = 1 << (kind & 3);
    let offset = match kind >> 2 & 3 {
        0 => u64::from(program.u32() & 0xfff),
        1 => 0xfe0 + u64::from(program.u8() & 0x1c),
        _ => 4 * u64::from(program.u8() % 19),
    };
    (offset, width)
}

/// Types one byte; returns what reaches partition 0.
fn push(typed: &mut InputDecoder, partitions: u8, byte: u8) -> Option<u8> {
    let before = typed.focus();
    match typed.push(byte)? {
        Input::Byte { partition, byte } => {
            assert!(partition == before && partition < partitions);
            (partition == 0).then_some(byte)
        }
        Input::Focus(partition) => {
            assert!(partition == typed.focus() && partition < partitions);
            None
        }
        Input::NoSuchPartition(digit) => {
            assert!(digit >= partitions && typed.focus() == before);
            None
        }
        // `console.rs` looks at these.
        Input::Command(_) => None,
    }
}

impl Uart {
    fn note(&mut self, irq: Option<IrqLevel>) {
        if let Some(level) = irq {
            let high = level == IrqLevel::Raised;
            assert_ne!(high, self.line, "a change that is none");
            self.line = high;
        }
    }

    fn read(&mut self, offset: u64, width: u8) {
        let read = self.uart.read(offset, width);
        let bits = 8 * u32::from(width.min(4));
        assert!(
            bits == 64 || read.value >> bits == 0,
            "wider than the access"
        );
        if offset == reg::DR {
            let expected = self.waiting.pop_front().unwrap_or(0);
            assert_eq!(read.value & 0xff, u64::from(expected));
        }
        self.note(read.irq);
    }

    fn write(&mut self, offset: u64, width: u8, value: u64) {
        let effects = self.uart.write(offset, width, value);
        let sent = (offset == reg::DR).then_some(value as u8);
        assert_eq!(
            effects.output, sent,
            "a byte leaves by UARTDR, and only there"
        );
        if let Some(byte) = sent {
            self.sent.push(byte);
            let pushed = self.encoder.push(byte, NAME, &mut self.frames);
            assert!(pushed.is_ok());
            if self.loops_back {
                self.keep(byte);
            }
        }
        match offset {
            reg::LCR_H => {
                let fifos = value & FEN != 0;
                if fifos != self.fifos {
                    self.waiting.clear();
                }
                self.fifos = fifos;
            }
            reg::CR => self.loops_back = value & LBE != 0,
            _ => {}
        }
        self.note(effects.irq);
    }

    fn keep(&mut self, byte: u8) {
        if self.waiting.len() == RX_CAPACITY {
            self.lost += 1;
        } else {
            self.waiting.push_back(byte);
        }
    }

    fn receive(&mut self, byte: u8) {
        let effects = self.uart.receive(byte);
        assert_eq!(effects.output, None);
        self.keep(byte);
        self.note(effects.irq);
    }

    fn receive_many(&mut self, program: &mut Bytes<'_>) {
        let (count, first) = (program.u8(), program.u8());
        (0..count).for_each(|n| self.receive(first.wrapping_add(n)));
    }

    fn flush_or_reset(&mut self, choice: u8) {
        if choice & 0xe0 == 0xa0 {
            self.full = choice & 0x10 != 0;
            let effects = self.uart.set_room(!self.full);
            assert_eq!(effects.output, None);
            self.note(effects.irq);
            return;
        }
        if choice & 0xf != 0 {
            assert!(self.encoder.flush(NAME, &mut self.frames).is_ok());
            return;
        }
        let effects = self.uart.reset();
        self.note(effects.irq);
        self.waiting.clear();
        (self.lost, self.fifos, self.loops_back) = (0, false, false);
        self.full = false;
    }

    /// Reads what reading does not change, and holds it against the oracle.
    fn check(&mut self) {
        let mut get = |offset| self.uart.read(offset, 4).value as u32;
        let (flags, ris, imsc, mis) = (get(reg::FR), get(reg::RIS), get(reg::IMSC), get(reg::MIS));
        assert_eq!(mis, ris & imsc);
        assert_eq!((ris | imsc) & !int::ALL, 0);
        assert_eq!(self.line, mis != 0, "the line is what status and mask say");
        assert_eq!(self.line, self.uart.irq_is_high());
        assert_eq!(flags & flag::RXFE != 0, self.waiting.is_empty());
        assert_eq!(
            flags & flag::TXFF != 0,
            self.full,
            "a guest would wait for ever"
        );
        assert_eq!(flags & flag::TXFE != 0, !self.full);
        assert_eq!(flags & flag::BUSY != 0, self.full);
        assert!(
            !self.full || ris & int::TX == 0,
            "a driver would write to a full FIFO"
        );
        assert_eq!(self.uart.room(), RX_CAPACITY - self.waiting.len());
        assert_eq!(self.uart.overruns(), self.lost);
    }

    /// Reads the frames back: they are the guest's bytes, and nothing else.
    fn finish(mut self) {
        assert!(self.encoder.finish(NAME, &mut self.frames).is_ok());
        let mut got = vec![];
        for line in self.frames.lines() {
            assert!(line.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
            let rest = line
                .strip_prefix(NAME)
                .expect("each line has the guest's name");
            let (mark, text) = rest.split_at(2);
            got.extend(unescaped(text.as_bytes()));
            match mark {
                "| " => got.push(b'\n'),
                "> " => {}
                _ => panic!("no frame: {line}"),
            }
        }
        // A carriage return before a line feed is dropped, and a last line is ended.
        let mut sent = vec![];
        for (index, byte) in self.sent.iter().enumerate() {
            if *byte != b'\r' || self.sent.get(index + 1) != Some(&b'\n') {
                sent.push(*byte);
            }
        }
        if got.last() == Some(&b'\n') && sent.last() != Some(&b'\n') {
            got.pop();
        }
        assert_eq!(got, sent);
    }
}

/// Takes the encoder's escapes back.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (vec![], 0);
    while let Some(byte) = text.get(at) {
        let (value, len) = match (byte, text.get(at + 1)) {
            (b'\\', Some(b'\\')) => (b'\\', 2),
            (b'\\', Some(b'x')) => {
                let digits = core::str::from_utf8(&text[at + 2..at + 4]).expect("ASCII");
                (u8::from_str_radix(digits, 16).expect("two digits"), 4)
            }
            (b'\\', _) => panic!("an escape that is none"),
            _ => (*byte, 1),
        };
        out.push(value);
        at += len;
    }
    out
}
