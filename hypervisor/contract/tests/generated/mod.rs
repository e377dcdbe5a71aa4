// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sections of a document that are written by the code that they describe.
//!
//! A section stands between `<!-- generated:NAME -->` and `<!-- end:NAME -->`. The test fails
//! when it is not what the code says; with `FIREBREAK_BLESS=1` it rewrites the document instead.

use std::fmt::Write as _;
use std::path::PathBuf;

/// Checks or rewrites the sections of one document, named relative to `docs/`.
pub(crate) fn check(document: &str, sections: &[(&str, String)]) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).join(document);
    let old = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut new = old.clone();
    for (name, body) in sections {
        let (open, close) = (
            format!("<!-- generated:{name} -->"),
            format!("<!-- end:{name} -->"),
        );
        let start = new
            .find(&open)
            .unwrap_or_else(|| panic!("docs/{document} has no line {open}"));
        let end = new
            .find(&close)
            .unwrap_or_else(|| panic!("docs/{document} has no line {close}"));
        new.replace_range(
            start + open.len()..end,
            &format!("\n\n{}\n\n", body.trim_end()),
        );
    }
    if std::env::var_os("FIREBREAK_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &new)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    } else {
        assert!(
            old == new,
            "docs/{document} is not what the code says: run this test with FIREBREAK_BLESS=1, \
             and look at the difference"
        );
    }
}

/// Formats a Markdown table.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    writeln!(text, "| {} |", head.join(" | ")).unwrap();
    writeln!(text, "|{}", " --- |".repeat(head.len())).unwrap();
    for row in rows {
        assert_eq!(row.len(), head.len(), "{row:?}");
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    text
}
