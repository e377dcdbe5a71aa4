// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds what others wrote against `deny.toml`: licenses, known traps, and where it comes from.
//!
//! It reads the same file as `cargo deny check licenses bans sources` and answers the same
//! questions about every package that any of our targets is built from, from `cargo metadata`
//! alone: no tool to install and no network. Advisories need both and are not asked for.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process;
use crate::{paths, targets};

/// What `deny.toml` says, as far as it is looked at here.
#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    /// `name`, or `name@<version`.
    #[serde(rename = "crate")]
    krate: String,
    reason: String,
}

/// What `cargo metadata` says.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    /// `None`: ours.
    source: Option<String>,
    license: Option<String>,
}

/// Checks everything that the lock file names for our targets.
pub(crate) fn check() -> Result<()> {
    let path = paths::workspace().join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rules: Rules = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let wrong = violations(&rules, &packages()?)?;
    if !wrong.is_empty() {
        bail!(
            "dependencies that deny.toml does not allow:\n  {}",
            wrong.join("\n  ")
        );
    }
    Ok(())
}

fn packages() -> Result<BTreeSet<Package>> {
    let host = process::output(process::cargo().arg("--version").arg("--verbose"))?;
    let host = host
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("cargo does not say what it runs on")?;
    let mut packages = BTreeSet::new();
    let triples = targets::ALL.iter().map(|group| group.triple);
    for triple in triples.chain([host]) {
        let args = ["metadata", "--format-version", "1", "--locked"];
        let mut command = process::cargo();
        command.args(args).args(["--filter-platform", triple]);
        let text = process::output(&mut command)?;
        let metadata: Metadata = serde_json::from_str(&text).context("reading cargo's metadata")?;
        packages.extend(metadata.packages);
    }
    Ok(packages)
}

fn violations(rules: &Rules, packages: &BTreeSet<Package>) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let sources: BTreeSet<&str> = packages
        .iter()
        .filter_map(|package| package.source.as_deref())
        .collect();
    if sources.len() > 1 {
        let sources: Vec<&str> = sources.iter().copied().collect();
        wrong.push(format!(
            "packages come from several places, not one registry: {}",
            sources.join(", ")
        ));
    }
    for package in packages.iter().filter(|package| package.source.is_some()) {
        let (name, version) = (&package.name, &package.version);
        if !package
            .source
            .as_deref()
            .is_some_and(|source| source.starts_with("registry+") || source.starts_with("sparse+"))
        {
            wrong.push(format!("{name} {version} does not come from a registry"));
        }
        let Some(license) = &package.license else {
            wrong.push(format!("{name} {version} names no license"));
            continue;
        };
        if !Expression::new(license).judge(&rules.licenses.allow)? {
            wrong.push(format!(
                "{name} {version} is under {license}: replace it, or allow it in deny.toml"
            ));
        }
        for ban in &rules.bans.deny {
            if is_banned(&ban.krate, name, version)? {
                wrong.push(format!("{name} {version} is banned: {}", ban.reason));
            }
        }
    }
    Ok(wrong)
}

fn is_banned(ban: &str, name: &str, version: &str) -> Result<bool> {
    let Some((banned, bound)) = ban.split_once("@<") else {
        return Ok(ban == name);
    };
    Ok(banned == name && numbers(version)? < numbers(bound)?)
}

/// Returns the numbers of a version. A pre-release counts as its release: it is never lower than
/// the version that a ban names by much.
fn numbers(version: &str) -> Result<Vec<u64>> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    core.split('.')
        .map(|part| part.parse().with_context(|| format!("version {version}")))
        .collect()
}

/// An SPDX license expression that is being read. `/` is the old way to write OR.
struct Expression {
    /// Words, in reverse.
    rest: Vec<String>,
    text: String,
}

impl Expression {
    fn new(text: &str) -> Self {
        let spaced = text
            .replace('(', " ( ")
            .replace(')', " ) ")
            .replace('/', " OR ");
        let mut rest: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
        rest.reverse();
        Self {
            rest,
            text: text.to_owned(),
        }
    }

    fn judge(mut self, allow: &[String]) -> Result<bool> {
        let allowed = self.either(allow)?;
        if !self.rest.is_empty() {
            bail!("`{}` is no license expression", self.text);
        }
        Ok(allowed)
    }

    fn takes(&mut self, word: &str) -> bool {
        let next = self.rest.last().is_some_and(|next| next == word);
        if next {
            self.rest.pop();
        }
        next
    }

    /// AND binds more tightly than OR.
    fn either(&mut self, allow: &[String]) -> Result<bool> {
        let mut allowed = self.both(allow)?;
        while self.takes("OR") {
            allowed |= self.both(allow)?;
        }
        Ok(allowed)
    }

    fn both(&mut self, allow: &[String]) -> Result<bool> {
        let mut allowed = self.one(allow)?;
        while self.takes("AND") {
            allowed &= self.one(allow)?;
        }
        Ok(allowed)
    }

    fn one(&mut self, allow: &[String]) -> Result<bool> {
        if self.takes("(") {
            let allowed = self.either(allow)?;
            if !self.takes(")") {
                bail!("`{}` lacks a closing parenthesis", self.text);
            }
            return Ok(allowed);
        }
        let mut license = match self.rest.pop() {
            Some(word) if !["AND", "OR", "WITH", ")"].contains(&word.as_str()) => word,
            _ => bail!("`{}` is no license expression", self.text),
        };
        if self.takes("WITH") {
            let exception = self.rest.pop().unwrap_or_default();
            license = format!("{license} WITH {exception}");
        }
        Ok(allow.contains(&license))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(text: &str) -> Result<bool> {
        let allow = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        Expression::new(text).judge(&allow)
    }

    #[test]
    fn what_this_workspace_is_built_from_is_allowed() {
        check().unwrap();
    }

    #[test]
    fn expressions_are_read_by_spdx_rules() {
        for text in [
            "MIT",
            "GPL-2.0 OR MIT",
            "MIT/GPL-2.0",
            "(GPL-2.0 OR MIT) AND Zlib",
            "Apache-2.0 WITH LLVM-exception",
            "MIT OR GPL-2.0 AND GPL-3.0",
        ] {
            assert!(is_allowed(text).unwrap(), "{text}");
        }
        for text in [
            "GPL-2.0",
            "MIT AND GPL-2.0",
            "Apache-2.0",
            "Apache-2.0 WITH GCC-exception",
            "(MIT OR Zlib) AND GPL-2.0",
        ] {
            assert!(!is_allowed(text).unwrap(), "{text}");
        }
        for text in ["", "MIT OR", "(MIT", "MIT)", "MIT Zlib", "AND"] {
            assert!(is_allowed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_packages_are_named() {
        let rules: Rules = toml::from_str(
            "licenses.allow = ['MIT']\n\
             bans.deny = [{ crate = 'old@<1.2.0', reason = 'a trap' }, { crate = 'bad', reason = 'worse' }]",
        )
        .unwrap();
        let package =
            |name: &str, version: &str, source: Option<&str>, license: Option<&str>| Package {
                name: name.to_owned(),
                version: version.to_owned(),
                source: source.map(str::to_owned),
                license: license.map(str::to_owned),
            };
        let here = Some("registry+here");
        let packages = BTreeSet::from([
            package("ours", "0.1.0", None, None),
            package("fine", "1.0.0", here, Some("MIT")),
            package("old", "1.1.9", here, Some("MIT")),
            package("bad", "9.0.0", here, Some("MIT")),
            package("strict", "1.0.0", here, Some("GPL-2.0")),
            package("silent", "1.0.0", here, None),
            package("far", "1.0.0", Some("git+there"), Some("MIT")),
        ]);
        let wrong = violations(&rules, &packages).unwrap().join("\n");
        for expected in [
            "several places",
            "old 1.1.9 is banned: a trap",
            "bad 9.0.0 is banned: worse",
            "strict 1.0.0 is under GPL-2.0",
            "silent 1.0.0 names no license",
            "far 1.0.0 does not come from a registry",
        ] {
            assert!(wrong.contains(expected), "{expected} in:\n{wrong}");
        }
        assert_eq!(wrong.lines().count(), 6, "{wrong}");
        assert!(!is_banned("old@<1.2.0", "old", "1.10.0-rc1").unwrap());
    }
}
