// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds the map of the code, `docs/architecture.md`, against the tree: whoever adds a crate, or a
//! module of the kernel, says there what it is for. And no file of the tree is too long to be read.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::paths;

/// Where the map is.
const MAP: &str = "docs/architecture.md";
/// The directory whose modules are on the map, besides the crates.
const MODULES: &str = "hypervisor/kernel/src";
/// Lines that a source file has at most.
const MOST_LINES: usize = 600;

/// Checks the tree as it is.
pub(crate) fn check() -> Result<()> {
    let root = paths::workspace();
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    let mut names = members(&read("Cargo.toml")?)?;
    let mut long = Vec::new();
    for name in &names {
        find_long(&root.join(name), &mut long)?;
    }
    if !long.is_empty() {
        bail!(
            "more than {MOST_LINES} lines, split it: {}",
            long.join(", ")
        );
    }
    names.extend(modules(&root.join(MODULES))?);
    let missing = missing(&read(MAP)?, &names);
    if !missing.is_empty() {
        bail!(
            "{MAP} does not say what these are for: {}",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Returns the paths of the workspace's members.
fn members(manifest: &str) -> Result<Vec<String>> {
    let value: toml::Table = toml::from_str(manifest).context("Cargo.toml")?;
    let members = value["workspace"]["members"].as_array();
    let members = members.context("Cargo.toml has no members")?;
    let names = members.iter().filter_map(toml::Value::as_str);
    Ok(names.map(str::to_owned).collect())
}

/// Returns the names of the modules in a directory.
fn modules(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "rs") {
            names.extend(
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort();
    Ok(names)
}

/// Finds the source files below a directory that are too long.
fn find_long(dir: &Path, long: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            find_long(&path, long)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            if text.lines().count() > MOST_LINES {
                long.push(path.display().to_string());
            }
        }
    }
    Ok(())
}

/// Returns the names that do not stand in a map as words of code.
fn missing(map: &str, names: &[String]) -> Vec<String> {
    let words: Vec<&str> = map.split('`').skip(1).step_by(2).collect();
    let is_there = |name: &String| words.iter().any(|word| word == name);
    names
        .iter()
        .filter(|name| !is_there(name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_names_each_crate_and_each_module_of_the_kernel() {
        check().unwrap();
    }

    #[test]
    fn a_file_that_is_too_long_is_named_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("whole.rs"), "\n".repeat(MOST_LINES)).unwrap();
        fs::write(inner.join("data.txt"), "\n".repeat(MOST_LINES + 1)).unwrap();
        let mut long = Vec::new();
        find_long(dir.path(), &mut long).unwrap();
        assert!(long.is_empty(), "{long:?}");
        fs::write(inner.join("long.rs"), "\n".repeat(MOST_LINES + 1)).unwrap();
        find_long(dir.path(), &mut long).unwrap();
        assert!(long.len() == 1 && long[0].ends_with("long.rs"), "{long:?}");
    }

    #[test]
    fn what_the_map_leaves_out_is_named() {
        let names = ["a/b", "sei.rs", "new.rs"].map(str::to_owned);
        let map = "| `a/b` | it |\n`sei.rs` and new.rs";
        assert_eq!(missing(map, &names), ["new.rs"]);
        let root = paths::workspace();
        let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
        assert!(
            members(&manifest)
                .unwrap()
                .contains(&"tools/xtask".to_owned())
        );
        let kernel = modules(&root.join(MODULES)).unwrap();
        assert!(kernel.contains(&"main.rs".to_owned()), "{kernel:?}");
    }
}
