// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands to a running system: one line, `Ctrl-A :` before it and a line feed behind it.
//!
//! The line shares a UART with everything else, so it may lose bytes or gain some. A line that
//! holds anything but printable ASCII, or that is too long, is refused as a whole; it is never
//! guessed at. `docs/control.md` describes the commands.

use crate::transfer::Piece;

/// The longest command line, in bytes, without what surrounds it.
pub const COMMAND_BYTES: usize = 127;
/// The longest name of a partition, as `firebreak_manifest` has it.
const NAME_BYTES: usize = 15;
/// A syndrome has 25 bits: ESR_ELx.ISS.
const ISS_MASK: u64 = (1 << 25) - 1;
/// IDS = 1: what a virtual SError says when nobody chose. All zeros would claim something.
const ISS_IMPDEF: u32 = 1 << 24;
/// FnV: FAR_EL1 is not valid.
const ISS_FNV: u32 = 1 << 10;
/// A synchronous external abort that is not on a table walk.
const FSC_EXTERNAL: u32 = 0x10;

/// The name of a partition in a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    bytes: [u8; NAME_BYTES],
    len: u8,
}

impl Name {
    fn parse(word: &[u8]) -> Result<Self, Refused> {
        let mut bytes = [0; NAME_BYTES];
        let slot = bytes.get_mut(..word.len()).ok_or(Refused::NoPartition)?;
        slot.copy_from_slice(word);
        let len = u8::try_from(word.len()).map_err(|_| Refused::NoPartition)?;
        Ok(Self { bytes, len })
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.len))
            .and_then(|bytes| core::str::from_utf8(bytes).ok())
            .unwrap_or("")
    }
}

/// What to make a vCPU take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A virtual SError with this syndrome, of 25 bits at most.
    Serror {
        /// ESR_EL1.ISS.
        iss: u32,
    },
    /// A synchronous external abort.
    Sea {
        /// Of an instruction fetch; otherwise of a data access.
        fetch: bool,
        /// FAR_EL1; `None` leaves it alone, and FnV says so.
        far: Option<u64>,
        /// ESR_EL1.ISS, of 25 bits at most, with the fault status of an external abort.
        iss: u32,
    },
}

/// Where a guest is to be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// At EL0.
    El0,
    /// At EL1.
    El1,
    /// At EL1, with SError masked (PSTATE.A).
    Masked,
    /// At EL1, with SError unmasked.
    Unmasked,
}

impl Place {
    /// Says whether a guest that was interrupted with this PSTATE (SPSR_EL2) is there.
    pub const fn holds(self, pstate: u64) -> bool {
        const AARCH32: u64 = 1 << 4;
        const A: u64 = 1 << 8;
        let el1 = pstate & AARCH32 == 0 && pstate >> 2 & 3 == 1;
        match self {
            Self::El0 => !el1,
            Self::El1 => el1,
            Self::Masked => el1 && pstate & A != 0,
            Self::Unmasked => el1 && pstate & A == 0,
        }
    }
}

/// What a command asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Tell the state of every partition.
    Ps,
    /// Stop a partition.
    Stop(Name),
    /// Start a partition that is stopped.
    Start(Name),
    /// Stop a partition and start it again from its images.
    Restart(Name),
    /// Load a partition from another kernel from now on, and start it again.
    Reload {
        /// Which partition.
        name: Name,
        /// Length and sum of a kernel that follows in pieces; `None`: the one that was booted.
        kernel: Option<(u64, u32)>,
    },
    /// A piece of a kernel.
    Data(Piece),
    /// All pieces have come: load it.
    Commit,
    /// Forget the pieces.
    Abort,
    /// Make a vCPU take an error.
    Inject {
        /// Whose vCPU.
        name: Name,
        /// Its number in the partition.
        vcpu: u8,
        /// What it takes.
        fault: Fault,
        /// Before its first instruction when it is turned on next; otherwise now.
        at_start: bool,
        /// Only where the guest is found there.
        place: Option<Place>,
    },
    /// Tell what has been counted.
    Stats,
    /// Tell the last events.
    Log,
    /// Tell the last exits of a vCPU.
    Trace {
        /// Whose vCPU.
        name: Name,
        /// Its number in the partition.
        vcpu: u8,
        /// Those before the exit with this number; otherwise up to the last one.
        before: u64,
    },
}

/// Why a command was not understood. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// More than [`COMMAND_BYTES`].
    TooLong,
    /// A byte that is not printable ASCII: the line was hit by noise.
    Damaged,
    /// Not a command.
    Unknown,
    /// A partition's name is missing, or longer than a name can be.
    NoPartition,
    /// A word that the command does not have, or has already had.
    Word,
    /// Not a number of the right kind, or too high.
    Number,
    /// `inject` without `vcpu=`.
    NoVcpu,
    /// `inject` with neither or both of `serror` and `sea=`.
    NoFault,
    /// A piece of a kernel that is not what its sum says.
    Piece,
    /// `reload` with one of `bytes=` and `crc=`.
    HalfKernel,
    /// A syndrome of more than 25 bits.
    TooManyBits,
    /// An abort's syndrome whose fault status is none of an external abort.
    NotExternal,
}

impl Refused {
    /// Returns the reason and the remedy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "the line is longer than 127 bytes",
            Self::Damaged => "the line is damaged; send it again",
            Self::Unknown => {
                "no such command; there are ps, stop, start, restart, reload, inject, stats, log, trace"
            }
            Self::NoPartition => "name a partition: `ps` lists them",
            Self::Word => "a word that the command does not have, or twice; see docs/control.md",
            Self::Number => {
                "not a number: id=, vcpu=, before= and bytes= are decimal, the others 0x..."
            }
            Self::NoVcpu => "say which vCPU: vcpu=0",
            Self::NoFault => "say what to inject: `serror`, `sea=data` or `sea=fetch`",
            Self::Piece => {
                "the line is damaged: the piece is not what its crc= says; send it again"
            }
            Self::HalfKernel => "say both bytes= and crc= of the new image, or neither",
            Self::TooManyBits => "a syndrome has 25 bits: iss= is at most 0x1ffffff",
            Self::NotExternal => {
                "iss[5:0] is no external abort: use 0x10, 0x13 to 0x18 or 0x1b to 0x1f"
            }
        }
    }
}

/// A line that was received, understood or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    /// The caller's number, for the answer.
    pub id: Option<u64>,
    /// What it asks for.
    pub request: Result<Request, Refused>,
}

impl Command {
    /// Understands a line. Total: each sequence of bytes is a command or is refused.
    pub fn parse(line: &[u8]) -> Self {
        let words = || {
            line.split(|byte| *byte == b' ')
                .filter(|word| !word.is_empty())
        };
        let id = words().find_map(|word| word.strip_prefix(b"id="));
        let request = match id.map(decimal) {
            Some(None) => Err(Refused::Number),
            _ if !line.iter().all(|byte| matches!(byte, b' '..=b'~')) => Err(Refused::Damaged),
            _ => request(words()),
        };
        Self {
            id: id.and_then(decimal),
            request,
        }
    }
}

fn request<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Request, Refused> {
    // The caller's number may stand anywhere, once.
    let mut ids = 0;
    let mut words = words.filter(|word| {
        let is_id = word.starts_with(b"id=");
        ids += u8::from(is_id);
        !is_id || ids > 1
    });
    let verb = words.next().ok_or(Refused::Unknown)?;
    let request = match verb {
        b"ps" => Request::Ps,
        b"stats" => Request::Stats,
        b"log" => Request::Log,
        b"stop" => Request::Stop(name(words.next())?),
        b"start" => Request::Start(name(words.next())?),
        b"restart" => Request::Restart(name(words.next())?),
        b"inject" => return inject(name(words.next())?, words),
        b"trace" => return trace(name(words.next())?, words),
        b"reload" => return reload(name(words.next())?, words),
        b"data" => piece(&mut words)?,
        b"commit" => Request::Commit,
        b"abort" => Request::Abort,
        _ => return Err(Refused::Unknown),
    };
    match words.next() {
        None => Ok(request),
        Some(_) => Err(Refused::Word),
    }
}

fn name(word: Option<&[u8]>) -> Result<Name, Refused> {
    Name::parse(word.ok_or(Refused::NoPartition)?)
}

fn trace<'a>(name: Name, words: impl Iterator<Item = &'a [u8]>) -> Result<Request, Refused> {
    let (mut vcpu, mut before) = (None, None);
    for word in words {
        if let Some(number) = word.strip_prefix(b"vcpu=") {
            once(&mut vcpu, decimal(number).ok_or(Refused::Number)?)?;
        } else if let Some(number) = word.strip_prefix(b"before=") {
            once(&mut before, decimal(number).ok_or(Refused::Number)?)?;
        } else {
            return Err(Refused::Word);
        }
    }
    Ok(Request::Trace {
        name,
        vcpu: u8::try_from(vcpu.unwrap_or(0)).map_err(|_| Refused::Number)?,
        before: before.unwrap_or(u64::MAX),
    })
}

fn reload<'a>(name: Name, words: impl Iterator<Item = &'a [u8]>) -> Result<Request, Refused> {
    let (mut bytes, mut crc) = (None, None);
    for word in words {
        if let Some(number) = word.strip_prefix(b"bytes=") {
            once(&mut bytes, decimal(number).ok_or(Refused::Number)?)?;
        } else if let Some(number) = word.strip_prefix(b"crc=") {
            once(&mut crc, sum(number)?)?;
        } else {
            return Err(Refused::Word);
        }
    }
    let kernel = match (bytes, crc) {
        (Some(bytes), Some(crc)) => Some((bytes, crc)),
        (None, None) => None,
        _ => return Err(Refused::HalfKernel),
    };
    Ok(Request::Reload { name, kernel })
}

/// `at=` and `crc=` and what they stand for, in this order.
fn piece<'a>(words: &mut impl Iterator<Item = &'a [u8]>) -> Result<Request, Refused> {
    let mut word = |key: &[u8]| words.next().and_then(|word| word.strip_prefix(key));
    let at = word(b"at=").ok_or(Refused::Word)?;
    let crc = word(b"crc=").ok_or(Refused::Word)?;
    let text = word(b"").ok_or(Refused::Piece)?;
    Piece::parse(hexadecimal(at)?, sum(crc)?, text).map(Request::Data)
}

fn sum(digits: &[u8]) -> Result<u32, Refused> {
    u32::try_from(hexadecimal(digits)?).map_err(|_| Refused::Number)
}

/// The words of `inject`, each of which may stand once.
#[derive(Default)]
struct Inject {
    vcpu: Option<u64>,
    serror: Option<()>,
    fetch: Option<bool>,
    far: Option<u64>,
    iss: Option<u64>,
    at_start: Option<()>,
    place: Option<Place>,
}

fn inject<'a>(name: Name, words: impl Iterator<Item = &'a [u8]>) -> Result<Request, Refused> {
    let mut said = Inject::default();
    for word in words {
        if word == b"serror" {
            once(&mut said.serror, ())?;
        } else if let Some(number) = word.strip_prefix(b"vcpu=") {
            once(&mut said.vcpu, decimal(number).ok_or(Refused::Number)?)?;
        } else if let Some(number) = word.strip_prefix(b"iss=") {
            once(&mut said.iss, hexadecimal(number)?)?;
        } else if let Some(number) = word.strip_prefix(b"far=") {
            once(&mut said.far, hexadecimal(number)?)?;
        } else {
            match word {
                b"at=start" => once(&mut said.at_start, ())?,
                b"el=0" => once(&mut said.place, Place::El0)?,
                b"el=1" => once(&mut said.place, Place::El1)?,
                b"at=masked" => once(&mut said.place, Place::Masked)?,
                b"at=unmasked" => once(&mut said.place, Place::Unmasked)?,
                b"sea=data" => once(&mut said.fetch, false)?,
                b"sea=fetch" => once(&mut said.fetch, true)?,
                _ => return Err(Refused::Word),
            }
        }
    }
    let vcpu = said.vcpu.ok_or(Refused::NoVcpu)?;
    let vcpu = u8::try_from(vcpu).map_err(|_| Refused::Number)?;
    let fault = fault(&said)?;
    Ok(Request::Inject {
        name,
        vcpu,
        fault,
        at_start: said.at_start.is_some(),
        place: said.place,
    })
}

fn fault(said: &Inject) -> Result<Fault, Refused> {
    let chosen = match said.iss {
        Some(iss) if iss > ISS_MASK => return Err(Refused::TooManyBits),
        Some(iss) => Some(u32::try_from(iss).map_err(|_| Refused::TooManyBits)?),
        None => None,
    };
    match (said.serror, said.fetch) {
        (Some(()), None) if said.far.is_some() => Err(Refused::Word),
        (Some(()), None) => Ok(Fault::Serror {
            iss: chosen.unwrap_or(ISS_IMPDEF),
        }),
        (None, Some(fetch)) => {
            let iss = chosen.unwrap_or(FSC_EXTERNAL);
            if !matches!(iss & 0x3f, 0x10 | 0x13..=0x18 | 0x1b..=0x1f) {
                return Err(Refused::NotExternal);
            }
            Ok(Fault::Sea {
                fetch,
                far: said.far,
                // Without an address there is none that the guest could believe.
                iss: if said.far.is_none() {
                    iss | ISS_FNV
                } else {
                    iss
                },
            })
        }
        _ => Err(Refused::NoFault),
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Refused> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refused::Word),
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    number(digits, 10)
}

/// `0x` may be left out: a syndrome is never anything but hexadecimal.
fn hexadecimal(digits: &[u8]) -> Result<u64, Refused> {
    number(digits.strip_prefix(b"0x").unwrap_or(digits), 16).ok_or(Refused::Number)
}

fn number(digits: &[u8], base: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = char::from(*digit).to_digit(base)?;
        value
            .checked_mul(u64::from(base))?
            .checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests;
