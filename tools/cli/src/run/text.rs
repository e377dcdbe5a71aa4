// SPDX-License-Identifier: MIT OR Apache-2.0
//! One line of a guest's console, as a terminal would show it, and nothing that steers a terminal.

/// A line that is being written: printable characters, and a place that `\r` and `\b` move.
#[derive(Clone, Default)]
pub(crate) struct Line {
    text: Vec<char>,
    at: usize,
    escape: Escape,
    torn: Vec<u8>,
}

/// How far an escape sequence has come, which is left out as a whole (ECMA-48, 5.4).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    No,
    Begun,
    Control,
    /// A string (OSC, DCS), which BEL or ST ends.
    Text,
}

/// A longer line begins again: nobody reads it, and it must not eat the host's memory.
const LONGEST: usize = 4096;
const TAB: usize = 8;

impl Line {
    /// Takes bytes as the guest wrote them. What is not UTF-8 is replaced.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.torn.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.torn);
        // A character may be cut by the frame; it comes whole with the next one.
        let whole = match std::str::from_utf8(&bytes) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => bytes.len(),
        };
        let (now, later) = bytes.split_at(whole);
        self.torn = later.to_vec();
        for c in String::from_utf8_lossy(now).chars() {
            self.put(c);
        }
    }

    fn put(&mut self, c: char) {
        match (self.escape, c) {
            (Escape::No, '\x1b') => self.escape = Escape::Begun,
            (Escape::Begun, '[') => self.escape = Escape::Control,
            (Escape::Begun, ']' | 'P') => self.escape = Escape::Text,
            (Escape::Begun, _)
            | (Escape::Control, '\x40'..='\x7e')
            | (Escape::Text, '\x07' | '\\') => self.escape = Escape::No,
            (Escape::Control | Escape::Text, _) => {}
            (Escape::No, '\r') => self.at = 0,
            (Escape::No, '\x08') => self.at = self.at.saturating_sub(1),
            (Escape::No, '\t') => {
                let stop = (self.at / TAB + 1) * TAB;
                while self.at < stop {
                    self.show(' ');
                }
            }
            (Escape::No, c) if c.is_control() => {}
            (Escape::No, c) => self.show(c),
        }
    }

    fn show(&mut self, c: char) {
        if self.at >= LONGEST {
            self.clear();
        }
        match self.text.get_mut(self.at) {
            Some(slot) => *slot = c,
            None => self.text.push(c),
        }
        self.at += 1;
    }

    /// Returns what stands there now.
    pub(crate) fn shown(&self) -> String {
        let text: String = self.text.iter().collect();
        text.trim_end().to_owned()
    }

    /// Returns what stands there, with the spaces at its end: a prompt has one.
    pub(crate) fn unfinished(&self) -> String {
        self.text.iter().collect()
    }

    /// Ends the line and returns it.
    pub(crate) fn end(&mut self) -> String {
        let torn = std::mem::take(&mut self.torn);
        for c in String::from_utf8_lossy(&torn).chars() {
            self.put(c);
        }
        let text = self.shown();
        self.clear();
        text
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Returns `text` without anything that steers a terminal.
pub(crate) fn harmless(text: &str) -> String {
    let mut line = Line::default();
    line.push(text.as_bytes());
    line.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_as_on_a_terminal() {
        for (bytes, shown) in [
            (&b"plain"[..], "plain"),
            (b"50%\r100%", "100%"),
            (b"lx\x08s", "ls"),
            (b"\x1b[1;31mred\x1b[0m", "red"),
            (b"\x1b]0;title\x07$ ", "$"),
            (b"\x1bcreset\x07", "reset"),
            (b"a\tb", "a       b"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ] {
            let mut line = Line::default();
            for byte in bytes {
                line.push(&[*byte]);
            }
            assert_eq!(line.end(), shown, "{bytes:?}");
            assert_eq!(line.unfinished(), "");
        }
    }

    #[test]
    fn a_character_that_a_frame_cut_comes_whole() {
        let mut line = Line::default();
        line.push(b"\xc3");
        assert_eq!(line.unfinished(), "");
        line.push(b"\xa9$ ");
        assert_eq!(line.unfinished(), "\u{e9}$ ");
    }

    #[test]
    fn no_line_is_endless_and_none_steers_the_terminal() {
        let mut line = Line::default();
        line.push(&vec![b'x'; 3 * LONGEST]);
        assert!(line.shown().len() <= LONGEST);
        assert_eq!(harmless("\x1b[2J\x1b[Hgone\u{9b}2J"), "gone2J");
    }
}
