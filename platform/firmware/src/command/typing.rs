// SPDX-License-Identifier: MIT OR Apache-2.0
//! `type pe=<dec> [period=<ticks> at=<ticks>:<hex bytes> [at=...]]`: the firmware types this into the
//! console in each period of CNTPCT, on that PE's timer; without `at` it stops to.

use firebreak_abi::MAX_PES;

use super::{Command, decimal, once};
use crate::typist::{STROKES, Stroke, Text};

pub(super) fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Command, &'static str> {
    let (mut pe, mut period, mut strokes) = (None, None, [None; STROKES]);
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("pe", value) => once(&mut pe, decimal(value))?,
            ("period", value) => once(&mut period, decimal(value))?,
            ("at", value) => {
                let free = strokes.iter_mut().find(|slot| slot.is_none());
                *free.ok_or("at-too-often")? = Some(stroke(value).ok_or("at-bad")?);
            }
            _ => return Err("unknown-word"),
        }
    }
    let pe = pe
        .and_then(|pe| usize::try_from(pe).ok())
        .filter(|pe| *pe < MAX_PES)
        .ok_or("pe-missing-or-bad")?;
    let text = match (period, strokes) {
        (None, [None, ..]) => None,
        (Some(period), _) => Some(Text::new(period, strokes).ok_or("at-bad")?),
        (None, _) => return Err("period-missing"),
    };
    Ok(Command::Type { pe, text })
}

fn stroke(text: &str) -> Option<Stroke> {
    let (at_ticks, digits) = text.split_once(':')?;
    let digits = digits.as_bytes();
    let digit = |index: usize| {
        let digit = char::from(*digits.get(index)?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    let byte = |index: usize| Some(digit(2 * index)? << 4 | digit(2 * index + 1)?);
    let count = digits.len().div_ceil(2);
    let is_whole = (0..count).all(|index| byte(index).is_some());
    let bytes = (0..count).filter_map(byte);
    is_whole.then(|| Stroke::new(decimal(at_ticks)?, bytes))?
}

#[cfg(test)]
mod tests {
    use super::super::parse as line;
    use super::*;

    #[test]
    fn a_text_is_understood_and_ended() {
        let found = line(b"type pe=1 period=4096 at=60:013a at=2048:0A").unwrap();
        let strokes = [
            Stroke::new(60, [1, b':'].into_iter()),
            Stroke::new(2048, [b'\n'].into_iter()),
            None,
        ];
        let text = Text::new(4096, strokes);
        assert!(text.is_some());
        assert_eq!(found, Some(Command::Type { pe: 1, text }));
        let end = Command::Type { pe: 0, text: None };
        assert_eq!(line(b"type pe=0").unwrap(), Some(end));
    }

    #[test]
    fn wrong_lines_are_refused_with_a_reason() {
        for (text, reason) in [
            ("type period=1 at=0:00", "pe-missing-or-bad"),
            ("type pe=8 period=1 at=0:00", "pe-missing-or-bad"),
            ("type pe=0 at=0:00", "period-missing"),
            ("type pe=0 period=10", "at-bad"),
            ("type pe=0 period=10 at=10:00", "at-bad"),
            ("type pe=0 period=10 at=5:00 at=4:00", "at-bad"),
            ("type pe=0 period=10 at=5", "at-bad"),
            ("type pe=0 period=10 at=5:", "at-bad"),
            ("type pe=0 period=10 at=5:0", "at-bad"),
            ("type pe=0 period=10 at=5:0x", "at-bad"),
            (
                "type pe=0 period=10 at=1:00 at=2:00 at=3:00 at=4:00",
                "at-too-often",
            ),
            ("type pe=0 text=a", "unknown-word"),
        ] {
            assert_eq!(line(text.as_bytes()), Err(reason), "{text}");
        }
    }
}
