// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads where this machine gets its packages, and derives what we add from it.
//!
//! Both of APT's formats are read (sources.list(5)): one line an entry, and deb822 stanzas. No
//! host name is known here: a machine behind a mirror stays behind its mirror.

use std::fmt::Write;

/// One package source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// The value of `Signed-By` as it stands, which may be a key over many lines.
    signed_by: Option<String>,
    /// Whether the machine trusts it without a signature (an intranet's mirror).
    trusted: bool,
}

impl Source {
    fn has_suite(&self, suite: &str) -> bool {
        self.suites.iter().any(|each| each == suite) && self.components.iter().any(|c| c == "main")
    }

    /// Says whether it looks like the archive of Debian itself, not of somebody who builds for it.
    fn is_debian_archive(&self) -> bool {
        let is_debian = |uri: &String| uri.trim_end_matches('/').ends_with("/debian");
        self.signed_by
            .as_ref()
            .is_some_and(|key| key.contains("debian-archive"))
            || self.uris.iter().any(is_debian)
    }

    /// Writes it as a deb822 stanza for another suite.
    fn stanza(&self, suite: &str) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "Types: deb\nURIs: {}\nSuites: {suite}",
            self.uris.join(" ")
        );
        let _ = writeln!(text, "Components: main");
        if let Some(key) = &self.signed_by {
            let _ = writeln!(text, "Signed-By: {key}");
        }
        if self.trusted {
            let _ = writeln!(text, "Trusted: yes");
        }
        text
    }
}

/// Reads a `*.sources` file; stanzas that are disabled or not for binaries are left out.
pub(super) fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza_to_source(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza_to_source(fields: &[(String, String)]) -> Option<Source> {
    let field = |key: &str| {
        fields
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    };
    let words = |key: &str| -> Vec<String> {
        field(key)
            .map(|value| value.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let disabled = field("enabled").is_some_and(|value| value == "no");
    if disabled || !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").cloned(),
        trusted: field("trusted").is_some_and(|value| value == "yes"),
    })
}

/// Reads a `sources.list` or `*.list` file.
pub(super) fn parse_one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(line_to_source).collect()
}

fn line_to_source(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line
        .strip_prefix("deb")?
        .strip_prefix([' ', '\t'])?
        .trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => ("", rest),
    };
    let option = |key: &str| {
        options
            .split_whitespace()
            .find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: option("signed-by").map(str::to_owned),
        trusted: option("trusted") == Some("yes"),
    })
}

/// Finds the source of the release itself; Debian's own archive before anybody else's.
fn release<'a>(sources: &'a [Source], codename: &str) -> Option<&'a Source> {
    let with_suite = || sources.iter().filter(|source| source.has_suite(codename));
    with_suite()
        .find(|source| source.is_debian_archive())
        .or_else(|| with_suite().next())
}

/// Returns a stanza for the backports of the release, from where the release itself comes.
pub(super) fn backports(sources: &[Source], codename: &str) -> Option<String> {
    Some(release(sources, codename)?.stanza(&format!("{codename}-backports")))
}

/// Returns stanzas for the release and, where the machine has it, its security updates.
pub(super) fn release_and_security(sources: &[Source], codename: &str) -> Option<String> {
    let mut text = release(sources, codename)?.stanza(codename);
    let security = format!("{codename}-security");
    if let Some(source) = sources.iter().find(|source| source.has_suite(&security)) {
        text.push('\n');
        text.push_str(&source.stanza(&security));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb
# a comment inside
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb-src
URIs: http://mirror.example/src
Suites: bookworm
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
";

    #[test]
    fn backports_come_from_where_the_release_comes() {
        let expected = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\n\
                        Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        assert_eq!(
            backports(&parse_deb822(DEB822), "bookworm").unwrap(),
            expected
        );
        assert_eq!(backports(&parse_deb822(DEB822), "trixie"), None);
    }

    #[test]
    fn one_line_entries_keep_their_key_and_their_trust() {
        let list = "\
# deb http://old.example/debian bookworm main
deb-src http://src.example/debian bookworm main
deb [arch=amd64 signed-by=/k/other.gpg] https://vendor.example/apt bookworm main
deb [signed-by=/k/debian.gpg trusted=yes] http://10.0.0.1/debian/ bookworm main contrib # here
";
        let sources = parse_one_line(list);
        assert_eq!(sources.len(), 2);
        assert_eq!(
            backports(&sources, "bookworm").unwrap(),
            "Types: deb\nURIs: http://10.0.0.1/debian/\nSuites: bookworm-backports\n\
             Components: main\nSigned-By: /k/debian.gpg\nTrusted: yes\n"
        );
    }

    #[test]
    fn a_key_over_many_lines_stays_whole() {
        let text = "Types: deb\nURIs: http://m.example/debian\nSuites: trixie\nComponents: main\n\
                    Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n";
        let stanza = backports(&parse_deb822(text), "trixie").unwrap();
        assert!(stanza.ends_with("Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"));
        assert_eq!(parse_deb822(&stanza)[0].suites, ["trixie-backports"]);
    }

    #[test]
    fn the_kernel_may_come_from_the_security_updates() {
        let text = release_and_security(&parse_deb822(DEB822), "bookworm").unwrap();
        let again = parse_deb822(&text);
        assert_eq!(again.len(), 2);
        assert_eq!(again[1].uris, ["http://mirror.example/debian-security"]);
        let without = parse_one_line("deb http://m.example/debian bookworm main");
        assert_eq!(
            parse_deb822(&release_and_security(&without, "bookworm").unwrap()).len(),
            1
        );
    }
}
