// SPDX-License-Identifier: MIT OR Apache-2.0
//! Patterns with `*`: enough for a line of a console and for a name, and they never fail.

/// Says whether `text` is what `pattern` describes: `*` stands for any characters, `|` between
/// whole patterns for "or".
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    pattern.split('|').any(|one| matches_one(one.trim(), text))
}

fn matches_one(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = rest.get(at + piece.len()..).unwrap_or(""),
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_a_bar_for_or() {
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("*", "anything"),
            ("a*", "abc"),
            ("*c", "abc"),
            ("a*c", "ac"),
            ("a*b*c", "axbxc"),
            ("uer|ueu", "ueu"),
            ("*panic*", "Kernel panic - not"),
        ] {
            assert!(matches(pattern, text), "{pattern} on {text}");
        }
        for (pattern, text) in [
            ("a", "ab"),
            ("a*", "ba"),
            ("a*c", "cb"),
            ("ab*bc", "abc"),
            ("uer|ueu", "ueo"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, text), "{pattern} on {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_text_with_pieces_taken_out_is_matched(
            pieces in proptest::collection::vec("[a-c]{0,4}", 1..5),
            between in proptest::collection::vec("[a-c ]{0,4}", 5),
        ) {
            let pattern = pieces.join("*");
            let mut text = String::new();
            for (index, piece) in pieces.iter().enumerate() {
                if index > 0 {
                    text += &between[index];
                }
                text += piece;
            }
            proptest::prop_assert!(matches(&pattern, &text));
        }
    }
}
