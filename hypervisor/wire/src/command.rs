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
                "no such command; there are ps, stop, start, restart, reload, inject, stats, log"
            }
            Self::NoPartition => "name a partition: `ps` lists them",
            Self::Word => "a word that the command does not have, or twice; see docs/control.md",
            Self::Number => "not a number: id=, vcpu= and bytes= are decimal, the others 0x...",
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(line: &str) -> Result<Request, Refused> {
        Command::parse(line.as_bytes()).request
    }

    fn victim() -> Name {
        Name::parse(b"victim").unwrap()
    }

    fn injected(fault: Fault) -> Result<Request, Refused> {
        Ok(Request::Inject {
            name: victim(),
            vcpu: 1,
            fault,
            at_start: false,
            place: None,
        })
    }

    #[test]
    fn each_command_is_understood() {
        assert_eq!(parsed("ps"), Ok(Request::Ps));
        assert_eq!(parsed("  stats "), Ok(Request::Stats));
        assert_eq!(parsed("log"), Ok(Request::Log));
        assert_eq!(parsed("stop victim"), Ok(Request::Stop(victim())));
        assert_eq!(parsed("start victim"), Ok(Request::Start(victim())));
        assert_eq!(parsed("restart victim"), Ok(Request::Restart(victim())));
        let serror = |iss| injected(Fault::Serror { iss });
        assert_eq!(
            parsed("inject victim vcpu=1 serror iss=0xc11"),
            serror(0xc11)
        );
        assert_eq!(parsed("inject victim iss=C11 serror vcpu=1"), serror(0xc11));
        assert_eq!(
            parsed("inject victim vcpu=1 serror iss=0x1ffffff"),
            serror(0x1ff_ffff)
        );
        // The default is implementation defined, and never all zeros.
        assert_eq!(parsed("inject victim vcpu=1 serror"), serror(1 << 24));
        assert_eq!(parsed("inject victim vcpu=1 serror iss=0"), serror(0));
        let sea = |fetch, far, iss| injected(Fault::Sea { fetch, far, iss });
        assert_eq!(
            parsed("inject victim vcpu=1 sea=data far=0xffffffffffffffff"),
            sea(false, Some(u64::MAX), 0x10)
        );
        assert_eq!(
            parsed("inject victim vcpu=1 sea=fetch far=0 iss=0x17"),
            sea(true, Some(0), 0x17)
        );
        // Without an address the guest is told that there is none.
        assert_eq!(
            parsed("inject victim vcpu=1 sea=data"),
            sea(false, None, 0x410)
        );
    }

    #[test]
    fn a_kernel_comes_in_pieces() {
        let reload = |kernel| {
            let name = victim();
            Ok(Request::Reload { name, kernel })
        };
        assert_eq!(parsed("reload victim"), reload(None));
        assert_eq!(
            parsed("reload victim crc=0xcbf43926 bytes=9"),
            reload(Some((9, 0xcbf4_3926)))
        );
        assert_eq!(parsed("commit"), Ok(Request::Commit));
        assert_eq!(parsed("abort"), Ok(Request::Abort));
        let (crc, text) = crate::encode_piece(0x30, b"foob");
        let text: String = text.collect();
        let data = parsed(&format!("data at=0x30 crc={crc:#x} {text}"));
        let Ok(Request::Data(piece)) = data else {
            panic!("{data:?}")
        };
        assert_eq!((piece.at, piece.bytes()), (0x30, &b"foob"[..]));
        for (line, reason) in [
            (format!("data at=0x31 crc={crc:#x} {text}"), Refused::Piece),
            (format!("data at=0x30 crc={crc:#x}"), Refused::Piece),
            (format!("data at=0x30 {text}"), Refused::Word),
            (format!("data at=0x30 crc={crc:#x} {text} x"), Refused::Word),
            (
                "data at=0x30 crc=0x100000000 Zg".to_owned(),
                Refused::Number,
            ),
            ("reload victim bytes=9".to_owned(), Refused::HalfKernel),
            ("reload victim bytes=x crc=0".to_owned(), Refused::Number),
            ("reload".to_owned(), Refused::NoPartition),
            ("commit now".to_owned(), Refused::Word),
        ] {
            assert_eq!(parsed(&line), Err(reason), "{line}");
        }
    }

    #[test]
    fn an_injection_can_wait_for_the_start() {
        assert_eq!(
            parsed("inject victim vcpu=1 at=start serror iss=0x811"),
            Ok(Request::Inject {
                name: victim(),
                vcpu: 1,
                fault: Fault::Serror { iss: 0x811 },
                at_start: true,
                place: None,
            })
        );
        for (word, place) in [
            ("el=0", Place::El0),
            ("el=1", Place::El1),
            ("at=masked", Place::Masked),
            ("at=unmasked", Place::Unmasked),
        ] {
            assert_eq!(
                parsed(&format!("inject victim vcpu=1 {word} serror iss=0x811")),
                Ok(Request::Inject {
                    name: victim(),
                    vcpu: 1,
                    fault: Fault::Serror { iss: 0x811 },
                    at_start: false,
                    place: Some(place),
                })
            );
        }
        assert_eq!(
            parsed("inject victim vcpu=1 el=2 serror"),
            Err(Refused::Word)
        );
        for twice in ["at=start at=start", "at=masked el=1", "at=masked at=masked"] {
            let twice = parsed(&format!("inject victim vcpu=1 {twice} serror"));
            assert_eq!(twice, Err(Refused::Word));
        }
    }

    #[test]
    fn a_place_is_a_level_and_the_mask_of_serror() {
        // EL0t, EL1t, EL1h, AArch32 User; with D, A, I, F clear and set.
        for (mode, el1) in [
            (0b0000, false),
            (0b0100, true),
            (0b0101, true),
            (0b1_0000, false),
        ] {
            for (daif, masked) in [(0, false), (0b0100, true), (0b1011, false), (0b1111, true)] {
                let pstate = mode | daif << 6;
                assert_eq!(Place::El0.holds(pstate), !el1);
                assert_eq!(Place::El1.holds(pstate), el1);
                assert_eq!(Place::Masked.holds(pstate), el1 && masked);
                assert_eq!(Place::Unmasked.holds(pstate), el1 && !masked);
            }
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_for_its_reason() {
        let cases = [
            ("", Refused::Unknown),
            ("reboot", Refused::Unknown),
            ("PS", Refused::Unknown),
            ("ps all", Refused::Word),
            ("ps id=1 id=2", Refused::Word),
            ("ps id=x", Refused::Number),
            ("ps id=18446744073709551616", Refused::Number),
            ("stop", Refused::NoPartition),
            ("stop a-name-of-16-chr", Refused::NoPartition),
            ("stop victim now", Refused::Word),
            ("inject", Refused::NoPartition),
            ("inject victim serror", Refused::NoVcpu),
            ("inject victim vcpu=256 serror", Refused::Number),
            ("inject victim vcpu=0x1 serror", Refused::Number),
            ("inject victim vcpu=1", Refused::NoFault),
            ("inject victim vcpu=1 serror sea=data", Refused::NoFault),
            ("inject victim vcpu=1 serror far=0x10", Refused::Word),
            ("inject victim vcpu=1 serror serror", Refused::Word),
            ("inject victim vcpu=1 vcpu=1 serror", Refused::Word),
            ("inject victim vcpu=1 sea=walk", Refused::Word),
            ("inject victim vcpu=1 serror iss=", Refused::Number),
            ("inject victim vcpu=1 serror iss=0xg", Refused::Number),
            ("inject victim vcpu=1 serror iss=-1", Refused::Number),
            (
                "inject victim vcpu=1 serror iss=0x2000000",
                Refused::TooManyBits,
            ),
            (
                "inject victim vcpu=1 serror iss=0xffffffffffffffff",
                Refused::TooManyBits,
            ),
            (
                "inject victim vcpu=1 sea=data iss=0x2000010",
                Refused::TooManyBits,
            ),
            (
                "inject victim vcpu=1 sea=data iss=0x7",
                Refused::NotExternal,
            ),
            ("p\u{7f}s", Refused::Damaged),
            ("ps\t", Refused::Damaged),
        ];
        for (line, reason) in cases {
            assert_eq!(parsed(line), Err(reason), "{line:?}");
            assert!(!reason.as_str().is_empty());
        }
    }

    #[test]
    fn the_callers_number_comes_back_even_with_a_refusal() {
        for line in ["id=7 ps", "ps id=7", "no id=7 such command", "id=7"] {
            assert_eq!(Command::parse(line.as_bytes()).id, Some(7), "{line}");
        }
        assert_eq!(Command::parse(b"ps").id, None);
        assert_eq!(Command::parse(b"ps id=seven").id, None);
        assert_eq!(parsed("id=7 ps"), Ok(Request::Ps));
    }

    proptest! {
        #[test]
        fn no_line_asks_for_a_syndrome_that_does_not_fit(
            line in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn all_25_bits_can_be_chosen_and_no_other(iss: u64, shift in 0..64_u32) {
            let iss = iss >> shift;
            let line = format!("inject victim vcpu=1 serror iss={iss:#x}");
            let expected = match u32::try_from(iss) {
                Ok(iss) if iss < 1 << 25 => injected(Fault::Serror { iss }),
                _ => Err(Refused::TooManyBits),
            };
            prop_assert_eq!(parsed(&line), expected);
        }

        #[test]
        fn a_syndrome_of_an_abort_is_one_of_an_external_abort(iss in 0_u64..1 << 25) {
            let line = format!("inject victim vcpu=1 sea=data far=1 iss={iss:#x}");
            let external = [0x10, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f];
            prop_assert_eq!(parsed(&line).is_ok(), external.contains(&(iss & 0x3f)));
        }
    }
}
