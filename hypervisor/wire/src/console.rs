// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's bytes, made harmless and put into frames that carry its name.
//!
//! A frame is one line: `name| text` when the guest ended its line, `name> text` when the text
//! goes on in the guest's next frame. In `text` the bytes 0x20 to 0x7e stand for themselves,
//! `\` is `\\`, and every other byte is `\xHH`. A carriage return directly before a line feed is
//! dropped, even when a flush falls between the two.

use core::fmt::{self, Write};

use crate::json::hex_digit;

/// What is held back of a guest's line until it ends, as it will stand in the frame; a longer line
/// leaves in pieces.
pub const LINE_BYTES: usize = 128;

/// The longest name of a partition.
const NAME_BYTES: usize = 15;

/// The longest frame: name, mark, text, an escaped carriage return at the end of a line that nothing
/// follows, line feed.
pub const FRAME_BYTES: u64 = (NAME_BYTES + 2 + LINE_BYTES + ESCAPED_BYTES - 1 + 1) as u64;

/// The frame of an empty line: name, mark, line feed.
pub(crate) const EMPTY_FRAME_BYTES: u64 = (NAME_BYTES + 2 + 1) as u64;

/// Bytes of `\xHH`.
const ESCAPED_BYTES: usize = 4;

/// Says whether `name` may stand before a frame: `[a-z][a-z0-9-]{0,14}`.
pub fn is_console_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= NAME_BYTES
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Collects what one guest prints, and writes it out a frame at a time.
pub struct ConsoleEncoder {
    line: [u8; LINE_BYTES],
    len: usize,
    /// Bytes that these take in a frame.
    wire_len: usize,
}

impl ConsoleEncoder {
    /// Makes an empty one.
    pub const fn new() -> Self {
        Self {
            line: [0; LINE_BYTES],
            len: 0,
            wire_len: 0,
        }
    }

    /// Says whether [`flush`](Self::flush) would write anything: a carriage return at the end stays.
    pub fn has_half_line(&self) -> bool {
        self.len > usize::from(self.ends_in_carriage_return())
    }

    /// Takes one byte of the guest; writes a frame when it ended a line or the buffer is full.
    ///
    /// # Errors
    ///
    /// Returns what `w` returns; the line is gone then.
    pub fn push(&mut self, byte: u8, name: &str, w: &mut impl Write) -> fmt::Result {
        if byte == b'\n' {
            if self.ends_in_carriage_return() {
                self.len -= 1;
            }
            return self.emit(self.len, name, '|', w);
        }
        // A carriage return most likely stands before a line feed, and is dropped.
        let least = if byte == b'\r' { 1 } else { escaped_len(byte) };
        if self.wire_len + least > LINE_BYTES {
            self.flush(name, w)?;
        }
        if let Some(slot) = self.line.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
            self.wire_len += escaped_len(byte);
        }
        Ok(())
    }

    /// Writes what is held back, as text that goes on. A carriage return at its end stays, for
    /// the line feed that may follow.
    ///
    /// # Errors
    ///
    /// Returns what `w` returns; the text is gone then.
    pub fn flush(&mut self, name: &str, w: &mut impl Write) -> fmt::Result {
        let held = usize::from(self.ends_in_carriage_return());
        match self.len - held {
            0 => Ok(()),
            len => self.emit(len, name, '>', w),
        }
    }

    /// Writes what is held back to the last byte, and ends the line: the guest is gone.
    ///
    /// # Errors
    ///
    /// Returns what `w` returns; the text is gone then.
    pub fn finish(&mut self, name: &str, w: &mut impl Write) -> fmt::Result {
        match self.len {
            0 => Ok(()),
            len => self.emit(len, name, '|', w),
        }
    }

    fn ends_in_carriage_return(&self) -> bool {
        self.len.checked_sub(1).and_then(|last| self.line.get(last)) == Some(&b'\r')
    }

    /// Writes a frame with the first `len` bytes, and keeps the one byte that may stand behind
    /// them (a held carriage return).
    fn emit(&mut self, len: usize, name: &str, mark: char, w: &mut dyn Write) -> fmt::Result {
        let text = self.line.get(..len).unwrap_or(&[]);
        let result = write_frame(w, name, mark, text);
        if len < self.len {
            self.line[0] = b'\r';
            self.len = 1;
            self.wire_len = ESCAPED_BYTES;
        } else {
            self.len = 0;
            self.wire_len = 0;
        }
        result
    }
}

impl Default for ConsoleEncoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns how many bytes stand for this one in a frame.
const fn escaped_len(byte: u8) -> usize {
    match byte {
        b'\\' => 2,
        0x20..=0x7e => 1,
        _ => ESCAPED_BYTES,
    }
}

fn write_frame(w: &mut dyn Write, name: &str, mark: char, text: &[u8]) -> fmt::Result {
    w.write_str(name)?;
    w.write_char(mark)?;
    w.write_char(' ')?;
    for &byte in text {
        match byte {
            b'\\' => w.write_str("\\\\")?,
            0x20..=0x7e => w.write_char(char::from(byte))?,
            _ => {
                w.write_str("\\x")?;
                w.write_char(hex_digit(u64::from(byte >> 4)))?;
                w.write_char(hex_digit(u64::from(byte)))?;
            }
        }
    }
    w.write_char('\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(bytes: &[u8]) -> String {
        let mut out = String::new();
        let mut encoder = ConsoleEncoder::new();
        for &byte in bytes {
            encoder.push(byte, "vm", &mut out).unwrap();
        }
        encoder.flush("vm", &mut out).unwrap();
        out
    }

    #[test]
    fn lines_partial_lines_and_escapes_look_as_specified() {
        assert_eq!(printed(b"hello\r\n"), "vm| hello\n");
        assert_eq!(printed(b"\n"), "vm| \n");
        assert_eq!(printed(b"login: "), "vm> login: \n");
        assert_eq!(
            printed(b"a\\b\x1e{}\x00\xff\n"),
            "vm| a\\\\b\\x1e{}\\x00\\xff\n"
        );
        assert_eq!(printed(b"10%\r20%\r"), "vm> 10%\\x0d20%\n");
    }

    #[test]
    fn a_carriage_return_waits_for_its_line_feed_over_a_flush() {
        let mut out = String::new();
        let mut encoder = ConsoleEncoder::new();
        for &byte in b"ab\r" {
            encoder.push(byte, "vm", &mut out).unwrap();
        }
        encoder.flush("vm", &mut out).unwrap();
        encoder.flush("vm", &mut out).unwrap();
        assert_eq!(out, "vm> ab\n");
        encoder.push(b'\n', "vm", &mut out).unwrap();
        assert_eq!(out, "vm> ab\nvm| \n");
        encoder.push(b'\r', "vm", &mut out).unwrap();
        encoder.finish("vm", &mut out).unwrap();
        assert_eq!(out, "vm> ab\nvm| \nvm| \\x0d\n");
        assert!(!encoder.has_half_line());
    }

    /// What is flushed later is looked at each 20 ms until nothing is left: a progress bar that ended in a
    /// carriage return made that go on for ever.
    #[test]
    fn regression_a_carriage_return_at_the_end_is_not_flushed_for_ever() {
        let mut encoder = ConsoleEncoder::new();
        for (byte, waits) in [(b'\r', false), (b'9', true), (b'\r', true)] {
            encoder.push(byte, "vm", &mut String::new()).unwrap();
            assert_eq!(encoder.has_half_line(), waits);
        }
        encoder.flush("vm", &mut String::new()).unwrap();
        assert!(!encoder.has_half_line());
    }

    #[test]
    fn a_long_line_leaves_in_pieces_without_losing_a_byte() {
        let mut long = vec![b'x'; LINE_BYTES - 1];
        long.extend_from_slice(b"\ry\n");
        let expected = format!("vm> {}\nvm| \\x0dy\n", "x".repeat(LINE_BYTES - 1));
        assert_eq!(printed(&long), expected);
    }

    #[test]
    fn a_line_of_escapes_leaves_in_frames_that_are_no_longer_than_others() {
        let name = "a23456789012345";
        for text in [vec![0; 1000], vec![b'\r'; 1000], vec![b'\\'; 1000], {
            let mut text = vec![b'x'; LINE_BYTES - 1];
            text.push(b'\r');
            text
        }] {
            let mut out = String::new();
            let mut encoder = ConsoleEncoder::new();
            for &byte in &text {
                encoder.push(byte, name, &mut out).unwrap();
            }
            encoder.finish(name, &mut out).unwrap();
            let longest = out.lines().map(|line| line.len() as u64 + 1).max();
            assert!(longest.unwrap() <= FRAME_BYTES, "{longest:?}");
            assert!(longest.unwrap() >= FRAME_BYTES - 8, "{longest:?}");
        }
    }

    #[test]
    fn a_line_of_the_whole_length_is_one_frame_with_its_carriage_return() {
        let text = format!("{}\r\n", "x".repeat(LINE_BYTES - 1));
        assert_eq!(
            printed(text.as_bytes()),
            format!("vm| {}\n", "x".repeat(LINE_BYTES - 1))
        );
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "linux", "rt-0", "a23456789012345"] {
            assert!(is_console_name(good), "{good}");
        }
        for bad in [
            "",
            "0a",
            "-a",
            "Linux",
            "a234567890123456",
            "a b",
            "a|",
            "é",
        ] {
            assert!(!is_console_name(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_frame_is_printable_ascii_and_starts_with_the_name(
            bytes in proptest::collection::vec(any::<u8>(), 0..1000),
        ) {
            let out = printed(&bytes);
            prop_assert!(out.is_empty() || out.ends_with('\n'));
            for line in out.lines() {
                prop_assert!(line.starts_with("vm| ") || line.starts_with("vm> "), "{line}");
                prop_assert!(line.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
            }
        }
    }
}
