// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crash page: what a dying hypervisor leaves behind.
//!
//! | word | content |
//! | --- | --- |
//! | 0 | `FBCRASH3`, in ASCII; the last character is the version |
//! | 1 | sum over words 3 to 511; 0 until the page is whole |
//! | 2 | failures while this page was written and told, 0 if all went well (not in the sum) |
//! | 3 | number of the boot, counted by the log |
//! | 4 | CNTPCT_EL0 |
//! | 5 | MPIDR_EL1 |
//! | 6 | \[7:0\] PE; \[15:8\] kind: 1 panic, 2 exception, 3 hardware error; \[23:16\] vector slot; \[31:24\] validity: bit 0 PC, bit 1 x0 to x30, bit 2 vCPU; \[39:32\] vCPU's partition; \[47:40\] its number there |
//! | 7 | PEs that had stopped, a bit each |
//! | 8 | PC (ELR_EL2 of an exception) |
//! | 9 to 17 | ESR_EL2, FAR_EL2, SPSR_EL2, HPFAR_EL2, SP, HCR_EL2, VTTBR_EL2, SCTLR_EL2, VBAR_EL2 |
//! | 18 | locks that were held, a bit each: 0 console, 1 pool, 2 history |
//! | 19 to 30 | return addresses found on the stack, innermost first, 0 behind the last |
//! | 31 | \[15:0\] bytes of text; \[31:16\] number of records; \[47:32\] records that did not fit |
//! | 32 to 62 | x0 to x30 |
//! | 63 | address of the hypervisor's image |
//! | 64 to 127 | text, 512 bytes of ASCII |
//! | 128 to 479 | error records that waited, eight words each: see [`Waiting`] |
//! | 480 to 511 | the last exits on that PE, oldest first, four words each: see [`crate::trace`]; 0 where there is none |

use core::sync::atomic::{AtomicU64, Ordering};

use crate::trace::{EXIT_WORDS, Exit};
use crate::{CRASH_PAGE_WORDS, Sum, Words, store, text};

const MAGIC: u64 = u64::from_le_bytes(*b"FBCRASH3");
const SUM: usize = 1;
const FAILURES: usize = 2;
const SUMMED: usize = 3;
const WHO: usize = 6;
const CALLS: usize = 19;
const COUNTS: usize = 31;
const GPRS: usize = 32;
const TEXT: usize = 64;
const RECORDS: usize = 128;
const RECORD_WORDS: usize = 8;
const EXITS: usize = CRASH_PAGE_WORDS - MAX_EXITS * EXIT_WORDS;

/// The longest text, in bytes.
pub const TEXT_BYTES: usize = 512;
/// The most records.
pub const MAX_RECORDS: usize = (EXITS - RECORDS) / RECORD_WORDS;
/// The most exits.
pub const MAX_EXITS: usize = 8;
/// The most return addresses.
pub const MAX_CALLS: usize = 12;

const HAS_PC: u64 = 1 << 24;
const HAS_GPRS: u64 = 1 << 25;
const HAS_VCPU: u64 = 1 << 26;

/// Fields that are shown by name, in this order: by the hypervisor at the next boot and by the host.
pub const SHOWN: [(&str, Field); 13] = [
    ("mpidr", Field::Mpidr),
    ("esr", Field::Esr),
    ("far", Field::Far),
    ("spsr", Field::Spsr),
    ("hpfar", Field::Hpfar),
    ("sp", Field::Sp),
    ("hcr", Field::Hcr),
    ("vttbr", Field::Vttbr),
    ("sctlr", Field::Sctlr),
    ("vbar", Field::Vbar),
    ("locks", Field::Locks),
    ("stopped", Field::Stopped),
    ("image", Field::Image),
];

/// What has a word of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Field {
    /// Number of the boot.
    Boot = 3,
    /// CNTPCT_EL0, in ticks.
    Ticks = 4,
    /// MPIDR_EL1.
    Mpidr = 5,
    /// PEs that had stopped, a bit each.
    Stopped = 7,
    /// ESR_EL2.
    Esr = 9,
    /// FAR_EL2.
    Far = 10,
    /// SPSR_EL2.
    Spsr = 11,
    /// HPFAR_EL2.
    Hpfar = 12,
    /// Stack pointer of the code that failed.
    Sp = 13,
    /// HCR_EL2.
    Hcr = 14,
    /// VTTBR_EL2.
    Vttbr = 15,
    /// SCTLR_EL2.
    Sctlr = 16,
    /// VBAR_EL2.
    Vbar = 17,
    /// Locks that were held: see the table of the module.
    Locks = 18,
    /// Where the hypervisor's image stands: addresses in it minus this are those of its ELF file.
    Image = 63,
}

const PC: usize = 8;

/// Why the hypervisor ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A check of its own failed.
    Panic,
    /// It took an exception that cannot be.
    Exception,
    /// A hardware error that nobody survives.
    Error,
    /// The page does not say.
    Unknown,
}

impl Kind {
    /// Returns `panic`, `exception`, `error` or `unknown`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Exception => "exception",
            Self::Error => "error",
            Self::Unknown => "unknown",
        }
    }

    const fn to_raw(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Panic => 1,
            Self::Exception => 2,
            Self::Error => 3,
        }
    }

    const fn from_raw(raw: u64) -> Self {
        match raw & 0xff {
            1 => Self::Panic,
            2 => Self::Exception,
            3 => Self::Error,
            _ => Self::Unknown,
        }
    }
}

/// Who failed, where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who {
    /// PE.
    pub pe: u8,
    /// Why.
    pub kind: Kind,
    /// Slot of the vector table, 0 to 15; 0 if there was no exception.
    pub vector: u8,
    /// Program counter, if it is known.
    pub pc: Option<u64>,
    /// Partition and number of the vCPU that lives on the PE.
    pub vcpu: Option<(u8, u8)>,
}

/// How a record stood in its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It waited for task context.
    Waiting,
    /// A PE was working it off.
    InHands,
    /// Its producer had not published it: nothing is known of it.
    Unpublished,
    /// It ended the machine itself, and is in no queue.
    Fatal,
}

impl State {
    /// Returns `waiting`, `in-hands`, `unpublished` or `fatal`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::InHands => "in-hands",
            Self::Unpublished => "unpublished",
            Self::Fatal => "fatal",
        }
    }
}

/// An error record that waited in the recovery queue of a PE.
///
/// Words: 0 time stamp; 1 \[7:0\] PE of the queue, \[15:8\] state, \[23:16\] PE that has it in its
/// hands, \[31:24\] severity of the record (255 none), \[56:32\] syndrome, \[59\] syndrome is valid,
/// \[60\] number is valid, \[61\] address is valid, \[62\] PC is valid; 2 PC; 3 address; 4 number;
/// 5 \[7:0\] partition interrupted (255 none), \[15:8\] vCPU; 6 and 7 verdict, 16 bytes of ASCII,
/// zero padded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// PE whose queue it stood in.
    pub pe: u8,
    /// How it stood there.
    pub state: State,
    /// PE that has it in its hands.
    pub holder: u8,
    /// When it was published, in ticks of CNTPCT.
    pub ticks: u64,
    /// Severity of the firmware's record, as ACPI encodes it, if there was a record.
    pub cper: Option<u8>,
    /// Syndrome, 25 bits.
    pub iss: Option<u32>,
    /// Interrupted PC.
    pub pc: Option<u64>,
    /// Physical address that the record names.
    pub pa: Option<u64>,
    /// The firmware's number of the error.
    pub id: Option<u64>,
    /// Partition and vCPU.
    pub vcpu: Option<(u8, u8)>,
    /// What was decided: the first 16 bytes of the verdict's name, zero padded.
    pub verdict: [u8; 16],
}

const NONE: u64 = 0xff;

impl Waiting {
    /// Makes a record of which nothing is known but where it stood.
    pub const fn unknown(pe: u8, state: State, ticks: u64) -> Self {
        Self {
            pe,
            state,
            holder: 0,
            ticks,
            cper: None,
            iss: None,
            pc: None,
            pa: None,
            id: None,
            vcpu: None,
            verdict: [0; 16],
        }
    }

    /// Returns the first 16 bytes of a verdict's name.
    pub fn verdict_of(name: &str) -> [u8; 16] {
        let mut verdict = [0; 16];
        for (to, from) in verdict.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        verdict
    }

    /// Returns the verdict's name; empty when there is none, or it is not ASCII.
    pub fn verdict_name(&self) -> &str {
        let len = self.verdict.iter().take_while(|byte| **byte != 0).count();
        let name = self.verdict.get(..len).unwrap_or_default();
        let printable = name.iter().all(|byte| (0x20..0x7f).contains(byte));
        match core::str::from_utf8(name) {
            Ok(name) if printable => name,
            _ => "",
        }
    }

    fn to_words(self) -> [u64; RECORD_WORDS] {
        let flag = |present: bool, bit: u32| u64::from(present) << bit;
        let state = match self.state {
            State::Waiting => 1,
            State::InHands => 2,
            State::Unpublished => 3,
            State::Fatal => 4,
        };
        let first = u64::from(self.pe)
            | state << 8
            | u64::from(self.holder) << 16
            | self.cper.map_or(NONE, u64::from) << 24
            | u64::from(self.iss.unwrap_or(0) & 0x1ff_ffff) << 32
            | flag(self.iss.is_some(), 59)
            | flag(self.id.is_some(), 60)
            | flag(self.pa.is_some(), 61)
            | flag(self.pc.is_some(), 62);
        let vcpu = self
            .vcpu
            .map_or(NONE, |(vm, vcpu)| u64::from(vm) | u64::from(vcpu) << 8);
        let verdict = u128::from_le_bytes(self.verdict);
        [
            self.ticks,
            first,
            self.pc.unwrap_or(0),
            self.pa.unwrap_or(0),
            self.id.unwrap_or(0),
            vcpu,
            verdict as u64,
            (verdict >> 64) as u64,
        ]
    }

    fn from_words(words: &(impl Words + ?Sized), first: usize) -> Self {
        let word = |index: usize| words.word(first.saturating_add(index));
        let head = word(1);
        let given = |bit: u32, value: u64| (head >> bit & 1 != 0).then_some(value);
        let byte = |shift: u32| (head >> shift) as u8;
        let verdict = u128::from(word(6)) | u128::from(word(7)) << 64;
        Self {
            pe: byte(0),
            state: match byte(8) {
                1 => State::Waiting,
                2 => State::InHands,
                4 => State::Fatal,
                _ => State::Unpublished,
            },
            holder: byte(16),
            ticks: word(0),
            cper: Some(byte(24)).filter(|severity| u64::from(*severity) != NONE),
            iss: given(59, head >> 32 & 0x1ff_ffff).map(|iss| iss as u32),
            pc: given(62, word(2)),
            pa: given(61, word(3)),
            id: given(60, word(4)),
            vcpu: (word(5) & NONE != NONE).then_some((word(5) as u8, (word(5) >> 8) as u8)),
            verdict: verdict.to_le_bytes(),
        }
    }
}

/// Writes a crash page, in any context: whole words, no lock, no allocation.
#[derive(Debug)]
pub struct Writer<'a> {
    page: &'a [AtomicU64],
    text_bytes: usize,
    records: usize,
    left_out: usize,
}

impl<'a> Writer<'a> {
    /// Begins a page: what stood there is gone, and it reads as torn until [`Writer::finish`].
    /// Words behind the page are not touched.
    pub fn begin(page: &'a [AtomicU64], who: &Who) -> Self {
        let page = page.get(..CRASH_PAGE_WORDS).unwrap_or(page);
        for index in 1..page.len() {
            store(page, index, 0, Ordering::Relaxed);
        }
        store(page, 0, MAGIC, Ordering::Release);
        let (vm, vcpu) = who.vcpu.unwrap_or((0, 0));
        let word = u64::from(who.pe)
            | who.kind.to_raw() << 8
            | u64::from(who.vector) << 16
            | if who.pc.is_some() { HAS_PC } else { 0 }
            | if who.vcpu.is_some() { HAS_VCPU } else { 0 }
            | u64::from(vm) << 32
            | u64::from(vcpu) << 40;
        store(page, WHO, word, Ordering::Relaxed);
        store(page, PC, who.pc.unwrap_or(0), Ordering::Relaxed);
        Self {
            page,
            text_bytes: 0,
            records: 0,
            left_out: 0,
        }
    }

    /// Sets a field.
    pub fn set(&self, field: Field, value: u64) {
        store(self.page, field as usize, value, Ordering::Relaxed);
    }

    /// Sets x0 to x30.
    pub fn gprs(&self, x: &[u64; 31]) {
        for (index, value) in x.iter().enumerate() {
            store(self.page, GPRS + index, *value, Ordering::Relaxed);
        }
        let who = self.page.word(WHO);
        store(self.page, WHO, who | HAS_GPRS, Ordering::Relaxed);
    }

    /// Sets a return address; those beyond [`MAX_CALLS`] are left out.
    pub fn call(&self, index: usize, address: u64) {
        if index < MAX_CALLS {
            store(self.page, CALLS + index, address, Ordering::Relaxed);
        }
    }

    /// Adds text; what does not fit is left out.
    pub fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            if self.text_bytes == TEXT_BYTES {
                return;
            }
            let index = TEXT + self.text_bytes / 8;
            let word = self.page.word(index) | u64::from(byte) << (8 * (self.text_bytes % 8));
            store(self.page, index, word, Ordering::Relaxed);
            self.text_bytes += 1;
        }
    }

    /// Adds a record; those beyond [`MAX_RECORDS`] are counted.
    pub fn record(&mut self, record: &Waiting) {
        if self.records == MAX_RECORDS {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let first = RECORDS + self.records * RECORD_WORDS;
        for (index, word) in record.to_words().into_iter().enumerate() {
            store(self.page, first + index, word, Ordering::Relaxed);
        }
        self.records += 1;
    }

    /// Sets one of the last exits; those beyond [`MAX_EXITS`] are left out.
    pub fn exit(&self, index: usize, exit: &Exit) {
        if index < MAX_EXITS {
            let first = EXITS + index * EXIT_WORDS;
            for (index, word) in exit.to_words().into_iter().enumerate() {
                store(self.page, first + index, word, Ordering::Relaxed);
            }
        }
    }

    /// Makes the page whole.
    pub fn finish(self) {
        let counts = self.text_bytes as u64
            | (self.records as u64) << 16
            | (self.left_out as u64 & 0xffff) << 32;
        store(self.page, COUNTS, counts, Ordering::Relaxed);
        store(self.page, SUM, sum(self.page), Ordering::Release);
    }
}

/// Counts a failure while a page was written or told.
pub fn note_failure(page: &[AtomicU64]) {
    let failures = page.word(FAILURES).saturating_add(1);
    store(page, FAILURES, failures, Ordering::Release);
}

/// Forgets a page.
pub fn clear(page: &[AtomicU64]) {
    store(page, 0, 0, Ordering::Release);
}

fn sum(page: &(impl Words + ?Sized)) -> u64 {
    (SUMMED..CRASH_PAGE_WORDS)
        .fold(Sum::START, |sum, index| sum.add(page.word(index)))
        .value()
}

/// A crash page that is there, whole or torn.
#[derive(Debug)]
pub struct Page<'a, W: Words + ?Sized> {
    words: &'a W,
    whole: bool,
}

impl<'a, W: Words + ?Sized> Page<'a, W> {
    /// Reads a page; `None` when there is none. Never fails: what a torn page says is its best.
    pub fn read(words: &'a W) -> Option<Self> {
        if words.count() < CRASH_PAGE_WORDS || words.word(0) != MAGIC {
            return None;
        }
        let whole = words.word(SUM) == sum(words);
        Some(Self { words, whole })
    }

    /// Says whether it was written to its end, and nobody has changed it.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Returns how often the hypervisor failed again while it wrote and told this.
    pub fn failures(&self) -> u64 {
        self.words.word(FAILURES)
    }

    /// Returns a field.
    pub fn get(&self, field: Field) -> u64 {
        self.words.word(field as usize)
    }

    /// Returns who failed.
    pub fn who(&self) -> Who {
        let word = self.words.word(WHO);
        Who {
            pe: word as u8,
            kind: Kind::from_raw(word >> 8),
            vector: (word >> 16) as u8,
            pc: (word & HAS_PC != 0).then(|| self.words.word(PC)),
            vcpu: (word & HAS_VCPU != 0).then_some(((word >> 32) as u8, (word >> 40) as u8)),
        }
    }

    /// Returns x0 to x30, if they were saved.
    pub fn gprs(&self) -> Option<[u64; 31]> {
        let saved = self.words.word(WHO) & HAS_GPRS != 0;
        saved.then(|| core::array::from_fn(|index| self.words.word(GPRS + index)))
    }

    /// Returns the return addresses; 0 behind the last one.
    pub fn calls(&self) -> [u64; MAX_CALLS] {
        core::array::from_fn(|index| self.words.word(CALLS + index))
    }

    /// Copies the text.
    pub fn text<'b>(&self, buffer: &'b mut [u8; TEXT_BYTES]) -> &'b str {
        let len = (self.words.word(COUNTS) & 0xffff) as usize;
        text::read(self.words, TEXT, len, buffer)
    }

    /// Returns how many records did not fit.
    pub fn left_out(&self) -> u64 {
        self.words.word(COUNTS) >> 32 & 0xffff
    }

    /// Iterates over the last exits, oldest first.
    pub fn exits(&self) -> impl Iterator<Item = Exit> + use<'a, W> {
        let words = self.words;
        (0..MAX_EXITS).filter_map(move |index| Exit::from_words(words, EXITS + index * EXIT_WORDS))
    }

    /// Iterates over the records.
    pub fn records(&self) -> impl Iterator<Item = Waiting> + use<'a, W> {
        let words = self.words;
        let count = (words.word(COUNTS) >> 16 & 0xffff) as usize;
        (0..count.min(MAX_RECORDS))
            .map(move |index| Waiting::from_words(words, RECORDS + index * RECORD_WORDS))
    }
}
