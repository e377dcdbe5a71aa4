// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is typed on the shared line, and whom it is for.

use crate::command::{COMMAND_BYTES, Command, Refused};

/// Ctrl-A: the next byte is for the hypervisor.
pub const ESCAPE: u8 = 0x01;
/// Behind Ctrl-A: a command line follows.
pub const COMMAND: u8 = b':';

/// What a typed byte means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// A byte for a partition's console.
    Byte {
        /// Number of the partition.
        partition: u8,
        /// The byte.
        byte: u8,
    },
    /// From here on, bytes go to this partition.
    Focus(u8),
    /// Ctrl-A with a digit that no partition has; the focus stays.
    NoSuchPartition(u8),
    /// A whole command line.
    Command(Command),
}

/// Follows Ctrl-A sequences.
///
/// Ctrl-A and a digit moves the focus, Ctrl-A twice sends one Ctrl-A, Ctrl-A and a colon begins a
/// command that a line feed or a carriage return ends, Ctrl-A and anything else is dropped, both
/// bytes of it. Ctrl-A inside a command drops the command: after a line feed that was lost, the
/// next command is understood.
pub struct InputDecoder {
    partitions: u8,
    focus: u8,
    escaped: bool,
    /// A command is being read; this many bytes of it have come, perhaps more than fit.
    command: Option<usize>,
    line: [u8; COMMAND_BYTES],
}

impl InputDecoder {
    /// Makes one for partitions 0 up to, not including, `partitions`, with the focus on partition 0.
    pub const fn new(partitions: u8) -> Self {
        Self {
            partitions,
            focus: 0,
            escaped: false,
            command: None,
            line: [0; COMMAND_BYTES],
        }
    }

    /// Returns the partition that gets what is typed.
    pub const fn focus(&self) -> u8 {
        self.focus
    }

    /// Takes one byte.
    pub fn push(&mut self, byte: u8) -> Option<Input> {
        if core::mem::take(&mut self.escaped) {
            return match byte {
                ESCAPE => self.byte(ESCAPE),
                b'0'..=b'9' => Some(self.switch_to(byte - b'0')),
                COMMAND => {
                    self.command = Some(0);
                    None
                }
                _ => None,
            };
        }
        if byte == ESCAPE {
            self.escaped = true;
            self.command = None;
            return None;
        }
        match self.command {
            Some(len) => self.command_byte(len, byte),
            None => self.byte(byte),
        }
    }

    fn command_byte(&mut self, len: usize, byte: u8) -> Option<Input> {
        if !matches!(byte, b'\n' | b'\r') {
            if let Some(slot) = self.line.get_mut(len) {
                *slot = byte;
            }
            self.command = Some(len.saturating_add(1));
            return None;
        }
        self.command = None;
        let command = match self.line.get(..len) {
            Some(line) => Command::parse(line),
            None => Command {
                id: None,
                request: Err(Refused::TooLong),
            },
        };
        Some(Input::Command(command))
    }

    fn byte(&self, byte: u8) -> Option<Input> {
        (self.focus < self.partitions).then_some(Input::Byte {
            partition: self.focus,
            byte,
        })
    }

    fn switch_to(&mut self, digit: u8) -> Input {
        if digit < self.partitions {
            self.focus = digit;
            Input::Focus(digit)
        } else {
            Input::NoSuchPartition(digit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Request;
    use proptest::prelude::*;

    fn typed(partitions: u8, bytes: &[u8]) -> Vec<Input> {
        let mut decoder = InputDecoder::new(partitions);
        bytes
            .iter()
            .filter_map(|&byte| decoder.push(byte))
            .collect()
    }

    #[test]
    fn the_focus_moves_by_ctrl_a_and_a_digit() {
        let byte = |partition, byte| Input::Byte { partition, byte };
        assert_eq!(
            typed(3, b"a\x012b\x01\x01\x019c\x01xd"),
            [
                byte(0, b'a'),
                Input::Focus(2),
                byte(2, b'b'),
                byte(2, ESCAPE),
                Input::NoSuchPartition(9),
                byte(2, b'c'),
                byte(2, b'd'),
            ]
        );
        assert_eq!(typed(0, b"abc"), []);
    }

    fn command(id: Option<u64>, request: Result<Request, Refused>) -> Input {
        Input::Command(Command { id, request })
    }

    #[test]
    fn a_command_is_a_line_of_its_own_between_typed_bytes() {
        let byte = |byte| Input::Byte { partition: 0, byte };
        for end in [b'\n', b'\r'] {
            let mut bytes = b"a\x01:ps id=3".to_vec();
            bytes.extend([end, b'b']);
            assert_eq!(
                typed(1, &bytes),
                [byte(b'a'), command(Some(3), Ok(Request::Ps)), byte(b'b')]
            );
        }
        // Without partitions there are still commands.
        assert_eq!(typed(0, b"\x01:ps\n"), [command(None, Ok(Request::Ps))]);
    }

    #[test]
    fn noise_costs_the_command_that_it_hits_and_no_other() {
        // A lost line feed: the next command is understood.
        assert_eq!(
            typed(1, b"\x01:stop x\x01:ps\n"),
            [command(None, Ok(Request::Ps))]
        );
        // A line without end is bounded, and refused once.
        let mut long = b"\x01:ps".to_vec();
        long.extend([b' '; 1000]);
        long.extend(b"\n\x01:ps\n");
        assert_eq!(
            typed(1, &long),
            [
                command(None, Err(Refused::TooLong)),
                command(None, Ok(Request::Ps))
            ]
        );
        let mut longest = b"\x01:ps".to_vec();
        longest.extend([b' '; COMMAND_BYTES - 2]);
        longest.push(b'\n');
        assert_eq!(typed(1, &longest), [command(None, Ok(Request::Ps))]);
        longest.insert(4, b' ');
        assert_eq!(typed(1, &longest), [command(None, Err(Refused::TooLong))]);
        assert_eq!(
            typed(1, b"\x01:p\xffs id=4\n"),
            [command(Some(4), Err(Refused::Damaged))]
        );
        assert_eq!(typed(1, b"\x01\x02:ps\n").len(), 4, "typed bytes only");
    }

    proptest! {
        #[test]
        fn after_any_noise_a_command_is_understood(
            noise in proptest::collection::vec(prop_oneof![Just(ESCAPE), Just(COMMAND), any::<u8>()], 0..300),
        ) {
            // An escape that the noise left half done takes the next byte with it.
            let mut bytes = noise;
            bytes.extend(b"\n\x01:ps id=9\n");
            prop_assert_eq!(typed(2, &bytes).pop(), Some(command(Some(9), Ok(Request::Ps))));
        }

        #[test]
        fn no_input_reaches_a_partition_that_is_not_there(
            partitions in 0..=8_u8,
            bytes in proptest::collection::vec(prop_oneof![Just(ESCAPE), any::<u8>()], 0..200),
        ) {
            for input in typed(partitions, &bytes) {
                match input {
                    Input::Byte { partition, .. } | Input::Focus(partition) => {
                        prop_assert!(partition < partitions);
                    }
                    Input::NoSuchPartition(digit) => prop_assert!(digit >= partitions),
                    Input::Command(_) => {}
                }
            }
        }
    }
}
