// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes the shared serial line apart again: events, frames of guests' consoles, plain lines.
//!
//! What is not exactly what `firebreak-wire` writes is a plain line: text of a machine that
//! reset in the middle of a line, or of a firmware that knows nothing of all this.

use firebreak_wire::{RECORD_SEPARATOR, SCHEMA_VERSION, is_console_name};
use serde_json::Value;

/// A longer line is cut: it is noise, and must not eat the host's memory.
const LONGEST_LINE_BYTES: usize = 64 * 1024;

/// One event of the hypervisor, with its members by name.
#[derive(Clone, PartialEq, Debug)]
pub struct Event(Value);

impl Event {
    /// Accepts a JSON object with the version that is known here and a name.
    pub fn new(value: Value) -> Option<Self> {
        let known = value.get("v").and_then(Value::as_u64) == Some(SCHEMA_VERSION);
        (known && value.get("ev").is_some_and(Value::is_string)).then_some(Self(value))
    }

    /// Returns the name of the event.
    pub fn name(&self) -> &str {
        self.text("ev").unwrap_or("")
    }

    /// Returns the whole object.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// Returns a member that is a string.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// Returns a member that is a count.
    pub fn num(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.as_u64()
    }

    /// Returns a member that is a truth value.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.0.get(key)?.as_bool()
    }

    /// Returns a member that is an address or a syndrome, `"0x..."`.
    pub fn hex(&self, key: &str) -> Option<u64> {
        u64::from_str_radix(self.text(key)?.strip_prefix("0x")?, 16).ok()
    }
}

/// One piece of the stream.
#[derive(Clone, PartialEq, Debug)]
pub enum Item {
    /// The hypervisor's event.
    Event(Event),
    /// A frame of a guest's console, with the very bytes that the guest wrote.
    Console {
        /// Name of the partition.
        name: String,
        /// What it wrote, without the line feed.
        bytes: Vec<u8>,
        /// Whether the guest ended the line here.
        newline: bool,
    },
    /// Any other line.
    Plain(String),
}

/// Takes bytes as they come, and gives items as they end.
#[derive(Default)]
pub struct Demux {
    line: Vec<u8>,
    in_event: bool,
}

impl Demux {
    /// Makes one that stands at the start of a line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes some bytes, and appends the items that ended with them.
    pub fn push(&mut self, bytes: &[u8], items: &mut Vec<Item>) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(items),
                RECORD_SEPARATOR => {
                    self.give_up(items);
                    self.in_event = true;
                }
                _ => {
                    self.line.push(byte);
                    if self.line.len() >= LONGEST_LINE_BYTES {
                        self.give_up(items);
                    }
                }
            }
        }
    }

    /// Ends the stream: an unfinished line comes out as plain text.
    pub fn finish(&mut self, items: &mut Vec<Item>) {
        self.give_up(items);
    }

    /// Lets a torn line out as what it is.
    fn give_up(&mut self, items: &mut Vec<Item>) {
        if !self.line.is_empty() {
            items.push(plain(&self.line));
            self.line.clear();
        }
        self.in_event = false;
    }

    fn end_line(&mut self, items: &mut Vec<Item>) {
        let item = if self.in_event {
            event(&self.line)
        } else {
            console(&self.line)
        };
        items.push(item.unwrap_or_else(|| plain(&self.line)));
        self.line.clear();
        self.in_event = false;
    }
}

fn plain(line: &[u8]) -> Item {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Item::Plain(String::from_utf8_lossy(line).into_owned())
}

fn event(line: &[u8]) -> Option<Item> {
    Event::new(serde_json::from_slice(line).ok()?).map(Item::Event)
}

fn console(line: &[u8]) -> Option<Item> {
    let end = line.iter().position(|byte| matches!(byte, b'|' | b'>'))?;
    let (name, rest) = line.split_at(end);
    let name = std::str::from_utf8(name)
        .ok()
        .filter(|name| is_console_name(name))?;
    let text = rest.get(1..)?.strip_prefix(b" ")?;
    Some(Item::Console {
        name: name.to_owned(),
        bytes: unescape(text)?,
        newline: rest.first() == Some(&b'|'),
    })
}

/// Undoes the escapes; `None` for anything that the encoder would not have written.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        let plain = match byte {
            b'\\' if rest.first() == Some(&b'\\') => {
                rest = rest.get(1..)?;
                b'\\'
            }
            b'\\' => {
                let code = rest.strip_prefix(b"x")?;
                let (high, low) = (hex_value(*code.first()?)?, hex_value(*code.get(1)?)?);
                rest = code.get(2..)?;
                let value = high << 4 | low;
                if (0x20..=0x7e).contains(&value) {
                    return None;
                }
                value
            }
            0x20..=0x7e => byte,
            _ => return None,
        };
        bytes.push(plain);
    }
    Some(bytes)
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebreak_wire::{ConsoleEncoder, write_event};
    use proptest::prelude::*;

    fn items(bytes: &[u8]) -> Vec<Item> {
        let mut items = Vec::new();
        let mut demux = Demux::new();
        demux.push(bytes, &mut items);
        demux.finish(&mut items);
        items
    }

    fn console_item(name: &str, bytes: &[u8], newline: bool) -> Item {
        Item::Console {
            name: name.to_owned(),
            bytes: bytes.to_vec(),
            newline,
        }
    }

    #[test]
    fn the_three_kinds_are_told_apart() {
        let got = items(
            b"firebreak: hello\r\n\x1e{\"v\":1,\"t\":7,\"ev\":\"halt\",\"pa\":\"0x1f\"}\n\
              linux| a\\\\b\nlinux> $ \nvictim| \n",
        );
        assert_eq!(got[0], Item::Plain("firebreak: hello".to_owned()));
        let Item::Event(event) = &got[1] else {
            panic!("{got:?}")
        };
        assert_eq!(
            (event.name(), event.num("t"), event.hex("pa")),
            ("halt", Some(7), Some(0x1f))
        );
        assert_eq!(
            got[2..],
            [
                console_item("linux", b"a\\b", true),
                console_item("linux", b"$ ", false),
                console_item("victim", b"", true)
            ]
        );
    }

    #[test]
    fn what_the_encoder_would_not_write_is_plain() {
        for line in [
            "Linux| x",
            "linux|x",
            "linux| \\x41",
            "linux| \\x0A",
            "linux| \\n",
            "linux| \\",
            "linux| \\x0",
            "linux| \u{e9}",
            "\u{1e}{\"v\":2,\"ev\":\"halt\"}",
            "\u{1e}{\"v\":1}",
            "\u{1e}[]",
            "\u{1e}not json",
        ] {
            let got = items(format!("{line}\n").as_bytes());
            assert!(matches!(&got[..], [Item::Plain(_)]), "{line}: {got:?}");
        }
    }

    #[test]
    fn an_event_after_a_torn_line_is_not_lost() {
        let got = items(b"linux| half a li\x1e{\"v\":1,\"ev\":\"boot\"}\n\x1e{\"v\":1,\x1e{\"v\":1,\"ev\":\"halt\"}\n");
        assert!(matches!(&got[0], Item::Plain(text) if text == "linux| half a li"));
        assert!(matches!(&got[1], Item::Event(event) if event.name() == "boot"));
        assert!(matches!(&got[2], Item::Plain(_)));
        assert!(matches!(&got[3], Item::Event(event) if event.name() == "halt"));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let noise = vec![b'x'; 3 * LONGEST_LINE_BYTES];
        assert_eq!(items(&noise).len(), 3);
    }

    /// Bytes that a mean guest would choose, and any others.
    fn guest_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            Just(b"\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n\x1e{\"v\":1,\"t\":1,\"ev\":\"killed\",\"vm\":0}\n".to_vec()),
            Just(b"control| control: missed=1\n".to_vec()),
            Just(b"firebreak: panic\n".to_vec()),
            Just(b"\\x1e\\".to_vec()),
            Just(vec![b'a'; 127]),
        ];
        proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// Three guests and the hypervisor write in turns; each finds its own again, and nothing else.
        #[test]
        fn no_guest_forges_and_every_byte_comes_back(
            turns in proptest::collection::vec((0..3_usize, guest_bytes(), any::<bool>()), 0..12),
            cut in 1..50_usize,
        ) {
            let names = ["linux", "control", "victim"];
            let mut encoders: Vec<_> = names.iter().map(|_| ConsoleEncoder::new()).collect();
            let mut wrote = [const { Vec::new() }; 3];
            let mut out = String::new();
            let mut events = 0;
            for (who, bytes, flush) in turns {
                for &byte in &bytes {
                    encoders[who].push(byte, names[who], &mut out).unwrap();
                }
                wrote[who].extend_from_slice(&bytes);
                if flush {
                    encoders[who].flush(names[who], &mut out).unwrap();
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                write_event(&mut out, 1, &firebreak_wire::Event::Panic { pe: 0, text: &text }).unwrap();
                events += 1;
            }
            for (who, name) in names.iter().enumerate() {
                encoders[who].flush(name, &mut out).unwrap();
            }
            let mut got = Vec::new();
            let mut demux = Demux::new();
            for piece in out.as_bytes().chunks(cut) {
                demux.push(piece, &mut got);
            }
            demux.finish(&mut got);
            let mut read = [const { Vec::new() }; 3];
            for item in got {
                match item {
                    Item::Event(event) => {
                        prop_assert_eq!(event.name(), "panic");
                        events -= 1;
                    }
                    Item::Console { name, bytes, newline } => {
                        let who = names.iter().position(|known| *known == name).unwrap();
                        read[who].extend_from_slice(&bytes);
                        if newline {
                            read[who].push(b'\n');
                        }
                    }
                    Item::Plain(text) => prop_assert!(false, "plain: {text}"),
                }
            }
            prop_assert_eq!(events, 0);
            for (wrote, read) in wrote.iter().zip(&read) {
                prop_assert_eq!(without_dropped_returns(wrote), read.clone());
            }
        }

        /// Any noise at all, and any cut of a good stream: no panic, and what is whole is found.
        #[test]
        fn noise_does_no_harm(noise in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut stream = noise;
            stream.extend_from_slice(b"\n\x1e{\"v\":1,\"ev\":\"boot\"}\nlinux| hi\n");
            let got = items(&stream);
            let (last, before) = got.split_last().unwrap();
            prop_assert_eq!(last, &console_item("linux", b"hi", true));
            prop_assert!(matches!(before.last(), Some(Item::Event(_))));
        }
    }

    /// A carriage return before a line feed is dropped by design; one at the very end is held back.
    fn without_dropped_returns(bytes: &[u8]) -> Vec<u8> {
        let mut kept = Vec::new();
        for (index, &byte) in bytes.iter().enumerate() {
            let next = bytes.get(index + 1);
            if byte != b'\r' || next.is_some_and(|next| *next != b'\n') {
                kept.push(byte);
            }
        }
        kept
    }
}
