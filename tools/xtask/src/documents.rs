// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the documents promise: links that lead somewhere, and commands that exist.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};

use crate::{Cli, paths};

/// A document: where it is, and what it says.
struct Document {
    path: PathBuf,
    text: String,
}

fn documents() -> Vec<Document> {
    let root = paths::workspace();
    let mut files = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for dir in ["docs", "docs/adr", "docs/results"] {
        let entries = fs::read_dir(root.join(dir)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.retain(|path| path.extension().is_some_and(|end| end == "md"));
    let read = |path: PathBuf| Document {
        text: fs::read_to_string(&path).unwrap(),
        path,
    };
    files.into_iter().map(read).collect()
}

/// Returns the lines outside of code blocks, or inside of them; continued lines are one.
fn lines(text: &str, inside: bool) -> Vec<String> {
    let mut code = false;
    let mut found = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        if line.starts_with("```") {
            code = !code;
        } else if code == inside {
            found.push(line.to_owned());
        }
    }
    found
}

/// Returns the targets of the links in a text.
fn links(text: &str) -> Vec<String> {
    let text = lines(text, false).join("\n");
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .filter(|target| !target.contains("://"))
        .collect()
}

/// Returns the anchors of a text's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let anchor = |line: &String| -> String {
        line.trim_start_matches('#')
            .trim()
            .to_lowercase()
            .replace(' ', "-")
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
            .collect()
    };
    let lines = lines(text, false);
    let headings = lines.iter().filter(|line| line.starts_with('#'));
    headings.map(anchor).collect()
}

/// Says what is wrong with a link of a document.
fn broken(from: &Path, link: &str) -> Option<String> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => from.to_owned(),
        _ => from.parent()?.join(file),
    };
    if !target.exists() {
        return Some(format!("{}: no file for {link}", from.display()));
    }
    let there = || anchors(&fs::read_to_string(&target).unwrap());
    (!anchor.is_empty() && !there().iter().any(|one| one == anchor))
        .then(|| format!("{}: no heading for {link}", from.display()))
}

#[test]
fn each_link_leads_somewhere() {
    let mut count = 0;
    for document in documents() {
        for link in links(&document.text) {
            assert_eq!(broken(&document.path, &link), None);
            count += 1;
        }
    }
    assert!(count > 20, "only {count} links were found");
}

#[test]
fn a_dead_link_is_found() {
    let readme = paths::workspace().join("README.md");
    assert!(broken(&readme, "docs/nowhere.md").is_some());
    assert!(broken(&readme, "docs/partitions.md#nowhere").is_some());
    assert!(broken(&readme, "docs/partitions.md#the-board-file").is_none());
}

/// Returns the command lines of a document that begin with `start`, in blocks and in the text.
fn commands(text: &str, start: &str) -> Vec<Vec<String>> {
    let mut found: Vec<String> = lines(text, true);
    for line in lines(text, false) {
        let spans = line.split('`').skip(1).step_by(2);
        found.extend(spans.map(str::to_owned));
    }
    let words = |line: &String| -> Option<Vec<String>> {
        let line = line.trim_start_matches("$ ").split(['#', '|']).next()?;
        let rest = line.trim().strip_prefix(start)?;
        let words = rest.split_whitespace().map(|word| word.replace('"', ""));
        rest.starts_with(' ').then(|| words.collect())
    };
    found.iter().filter_map(words).collect()
}

#[test]
fn each_xtask_command_is_understood() {
    let mut count = 0;
    for document in documents() {
        for words in commands(&document.text, "cargo xtask") {
            let line = ["cargo xtask".to_owned()].into_iter().chain(words.clone());
            let fault = Cli::try_parse_from(line).err();
            let fault = fault.filter(clap::Error::use_stderr);
            assert!(fault.is_none(), "{}: {words:?}", document.path.display());
            count += 1;
        }
    }
    assert!(count > 10, "only {count} commands were found");
}

#[test]
fn each_help_has_examples_that_are_understood() {
    let mut count = 0;
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let help = command.clone().render_long_help().to_string();
        assert!(!help.contains("\\\""), "{name}: {help}");
        let (_, examples) = help.split_once("Examples:\n").expect(name);
        // What is said of an example stands three spaces behind it.
        let lines = examples.lines().map(|line| line.trim_start());
        let lines = lines.map(|line| line.split("   ").next().unwrap_or(line));
        for line in lines.filter(|line| line.starts_with("cargo xtask")) {
            let words = line.trim_start_matches("cargo xtask").split_whitespace();
            let fault = Cli::try_parse_from(["cargo xtask"].into_iter().chain(words)).err();
            assert!(fault.is_none(), "{name}: {line}: {fault:?}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} examples were found");
}

/// The files that the tutorial names in the clone are those that the build makes.
#[test]
fn the_tutorial_takes_what_the_build_makes() {
    let text = fs::read_to_string(paths::workspace().join("docs/tutorial.md")).unwrap();
    let named = text.split("$FIREBREAK/target/firebreak/").skip(1);
    let guests: Vec<_> = crate::targets::GUESTS.packages.iter().collect();
    let mut count = 0;
    for name in named.filter_map(|rest| rest.split_once('"')) {
        let known = match name.0.strip_prefix("guests/") {
            Some(guest) => guests
                .iter()
                .any(|package| guest == format!("{}.bin", package.replace("firebreak-guest-", ""))),
            None => matches!(name.0, "hypervisor.bin" | "firmware.bin"),
        };
        assert!(known, "{} is not built", name.0);
        count += 1;
    }
    assert!(count >= 3, "only {count} files were found");
}
