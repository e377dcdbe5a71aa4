// SPDX-License-Identifier: MIT OR Apache-2.0
//! The documents' command lines are understood.

use std::fs;
use std::path::Path;

use clap::Parser as _;

use crate::Cli;

/// Returns the words of a line that calls `firebreak`, by its name or out of the workspace.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ");
    let line = line.split([';', '|', '#', '>']).next()?;
    let rest = line
        .strip_prefix("firebreak ")
        .or_else(|| line.strip_prefix("cargo run -p firebreak-cli -- "))?;
    // A picture has the name in it, and nothing behind it.
    rest.split_whitespace().next()?;
    let words = rest.split_whitespace().map(|word| word.replace('"', ""));
    Some(["firebreak".to_owned()].into_iter().chain(words).collect())
}

#[test]
fn each_command_line_of_the_documents_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        files.push(entry.unwrap().path());
    }
    files.retain(|path| path.extension().is_some_and(|end| end == "md"));
    let mut count = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap().replace("\\\n", " ");
        // The even parts are prose, the odd ones blocks of code.
        let blocks = text.split("\n```").skip(1).step_by(2);
        for words in blocks.flat_map(str::lines).filter_map(words) {
            let fault = Cli::try_parse_from(&words).err();
            assert!(fault.is_none(), "{}: {words:?}: {fault:?}", file.display());
            count += 1;
        }
    }
    assert!(count > 8, "only {count} command lines were found");
}
