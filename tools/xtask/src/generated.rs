// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parts of a document that are made from data: between `<!-- generated:NAME -->` and `<!-- end:NAME -->`.

use anyhow::{Context, Result};

/// Returns a text with another part of this name.
pub(crate) fn with_part(text: &str, name: &str, part: &str) -> Result<String> {
    let open = format!("<!-- generated:{name} -->\n");
    let close = format!("<!-- end:{name} -->");
    let (before, rest) = text
        .split_once(&open)
        .with_context(|| format!("there is no place for the generated part `{name}`"))?;
    let (_, after) = rest
        .split_once(&close)
        .with_context(|| format!("the generated part `{name}` has no end"))?;
    Ok(format!("{before}{open}\n{part}\n{close}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_this_name_alone_is_another_one() {
        let place = |name: &str| format!("<!-- generated:{name} -->\nold\n<!-- end:{name} -->");
        let text = format!("a\n{}\nb\n{}\nc\n", place("x"), place("y"));
        let new = with_part(&text, "y", "new").unwrap();
        let expected = format!(
            "a\n{}\nb\n<!-- generated:y -->\n\nnew\n<!-- end:y -->\nc\n",
            place("x")
        );
        assert_eq!(new, expected);
        assert!(with_part(&text, "z", "new").is_err());
    }
}
