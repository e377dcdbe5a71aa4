// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each mistake in `tests/corpus/manifest-bad` is refused with exactly the words beside it.
//!
//! `FIREBREAK_BLESS=1 cargo test -p firebreak-image --test corpus` writes the words anew; read
//! the difference before it is committed.

use std::fs;
use std::path::Path;

use firebreak_image::{Options, check};

/// Files that there are at least; raise it with the corpus. 60 are promised.
const MISTAKES: usize = 232;

#[test]
fn every_mistake_is_told_in_the_words_that_stand_beside_it() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/manifest-bad");
    // Messages name files as the user does, so the names must not depend on the clone's place.
    std::env::set_current_dir(&corpus).unwrap();
    let bless = std::env::var_os("FIREBREAK_BLESS").is_some();
    let options = Options {
        payloads: Some("payloads".into()),
        hypervisor: None,
    };
    let mut count = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(".").unwrap() {
        let file = entry
            .unwrap()
            .path()
            .strip_prefix(".")
            .unwrap()
            .to_path_buf();
        let is = |wanted| file.extension().is_some_and(|one| one == wanted);
        if !is("toml") && !is("dts") {
            continue;
        }
        count += 1;
        let Err(diagnostics) = check(&file, &options) else {
            wrong.push(format!("{}: accepted", file.display()));
            continue;
        };
        assert!(diagnostics.has_errors());
        for problem in &diagnostics.problems {
            assert!(!problem.remedy.is_empty(), "{}: no remedy", file.display());
            assert!(problem.span.is_some(), "{}: no line", file.display());
        }
        // A program is told the same, with the place in numbers.
        let json = diagnostics.to_json();
        for (problem, object) in diagnostics.problems.iter().zip(json.as_array().unwrap()) {
            assert_eq!(object["message"], problem.message.as_str());
            assert_eq!(object["remedy"], problem.remedy.as_str());
            assert!(object["line"].as_u64() >= Some(1) && object["column"].as_u64() >= Some(1));
        }
        let told = diagnostics.render(false);
        let words = file.with_extension("stderr");
        if bless {
            fs::write(&words, &told).unwrap();
        }
        let expected = fs::read_to_string(&words).unwrap_or_default();
        if told != expected {
            wrong.push(format!(
                "{}:\n{told}\ninstead of:\n{expected}",
                file.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        count >= MISTAKES,
        "only {count} mistakes: the corpus never shrinks"
    );
}
