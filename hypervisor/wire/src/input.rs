// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is typed on the shared line, and whom it is for.

/// Ctrl-A: the next byte is for the hypervisor.
pub const ESCAPE: u8 = 0x01;

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
}

/// Follows Ctrl-A sequences.
///
/// Ctrl-A and a digit moves the focus, Ctrl-A twice sends one Ctrl-A, Ctrl-A and anything else is
/// dropped, both bytes of it.
pub struct InputDecoder {
    partitions: u8,
    focus: u8,
    escaped: bool,
}

impl InputDecoder {
    /// Makes one for partitions 0 up to, not including, `partitions`, with the focus on partition 0.
    pub const fn new(partitions: u8) -> Self {
        Self {
            partitions,
            focus: 0,
            escaped: false,
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
                _ => None,
            };
        }
        if byte == ESCAPE {
            self.escaped = true;
            return None;
        }
        self.byte(byte)
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

    proptest! {
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
                }
            }
        }
    }
}
