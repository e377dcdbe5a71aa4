// SPDX-License-Identifier: MIT OR Apache-2.0
//! Just enough JSON to write one flat object, and numbers without `core::fmt`'s machinery.

use core::fmt::{self, Write};

const HEX_DIGITS: [char; 16] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
];

/// Returns the hexadecimal digit of the lowest four bits.
pub(crate) fn hex_digit(nibble: u64) -> char {
    HEX_DIGITS
        .get((nibble & 0xf) as usize)
        .copied()
        .unwrap_or('0')
}

/// Writes `value` as `0x...` in lower case without leading zeros.
///
/// # Errors
///
/// Returns what `w` returns.
pub fn write_hex(w: &mut dyn Write, value: u64) -> fmt::Result {
    w.write_str("0x")?;
    let mut shift = (u64::BITS - value.leading_zeros()).saturating_sub(1) & !3;
    loop {
        w.write_char(hex_digit(value >> shift))?;
        if shift == 0 {
            return Ok(());
        }
        shift -= 4;
    }
}

/// Writes `value` as a decimal number.
///
/// # Errors
///
/// Returns what `w` returns.
pub fn write_decimal(w: &mut dyn Write, value: u64) -> fmt::Result {
    let mut unit = 1;
    while value / unit >= 10 {
        unit *= 10;
    }
    while unit != 0 {
        w.write_char(hex_digit(value / unit % 10))?;
        unit /= 10;
    }
    Ok(())
}

/// Writes `text` as a JSON string, quotes included (RFC 8259, 7).
///
/// Control characters, the record separator and the line feed among them, leave as `\u00XX`, so
/// that an event is always one line.
pub(crate) fn write_string(w: &mut dyn Write, text: &str) -> fmt::Result {
    w.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => w.write_str("\\\"")?,
            '\\' => w.write_str("\\\\")?,
            '\0'..='\x1f' | '\x7f' => {
                w.write_str("\\u00")?;
                w.write_char(hex_digit(u64::from(u32::from(c) >> 4)))?;
                w.write_char(hex_digit(u64::from(u32::from(c))))?;
            }
            _ => w.write_char(c)?,
        }
    }
    w.write_char('"')
}

/// One JSON object that is being written; the brace is open already.
///
/// Errors of the sink are remembered and told at the end, so that an event reads as the list of
/// its members.
pub(crate) struct Object<'w> {
    w: &'w mut dyn Write,
    empty: bool,
    result: fmt::Result,
}

impl<'w> Object<'w> {
    /// Opens an object.
    pub(crate) fn open(w: &'w mut dyn Write) -> Self {
        let result = w.write_char('{');
        Self {
            w,
            empty: true,
            result,
        }
    }

    fn key(&mut self, key: &str) {
        if self.result.is_ok() {
            self.result = self.try_key(key);
        }
    }

    fn try_key(&mut self, key: &str) -> fmt::Result {
        if !self.empty {
            self.w.write_char(',')?;
        }
        self.empty = false;
        self.w.write_char('"')?;
        self.w.write_str(key)?;
        self.w.write_str("\":")
    }

    fn value(&mut self, key: &str, write: impl FnOnce(&mut dyn Write) -> fmt::Result) -> &mut Self {
        self.key(key);
        if self.result.is_ok() {
            self.result = write(self.w);
        }
        self
    }

    /// Adds a count.
    pub(crate) fn num(&mut self, key: &str, value: u64) -> &mut Self {
        self.value(key, |w| write_decimal(w, value))
    }

    /// Adds a count, or null.
    pub(crate) fn opt_num(&mut self, key: &str, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.num(key, value),
            None => self.null(key),
        }
    }

    /// Adds an address or a syndrome, as a string.
    pub(crate) fn hex(&mut self, key: &str, value: u64) -> &mut Self {
        self.value(key, |w| write_quoted_hex(w, value))
    }

    /// Adds an address, or null.
    pub(crate) fn opt_hex(&mut self, key: &str, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.hex(key, value),
            None => self.null(key),
        }
    }

    /// Adds a string.
    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.value(key, |w| write_string(w, value))
    }

    /// Adds a string, or null.
    pub(crate) fn opt_text(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(key, value),
            None => self.null(key),
        }
    }

    /// Adds a truth value.
    pub(crate) fn flag(&mut self, key: &str, value: bool) -> &mut Self {
        self.value(key, |w| w.write_str(if value { "true" } else { "false" }))
    }

    fn null(&mut self, key: &str) -> &mut Self {
        self.value(key, |w| w.write_str("null"))
    }

    /// Adds an array, each item written by `item`.
    pub(crate) fn array<T>(
        &mut self,
        key: &str,
        items: &[T],
        item: fn(&mut dyn Write, &T) -> fmt::Result,
    ) -> &mut Self {
        self.value(key, |w| {
            w.write_char('[')?;
            for (index, each) in items.iter().enumerate() {
                if index != 0 {
                    w.write_char(',')?;
                }
                item(w, each)?;
            }
            w.write_char(']')
        })
    }

    /// Closes the object, and says whether all went well.
    pub(crate) fn close(self) -> fmt::Result {
        self.result?;
        self.w.write_char('}')
    }
}

/// Writes `value` as a JSON string `"0x..."`.
pub(crate) fn write_quoted_hex(w: &mut dyn Write, value: u64) -> fmt::Result {
    w.write_char('"')?;
    write_hex(w, value)?;
    w.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_what_the_standard_library_writes(value: u64, shift in 0..64_u32) {
            for value in [value >> shift, 0, 9, 10, u64::MAX] {
                let mut text = String::new();
                write_decimal(&mut text, value).unwrap();
                prop_assert_eq!(text, value.to_string());
                let mut text = String::new();
                write_hex(&mut text, value).unwrap();
                prop_assert_eq!(text, format!("{value:#x}"));
            }
        }

        #[test]
        fn any_string_survives_json_and_stays_on_its_line(text: String) {
            let mut json = String::new();
            write_string(&mut json, &text).unwrap();
            prop_assert!(!json.bytes().any(|byte| byte < 0x20));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
