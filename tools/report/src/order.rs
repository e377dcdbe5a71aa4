// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order in which names are shown: numbers in them count as numbers.

use std::cmp::Ordering;

/// A part of a name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    /// Digits: how many count, and which (so that no length is too long).
    Number(usize, &'a str),
    /// Anything else.
    Text(&'a str),
}

/// Compares two names as a person would order them: `a/2` before `a/10`, `0x9` before `0x11`.
///
/// The same names are equal, and no others.
#[must_use]
pub fn natural(one: &str, other: &str) -> Ordering {
    parts(one)
        .cmp(parts(other))
        .then_with(|| one.len().cmp(&other.len()))
        .then_with(|| one.cmp(other))
}

fn parts(name: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = name;
    let mut hex = false;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        if hex || first.is_ascii_digit() {
            let is_digit = |c: char| c.is_ascii_digit() || hex && c.is_ascii_hexdigit();
            let end = rest.find(|c| !is_digit(c)).unwrap_or(rest.len());
            let (digits, after) = rest.split_at(end);
            let begins_hex = !hex
                && digits == "0"
                && after.starts_with('x')
                && after[1..].starts_with(|c: char| c.is_ascii_hexdigit());
            hex = false;
            if begins_hex {
                hex = true;
                rest = &after[1..];
                return Some(Part::Text("0x"));
            }
            rest = after;
            let digits = digits.trim_start_matches('0');
            return Some(Part::Number(digits.len(), digits));
        }
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (text, after) = rest.split_at(end);
        rest = after;
        Some(Part::Text(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        let ordered = [
            "0x0/el0/0",
            "0x9/el0/0",
            "0x11/el0/0",
            "0x11/el0/2",
            "0x11/el0/10",
            "0x1a/el0/0",
            "0x100/el0",
            "ce",
            "ue",
            "ue0x",
            "ue1",
            "ue01",
            "ue99999999999999999999999",
            "ueo",
        ];
        for (index, one) in ordered.iter().enumerate() {
            for (other_index, other) in ordered.iter().enumerate() {
                let expected = index.cmp(&other_index);
                assert_eq!(natural(one, other), expected, "{one} {other}");
            }
        }
    }
}
