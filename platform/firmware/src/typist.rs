// SPDX-License-Identifier: MIT OR Apache-2.0
//! The typist: bytes that come by the console at the same offsets in each period.
//!
//! A host cannot type at an instruction. The firmware can: it lets the console's UART receive what
//! it sends (loopback), at moments of its own timer. So what EL2 does about a command can be swept
//! as anything else that a period brings.
//!
//! Pure: the schedule alone.

/// As many bytes as a PL011 keeps.
pub const STROKE_BYTES: usize = 16;
/// Strokes in a period, at most.
pub const STROKES: usize = 3;

/// Bytes that come at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stroke {
    /// Offset from the start of a period, in ticks.
    pub at_ticks: u64,
    bytes: [u8; STROKE_BYTES],
    len: usize,
}

impl Stroke {
    /// Makes one; `None` when there are no bytes, or too many.
    pub fn new(at_ticks: u64, bytes: impl Iterator<Item = u8>) -> Option<Self> {
        let mut stroke = Self {
            at_ticks,
            bytes: [0; STROKE_BYTES],
            len: 0,
        };
        for byte in bytes {
            *stroke.bytes.get_mut(stroke.len)? = byte;
            stroke.len += 1;
        }
        (stroke.len > 0).then_some(stroke)
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// What is typed in each period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text {
    period_ticks: u64,
    strokes: [Option<Stroke>; STROKES],
}

impl Text {
    /// Makes one of strokes in the order of their offsets; `None` when there are none, when two of
    /// them come in the wrong order, or one behind the end of the period.
    pub fn new(period_ticks: u64, strokes: [Option<Stroke>; STROKES]) -> Option<Self> {
        let offsets = || strokes.iter().flatten().map(|stroke| stroke.at_ticks);
        let is_sorted = offsets().is_sorted_by(|a, b| a < b);
        let fits = offsets().all(|at_ticks| at_ticks < period_ticks);
        (strokes.first()?.is_some() && is_sorted && fits).then_some(Self {
            period_ticks,
            strokes,
        })
    }
}

/// Types a text, from one period to the next.
#[derive(Clone, Copy, Debug)]
pub struct Typist {
    text: Text,
    /// Start of the period in which the next stroke comes.
    period_start: u64,
    index: usize,
}

impl Typist {
    /// Begins with the first whole period.
    pub fn new(text: Text, now_ticks: u64) -> Self {
        let mut typist = Self {
            text,
            period_start: 0,
            index: 0,
        };
        typist.begin_period(now_ticks);
        typist
    }

    fn begin_period(&mut self, now_ticks: u64) {
        let length = self.text.period_ticks;
        self.index = 0;
        self.period_start = (now_ticks / length)
            .saturating_add(1)
            .saturating_mul(length);
    }

    fn stroke(&self) -> Option<Stroke> {
        self.text.strokes.get(self.index).copied().flatten()
    }

    /// Returns when the next stroke comes.
    pub fn deadline(&self) -> u64 {
        let at_ticks = self.stroke().map_or(0, |stroke| stroke.at_ticks);
        self.period_start.saturating_add(at_ticks)
    }

    /// Returns the stroke that is due.
    pub fn step(&mut self, now_ticks: u64) -> Option<Stroke> {
        let due = self.stroke().filter(|_| now_ticks >= self.deadline())?;
        self.index += 1;
        if self.stroke().is_none() {
            // Of this period, even when it is over: one that was missed is left out.
            self.begin_period(now_ticks.max(self.period_start));
        }
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 1000;

    fn stroke(at_ticks: u64, text: &str) -> Option<Stroke> {
        Some(Stroke::new(at_ticks, text.bytes()).unwrap())
    }

    fn text(strokes: [Option<Stroke>; STROKES]) -> Text {
        Text::new(PERIOD, strokes).unwrap()
    }

    #[test]
    fn each_stroke_comes_once_in_each_period_at_its_offset() {
        let mut typist = Typist::new(
            text([stroke(60, "stop"), stroke(500, "start"), None]),
            2_345,
        );
        let mut typed = Vec::new();
        for now in 2_345..5_000 {
            if let Some(stroke) = typist.step(now) {
                typed.push((now, String::from_utf8(stroke.bytes().to_vec()).unwrap()));
            }
        }
        let wanted = [
            (3_060, "stop"),
            (3_500, "start"),
            (4_060, "stop"),
            (4_500, "start"),
        ];
        assert_eq!(typed, wanted.map(|(at, text)| (at, text.to_owned())));
    }

    #[test]
    fn what_was_missed_is_left_out_and_nothing_comes_in_a_heap() {
        let mut typist = Typist::new(text([stroke(60, "a"), None, None]), 0);
        assert_eq!(typist.deadline(), 1_060);
        assert!(typist.step(7_500).is_some());
        assert_eq!(typist.step(7_501), None);
        assert_eq!(typist.deadline(), 8_060);
    }

    #[test]
    fn a_stroke_is_not_empty_and_not_longer_than_the_uart_keeps() {
        assert_eq!(Stroke::new(0, "".bytes()), None);
        assert!(Stroke::new(0, "0123456789abcdef".bytes()).is_some());
        assert_eq!(Stroke::new(0, "0123456789abcdefg".bytes()), None);
    }

    #[test]
    fn strokes_stand_in_order_and_within_the_period() {
        for strokes in [
            [None, None, None],
            [None, stroke(1, "a"), None],
            [stroke(2, "a"), stroke(1, "b"), None],
            [stroke(1, "a"), stroke(1, "b"), None],
            [stroke(PERIOD, "a"), None, None],
        ] {
            assert_eq!(Text::new(PERIOD, strokes), None);
        }
    }
}
