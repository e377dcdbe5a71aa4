// SPDX-License-Identifier: MIT OR Apache-2.0
//! A new image for a partition, in pieces that fit a command line.
//!
//! The line may lose and damage bytes, so each piece has a check of its own, and the whole has one
//! too. They are against accidents: whoever can type commands can also send another image.

use crate::command::Refused;

/// The most bytes of one piece.
pub const PIECE_BYTES: usize = 48;
/// Characters that such a piece takes.
const PIECE_CHARS: usize = PIECE_BYTES / 3 * 4;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// CRC-32 of IEEE 802.3, over more and more bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crc32(u32);

impl Crc32 {
    /// The sum of nothing.
    pub const START: Self = Self(!0);

    /// Adds bytes.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        const POLYNOMIAL: u32 = 0xedb8_8320;
        let bit = |sum: u32| sum >> 1 ^ POLYNOMIAL & (sum & 1).wrapping_neg();
        let byte = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), |sum, _| bit(sum));
        Self(bytes.iter().fold(self.0, byte))
    }

    /// Returns the sum.
    pub const fn value(self) -> u32 {
        !self.0
    }
}

/// A piece of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where it begins in the image, in bytes.
    pub at: u64,
    bytes: [u8; PIECE_BYTES],
    len: usize,
}

impl Piece {
    /// Reads the text of a piece, base64 without padding, and holds its sum against it: that of
    /// the place, as 8 bytes in little endian, and the bytes.
    ///
    /// # Errors
    ///
    /// [`Refused::Piece`].
    pub fn parse(at: u64, crc: u32, text: &[u8]) -> Result<Self, Refused> {
        let mut piece = Self {
            at,
            bytes: [0; PIECE_BYTES],
            len: 0,
        };
        piece.decode(text).ok_or(Refused::Piece)?;
        if sum_of(at, piece.bytes()).value() != crc {
            return Err(Refused::Piece);
        }
        Ok(piece)
    }

    fn decode(&mut self, text: &[u8]) -> Option<()> {
        if text.is_empty() || text.len() > PIECE_CHARS {
            return None;
        }
        let (mut bits, mut count) = (0_u32, 0_u32);
        for character in text {
            let value = ALPHABET.iter().position(|one| one == character)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
            count += 6;
            if count >= 8 {
                count -= 8;
                let byte = u8::try_from(bits >> count & 0xff).ok()?;
                *self.bytes.get_mut(self.len)? = byte;
                self.len += 1;
                bits &= (1 << count) - 1;
            }
        }
        // A last character of which nothing is used, or bits that say nothing.
        (count < 6 && bits == 0).then_some(())
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

fn sum_of(at: u64, bytes: &[u8]) -> Crc32 {
    Crc32::START.with(&at.to_le_bytes()).with(bytes)
}

/// Writes a piece as [`Piece::parse`] reads it, behind its sum: for the host. Returns the sum and
/// the characters.
pub fn encode(at: u64, bytes: &[u8]) -> (u32, impl Iterator<Item = char> + '_) {
    let groups = bytes.chunks(3).flat_map(|group| {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let characters = [18, 12, 6, 0].map(|shift| {
            let index = usize::try_from(bits >> shift & 63).unwrap_or(0);
            char::from(ALPHABET.get(index).copied().unwrap_or(b'A'))
        });
        characters.into_iter().take(group.len() + 1)
    });
    (sum_of(at, bytes).value(), groups)
}

/// Why a transfer does not go on. What was received before stays as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferFault {
    /// The image has no bytes.
    Empty,
    /// It has more bytes than there is room for.
    TooLong,
    /// A piece does not begin where the last one ended.
    Gap,
    /// A piece reaches behind the end that was announced.
    Beyond,
    /// Not all of it has come.
    Incomplete,
    /// All of it has come, and its sum is another one.
    Sum,
}

impl TransferFault {
    /// Returns the reason and the remedy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "the image has no bytes",
            Self::TooLong => "the image is longer than the partition's reload_room",
            Self::Gap => "the piece does not begin where the last one ended: see `next`",
            Self::Beyond => "the piece reaches behind the end that was announced",
            Self::Incomplete => "not all of the image has come: see `next`",
            Self::Sum => "the image's sum is not the one that was announced; send it all again",
        }
    }
}

/// An image on its way. It holds none of the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    len_bytes: u64,
    crc: u32,
    received_bytes: u64,
    sum: Crc32,
}

impl Transfer {
    /// Begins.
    ///
    /// # Errors
    ///
    /// The image is empty, or longer than `room_bytes`.
    pub fn begin(len_bytes: u64, crc: u32, room_bytes: u64) -> Result<Self, TransferFault> {
        match len_bytes {
            0 => Err(TransferFault::Empty),
            _ if len_bytes > room_bytes => Err(TransferFault::TooLong),
            _ => Ok(Self {
                len_bytes,
                crc,
                received_bytes: 0,
                sum: Crc32::START,
            }),
        }
    }

    /// Returns where the next piece begins.
    pub const fn next(&self) -> u64 {
        self.received_bytes
    }

    /// Judges a piece: `true` if it is to be stored at its place and [taken](Self::take) then,
    /// `false` if it has come before, because an answer was lost.
    ///
    /// # Errors
    ///
    /// It does not follow what has come, or does not fit.
    pub fn judge(&self, piece: &Piece) -> Result<bool, TransferFault> {
        let len = u64::try_from(piece.bytes().len()).unwrap_or(u64::MAX);
        let end = piece.at.checked_add(len).ok_or(TransferFault::Beyond)?;
        if end > self.len_bytes {
            return Err(TransferFault::Beyond);
        }
        if piece.at == self.received_bytes {
            return Ok(true);
        }
        if end <= self.received_bytes {
            return Ok(false);
        }
        Err(TransferFault::Gap)
    }

    /// Counts a piece that was stored.
    pub fn take(&mut self, piece: &Piece) {
        if self.judge(piece) == Ok(true) {
            self.sum = self.sum.with(piece.bytes());
            let len = u64::try_from(piece.bytes().len()).unwrap_or(0);
            self.received_bytes += len;
        }
    }

    /// Ends: returns how long the image is.
    ///
    /// # Errors
    ///
    /// It is not whole, or not what was announced.
    pub fn finish(&self) -> Result<u64, TransferFault> {
        if self.received_bytes != self.len_bytes {
            return Err(TransferFault::Incomplete);
        }
        if self.sum.value() != self.crc {
            return Err(TransferFault::Sum);
        }
        Ok(self.len_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn piece(at: u64, bytes: &[u8]) -> Piece {
        let (crc, text) = encode(at, bytes);
        Piece::parse(at, crc, text.collect::<String>().as_bytes()).unwrap()
    }

    #[test]
    fn the_sum_is_that_of_ieee_802_3() {
        assert_eq!(Crc32::START.with(b"123456789").value(), 0xcbf4_3926);
        assert_eq!(Crc32::START.value(), 0);
    }

    #[test]
    fn base64_is_that_of_rfc_4648_without_padding() {
        for (bytes, text) in [
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(encode(0, bytes.as_bytes()).1.collect::<String>(), text);
        }
        for text in [
            "",
            "Z",
            "Zh",
            "Zm9",
            "Zm9v=",
            "Zm9-",
            &"A".repeat(PIECE_CHARS + 1),
        ] {
            let any = (0..=u32::MAX).step_by(1 << 28);
            let refused = |crc| Piece::parse(0, crc, text.as_bytes()) == Err(Refused::Piece);
            assert!(any.into_iter().all(refused), "{text}");
        }
    }

    #[test]
    fn pieces_follow_each_other_and_may_come_twice() {
        let image: Vec<u8> = (0..=99).collect();
        let crc = Crc32::START.with(&image).value();
        let mut transfer = Transfer::begin(100, crc, 100).unwrap();
        let (first, second) = (piece(0, &image[..48]), piece(48, &image[48..96]));
        let last = piece(96, &image[96..]);
        assert_eq!(transfer.judge(&second), Err(TransferFault::Gap));
        assert_eq!(transfer.judge(&first), Ok(true));
        transfer.take(&first);
        assert_eq!(transfer.judge(&first), Ok(false));
        transfer.take(&first);
        assert_eq!(transfer.next(), 48);
        assert_eq!(
            transfer.judge(&piece(40, &[0; 16])),
            Err(TransferFault::Gap)
        );
        transfer.take(&second);
        assert_eq!(transfer.finish(), Err(TransferFault::Incomplete));
        for (at, bytes) in [(96, 5), (99, 2), (u64::MAX, 1)] {
            let beyond = transfer.judge(&piece(at, &[0; 5][..bytes]));
            assert_eq!(beyond, Err(TransferFault::Beyond));
        }
        transfer.take(&last);
        assert_eq!(transfer.finish(), Ok(100));
    }

    #[test]
    fn another_sum_another_length_or_no_room_is_refused() {
        let begin = |len, room| Transfer::begin(len, 1, room);
        assert_eq!(begin(0, 10), Err(TransferFault::Empty));
        assert_eq!(begin(11, 10), Err(TransferFault::TooLong));
        assert_eq!(begin(u64::MAX, 0), Err(TransferFault::TooLong));
        let mut transfer = begin(3, 10).unwrap();
        transfer.take(&piece(0, b"abc"));
        assert_eq!(transfer.finish(), Err(TransferFault::Sum));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_and_no_damaged_character_is_believed(
            at: u64,
            bytes in proptest::collection::vec(any::<u8>(), 1..=PIECE_BYTES),
            hit: prop::sample::Index,
            other in 33_u8..127,
        ) {
            let (crc, text) = encode(at, &bytes);
            let mut text = text.collect::<String>().into_bytes();
            let good = Piece::parse(at, crc, &text).unwrap();
            prop_assert_eq!(good.bytes(), &bytes[..]);
            prop_assert!(Piece::parse(at.wrapping_add(1), crc, &text).is_err());
            let hit = hit.index(text.len());
            let same = text[hit] == other;
            text[hit] = other;
            prop_assert_eq!(Piece::parse(at, crc, &text).is_ok(), same);
            text.remove(hit);
            prop_assert!(Piece::parse(at, crc, &text).is_err());
        }
    }
}
