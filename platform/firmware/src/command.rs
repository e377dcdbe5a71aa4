// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of the host, one line of text each.
//!
//! `ping`, `poison pa=<hex>` or `poison table=stage2`, each `[by=<sea or sei>]`, `heal pa=<hex>`, `behave pe=<dec or all> as=<modes>`, and `raise id=<dec> pe=<dec> iss=<hex> sev=<word>`
//! with the options `pa=<hex>`, `norecord`, `delay=<ticks>`, `in=guest`, `with=<dec>` and
//! `as=<modes>`, and for a synchronous external abort `sync=<data or fetch>` and `far=<hex>`; and
//! `storm count=<dec> pe=<dec> iss=<hex> sev=<word>` with the options `id=<dec>`, `pa=<hex>`,
//! `step=<hex>`, `gap=<ticks>`, `in=guest` and `as=<modes>`; `sweep` and `type`, in their modules. Words may come in any order; a word that is not known, or comes
//! twice, refuses the whole line.

use firebreak_abi::{MAX_PES, Pa};
use firebreak_syndrome::{CperSeverity, Iss};

use crate::abort::Abort;
use crate::behavior::Modes;
use crate::errors::{Error, Order, Request, StormRequest};
use crate::poison::Answer;
use crate::sweep::Plan;
use crate::typist::Text;

mod sweep;
mod typing;

/// The longest line that is accepted, in bytes.
pub const MAX_LINE_BYTES: usize = 200;

/// Number of a storm's first error, unless the host names one.
const STORM_ID: u64 = 2_000_000;

/// What the host wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and no heap to put a part of it on"
)]
pub enum Command {
    /// Answer with `pong`.
    Ping,
    /// Raise errors at a run of consecutive moments.
    Sweep {
        /// Number of the PE.
        pe: usize,
        /// The errors and their moments.
        plan: Plan,
    },
    /// Type a text into the console in each period, or none any more.
    Type {
        /// Number of the PE on whose timer.
        pe: usize,
        /// What, and when.
        text: Option<Text>,
    },
    /// Raise an error, or very many.
    Raise {
        /// Number of the PE.
        pe: usize,
        /// A second PE that gets the same order.
        with: Option<usize>,
        /// The errors and their moment.
        order: Order,
    },
    /// Make a page bad.
    Poison {
        /// An address in it; `None`: the first stage-2 table of the PE that takes the command.
        pa: Option<Pa>,
        /// As what accesses are handed on.
        answer: Answer,
    },
    /// Make a page good again.
    Heal {
        /// An address in it.
        pa: Pa,
    },
    /// Treat errors like this from now on.
    Behave {
        /// Number of the PE; `None`: all of them.
        pe: Option<usize>,
        /// How.
        modes: Modes,
    },
}

/// Parses one line, without its end. An empty one is `None`.
///
/// # Errors
///
/// A word for the `fw: error` line that says what is wrong.
pub fn parse(line: &[u8]) -> Result<Option<Command>, &'static str> {
    let line = core::str::from_utf8(line).map_err(|_| "not-ascii")?;
    let mut words = line.split_ascii_whitespace();
    match words.next() {
        None => Ok(None),
        Some("ping") if words.next().is_none() => Ok(Some(Command::Ping)),
        Some("raise") => raise(words).map(Some),
        Some("storm") => storm(words).map(Some),
        Some("poison") => poison(words).map(Some),
        Some("heal") => heal(words).map(Some),
        Some("behave") => behave(words).map(Some),
        Some("sweep") => sweep::parse(words).map(Some),
        Some("type") => typing::parse(words).map(Some),
        Some(_) => Err("unknown-command"),
    }
}

/// What `raise` and `storm` say alike.
#[derive(Default)]
struct Words<'a> {
    id: Option<u64>,
    pe: Option<u64>,
    iss: Option<u64>,
    severity: Option<&'a str>,
    pa: Option<Pa>,
    modes: Option<Modes>,
    no_record: bool,
    abort: Option<Abort>,
}

impl<'a> Words<'a> {
    /// Takes a word; `false` when it is none of these.
    fn take(&mut self, name: &str, value: &'a str) -> Result<bool, &'static str> {
        match name {
            "id" => once(&mut self.id, decimal(value))?,
            "pe" => once(&mut self.pe, decimal(value))?,
            "iss" => once(&mut self.iss, hexadecimal(value))?,
            "sev" => once(&mut self.severity, Some(value))?,
            "pa" => once(&mut self.pa, hexadecimal(value).map(Pa::new))?,
            "as" => once(&mut self.modes, Some(known_modes(value)?))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn error(&self) -> Result<Error, &'static str> {
        let iss = self.iss.and_then(|iss| u32::try_from(iss).ok());
        let record = match self.severity.ok_or("sev-missing")? {
            "none" => None,
            word => Some(CperSeverity::from_name(word).ok_or("sev-unknown")?),
        };
        pe_number(self.pe)?;
        let iss = iss.and_then(Iss::new).ok_or("iss-missing-or-bad")?;
        Ok(Error {
            id: self.id.ok_or("id-missing")?,
            iss: match self.abort {
                Some(abort) => abort.syndrome(iss).ok_or("no-external-abort")?,
                None => iss,
            },
            pa: self.pa,
            record: record.filter(|_| !self.no_record),
            abort: self.abort,
            real: false,
            modes: self.modes,
            in_storm: false,
        })
    }
}

fn raise<'a>(words: impl Iterator<Item = &'a str>) -> Result<Command, &'static str> {
    let mut common = Words::default();
    let (mut sync, mut far) = (None, None);
    let (mut delay, mut no_record, mut guest, mut with) = (None, None, None, None);
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("delay", value) => once(&mut delay, decimal(value))?,
            ("norecord", "") => once(&mut no_record, Some(()))?,
            ("in", "guest") => once(&mut guest, Some(()))?,
            ("with", value) => once(&mut with, Some(pe_number(decimal(value))?))?,
            ("sync", "data") => once(&mut sync, Some(false))?,
            ("sync", "fetch") => once(&mut sync, Some(true))?,
            ("far", value) => once(&mut far, hexadecimal(value))?,
            (name, value) if common.take(name, value)? => {}
            _ => return Err("unknown-word"),
        }
    }
    common.no_record = no_record.is_some();
    common.abort = match (sync, far) {
        (Some(fetch), far) => Some(Abort { fetch, far }),
        (None, None) => None,
        (None, Some(_)) => return Err("far-without-sync"),
    };
    let request = Request {
        error: common.error()?,
        delay_ticks: delay.unwrap_or(0),
        in_guest: guest.is_some(),
    };
    let pe = pe_number(common.pe)?;
    if with == Some(pe) {
        return Err("pe-twice");
    }
    Ok(Command::Raise {
        pe,
        with,
        order: Order::Raise(request),
    })
}

fn storm<'a>(words: impl Iterator<Item = &'a str>) -> Result<Command, &'static str> {
    let mut common = Words::default();
    let (mut count, mut gap_ticks, mut step, mut guest) = (None, None, None, None);
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("count", value) => once(&mut count, decimal(value))?,
            ("gap", value) => once(&mut gap_ticks, decimal(value))?,
            ("step", value) => once(&mut step, hexadecimal(value))?,
            ("in", "guest") => once(&mut guest, Some(()))?,
            (name, value) if common.take(name, value)? => {}
            _ => return Err("unknown-word"),
        }
    }
    common.id = common.id.or(Some(STORM_ID));
    let request = StormRequest {
        first: common.error()?,
        count: count.ok_or("count-missing")?,
        step_bytes: step.unwrap_or(0),
        in_guest: guest.is_some(),
        gap_ticks,
    };
    Ok(Command::Raise {
        pe: pe_number(common.pe)?,
        with: None,
        order: Order::Storm(request),
    })
}

fn poison<'a>(words: impl Iterator<Item = &'a str>) -> Result<Command, &'static str> {
    let (mut pa, mut answer, mut table) = (None, None, None);
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("pa", value) => once(&mut pa, hexadecimal(value).map(Pa::new))?,
            ("table", "stage2") => once(&mut table, Some(()))?,
            ("by", "sea") => once(&mut answer, Some(Answer::Sea))?,
            ("by", "sei") => once(&mut answer, Some(Answer::Sei))?,
            _ => return Err("unknown-word"),
        }
    }
    if pa.is_some() == table.is_some() {
        return Err("pa-missing");
    }
    Ok(Command::Poison {
        pa,
        answer: answer.unwrap_or(Answer::Sea),
    })
}

fn heal<'a>(words: impl Iterator<Item = &'a str>) -> Result<Command, &'static str> {
    match poison(words)? {
        Command::Poison { pa: Some(pa), .. } => Ok(Command::Heal { pa }),
        _ => Err("pa-missing"),
    }
}

fn behave<'a>(words: impl Iterator<Item = &'a str>) -> Result<Command, &'static str> {
    let (mut pe, mut modes) = (None, None);
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("pe", "all") => once(&mut pe, Some(None))?,
            ("pe", value) => once(&mut pe, Some(Some(pe_number(decimal(value))?)))?,
            ("as", value) => once(&mut modes, Some(known_modes(value)?))?,
            _ => return Err("unknown-word"),
        }
    }
    Ok(Command::Behave {
        pe: pe.ok_or("pe-missing-or-bad")?,
        modes: modes.ok_or("mode-missing")?,
    })
}

fn known_modes(text: &str) -> Result<Modes, &'static str> {
    Modes::parse(text).ok_or("mode-unknown")
}

fn pe_number(number: Option<u64>) -> Result<usize, &'static str> {
    number
        .and_then(|pe| usize::try_from(pe).ok())
        .filter(|pe| *pe < MAX_PES)
        .ok_or("pe-missing-or-bad")
}

fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), &'static str> {
    let value = value.ok_or("bad-number")?;
    if slot.replace(value).is_some() {
        Err("word-twice")
    } else {
        Ok(())
    }
}

fn decimal(text: &str) -> Option<u64> {
    // `parse` takes a sign, the protocol does not.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let valid = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Collects bytes into lines.
#[derive(Debug)]
pub struct LineBuffer {
    bytes: [u8; MAX_LINE_BYTES],
    len: usize,
    overlong: bool,
}

impl LineBuffer {
    /// Makes an empty one.
    pub const fn new() -> Self {
        Self {
            bytes: [0; MAX_LINE_BYTES],
            len: 0,
            overlong: false,
        }
    }

    /// Takes a byte; at the end of a line returns what the line says.
    pub fn push(&mut self, byte: u8) -> Option<Result<Command, &'static str>> {
        if byte == b'\n' || byte == b'\r' {
            let line = self.bytes.get(..self.len).unwrap_or_default();
            let result = if self.overlong {
                Err("line-too-long")
            } else {
                parse(line)
            };
            self.len = 0;
            self.overlong = false;
            return result.transpose();
        }
        match self.bytes.get_mut(self.len) {
            Some(slot) => {
                *slot = byte;
                self.len += 1;
            }
            None => self.overlong = true,
        }
        None
    }
}

impl Default for LineBuffer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raised(line: &str) -> Request {
        match parse(line.as_bytes()) {
            Ok(Some(Command::Raise {
                order: Order::Raise(request),
                ..
            })) => request,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_storm_has_a_count_and_the_words_of_an_error() {
        let line =
            b"storm count=1000000 pe=1 iss=1811 sev=corrected gap=50 pa=1000 step=1000 in=guest";
        let expected = StormRequest {
            first: Error {
                id: STORM_ID,
                iss: Iss::CE,
                pa: Some(Pa::new(0x1000)),
                record: Some(CperSeverity::Corrected),
                abort: None,
                real: false,
                modes: None,
                in_storm: false,
            },
            count: 1_000_000,
            step_bytes: 0x1000,
            in_guest: true,
            gap_ticks: Some(50),
        };
        let order = Order::Storm(expected);
        assert_eq!(
            parse(line),
            Ok(Some(Command::Raise {
                pe: 1,
                with: None,
                order
            }))
        );
        let line = b"storm count=2 pe=1 iss=1811 sev=none id=9";
        let Ok(Some(Command::Raise {
            order: Order::Storm(storm),
            ..
        })) = parse(line)
        else {
            panic!("not a storm")
        };
        assert_eq!(
            (storm.first.id, storm.first.record, storm.gap_ticks),
            (9, None, None)
        );
    }

    #[test]
    fn a_full_line_becomes_a_request() {
        let line =
            b"raise id=7 pe=1 iss=c11 sev=recoverable pa=0x45000000 delay=100 in=guest with=3";
        let expected = Command::Raise {
            pe: 1,
            with: Some(3),
            order: Order::Raise(Request {
                error: Error {
                    id: 7,
                    iss: Iss::UER,
                    pa: Some(Pa::new(0x4500_0000)),
                    record: Some(CperSeverity::Recoverable),
                    abort: None,
                    real: false,
                    modes: None,
                    in_storm: false,
                },
                delay_ticks: 100,
                in_guest: true,
            }),
        };
        assert_eq!(parse(line), Ok(Some(expected)));
    }

    #[test]
    fn behavior_is_set_for_one_error_one_pe_or_all() {
        let barge_in = Modes::parse("barge-in").unwrap();
        let request = raised("raise id=1 pe=0 iss=811 sev=none as=barge-in");
        assert_eq!(request.error.modes, Some(barge_in));
        for (line, pe, modes) in [
            ("behave pe=3 as=barge-in", Some(3), barge_in),
            ("behave as=conforming pe=all", None, Modes::CONFORMING),
        ] {
            let expected = Command::Behave { pe, modes };
            assert_eq!(parse(line.as_bytes()), Ok(Some(expected)), "{line}");
        }
    }

    #[test]
    fn a_page_is_poisoned_and_healed_by_its_address() {
        let pa = Pa::new(0x5000_0000);
        for (line, command) in [
            (
                "poison pa=50000000",
                Command::Poison {
                    pa: Some(pa),
                    answer: Answer::Sea,
                },
            ),
            (
                "poison by=sei pa=0x50000000",
                Command::Poison {
                    pa: Some(pa),
                    answer: Answer::Sei,
                },
            ),
            (
                "poison table=stage2",
                Command::Poison {
                    pa: None,
                    answer: Answer::Sea,
                },
            ),
            ("heal pa=50000000", Command::Heal { pa }),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(Some(command)), "{line}");
        }
    }

    #[test]
    fn sync_makes_an_abort_with_or_without_an_address() {
        for (words, fetch, far, iss) in [
            (
                "iss=50 sync=data far=0xffff000000004000",
                false,
                Some(0xffff_0000_0000_4000),
                0x50,
            ),
            ("iss=10 sync=fetch", true, None, 0x410),
        ] {
            let line = format!("raise id=1 pe=0 sev=recoverable {words}");
            let Ok(Some(Command::Raise {
                order: Order::Raise(request),
                ..
            })) = parse(line.as_bytes())
            else {
                panic!("{line}")
            };
            assert_eq!(request.error.abort, Some(Abort { fetch, far }));
            assert_eq!(request.error.iss.get(), iss);
        }
    }

    #[test]
    fn norecord_and_sev_none_leave_no_record() {
        for line in [
            "raise id=1 pe=0 iss=0x811 sev=none",
            "raise id=1 pe=0 iss=811 sev=fatal norecord",
        ] {
            assert_eq!(raised(line).error.record, None);
        }
    }

    #[test]
    fn wrong_lines_are_refused_with_a_reason() {
        for (line, reason) in [
            ("boo", "unknown-command"),
            ("ping now", "unknown-command"),
            ("raise", "sev-missing"),
            ("raise id=1 id=2", "word-twice"),
            ("raise id=-1", "bad-number"),
            ("raise id=1 pe=8 iss=11 sev=fatal", "pe-missing-or-bad"),
            (
                "raise id=1 pe=0 iss=2000000 sev=fatal",
                "iss-missing-or-bad",
            ),
            ("raise id=1 pe=0 iss=11 sev=bad", "sev-unknown"),
            ("raise id=1 pe=0 iss=11 sev=fatal x=1", "unknown-word"),
            (
                "raise id=1 pe=0 iss=11 sev=fatal norecord=1",
                "unknown-word",
            ),
            ("raise id=99999999999999999999 pe=0", "bad-number"),
            ("raise id=1 pe=0 iss=11 sev=fatal as=rude", "mode-unknown"),
            ("raise id=1 pe=1 iss=11 sev=none with=1", "pe-twice"),
            (
                "raise id=1 pe=1 iss=11 sev=none with=9",
                "pe-missing-or-bad",
            ),
            ("storm pe=0 iss=11 sev=none", "count-missing"),
            ("storm count=1 iss=11 sev=none", "pe-missing-or-bad"),
            ("storm count=1 pe=0 iss=11 sev=none delay=3", "unknown-word"),
            (
                "raise id=1 pe=0 iss=11 sev=fatal sync=data",
                "no-external-abort",
            ),
            ("raise id=1 pe=0 iss=10 sev=fatal sync=walk", "unknown-word"),
            ("raise id=1 pe=0 iss=10 sev=fatal far=1", "far-without-sync"),
            ("poison by=sei", "pa-missing"),
            ("poison pa=1 by=fire", "unknown-word"),
            ("poison table=stage2 pa=1", "pa-missing"),
            ("heal table=stage2", "pa-missing"),
            ("heal", "pa-missing"),
            ("behave pe=all", "mode-missing"),
            ("behave as=conforming", "pe-missing-or-bad"),
            ("behave pe=8 as=conforming", "pe-missing-or-bad"),
            ("behave pe=1 pe=all as=conforming", "word-twice"),
            ("behave pe=1 as=conforming now", "unknown-word"),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(reason), "{line}");
        }
        assert_eq!(parse(b"\xff"), Err("not-ascii"));
        assert_eq!(parse(b"  "), Ok(None));
    }

    #[test]
    fn an_overlong_line_is_refused_whole_and_the_next_one_is_read() {
        let mut buffer = LineBuffer::new();
        for _ in 0..MAX_LINE_BYTES + 50 {
            assert_eq!(buffer.push(b'p'), None);
        }
        assert_eq!(buffer.push(b'\n'), Some(Err("line-too-long")));
        for byte in b"ping\r" {
            if let Some(result) = buffer.push(*byte) {
                assert_eq!(result, Ok(Command::Ping));
            }
        }
        assert_eq!(buffer.push(b'\n'), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut buffer = LineBuffer::new();
            for byte in bytes {
                let _ = buffer.push(byte);
            }
        }
    }
}
