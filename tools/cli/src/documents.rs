// SPDX-License-Identifier: MIT OR Apache-2.0
//! The documents' command lines are understood.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory as _, Parser as _};

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

/// Returns the command lines of a help text's examples, without what is said of them.
fn examples(help: &str) -> Vec<String> {
    let (_, examples) = help.split_once("Examples:\n").unwrap_or_default();
    examples
        .replace("\\\n      ", "")
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split("  ").next())
        .map(str::to_owned)
        .collect()
}

/// Holds a command's help, and that of its own commands; returns how many examples there were.
fn hold_help(command: &Command, name: &str) -> usize {
    let help = command.clone().render_long_help().to_string();
    assert!(!help.contains("\\\""), "{name}: {help}");
    assert!(help.contains("Examples:\n"), "{name} has no examples");
    let mut count = 0;
    for words in examples(&help).iter().filter_map(|line| words(line)) {
        let fault = Cli::try_parse_from(&words).err();
        assert!(fault.is_none(), "{name}: {words:?}: {fault:?}");
        count += 1;
    }
    assert!(count > 0, "{name} has no example that calls firebreak");
    let inner = command
        .get_subcommands()
        .filter(|inner| inner.get_name() != "help");
    count
        + inner
            .map(|inner| hold_help(inner, inner.get_name()))
            .sum::<usize>()
}

#[test]
fn each_example_of_the_help_is_understood() {
    let count = hold_help(&Cli::command(), "firebreak");
    assert!(count > 50, "only {count} examples were found");
}

/// The results that are kept are what the page beside them says of them.
#[test]
fn the_page_of_results_says_what_the_files_hold() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/results");
    let page = fs::read_to_string(dir.join("README.md")).unwrap();
    let mut count = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "jsonl") {
            continue;
        }
        let results = firebreak_report::read_file(&path).unwrap();
        let expected = firebreak_report::Counts::of(&results.cases).expected;
        let (plan, of) = (&results.run.plan, results.run.cases);
        let row = format!(
            "| `{plan}` | {} of {of} | {expected} |",
            results.cases.len()
        );
        assert!(
            page.contains(&row),
            "docs/results/README.md has no row {row}"
        );
        count += 1;
    }
    assert!(count >= 3, "only {count} results were found");
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
