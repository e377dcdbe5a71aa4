// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines of guests: words and `key=value`.

/// Returns the number behind `key=` in a guest's line, decimal or `0x...`.
pub fn field(line: &str, key: &str) -> Option<u64> {
    let value = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))?;
    match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_whole_word_and_a_number() {
        let line = "victim: serror n=1 esr=0xbe000c11 far=none";
        assert_eq!(field(line, "esr"), Some(0xbe00_0c11));
        assert_eq!(field(line, "n"), Some(1));
        for missing in ["sr", "far", "x", ""] {
            assert_eq!(field(line, missing), None, "{missing}");
        }
    }
}
